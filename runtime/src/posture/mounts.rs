//! What a sandbox can see of file systems: nothing but the few that it must have.

use std::io;
use std::path::Path;

use super::{Findings, Subject};
use crate::oci::{MASKED, READ_ONLY};
use crate::truth;

/// A cure for a mount that should not be there, or should be stricter.
const CURE: &str = "do not serve on this host; report it with the kernel's version";

/// Device nodes that are bound from the launcher's own `/dev`.
const DEVICES: [&str; 6] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];

/// Mounts that must be there: point, type, options that must be set.
const NEEDED: [(&str, &str, &[&str]); 4] = [
    ("/", "overlay", &["nosuid", "nodev"]),
    ("/proc", "proc", &["nosuid", "nodev", "noexec"]),
    ("/dev", "tmpfs", &["nosuid", "noexec"]),
    ("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec"]),
];

/// One line of a mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    /// What of its file system is mounted.
    root: &'a str,
    point: &'a str,
    options: Vec<&'a str>,
    kind: &'a str,
}

pub(super) fn check(subject: &Subject, found: &mut Findings) -> io::Result<()> {
    let hidden: Vec<&str> = MASKED
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .collect();
    let held: Vec<&str> = READ_ONLY
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .collect();
    check_mounts(&subject.read("mountinfo")?, (&hidden, &held), found);
    Ok(())
}

/// Checks a mountinfo; `hidden` and `held` are the entries of `/proc` that this kernel has, to be
/// masked and to be read only.
fn check_mounts(mountinfo: &str, (hidden, held): (&[&str], &[&str]), found: &mut Findings) {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(parse).collect();
    for (point, kind, options) in NEEDED {
        match mounts.iter().rfind(|mount| mount.point == point) {
            None => found.add(&format!("mount {point}"), "absent", CURE),
            Some(mount) => {
                found.must_be(&format!("type of {point}"), mount.kind, kind, CURE);
                for option in options {
                    if !mount.options.contains(option) {
                        found.add(&format!("mount {point}"), &format!("is not {option}"), CURE);
                    }
                }
            }
        }
    }
    for name in truth::FILES {
        check_told(name, &mounts, found);
    }
    for point in hidden {
        let is_masked = |mount: &&Mount<'_>| mount.point == *point && mount.kind == "tmpfs";
        if !mounts.iter().any(|mount| is_masked(&mount)) {
            found.add(
                &format!("mask of {point}"),
                "absent: the host shows through",
                CURE,
            );
        }
    }
    for point in held {
        let is_held = |mount: &Mount<'_>| mount.point == *point && mount.options.contains(&"ro");
        if !mounts.iter().any(is_held) {
            found.add(&format!("mount {point}"), "can be written", CURE);
        }
    }
    for mount in &mounts {
        let point = mount.point;
        let is_known = NEEDED.iter().any(|(needed, ..)| *needed == point)
            || DEVICES.contains(&point)
            || told(point).is_some()
            || hidden.contains(&point)
            || held.contains(&point);
        if !is_known {
            let kind = format!("a {}, must not be there", mount.kind);
            found.add(&format!("mount {point}"), &kind, CURE);
        }
    }
}

/// The file of ours that belongs at a mount point.
fn told(point: &str) -> Option<&str> {
    let name = point.strip_prefix("/proc/")?;
    truth::FILES.contains(&name).then_some(name)
}

/// A file of ours is there, is that file, and nothing can be done with it but to read it.
fn check_told(name: &str, mounts: &[Mount<'_>], found: &mut Findings) {
    let what = format!("mount /proc/{name}");
    let mut here = mounts
        .iter()
        .filter(|mount| told(mount.point) == Some(name));
    let (Some(mount), None) = (here.next(), here.next()) else {
        found.add(&what, "not there once: the host shows through", CURE);
        return;
    };
    found.must_be(&format!("type of /proc/{name}"), mount.kind, "tmpfs", CURE);
    found.must_be(
        &format!("file at /proc/{name}"),
        mount.root,
        &format!("/{name}"),
        CURE,
    );
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        if !mount.options.contains(&option) {
            found.add(&what, &format!("is not {option}"), CURE);
        }
    }
}

fn parse(line: &str) -> Option<Mount<'_>> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut words = mount.split(' ').skip(3);
    let root = words.next()?;
    let point = words.next()?;
    let options = words.next()?.split(',').collect();
    Some(Mount {
        root,
        point,
        options,
        kind: filesystem.split(' ').next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
90 80 0:40 / / rw,nosuid,nodev,relatime - overlay overlay rw,lowerdir=/img
91 90 0:41 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
92 90 0:42 / /dev rw,nosuid,noexec,relatime - tmpfs tmpfs rw,size=64k
93 92 0:43 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw
94 92 0:44 /null /dev/null rw,nosuid,noexec,relatime - tmpfs tmpfs rw
95 91 0:41 /sys /proc/sys ro,nosuid,nodev,noexec,relatime - proc proc rw
96 91 0:44 /null /proc/kcore rw,nosuid,noexec,relatime - tmpfs tmpfs rw
61 91 0:45 /cpuinfo /proc/cpuinfo ro,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=8192k
62 91 0:45 /loadavg /proc/loadavg ro,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=8192k
63 91 0:45 /meminfo /proc/meminfo ro,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=8192k
64 91 0:45 /stat /proc/stat ro,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=8192k
65 91 0:45 /uptime /proc/uptime ro,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=8192k
";

    fn deviations(mountinfo: &str) -> Vec<String> {
        let mut found = Findings::default();
        check_mounts(mountinfo, (&["/proc/kcore"], &["/proc/sys"]), &mut found);
        found
            .0
            .into_iter()
            .map(|deviation| deviation.what)
            .collect()
    }

    #[test]
    fn good_mounts_have_no_deviation() {
        assert_eq!(deviations(GOOD), [""; 0]);
    }

    #[test]
    fn foreign_mounts_are_named() {
        for (point, kind) in [
            ("/sys", "sysfs"),
            ("/sys/fs/cgroup", "cgroup2"),
            ("/old", "ext4"),
            ("/run", "tmpfs"),
            ("/told", "tmpfs"),
            ("/proc/version", "tmpfs"),
        ] {
            let more = format!("{GOOD}97 90 0:50 / {point} rw,relatime - {kind} x rw\n");
            assert_eq!(deviations(&more), [format!("mount {point}")]);
        }
    }

    #[test]
    fn missing_masks_and_laxer_options_are_named() {
        let line = |start: &str| GOOD.lines().find(|line| line.starts_with(start)).unwrap();
        assert_eq!(
            deviations(&GOOD.replace(line("96"), "")),
            ["mask of /proc/kcore"]
        );
        assert_eq!(
            deviations(&GOOD.replace("/proc/sys ro", "/proc/sys rw")),
            ["mount /proc/sys"]
        );
        assert_eq!(
            deviations(&GOOD.replace("/ / rw,nosuid,", "/ / rw,")),
            ["mount /"]
        );
        assert_eq!(
            deviations(&GOOD.replace(line("93"), "")),
            ["mount /dev/shm"]
        );
    }

    #[test]
    fn files_of_ours_are_there_once_and_read_only() {
        let line = GOOD.lines().find(|line| line.starts_with("63")).unwrap();
        let changed =
            |from: &str, to: &str| deviations(&GOOD.replace(line, &line.replace(from, to)));
        let mount = ["mount /proc/meminfo"];
        assert_eq!(deviations(&GOOD.replace(line, "")), mount);
        assert_eq!(deviations(&format!("{GOOD}{line}\n")), mount);
        for option in ["ro", "nosuid", "nodev", "noexec"] {
            assert_eq!(changed(&format!("{option},"), "rw,"), mount, "{option}");
        }
        assert_eq!(changed("- tmpfs", "- proc"), ["type of /proc/meminfo"]);
        assert_eq!(changed(" /meminfo", " /stat"), ["file at /proc/meminfo"]);
    }
}
