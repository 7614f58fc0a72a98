//! Readers for the text that the kernel's cgroup files hold.

/// A file of one number; `max` reads as none.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of `key` in a file of `KEY VALUE` lines.
pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| number(value))?
    })
}

/// The process ids in `cgroup.procs`.
pub(super) fn pids(text: &str) -> Vec<i32> {
    text.lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect()
}

/// One cgroup mount, as `/proc/PID/mountinfo` tells of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CgroupMount<'a> {
    /// Where it is mounted, still with the kernel's octal escapes.
    pub(super) point: &'a str,
    /// `cgroup` or `cgroup2`.
    pub(super) kind: &'a str,
    /// Controllers and options of its hierarchy.
    pub(super) options: Vec<&'a str>,
}

/// The cgroup mounts in a mountinfo.
pub(super) fn cgroup_mounts(mountinfo: &str) -> Vec<CgroupMount<'_>> {
    mountinfo.lines().filter_map(cgroup_mount).collect()
}

fn cgroup_mount(line: &str) -> Option<CgroupMount<'_>> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let point = mount.split(' ').nth(4)?;
    let mut words = filesystem.split(' ');
    let kind = words.next()?;
    let options = words.nth(1)?.split(',').collect();
    matches!(kind, "cgroup" | "cgroup2").then_some(CgroupMount {
        point,
        kind,
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_max_is_none() {
        assert_eq!(number("18446744073709551615\n"), Some(u64::MAX));
        assert_eq!(number("max\n"), None);
        assert_eq!(number(""), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let stat =
            "usage_usec 31\nuser_usec 20\nsystem_usec 11\nnr_throttled 0\nthrottled_usec 7\n";
        assert_eq!(field(stat, "user_usec"), Some(20));
        assert_eq!(field(stat, "throttled_usec"), Some(7));
        assert_eq!(field(stat, "usec"), None);
        assert_eq!(
            field("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"),
            Some(3)
        );
    }

    #[test]
    fn process_ids_are_listed() {
        assert_eq!(pids("12\n7\n"), [12, 7]);
        assert_eq!(pids(""), [0_i32; 0]);
    }

    #[test]
    fn cgroup_mounts_are_told_from_others() {
        let info = "22 27 0:21 / /proc rw - proc proc rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let mounts = cgroup_mounts(info);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].point, "/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(mounts[0].options, ["rw", "cpu", "cpuacct"]);
        assert_eq!(mounts[1].kind, "cgroup2");
    }
}
