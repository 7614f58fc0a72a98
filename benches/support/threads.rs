//! CPU time used by each thread of this process.

use std::collections::BTreeMap;
use std::fs;

/// CPU time of each living thread so far, by name; in microseconds. A thread that ends meanwhile is
/// left out.
pub(crate) fn all_us() -> BTreeMap<String, u64> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        let read = |file: &str| fs::read_to_string(path.join(file));
        let (Ok(name), Ok(times)) = (read("comm"), read("schedstat")) else {
            continue;
        };
        let ns = times.split_whitespace().next().unwrap();
        *threads.entry(name.trim().to_owned()).or_default() += ns.parse::<u64>().unwrap() / 1_000;
    }
    threads
}

/// What each thread has used between two looks, for each of `count` operations; in microseconds.
pub(crate) fn by_thread(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
    count: usize,
) -> BTreeMap<String, f64> {
    let used = |(name, us): (&String, &u64)| {
        let before = before.get(name).copied().unwrap_or(0);
        (
            name.clone(),
            us.saturating_sub(before) as f64 / count as f64,
        )
    };
    after.iter().map(used).collect()
}

/// The same as a line, without threads that used next to nothing.
pub(crate) fn line(threads: &BTreeMap<String, f64>) -> String {
    let threads = threads.iter().filter(|(_, us)| **us >= 0.005);
    let threads: Vec<String> = threads
        .map(|(name, us)| format!("{name} {us:.2}"))
        .collect();
    threads.join("  ")
}
