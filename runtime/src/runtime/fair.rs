//! Who has had too much of the CPUs lately, of all who want some. No I/O.

/// What one name has had lately, and where that puts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// CPU time in thousandths of a second per second: 1,000 is one CPU.
    pub(super) rate: u64,
    /// Whether its sandboxes go behind those of others.
    pub(super) behind: bool,
}

/// What counts as lately, in us: a use that begins is two thirds known after the first, one that
/// ends is forgotten to a third after the second. Whoever lets off one crowd after the other has
/// pauses between them.
const BEGINS_US: u64 = 100_000;
const ENDS_US: u64 = 1_000_000;

impl Use {
    /// Counts `used_us` of CPU time in, of the last `elapsed_us`.
    pub(super) fn count(&mut self, used_us: u64, elapsed_us: u64) {
        let now = used_us.saturating_mul(1_000) / elapsed_us.max(1);
        let lately_us = if now > self.rate { BEGINS_US } else { ENDS_US };
        let both = lately_us.saturating_add(elapsed_us);
        self.rate = (self.rate * lately_us + now.saturating_mul(elapsed_us)) / both;
    }

    /// Whether it has changed place, by what would be its fair part.
    ///
    /// It goes behind at three quarters of that and comes back at half: else the bound that all
    /// swing around would be where each spends most of its time.
    pub(super) fn judge(&mut self, fair: u64) -> bool {
        let behind = if self.behind {
            self.rate > fair / 2
        } else {
            self.rate > fair / 4 * 3
        };
        std::mem::replace(&mut self.behind, behind) != behind
    }
}

/// The most that each may have so that all get what they want or as much as any other, in the unit
/// of [`Use::rate`]: all CPUs for one alone, never more than half with others about, who may want
/// more at any time. Sorts `rates`.
pub(super) fn fair_part(cpus: usize, rates: &mut [u64]) -> u64 {
    let all = u64::try_from(cpus)
        .unwrap_or(u64::MAX)
        .saturating_mul(1_000);
    if rates.len() < 2 {
        return all.saturating_mul(2);
    }
    rates.sort_unstable();
    let mut left = all;
    let mut others = rates.len() as u64;
    for rate in rates {
        let part = left / others;
        if *rate > part {
            return part.min(all / 2);
        }
        left -= *rate;
        others -= 1;
    }
    all / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_some_leave_is_divided_among_those_who_want_more() {
        let fair = |rates: &[u64]| fair_part(4, &mut rates.to_vec());
        assert_eq!(fair(&[4_000]), 8_000);
        assert_eq!(fair(&[100, 3_900]), 2_000);
        assert_eq!(fair(&[3_000, 400, 3_000]), 1_800);
        assert_eq!(fair(&[3_000; 8]), 500);
        // Nobody is held back who has only what others leave.
        assert_eq!(fair(&[500, 500, 500]), 2_000);
    }

    #[test]
    fn who_takes_too_much_goes_behind_and_comes_back() {
        let mut bully = Use::default();
        let looks = |of: &mut Use, used_us: u64| {
            let mut looks = 0;
            loop {
                of.count(used_us, 25_000);
                looks += 1;
                if of.judge(1_000) || looks == 100 {
                    return looks;
                }
            }
        };
        assert!(looks(&mut bully, 50_000) <= 6 && bully.behind);
        assert!(looks(&mut bully, 0) <= 60 && !bully.behind);
        // Whoever has less than three quarters never does.
        assert!(looks(&mut bully, 18_000) == 100 && !bully.behind);
    }

    #[test]
    fn use_is_forgotten_whole() {
        let mut before = Use::default();
        before.count(1 << 40, 25_000);
        for _ in 0..1_000 {
            before.count(0, 25_000);
        }
        assert_eq!(before.rate, 0);
    }
}
