//! Hands the data directory over from root to `server.user`.
//!
//! Who gets it may be hostile at the next start, so nothing here follows a link, and a file that
//! has a second name (which may be a file of the host) keeps its owner.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use super::exit::Exit;
use super::fault::Fault;

/// Entries of the data directory that stay root's: the launcher's state, and the images.
const KEPT: [&str; 2] = ["run", "images"];

/// Directories in directories: deeper is nothing of ours.
const DEPTH_MAX: u32 = 6;

/// Whether this process may start the launcher and become another user.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Makes `dir` if it is missing; as root also gives what is in it to `user`.
///
/// The directory itself stays root's and is sticky: the launcher's state and the images lie in it,
/// and whoever takes the server over must not put others in their place.
pub(crate) fn prepare(dir: &Path, user: u32) -> Result<(), Fault> {
    let fault = |error: io::Error| {
        Fault::new(
            Exit::Failed,
            format!("cannot prepare the data directory {}", dir.display()),
        )
        .caused_by(&error)
        .cure("it must be a directory that can be made and is no link; or give --data-dir")
    };
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).map_err(fault)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fault(error)),
        _ => {}
    }
    let opened = open_directory(dir).map_err(fault)?;
    if is_root() {
        hand_over(&opened, user, 0).map_err(fault)
    } else {
        Ok(())
    }
}

fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
}

/// A name in an open directory, whatever the directory's own path is by now.
fn inside(directory: &File, name: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name)
}

fn hand_over(directory: &File, user: u32, depth: u32) -> io::Result<()> {
    for entry in std::fs::read_dir(inside(directory, Path::new("")))? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        let kind = entry.file_type()?;
        let kept = depth == 0 && KEPT.iter().any(|kept| name == Path::new(kept));
        if kept || depth >= DEPTH_MAX {
            continue;
        }
        if kind.is_dir() {
            hand_over(
                &open_directory(&inside(directory, &name))?,
                user,
                depth.saturating_add(1),
            )?;
        } else if kind.is_file() {
            let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            let path = inside(directory, &name);
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(flags.bits())
                .open(path)?;
            let found = file.metadata()?;
            if found.is_file() && found.nlink() == 1 && found.uid() != user {
                fchown(&file, Some(user), Some(user))?;
            }
        }
    }
    // The directory last: until then nobody but root can change what is in it.
    if depth > 0 {
        return fchown(directory, Some(user), Some(user));
    }
    // At the top the user may add, but not rename or replace what is root's.
    fchown(directory, Some(0), Some(user))?;
    directory.set_permissions(Permissions::from_mode(0o1770))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const SOMEBODY: u32 = 65_530;

    fn owner(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().uid()
    }

    #[test]
    fn the_data_directory_is_no_link() {
        let top = tempfile::tempdir().unwrap();
        let link = top.path().join("link");
        symlink("/etc", &link).unwrap();
        let fault = prepare(&link, SOMEBODY).unwrap_err();
        assert!(fault.what.contains("link"), "{fault:?}");
    }

    #[test]
    fn what_may_be_a_file_of_the_host_keeps_its_owner() {
        let top = tempfile::tempdir().unwrap();
        let (dir, other) = (top.path().join("data"), top.path().join("other"));
        fs::create_dir_all(dir.join("keys")).unwrap();
        fs::create_dir_all(dir.join("run")).unwrap();
        fs::write(&other, "host").unwrap();
        fs::write(dir.join("keys/own"), "mine").unwrap();
        symlink(&other, dir.join("soft")).unwrap();
        fs::hard_link(&other, dir.join("hard")).unwrap();
        prepare(&dir, SOMEBODY).unwrap();
        assert_eq!(owner(&other), geteuid().as_raw());
        assert_eq!(owner(&dir.join("run")), geteuid().as_raw());
        let expected = if is_root() {
            SOMEBODY
        } else {
            geteuid().as_raw()
        };
        assert_eq!(owner(&dir.join("keys/own")), expected);
        assert_eq!(owner(&dir), geteuid().as_raw());
        let mode = fs::metadata(&dir).unwrap().mode() & 0o7777;
        assert_eq!(mode, if is_root() { 0o1770 } else { 0o700 });
    }
}
