//! The CPUs of a sandbox: as many as its share rounds up to, the least promised ones.
//!
//! A program takes the number of CPUs that it may run on for the number that it has
//! (`sched_getaffinity(2)`), and starts as many threads. What is promised is counted, not what is
//! burnt: the launcher sees no load, and a share is what a sandbox may burn at any moment.

use std::collections::BTreeMap;
use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Share of one whole CPU.
const WHOLE: u32 = 1000;

/// CPUs that this process may run on, in ascending order. Machines with more than
/// [`CpuSet::count`] (1024) CPUs are not known.
pub(crate) fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect())
}

/// Lets a process run on these CPUs only; what it forks from now on inherits that.
pub(crate) fn pin(process: Pid, cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    Ok(sched_setaffinity(process, &set)?)
}

/// How many CPUs a share rounds up to, where the machine has as many.
pub(crate) fn count(cpu_millis: u32) -> usize {
    let count = cpu_millis.div_ceil(WHOLE).max(1);
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Chooses CPUs for a share: the least `promised` of those that are `allowed`, in ascending order.
///
/// Of equals, one from `turn` on comes first, so that not everything begins on the first CPU.
pub(super) fn choose(
    cpu_millis: u32,
    allowed: &[usize],
    promised: &BTreeMap<usize, u32>,
    turn: u32,
) -> Vec<usize> {
    let first = usize::try_from(turn).unwrap_or(0) % allowed.len().max(1);
    let (before, from) = allowed.split_at(first);
    let mut order: Vec<usize> = from.iter().chain(before).copied().collect();
    // Stable: equals keep their turn.
    order.sort_by_key(|cpu| promised.get(cpu).copied().unwrap_or(0));
    order.truncate(count(cpu_millis));
    order.sort_unstable();
    order
}

/// What is promised of each CPU, by the shares and CPUs of what is live.
pub(super) fn promised<'a>(live: impl Iterator<Item = (u32, &'a [usize])>) -> BTreeMap<usize, u32> {
    let mut sum = BTreeMap::new();
    for (cpu_millis, cpus) in live {
        let each = cpu_millis / u32::try_from(cpus.len()).unwrap_or(1).max(1);
        for cpu in cpus {
            let of = sum.entry(*cpu).or_insert(0_u32);
            *of = of.saturating_add(each);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(cpu_millis: u32, allowed: &[usize], turn: u32) -> Vec<usize> {
        choose(cpu_millis, allowed, &BTreeMap::new(), turn)
    }

    #[test]
    fn share_is_rounded_up_and_bounded_by_what_is_allowed() {
        for (cpu_millis, count) in [(10, 1), (1000, 1), (1001, 2), (1500, 2), (9000, 4)] {
            assert_eq!(fresh(cpu_millis, &[0, 1, 2, 3], 0).len(), count);
        }
        assert_eq!(fresh(2000, &[7], 0), [7]);
    }

    #[test]
    fn equals_take_turns() {
        let allowed = [2, 5, 9];
        let first: Vec<_> = (0..4)
            .flat_map(|turn| fresh(1000, &allowed, turn))
            .collect();
        assert_eq!(first, [2, 5, 9, 2]);
        assert_eq!(fresh(2000, &allowed, 2), [2, 9]);
    }

    #[test]
    fn least_promised_come_first() {
        let (one, two) = ([0], [0, 1]);
        let live = [(500, one.as_slice()), (2000, two.as_slice())];
        let promised = promised(live.into_iter());
        assert_eq!(promised, BTreeMap::from([(0, 1500), (1, 1000)]));
        for turn in 0..3 {
            assert_eq!(choose(1000, &[0, 1, 2], &promised, turn), [2]);
            assert_eq!(choose(2000, &[0, 1, 2], &promised, turn), [1, 2]);
            assert_eq!(choose(1000, &[0, 1], &promised, turn), [1]);
        }
    }

    /// The kernel's answer, not ours, is what a program sees.
    #[test]
    fn pinned_process_may_run_where_it_was_pinned() {
        let before = allowed().unwrap();
        let last = *before.last().unwrap();
        pin(Pid::from_raw(0), &[last]).unwrap();
        assert_eq!(allowed().unwrap(), [last]);
        pin(Pid::from_raw(0), &before).unwrap();
        assert_eq!(allowed().unwrap(), before);
    }
}
