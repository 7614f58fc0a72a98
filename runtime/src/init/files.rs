//! Files that the server lays into the workspace: resolved beneath it, through no link, into
//! regular files.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, mkdirat};

/// A file that is being written. A failure is kept until its last byte has come.
#[derive(Debug)]
pub(super) struct Upload {
    path: String,
    left: u64,
    state: Result<File, i32>,
    mode: u32,
}

impl Upload {
    pub(super) fn begin(workspace: &Path, path: String, mode: u32, size: u64) -> Upload {
        let state = open_file(workspace, &path).map_err(|errno| errno as i32);
        Upload {
            path,
            left: size,
            state,
            mode: mode & 0o777,
        }
    }

    /// Writes a piece; more than was announced is an error of its own.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let Some(left) = self.left.checked_sub(len) else {
            self.left = 0;
            self.state = Err(libc::EFBIG);
            return;
        };
        self.left = left;
        if let Ok(file) = &mut self.state
            && let Err(error) = file.write_all(bytes)
        {
            self.state = Err(errno_of(&error));
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.left == 0
    }

    /// Closes the file; the errno and the path if anything went wrong.
    pub(super) fn end(self) -> Result<(), (i32, String)> {
        let done = self.state.and_then(|file| {
            let permissions = std::fs::Permissions::from_mode(self.mode);
            file.set_permissions(permissions)
                .map_err(|error| errno_of(&error))
        });
        done.map_err(|errno| (errno, self.path))
    }
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Opens `path` beneath `workspace` for writing, emptied; its parents are made.
///
/// Processes of the tenant may change the tree meanwhile: each step is taken from a descriptor and
/// refuses links, and what has been opened is looked at before it is written.
fn open_file(workspace: &Path, path: &str) -> Result<File, Errno> {
    if !crate::spec::File::path_is_plain(path) {
        return Err(Errno::EINVAL);
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = own(open(workspace, flags, Mode::empty())?);
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    for part in parents.split('/').filter(|part| !part.is_empty()) {
        match mkdirat(Some(dir.as_raw_fd()), part, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        dir = beneath(&dir, part, flags)?;
    }
    // Without O_NONBLOCK a pipe in the file's place would hold init up.
    let flags = OFlag::O_WRONLY
        | OFlag::O_CREAT
        | OFlag::O_NOFOLLOW
        | OFlag::O_NONBLOCK
        | OFlag::O_NOCTTY
        | OFlag::O_CLOEXEC;
    let file = File::from(beneath(&dir, name, flags)?);
    let metadata = file
        .metadata()
        .map_err(|error| Errno::from_raw(errno_of(&error)))?;
    if !metadata.is_file() {
        return Err(Errno::EISDIR);
    }
    file.set_len(0)
        .map_err(|error| Errno::from_raw(errno_of(&error)))?;
    Ok(file)
}

fn beneath(dir: &OwnedFd, name: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
    let mut how = OpenHow::new().flags(flags).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS,
    );
    if flags.contains(OFlag::O_CREAT) {
        how = how.mode(Mode::from_bits_truncate(0o600));
    }
    openat2(dir.as_raw_fd(), name, how).map(own)
}

/// Owns a descriptor that the kernel has just given out.
#[expect(unsafe_code, reason = "this version of nix answers bare numbers")]
fn own(raw: i32) -> OwnedFd {
    // SAFETY: only called on the answer of a successful open, which nothing else knows.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
