//! CPU time used by this process: what a figure costs, whatever else runs.

use std::fs;

/// Microseconds in a tick of `/proc/PID/stat`: `USER_HZ` is 100 everywhere.
const TICK_US: u64 = 10_000;

/// CPU time of the process so far, threads that have ended included; in microseconds.
pub(crate) fn process_us() -> u64 {
    stat_us("self", 2)
}

/// The first of these times of a process in microseconds, added up: user, system, and the same of
/// its children that have ended.
pub(crate) fn stat_us(process: &str, times: usize) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name before it, in parentheses, may contain anything.
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks = fields
        .skip(11)
        .take(times)
        .map(|ticks| ticks.parse::<u64>().unwrap());
    ticks.sum::<u64>() * TICK_US
}
