//! The counters of one group, through descriptors that were opened at its creation.
//!
//! A descriptor that is open costs two microseconds a reading, a path on an idle machine a hundred.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;

use super::group::Group;
use super::hierarchy::Version;
use super::parse::{field, number};
use crate::wire::WireMeasured;

/// More than any counter file of one group holds.
const TEXT_MAX: usize = 8192;

/// A group's counter of CPU time, opened by the launcher for who has no privilege.
#[derive(Debug)]
pub(crate) struct CpuCounter(File);

impl CpuCounter {
    pub(crate) fn new(file: File) -> CpuCounter {
        CpuCounter(file)
    }

    /// CPU time used since the group was made, in us: v1 has a file of nanoseconds, v2 one of
    /// names and values.
    pub(crate) fn used_us(&self) -> io::Result<u64> {
        let text = read(&self.0)?;
        let found = field(&text, "usage_usec").or_else(|| number(&text).map(nanos_to_us));
        found.ok_or_else(|| io::Error::other("the CPU counter is not a number"))
    }
}

/// Open counters of one group.
#[derive(Debug)]
pub(crate) struct Meter {
    version: Version,
    cpu: File,
    cpu_user: Option<File>,
    cpu_system: Option<File>,
    throttled: Option<File>,
    memory_peak: Option<File>,
    oom: File,
    pids_events: Option<File>,
    pids_peak: Option<File>,
}

/// What the counters say at one instant, since the group was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading(WireMeasured);

impl Meter {
    /// Opens every counter that the kernel has.
    pub(crate) fn open(group: &Group) -> io::Result<Meter> {
        let some = |controller, name| group.open(controller, name, false).ok();
        Ok(match group.version() {
            Version::V1 => Meter {
                version: Version::V1,
                cpu: group.open("cpuacct", "cpuacct.usage", false)?,
                cpu_user: some("cpuacct", "cpuacct.usage_user"),
                cpu_system: some("cpuacct", "cpuacct.usage_sys"),
                throttled: some("cpu", "cpu.stat"),
                memory_peak: some("memory", "memory.max_usage_in_bytes"),
                oom: group.open("memory", "memory.oom_control", false)?,
                pids_events: some("pids", "pids.events"),
                pids_peak: some("pids", "pids.peak"),
            },
            Version::V2 => Meter {
                version: Version::V2,
                cpu: group.open("cpu", "cpu.stat", false)?,
                cpu_user: None,
                cpu_system: None,
                throttled: None,
                memory_peak: some("memory", "memory.peak")
                    .or_else(|| some("memory", "memory.current")),
                oom: group.open("memory", "memory.events", false)?,
                pids_events: some("pids", "pids.events"),
                pids_peak: some("pids", "pids.peak"),
            },
        })
    }

    /// Every descriptor that is held.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let optional = [
            &self.cpu_user,
            &self.cpu_system,
            &self.throttled,
            &self.memory_peak,
            &self.pids_events,
            &self.pids_peak,
        ];
        let held = [Some(&self.cpu), Some(&self.oom)];
        let all = held.into_iter().chain(optional.map(Option::as_ref));
        all.flatten().map(AsRawFd::as_raw_fd)
    }

    /// CPU time used since the group was made, in us.
    pub(crate) fn cpu_us(&self) -> io::Result<u64> {
        let text = read(&self.cpu)?;
        let found = match self.version {
            Version::V1 => number(&text).map(nanos_to_us),
            Version::V2 => field(&text, "usage_usec"),
        };
        found.ok_or_else(|| io::Error::other("the CPU counter is not a number"))
    }

    /// Processes killed for memory since the group was made.
    pub(crate) fn oom_kills(&self) -> u64 {
        read(&self.oom)
            .ok()
            .and_then(|text| field(&text, "oom_kill"))
            .unwrap_or(0)
    }

    /// All counters; one that the kernel does not have reads as 0.
    pub(crate) fn read(&self) -> io::Result<Reading> {
        let mut now = WireMeasured {
            cpu_us: self.cpu_us()?,
            memory_peak_bytes: optional(self.memory_peak.as_ref(), number),
            oom_kills: self.oom_kills(),
            pids_peak: optional(self.pids_peak.as_ref(), number),
            pids_refused: optional(self.pids_events.as_ref(), |text| field(text, "max")),
            ..WireMeasured::default()
        };
        match self.version {
            Version::V1 => {
                now.cpu_user_us = optional(self.cpu_user.as_ref(), number) / 1000;
                now.cpu_system_us = optional(self.cpu_system.as_ref(), number) / 1000;
                let throttled = |text: &str| field(text, "throttled_time");
                now.throttled_us = optional(self.throttled.as_ref(), throttled) / 1000;
            }
            Version::V2 => {
                let text = read(&self.cpu)?;
                now.cpu_user_us = field(&text, "user_usec").unwrap_or(0);
                now.cpu_system_us = field(&text, "system_usec").unwrap_or(0);
                now.throttled_us = field(&text, "throttled_usec").unwrap_or(0);
            }
        }
        Ok(Reading(now))
    }

    /// The CPU counter and the memory peak, for the server to read without asking.
    pub(crate) fn shared(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        (self.cpu.as_fd(), self.memory_peak.as_ref().map(File::as_fd))
    }
}

impl Reading {
    /// CPU time since the group was made, in us.
    pub(crate) fn cpu_us(&self) -> u64 {
        self.0.cpu_us
    }

    /// What was used between `baseline` and this reading. The memory peak is a high mark and stays.
    pub(crate) fn since(self, baseline: Reading, wall_us: u64) -> WireMeasured {
        let (now, then) = (self.0, baseline.0);
        let cpu_us = now.cpu_us.saturating_sub(then.cpu_us);
        let user_us = now.cpu_user_us.saturating_sub(then.cpu_user_us);
        let system_us = now.cpu_system_us.saturating_sub(then.cpu_system_us);
        let cpu_system_us = share(cpu_us, system_us, user_us.saturating_add(system_us));
        WireMeasured {
            cpu_us,
            cpu_user_us: cpu_us - cpu_system_us,
            cpu_system_us,
            wall_us,
            memory_peak_bytes: now.memory_peak_bytes,
            throttled_us: now.throttled_us.saturating_sub(then.throttled_us),
            oom_kills: now.oom_kills.saturating_sub(then.oom_kills),
            pids_peak: now.pids_peak,
            pids_refused: now.pids_refused.saturating_sub(then.pids_refused),
            io_read_bytes: now.io_read_bytes.saturating_sub(then.io_read_bytes),
            io_write_bytes: now.io_write_bytes.saturating_sub(then.io_write_bytes),
        }
    }
}

/// `part` of `whole`, in terms of `total`, which is exact: v1 counts user and system time in ticks.
fn share(total: u64, part: u64, whole: u64) -> u64 {
    let scaled = (u128::from(total) * u128::from(part)).checked_div(u128::from(whole));
    scaled
        .and_then(|scaled| u64::try_from(scaled).ok())
        .unwrap_or(0)
        .min(total)
}

fn optional(file: Option<&File>, parse: impl Fn(&str) -> Option<u64>) -> u64 {
    file.and_then(|file| read(file).ok())
        .and_then(|text| parse(&text))
        .unwrap_or(0)
}

fn read(file: &File) -> io::Result<String> {
    let mut bytes = [0_u8; TEXT_MAX];
    let len = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()).into_owned())
}

/// The charge is in whole us: a started one counts.
fn nanos_to_us(nanos: u64) -> u64 {
    nanos.div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_counted_from_the_baseline_and_never_below_zero() {
        let then = Reading(WireMeasured {
            cpu_us: 10,
            oom_kills: 1,
            ..WireMeasured::default()
        });
        let now = Reading(WireMeasured {
            cpu_us: 25,
            memory_peak_bytes: 7,
            ..WireMeasured::default()
        });
        let used = now.since(then, 99);
        assert_eq!((used.cpu_us, used.oom_kills, used.wall_us), (15, 0, 99));
        assert_eq!(used.memory_peak_bytes, 7);
    }

    #[test]
    fn user_and_system_time_are_the_cpu_time_in_the_proportion_of_their_ticks() {
        let now = Reading(WireMeasured {
            cpu_us: 300_842,
            cpu_user_us: 60_000,
            cpu_system_us: 240_000,
            ..WireMeasured::default()
        });
        let used = now.since(Reading::default(), 0);
        assert_eq!((used.cpu_user_us, used.cpu_system_us), (60_169, 240_673));
        assert_eq!(
            Reading::default()
                .since(Reading::default(), 0)
                .cpu_system_us,
            0
        );
    }

    #[test]
    fn the_counter_of_either_kind_of_tree_is_read() {
        let file = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("counter");
            std::fs::write(&path, text).unwrap();
            CpuCounter::new(File::open(path).unwrap()).used_us()
        };
        assert_eq!(file("1234567\n").unwrap(), 1235);
        assert_eq!(file("usage_usec 77\nuser_usec 70\n").unwrap(), 77);
        assert!(file("nonsense\n").is_err());
    }

    #[test]
    fn started_microseconds_count() {
        assert_eq!(nanos_to_us(1), 1);
        assert_eq!(nanos_to_us(2000), 2);
    }
}
