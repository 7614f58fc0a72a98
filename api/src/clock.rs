//! The one reader of clocks in this crate: the wall for what is written down, a monotonic for
//! durations.

use std::time::{Duration, Instant, SystemTime};

/// Wall and monotonic time; cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Clock {
        #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
        let origin = Instant::now();
        Clock { origin }
    }

    /// Wall time in microseconds since the epoch, UTC.
    #[must_use]
    pub fn wall_us(&self) -> i64 {
        #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
        let now = SystemTime::now();
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    /// Wall time in whole seconds since the epoch, UTC.
    #[must_use]
    pub fn wall_s(&self) -> u64 {
        u64::try_from(self.wall_us().div_euclid(1_000_000)).unwrap_or(0)
    }

    /// Time since this clock was made; never goes back.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
}

impl ledger::Clock for Clock {
    fn now_us(&self) -> ledger::Micros {
        self.wall_us()
    }
}

/// The RFC 3339 form of `us` microseconds since the epoch, in UTC with six decimals.
#[must_use]
pub fn rfc3339(us: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(us).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.6}")
}

/// The microseconds since the epoch that `text`, an RFC 3339 time with an offset, names.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(jiff::Timestamp::as_microsecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_as_written() {
        assert_eq!(
            rfc3339(1_767_225_600_000_001),
            "2026-01-01T00:00:00.000001Z"
        );
        assert_eq!(
            parse_rfc3339("2026-01-01T01:00:00.000001+01:00"),
            Some(1_767_225_600_000_001)
        );
        assert_eq!(parse_rfc3339("2026-01-01"), None);
    }
}
