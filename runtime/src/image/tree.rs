//! One walk over an image's tree: refuses what no sandbox may have as its root, and computes the
//! digest.
//!
//! The canonical manifest has one record for each entry, the root (an empty path) included; a
//! directory comes before its entries, and these are in the order of their names' bytes:
//!
//! ```text
//! KIND MODE UID GID SIZE CONTENT PATH NUL
//! ```
//!
//! separated by single spaces. KIND is `d`, `f` or `l`; MODE is the permission bits in octal;
//! numbers are decimal. SIZE and CONTENT are, for a file, its length and the hex SHA-256 of its
//! bytes; for a link, the length of its target and the hex SHA-256 of that; for a directory `0 -`.
//! Times, link counts and inode numbers are not part of it. What else could make two trees of one
//! digest differ is refused: extended attributes, devices, sockets.

use std::ffi::CString;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};

use super::flaw::{self, Bound, Bounds, Flaw};
use super::{Error, needs};
use crate::launcher::kernel;
use crate::spec::{Digest, hex};

/// The host's own label, on every file where it labels files at all; no image brings one along.
const HOST_LABEL: &[u8] = b"security.selinux";

/// What the walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    pub(super) entries: u64,
}

/// Walks the tree at `root`; `tick` is called before each entry and may end the walk.
pub(super) fn summarise(
    root: &Path,
    bounds: &Bounds,
    tick: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<Summary, Error> {
    let opened = File::open(root).map_err(Error::io("open", root))?;
    needs::check(opened.as_fd()).map_err(|(name, flaw)| unsafe_entry(Path::new(name), flaw))?;
    let mut walk = Walk {
        root,
        opened,
        bounds,
        manifest: Sha256::new(),
        size_bytes: 0,
        entries: 0,
        buffer: vec![0; 1 << 16],
    };
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        tick()?;
        let metadata = walk.entry(&path)?;
        if metadata.is_dir() {
            let room = bounds.entries.saturating_sub(walk.entries);
            let listed = u64::try_from(todo.len()).unwrap_or(u64::MAX);
            let below = walk.children(&path, room.saturating_sub(listed))?;
            todo.extend(below.into_iter().rev());
        }
    }
    Ok(Summary {
        digest: Digest(walk.manifest.finalize().into()),
        size_bytes: walk.size_bytes,
        entries: walk.entries,
    })
}

fn unsafe_entry(path: &Path, flaw: Flaw) -> Error {
    Error::Unsafe {
        entry: flaw::escape_path(path.as_os_str().as_bytes()),
        flaw,
    }
}

struct Walk<'a> {
    root: &'a Path,
    opened: File,
    bounds: &'a Bounds,
    manifest: Sha256,
    size_bytes: u64,
    entries: u64,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    /// The entries of a directory, sorted by name; at most `room`.
    fn children(&self, path: &Path, room: u64) -> Result<Vec<PathBuf>, Error> {
        let full = self.root.join(path);
        let mut found = Vec::new();
        for entry in fs::read_dir(&full).map_err(Error::io("list", &full))? {
            let entry = entry.map_err(Error::io("list", &full))?;
            found.push(path.join(entry.file_name()));
            if u64::try_from(found.len()).unwrap_or(u64::MAX) > room {
                return Err(beyond(path, Bound::Entries, self.bounds.entries));
            }
        }
        found.sort_unstable_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
        Ok(found)
    }

    /// Checks one entry and adds its record.
    fn entry(&mut self, path: &Path) -> Result<Metadata, Error> {
        self.entries += 1;
        check_path(path)?;
        let full = self.root.join(path);
        let metadata = fs::symlink_metadata(&full).map_err(Error::io("look at", &full))?;
        let kind = metadata.file_type();
        check_owner_and_mode(path, &metadata)?;
        check_attributes(path, &full)?;
        let (letter, content) = if kind.is_dir() {
            ("d", "0 -".to_owned())
        } else if kind.is_symlink() {
            ("l", link_record(path, &full)?)
        } else if kind.is_file() {
            let (len, hash) = self.hash_file(path, metadata.len())?;
            ("f", format!("{len} {hash}"))
        } else if kind.is_block_device() || kind.is_char_device() {
            return Err(unsafe_entry(path, Flaw::Device));
        } else {
            return Err(unsafe_entry(path, Flaw::Special));
        };
        let mode = metadata.mode() & 0o7777;
        let (uid, gid) = (metadata.uid(), metadata.gid());
        self.manifest
            .update(format!("{letter} {mode:o} {uid} {gid} {content} "));
        self.manifest.update(path.as_os_str().as_bytes());
        self.manifest.update([0]);
        Ok(metadata)
    }

    /// Length and hash of a file that says that it has `told` bytes; what is too long is not read.
    fn hash_file(&mut self, path: &Path, told: u64) -> Result<(u64, String), Error> {
        let (file_max, tree_max) = (self.bounds.file_bytes, self.bounds.tree_bytes);
        if told > file_max {
            return Err(beyond(path, Bound::FileBytes, file_max));
        }
        if told > tree_max.saturating_sub(self.size_bytes) {
            return Err(beyond(path, Bound::TreeBytes, tree_max));
        }
        let flags = (OFlag::O_RDONLY | OFlag::O_NONBLOCK).bits();
        let name = path.as_os_str().as_bytes();
        let file = kernel::open_beneath(self.opened.as_fd(), name, flags);
        let file = File::from(file.map_err(Error::io("open", self.root.join(path)))?);
        let mut file = file.take(told);
        let mut hash = Sha256::new();
        let mut len = 0_u64;
        loop {
            let got = file.read(&mut self.buffer);
            let got = got.map_err(Error::io("read", self.root.join(path)))?;
            if got == 0 {
                break;
            }
            hash.update(&self.buffer[..got]);
            len += u64::try_from(got).unwrap_or(u64::MAX);
        }
        self.size_bytes += len;
        Ok((len, hex(&hash.finalize())))
    }
}

fn beyond(path: &Path, bound: Bound, max: u64) -> Error {
    unsafe_entry(path, Flaw::Beyond { bound, max })
}

/// Length and depth of a path; both keep the walk itself, and every removal, within their means.
fn check_path(path: &Path) -> Result<(), Error> {
    let long = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let bytes = long(path.as_os_str().len());
    if bytes > flaw::PATH_BYTES_MAX {
        return Err(beyond(path, Bound::PathBytes, flaw::PATH_BYTES_MAX));
    }
    if long(path.components().count()) > flaw::DEPTH_MAX {
        return Err(beyond(path, Bound::Depth, flaw::DEPTH_MAX));
    }
    Ok(())
}

fn check_owner_and_mode(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    for id in [metadata.uid(), metadata.gid()].map(u64::from) {
        if id > flaw::ID_MAX {
            return Err(unsafe_entry(path, Flaw::ForeignId { id }));
        }
    }
    if metadata.mode() & 0o6000 != 0 {
        return Err(unsafe_entry(path, Flaw::SetId));
    }
    Ok(())
}

/// File capabilities are attributes, and so is what tells an overlay to hide a directory or to look
/// elsewhere.
fn check_attributes(path: &Path, full: &Path) -> Result<(), Error> {
    let name = CString::new(full.as_os_str().as_bytes());
    let names = name
        .map_err(std::io::Error::other)
        .and_then(|full| kernel::attribute_names(&full))
        .map_err(Error::io("list the attributes of", full))?;
    let mut names = names.split(|byte| *byte == 0);
    match names.find(|name| !name.is_empty() && *name != HOST_LABEL) {
        Some(name) => {
            let name = flaw::escape(name);
            Err(unsafe_entry(path, Flaw::Attribute { name }))
        }
        None => Ok(()),
    }
}

fn link_record(path: &Path, full: &Path) -> Result<String, Error> {
    let target = fs::read_link(full).map_err(Error::io("read", full))?;
    let target = target.as_os_str().as_bytes();
    let len = u64::try_from(target.len()).unwrap_or(u64::MAX);
    if len > flaw::TARGET_BYTES_MAX {
        return Err(beyond(path, Bound::TargetBytes, flaw::TARGET_BYTES_MAX));
    }
    Ok(format!("{len} {}", hex(&Sha256::digest(target))))
}

#[cfg(test)]
mod tests;
