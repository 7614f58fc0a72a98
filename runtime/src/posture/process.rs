//! What init itself is: ids, capabilities, filter, namespaces, groups, limits, descriptors.

use std::io;

use super::{Expected, Findings, Subject};
use crate::oci::{RANGE, USER, process_limits};

/// A cure for what the container library or the kernel did not do.
const LIBRARY: &str = "do not serve on this host; report it with the kernel's version";

/// Lines of `/proc/PID/status` that must be just so.
const STATUS: [(&str, &str); 8] = [
    ("Seccomp", "2"),
    ("NoNewPrivs", "1"),
    ("CapInh", "0000000000000000"),
    ("CapPrm", "0000000000000000"),
    ("CapEff", "0000000000000000"),
    ("CapBnd", "0000000000000000"),
    ("CapAmb", "0000000000000000"),
    ("Threads", "1"),
];

/// Namespaces that a sandbox has of its own.
const NAMESPACES: [&str; 8] = ["pid", "mnt", "net", "ipc", "uts", "cgroup", "user", "time"];

pub(super) fn status(
    subject: &Subject,
    expected: &Expected<'_>,
    found: &mut Findings,
) -> io::Result<()> {
    check_status(&subject.read("status")?, expected, found);
    Ok(())
}

/// A fork has the ids and the rights of init, one filter more (its template's), and the id inside
/// that it says.
pub(super) fn fork_status(
    fork: &Subject,
    init: &Subject,
    (pid, expected): (u32, &Expected<'_>),
    found: &mut Findings,
) -> io::Result<()> {
    let (text, init) = (fork.read("status")?, init.read("status")?);
    check_rights(&text, expected, found);
    let filters = |text: &str| value(text, "Seccomp_filters").parse::<u32>().ok();
    let must = filters(&init).map(|filters| filters + 1);
    // Kernels before 5.9 do not tell.
    if filters(&text) != must {
        let both = format!("{:?}, must be {must:?}", filters(&text));
        found.add("Seccomp_filters", &both, LIBRARY);
    }
    let inside = value(&text, "NSpid");
    let depth = |text: &str| value(text, "NSpid").split(' ').count();
    let is_it = inside.split(' ').next_back() == Some(pid.to_string().as_str());
    if !is_it || depth(&text) != depth(&init) {
        found.add("NSpid", &format!("{inside:?}, must end in {pid}"), LIBRARY);
    }
    Ok(())
}

/// A fork is where init is; its time is its own, and not the host's.
pub(super) fn same_namespaces(
    fork: &Subject,
    init: &Subject,
    found: &mut Findings,
) -> io::Result<()> {
    for name in NAMESPACES {
        let link = format!("ns/{name}");
        let own = fork.link(&link)?;
        let is_right = if name == "time" {
            let shim = Subject {
                dir: "/proc/self".into(),
            };
            own != shim.link(&link)?
        } else {
            own == init.link(&link)?
        };
        if !is_right {
            found.add(&format!("namespace {name}"), &own, LIBRARY);
        }
    }
    Ok(())
}

/// A fork may have its three pipes and nothing else.
pub(super) fn three_pipes(subject: &Subject, found: &mut Findings) -> io::Result<()> {
    for entry in std::fs::read_dir(subject.dir.join("fd"))? {
        let name = entry?.file_name();
        let target = subject.link(std::path::Path::new("fd").join(&name))?;
        let is_standard = matches!(name.to_str(), Some("0" | "1" | "2"));
        if !is_standard || !target.starts_with("pipe:[") {
            let what = format!("descriptor {}", name.to_string_lossy());
            found.add(&what, &format!("{target}, must not be open"), LIBRARY);
        }
    }
    Ok(())
}

fn check_status(text: &str, expected: &Expected<'_>, found: &mut Findings) {
    check_rights(text, expected, found);
    let inside = value(text, "NSpid");
    if inside.split(' ').next_back() != Some("1") || !inside.contains(' ') {
        found.add("NSpid", &format!("{inside:?}, must end in 1"), LIBRARY);
    }
}

fn check_rights(text: &str, expected: &Expected<'_>, found: &mut Findings) {
    for (name, must) in STATUS {
        found.must_be(name, &value(text, name), must, LIBRARY);
    }
    let user = expected.uid_first + USER;
    let four = format!("{user} {user} {user} {user}");
    found.must_be("Uid", &value(text, "Uid"), &four, LIBRARY);
    found.must_be("Gid", &value(text, "Gid"), &four, LIBRARY);
    found.must_be("Groups", &value(text, "Groups"), &user.to_string(), LIBRARY);
}

/// The value of one line, its white space made single.
fn value(text: &str, name: &str) -> String {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or("absent")
        .split_ascii_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

pub(super) fn id_maps(
    subject: &Subject,
    expected: &Expected<'_>,
    found: &mut Findings,
) -> io::Result<()> {
    let must = format!("0 {} {RANGE}", expected.uid_first);
    for file in ["uid_map", "gid_map"] {
        let text = subject.read(file)?;
        let map = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        found.must_be(file, &map, &must, LIBRARY);
    }
    Ok(())
}

pub(super) fn namespaces(subject: &Subject, found: &mut Findings) -> io::Result<()> {
    let shim = Subject {
        dir: "/proc/self".into(),
    };
    let launcher = Subject {
        dir: format!("/proc/{}", nix::unistd::getppid()).into(),
    };
    for name in NAMESPACES {
        let own = subject.link(format!("ns/{name}"))?;
        for host in [&shim, &launcher] {
            if own == host.link(format!("ns/{name}"))? {
                let cure = "enable this kind of namespace in the kernel (CONFIG_*_NS)";
                found.add(&format!("namespace {name}"), "shared with the host", cure);
                break;
            }
        }
    }
    Ok(())
}

pub(super) fn groups(
    subject: &Subject,
    expected: &Expected<'_>,
    found: &mut Findings,
) -> io::Result<()> {
    check_groups(&subject.read("cgroup")?, expected.group, found);
    Ok(())
}

fn check_groups(text: &str, group: &str, found: &mut Findings) {
    let lines: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .collect();
    let v1 = lines
        .iter()
        .any(|(names, _)| names.split(',').any(|name| name == "memory"));
    let needed: &[&str] = if v1 {
        &["memory", "cpu", "cpuacct", "pids", "devices"]
    } else {
        &[""]
    };
    for controller in needed {
        let holds = |(names, _): &&(&str, &str)| names.split(',').any(|name| name == *controller);
        let path = lines.iter().find(holds).map_or("absent", |(_, path)| *path);
        let what = format!("group of {controller:?}");
        // In a container without a cgroup namespace of its own, the host's path comes before.
        let path = if path.ends_with(group) { group } else { path };
        found.must_be(
            &what,
            path,
            group,
            "mount the cgroup controllers before the server starts",
        );
    }
}

pub(super) fn limits(
    subject: &Subject,
    expected: &Expected<'_>,
    found: &mut Findings,
) -> io::Result<()> {
    check_limits(&subject.read("limits")?, expected, found);
    Ok(())
}

fn check_limits(text: &str, expected: &Expected<'_>, found: &mut Findings) {
    for (name, must) in process_limits(expected.limits, expected.disk) {
        let title = match name {
            "RLIMIT_NOFILE" => "Max open files",
            "RLIMIT_CORE" => "Max core file size",
            "RLIMIT_FSIZE" => "Max file size",
            "RLIMIT_MEMLOCK" => "Max locked memory",
            "RLIMIT_MSGQUEUE" => "Max msgqueue size",
            _ => "Max pending signals",
        };
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(title))
            .unwrap_or("");
        let both: Vec<&str> = line.split_ascii_whitespace().take(2).collect();
        let must = format!("{must} {must}");
        found.must_be(
            title,
            &both.join(" "),
            &must,
            "raise the server's own hard limit",
        );
    }
}

/// Init may have three descriptors that lead nowhere, its socket, and one for its children's ends.
pub(super) fn descriptors(subject: &Subject, found: &mut Findings) -> io::Result<()> {
    let mut links = Vec::new();
    for entry in std::fs::read_dir(subject.dir.join("fd"))? {
        let name = entry?.file_name();
        let target = subject.link(std::path::Path::new("fd").join(&name))?;
        links.push((name.to_string_lossy().into_owned(), target));
    }
    check_descriptors(&links, found);
    Ok(())
}

fn check_descriptors(links: &[(String, String)], found: &mut Findings) {
    let mut sockets = 0;
    for (number, target) in links {
        let is_standard = matches!(number.as_str(), "0" | "1" | "2");
        let is_nothing = target == "/dev/null" || target.starts_with("/memfd:nothing");
        let is_allowed = match target.as_str() {
            _ if is_standard => is_nothing,
            "anon_inode:[signalfd]" => true,
            other if other.starts_with("socket:[") => {
                sockets += 1;
                sockets == 1
            }
            _ => false,
        };
        if !is_allowed {
            let found_text = format!("{target}, must not be open in init");
            found.add(&format!("descriptor {number}"), &found_text, LIBRARY);
        }
    }
    if sockets == 0 {
        found.add("descriptors", "init has no socket", LIBRARY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{DiskClass, WireLimits};

    const LIMITS: WireLimits = WireLimits {
        cpu_millis: 1000,
        memory_bytes: 1 << 28,
        pids: 64,
        open_files: 1024,
    };

    fn expected() -> Expected<'static> {
        Expected {
            uid_first: 0x4000_0000,
            group: "/farebox/i/sandboxes/s",
            limits: &LIMITS,
            disk: DiskClass {
                bytes: 1 << 28,
                inodes: 20_000,
            },
        }
    }

    fn names(check: impl Fn(&mut Findings)) -> Vec<String> {
        let mut found = Findings::default();
        check(&mut found);
        found
            .0
            .into_iter()
            .map(|deviation| deviation.what)
            .collect()
    }

    const GOOD: &str = "Name:\tfarebox\nUid:\t1073742824\t1073742824\t1073742824\t1073742824\n\
        Gid:\t1073742824\t1073742824\t1073742824\t1073742824\nGroups:\t1073742824 \n\
        NSpid:\t812\t1\nThreads:\t1\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
        CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\n\
        NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn good_status_has_no_deviation() {
        assert_eq!(
            names(|found| check_status(GOOD, &expected(), found)),
            [""; 0]
        );
    }

    #[test]
    fn each_wrong_line_of_status_is_named() {
        for (from, to, name) in [
            ("Seccomp:\t2", "Seccomp:\t0", "Seccomp"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "NoNewPrivs"),
            (
                "CapBnd:\t0000000000000000",
                "CapBnd:\t000001ffffffffff",
                "CapBnd",
            ),
            ("Groups:\t1073742824", "Groups:\t0 1073742824", "Groups"),
            ("Uid:\t1073742824", "Uid:\t0", "Uid"),
            ("NSpid:\t812\t1", "NSpid:\t812", "NSpid"),
        ] {
            let text = GOOD.replace(from, to);
            assert_eq!(
                names(|found| check_status(&text, &expected(), found)),
                [name]
            );
        }
    }

    #[test]
    fn group_outside_the_sandboxs_own_is_named() {
        let good = "9:memory:/farebox/i/sandboxes/s\n8:cpu,cpuacct:/farebox/i/sandboxes/s\n\
            7:pids:/farebox/i/sandboxes/s\n6:devices:/farebox/i/sandboxes/s\n1:freezer:/\n0::/\n";
        let group = expected().group;
        assert_eq!(names(|found| check_groups(good, group, found)), [""; 0]);
        let bad = good.replace("7:pids:/farebox/i/sandboxes/s", "7:pids:/");
        assert_eq!(
            names(|found| check_groups(&bad, group, found)),
            ["group of \"pids\""]
        );
        assert_eq!(
            names(|found| check_groups("0::/farebox/i/sandboxes/s\n", group, found)),
            [""; 0]
        );
        assert_eq!(names(|found| check_groups("0::/\n", group, found)).len(), 1);
    }

    #[test]
    fn descriptor_of_the_host_is_named() {
        let link = |number: &str, target: &str| (number.to_owned(), target.to_owned());
        let good = vec![
            link("0", "/dev/null"),
            link("1", "/dev/null"),
            link("2", "/dev/null"),
            link("3", "anon_inode:[signalfd]"),
            link("100", "socket:[77]"),
        ];
        assert_eq!(names(|found| check_descriptors(&good, found)), [""; 0]);
        for (number, target) in [
            ("15", "/"),
            ("7", "socket:[78]"),
            ("5", "pipe:[3]"),
            ("9", "/sys/fs/cgroup/memory"),
        ] {
            let mut links = good.clone();
            links.push(link(number, target));
            let found = names(|found| check_descriptors(&links, found));
            assert_eq!(found, [format!("descriptor {number}")]);
        }
    }

    #[test]
    fn soft_limit_below_a_higher_hard_one_is_named() {
        let line =
            |title: &str, soft: u64, hard: u64| format!("{title}   {soft}   {hard}   units\n");
        let good = [
            line("Max open files", 1024, 1024),
            line("Max core file size", 0, 0),
            line("Max file size", 1 << 29, 1 << 29),
            line("Max locked memory", 65536, 65536),
            line("Max msgqueue size", 819_200, 819_200),
            line("Max pending signals", 128, 128),
        ]
        .concat();
        assert_eq!(
            names(|found| check_limits(&good, &expected(), found)),
            [""; 0]
        );
        let bad = good.replace(
            &line("Max core file size", 0, 0),
            &line("Max core file size", 0, 9),
        );
        assert_eq!(
            names(|found| check_limits(&bad, &expected(), found)),
            ["Max core file size"]
        );
    }
}
