//! What a host should have besides: sandboxes run without it, but less well guarded, or fewer.

use std::fs::{File, metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use nix::sys::resource::{Resource, getrlimit};

use super::needed::existing;
use super::{Finding, Host, Row};
use crate::launcher::kernel;
use crate::oci::RANGE;

/// Bytes of memory below which not even one image runs well beside the server.
const MEMORY_MIN: u64 = 512 << 20;
/// Open files that a server with a small pool needs.
const OPEN_FILES_MIN: u64 = 4096;
/// Mounts in one mount namespace: a sandbox has about 40 with those of its launcher.
const MOUNTS_MIN: u64 = 1000;
/// Process ids that a sandbox may take by default.
const PIDS_EACH: u64 = 64;

pub(super) const ROWS: [Row; 21] = [
    Row(
        "memory",
        memory,
        "sandboxes fail for memory",
        "give the machine 512 MiB or more",
    ),
    Row(
        "swap",
        swap,
        "what tenants have in memory is left on a disk; where swap is not accounted, a sandbox may \
            also swap beyond its memory limit",
        "swapoff -a; or encrypt the swap, and on cgroup v1 boot with swapaccount=1",
    ),
    Row(
        "free_disk",
        free_disk,
        "tenants can fill the file system that the ledger is on: runs are refused with 503",
        "free space, move server.data_dir, or lower disk.commit_bytes",
    ),
    Row(
        "open_files",
        open_files,
        "fewer sandboxes at one time",
        "ulimit -Hn 65536",
    ),
    Row(
        "namespaces",
        namespaces,
        "fewer sandboxes at one time: each has one of every kind",
        "sysctl -w user.max_KIND_namespaces=15000 for each kind that is named",
    ),
    Row(
        "process_ids",
        process_ids,
        "a few tenants can take every process id of the machine",
        "sysctl -w kernel.pid_max=4194304",
    ),
    Row(
        "mounts",
        mounts,
        "sandboxes cannot be mounted",
        "sysctl -w fs.mount-max=100000",
    ),
    Row(
        "user_ids",
        user_ids,
        "whoever owns these ids owns the files and processes of sandboxes",
        "take the range out of /etc/subuid or /etc/passwd, or set launcher.uid_base",
    ),
    Row(
        "image_store",
        image_store,
        "who can write the image store runs code in every tenant's sandboxes",
        "chown root and chmod go-w the directory images.dir",
    ),
    Row(
        "unprivileged_bpf",
        |host| not(host, "proc/sys/kernel/unprivileged_bpf_disabled", &["0"]),
        "one more way for other software on this host to attack the kernel, and to spend its \
            budget for filters, without which no sandbox starts",
        "sysctl -w kernel.unprivileged_bpf_disabled=1",
    ),
    Row(
        "kernel_addresses",
        |host| not(host, "proc/sys/kernel/kptr_restrict", &["0"]),
        "kernel addresses help whoever gets as far as a privileged process to attack the kernel",
        "sysctl -w kernel.kptr_restrict=1",
    ),
    Row(
        "kernel_log",
        |host| not(host, "proc/sys/kernel/dmesg_restrict", &["0"]),
        "other software on this host reads the kernel's log, addresses and tenants' crashes in it",
        "sysctl -w kernel.dmesg_restrict=1",
    ),
    Row(
        "address_randomisation",
        |host| not(host, "proc/sys/kernel/randomize_va_space", &["0", "1"]),
        "bugs in programs are easier to exploit",
        "sysctl -w kernel.randomize_va_space=2",
    ),
    Row(
        "panic_on_oom",
        |host| not(host, "proc/sys/vm/panic_on_oom", &["2"]),
        "one sandbox that runs out of memory stops the whole host",
        "sysctl -w vm.panic_on_oom=0",
    ),
    Row(
        "core_pattern",
        core_pattern,
        "the kernel keeps no limit on core files for a pipe: a crash in a sandbox starts that \
            program as root of the host, on memory that the tenant has filled",
        "sysctl -w kernel.core_pattern=core",
    ),
    Row(
        "huge_pages",
        |host| is(host, "proc/sys/vm/nr_hugepages", "0"),
        "reserved huge pages are outside of every sandbox's memory limit",
        "sysctl -w vm.nr_hugepages=0",
    ),
    Row(
        "memory_merging",
        |host| not(host, "sys/kernel/mm/ksm/run", &["1"]),
        "a tenant can find out by timing what another has in memory",
        "echo 2 > /sys/kernel/mm/ksm/run",
    ),
    Row(
        "simultaneous_threads",
        |host| not(host, "sys/devices/system/cpu/smt/active", &["1"]),
        "tenants on one core can listen to each other; it matters where they are enemies",
        "echo off > /sys/devices/system/cpu/smt/control, or machines of their own",
    ),
    Row(
        "cpu_vulnerabilities",
        cpu_vulnerabilities,
        "tenants may read memory of others or of the kernel through the CPU",
        "update microcode and kernel, and boot without mitigations=off",
    ),
    Row(
        "writeback_limits",
        writeback,
        "a tenant that writes much delays the writes of others: the kernel cannot be told a limit \
            for each disk",
        "boot Linux 6.2 or later",
    ),
    Row(
        "mmdebstrap",
        mmdebstrap,
        "images cannot be built here; built ones still run",
        "apt-get install mmdebstrap",
    ),
];

/// Well if the file holds `must`, or is not there: then the kernel does not have what it switches.
fn is(host: &Host<'_>, path: &str, must: &str) -> Finding {
    match host.text(path) {
        Some(text) if text != must => Err(text),
        Some(text) => Ok(text),
        None => Ok("not in this kernel".to_owned()),
    }
}

/// Well unless the file holds one of `bad`.
fn not(host: &Host<'_>, path: &str, bad: &[&str]) -> Finding {
    match host.text(path) {
        Some(text) if bad.contains(&&*text) => Err(text),
        Some(text) => Ok(text),
        None => Ok("not in this kernel".to_owned()),
    }
}

/// A number that must not be below another; `what` stands before it.
fn at_least(what: &str, found: u64, least: u64) -> Finding {
    if found >= least {
        Ok(format!("{what} {found}"))
    } else {
        Err(format!("{what} {found}, less than {least}"))
    }
}

fn memory(host: &Host<'_>) -> Finding {
    let text = host.text("proc/meminfo").ok_or("cannot be read")?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = kib.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let bytes = kib.ok_or("MemTotal is absent")?.saturating_mul(1024);
    at_least("MiB:", bytes >> 20, MEMORY_MIN >> 20)
}

fn swap(host: &Host<'_>) -> Finding {
    let text = host.text("proc/swaps").unwrap_or_default();
    if text.lines().count() <= 1 {
        return Ok("off".to_owned());
    }
    let accounts = [
        "sys/fs/cgroup/memory/memory.memsw.limit_in_bytes",
        "sys/fs/cgroup/cgroup.controllers",
    ];
    let is_accounted = accounts.iter().any(|path| host.root.join(path).exists());
    Err(if is_accounted {
        "on, and accounted".to_owned()
    } else {
        "on, and not accounted".to_owned()
    })
}

fn free_disk(host: &Host<'_>) -> Finding {
    let place = existing(host.needs.data_dir);
    let free = File::open(place).and_then(|dir| kernel::free_bytes(dir.as_fd()));
    let free = free.map_err(|error| format!("{}: {error}", place.display()))?;
    let what = format!("MiB free at {}:", place.display());
    at_least(&what, free >> 20, host.needs.disk_bytes >> 20)
}

fn open_files(_: &Host<'_>) -> Finding {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|errno| errno.to_string())?;
    at_least("hard limit", hard, OPEN_FILES_MIN)
}

fn namespaces(host: &Host<'_>) -> Finding {
    const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let least = u64::from(host.needs.sandboxes).saturating_mul(2);
    let few: Vec<String> = KINDS
        .iter()
        .filter_map(|kind| {
            let most = host.number(&format!("proc/sys/user/max_{kind}_namespaces"))?;
            (most < least).then(|| format!("{kind} {most}"))
        })
        .collect();
    if few.is_empty() {
        Ok(format!("{least} or more of each kind"))
    } else {
        Err(format!("{}, less than {least}", few.join(", ")))
    }
}

fn process_ids(host: &Host<'_>) -> Finding {
    let most = host
        .number("proc/sys/kernel/pid_max")
        .ok_or("cannot be read")?;
    // Half of them are for the host, and for sandboxes with more.
    let least = u64::from(host.needs.sandboxes).saturating_mul(PIDS_EACH * 2);
    at_least("kernel.pid_max", most, least)
}

fn mounts(host: &Host<'_>) -> Finding {
    let most = host.number("proc/sys/fs/mount-max");
    at_least("fs.mount-max", most.unwrap_or(MOUNTS_MIN), MOUNTS_MIN)
}

/// No user of the host, and no range that one may map, lies in the sandboxes' ranges, or in that of
/// templates before them.
fn user_ids(host: &Host<'_>) -> Finding {
    let first = u64::from(host.needs.uid_base);
    let end = first + u64::from(host.needs.sandboxes) * u64::from(RANGE);
    let ours = first.saturating_sub(RANGE.into())..end;
    let taken = |path: &str, id: usize, count: Option<usize>| {
        let text = host.text(path).unwrap_or_default();
        let line = text.lines().find(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
            let Some(from) = number(id) else { return false };
            let to = from.saturating_add(count.and_then(number).unwrap_or(1));
            from < ours.end && ours.start < to
        });
        line.map(|line| format!("{path}: {line}"))
    };
    let found = taken("etc/passwd", 2, None)
        .or_else(|| taken("etc/group", 2, None))
        .or_else(|| taken("etc/subuid", 1, Some(2)))
        .or_else(|| taken("etc/subgid", 1, Some(2)));
    found.map_or_else(|| Ok(format!("{} to {}", ours.start, ours.end - 1)), Err)
}

fn image_store(host: &Host<'_>) -> Finding {
    let place = host.needs.images_dir;
    let Ok(found) = metadata(place) else {
        return Ok("not made yet".to_owned());
    };
    let text = format!(
        "{}: uid {}, mode {:o}",
        place.display(),
        found.uid(),
        found.mode() & 0o7777
    );
    if found.uid() == 0 && found.mode() & 0o022 == 0 {
        Ok(text)
    } else {
        Err(text)
    }
}

fn core_pattern(host: &Host<'_>) -> Finding {
    match host.text("proc/sys/kernel/core_pattern") {
        Some(text) if text.starts_with(['|', '@']) => Err(text),
        Some(text) => Ok(text),
        None => Ok("not in this kernel".to_owned()),
    }
}

fn cpu_vulnerabilities(host: &Host<'_>) -> Finding {
    let dir = host.root.join("sys/devices/system/cpu/vulnerabilities");
    let Ok(entries) = std::fs::read_dir(&dir) else {
        return Ok("not told by this kernel".to_owned());
    };
    let mut open: Vec<String> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let text = std::fs::read_to_string(entry.path()).ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            text.contains("Vulnerable").then_some(name)
        })
        .collect();
    open.sort_unstable();
    if open.is_empty() {
        Ok("mitigated or not affected".to_owned())
    } else {
        Err(open.join(", "))
    }
}

fn writeback(host: &Host<'_>) -> Finding {
    let dir = host.root.join("sys/devices/virtual/bdi");
    let entries = std::fs::read_dir(&dir).map_err(|error| error.to_string())?;
    let can = |path: &std::path::Path| path.join("max_bytes").exists();
    if entries.flatten().any(|entry| can(&entry.path())) {
        Ok("can be set for each disk".to_owned())
    } else {
        Err("cannot be set".to_owned())
    }
}

fn mmdebstrap(host: &Host<'_>) -> Finding {
    let path = host.root.join("usr/bin/mmdebstrap");
    if path.exists() {
        Ok(path.display().to_string())
    } else {
        Err("not found".to_owned())
    }
}

#[cfg(test)]
mod tests;
