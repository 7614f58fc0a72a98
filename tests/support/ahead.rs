//! What a launcher has made ahead, seen from outside.

use std::fs;
use std::path::Path;

/// Name of the process that makes disks ahead, a child of the launcher's.
pub(crate) const DISK_MAKER: &str = "farebox-disks";

/// Whether a launcher has a disk ready: a mount that is attached nowhere is among its descriptors.
pub(crate) fn has_disk(pid: u32) -> bool {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let is_disk = |name: &str| {
        let target = fs::read_link(format!("/proc/{pid}/fd/{name}")).ok()?;
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{name}")).ok()?;
        let flags = info
            .lines()
            .find_map(|line| line.strip_prefix("flags:\t"))?;
        let is_path = i32::from_str_radix(flags, 8).ok()? & libc::O_PATH != 0;
        Some(is_path && target == Path::new("/"))
    };
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.any(|name| is_disk(&name) == Some(true))
}
