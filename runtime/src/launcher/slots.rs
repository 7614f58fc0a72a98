//! Who is live: slots, their uid ranges, and the disk that is promised. No I/O.

use std::collections::BTreeMap;

use nix::unistd::Pid;

use super::cpus;
use crate::oci::RANGE;
use crate::wire::{Id, LauncherConfig, Make, Refusal, WireLimits};

/// The live sandboxes.
#[derive(Debug)]
pub(super) struct Slots {
    live: BTreeMap<Id, Slot>,
    free: Vec<u32>,
    disk_used: u64,
}

/// What a live sandbox holds.
#[derive(Debug)]
pub(super) struct Slot {
    index: u32,
    disk: u64,
    cpu_millis: u32,
    cpus: Vec<usize>,
    /// Its shim; none once that has ended.
    pub(super) shim: Option<Pid>,
}

/// A sandbox that may be made; not yet live.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Admission {
    /// The slot it will have.
    pub(super) index: u32,
    /// First id of the slot's range.
    pub(super) uid_first: u32,
    /// The CPUs that it runs on.
    pub(super) cpus: Vec<usize>,
    cpu_millis: u32,
    disk: u64,
}

impl Slots {
    /// No sandbox is live.
    pub(super) fn new(config: &LauncherConfig) -> Slots {
        // The last is taken first. There are no more ranges than this, wherever the first begins.
        let most = config.sandboxes_max.min(u32::MAX / RANGE);
        let free = (0..most).rev().collect();
        Slots {
            live: BTreeMap::new(),
            free,
            disk_used: 0,
        }
    }

    /// Checks a request against the maxima and what is left, and finds it a place on the CPUs that
    /// are `allowed`. Changes nothing.
    pub(super) fn admit(
        &self,
        make: &Make,
        config: &LauncherConfig,
        allowed: &[usize],
    ) -> Result<Admission, Refusal> {
        check_limits(&make.limits, &config.maxima)?;
        let class = config.disk_classes.get(usize::from(make.disk_class));
        let disk = class.ok_or_else(|| limit("disk_class"))?.bytes;
        if self.live.contains_key(&make.sandbox) {
            return Err(Refusal::Duplicate);
        }
        let index = *self.free.last().ok_or(Refusal::NoSlot)?;
        if self
            .disk_used
            .checked_add(disk)
            .is_none_or(|sum| sum > config.disk_commit_bytes)
        {
            return Err(Refusal::NoDisk);
        }
        let first = index
            .checked_mul(RANGE)
            .and_then(|offset| config.uid_base.checked_add(offset));
        let uid_first = first.filter(|first| first.checked_add(RANGE).is_some());
        let live = self.live.values();
        let promised = cpus::promised(live.map(|slot| (slot.cpu_millis, slot.cpus.as_slice())));
        let cpu_millis = make.limits.cpu_millis;
        Ok(Admission {
            index,
            uid_first: uid_first.ok_or(Refusal::NoSlot)?,
            cpus: cpus::choose(cpu_millis, allowed, &promised, index),
            cpu_millis,
            disk,
        })
    }

    /// The sandbox is live: its shim was forked.
    pub(super) fn take(&mut self, sandbox: Id, admission: &Admission, shim: Pid) {
        self.free.retain(|free| *free != admission.index);
        self.disk_used += admission.disk;
        let slot = Slot {
            index: admission.index,
            disk: admission.disk,
            cpu_millis: admission.cpu_millis,
            cpus: admission.cpus.clone(),
            shim: Some(shim),
        };
        self.live.insert(sandbox, slot);
    }

    /// The sandbox is gone whole.
    pub(super) fn free(&mut self, sandbox: Id) {
        if let Some(slot) = self.live.remove(&sandbox) {
            self.free.push(slot.index);
            self.disk_used -= slot.disk;
        }
    }

    /// The slot of a live sandbox.
    pub(super) fn index(&self, sandbox: &Id) -> Option<u32> {
        self.live.get(sandbox).map(|slot| slot.index)
    }

    /// The shim of a sandbox, if it has not ended.
    pub(super) fn shim(&self, sandbox: &Id) -> Option<Pid> {
        self.live.get(sandbox)?.shim
    }

    /// Notes that a process has ended; answers the sandbox whose shim it was.
    pub(super) fn shim_ended(&mut self, pid: Pid) -> Option<Id> {
        let (sandbox, slot) = self
            .live
            .iter_mut()
            .find(|(_, slot)| slot.shim == Some(pid))?;
        slot.shim = None;
        Some(*sandbox)
    }

    /// Shims that have not ended.
    pub(super) fn shims(&self) -> impl Iterator<Item = Pid> {
        self.live.values().filter_map(|slot| slot.shim)
    }

    /// Sandboxes whose shim has ended without leaving nothing.
    pub(super) fn orphaned(&self) -> Vec<Id> {
        let orphaned = self.live.iter().filter(|(_, slot)| slot.shim.is_none());
        orphaned.map(|(sandbox, _)| *sandbox).collect()
    }

    /// Whether no sandbox is live.
    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

/// Least of each limit: with less, the kernel or init could not work.
const LEAST: WireLimits = WireLimits {
    cpu_millis: 10,
    memory_bytes: 4 << 20,
    pids: 2,
    open_files: 16,
};

/// Checks limits against what must be and what may be.
pub(crate) fn check_limits(asked: &WireLimits, maxima: &WireLimits) -> Result<(), Refusal> {
    let checks = [
        (
            "cpu_millis",
            asked.cpu_millis.into(),
            LEAST.cpu_millis.into(),
            maxima.cpu_millis.into(),
        ),
        (
            "memory_bytes",
            asked.memory_bytes,
            LEAST.memory_bytes,
            maxima.memory_bytes,
        ),
        (
            "pids",
            asked.pids.into(),
            LEAST.pids.into(),
            maxima.pids.into(),
        ),
        (
            "open_files",
            asked.open_files.into(),
            LEAST.open_files.into(),
            maxima.open_files.into(),
        ),
    ];
    let wrong = checks
        .into_iter()
        .find(|(_, asked, least, most): &(_, u64, u64, u64)| !(least..=most).contains(&asked));
    wrong.map_or(Ok(()), |(name, ..)| Err(limit(name)))
}

fn limit(name: &str) -> Refusal {
    Refusal::Limit {
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{DiskClass, WireImage, WireNetwork};

    const CPUS: [usize; 2] = [0, 1];

    fn config() -> LauncherConfig {
        LauncherConfig {
            images_dir: "/images".into(),
            state_dir: "/run".into(),
            server_uid: 1,
            server_gid: 1,
            uid_base: 0x4000_0000,
            sandboxes_max: 2,
            maxima: WireLimits {
                cpu_millis: 2000,
                memory_bytes: 1 << 30,
                pids: 128,
                open_files: 1024,
            },
            disk_classes: vec![DiskClass {
                bytes: 100,
                inodes: 10,
            }],
            disk_commit_bytes: 200,
            disks_ahead: 4,
            template_forks: 10_000,
            keep_s_max: 60,
        }
    }

    fn make(id: u8) -> Make {
        Make {
            sandbox: [id; 16],
            image: WireImage::Empty,
            disk_class: 0,
            limits: config().maxima,
            weight: 1,
            behind: false,
            ahead: false,
            network: WireNetwork::None,
            template: None,
        }
    }

    fn fill(slots: &mut Slots, config: &LauncherConfig, ids: &[u8]) {
        for id in ids {
            let admission = slots.admit(&make(*id), config, &CPUS).unwrap();
            slots.take([*id; 16], &admission, Pid::from_raw(i32::from(*id) + 1000));
        }
    }

    #[test]
    fn ranges_of_live_sandboxes_do_not_meet() {
        let config = config();
        let mut slots = Slots::new(&config);
        let first = slots.admit(&make(1), &config, &CPUS).unwrap();
        slots.take([1; 16], &first, Pid::from_raw(7));
        let second = slots.admit(&make(2), &config, &CPUS).unwrap();
        assert_eq!(first.uid_first, 0x4000_0000);
        assert_eq!(second.uid_first, first.uid_first + RANGE);
    }

    #[test]
    fn slots_and_disk_are_refused_when_taken_and_given_again_when_free() {
        let mut config = config();
        let mut slots = Slots::new(&config);
        fill(&mut slots, &config, &[1, 2]);
        assert_eq!(slots.admit(&make(3), &config, &CPUS), Err(Refusal::NoSlot));
        slots.free([1; 16]);
        config.disk_commit_bytes = 150;
        assert_eq!(slots.admit(&make(3), &config, &CPUS), Err(Refusal::NoDisk));
        config.disk_commit_bytes = 200;
        assert!(slots.admit(&make(3), &config, &CPUS).is_ok());
    }

    #[test]
    fn live_identity_is_refused() {
        let config = config();
        let mut slots = Slots::new(&config);
        fill(&mut slots, &config, &[1]);
        assert_eq!(
            slots.admit(&make(1), &config, &CPUS),
            Err(Refusal::Duplicate)
        );
    }

    #[test]
    fn limits_of_zero_or_above_the_maxima_are_refused_by_name() {
        let config = config();
        let slots = Slots::new(&config);
        let refused = |change: fn(&mut Make)| {
            let mut make = make(1);
            change(&mut make);
            slots.admit(&make, &config, &CPUS).unwrap_err()
        };
        assert_eq!(refused(|make| make.limits.pids = 0), limit("pids"));
        assert_eq!(refused(|make| make.limits.pids = 129), limit("pids"));
        assert_eq!(
            refused(|make| make.limits.memory_bytes = u64::MAX),
            limit("memory_bytes")
        );
        assert_eq!(
            refused(|make| make.limits.cpu_millis = 0),
            limit("cpu_millis")
        );
        assert_eq!(
            refused(|make| make.limits.open_files = u32::MAX),
            limit("open_files")
        );
        assert_eq!(refused(|make| make.disk_class = 1), limit("disk_class"));
    }

    #[test]
    fn range_beyond_the_last_id_is_no_slot() {
        let mut config = config();
        config.uid_base = u32::MAX - RANGE + 1;
        assert_eq!(
            Slots::new(&config).admit(&make(1), &config, &CPUS),
            Err(Refusal::NoSlot)
        );
    }

    #[test]
    fn ended_shim_leaves_its_sandbox_orphaned_until_it_is_freed() {
        let config = config();
        let mut slots = Slots::new(&config);
        fill(&mut slots, &config, &[1]);
        assert_eq!(slots.shim_ended(Pid::from_raw(5)), None);
        assert_eq!(slots.shim_ended(Pid::from_raw(1001)), Some([1; 16]));
        assert_eq!(slots.orphaned(), [[1; 16]]);
        slots.free([1; 16]);
        assert!(slots.is_empty());
    }

    #[test]
    fn sandboxes_spread_over_the_cpus_and_leave_them_when_they_are_gone() {
        let config = config();
        let mut slots = Slots::new(&config);
        let small = |id| {
            let mut small = make(id);
            small.limits.cpu_millis = 1000;
            small
        };
        let first = slots.admit(&small(1), &config, &CPUS).unwrap();
        assert_eq!(first.cpus.len(), 1);
        slots.take([1; 16], &first, Pid::from_raw(7));
        let second = slots.admit(&small(2), &config, &CPUS).unwrap();
        assert_ne!(first.cpus, second.cpus);
        slots.take([2; 16], &second, Pid::from_raw(8));
        // Whichever goes, the next one gets its CPU.
        for (id, gone) in [(1, first), (2, second)] {
            slots.free([id; 16]);
            let next = slots.admit(&small(id), &config, &CPUS).unwrap();
            assert_eq!(next.cpus, gone.cpus);
            slots.take([id; 16], &next, Pid::from_raw(9));
        }
    }
}
