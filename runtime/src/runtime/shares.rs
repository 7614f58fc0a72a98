//! Each live sandbox's part of the CPUs: all that share one name have the weight of one between
//! them, however many they are, and a name that has had too much lately goes behind the others.
//!
//! The kernel divides a busy CPU by weight. Without the first a crowd would get a crowd's part of
//! it. Without the second, whoever wakes up would wait for the end of a running one's slice, some
//! milliseconds at each of the many steps of a short run.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::fair::{Use, fair_part};
use crate::cgroup::{CpuCounter, WEIGHT, WEIGHT_LEAST};
use crate::clock::Monotonic;
use crate::wire::Id;

/// Up to so many sandboxes of one name, each has its exact part.
const EXACT_MAX: u32 = 16;

/// How often it is looked who has had how much, with few sandboxes.
const LOOK: Duration = Duration::from_millis(25);

/// With so many sandboxes half as often, and so on: a look reads a counter of each.
const LOOK_COUNT: usize = 100;

/// The parts of what is live.
#[derive(Debug, Default)]
pub(super) struct Shares {
    names: Mutex<HashMap<String, Crowd>>,
    joined: Notify,
    /// What sandboxes had used before they were anybody's, in us.
    before_us: AtomicU64,
}

/// The sandboxes of one name.
#[derive(Debug, Default)]
struct Crowd {
    /// What the weight of one is divided by; 0 before the first.
    divisor: u32,
    /// None while one is being made.
    live: HashMap<Id, Option<Seat>>,
    /// What its sandboxes that are gone have used since the last look, in us.
    gone_us: u64,
    /// Of all its sandboxes, until the last look.
    lately: Use,
}

/// Where the kernel is told a sandbox's part of the CPUs, and tells what it has used.
#[derive(Debug)]
pub(super) struct CpuFiles {
    pub(super) weight: File,
    pub(super) idle: File,
    pub(super) usage: CpuCounter,
}

/// A sandbox on the CPUs.
#[derive(Debug)]
struct Seat {
    files: CpuFiles,
    /// What it had used at the last look, in us.
    seen_us: u64,
}

/// A sandbox's part; it goes back to the others when this is dropped.
#[derive(Debug)]
pub(crate) struct Part {
    shares: Arc<Shares>,
    name: String,
    sandbox: Id,
}

impl Shares {
    /// Counts a sandbox in that is to be made; the others' weights are written where they change.
    pub(super) fn join(self: &Arc<Shares>, name: &str, sandbox: Id) -> Part {
        let mut names = self.names();
        let crowd = names.entry(name.to_owned()).or_insert_with(|| {
            self.joined.notify_one();
            Crowd::default()
        });
        crowd.live.insert(sandbox, None);
        crowd.weigh();
        Part {
            shares: Arc::clone(self),
            name: name.to_owned(),
            sandbox,
        }
    }

    /// Whether any sandbox of this name is live or being made.
    pub(super) fn has(&self, name: &str) -> bool {
        let names = self.names();
        names.get(name).is_some_and(|crowd| !crowd.live.is_empty())
    }

    /// CPU time of sandboxes before they were anybody's, in us.
    pub(super) fn before_us(&self) -> u64 {
        self.before_us.load(Ordering::Relaxed)
    }

    /// Whether what this name has had lately puts it behind others.
    pub(super) fn is_behind(&self, name: &str) -> bool {
        let names = self.names();
        names.get(name).is_some_and(|crowd| crowd.lately.behind)
    }

    /// Looks who has had how much of the CPUs, for as long as there is anyone, and puts behind
    /// whoever has had too much.
    pub(super) async fn keep_fair(self: Arc<Shares>, clock: Monotonic) {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        loop {
            self.joined.notified().await;
            let mut last_us = clock.now_us();
            loop {
                let live: usize = self.names().values().map(|crowd| crowd.live.len()).sum();
                let times = u32::try_from(1 + live / LOOK_COUNT).unwrap_or(u32::MAX);
                // Whoever comes anew may have others put behind at once.
                tokio::select! {
                    () = sleep(LOOK.saturating_mul(times)) => {}
                    () = self.joined.notified() => {}
                }
                let now_us = clock.now_us();
                self.look(cpus, now_us - last_us);
                last_us = now_us;
                if self.names().is_empty() {
                    break;
                }
            }
        }
    }

    /// Counts what was used in the last `elapsed_us`, and writes whose place changes. Names that
    /// have nothing live are forgotten with their use.
    fn look(&self, cpus: usize, elapsed_us: u64) {
        let mut names = self.names();
        for crowd in names.values_mut() {
            let used_us = crowd.used_us();
            crowd.lately.count(used_us, elapsed_us);
        }
        let mut rates: Vec<u64> = names.values().map(|crowd| crowd.lately.rate).collect();
        let fair = fair_part(cpus, &mut rates);
        for crowd in names.values_mut() {
            if crowd.lately.judge(fair) {
                crowd.seats().for_each(|seat| crowd.place(seat));
            }
        }
        names.retain(|_, crowd| !crowd.live.is_empty() || crowd.lately.rate > 0);
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Crowd>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut names = self.shares.names();
        let Some(crowd) = names.get_mut(&self.name) else {
            return;
        };
        if let Some(Some(mut seat)) = crowd.live.remove(&self.sandbox) {
            crowd.gone_us += seat.used_us();
        }
        if !crowd.live.is_empty() {
            crowd.weigh();
        }
    }
}

impl Part {
    /// Its weight now, and whether it is behind others.
    pub(super) fn place(&self) -> (u32, bool) {
        let names = self.shares.names();
        let crowd = names.get(&self.name);
        crowd.map_or((WEIGHT, false), |crowd| {
            (crowd.weight(), crowd.lately.behind)
        })
    }

    /// What the sandbox has used until now is not its owner's either.
    pub(crate) fn begin(&self) {
        let mut names = self.shares.names();
        let crowd = names.get_mut(&self.name);
        let seat = crowd.and_then(|crowd| crowd.live.get_mut(&self.sandbox));
        if let Some(seat) = seat.and_then(Option::as_mut) {
            let used_us = seat.used_us();
            self.shares.before_us.fetch_add(used_us, Ordering::Relaxed);
        }
    }

    /// The sandbox has been made: its place is written to these files from now on.
    pub(super) fn attach(&self, files: CpuFiles) {
        // What was used before is not its owner's.
        let seen_us = files.used_us();
        self.shares.before_us.fetch_add(seen_us, Ordering::Relaxed);
        let mut names = self.shares.names();
        if let Some(crowd) = names.get_mut(&self.name) {
            let seat = Seat { files, seen_us };
            crowd.place(&seat);
            crowd.live.insert(self.sandbox, Some(seat));
        }
    }
}

impl Crowd {
    fn weight(&self) -> u32 {
        (WEIGHT / self.divisor.max(1)).max(WEIGHT_LEAST)
    }

    fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.live.values().flatten()
    }

    /// What its sandboxes have used since this was asked last, in us.
    fn used_us(&mut self) -> u64 {
        let live = self.live.values_mut().flatten().map(Seat::used_us);
        live.sum::<u64>() + std::mem::take(&mut self.gone_us)
    }

    /// Tells the kernel a sandbox's place. What is behind has the least weight of all, and takes no
    /// other.
    fn place(&self, seat: &Seat) {
        let behind = self.lately.behind;
        write(&seat.files.idle, u32::from(behind));
        if !behind {
            write(&seat.files.weight, self.weight());
        }
    }

    /// Writes every weight if the divisor has changed.
    fn weigh(&mut self) {
        let count = u32::try_from(self.live.len()).unwrap_or(u32::MAX);
        let divisor = divisor(self.divisor, count);
        if divisor != self.divisor {
            self.divisor = divisor;
            if !self.lately.behind {
                self.seats()
                    .for_each(|seat| write(&seat.files.weight, self.weight()));
            }
        }
    }
}

impl CpuFiles {
    /// CPU time used since the sandbox was made, in us; 0 where that cannot be read.
    pub(super) fn used_us(&self) -> u64 {
        self.usage.used_us().unwrap_or(0)
    }

    /// Nobody waits for what the sandbox does: it gets what no other has a use for, until it is
    /// somebody's.
    pub(super) fn rest(&self) {
        write(&self.idle, 1);
    }
}

impl Seat {
    /// What it has used since this was asked last, in us; 0 where it is gone already.
    fn used_us(&mut self) -> u64 {
        let now_us = self.files.usage.used_us().unwrap_or(self.seen_us);
        let used_us = now_us.saturating_sub(self.seen_us);
        self.seen_us = now_us;
        used_us
    }
}

fn write(file: &File, value: u32) {
    // It fails only where the group is gone already.
    drop(file.write_at(value.to_string().as_bytes(), 0));
}

/// What the weight of one is divided by for `count`: the count itself for a few. For many, anything
/// from the count to four times as much, so that not every sandbox that comes or goes has all the
/// others written anew.
fn divisor(now: u32, count: u32) -> u32 {
    if count <= EXACT_MAX {
        count
    } else if (count..=count.saturating_mul(4)).contains(&now) {
        now
    } else {
        count.checked_next_power_of_two().unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::tempfile;

    use super::*;

    fn files(weight: &File, idle: &File, usage: &File) -> CpuFiles {
        let copy = |file: &File| file.try_clone().unwrap();
        CpuFiles {
            weight: copy(weight),
            idle: copy(idle),
            usage: CpuCounter::new(copy(usage)),
        }
    }

    /// What was written last; a shorter text leaves the end of a longer one.
    fn written(file: &File) -> u32 {
        let mut text = [0; 8];
        let len = file.read_at(&mut text, 0).unwrap();
        let text = str::from_utf8(&text[..len]).unwrap();
        file.set_len(0).unwrap();
        text.parse().unwrap_or(0)
    }

    #[test]
    fn all_of_one_name_share_one_weight_and_others_have_their_own() {
        let shares = Arc::new(Shares::default());
        let weights: Vec<File> = (0..3).map(|_| tempfile().unwrap()).collect();
        let other_files = tempfile().unwrap();
        let attach =
            |part: &Part, n: usize| part.attach(files(&weights[n], &other_files, &other_files));
        let other = shares.join("other", [9; 16]);
        attach(&other, 2);
        assert_eq!(written(&weights[2]), WEIGHT);
        let first = shares.join("crowd", [0; 16]);
        attach(&first, 0);
        assert_eq!(written(&weights[0]), WEIGHT);
        let second = shares.join("crowd", [1; 16]);
        assert_eq!(
            (written(&weights[0]), second.place().0),
            (WEIGHT / 2, WEIGHT / 2)
        );
        attach(&second, 1);
        assert_eq!(written(&weights[1]), WEIGHT / 2);
        drop(first);
        assert_eq!(written(&weights[1]), WEIGHT);
        drop((second, other));
        shares.look(2, 25_000);
        assert!(shares.names().is_empty());
        assert_eq!([0, 2].map(|n| written(&weights[n])), [0, 0]);
    }

    #[test]
    fn a_name_that_takes_too_much_is_behind_until_it_has_taken_less() {
        let shares = Arc::new(Shares::default());
        let [weight, idle, usage] = [(); 3].map(|()| tempfile().unwrap());
        let used = |ns: u64| {
            usage
                .write_all_at(format!("{ns:020}").as_bytes(), 0)
                .unwrap()
        };
        used(9_000_000_000);
        let _other = shares.join("other", [2; 16]);
        let bully = shares.join("bully", [0; 16]);
        bully.attach(files(&weight, &idle, &usage));
        assert_eq!((written(&idle), written(&weight)), (0, WEIGHT));
        // What it had used when it came is not counted.
        shares.look(2, 25_000);
        assert!(!bully.place().1);
        for look in 1..=20 {
            used(9_000_000_000 + look * 50_000_000);
            shares.look(2, 25_000);
        }
        assert!(bully.place().1);
        assert_eq!((written(&idle), written(&weight)), (1, 0));
        // So is the next of its name, from its making on; no weight is written meanwhile.
        let next = shares.join("bully", [1; 16]);
        assert_eq!((next.place(), written(&weight)), ((WEIGHT / 2, true), 0));
        // Others are not.
        assert!(!shares.is_behind("other"));
        drop(next);
        for _ in 0..60 {
            shares.look(2, 25_000);
        }
        assert_eq!((written(&idle), written(&weight)), (0, WEIGHT));
    }

    #[test]
    fn few_have_exact_parts_and_many_are_seldom_written() {
        let mut now = 0;
        for count in 1..=EXACT_MAX {
            now = divisor(now, count);
            assert_eq!(now, count);
        }
        let mut changes = 0;
        let ups_and_downs = (17..=1000).chain((17..1000).rev());
        for count in ups_and_downs {
            let next = divisor(now, count);
            assert!((count..=4 * count).contains(&next), "{next} for {count}");
            changes += u32::from(next != now);
            now = next;
        }
        assert!(changes <= 12, "{changes}");
    }
}
