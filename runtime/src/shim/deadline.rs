//! When a CPU allowance could be used up at the earliest: how long a shim may sleep.

use crate::cgroup::PERIOD_US;

/// Shortest sleep, in us. It bounds what the watching costs, and how much may be used beyond the
/// allowance: this, times the CPUs.
const SLEEP_MIN_US: u64 = 2_000;

/// How long from now, in us, `left_us` of CPU time lasts at the least.
///
/// `cpus` CPUs can burn at once, but no more than the quota in each period; the quota of this
/// period may be whole, and the next may begin at any moment. A share of 0 is taken for no quota.
pub(super) fn earliest_us(left_us: u64, cpu_millis: u32, cpus: u64) -> u64 {
    let quota_us = u64::from(cpu_millis) * PERIOD_US / 1000;
    let by_cpus = left_us / cpus.max(1);
    let by_quota = match quota_us {
        0 => 0,
        _ => left_us
            .div_ceil(quota_us)
            .saturating_sub(2)
            .saturating_mul(PERIOD_US),
    };
    by_cpus.max(by_quota).max(SLEEP_MIN_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_may_burn_at_once() {
        assert_eq!(earliest_us(1_000_000, 64_000, 2), 500_000);
        assert_eq!(earliest_us(1_000_000, 64_000, 4), 250_000);
    }

    #[test]
    fn quota_bounds_the_rate_but_two_periods_may_meet() {
        // 50 ms in each 100 ms: of 1 s, 100 ms may come at once, the rest takes 18 periods.
        assert_eq!(earliest_us(1_000_000, 500, 4), 1_800_000);
        assert_eq!(earliest_us(100_000, 500, 1), 100_000);
    }

    #[test]
    fn sleep_has_a_floor() {
        assert_eq!(earliest_us(0, 1000, 2), SLEEP_MIN_US);
        assert_eq!(earliest_us(10, 0, 0), SLEEP_MIN_US);
    }

    /// Whatever the load does within its quota, it cannot pass the allowance before the shim looks.
    #[test]
    fn greediest_load_is_never_overslept() {
        for millis in [50_u32, 500, 1000, 1700] {
            for left in [30_000_u64, 200_000, 2_000_000] {
                let slept = earliest_us(left, millis, 2);
                let quota = u64::from(millis) * PERIOD_US / 1000;
                // Two whole quotas at the seam of two periods, then one a period.
                let used = (2 * slept).min(quota * (2 + slept / PERIOD_US));
                let slack = 2 * SLEEP_MIN_US;
                assert!(
                    used <= left + quota.min(left) + slack,
                    "{millis} {left}: {used}"
                );
            }
        }
    }
}
