//! The frames between the server and a reader, which shows the files of a sandbox that has ended.

use serde::{Deserialize, Serialize};

use super::frames::bytes;

/// Longest path in a request, in bytes: the kernel's bound without its NUL.
pub(crate) const PATH_MAX: usize = 4095;

/// From server to reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToReader {
    /// Comes back with the answer: whoever asked may have stopped waiting.
    pub(crate) seq: u32,
    /// What is asked.
    pub(crate) ask: Ask,
}

/// What can be asked about a path, which is absolute inside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// What is in a directory.
    List {
        /// Which, at most [`PATH_MAX`] bytes.
        #[serde(with = "bytes")]
        path: Vec<u8>,
        /// How many entries to leave out.
        from: u64,
        /// How many to tell; fewer come where a frame holds no more.
        most: u32,
    },
    /// A piece of a file.
    Read {
        /// Which, at most [`PATH_MAX`] bytes.
        #[serde(with = "bytes")]
        path: Vec<u8>,
        /// Where the piece begins.
        offset: u64,
        /// How long it is at most; never more than [`super::CHUNK_MAX`].
        len: u32,
    },
}

/// From reader to server. Hostile: it comes from inside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FromReader {
    /// As asked; 0 before anything was.
    pub(crate) seq: u32,
    /// What there is.
    pub(crate) answer: Answer,
}

/// What a reader answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// First frame: it is where it must be, has nothing else, and listens.
    Ready,
    /// First and only frame: it could not get there.
    Unable {
        /// What it was doing and what went wrong, clipped.
        reason: String,
    },
    /// A part of a directory.
    Listed {
        /// In the directory's own order, which stays as it is.
        entries: Vec<Entry>,
        /// Whether there are more behind them.
        more: bool,
    },
    /// A piece of a file; shorter than asked only at the file's end, or where a frame ends.
    Piece {
        /// The whole file's, in bytes.
        size: u64,
        /// The piece.
        #[serde(with = "bytes")]
        bytes: Vec<u8>,
    },
    /// It cannot be shown.
    Refused {
        /// `EISDIR` of a directory that was to be read, `ENXIO` of a thing that is no file.
        errno: i32,
    },
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its name: any bytes but `/` and NUL, at most 255.
    #[serde(with = "bytes")]
    pub(crate) name: Vec<u8>,
    /// The kernel's `st_mode`, kind and permissions.
    pub(crate) mode: u32,
    /// In bytes; of a link, the length of its target.
    pub(crate) size: u64,
}
