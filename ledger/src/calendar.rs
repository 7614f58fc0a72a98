//! Where windows begin and end, in any time zone.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, ZonedDateTime};

use crate::clock::Micros;
use crate::quota::Window;

/// A minute in microseconds.
pub(crate) const MINUTE_US: i64 = 60_000_000;
/// An hour in microseconds.
pub(crate) const HOUR_US: i64 = 60 * MINUTE_US;
/// A day in microseconds.
pub(crate) const DAY_US: i64 = 24 * HOUR_US;

/// One window: start inclusive, end exclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    /// Its start.
    pub(crate) start: Micros,
    /// Its end.
    pub(crate) end: Micros,
}

impl Span {
    /// All of time.
    pub(crate) const EVER: Self = Self {
        start: i64::MIN,
        end: i64::MAX,
    };

    /// Whether the instant lies within.
    pub(crate) fn contains(&self, at: Micros) -> bool {
        self.start <= at && at < self.end
    }
}

/// The zone of that IANA name.
pub(crate) fn zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    TimeZone::get(name).ok()
}

/// The window around an instant. `None` only where the calendar ends (year 9999).
pub(crate) fn span(zone: &TimeZone, window: Window, at: Micros) -> Option<Span> {
    let whole = |unit: i64| -> Option<Span> {
        let start = at.checked_sub(at.rem_euclid(unit))?;
        Some(Span {
            start,
            end: start.checked_add(unit)?,
        })
    };
    let utc = *zone == TimeZone::UTC;
    match window {
        Window::Lifetime => Some(Span::EVER),
        Window::Minute => whole(MINUTE_US),
        Window::Hour if utc => whole(HOUR_US),
        Window::Day if utc => whole(DAY_US),
        Window::Hour => hour(zone, at),
        Window::Day => {
            let first = local(zone, at)?.start_of_day().ok()?;
            between(&first, &first.tomorrow().ok()?.start_of_day().ok()?)
        }
        Window::Month => {
            let first = local(zone, at)?
                .first_of_month()
                .ok()?
                .start_of_day()
                .ok()?;
            let next = first.checked_add(1.month()).ok()?.start_of_day().ok()?;
            between(&first, &next)
        }
    }
}

/// All windows from `from` to `to`; both must lie on borders.
pub(crate) fn spans(zone: &TimeZone, window: Window, from: Micros, to: Micros) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut at = from;
    while at < to {
        let Some(next) = span(zone, window, at).filter(|next| next.end > at) else {
            break;
        };
        spans.push(next);
        at = next.end;
    }
    spans
}

/// The month around an instant in UTC; all of time where the calendar ends.
pub(crate) fn month(at: Micros) -> Span {
    span(&TimeZone::UTC, Window::Month, at).unwrap_or(Span::EVER)
}

/// The month of an instant in UTC, counted from year 0.
pub(crate) fn month_number(at: Micros) -> u32 {
    let date = local(&TimeZone::UTC, at).map(|zoned| zoned.date());
    let number = date.map_or(0, |date| {
        i32::from(date.year()) * 12 + i32::from(date.month()) - 1
    });
    u32::try_from(number).unwrap_or(0)
}

fn local(zone: &TimeZone, at: Micros) -> Option<ZonedDateTime> {
    Some(
        Timestamp::from_microsecond(at)
            .ok()?
            .to_zoned_datetime(zone.clone()),
    )
}

fn between(start: &ZonedDateTime, end: &ZonedDateTime) -> Option<Span> {
    let micros = |zoned: &ZonedDateTime| zoned.timestamp().as_microsecond();
    Some(Span {
        start: micros(start),
        end: micros(end),
    })
}

/// The local hour. Where a clock change that is not whole hours falls into it (Lord Howe), the
/// hour is cut there, so that hours never overlap.
fn hour(zone: &TimeZone, at: Micros) -> Option<Span> {
    let instant = Timestamp::from_microsecond(at).ok()?;
    let offset_us = i64::from(zone.to_offset(instant).seconds()) * 1_000_000;
    let start = at.checked_sub(at.checked_add(offset_us)?.rem_euclid(HOUR_US))?;
    let mut cut = Span {
        start,
        end: start.checked_add(HOUR_US)?,
    };
    let odd = |change: Timestamp| {
        let before = change.checked_sub(SignedDuration::from_secs(1)).ok();
        let before = before.map_or(0, |before| zone.to_offset(before).seconds());
        (zone.to_offset(change).seconds() - before) % 3_600 != 0
    };
    let step = instant.checked_add(SignedDuration::from_micros(1)).ok()?;
    if let Some(last) = zone
        .preceding(step)
        .next()
        .map(|t| t.timestamp())
        .filter(|t| odd(*t))
    {
        cut.start = cut.start.max(last.as_microsecond());
    }
    if let Some(next) = zone
        .following(instant)
        .next()
        .map(|t| t.timestamp())
        .filter(|t| odd(*t))
    {
        cut.end = cut.end.min(next.as_microsecond());
    }
    Some(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> Micros {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    fn around(zone_name: &str, window: Window, at: &str) -> (String, String) {
        let span = span(&zone(zone_name).unwrap(), window, us(at)).unwrap();
        let text = |at| Timestamp::from_microsecond(at).unwrap().to_string();
        (text(span.start), text(span.end))
    }

    #[test]
    fn days_and_months_follow_the_zones_calendar() {
        let berlin = |window, at| around("Europe/Berlin", window, at);
        let (start, end) = berlin(Window::Day, "2026-03-29T12:00:00Z");
        assert_eq!(
            (start.as_str(), end.as_str()),
            ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z")
        );
        let (start, end) = berlin(Window::Day, "2026-10-25T12:00:00Z");
        assert_eq!(
            (start.as_str(), end.as_str()),
            ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z")
        );
        let (start, end) = berlin(Window::Month, "2026-10-31T23:30:00Z");
        assert_eq!(
            (start.as_str(), end.as_str()),
            ("2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z")
        );
        let (start, end) = around("UTC", Window::Month, "2028-02-29T23:59:59.999999Z");
        assert_eq!(
            (start.as_str(), end.as_str()),
            ("2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z")
        );
    }

    #[test]
    fn hours_follow_odd_offsets() {
        let (start, end) = around("Asia/Kathmandu", Window::Hour, "2026-11-23T10:20:00Z");
        assert_eq!(
            (start.as_str(), end.as_str()),
            ("2026-11-23T10:15:00Z", "2026-11-23T11:15:00Z")
        );
    }

    #[test]
    fn windows_tile_time_without_gap_or_overlap() {
        for name in [
            "UTC",
            "Europe/Berlin",
            "Asia/Kathmandu",
            "Australia/Lord_Howe",
            "Asia/Gaza",
        ] {
            let zone = zone(name).unwrap();
            for window in [Window::Minute, Window::Hour, Window::Day, Window::Month] {
                let mut at = us("2026-03-20T13:07:00Z");
                for _ in 0..900 {
                    let here = span(&zone, window, at).unwrap();
                    assert!(here.contains(at), "{name} {window:?} {at}");
                    assert_eq!(
                        span(&zone, window, here.start),
                        Some(here),
                        "{name} {window:?}"
                    );
                    assert_eq!(
                        span(&zone, window, here.end - 1),
                        Some(here),
                        "{name} {window:?}"
                    );
                    at = here.end;
                }
            }
        }
    }

    #[test]
    fn months_are_numbered_in_order() {
        let number = |text| month_number(us(text));
        assert_eq!(
            number("2026-11-30T23:59:59Z") + 1,
            number("2026-12-01T00:00:00Z")
        );
        assert_eq!(
            number("2026-12-31T00:00:00Z") + 1,
            number("2027-01-01T00:00:00Z")
        );
    }
}
