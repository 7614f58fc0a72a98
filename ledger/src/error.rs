//! What can break: the errors of opening, asking and closing a ledger.

use std::io;
use std::path::{Path, PathBuf};

/// Something broke while the ledger worked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(
    clippy::error_impl_error,
    reason = "read as `ledger::Error`, as the crate's face has it"
)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {what} {path}")]
    File {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The view's database failed.
    #[error("cannot {what} the view in {path}")]
    View {
        /// The operation.
        what: &'static str,
        /// The database.
        path: PathBuf,
        /// What it says.
        #[source]
        source: io::Error,
    },
    /// The journal is damaged where no crash can have damaged it.
    #[error("the journal is damaged: {fault}")]
    Corrupt {
        /// Where and how.
        #[source]
        fault: Fault,
    },
    /// A thread of the ledger has ended before its time.
    #[error("the ledger's {thread} thread has failed")]
    Thread {
        /// Which.
        thread: &'static str,
    },
}

/// Damage in the journal, with its place.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("segment {segment} at byte {offset} (command {lsn}, entry {seq}): {what}")]
pub struct Fault {
    /// The segment's number.
    pub segment: u32,
    /// The byte offset of the frame or record in the segment.
    pub offset: u64,
    /// The first command that it concerns: the one after the last good one, or the bad one.
    pub lsn: u64,
    /// The entry that it concerns, or would be next.
    pub seq: u64,
    /// What is wrong.
    pub what: String,
}

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("{path} is in use by another process")]
    InUse {
        /// The ledger's directory.
        path: PathBuf,
    },
    /// An option lies outside its bounds.
    #[error("option {key} {fault}")]
    Options {
        /// The option.
        key: &'static str,
        /// What is wrong with it.
        fault: String,
    },
    /// Something broke, or the journal is damaged.
    #[error("cannot open the ledger")]
    Ledger(#[source] Error),
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Ledger(error)
    }
}

/// A command was not taken. Nothing was recorded; trying again later is safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Busy {
    /// As many commands as may wait are waiting.
    #[error("the ledger's queue is full")]
    QueueFull,
    /// There is no room for another hold on the disk.
    #[error("the disk has no room for another journal segment")]
    NoRoom,
    /// The journal cannot be written any more, or the ledger is closed.
    #[error("the ledger cannot be written")]
    NotWritable,
}

/// A command was taken but has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failed {
    /// There was no room on the disk. Nothing was recorded.
    #[error("the disk has no room for the command")]
    NoRoom,
    /// Writing failed or the ledger was closed: whether the command was recorded shows after the
    /// next start.
    #[error("the ledger could not be written")]
    NotWritable,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// `from` or `to` lies within a window.
    #[error("{field} is not on a border of the windows; the nearest is {nearest}")]
    Border {
        /// `from` or `to`.
        field: &'static str,
        /// The nearest border, in microseconds since the epoch.
        nearest: i64,
    },
    /// A parameter has a value that it cannot have.
    #[error("{field} {fault}")]
    Invalid {
        /// The parameter.
        field: &'static str,
        /// What is wrong with it.
        fault: String,
    },
    /// The view cannot be read now; it is rebuilt at the next start.
    #[error("the view cannot be read")]
    ViewUnavailable,
    /// The journal or the view could not be read.
    #[error("cannot read the ledger")]
    Read(#[source] Error),
}

impl From<Error> for QueryError {
    fn from(error: Error) -> Self {
        Self::Read(error)
    }
}

/// What an I/O error on a file of the ledger's becomes.
pub(crate) fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File {
        what,
        path: path.clone(),
        source,
    }
}

/// Why a verification failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The journal is not what the ledger writes.
    #[error("the journal does not verify")]
    Fault(#[source] Fault),
    /// It could not be read.
    #[error("cannot verify the journal")]
    Read(#[source] Error),
}

impl From<Error> for VerifyError {
    fn from(error: Error) -> Self {
        match error {
            Error::Corrupt { fault } => Self::Fault(fault),
            other => Self::Read(other),
        }
    }
}
