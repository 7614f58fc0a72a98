//! Periods: calendar months in UTC, and what each has to do before it is closed.

use std::fmt;

use jiff::ToSpan;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::calendar;
use crate::clock::Micros;
use crate::entry::Hold;
use crate::money::Money;
use crate::state::State;

/// How far the ledger's own time may be ahead of the clock for a period to be closed. Under load it
/// is by as many microseconds as commands are decided at once.
const AHEAD_MAX_US: i64 = 1_000_000;

/// A calendar month in UTC. Reads and prints as `YYYY-MM`, years 1970 to 9998.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Period(u32);

impl Period {
    /// The month of an instant.
    pub fn of(at: Micros) -> Self {
        Self(calendar::month_number(at))
    }

    /// Reads `YYYY-MM`.
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let digits = |part: &str, count| {
            let right = part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit());
            right.then(|| part.parse::<u32>().ok()).flatten()
        };
        let year = digits(year, 4).filter(|year| (1970..=9998).contains(year))?;
        let month = digits(month, 2).filter(|month| (1..=12).contains(month))?;
        Some(Self(year * 12 + month - 1))
    }

    /// When it begins, inclusive.
    pub fn start(self) -> Micros {
        self.first().map_or(Micros::MAX, midnight)
    }

    /// When it ends, exclusive.
    pub fn end(self) -> Micros {
        let next = self
            .first()
            .and_then(|date| date.checked_add(1.month()).ok());
        next.map_or(Micros::MAX, midnight)
    }

    /// The month after it.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    fn first(self) -> Option<Date> {
        let year = i16::try_from(self.0 / 12).ok()?;
        let month = i8::try_from(self.0 % 12 + 1).ok()?;
        Date::new(year, month, 1).ok()
    }
}

fn midnight(date: Date) -> Micros {
    let zoned = date.to_zoned_datetime(TimeZone::UTC);
    zoned.map_or(Micros::MAX, |zoned| zoned.timestamp().as_microsecond())
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 12, self.0 % 12 + 1)
    }
}

/// That a period is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Closed {
    /// The entry that closed it: entries after it do not count in the period.
    pub entry: u64,
    /// When.
    pub at: Micros,
}

/// How a period stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It has not ended.
    Open,
    /// It has ended and is not closed: runs that were held in it may still be settled.
    Grace,
    /// Nothing changes it any more.
    Closed(Closed),
}

/// A period and how it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeriodState {
    /// The period.
    pub period: Period,
    /// How it stands.
    pub phase: Phase,
}

/// What one tenant's period comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeriodTotal {
    /// The tenant.
    pub tenant: String,
    /// The currency of its cards.
    pub currency: Option<String>,
    /// The charges of its runs, exact.
    pub charged: Money,
    /// Its adjustments, exact.
    pub adjusted: Money,
}

/// What closing a period would fix, and what stands in the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Closing {
    /// The period and how it stands.
    pub state: PeriodState,
    /// The last entry that would count.
    pub through: u64,
    /// Why it cannot be closed now; `None` if it can.
    pub refused: Option<String>,
    /// What it comes to, by tenant.
    pub totals: Vec<PeriodTotal>,
    /// Holds that were opened in it and are still open: the oldest ones.
    pub holds: Vec<std::sync::Arc<Hold>>,
    /// How many such holds there are.
    pub holds_open: u64,
    /// Adjustments that wait for approval. Approved later, they count in a later period.
    pub pending: u64,
}

/// How a period stands at an instant.
pub(crate) fn phase(state: &State, period: Period, at: Micros) -> Phase {
    match state.closed(period) {
        Some(closed) => Phase::Closed(closed),
        None if at < period.end() => Phase::Open,
        None => Phase::Grace,
    }
}

/// Why a period is not closed while the clock says `now` and the ledger's own time is `at`: what a
/// clock that was ahead for a while has left behind must not end a month that still runs.
pub(crate) fn untimely(period: Period, at: Micros, now: Micros) -> Option<String> {
    if now < period.end() {
        return Some("has not ended by the server's clock".to_owned());
    }
    let ahead = at.saturating_sub(now);
    (ahead > AHEAD_MAX_US).then(|| {
        let ahead_s = ahead / 1_000_000;
        format!("waits for the server's clock: the ledger's time is {ahead_s} s ahead of it")
    })
}

/// Why a period cannot be closed at an instant; `None` if it can.
pub(crate) fn refused(state: &State, period: Period, at: Micros) -> Option<String> {
    if state.since().is_none_or(|since| period < Period::of(since)) {
        return Some("lies before the ledger's first command".to_owned());
    }
    match phase(state, period, at) {
        Phase::Closed(closed) => Some(format!("was closed by entry {}", closed.entry)),
        Phase::Open => Some("has not ended".to_owned()),
        Phase::Grace => match state.holds_of(period).count() {
            0 => None,
            open => Some(format!("has {open} open hold(s)")),
        },
    }
}

/// All periods from the ledger's first command to now, oldest first.
pub(crate) fn all(state: &State, at: Micros) -> Vec<PeriodState> {
    let mut periods = Vec::new();
    let Some(since) = state.since() else {
        return periods;
    };
    let (mut period, last) = (Period::of(since), Period::of(at));
    while period <= last {
        let phase = phase(state, period, at);
        periods.push(PeriodState { period, phase });
        period = period.next();
    }
    periods
}

/// From when on days are kept, if `months` before the current one are to be: all before are closed.
pub(crate) fn detail_from(state: &State, months: u32) -> Option<Micros> {
    let first = Period::of(state.since()?);
    let kept = Period(Period::of(state.at).0.checked_sub(months)?);
    let mut period = first;
    while period < kept && state.closed(period).is_some() {
        period = period.next();
    }
    (months > 0 && period > first).then(|| period.start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_read_back_as_printed_and_follow_on_each_other() {
        for (text, start) in [
            ("1970-01", 0),
            ("2026-12", 1_796_083_200_000_000),
            ("2028-02", 1_832_976_000_000_000),
        ] {
            let period = Period::parse(text).unwrap();
            assert_eq!(period.to_string(), text);
            assert_eq!(period.start(), start, "{text}");
            assert_eq!(period.end(), period.next().start());
            assert_eq!(Period::of(period.start()), period);
            assert_eq!(Period::of(period.end() - 1), period);
        }
        let february = Period::parse("2028-02").unwrap();
        assert_eq!(february.end() - february.start(), 29 * calendar::DAY_US);
    }

    #[test]
    fn what_is_no_month_is_refused() {
        for text in [
            "",
            "2026",
            "2026-0",
            "2026-00",
            "2026-13",
            "1969-12",
            "9999-01",
            "2026-1",
            "+026-01",
            "2026-01-01",
            "26-01",
        ] {
            assert_eq!(Period::parse(text), None, "{text}");
        }
    }
}
