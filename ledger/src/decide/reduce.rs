//! The largest common fraction of CPU and wall time that fits.

use crate::quantity::Ceiling;

/// The limits with CPU and wall time lowered by the largest common fraction for which `fits`
/// holds, in whole milliseconds; `None` if that is below `least` (CPU, wall).
///
/// `fits` must be monotone: what fits a ceiling fits every lower one.
pub(super) fn largest(
    asked: Ceiling,
    least: (u64, u64),
    fits: impl Fn(&Ceiling) -> bool,
) -> Option<Ceiling> {
    // A fraction i/cpu or j/wall is where one of the two drops by a millisecond; both are whole
    // multiples of 1/(cpu x wall), so searching those numerators misses no pair.
    let (cpu, wall) = (u128::from(asked.cpu_ms), u128::from(asked.wall_ms));
    let at = |numerator: u128| Ceiling {
        cpu_ms: u64::try_from(numerator / wall).unwrap_or(u64::MAX),
        wall_ms: u64::try_from(numerator / cpu).unwrap_or(u64::MAX),
        ..asked
    };
    let (mut good, mut bad) = (0, cpu.checked_mul(wall)?);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        let ceiling = at(middle);
        // Zero limits are no run at all, but they are below whatever is looked for.
        let fit = ceiling.cpu_ms == 0 || ceiling.wall_ms == 0 || fits(&ceiling);
        *(if fit { &mut good } else { &mut bad }) = middle;
    }
    let granted = at(good);
    let enough = granted.cpu_ms >= least.0 && granted.wall_ms >= least.1;
    (enough && granted.cpu_ms > 0 && granted.wall_ms > 0).then_some(granted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(cpu_ms: u64, wall_ms: u64) -> Ceiling {
        Ceiling {
            cpu_ms,
            wall_ms,
            cpu_millis: 1_000,
            memory_bytes: 1,
        }
    }

    proptest! {
        /// Against every fraction that can make a difference, tried one by one.
        #[test]
        fn no_larger_fraction_fits(
            cpu in 1u64..40, wall in 1u64..40, cap_cpu in 0u64..40, cap_wall in 0u64..40,
            min_cpu in 1u64..5, min_wall in 1u64..5,
        ) {
            let fits = |c: &Ceiling| c.cpu_ms <= cap_cpu && c.wall_ms <= cap_wall;
            let all = (1..cpu * wall).rev().map(|n| (n / wall, n / cpu));
            let best = all
                .filter(|(c, w)| *c > 0 && *w > 0)
                .find(|(c, w)| fits(&asked(*c, *w)))
                .filter(|(c, w)| *c >= min_cpu && *w >= min_wall);
            let found = largest(asked(cpu, wall), (min_cpu, min_wall), fits);
            prop_assert_eq!(found.map(|c| (c.cpu_ms, c.wall_ms)), best);
        }
    }

    #[test]
    fn great_limits_do_not_overflow() {
        let found = largest(asked(u64::MAX, u64::MAX), (1, 1), |c| c.cpu_ms <= 5);
        assert_eq!(found, Some(asked(5, 5)));
    }
}
