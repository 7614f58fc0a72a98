//! The directories of an image that sandboxes rely on: one table, checked when an image is made and
//! again at every start.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchown};

use super::flaw::Flaw;
use crate::launcher::kernel;
use crate::oci::USER;

/// A directory that must be there, and be plain.
#[derive(Debug, Clone, Copy)]
struct Need {
    name: &'static str,
    owner: u32,
    mode: u32,
}

const fn of_root(name: &'static str) -> Need {
    Need {
        name,
        owner: 0,
        mode: 0o755,
    }
}

/// The platform mounts over some of them and writes below the last one; the user inside relies on
/// the others. A link in the place of one would have the container library make and delete names,
/// as the host's root, wherever it points.
const NEEDS: [Need; 7] = [
    of_root("dev"),
    of_root("proc"),
    of_root("sys"),
    of_root("etc"),
    of_root("run"),
    Need {
        name: "tmp",
        owner: 0,
        mode: 0o1777,
    },
    Need {
        name: "workspace",
        owner: USER,
        mode: 0o755,
    },
];

/// Modes with which others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;
/// With it, others may write but not take away what is not theirs.
const STICKY: u32 = 0o1000;

/// The first of these directories that is not as it must be, by its name; an empty name stands for
/// the root itself. Looks at each through a descriptor, follows nothing.
pub(crate) fn check(root: BorrowedFd<'_>) -> Result<(), (&'static str, Flaw)> {
    let found = fstat(root.as_raw_fd()).map_err(|_errno| ("", Flaw::NotDirectory))?;
    check_one(&of_root(""), &found).map_err(|flaw| ("", flaw))?;
    for need in &NEEDS {
        open(root, need.name)
            .and_then(|found| check_one(need, &found))
            .map_err(|flaw| (need.name, flaw))?;
    }
    Ok(())
}

fn open(root: BorrowedFd<'_>, name: &str) -> Result<FileStat, Flaw> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let opened = kernel::open_beneath(root, name, flags.bits());
    let opened = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Flaw::Missing,
        _ => Flaw::NotDirectory,
    })?;
    fstat(opened.as_raw_fd()).map_err(|_errno| Flaw::NotDirectory)
}

fn check_one(need: &Need, found: &FileStat) -> Result<(), Flaw> {
    if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFDIR {
        return Err(Flaw::NotDirectory);
    }
    if found.st_uid != need.owner {
        return Err(Flaw::Owner {
            found: found.st_uid,
            wanted: need.owner,
        });
    }
    let may_others_write = found.st_mode & OTHERS_WRITE != 0;
    let is_shared = need.mode & STICKY != 0 && found.st_mode & STICKY != 0;
    if may_others_write && !is_shared {
        return Err(Flaw::Writable);
    }
    Ok(())
}

/// Makes what is missing of them in a tree that nobody uses yet, and gives `/tmp` and `/workspace`,
/// the two that the user inside writes to, their owners and modes. What is in the way stays, for
/// [`check`] to refuse.
pub(crate) fn complete(root: BorrowedFd<'_>) -> io::Result<()> {
    for need in &NEEDS {
        let made = mkdirat(Some(root.as_raw_fd()), need.name, Mode::empty());
        let is_new = match made {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(errno.into()),
        };
        let is_users = need.owner == USER || need.mode & STICKY != 0;
        if !is_new && !is_users {
            continue;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let Ok(dir) = kernel::open_beneath(root, need.name, flags.bits()) else {
            continue;
        };
        let dir = dir.as_fd().as_raw_fd();
        let (uid, gid) = (Uid::from_raw(need.owner), Gid::from_raw(need.owner));
        fchown(dir, Some(uid), Some(gid))?;
        fchmod(dir, Mode::from_bits_truncate(need.mode))?;
    }
    Ok(())
}

/// The names of the directories.
#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    NEEDS.iter().map(|need| need.name)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::Path;

    use super::*;

    fn verdict(root: &Path) -> Result<(), (&'static str, Flaw)> {
        check(File::open(root).unwrap().as_fd())
    }

    /// A whole root; none where owners cannot be set.
    fn whole() -> Option<tempfile::TempDir> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        complete(File::open(dir.path()).unwrap().as_fd()).unwrap();
        assert_eq!(verdict(dir.path()), Ok(()));
        Some(dir)
    }

    #[test]
    fn each_directory_must_be_there_and_be_no_link_and_no_file() {
        let Some(dir) = whole() else { return };
        for name in names() {
            let path = dir.path().join(name);
            fs::remove_dir(&path).unwrap();
            assert_eq!(verdict(dir.path()), Err((name, Flaw::Missing)));
            for target in ["/", "etc", "nowhere", "/proc/self/root"] {
                symlink(target, &path).unwrap();
                assert_eq!(verdict(dir.path()), Err((name, Flaw::NotDirectory)));
                fs::remove_file(&path).unwrap();
            }
            fs::write(&path, "").unwrap();
            assert_eq!(verdict(dir.path()), Err((name, Flaw::NotDirectory)));
            fs::remove_file(&path).unwrap();
            complete(File::open(dir.path()).unwrap().as_fd()).unwrap();
            assert_eq!(verdict(dir.path()), Ok(()), "{name} is made again");
        }
    }

    #[test]
    fn another_owner_and_a_mode_that_lets_others_write_are_refused() {
        let Some(dir) = whole() else { return };
        for name in names() {
            let path = dir.path().join(name);
            let owner =
                fs::metadata(&path).map(|found| std::os::unix::fs::MetadataExt::uid(&found));
            let wanted = owner.unwrap();
            chown(&path, Some(4711), None).unwrap();
            let found = 4711;
            let refused = Err((name, Flaw::Owner { found, wanted }));
            assert_eq!(verdict(dir.path()), refused);
            chown(&path, Some(wanted), None).unwrap();
            let mode = fs::metadata(&path).unwrap().permissions();
            for wider in [0o775, 0o757, 0o777] {
                fs::set_permissions(&path, Permissions::from_mode(wider)).unwrap();
                assert_eq!(verdict(dir.path()), Err((name, Flaw::Writable)));
            }
            fs::set_permissions(&path, mode).unwrap();
            assert_eq!(verdict(dir.path()), Ok(()));
        }
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        assert_eq!(verdict(dir.path()), Err(("", Flaw::Writable)));
    }

    #[test]
    fn what_is_in_the_way_is_neither_followed_nor_replaced() {
        let Some(dir) = whole() else { return };
        let outside = tempfile::tempdir().unwrap();
        fs::set_permissions(outside.path(), Permissions::from_mode(0o700)).unwrap();
        for name in ["tmp", "workspace", "proc"] {
            fs::remove_dir(dir.path().join(name)).unwrap();
            symlink(outside.path(), dir.path().join(name)).unwrap();
        }
        complete(File::open(dir.path()).unwrap().as_fd()).unwrap();
        let found = fs::metadata(outside.path()).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o700);
        assert!(
            fs::symlink_metadata(dir.path().join("tmp"))
                .unwrap()
                .is_symlink()
        );
    }
}
