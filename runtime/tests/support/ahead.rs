//! What a launcher has made ahead, seen from outside.

use std::collections::BTreeSet;
use std::fs;

use nix::sys::statvfs::statvfs;

/// Name of the process that makes disks ahead, a child of the launcher's.
const DISK_MAKER: &str = "farebox-disks";

/// The disks that a launcher has ready: the mounts that are attached nowhere and are among its
/// descriptors, by the kernel's numbers, which are given again, and their sizes.
pub(crate) fn disks(launcher: u32) -> BTreeSet<String> {
    let of = format!("/proc/{launcher}");
    let entries = fs::read_dir(format!("{of}/fd")).unwrap().flatten();
    let mount = |name: String| {
        let target = fs::read_link(format!("{of}/fd/{name}")).ok()?;
        let info = fs::read_to_string(format!("{of}/fdinfo/{name}")).ok()?;
        let said = |what: &str| info.lines().find_map(|line| line.strip_prefix(what));
        let flags = i32::from_str_radix(said("flags:\t")?, 8).ok()?;
        let is_mount = target.as_os_str() == "/" && flags & libc::O_PATH != 0;
        let number = is_mount.then(|| said("mnt_id:\t"))??;
        let size = statvfs(format!("{of}/fd/{name}").as_str()).ok()?.blocks();
        Some(format!("{number} of {size} blocks"))
    };
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(mount).collect()
}

/// Whether a process is a launcher's disk maker.
pub(crate) fn is_disk_maker(pid: impl std::fmt::Display) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end() == DISK_MAKER
}
