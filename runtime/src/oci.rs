//! The security posture of a sandbox: one pure function from what was asked to the OCI config.
//!
//! Written as JSON because that is how it reaches the container library. What is not here is as
//! much part of it: no capability, no `/sys`, no cgroup mount, no device but the harmless six, no
//! hook. The seccomp filter is not here either: it is loaded by init's executor, which fails the
//! start if it cannot. Groups and their limits are ours ([`crate::cgroup`]), so there are no
//! `resources`.

use std::os::fd::RawFd;

use serde_json::{Value, json};

use crate::launcher::root::TOLD;
use crate::truth;
use crate::wire::{DiskClass, WireLimits, WireNetwork};

/// Ids in a sandbox's range: 0 to this.
pub(crate) const RANGE: u32 = 65_536;
/// The user and group that everything in a sandbox runs as.
pub(crate) const USER: u32 = 1000;
/// Where the shim puts the root file system.
pub(crate) const ROOT: &str = "/m";

/// Entries of `/proc` that tell of the host, or act on it: hidden.
pub(crate) const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];

/// Entries of `/proc` that programs read but must not write.
pub(crate) const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Size of `/dev/shm` in bytes; what is written there counts as memory.
const SHM_BYTES: u64 = 16 << 20;

/// What the config depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Posture<'a> {
    /// First host uid and gid of the sandbox's range.
    pub(crate) uid_first: u32,
    /// Absolute path of its group.
    pub(crate) group: &'a str,
    /// Its limits.
    pub(crate) limits: &'a WireLimits,
    /// Its disk.
    pub(crate) disk: DiskClass,
    /// What it may reach.
    pub(crate) network: WireNetwork,
    /// Descriptor of the network namespace that it enters; one is made if there is none.
    pub(crate) netns: Option<RawFd>,
    /// Descriptor of the user namespace that it enters; one is made if there is none.
    pub(crate) userns: Option<RawFd>,
}

/// The OCI runtime config of a sandbox.
pub(crate) fn config(posture: &Posture<'_>) -> Value {
    let WireNetwork::None = posture.network;
    let mapping = json!([{"containerID": 0, "hostID": posture.uid_first, "size": RANGE}]);
    let mut namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount", "cgroup"]
        .into_iter()
        .map(|kind| json!({"type": kind}))
        .collect();
    namespaces.extend([("network", posture.netns), ("user", posture.userns)].map(
        |(kind, entered)| {
            match entered {
                // By the number that it has in the shim, and so in the process that opens it.
                Some(fd) => json!({"type": kind, "path": format!("/proc/self/fd/{fd}")}),
                None => json!({"type": kind}),
            }
        },
    ));
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": ROOT, "readonly": false},
        "hostname": "sandbox",
        "mounts": mounts(),
        "process": {
            "terminal": false,
            "user": {"uid": USER, "gid": USER, "additionalGids": [USER]},
            "args": ["init"],
            // Without it the library looks the home directory up, in the sandbox and before the
            // filter is loaded: the image's nsswitch.conf would choose code to load into init.
            "env": ["HOME=/"],
            "cwd": "/",
            "capabilities": {
                "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [],
            },
            "rlimits": rlimits(posture),
            "noNewPrivileges": true,
            "oomScoreAdj": 500,
        },
        "linux": {
            "namespaces": namespaces,
            "uidMappings": mapping,
            "gidMappings": mapping,
            "cgroupsPath": posture.group,
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}

fn mounts() -> Vec<Value> {
    let shm = format!("size={SHM_BYTES}");
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "noexec", "mode=755", "size=64k", "nr_inodes=64"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", shm, "nr_inodes=4096"]}),
    ];
    mounts.extend(truth::FILES.map(|name| {
        json!({"destination": format!("/proc/{name}"), "type": "bind",
            "source": format!("{TOLD}/{name}"),
            "options": ["bind", "ro", "nosuid", "noexec", "nodev"]})
    }));
    mounts
}

/// Limits on each process; soft is hard, so that none can be raised again.
pub(crate) fn process_limits(limits: &WireLimits, disk: DiskClass) -> [(&'static str, u64); 6] {
    [
        ("RLIMIT_NOFILE", u64::from(limits.open_files)),
        ("RLIMIT_CORE", 0),
        // Above what fits, so that the program is told of a full disk rather than killed.
        ("RLIMIT_FSIZE", disk.bytes.saturating_mul(2)),
        ("RLIMIT_MEMLOCK", 64 << 10),
        ("RLIMIT_MSGQUEUE", 819_200),
        ("RLIMIT_SIGPENDING", u64::from(limits.pids) + 64),
    ]
}

fn rlimits(posture: &Posture<'_>) -> Vec<Value> {
    process_limits(posture.limits, posture.disk)
        .into_iter()
        .map(|(kind, value)| json!({"type": kind, "soft": value, "hard": value}))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        config(&Posture {
            uid_first: 0x4000_0000,
            group: "/farebox/0123456789ab/sandboxes/00",
            limits: &WireLimits {
                cpu_millis: 1000,
                memory_bytes: 256 << 20,
                pids: 64,
                open_files: 1024,
            },
            disk: DiskClass {
                bytes: 256 << 20,
                inodes: 20_000,
            },
            network: WireNetwork::None,
            netns: None,
            userns: None,
        })
    }

    /// Whoever changes the posture changes this file too, and so sees the whole of it.
    #[test]
    fn posture_is_the_golden_one() {
        let golden: Value = serde_json::from_str(include_str!("oci/golden.json")).unwrap();
        let found = sample();
        assert_eq!(
            found,
            golden,
            "{}",
            serde_json::to_string_pretty(&found).unwrap()
        );
    }

    #[test]
    fn nothing_of_the_host_is_mounted() {
        let config = sample();
        let is_told = |name| truth::FILES.contains(&name);
        for mount in config["mounts"].as_array().unwrap() {
            let source = mount["source"].as_str().unwrap();
            let is_ours = match mount["type"].as_str() {
                Some("bind") => source.strip_prefix("/told/").is_some_and(is_told),
                kind => matches!(kind, Some("proc" | "tmpfs")) && !source.contains('/'),
            };
            assert!(is_ours, "{mount}");
            assert!(
                !mount["destination"].as_str().unwrap().starts_with("/sys"),
                "{mount}"
            );
        }
        assert!(config["hooks"].is_null());
        assert!(config["linux"]["devices"].is_null());
    }

    /// The library asks NSS, which loads what the image names, when it must find a home directory.
    #[test]
    fn home_is_given_so_that_nothing_of_the_image_is_asked() {
        assert_eq!(sample()["process"]["env"], json!(["HOME=/"]));
    }

    #[test]
    fn every_capability_set_is_given_and_empty() {
        let config = sample();
        let sets = config["process"]["capabilities"].as_object().unwrap();
        assert_eq!(sets.len(), 5);
        assert!(
            sets.values()
                .all(|set| set.as_array().is_some_and(Vec::is_empty))
        );
    }
}
