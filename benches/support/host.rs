//! What the machine has left, what the processes of a server take of it, and that a server leaves
//! nothing.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::server::{Process, Server, sandbox_groups, sandboxes_of};

/// Least memory that must stay available, in bytes.
const AVAILABLE_MIN: u64 = 6 << 30;
/// Longest that what a server has ended may take to be gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stops a server; nothing of it may be left.
pub(crate) fn stop(mut server: Server, dir: &Path) {
    let family = server.family();
    let tops = sandboxes_of(dir);
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    let begin = Instant::now();
    let left = || -> Vec<&Process> {
        let lives = |one: &&Process| crate::server::lives(**one);
        family.iter().filter(lives).collect()
    };
    while !left().is_empty() && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        left().is_empty(),
        "processes outlive the server: {:?}",
        left()
    );
    let groups = sandbox_groups(dir);
    assert!(groups.is_empty(), "groups outlive the server: {groups:?}");
    let tops: Vec<_> = tops.iter().filter(|top| top.exists()).collect();
    assert!(tops.is_empty(), "groups outlive the server: {tops:?}");
}

/// The process that makes the sandboxes: the server's only child.
pub(crate) fn launcher(server: &Server) -> u32 {
    let pid = server.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let child = children.split_whitespace().next();
    child.and_then(|child| child.parse().ok()).unwrap()
}

/// Sandboxes of the server on `dir` that are live now, by their groups.
pub(crate) fn live(dir: &Path) -> usize {
    let Some(top) = sandboxes_of(dir).into_iter().next() else {
        return 0;
    };
    let entries = fs::read_dir(top).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).count()
}

/// What the kernel says of the whole machine's memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) available: u64,
    /// The kernel's own: slab, stacks, page tables, per-CPU counters.
    pub(crate) kernel: u64,
}

pub(crate) fn memory() -> Memory {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let kernel = ["SUnreclaim:", "KernelStack:", "PageTables:", "Percpu:"];
    Memory {
        available: bytes(&text, "MemAvailable:"),
        kernel: kernel.iter().map(|name| bytes(&text, name)).sum(),
    }
}

/// The figure in KiB behind a name, in bytes; 0 where there is none.
fn bytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// What the kernel has charged to all sandboxes of the server on `dir`, in bytes.
pub(crate) fn charged(dir: &Path) -> u64 {
    let names = ["memory.usage_in_bytes", "memory.current"];
    let tops = sandboxes_of(dir);
    let files = tops.iter().flat_map(|top| names.map(|name| top.join(name)));
    let mut texts = files.filter_map(|file| fs::read_to_string(file).ok());
    let text = texts.next().unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// A process's share of the memory that it maps, in bytes.
pub(crate) fn share_of(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    bytes(&rollup.unwrap_or_default(), "Pss:")
}

/// Open descriptors of a process.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The most descriptors that a process may have.
pub(crate) fn descriptors_max(pid: u32) -> usize {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.and_then(|word| word.parse().ok())
        .unwrap_or(usize::MAX)
}

/// Why `more` sandboxes beside what there is now would take too much of the machine, each of which
/// takes `each` bytes; none if they would not.
pub(crate) fn scarce(more: usize, each: u64) -> Option<String> {
    let more = u64::try_from(more).unwrap();
    let available = memory().available;
    let left = available.saturating_sub(more * each);
    if left < AVAILABLE_MIN {
        return Some(format!(
            "memory: {} MiB are available, {more} more would leave less than {} MiB",
            available >> 20,
            AVAILABLE_MIN >> 20
        ));
    }
    // A sandbox has a shim, init and a program, and the kernel a thread for its disk.
    let tasks = u64::try_from(numbers("/proc").count()).unwrap() + 4 * more;
    let tasks_max = ["kernel/pid_max", "kernel/threads-max"].map(setting);
    let least = tasks_max.into_iter().min().unwrap_or(u64::MAX);
    if tasks > least / 2 {
        return Some(format!(
            "processes: some {tasks} of {least} would be in use, and half must stay free"
        ));
    }
    let filters = filter_bytes();
    let filters_max = setting("net/core/bpf_jit_limit");
    if filters > filters_max / 4 {
        return Some(format!(
            "programs of filters: {filters} of {filters_max} bytes are in use, a quarter may be"
        ));
    }
    None
}

/// Loop devices that the machine has made so far; one that is free stays.
pub(crate) fn loop_devices() -> usize {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let is_loop = |name: &str| name.starts_with("loop");
    devices
        .filter(|entry| entry.file_name().to_str().is_some_and(is_loop))
        .count()
}

fn numbers(dir: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A number below /proc/sys; without bound where there is none.
fn setting(name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    text.trim().parse().unwrap_or(u64::MAX)
}

/// Bytes that compiled filters take of the machine's budget for them.
fn filter_bytes() -> u64 {
    let text = fs::read_to_string("/proc/vmallocinfo").unwrap_or_default();
    let lines = text
        .lines()
        .filter(|line| line.contains("bpf_jit") || line.contains("bpf_prog_pack"));
    let sizes = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    sizes.sum()
}
