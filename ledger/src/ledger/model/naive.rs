//! The rules once more, as plainly as they can be written.

use crate::testing::MONDAY;
use crate::*;

pub(super) const MINUTE: i64 = 60_000_000;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;
/// 2026-12-01T00:00:00Z: the runs begin shortly before this border of months.
pub(super) const DECEMBER: Micros = MONDAY + 8 * DAY;

/// Where a window begins, by arithmetic alone; there is one border of months in reach.
pub(super) fn start(window: Window, at: Micros) -> Micros {
    match window {
        Window::Minute => at - at % MINUTE,
        Window::Hour => at - at % HOUR,
        Window::Day => at - at % DAY,
        Window::Month if at < DECEMBER => DECEMBER - 30 * DAY,
        Window::Month if at < DECEMBER + 31 * DAY => DECEMBER,
        Window::Month => DECEMBER + 31 * DAY,
        Window::Lifetime => 0,
    }
}

/// Zones of quotas, and how far their clocks are ahead in these months.
pub(super) const ZONES: [(&str, i64); 3] = [
    ("UTC", 0),
    ("Asia/Kathmandu", 5 * HOUR + 45 * MINUTE),
    ("America/New_York", -5 * HOUR),
];

/// When a window in a zone began.
pub(super) fn start_in(zone: &str, window: Window, at: Micros) -> Micros {
    let found = ZONES.iter().find(|(name, _)| *name == zone);
    let (_, ahead) = found.unwrap();
    start(window, at + ahead) - ahead
}

/// One meter of quantities with their cost.
pub(super) fn get(quantities: &Quantities, cost: i128, meter: Meter) -> u128 {
    if meter == Meter::Cost {
        cost.unsigned_abs()
    } else {
        quantities.get(meter)
    }
}

/// The card of the tests, priced the long way round: integer division with its rest.
pub(super) fn price(used: &Quantities, up: bool) -> i128 {
    let lines = [
        (u128::from(used.executions), 200_000, 1),
        (u128::from(used.cpu_us), 14_000_000, 1_000_000),
        (used.memory_byte_ms, 4_500_000, 1_073_741_824_000_u128),
    ];
    let line = |(quantity, rate, unit): (u128, u128, u128)| {
        let product = quantity * rate;
        let (floor, rest) = (product / unit, product % unit);
        let nearest = match (2 * rest).cmp(&unit) {
            std::cmp::Ordering::Less => floor,
            std::cmp::Ordering::Equal => floor + floor % 2,
            std::cmp::Ordering::Greater => floor + 1,
        };
        if up {
            floor + u128::from(rest > 0)
        } else {
            nearest
        }
    };
    i128::try_from(lines.into_iter().map(line).sum::<u128>()).unwrap()
}

/// How many of these runs count in the second of `at` (those of its own second and the 60 before),
/// and when fewer than `cap` do; `None` if there is room now.
pub(super) fn begun(opened: &[Micros], at: Micros, cap: u32) -> Option<(u32, Micros)> {
    let second = at / 1_000_000;
    let count = |second: i64| {
        let in_reach = |opened: &&Micros| second - **opened / 1_000_000 <= 60;
        u32::try_from(opened.iter().filter(in_reach).count()).unwrap()
    };
    let free = (second..=second + 61).find(|second| count(*second) < cap)?;
    (free > second).then_some((count(second), free * 1_000_000))
}

/// Whether a scope's quotas count a run.
pub(super) fn in_scope(scope: &Scope, request: &HoldRequest) -> bool {
    match scope {
        Scope::Tenant => true,
        Scope::Project(name) => *name == request.project,
        Scope::Function(name) => Some(name) == request.function.as_ref(),
        Scope::Key(name) => *name == request.key,
    }
}
