//! Each weak point is named alone, on a host made of a few files.

use std::path::Path;

use super::super::tests::needs;
use super::super::{Verdict, look};
use super::*;

/// A host that has everything: as little of one as the looks read.
const WELL: [(&str, &str); 22] = [
    ("proc/meminfo", "MemTotal:        2048000 kB\n"),
    ("proc/swaps", "Filename Type Size Used Priority\n"),
    ("proc/sys/user/max_user_namespaces", "8\n"),
    ("proc/sys/user/max_net_namespaces", "8\n"),
    ("proc/sys/kernel/pid_max", "512\n"),
    ("proc/sys/fs/mount-max", "100000\n"),
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/subuid", "user:100000:65536\n"),
    ("etc/subgid", ""),
    ("proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
    ("proc/sys/kernel/kptr_restrict", "1\n"),
    ("proc/sys/kernel/dmesg_restrict", "1\n"),
    ("proc/sys/kernel/randomize_va_space", "2\n"),
    ("proc/sys/vm/panic_on_oom", "0\n"),
    ("proc/sys/kernel/core_pattern", "core\n"),
    ("proc/sys/vm/nr_hugepages", "0\n"),
    ("sys/kernel/mm/ksm/run", "0\n"),
    ("sys/devices/system/cpu/smt/active", "0\n"),
    (
        "sys/devices/system/cpu/vulnerabilities/mds",
        "Mitigation: x\n",
    ),
    (
        "sys/devices/system/cpu/vulnerabilities/srbds",
        "Not affected\n",
    ),
    ("sys/devices/virtual/bdi/7:0/max_bytes", "0\n"),
    ("usr/bin/mmdebstrap", ""),
];

/// What one file says instead, which check objects, and what it has found.
const WORSE: [(&str, &str, &str, &str); 18] = [
    (
        "proc/meminfo",
        "MemTotal: 1024 kB\n",
        "memory",
        "MiB: 1, less than 512",
    ),
    (
        "proc/swaps",
        "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n",
        "swap",
        "on, and not accounted",
    ),
    (
        "proc/sys/user/max_net_namespaces",
        "7\n",
        "namespaces",
        "net 7, less than 8",
    ),
    (
        "proc/sys/kernel/pid_max",
        "511\n",
        "process_ids",
        "kernel.pid_max 511, less than 512",
    ),
    (
        "proc/sys/fs/mount-max",
        "99\n",
        "mounts",
        "fs.mount-max 99, less than 1000",
    ),
    (
        "etc/passwd",
        "x:x:1073741824:1::/:\n",
        "user_ids",
        "etc/passwd: x:x:1073741824:1::/:",
    ),
    (
        "etc/subuid",
        "x:1073000000:800000\n",
        "user_ids",
        "etc/subuid: x:1073000000:800000",
    ),
    (
        "etc/subgid",
        "x:1074003967:1\n",
        "user_ids",
        "etc/subgid: x:1074003967:1",
    ),
    (
        "proc/sys/kernel/unprivileged_bpf_disabled",
        "0\n",
        "unprivileged_bpf",
        "0",
    ),
    (
        "proc/sys/kernel/kptr_restrict",
        "0\n",
        "kernel_addresses",
        "0",
    ),
    ("proc/sys/kernel/dmesg_restrict", "0\n", "kernel_log", "0"),
    (
        "proc/sys/kernel/randomize_va_space",
        "1\n",
        "address_randomisation",
        "1",
    ),
    ("proc/sys/vm/panic_on_oom", "2\n", "panic_on_oom", "2"),
    (
        "proc/sys/kernel/core_pattern",
        "|/bin/x %p\n",
        "core_pattern",
        "|/bin/x %p",
    ),
    ("proc/sys/vm/nr_hugepages", "16\n", "huge_pages", "16"),
    ("sys/kernel/mm/ksm/run", "1\n", "memory_merging", "1"),
    (
        "sys/devices/system/cpu/smt/active",
        "1\n",
        "simultaneous_threads",
        "1",
    ),
    (
        "sys/devices/system/cpu/vulnerabilities/mds",
        "Vulnerable: no microcode\n",
        "cpu_vulnerabilities",
        "mds",
    ),
];

/// The weak points of a host of which one file says something else.
fn weak(changed: Option<(&str, &str)>) -> Vec<(&'static str, String)> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (path, text) in WELL.into_iter().chain(changed) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let images = root.join("images");
    let host = Host {
        root: root.to_owned(),
        needs: needs(&images),
    };
    // How this process was started is no matter of a file.
    look(&host)
        .into_iter()
        .filter(|check| check.verdict == Verdict::Weak && check.name != "open_files")
        .map(|check| (check.name, check.found))
        .collect()
}

#[test]
fn host_that_has_everything_has_no_weak_point() {
    assert_eq!(weak(None), []);
}

#[test]
fn each_weak_point_is_named_alone() {
    for (path, text, name, found) in WORSE {
        assert_eq!(
            weak(Some((path, text))),
            [(name, found.to_owned())],
            "{path}"
        );
    }
}

#[test]
fn ids_beside_the_ranges_are_nobodys_business() {
    for line in ["x:1073676287:1\n", "x:1074003968:9\n", "x:y:z\n", "\n"] {
        assert_eq!(weak(Some(("etc/subuid", line))), [], "{line}");
    }
}

#[test]
fn what_is_not_there_is_weak_or_no_matter() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host {
        root: dir.path().to_owned(),
        needs: needs(Path::new("/nowhere")),
    };
    for (look, is_well) in [
        (mmdebstrap as fn(&Host<'_>) -> Finding, false),
        (memory, false),
        (writeback, false),
        (process_ids, false),
        (swap, true),
        (core_pattern, true),
        (cpu_vulnerabilities, true),
        (image_store, true),
    ] {
        assert_eq!(look(&host).is_ok(), is_well, "{:?}", look(&host));
    }
}

#[test]
fn image_store_is_roots_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let host = Host {
        root: "/".into(),
        needs: needs(dir.path()),
    };
    let is_roots = metadata(dir.path()).unwrap().uid() == 0;
    for (mode, is_well) in [(0o755, true), (0o775, false), (0o702, false)] {
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(image_store(&host).is_ok(), is_well && is_roots, "{mode:o}");
    }
}

#[test]
fn disk_that_is_promised_must_be_free() {
    let dir = tempfile::tempdir().unwrap();
    let free = |disk_bytes| {
        let mut needs = needs(dir.path());
        needs.disk_bytes = disk_bytes;
        free_disk(&Host {
            root: "/".into(),
            needs,
        })
    };
    assert!(free(0).is_ok());
    assert!(free(u64::MAX).is_err());
}
