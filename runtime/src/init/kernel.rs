//! What init asks of the kernel directly.

#![expect(unsafe_code, reason = "raw system calls")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, clone};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Where init keeps its socket: the lowest number behind the standard ones, since the sandbox's own
/// limit on open files holds for init too.
pub(super) const SOCKET: RawFd = 3;

/// What a child has for a stack until it is another program: many times what it needs, and not
/// there before it is touched.
const STACK_BYTES: usize = 256 << 10;

/// Makes a bare init of the process: bound to its shim's life, undumpable, without any descriptor
/// but its socket and three that lead nowhere, and with children's ends told through a descriptor.
pub(super) fn shed(socket: OwnedFd) -> io::Result<(OwnedFd, SignalFd)> {
    // Only now: changing ids clears it.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    prctl::set_dumpable(false)?;
    let socket = keep_only(socket)?;
    fcntl(socket.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    fill_stdio()?;
    // Everything is blocked, so that no signal from outside the namespace interrupts a write;
    // children get their own mask.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    nix::unistd::chdir("/")?;
    Ok((socket, signals))
}

/// Moves the socket to [`SOCKET`] and closes every other descriptor.
fn keep_only(socket: OwnedFd) -> io::Result<OwnedFd> {
    let raw = socket.into_raw_fd();
    if raw != SOCKET {
        nix::unistd::dup3(raw, SOCKET, OFlag::O_CLOEXEC)?;
    }
    close_range(0, SOCKET - 1)?;
    close_range(SOCKET + 1, RawFd::MAX)?;
    // SAFETY: the number is open, by the dup3 above or because it was the socket's own; whatever
    // value of this process owned it before belongs to a caller that promised to run no destructor.
    Ok(unsafe { OwnedFd::from_raw_fd(SOCKET) })
}

/// Closes the descriptors from `first` to `last`.
pub(super) fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    let number = |fd: RawFd| u32::try_from(fd).map_err(io::Error::other);
    let (first, last) = (number(first)?, number(last)?);
    // SAFETY: takes numbers only. Closing what others own is its purpose; callers use it at the
    // start of a process that shares no owner with its parent, or in a child that only goes on to
    // exec.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Occupies 0, 1 and 2, so that a descriptor that is received can never be one of them: a child
/// would overwrite it while it moves its own there.
fn fill_stdio() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = match null {
        Ok(file) => OwnedFd::from(file),
        // A root without devices: an empty file does as well.
        Err(_) => {
            let flags = nix::sys::memfd::MemFdCreateFlag::MFD_CLOEXEC;
            nix::sys::memfd::memfd_create(c"nothing", flags)?
        }
    };
    // All lower numbers are closed, so this one is 0 and dup gives 1 and 2; all three stay for
    // good.
    let raw = null.into_raw_fd();
    while nix::unistd::dup(raw)? < 2 {}
    Ok(())
}

/// Reaps one child that has ended: its pid and wait status.
pub(super) fn reap() -> Option<(libc::pid_t, i32)> {
    let mut status = 0;
    // SAFETY: `status` is writable for the call; the flag makes it return at once.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    (pid > 0).then_some((pid, status))
}

/// Whether a process is a child of this one and has not ended.
pub(super) fn is_child(pid: libc::pid_t) -> bool {
    let Ok(id) = libc::id_t::try_from(pid) else {
        return false;
    };
    // SAFETY: all-zero is a `siginfo_t`: of no child.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: `info` is writable for the call; the flags make it return at once and reap nothing.
    let found = unsafe { libc::waitid(libc::P_PID, id, &raw mut info, flags) };
    // SAFETY: a field that is there for every way of ending, and was zeroed.
    let ended = unsafe { info.si_pid() };
    pid > 0 && found == 0 && ended == 0
}

/// Whether any process but init is left in its namespace.
pub(super) fn others() -> bool {
    // SAFETY: signal 0 to everyone only asks whether there is someone; from process 1, "everyone"
    // is its namespace without itself.
    let found = unsafe { libc::kill(-1, 0) };
    found == 0
}

/// Starts a process that runs `child` and ends with its answer, or becomes another program; waits
/// until it has done either. Answers its pid.
///
/// It borrows this process's memory, so that none of it has to be copied for a child that goes on
/// to exec: what it allocates and does not free stays allocated here.
pub(super) fn start(mut child: impl FnMut() -> i32) -> nix::Result<libc::pid_t> {
    let child = Box::new(move || isize::try_from(child()).unwrap_or(1));
    let mut stack = vec![0; STACK_BYTES];
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: the stack is the child's alone. This process has one thread, which the kernel holds
    // until the child uses the memory no more; so nothing changes under either, and nobody holds a
    // lock.
    let pid = unsafe { clone(child, &mut stack, flags, Some(libc::SIGCHLD)) }?;
    Ok(pid.as_raw())
}

/// Puts every signal back to its default and unblocks all: what is ignored or blocked would stay so
/// in the program that is about to be executed.
pub(super) fn default_signals() -> nix::Result<()> {
    // The kernel's `struct sigaction`, all zero: the default action, no flags, an empty mask. Not
    // by the C library, which hides two signals that a parent may have ignored all the same.
    let default = [0_u64; 4];
    let nothing = std::ptr::null::<u64>();
    for signal in 1..=64_i64 {
        // SAFETY: the kernel reads 32 bytes of `default` at most and writes nothing, and no handler
        // is installed; the two signals that cannot be set are refused.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                nothing,
                8_usize,
            )
        };
    }
    SigSet::empty().thread_set_mask()
}
