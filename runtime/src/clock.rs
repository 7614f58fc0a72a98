//! The one reader of clocks in this crate: monotonic, and the wall only for what people read.

use std::io;
use std::time::{Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};

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

/// What takes the kernel's two clocks that count from the machine's start back to their beginning:
/// the text of a `/proc/PID/timens_offsets`.
pub(crate) fn offsets_to_zero() -> io::Result<String> {
    let whole_s = |clock| clock_gettime(clock).map(|time| time.tv_sec());
    let monotonic_s = whole_s(ClockId::CLOCK_MONOTONIC)?;
    let boottime_s = whole_s(ClockId::CLOCK_BOOTTIME)?;
    Ok(format!(
        "monotonic -{monotonic_s} 0\nboottime -{boottime_s} 0\n"
    ))
}
