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
//! Times, link counts and inode numbers are not part of it.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::Error;
use crate::spec::{Digest, hex};

/// Directories that the sandbox mounts over or that its user relies on; a link in their place would
/// have the runtime follow it on the host.
const PLAIN: [&str; 7] = ["dev", "proc", "sys", "etc", "tmp", "run", "workspace"];

/// Most entries that a tree may have; a bound on the walk's memory.
const ENTRIES_MAX: u64 = 2_000_000;

/// What the walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    pub(super) entries: u64,
}

/// Walks the tree at `root`.
pub(super) fn summarise(root: &Path) -> Result<Summary, Error> {
    check_plain(root)?;
    let mut walk = Walk {
        root,
        manifest: Sha256::new(),
        size_bytes: 0,
        entries: 0,
        buffer: vec![0; 1 << 16],
    };
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let metadata = walk.entry(&path)?;
        if metadata.is_dir() {
            todo.extend(children(root, &path)?.into_iter().rev());
        }
    }
    Ok(Summary {
        digest: Digest(walk.manifest.finalize().into()),
        size_bytes: walk.size_bytes,
        entries: walk.entries,
    })
}

fn check_plain(root: &Path) -> Result<(), Error> {
    for name in PLAIN {
        let path = root.join(name);
        let metadata = fs::symlink_metadata(&path).map_err(Error::io("look at", &path))?;
        if !metadata.is_dir() {
            let why = "is not a plain directory";
            return Err(Error::Unsafe {
                entry: format!("/{name}"),
                why,
            });
        }
    }
    Ok(())
}

/// The entries of a directory, sorted by name.
fn children(root: &Path, path: &Path) -> Result<Vec<PathBuf>, Error> {
    let full = root.join(path);
    let mut found = Vec::new();
    for entry in fs::read_dir(&full).map_err(Error::io("list", &full))? {
        let entry = entry.map_err(Error::io("list", &full))?;
        found.push(path.join(entry.file_name()));
    }
    found.sort_unstable_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    Ok(found)
}

struct Walk<'a> {
    root: &'a Path,
    manifest: Sha256,
    size_bytes: u64,
    entries: u64,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    /// Checks one entry and adds its record.
    fn entry(&mut self, path: &Path) -> Result<Metadata, Error> {
        let full = self.root.join(path);
        let metadata = fs::symlink_metadata(&full).map_err(Error::io("look at", &full))?;
        self.entries += 1;
        let refuse = |why| {
            Err(Error::Unsafe {
                entry: format!("/{}", path.display()),
                why,
            })
        };
        if self.entries > ENTRIES_MAX {
            return refuse("is one entry too many");
        }
        let mode = metadata.mode() & 0o7777;
        let kind = metadata.file_type();
        let (letter, content) = if kind.is_dir() {
            ("d", "0 -".to_owned())
        } else if kind.is_symlink() {
            let target = fs::read_link(&full).map_err(Error::io("read", &full))?;
            let target = target.as_os_str().as_bytes();
            (
                "l",
                format!("{} {}", target.len(), hex(&Sha256::digest(target))),
            )
        } else if kind.is_file() {
            let (len, hash) = self.hash_file(&full)?;
            self.size_bytes += len;
            ("f", format!("{len} {hash}"))
        } else if kind.is_block_device() || kind.is_char_device() {
            return refuse("is a device node");
        } else {
            return refuse("is a socket or pipe");
        };
        if mode & 0o6000 != 0 {
            return refuse("is set-user-id or set-group-id");
        }
        let (uid, gid) = (metadata.uid(), metadata.gid());
        self.manifest
            .update(format!("{letter} {mode:o} {uid} {gid} {content} "));
        self.manifest.update(path.as_os_str().as_bytes());
        self.manifest.update([0]);
        Ok(metadata)
    }

    fn hash_file(&mut self, full: &Path) -> Result<(u64, String), Error> {
        let mut file = File::open(full).map_err(Error::io("open", full))?;
        let mut hash = Sha256::new();
        let mut len = 0_u64;
        loop {
            let got = file
                .read(&mut self.buffer)
                .map_err(Error::io("read", full))?;
            if got == 0 {
                return Ok((len, hex(&hash.finalize())));
            }
            hash.update(&self.buffer[..got]);
            len += u64::try_from(got).unwrap_or(u64::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in PLAIN {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        symlink("hosts", dir.path().join("etc/link")).unwrap();
        dir
    }

    #[test]
    fn the_digest_depends_on_what_is_there_and_not_on_when_it_came() {
        let (one, two) = (tree(), tree());
        let first = summarise(one.path()).unwrap();
        assert_eq!(first, summarise(two.path()).unwrap());
        assert_eq!((first.entries, first.size_bytes), (10, 20));

        let hosts = two.path().join("etc/hosts");
        fs::set_permissions(&hosts, fs::Permissions::from_mode(0o600)).unwrap();
        let second = summarise(two.path()).unwrap();
        assert_ne!(second.digest, first.digest);
        fs::write(&hosts, "127.0.0.2 localhost\n").unwrap();
        let third = summarise(two.path()).unwrap();
        assert_ne!(third.digest, second.digest);
        fs::remove_file(two.path().join("etc/link")).unwrap();
        symlink("hostz", two.path().join("etc/link")).unwrap();
        assert_ne!(summarise(two.path()).unwrap().digest, third.digest);
    }

    #[test]
    fn a_link_in_the_place_of_a_mount_point_is_refused() {
        for name in PLAIN {
            let dir = tree();
            let path = dir.path().join(name);
            fs::remove_dir_all(&path).unwrap();
            symlink("/tmp", &path).unwrap();
            let found = summarise(dir.path());
            assert!(
                matches!(found, Err(Error::Unsafe { .. })),
                "{name}: {found:?}"
            );
        }
    }

    #[test]
    fn set_user_id_and_special_files_are_refused() {
        let dir = tree();
        let path = dir.path().join("etc/hosts");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
        assert!(matches!(summarise(dir.path()), Err(Error::Unsafe { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(dir.path().join("run/s")).unwrap();
        assert!(matches!(summarise(dir.path()), Err(Error::Unsafe { .. })));
    }
}
