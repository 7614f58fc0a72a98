//! System calls that have no safe wrapper, each with the least unsafe code that it can have.

#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::{ForkResult, Pid};

/// Read-only, without setuid programs and without devices: how every image is seen.
pub(crate) const IMAGE_ATTRIBUTES: u64 =
    libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// Takes ownership of a descriptor that a system call has just returned.
fn adopt(returned: libc::c_long) -> io::Result<OwnedFd> {
    let raw = RawFd::try_from(returned).map_err(io::Error::other)?;
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for this call; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Turns the 0 or -1 of a system call into a result.
fn check(returned: libc::c_long) -> io::Result<()> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Has this process, and all that it forks from now on, run for at most `slice_ns` (100,000 to
/// 100,000,000) at a time where others wait. Kernels before 6.12 take no notice.
pub(crate) fn take_slices_of(slice_ns: u64) -> io::Result<()> {
    // SAFETY: a struct of integers, for which zeros are values: policy and priority of most
    // processes.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    attributes.size = u32::try_from(size_of::<libc::sched_attr>()).map_err(io::Error::other)?;
    attributes.sched_runtime = slice_ns;
    // What is not said is set to 0: an operator's own choice stays.
    // SAFETY: integers; 0 is this process.
    attributes.sched_nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // SAFETY: the struct outlives the call and says its own size; 0 is this process.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

/// Has every other process of its group go first. What this one still has to do can wait.
pub(crate) fn give_way() {
    // SAFETY: integers; 0 is this process. To lower one's own priority is always allowed.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}

/// Clones the mount that `dir` is on, from `dir` down, as a detached mount.
pub(crate) fn clone_tree(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH.cast_unsigned();
    // SAFETY: the path is a static C string, the descriptor is borrowed, hence open.
    adopt(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Sets attributes on a detached mount, and maps its ids through a user namespace if one is given.
pub(crate) fn set_attributes(
    tree: BorrowedFd<'_>,
    attributes: u64,
    userns: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attr = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    if let Some(userns) = userns {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::from(userns.as_raw_fd().cast_unsigned());
    }
    // SAFETY: the path is a static C string, `attr` is live and of the size given, both descriptors
    // are borrowed, hence open.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
}

/// Attaches a detached mount at `path`.
pub(crate) fn attach(tree: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    // SAFETY: both paths are C strings that outlive the call, the descriptor is borrowed.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
}

/// Mounts the file system on a block device, with options that have no value, as a detached mount:
/// it goes with its descriptor if it is attached nowhere.
pub(crate) fn mount_device(
    kind: &CStr,
    device: &CStr,
    options: &[&CStr],
    attributes: u64,
) -> io::Result<OwnedFd> {
    // Of the kernel's ABI; the library has no names for them.
    const FSOPEN_CLOEXEC: u32 = 1;
    const FSMOUNT_CLOEXEC: u32 = 1;
    const SET_FLAG: u32 = 0;
    const SET_STRING: u32 = 1;
    const CREATE: u32 = 6;
    // SAFETY: the name is a C string that outlives the call.
    let made = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
    let context = adopt(made)?;
    let configure = |command: u32, key: Option<&CStr>, value: Option<&CStr>| {
        let [key, value] = [key, value].map(|text| text.map_or(std::ptr::null(), CStr::as_ptr));
        // SAFETY: key and value are null or C strings that outlive the call; the descriptor is
        // open.
        check(unsafe {
            let context = context.as_raw_fd();
            libc::syscall(libc::SYS_fsconfig, context, command, key, value, 0)
        })
    };
    configure(SET_STRING, Some(c"source"), Some(device))?;
    for option in options {
        configure(SET_FLAG, Some(option), None)?;
    }
    configure(CREATE, None, None)?;
    // SAFETY: integers; the descriptor is open.
    adopt(unsafe {
        let context = context.as_raw_fd();
        libc::syscall(libc::SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes)
    })
}

/// Writes the pages of a file that are not on the disk yet, and waits for that.
pub(crate) fn write_out(file: BorrowedFd<'_>) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: integers; the descriptor is borrowed, hence open.
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
    check(libc::c_long::from(done))
}

/// Opens `path` under `dir` with `flags`: no symbolic link, no way out, no other file system.
pub(crate) fn open_beneath(
    dir: BorrowedFd<'_>,
    path: impl AsRef<[u8]>,
    flags: i32,
) -> io::Result<OwnedFd> {
    let how = (flags, 0, BENEATH);
    open(dir.as_raw_fd(), path.as_ref(), how)
}

/// Makes the file `path` under `dir`, by the same rules, to be written; it must not be there yet.
pub(crate) fn create_beneath(
    dir: BorrowedFd<'_>,
    path: impl AsRef<[u8]>,
    mode: u32,
) -> io::Result<OwnedFd> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
    open(dir.as_raw_fd(), path.as_ref(), (flags, mode, BENEATH))
}

/// Opens `path` with `flags` as if this process's directory were the root: links and `..` stay
/// below it.
pub(crate) fn open_in_root(path: &[u8], flags: i32) -> io::Result<OwnedFd> {
    let resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    open(libc::AT_FDCWD, path, (flags, 0, resolve))
}

/// No symbolic link, no way out, no other file system.
const BENEATH: u64 = libc::RESOLVE_BENEATH
    | libc::RESOLVE_NO_SYMLINKS
    | libc::RESOLVE_NO_MAGICLINKS
    | libc::RESOLVE_NO_XDEV;

/// Opens a path with flags, a mode for what is made, and rules for the way there.
fn open(dir: RawFd, path: &[u8], (flags, mode, resolve): (i32, u32, u64)) -> io::Result<OwnedFd> {
    let path = CString::new(path).map_err(io::Error::other)?;
    // SAFETY: all-zero is a valid `open_how`: no flags, no mode, no resolution rules.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
    how.mode = u64::from(mode);
    how.resolve = resolve;
    // SAFETY: `path` is a live C string, `how` is live and of the size given.
    adopt(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir,
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    })
}

/// Names of the extended attributes of what is at `path`, itself if it is a link: each with a NUL
/// behind it.
pub(crate) fn attribute_names(path: &CStr) -> io::Result<Vec<u8>> {
    // SAFETY: the path is a C string; a buffer of no length is not written to.
    let long = unsafe { libc::llistxattr(path.as_ptr(), std::ptr::null_mut(), 0) };
    let Ok(long) = usize::try_from(long) else {
        return match io::Error::last_os_error() {
            // A file system that has none.
            error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
            error => Err(error),
        };
    };
    let mut names = vec![0_u8; long];
    let room = names.as_mut_ptr().cast();
    // SAFETY: the path is a C string, `room` points to as many bytes as are said.
    let long = unsafe { libc::llistxattr(path.as_ptr(), room, names.len()) };
    let long = usize::try_from(long).map_err(|_negative| io::Error::last_os_error())?;
    names.truncate(long);
    Ok(names)
}

/// Closes every descriptor from `first` on, except those listed.
///
/// The caller must own no value for a descriptor that is closed here and that it will still use or
/// drop: it is meant for the first moments of a process, and for a child that never returns.
pub(crate) fn close_all_from(first: u32, except: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<u32> = except
        .iter()
        .filter_map(|raw| u32::try_from(*raw).ok())
        .collect();
    kept.sort_unstable();
    let mut from = first;
    for keep in kept {
        if keep < from {
            continue;
        }
        if keep > from {
            close_range(from, keep - 1)?;
        }
        from = keep + 1;
    }
    close_range(from, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: no memory is passed; that nobody uses the closed numbers is the promise of
    // `close_all_from`'s callers.
    check(libc::c_long::from(unsafe {
        libc::close_range(first, last, 0)
    }))
}

/// A descriptor for a process of ours.
pub(crate) fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    adopt(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })
}

/// Sends a signal to the process behind a pidfd; one that has ended already is no error.
pub(crate) fn pidfd_signal(process: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null `info` asks for the default one; the descriptor is borrowed.
    let sent = check(unsafe {
        let process = process.as_raw_fd();
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process,
            signal as libc::c_int,
            info,
            0,
        )
    });
    match sent {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

/// Forks a process that has one thread.
pub(crate) fn fork() -> io::Result<ForkResult> {
    // SAFETY: launcher and shim have one thread for all their life, so no lock can be held by a
    // thread that the child lacks, and the child may run ordinary code.
    Ok(unsafe { nix::unistd::fork() }?)
}

/// Forks a process that has one thread into namespaces of its own: `flags` are `CLONE_NEW...`.
pub(crate) fn fork_into(flags: CloneFlags) -> io::Result<ForkResult> {
    let flags = libc::c_long::from(flags.bits() | libc::SIGCHLD);
    let none: libc::c_long = 0;
    // SAFETY: as for `fork`: one thread, no stack of its own and no shared memory, so that the
    // child goes on with a copy of everything. What the C library does besides at a fork is about
    // threads.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    match pid {
        0 => Ok(ForkResult::Child),
        pid if pid > 0 => {
            let child = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
            Ok(ForkResult::Parent { child })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes another effective user id and keeps what root may do. Clears the parent-death signal.
pub(crate) fn become_keeping_capabilities(uid: u32) -> io::Result<()> {
    /// `SECBIT_NO_SETUID_FIXUP`: what changes a user id leaves capabilities alone.
    const NO_FIXUP: libc::c_ulong = 1 << 2;
    if uid == 0 {
        return Ok(());
    }
    prctl_number(libc::PR_SET_SECUREBITS, NO_FIXUP)?;
    nix::unistd::seteuid(nix::unistd::Uid::from_raw(uid))?;
    Ok(())
}

/// Takes [`become_keeping_capabilities`] back, but for the parent-death signal.
pub(crate) fn become_root_again() -> io::Result<()> {
    nix::unistd::seteuid(nix::unistd::Uid::from_raw(0))?;
    prctl_number(libc::PR_SET_SECUREBITS, 0)
}

fn prctl_number(operation: i32, argument: libc::c_ulong) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: the operations used here take numbers only.
    let done = unsafe { libc::prctl(operation, argument, none, none, none) };
    check(libc::c_long::from(done))
}

/// Gives up, for good, every capability that this process could get back by executing a program.
pub(crate) fn empty_bounding_set() -> io::Result<()> {
    for capability in 0..=63 {
        match prctl_number(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            // The kernel has no more of them.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives up every capability of this process for good, those that it could get back included.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    empty_bounding_set()?;
    drop_held_capabilities()
}

/// Gives up every capability that this process holds.
pub(crate) fn drop_held_capabilities() -> io::Result<()> {
    prctl_number(libc::PR_CAP_AMBIENT, 4)?;
    // The kernel's `struct __user_cap_header_struct` of version 3, and its two data structs.
    let (head, sets) = ([0x2008_0522_u32, 0], [0_u32; 6]);
    // SAFETY: both are live and of the sizes that this version says; the kernel only reads them.
    check(unsafe { libc::syscall(libc::SYS_capset, head.as_ptr(), sets.as_ptr()) })
}

/// Ends a forked child at once: no destructor and no exit handler of its parent's runs.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: `_exit` takes no memory and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Reclaims a descriptor that was handed over by number at `exec`.
///
/// Called once for each number, at the start of the process, before anything else is open.
pub(crate) fn inherited(raw: RawFd) -> OwnedFd {
    // SAFETY: by the contract above nothing else in this process owns the number.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Has the threads of this process share one heap a CPU. The C library's default is eight, each of
/// which keeps what was freed in it. Must be called while there is one thread.
pub(crate) fn share_heap() {
    #[cfg(target_env = "gnu")]
    {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let most = libc::c_int::try_from(cpus).unwrap_or(libc::c_int::MAX);
        // SAFETY: integers. If it is refused, the default holds.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, most) };
    }
}

/// Raises a process's soft limit on open files to its hard limit, and tells it.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Blocks that an ordinary user may still take and inodes that are free, where `dir` is.
pub(crate) fn free_space(dir: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let found = nix::sys::statvfs::fstatvfs(dir)?;
    Ok((found.blocks_available(), found.files_free()))
}

/// Bytes that an ordinary user may still take where `dir` is.
pub(crate) fn free_bytes(dir: BorrowedFd<'_>) -> io::Result<u64> {
    let found = nix::sys::statvfs::fstatvfs(dir)?;
    Ok(found
        .blocks_available()
        .saturating_mul(found.fragment_size()))
}

/// Sets a signal's disposition to one that runs no code of ours.
pub(crate) fn set_signal(signal: Signal, to: SigHandler) -> io::Result<()> {
    if !matches!(to, SigHandler::SigDfl | SigHandler::SigIgn) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: neither the default action nor ignoring runs a handler of ours.
    unsafe { nix::sys::signal::signal(signal, to) }?;
    Ok(())
}

/// Duplicates a descriptor, close-on-exec, to the lowest free number from `least` on.
pub(crate) fn duplicate_above(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: this command takes a number and touches no memory; the descriptor is borrowed.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    adopt(libc::c_long::from(copy))
}

/// Whether a descriptor of this number is open.
pub(crate) fn is_open(raw: RawFd) -> bool {
    // SAFETY: this command takes no argument and touches no memory.
    let flags = unsafe { libc::fcntl(raw, libc::F_GETFD) };
    flags >= 0
}

/// Brings the loopback device of this network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let any = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: all-zero is a valid `ifreq`: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    // SAFETY: this request reads one `ifreq`, which is live; the socket is open.
    let done = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(libc::c_long::from(done))
}
