//! The walls around an unpacking process: taken in this order, each before the first byte of the
//! archive is read.

#![expect(unsafe_code, reason = "prctl and capset")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, fchdir, getppid, pivot_root, setgroups};

use super::Order;
use crate::launcher::kernel;
use crate::launcher::step::{During, Failed};

/// What it takes to give files their owners and modes, by number: `CAP_CHOWN`, `CAP_DAC_OVERRIDE`,
/// `CAP_FOWNER`.
const CAPABILITIES: [u32; 3] = [0, 1, 3];
/// Descriptors: one for each directory above an entry that is being removed, and a few.
const OPEN_FILES: u64 = 512;
/// Bytes of address space, besides [`MEMORY_PER_ENTRY`].
const MEMORY: u64 = 1 << 30;
/// Bytes of memory that an entry takes to be remembered.
const MEMORY_PER_ENTRY: u64 = 128;

/// Ties this process's life to `parent`'s, closes what it inherited, and leaves the host's
/// namespaces. The next fork is the first process of its own world.
pub(super) fn detach(parent: i32) -> Result<(), Failed> {
    prctl::set_pdeathsig(Signal::SIGKILL).during("tie the process to its parent")?;
    if getppid().as_raw() != parent {
        return Err(Failed::because(
            "start",
            "it is started by `farebox image import`",
        ));
    }
    kernel::close_all_from(3, &[]).during("close inherited descriptors")?;
    let flags = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(flags).during("make namespaces")
}

/// Makes the working directory the root and gives up everything else; answers the root.
pub(super) fn enter(order: &Order) -> Result<OwnedFd, Failed> {
    prctl::set_pdeathsig(Signal::SIGKILL).during("tie the process to its parent")?;
    enter_root()?;
    limit(order)?;
    umask(Mode::empty());
    setgroups(&[]).during("drop supplementary groups")?;
    drop_capabilities().during("drop capabilities")?;
    prctl::set_no_new_privs().during("set no-new-privileges")?;
    prctl::set_dumpable(false).during("become undumpable")?;
    let mut options = File::options();
    options.read(true).custom_flags(OFlag::O_DIRECTORY.bits());
    options.open("/").map(OwnedFd::from).during("open the root")
}

/// The new tree becomes the whole file system: no link is followed on it, nothing on it runs.
fn enter_root() -> Result<(), Failed> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).during("make mounts private")?;
    let mut options = File::options();
    options.read(true).custom_flags(OFlag::O_DIRECTORY.bits());
    let here = options.open(".").during("open the new tree")?;
    let tree = kernel::clone_tree(here.as_fd()).during("clone the new tree's mount")?;
    let attributes = libc::MOUNT_ATTR_NOSUID
        | libc::MOUNT_ATTR_NODEV
        | libc::MOUNT_ATTR_NOEXEC
        | libc::MOUNT_ATTR_NOSYMFOLLOW;
    kernel::set_attributes(tree.as_fd(), attributes, None).during("set the mount's attributes")?;
    kernel::attach(tree.as_fd(), c".").during("mount the new tree over itself")?;
    fchdir(tree.as_raw_fd()).during("enter the new tree")?;
    pivot_root(".", ".").during("pivot to the new tree")?;
    umount2(".", MntFlags::MNT_DETACH).during("drop the old root")?;
    chdir("/").during("enter the new root")
}

fn limit(order: &Order) -> Result<(), Failed> {
    let memory = MEMORY.saturating_add(order.told.entries.saturating_mul(MEMORY_PER_ENTRY));
    let limits = [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, OPEN_FILES),
        (Resource::RLIMIT_FSIZE, order.bounds.file_bytes),
        (Resource::RLIMIT_AS, memory),
    ];
    for (resource, most) in limits {
        setrlimit(resource, most, most).during(&format!("set {resource:?}"))?;
    }
    Ok(())
}

/// Keeps [`CAPABILITIES`] alone, for good.
fn drop_capabilities() -> io::Result<()> {
    for capability in 0..=63 {
        if CAPABILITIES.contains(&capability) {
            continue;
        }
        match prctl_number(libc::PR_CAPBSET_DROP, capability.into()) {
            Ok(()) => {}
            // The kernel has no more of them.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    let clear_all = libc::PR_CAP_AMBIENT_CLEAR_ALL.cast_unsigned();
    prctl_number(libc::PR_CAP_AMBIENT, clear_all.into())?;
    let kept = CAPABILITIES.iter().fold(0, |kept, one| kept | 1_u32 << one);
    set_capabilities(kept)
}

fn prctl_number(operation: i32, argument: libc::c_ulong) -> Result<(), Errno> {
    let none: libc::c_ulong = 0;
    // SAFETY: the operations used here take numbers only.
    Errno::result(unsafe { libc::prctl(operation, argument, none, none, none) }).map(drop)
}

/// Sets what is permitted and in effect to these of the first 32 capabilities; none is inherited.
fn set_capabilities(kept: u32) -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: 64 bits in two words.
    const VERSION: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION, 0];
    // Effective, permitted, inheritable: of the first 32, then of the others.
    let data: [u32; 6] = [kept, kept, 0, 0, 0, 0];
    // SAFETY: the header is the version and this process (0), the data is two triples, both live
    // and of the form that this version has.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    Errno::result(done).map(drop).map_err(io::Error::from)
}
