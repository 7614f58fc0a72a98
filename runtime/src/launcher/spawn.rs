//! Starting the launcher, from `serve` or `run` while they are root and have one thread.

#![expect(unsafe_code, reason = "a hook between fork and exec")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{dup2, setsid};

use super::SERVER;
use super::kernel;
use crate::wire::LauncherConfig;

/// How long server, launcher, shims and sandboxes run at most while another waits: the least that
/// the kernel takes. A request is handed on some twenty times before its answer, and who burns the
/// CPU would make it wait for a whole slice each time: 3 ms by default.
const SLICE_NS: u64 = 100_000;

/// How often the copy of the binary is tried to be sealed; the kernel waits 0.15 s each time.
const SEAL_TRIES: u32 = 20;

/// A launcher that was started. Dropping it ends the launcher and every sandbox.
#[derive(Debug)]
pub struct LauncherHandle {
    socket: OwnedFd,
    child: Child,
}

/// Why the launcher could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the launcher: cannot {step}")]
pub struct SpawnError {
    /// What was being done.
    pub step: &'static str,
    /// What came back.
    pub source: io::Error,
}

impl LauncherHandle {
    /// The socket to the launcher, and its process: to be waited for once the socket is closed.
    #[must_use]
    pub fn into_parts(self) -> (OwnedFd, Child) {
        (self.socket, self.child)
    }
}

/// Starts the launcher from a sealed copy of this binary, with an empty environment and no
/// descriptor but its configuration, its socket and this process's standard error.
///
/// Must be called as root, before any thread exists and before privileges are dropped.
///
/// # Errors
/// When the binary cannot be copied, sealed or run, or the configuration cannot be handed over.
pub fn spawn(config: &LauncherConfig) -> Result<LauncherHandle, SpawnError> {
    let step = |step| move |source: io::Error| SpawnError { step, source };
    kernel::take_slices_of(SLICE_NS).map_err(step("take short time slices"))?;
    kernel::share_heap();
    // Some descriptors for every live sandbox, and one for every connection.
    kernel::raise_open_files().map_err(step("raise the soft limit on open files"))?;
    let binary = sealed_copy().map_err(step("seal a copy of this binary"))?;
    let (near, far) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(io::Error::from)
    .map_err(step("make its socket"))?;
    let far = above_standard(&far).map_err(step("move its socket"))?;
    let text = serde_json::to_vec(config).map_err(io::Error::from);
    let text = text.map_err(step("write its configuration"))?;
    let mut child = command(&binary, &far).spawn().map_err(step("run it"))?;
    let handed = match child.stdin.take() {
        Some(mut pipe) => pipe.write_all(&text),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    };
    handed.map_err(step("hand over its configuration"))?;
    Ok(LauncherHandle {
        socket: near,
        child,
    })
}

fn command(binary: &OwnedFd, socket: &OwnedFd) -> Command {
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command
        .arg0("farebox")
        .arg("launcher")
        .env_clear()
        .current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let socket = socket.as_raw_fd();
    let prepare = move || {
        dup2(socket, SERVER)?;
        // A terminal's signals are for the server, which ends the launcher in its own time.
        setsid()?;
        Ok(())
    };
    // SAFETY: the hook makes two system calls and touches no memory but its copy of a number; it
    // allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
    command
}

/// Copies this binary into memory and seals it: nobody who gets hold of `/proc/PID/exe` of a
/// launcher, shim or init can change the host's binary, or this copy (CVE-2019-5736).
fn sealed_copy() -> io::Result<OwnedFd> {
    let flags = MemFdCreateFlag::MFD_CLOEXEC | MemFdCreateFlag::MFD_ALLOW_SEALING;
    let copy = File::from(memfd_create(c"farebox", flags)?);
    io::copy(&mut File::open("/proc/self/exe")?, &mut &copy)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    // While the kernel itself holds a page (to age or to move it), it says that it is busy.
    let mut tries = 1;
    while let Err(errno) = fcntl(copy.as_raw_fd(), FcntlArg::F_ADD_SEALS(seals)) {
        if errno != Errno::EBUSY || tries == SEAL_TRIES {
            return Err(errno.into());
        }
        tries += 1;
    }
    // A file that is open for writing cannot be run.
    let read_only = File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    above_standard(&read_only.into())
}

/// Duplicates a descriptor to a number above [`SERVER`], so that the hand-over cannot hit it, nor
/// the pipe on which the standard library tells of a failed exec.
fn above_standard(descriptor: &OwnedFd) -> io::Result<OwnedFd> {
    const ABOVE: RawFd = 16;
    kernel::duplicate_above(descriptor.as_fd(), ABOVE)
}
