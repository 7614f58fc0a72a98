//! What the kernel must be able to do: without one of these no sandbox can be made.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use super::{Finding, Host, Row};
use crate::cgroup::{Hierarchies, Version};
use crate::disk;
use crate::host::filter;
use crate::launcher::{kernel, userns};

/// Every sandbox.
const ALL: &str = "no sandbox can be made";

/// The first kernel that can do all that is asked of it: idmapped mounts below an overlay.
const KERNEL_MIN: (u32, u32) = (5, 19);

pub(super) const ROWS: [Row; 11] = [
    Row("root", root, ALL, "run as root: sudo farebox serve"),
    Row("kernel", release, ALL, "boot Linux 5.19 or later"),
    Row(
        "user_namespaces",
        user_namespaces,
        ALL,
        "sysctl -w user.max_user_namespaces=15000",
    ),
    Row(
        "time_namespaces",
        time_namespaces,
        ALL,
        "boot a kernel with CONFIG_TIME_NS",
    ),
    Row(
        "idmapped_mounts",
        idmapped,
        ALL,
        "keep images on ext4, xfs or btrfs: images.dir",
    ),
    Row(
        "overlay",
        |host| filesystem(host, "overlay"),
        ALL,
        "modprobe overlay",
    ),
    Row(
        "ext4",
        |host| filesystem(host, "ext4"),
        ALL,
        "modprobe ext4",
    ),
    Row(
        "loop_devices",
        loop_devices,
        ALL,
        "modprobe loop, and give access to /dev/loop*",
    ),
    Row("mkfs_ext4", mkfs, ALL, "apt-get install e2fsprogs"),
    Row(
        "cgroups",
        cgroups,
        ALL,
        "mount cgroup v2, or v1 with memory cpu cpuacct pids devices",
    ),
    Row(
        "seccomp",
        |_| filter::loads(filter::PATIENCE_MS),
        ALL,
        "boot a kernel with CONFIG_SECCOMP_FILTER; if this one has it and does not answer, \
            restart the host",
    ),
];

fn root(_: &Host<'_>) -> Finding {
    let uid = geteuid();
    let found = format!("uid {uid}");
    if uid.is_root() { Ok(found) } else { Err(found) }
}

fn release(host: &Host<'_>) -> Finding {
    let release = host
        .text("proc/sys/kernel/osrelease")
        .ok_or("cannot be read")?;
    if version(&release).is_some_and(|found| found >= KERNEL_MIN) {
        Ok(release)
    } else {
        Err(release)
    }
}

/// Major and minor number of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn user_namespaces(host: &Host<'_>) -> Finding {
    match userns::make(host.needs.uid_base, 0) {
        Ok(_) => Ok("can be made".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn time_namespaces(host: &Host<'_>) -> Finding {
    if host.root.join("proc/self/ns/time").exists() {
        Ok("there".to_owned())
    } else {
        Err("not in this kernel".to_owned())
    }
}

/// Tried on the file system that holds, or would hold, the images.
fn idmapped(host: &Host<'_>) -> Finding {
    let existing = existing(host.needs.images_dir);
    let tried = || -> io::Result<()> {
        let userns = userns::make(host.needs.uid_base, 0)?;
        let mut options = File::options();
        options.read(true).custom_flags(OFlag::O_DIRECTORY.bits());
        let tree = kernel::clone_tree(options.open(existing)?.as_fd())?;
        kernel::set_attributes(tree.as_fd(), kernel::IMAGE_ATTRIBUTES, Some(userns.as_fd()))
    };
    let place = existing.display();
    match tried() {
        Ok(()) => Ok(format!("work on {place}")),
        Err(error) => Err(format!("{place}: {error}")),
    }
}

/// The nearest directory above that is there.
pub(super) fn existing(dir: &Path) -> &Path {
    dir.ancestors()
        .find(|path| path.is_dir())
        .unwrap_or_else(|| Path::new("/"))
}

fn filesystem(host: &Host<'_>, name: &str) -> Finding {
    let text = host.text("proc/filesystems").ok_or("cannot be read")?;
    let known = text
        .lines()
        .any(|line| line.split_whitespace().next_back() == Some(name));
    if known {
        Ok("there".to_owned())
    } else {
        Err("not loaded".to_owned())
    }
}

fn loop_devices(_: &Host<'_>) -> Finding {
    match File::options()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
    {
        Ok(_) => Ok("/dev/loop-control opens".to_owned()),
        Err(error) => Err(format!("/dev/loop-control: {error}")),
    }
}

fn mkfs(_: &Host<'_>) -> Finding {
    disk::mkfs()
        .map(str::to_owned)
        .ok_or_else(|| "not found".to_owned())
}

fn cgroups(_: &Host<'_>) -> Finding {
    match Hierarchies::open() {
        Ok(found) if found.version == Version::V2 => Ok("v2".to_owned()),
        Ok(_) => Ok("v1".to_owned()),
        Err(failed) => Err(failed.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::needs;
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("5.19-rc1"), Some((5, 19)));
        assert!(version("5.4.0") < version("5.19.0"));
        assert_eq!(version("linux"), None);
    }

    #[test]
    fn unknown_file_system_is_not_found() {
        let host = Host {
            root: "/".into(),
            needs: needs(Path::new("/")),
        };
        assert!(filesystem(&host, "proc").is_ok());
        assert!(filesystem(&host, "no-such-file-system").is_err());
        assert_eq!(existing(Path::new("/proc/not/there")), Path::new("/proc"));
    }
}
