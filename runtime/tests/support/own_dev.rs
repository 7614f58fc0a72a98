//! A mount namespace with a `/dev` of its own, so that nothing that a test does reaches the host's.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// Name, device number and mode of each node.
const NODES: [(&str, (u64, u64), u32); 6] = [
    ("null", (1, 3), 0o666),
    ("zero", (1, 5), 0o666),
    ("full", (1, 7), 0o666),
    ("random", (1, 8), 0o666),
    ("urandom", (1, 9), 0o666),
    ("loop-control", (10, 237), 0o600),
];

/// Moves this process there; it must have one thread.
pub(crate) fn enter() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    mount(
        Some("tmpfs"),
        "/dev",
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some("mode=755"),
    )?;
    for (name, (major, minor), mode) in NODES {
        mknod(
            &Path::new("/dev").join(name),
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(mode),
            makedev(major, minor),
        )?;
    }
    Ok(())
}
