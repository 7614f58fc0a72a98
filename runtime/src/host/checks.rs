//! `farebox doctor`: each thing that sandboxes need of a host, what is lost without it, and the
//! cure.

use std::fs::{File, read_to_string};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::geteuid;

use crate::cgroup::{Hierarchies, Version};
use crate::disk;
use crate::launcher::{kernel, userns};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at; stable, in `snake_case`.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What to do about it; empty when it is well.
    pub cure: String,
    /// What does not work without it; empty when it is well.
    pub lost: String,
}

/// What a check comes to: what was found, whether it is well or not.
type Finding = Result<String, String>;

/// Every sandbox.
const ALL: &str = "no sandbox can be made";

/// Bytes of memory below which not even one image runs well beside the server.
const MEMORY_MIN: u64 = 512 << 20;
/// Open files that a server with a small pool needs.
const OPEN_FILES_MIN: u64 = 4096;
/// The first kernel that can do all that is asked of it: idmapped mounts below an overlay.
const KERNEL_MIN: (u32, u32) = (5, 19);

/// Looks at the host; changes nothing. To be called with one thread, since it forks.
///
/// The check of idmapped mounts is made on the file system that holds, or would hold, `images_dir`.
#[must_use]
pub fn doctor(images_dir: &Path) -> Vec<Check> {
    let mut checks = kernel_checks(images_dir);
    checks.extend(machine_checks());
    checks
}

/// What the kernel must be able to do.
fn kernel_checks(images_dir: &Path) -> Vec<Check> {
    const LOOP: &str = "modprobe loop, and give access to /dev/loop*";
    const GROUPS: &str = "mount cgroup v2, or v1 with memory cpu cpuacct pids devices";
    let userns = userns::make(HOST_ID).map_err(|error| error.to_string());
    let made = userns
        .as_ref()
        .map(|_| "can be made".to_owned())
        .map_err(Clone::clone);
    let idmap = idmapped(images_dir, userns.as_ref().ok());
    let needed = [
        ("root", root(), "run as root: sudo farebox serve"),
        ("kernel", kernel_version(), "boot Linux 5.19 or later"),
        (
            "user_namespaces",
            made,
            "sysctl -w user.max_user_namespaces=15000",
        ),
        (
            "idmapped_mounts",
            idmap,
            "keep images on ext4, xfs or btrfs: images.dir",
        ),
        ("overlay", filesystem("overlay"), "modprobe overlay"),
        ("ext4", filesystem("ext4"), "modprobe ext4"),
        ("loop_devices", loop_devices(), LOOP),
        ("mkfs_ext4", mkfs(), "apt-get install e2fsprogs"),
        ("cgroups", cgroups(), GROUPS),
        (
            "seccomp",
            seccomp(),
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        ),
    ];
    needed
        .into_iter()
        .map(|(name, found, cure)| check(name, found, (ALL, cure)))
        .collect()
}

/// What the machine should have; sandboxes run without it, but not as well.
fn machine_checks() -> Vec<Check> {
    let wanted = [
        (
            ("swap_accounting", swap()),
            (
                "a sandbox may swap beyond its memory limit",
                "swapoff -a, or boot with swapaccount=1",
            ),
        ),
        (
            ("memory", memory()),
            (
                "sandboxes fail for memory",
                "give the machine 512 MiB or more",
            ),
        ),
        (
            ("open_files", open_files()),
            ("fewer sandboxes at one time", "ulimit -Hn 65536"),
        ),
        (
            ("unprivileged_bpf", bpf()),
            (
                "one more way for other software on this host to attack the kernel",
                "sysctl -w kernel.unprivileged_bpf_disabled=1",
            ),
        ),
        (
            ("mmdebstrap", mmdebstrap()),
            (
                "images cannot be built here; built ones still run",
                "apt-get install mmdebstrap",
            ),
        ),
    ];
    wanted
        .into_iter()
        .map(|((name, found), told)| check(name, found, told))
        .collect()
}

/// Any id beyond those of the host's users will do for a trial.
const HOST_ID: u32 = 0x4000_0000;

fn check(name: &'static str, finding: Finding, (lost, cure): (&str, &str)) -> Check {
    let is_well = finding.is_ok();
    let told = |text: &str| {
        if is_well {
            String::new()
        } else {
            text.to_owned()
        }
    };
    let (lost, cure) = (told(lost), told(cure));
    let (Ok(found) | Err(found)) = finding;
    Check {
        name,
        ok: is_well,
        found,
        cure,
        lost,
    }
}

fn root() -> Finding {
    let uid = geteuid();
    let found = format!("uid {uid}");
    if uid.is_root() { Ok(found) } else { Err(found) }
}

fn kernel_version() -> Finding {
    let release =
        read_to_string("/proc/sys/kernel/osrelease").map_err(|error| error.to_string())?;
    let release = release.trim().to_owned();
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

fn idmapped(images_dir: &Path, userns: Option<&OwnedFd>) -> Finding {
    let userns = userns.ok_or("not tried: no user namespace")?;
    let existing = images_dir
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or_else(|| Path::new("/"));
    let tried = || -> io::Result<()> {
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

fn filesystem(name: &str) -> Finding {
    let text = read_to_string("/proc/filesystems").map_err(|error| error.to_string())?;
    let known = text
        .lines()
        .any(|line| line.split_whitespace().next_back() == Some(name));
    if known {
        Ok("there".to_owned())
    } else {
        Err("not loaded".to_owned())
    }
}

fn loop_devices() -> Finding {
    match File::options()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
    {
        Ok(_) => Ok("/dev/loop-control opens".to_owned()),
        Err(error) => Err(format!("/dev/loop-control: {error}")),
    }
}

fn mkfs() -> Finding {
    disk::mkfs()
        .map(str::to_owned)
        .ok_or_else(|| "not found".to_owned())
}

fn cgroups() -> Finding {
    match Hierarchies::open() {
        Ok(found) if found.version == Version::V2 => Ok("v2".to_owned()),
        Ok(_) => Ok("v1".to_owned()),
        Err(failed) => Err(failed.to_string()),
    }
}

fn seccomp() -> Finding {
    let text = read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    text.map(|text| text.trim().to_owned())
        .map_err(|error| error.to_string())
}

fn swap() -> Finding {
    let text = read_to_string("/proc/swaps").map_err(|error| error.to_string())?;
    if text.lines().count() <= 1 {
        return Ok("no swap".to_owned());
    }
    let v1 = Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes");
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers");
    if v1.exists() || v2.exists() {
        Ok("swap is on and accounted".to_owned())
    } else {
        Err("swap is on and not accounted".to_owned())
    }
}

fn memory() -> Finding {
    let text = read_to_string("/proc/meminfo").map_err(|error| error.to_string())?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = kib.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let bytes = kib.ok_or("MemTotal is absent")?.saturating_mul(1024);
    let found = format!("{} MiB", bytes >> 20);
    if bytes >= MEMORY_MIN {
        Ok(found)
    } else {
        Err(found)
    }
}

fn open_files() -> Finding {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|errno| errno.to_string())?;
    let found = format!("hard limit {hard}");
    if hard >= OPEN_FILES_MIN {
        Ok(found)
    } else {
        Err(found)
    }
}

fn bpf() -> Finding {
    match read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled") {
        Ok(text) if text.trim() == "0" => Err("allowed to everybody".to_owned()),
        Ok(_) => Ok("not allowed".to_owned()),
        Err(_) => Ok("not in this kernel".to_owned()),
    }
}

fn mmdebstrap() -> Finding {
    let path = Path::new("/usr/bin/mmdebstrap");
    if path.exists() {
        Ok(path.display().to_string())
    } else {
        Err("not found".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_has_a_cure_and_a_loss() {
        let well = check("root", Ok("uid 0".to_owned()), ("everything", "sudo"));
        assert!(well.ok && well.cure.is_empty() && well.lost.is_empty());
        let wrong = check("root", Err("uid 5".to_owned()), ("everything", "sudo"));
        assert_eq!(
            (wrong.ok, &*wrong.lost, &*wrong.cure),
            (false, "everything", "sudo")
        );
        assert_eq!(wrong.found, "uid 5");
    }

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("5.19-rc1"), Some((5, 19)));
        assert!(version("5.4.0") < version("5.19.0"));
        assert_eq!(version("linux"), None);
    }

    #[test]
    fn unknown_file_system_is_not_found() {
        assert!(filesystem("proc").is_ok());
        assert!(filesystem("no-such-file-system").is_err());
    }
}
