//! The one reader of clocks in this crate: monotonic, and the wall only for what people read.

use std::time::{Instant, SystemTime};

/// Counts microseconds from the moment it was made; never goes back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Monotonic {
    origin: Instant,
}

impl Monotonic {
    pub(crate) fn start() -> Monotonic {
        #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
        let origin = Instant::now();
        Monotonic { origin }
    }

    /// Microseconds since [`Monotonic::start`].
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Seconds since the epoch, for what is shown to people; no decision hangs on it.
pub(crate) fn wall_s() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
