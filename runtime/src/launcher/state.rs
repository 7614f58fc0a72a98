//! The state directory: its lock, its instance name, its final files.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag};
use nix::poll::{PollTimeout, poll};
use nix::unistd::linkat;

use super::kernel;
use super::step::{During, Failed};
use crate::clock::Monotonic;
use crate::wire::{FinalRecord, LauncherConfig};

/// How long an earlier launcher may take to end its shims, in us.
const LOCK_WAIT_US: u64 = 10_000_000;
/// How long to wait before the lock is tried again, in ms.
const LOCK_RETRY_MS: u8 = 20;
/// Length of an instance name, in bytes before hex.
const INSTANCE_BYTES: usize = 6;

/// The open state directory. Dropping it gives the lock back.
#[derive(Debug)]
pub(super) struct State {
    /// Names this directory's groups: 12 hex digits.
    pub(super) instance: String,
    dir: OwnedFd,
    final_dir: OwnedFd,
    _lock: Flock<File>,
}

impl State {
    /// Opens the directory, making what is missing, and waits for an earlier launcher to end.
    pub(super) fn open(config: &LauncherConfig) -> Result<State, Failed> {
        let path = &config.state_dir;
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .during(&format!("make the state directory {}", path.display()))?;
        let dir = open_owned_by_root(path)?;
        let lock = lock(dir.as_fd())?;
        let instance = instance(dir.as_fd()).during("read the instance name")?;
        let final_dir = make_final_dir(dir.as_fd(), config).during("make the final directory")?;
        Ok(State {
            instance,
            dir,
            final_dir,
            _lock: lock,
        })
    }

    /// The directory itself.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Where final files go.
    pub(super) fn final_dir(&self) -> BorrowedFd<'_> {
        self.final_dir.as_fd()
    }
}

/// Opens a directory that only root can have made what it is.
fn open_owned_by_root(path: &Path) -> Result<OwnedFd, Failed> {
    let step = format!("use {} as the state directory", path.display());
    let mut options = File::options();
    options
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits());
    let dir = options.open(path).during(&step)?;
    let found = dir.metadata().during(&step)?;
    if found.uid() != 0 || found.mode() & 0o022 != 0 {
        let cure = "it must belong to root and be writable by root alone: remove it";
        return Err(Failed::because(step, cure));
    }
    Ok(dir.into())
}

fn lock(dir: BorrowedFd<'_>) -> Result<Flock<File>, Failed> {
    let mut file = create(dir, "lock", 0o600).during("open the lock file")?;
    let clock = Monotonic::start();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if clock.now_us() < LOCK_WAIT_US => file = back,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(Failed::because(
                    "lock the state directory",
                    "another server uses it",
                ));
            }
            Err((_, errno)) => return Err(errno).during("lock the state directory"),
        }
        poll(&mut [], PollTimeout::from(LOCK_RETRY_MS)).during("wait for the lock")?;
    }
}

fn create(dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(mode)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

/// Reads the instance name, or draws one: it must be unique among the directories of this machine.
fn instance(dir: BorrowedFd<'_>) -> io::Result<String> {
    let mut file = create(dir, "instance", 0o644)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let is_ours = |text: &str| {
        text.len() == INSTANCE_BYTES * 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if is_ours(&text) {
        return Ok(text);
    }
    let mut random = [0_u8; INSTANCE_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let name = super::hex(&random);
    file.set_len(0)?;
    std::os::unix::fs::FileExt::write_all_at(&file, name.as_bytes(), 0)?;
    file.sync_all()?;
    Ok(name)
}

fn make_final_dir(dir: BorrowedFd<'_>, config: &LauncherConfig) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}/final", dir.as_raw_fd());
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let opened = kernel::open_beneath(dir, "final", flags.bits())?;
    fchown(&opened, Some(config.server_uid), Some(config.server_gid))?;
    Ok(opened)
}

/// Writes `final/NAME.json`, whole or not at all; belongs to the server, which deletes it.
///
/// The directory is the server's, so nothing in it is followed or overwritten: the file gets its
/// name only when it is complete, and one that is there stays.
pub(crate) fn write_final(
    final_dir: BorrowedFd<'_>,
    name: &str,
    record: &FinalRecord,
    owner: (u32, u32),
) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .mode(0o600)
        .open(format!("/proc/self/fd/{}", final_dir.as_raw_fd()))?;
    file.write_all(&serde_json::to_vec(record)?)?;
    fchown(&file, Some(owner.0), Some(owner.1))?;
    file.sync_data()?;
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    let to = format!("{name}.json");
    let follow = AtFlags::AT_SYMLINK_FOLLOW;
    match linkat(
        None,
        from.as_str(),
        Some(final_dir.as_raw_fd()),
        to.as_str(),
        follow,
    ) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
