//! Images by digest: found in the store, checked, and kept open.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};

use super::hex;
use super::kernel;
use super::step::{During, Failed};
use crate::wire::Refusal;

/// Entries of an image that are mounted over or written to by the platform: each must be a plain
/// directory or absent. A `/dev` that is a link would have the container library make and delete
/// names, as host root, wherever it points.
const PLAIN: [&str; 8] = [
    "dev",
    "dev/shm",
    "proc",
    "sys",
    "etc",
    "tmp",
    "run",
    "workspace",
];

/// Images that were used, each by a descriptor of its root in the launcher's mount namespace.
#[derive(Debug, Default)]
pub(super) struct Images {
    open: HashMap<[u8; 32], OwnedFd>,
}

impl Images {
    /// The root of an image: opened on first use, checked on every one.
    pub(super) fn root(
        &mut self,
        store: BorrowedFd<'_>,
        digest: [u8; 32],
    ) -> Result<&OwnedFd, Refusal> {
        let root = match self.open.remove(&digest) {
            Some(root) if is_linked(&root) => root,
            Some(_) | None => open(store, &hex(&digest)).map_err(|error| refusal(&error))?,
        };
        check(root.as_fd())?;
        Ok(self.open.entry(digest).or_insert(root))
    }
}

/// Opens the image store, making an empty one if there is none.
pub(super) fn open_store(path: &Path) -> Result<OwnedFd, Failed> {
    let step = format!("open the image store {}", path.display());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .during(&step)?;
    let mut options = File::options();
    options.read(true).custom_flags(OFlag::O_DIRECTORY.bits());
    options.open(path).map(OwnedFd::from).during(&step)
}

fn open(store: BorrowedFd<'_>, digest: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    kernel::open_beneath(store, &format!("sha256/{digest}/rootfs"), flags.bits())
}

fn refusal(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::NotFound => Refusal::UnknownImage,
        _ => Refusal::UnsafeImage {
            entry: "rootfs".to_owned(),
        },
    }
}

/// Whether an open directory still has a name: a removed image must not be used again.
fn is_linked(root: &OwnedFd) -> bool {
    fstat(root.as_raw_fd()).is_ok_and(|found| found.st_nlink > 0)
}

fn check(root: BorrowedFd<'_>) -> Result<(), Refusal> {
    let unsafe_image = |entry: &str| Refusal::UnsafeImage {
        entry: entry.to_owned(),
    };
    let found = fstat(root.as_raw_fd()).map_err(|_errno| unsafe_image("rootfs"))?;
    if !is_plain(&found) || found.st_uid != 0 {
        return Err(unsafe_image("rootfs"));
    }
    for entry in PLAIN {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        match fstatat(Some(root.as_raw_fd()), entry, flags) {
            Ok(found) if is_plain(&found) => {}
            Err(nix::errno::Errno::ENOENT) => {}
            Ok(_) | Err(_) => return Err(unsafe_image(entry)),
        }
    }
    Ok(())
}

fn is_plain(found: &FileStat) -> bool {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, OwnedFd, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir
            .path()
            .join("sha256")
            .join("00".repeat(32))
            .join("rootfs");
        std::fs::create_dir_all(&rootfs).unwrap();
        let opened = open_store(dir.path()).unwrap();
        (dir, opened, rootfs)
    }

    fn is_root() -> bool {
        nix::unistd::geteuid().is_root()
    }

    #[test]
    fn image_with_plain_directories_is_used() {
        let (_dir, store, rootfs) = store();
        if !is_root() {
            return;
        }
        std::fs::create_dir(rootfs.join("dev")).unwrap();
        assert!(Images::default().root(store.as_fd(), [0; 32]).is_ok());
    }

    #[test]
    fn unknown_digest_is_refused() {
        let (_dir, store, _) = store();
        let refused = Images::default().root(store.as_fd(), [1; 32]).err();
        assert_eq!(refused, Some(Refusal::UnknownImage));
    }

    #[test]
    fn links_in_place_of_directories_are_refused() {
        for entry in ["dev", "proc", "sys", "etc", "tmp", "run", "workspace"] {
            let (_dir, store, rootfs) = store();
            std::os::unix::fs::symlink("/", rootfs.join(entry)).unwrap();
            assert!(
                Images::default().root(store.as_fd(), [0; 32]).is_err(),
                "{entry}"
            );
        }
    }

    #[test]
    fn image_whose_root_is_a_link_is_refused() {
        let (dir, store, rootfs) = store();
        std::fs::remove_dir(&rootfs).unwrap();
        std::os::unix::fs::symlink(dir.path(), &rootfs).unwrap();
        let refused = Images::default().root(store.as_fd(), [0; 32]).err();
        assert_eq!(
            refused,
            Some(Refusal::UnsafeImage {
                entry: "rootfs".to_owned()
            })
        );
    }

    #[test]
    fn removed_image_is_unknown_even_when_it_was_open() {
        let (_dir, store, rootfs) = store();
        if !is_root() {
            return;
        }
        let mut images = Images::default();
        assert!(images.root(store.as_fd(), [0; 32]).is_ok());
        std::fs::remove_dir(&rootfs).unwrap();
        assert_eq!(
            images.root(store.as_fd(), [0; 32]).err(),
            Some(Refusal::UnknownImage)
        );
    }
}
