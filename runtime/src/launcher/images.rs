//! Images by digest: found in the store, checked, and kept open.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::fstat;

use super::hex;
use super::kernel;
use super::step::{During, Failed};
use crate::image::{flaw, needs};
use crate::wire::{Refusal, WireImage};

/// Images that were used, each by a descriptor of its root in the launcher's mount namespace.
#[derive(Debug, Default)]
pub(super) struct Images {
    open: HashMap<[u8; 32], OwnedFd>,
}

impl Images {
    /// The image of a sandbox with its root; none of an empty one.
    pub(super) fn of(
        &mut self,
        store: BorrowedFd<'_>,
        image: WireImage,
    ) -> Result<Option<([u8; 32], &OwnedFd)>, Refusal> {
        match image {
            WireImage::Empty => Ok(None),
            WireImage::Digest(digest) => {
                let root = self.root(store, digest)?;
                Ok(Some((digest, root)))
            }
        }
    }

    /// The root of an image: opened on first use, checked on every one.
    pub(super) fn root(
        &mut self,
        store: BorrowedFd<'_>,
        digest: [u8; 32],
    ) -> Result<&OwnedFd, Refusal> {
        let root = match self.open.remove(&digest) {
            Some(root) if is_linked(&root) => root,
            Some(_) | None => {
                open(store, &hex(&digest)).map_err(|error| refusal(digest, &error))?
            }
        };
        check(digest, root.as_fd())?;
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
    kernel::open_beneath(store, format!("sha256/{digest}/rootfs"), flags.bits())
}

fn refusal(image: [u8; 32], error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::NotFound => Refusal::UnknownImage,
        _ => Refusal::UnsafeImage {
            image,
            entry: "rootfs".to_owned(),
            why: format!("cannot be opened as a plain directory of the store: {error}"),
        },
    }
}

/// Whether an open directory still has a name: a removed image must not be used again.
fn is_linked(root: &OwnedFd) -> bool {
    fstat(root.as_raw_fd()).is_ok_and(|found| found.st_nlink > 0)
}

/// What a sandbox relies on, again at every start: the store may have been changed since the image
/// came into it.
fn check(image: [u8; 32], root: BorrowedFd<'_>) -> Result<(), Refusal> {
    needs::check(root).map_err(|(name, flaw)| Refusal::UnsafeImage {
        image,
        entry: flaw::escape_path(name.as_bytes()),
        why: format!("{flaw}; {}", flaw.cure()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::PathBuf;

    const IMAGE: [u8; 32] = [0; 32];

    /// A store with one good image; none where owners cannot be set.
    fn store() -> Option<(tempfile::TempDir, OwnedFd, PathBuf)> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir
            .path()
            .join("sha256")
            .join("00".repeat(32))
            .join("rootfs");
        std::fs::create_dir_all(&rootfs).unwrap();
        needs::complete(File::open(&rootfs).unwrap().as_fd()).unwrap();
        let opened = open_store(dir.path()).unwrap();
        assert!(Images::default().root(opened.as_fd(), IMAGE).is_ok());
        Some((dir, opened, rootfs))
    }

    /// What of the image is refused, and why.
    fn refused(images: &mut Images, store: &OwnedFd) -> (String, String) {
        match images.root(store.as_fd(), IMAGE) {
            Err(Refusal::UnsafeImage { image, entry, why }) => {
                assert_eq!(image, IMAGE);
                (entry, why)
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn unknown_digest_is_refused() {
        let Some((_dir, store, _)) = store() else {
            return;
        };
        let refused = Images::default().root(store.as_fd(), [1; 32]).err();
        assert_eq!(refused, Some(Refusal::UnknownImage));
    }

    /// Each change is refused also by a launcher that has the image open from before.
    #[test]
    fn image_that_was_changed_in_the_store_is_refused_until_it_is_whole_again() {
        let Some((_dir, store, rootfs)) = store() else {
            return;
        };
        let mut images = Images::default();
        for name in needs::names() {
            let path = rootfs.join(name);
            std::fs::remove_dir(&path).unwrap();
            let entry = format!("/{name}");
            let (found, why) = refused(&mut images, &store);
            assert_eq!(found, entry);
            assert!(why.starts_with("is missing; "), "{why}");
            symlink("/", &path).unwrap();
            let (found, why) = refused(&mut images, &store);
            assert_eq!(found, entry);
            assert!(why.starts_with("is not a plain directory; "), "{why}");
            std::fs::remove_file(&path).unwrap();
            needs::complete(File::open(&rootfs).unwrap().as_fd()).unwrap();
            assert!(images.root(store.as_fd(), IMAGE).is_ok(), "{name}");
        }
        chown(rootfs.join("etc"), Some(1000), None).unwrap();
        assert_eq!(refused(&mut images, &store).0, "/etc");
        chown(rootfs.join("etc"), Some(0), None).unwrap();
        let everyone = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(rootfs.join("run"), everyone).unwrap();
        assert_eq!(refused(&mut images, &store).0, "/run");
    }

    #[test]
    fn image_whose_root_is_a_link_is_refused() {
        let Some((dir, store, rootfs)) = store() else {
            return;
        };
        std::fs::rename(&rootfs, dir.path().join("elsewhere")).unwrap();
        symlink(dir.path().join("elsewhere"), &rootfs).unwrap();
        let mut images = Images::default();
        assert_eq!(refused(&mut images, &store).0, "rootfs");
    }

    #[test]
    fn removed_image_is_unknown_even_when_it_was_open() {
        let Some((_dir, store, rootfs)) = store() else {
            return;
        };
        let mut images = Images::default();
        assert!(images.root(store.as_fd(), IMAGE).is_ok());
        std::fs::remove_dir_all(&rootfs).unwrap();
        let refused = images.root(store.as_fd(), IMAGE).err();
        assert_eq!(refused, Some(Refusal::UnknownImage));
    }
}
