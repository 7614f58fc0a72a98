//! The launcher's own small root: a tmpfs that holds only what shims and libcontainer need.
//!
//! ```text
//! /proc           fresh and fully visible (else the kernel refuses proc mounts in user namespaces)
//! /dev            tmpfs: null zero full random urandom tty loop-control loop0..7
//! /sys/fs/cgroup  v1: an empty tmpfs, so that libcontainer finds no hierarchy; v2: the tree
//! /images         the image store, read only
//! /run            the state directory
//! /bdi            how much of each disk may wait to be written, where the kernel can be told
//! /img /disk /m /st /told   empty: mount points of a shim, in its own mount namespace
//! ```

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::unistd::{chdir, pivot_root};

use super::kernel;
use super::step::{During, Failed};
use crate::disk;

/// The image store.
pub(crate) const IMAGES: &str = "/images";
/// The state directory.
pub(crate) const STATE: &str = "/run";
/// Where the cgroup v2 tree is.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";
/// Where it can be said how much of a block device may wait to be written.
pub(crate) const WRITEBACK: &str = "/bdi";
/// Mount point of a sandbox's image.
pub(crate) const IMAGE: &str = "/img";
/// Mount point of a sandbox's disk.
pub(crate) const DISK: &str = "/disk";
/// Mount point of the container library's state.
pub(crate) const LIBRARY: &str = "/st";
/// Mount point of what a sandbox is told of itself.
pub(crate) const TOLD: &str = "/told";

/// [`WRITEBACK`] on the host.
const HOST_WRITEBACK: &str = "/sys/devices/virtual/bdi";

/// Devices that libcontainer binds into sandboxes: name, major, minor.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// What the new root shows of the host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a> {
    /// The image store.
    pub(super) images: BorrowedFd<'a>,
    /// The state directory.
    pub(super) state: BorrowedFd<'a>,
    /// The cgroup v2 tree.
    pub(super) cgroup: Option<BorrowedFd<'a>>,
}

/// Takes a mount namespace of its own, of which nothing reaches the host.
pub(super) fn detach() -> Result<(), Failed> {
    unshare(CloneFlags::CLONE_NEWNS).during("make a mount namespace")?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).during("make mounts private")
}

/// Builds the new root over `point`, a directory that is in nobody's way, and moves into it.
pub(super) fn enter(point: &Path, shown: Shown<'_>) -> Result<(), Failed> {
    umask(Mode::from_bits_truncate(0o022));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    tmpfs(point, flags, "mode=755,size=1m,nr_inodes=256")?;
    let at = |name: &str| point.join(name.trim_start_matches('/'));
    let mounted = ["/proc", "/dev", CGROUPS, IMAGES, STATE, WRITEBACK];
    for name in mounted
        .into_iter()
        .chain([IMAGE, DISK, crate::oci::ROOT, LIBRARY, TOLD])
    {
        std::fs::create_dir_all(at(name)).during(&format!("make {name}"))?;
    }
    mount(
        Some("proc"),
        &at("/proc"),
        Some("proc"),
        flags,
        None::<&str>,
    )
    .during("mount proc")?;
    let dev = at("/dev");
    tmpfs(
        &dev,
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        "mode=755,size=64k,nr_inodes=1024",
    )?;
    make_devices(&dev).during("make device nodes")?;
    match shown.cgroup {
        Some(tree) => show(tree, &at(CGROUPS), 0)?,
        None => tmpfs(&at(CGROUPS), flags, "mode=755,size=4k,nr_inodes=2")?,
    }
    show(shown.images, &at(IMAGES), kernel::IMAGE_ATTRIBUTES)?;
    show(
        shown.state,
        &at(STATE),
        libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
    )?;
    // A host without it has a kernel that cannot be told.
    if let Ok(devices) = std::fs::File::open(HOST_WRITEBACK) {
        let plain = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
        show(devices.as_fd(), &at(WRITEBACK), plain)?;
    }
    pivot(point)
}

/// Makes the mount at `point` the root of this mount namespace, and drops all others but those
/// below it.
pub(crate) fn pivot(point: &Path) -> Result<(), Failed> {
    chdir(point).during("enter the new root")?;
    pivot_root(".", ".").during("pivot to the new root")?;
    umount2(".", MntFlags::MNT_DETACH).during("drop the old root")?;
    chdir("/").during("enter the new root")
}

/// Mounts an empty tmpfs.
pub(crate) fn tmpfs(point: &Path, flags: MsFlags, options: &str) -> Result<(), Failed> {
    mount(Some("tmpfs"), point, Some("tmpfs"), flags, Some(options))
        .during(&format!("mount a tmpfs at {}", point.display()))
}

fn show(dir: BorrowedFd<'_>, point: &Path, attributes: u64) -> Result<(), Failed> {
    let step = format!("show a directory at {}", point.display());
    let tree = kernel::clone_tree(dir).during(&step)?;
    if attributes != 0 {
        kernel::set_attributes(tree.as_fd(), attributes, None).during(&step)?;
    }
    let point = CString::new(point.as_os_str().as_encoded_bytes()).during(&step)?;
    kernel::attach(tree.as_fd(), &point).during(&step)
}

fn make_devices(dev: &Path) -> io::Result<()> {
    let everyone = Mode::from_bits_truncate(0o666);
    let before = umask(Mode::empty());
    for (name, major, minor) in DEVICES {
        mknod(
            &dev.join(name),
            SFlag::S_IFCHR,
            everyone,
            makedev(major, minor),
        )?;
    }
    umask(before);
    disk::make_nodes(&dev.to_string_lossy())
}
