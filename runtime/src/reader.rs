//! The reader: shows the files of a sandbox that has ended, from inside its root.
//!
//! ```text
//! forked by the shim -> shim::keep shuts it in -> run: Ready -> loop: List -> Listed | Refused
//!                                                               Read -> Piece  | Refused
//! ```
//!
//! It stands where the tenant's code stood: the same user, filter and group, with the sandbox's
//! root, read only, for its own, and no process of the tenant's beside it. Whatever the tenant has
//! left there is opened by it alone. Nothing changes under it, so that what it has looked at is
//! what it opens; links lead nowhere but within that root.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::fstatat;

use crate::launcher::kernel;
use crate::wire::{
    self, Answer, Ask, CHUNK_MAX, Entry, FromReader, INIT_FRAME_MAX, PATH_MAX, ToReader,
};

/// What an entry's numbers take in a frame at most, in bytes.
const ENTRY_HEAD: usize = 24;

/// Answers until the socket is closed; the answer is the exit code.
///
/// The process's directory is the root that is shown.
pub(crate) fn run(socket: &OwnedFd) -> u8 {
    let ready = FromReader {
        seq: 0,
        answer: Answer::Ready,
    };
    if wire::send(socket.as_fd(), &ready, INIT_FRAME_MAX, &[]).is_err() {
        return 1;
    }
    loop {
        // A frame that is not one, or with descriptors, is nothing that the server sends.
        let (request, descriptors) = match wire::recv::<ToReader>(socket.as_fd(), INIT_FRAME_MAX) {
            Ok(Some(found)) => found,
            Ok(None) => return 0,
            Err(_) => return 1,
        };
        if !descriptors.is_empty() {
            return 1;
        }
        let answer = answer(&request.ask).unwrap_or_else(|error| Answer::Refused {
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        });
        let frame = FromReader {
            seq: request.seq,
            answer,
        };
        if wire::send(socket.as_fd(), &frame, INIT_FRAME_MAX, &[]).is_err() {
            return 1;
        }
    }
}

fn answer(ask: &Ask) -> io::Result<Answer> {
    match ask {
        Ask::List { path, from, most } => list(path, *from, *most),
        Ask::Read { path, offset, len } => read(path, *offset, *len),
    }
}

/// Reads a piece of a regular file. Nothing else is opened: a pipe could wait, a device could act.
fn read(path: &[u8], offset: u64, len: u32) -> io::Result<Answer> {
    let seen = File::from(open(path, OFlag::O_PATH)?).metadata()?;
    check_file(&seen)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::from(open(path, flags)?);
    let opened = file.metadata()?;
    check_file(&opened)?;
    if (opened.dev(), opened.ino()) != (seen.dev(), seen.ino()) {
        return Err(Errno::ESTALE.into());
    }
    // Behind the end there is nothing, however far: the kernel has a bound of its own there.
    let left = opened.len().saturating_sub(offset).min(len.into());
    let len = usize::try_from(left).unwrap_or(CHUNK_MAX).min(CHUNK_MAX);
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        let at = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
        match file.read_at(bytes.get_mut(filled..).unwrap_or_default(), at) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(Answer::Piece {
        size: opened.len(),
        bytes,
    })
}

fn check_file(metadata: &std::fs::Metadata) -> io::Result<()> {
    match metadata.file_type() {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_dir() => Err(Errno::EISDIR.into()),
        _ => Err(Errno::ENXIO.into()),
    }
}

/// Lists a directory from an entry on, as many as fit one frame; links are not followed.
fn list(path: &[u8], from: u64, most: u32) -> io::Result<Answer> {
    let dir = open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    let mut dir = Dir::from(dir)?;
    let raw = dir.as_raw_fd();
    let (mut left_out, mut room) = (from, CHUNK_MAX);
    let mut entries = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if left_out > 0 {
            left_out -= 1;
            continue;
        }
        let cost = name.to_bytes().len() + ENTRY_HEAD;
        if entries.len() >= usize::try_from(most).unwrap_or(0) || cost > room {
            return Ok(Answer::Listed {
                entries,
                more: true,
            });
        }
        room -= cost;
        // A directory that may be read but not entered tells names only.
        let stat = fstatat(Some(raw), name, AtFlags::AT_SYMLINK_NOFOLLOW).ok();
        entries.push(Entry {
            name: name.to_bytes().to_vec(),
            mode: stat.map_or(0, |stat| stat.st_mode),
            size: stat.map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0)),
        });
    }
    Ok(Answer::Listed {
        entries,
        more: false,
    })
}

/// Opens a path in the root that is this process's directory, through links that stay in it.
fn open(path: &[u8], flags: OFlag) -> io::Result<OwnedFd> {
    if path.len() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG.into());
    }
    kernel::open_in_root(path, flags.bits())
}

#[cfg(test)]
mod tests;
