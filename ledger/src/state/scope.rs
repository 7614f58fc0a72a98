//! What one scope has posted and holds, in all its current windows at once.
//!
//! A scope keeps running totals and, for each window, what the totals were when the window began:
//! what is posted in a window is the difference. A command touches the totals only; a window costs
//! something only when it begins, or when a hold that was opened before it ends in it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::amounts::Amounts;
use super::tally::Tally;
use crate::calendar::Span;
use crate::clock::Micros;
use crate::quantity::Meter;

/// Calendars that every tenant has.
pub(super) const FIRST: usize = 2;

/// The counters of one scope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Counters {
    /// Everything. Its span is where all bases are current: holds opened since it began need no
    /// look at them.
    total: Tally,
    bases: Bases,
    /// From when on the scope is counted, if it may have been used before.
    since: Option<Micros>,
}

/// What the totals were when the current window began, and what was posted since then for holds
/// opened before it; one for each of the tenant's calendars, in their order. The span of each is
/// from its window's beginning until when the window began to be counted: no time, for a whole one.
///
/// The first ones, which every tenant has, lie in place: finding them needs no other memory.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Bases {
    first: [Tally; FIRST],
    more: Vec<Tally>,
}

/// A base as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredBase {
    start: Micros,
    posted: Amounts,
    held: Amounts,
    /// From when on the window is counted, where that is later than its start.
    counted_since: Option<Micros>,
}

/// Counters as they are stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    posted: Amounts,
    held: Amounts,
    bases: Vec<StoredBase>,
    /// The latest start of a base.
    since: Micros,
    /// Until when all bases are current.
    until: Micros,
    /// From when on the scope is counted, if it may have been used before.
    counted_since: Option<Micros>,
}

impl Serialize for Counters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (posted, held) = self.total.amounts();
        let base = |base: &Tally| {
            let (posted, held) = base.amounts();
            StoredBase {
                start: base.span.start,
                posted,
                held,
                counted_since: counted_since(base),
            }
        };
        let stored = Stored {
            posted,
            held,
            bases: self.bases.iter().map(base).collect(),
            since: self.total.span.start,
            until: self.total.span.end,
            counted_since: self.since,
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Counters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        let span = Span {
            start: stored.since,
            end: stored.until,
        };
        let base = |base: &StoredBase| {
            let missed = Span {
                start: base.start,
                end: base.counted_since.unwrap_or(base.start),
            };
            Tally::of(missed, &base.posted, &base.held)
        };
        Ok(Self {
            total: Tally::of(span, &stored.posted, &stored.held),
            bases: Bases::of(stored.bases.iter().map(base)),
            since: stored.counted_since,
        })
    }
}

impl Bases {
    fn of(mut bases: impl Iterator<Item = Tally>) -> Self {
        let mut next = || bases.next().unwrap_or_else(|| Tally::new(whole(i64::MIN)));
        Self {
            first: [next(), next()],
            more: bases.collect(),
        }
    }

    #[inline]
    fn get(&self, index: usize) -> Option<&Tally> {
        match index.checked_sub(FIRST) {
            None => self.first.get(index),
            Some(index) => self.more.get(index),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Tally> {
        self.first.iter().chain(&self.more)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Tally> {
        self.first.iter_mut().chain(&mut self.more)
    }
}

impl Counters {
    /// Counters of a scope that nothing has used yet; or that may have been used before `since`,
    /// when it was not counted.
    pub(crate) fn new(windows: &[Span], since: Option<Micros>) -> Self {
        let base = |window: &Span| {
            Tally::new(Span {
                start: window.start,
                end: since.map_or(window.start, |since| since.max(window.start)),
            })
        };
        let bases = Bases::of(windows.iter().map(base));
        Self {
            total: Tally::new(current(&bases, i64::MIN)),
            bases,
            since,
        }
    }

    /// Begins the windows that are not yet the current ones; the first of these ends at `until`.
    pub(crate) fn roll(&mut self, windows: &[Span], at: Micros, until: Micros) {
        if at < self.total.span.end {
            return;
        }
        for (base, window) in self.bases.iter_mut().zip(windows) {
            if base.span.start < window.start {
                // Whatever is open now was opened before the window began: this is the first
                // touch since.
                base.clone_from(&self.total);
                base.span = whole(window.start);
            }
        }
        self.total.span = current(&self.bases, until);
    }

    /// Sets aside.
    pub(crate) fn hold(&mut self, amounts: &Amounts) {
        self.total.hold(amounts);
    }

    /// Ends what was set aside at `opened_at`, and posts.
    pub(crate) fn end(&mut self, opened_at: Micros, held: &Amounts, posted: &Amounts) {
        self.total.end(held, posted);
        if opened_at >= self.total.span.start {
            return;
        }
        for base in self.bases.iter_mut() {
            if opened_at < base.span.start {
                base.end(held, posted);
            }
        }
    }

    /// Adds to what is posted without ending anything.
    pub(crate) fn adjust(&mut self, amount: &Amounts) {
        self.total.post(amount);
    }

    /// All that was ever posted, and all that is held.
    pub(crate) fn lifetime(&self) -> (Amounts, Amounts) {
        self.total.amounts()
    }

    /// What one meter has posted and holds in the window of calendar `index`, if `window` is the
    /// current one; for ever, where there is no index.
    pub(crate) fn of_meter(
        &self,
        index: Option<usize>,
        window: &Span,
        meter: Meter,
    ) -> (u128, u128) {
        let Some(index) = index else {
            return self.total.get(meter);
        };
        match self.bases.get(index) {
            Some(base) if base.span.start == window.start => self.total.beyond(base, meter),
            _ => (0, 0),
        }
    }

    /// What a meter has posted and holds together in the window of calendar `index`, where `window`
    /// is the current one and the meter one that quotas mostly limit; `None` says nothing.
    #[inline]
    pub(super) fn used_quickly(&self, index: usize, window: &Span, meter: Meter) -> Option<u128> {
        let base = self.bases.get(index)?;
        let is_current = base.span.start == window.start;
        let (posted, held) = self
            .total
            .first_beyond(base, meter)
            .filter(|_| is_current)?;
        Some(u128::from(posted) + u128::from(held))
    }

    /// From when on the window of calendar `index` is counted, if `window` is the current one and
    /// is not counted whole; for ever, where there is no index.
    pub(crate) fn counted_since(&self, index: Option<usize>, window: &Span) -> Option<Micros> {
        let Some(index) = index else {
            return self.since;
        };
        let base = self.bases.get(index);
        base.filter(|base| base.span.start == window.start)
            .and_then(counted_since)
    }

    /// Whether it is counted since before an instant.
    pub(crate) fn is_counted_at(&self, at: Micros) -> bool {
        self.since.is_none_or(|since| since <= at)
    }

    /// A word of each cache line that a hold, or the end of one, needs; what is `checked` needs the
    /// first windows too.
    pub(crate) fn near(&self, checked: bool) -> u64 {
        let [day, month] = &self.bases.first;
        let bases = if checked {
            day.near() ^ month.near()
        } else {
            0
        };
        self.total.near_all() ^ bases
    }

    /// Whether nothing is set aside.
    pub(crate) fn idle(&self) -> bool {
        self.lifetime().1 == Amounts::default()
    }

    /// Takes over other calendars. `from` names for each new calendar the old one that it
    /// continues; a calendar that continues none counts from `at` on, with `open(start)` being what
    /// is held for holds opened before `start`; unless `before` knows what was posted for these by
    /// then.
    pub(crate) fn recalendar(
        &mut self,
        (from, windows): (&[Option<usize>], &[Span]),
        at: Micros,
        open: impl Fn(Micros) -> Amounts,
        before: impl Fn(usize) -> Option<Amounts>,
    ) {
        let (posted, _) = self.lifetime();
        let fresh = |window: &Span| {
            // A window that begins when another one began has had the same use.
            let mut bases = self.bases.iter();
            let twin = bases.find(|base| base.span.start == window.start);
            let missed = Span {
                start: window.start,
                end: at.max(window.start),
            };
            let counts = || Tally::of(missed, &posted, &open(window.start));
            twin.cloned().unwrap_or_else(counts)
        };
        let bases = from
            .iter()
            .zip(windows)
            .enumerate()
            .map(|(new, (old, window))| {
                if let Some(posted) = before(new) {
                    return Tally::of(whole(window.start), &posted, &open(window.start));
                }
                old.and_then(|old| self.bases.get(old))
                    .cloned()
                    .unwrap_or_else(|| fresh(window))
            });
        self.bases = Bases::of(bases);
        self.total.span = current(&self.bases, i64::MIN);
    }
}

/// The span of the base of a window that is counted whole.
fn whole(start: Micros) -> Span {
    Span { start, end: start }
}

/// From when on a base's window is counted, if that is later than its start.
fn counted_since(base: &Tally) -> Option<Micros> {
    let Span { start, end } = base.span;
    (start < end).then_some(end)
}

/// From the latest start of a base until the first of their windows ends.
fn current(bases: &Bases, until: Micros) -> Span {
    let starts = bases.iter().map(|base| base.span.start);
    Span {
        start: starts.max().unwrap_or(i64::MIN),
        end: until,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(cost: i128) -> Amounts {
        Amounts {
            cost,
            ..Amounts::default()
        }
    }

    const FIRST: [Span; 1] = [Span { start: 0, end: 10 }];
    const SECOND: [Span; 1] = [Span { start: 10, end: 20 }];

    fn stands(counters: &Counters, windows: &[Span]) -> (u128, u128) {
        counters.of_meter(Some(0), &windows[0], Meter::Cost)
    }

    #[test]
    fn a_hold_posts_in_the_window_of_its_own_instant() {
        let mut counters = Counters::new(&FIRST, None);
        counters.hold(&cost(5));
        assert_eq!(stands(&counters, &FIRST), (0, 5));
        counters.roll(&SECOND, 10, 20);
        counters.hold(&cost(3));
        assert_eq!(stands(&counters, &SECOND), (0, 3));
        counters.end(9, &cost(5), &cost(4));
        assert_eq!(stands(&counters, &SECOND), (0, 3));
        counters.end(10, &cost(3), &cost(2));
        assert_eq!(stands(&counters, &SECOND), (2, 0));
        assert_eq!(counters.of_meter(None, &Span::EVER, Meter::Cost), (6, 0));
    }

    #[test]
    fn counters_are_stored_as_sums_and_bases() {
        let windows = [
            FIRST[0],
            Span { start: 0, end: 99 },
            Span { start: 4, end: 99 },
        ];
        let mut counters = Counters::new(&windows, None);
        counters.roll(&windows, 5, 10);
        counters.hold(&cost(5));
        counters.end(3, &cost(5), &cost(-4));
        let mut bytes = Vec::new();
        crate::codec::append(&mut bytes, &counters);
        let whole = None::<i64>;
        let base = |start, posted, held| (start, cost(posted), cost(held), whole);
        let bases = vec![base(0_i64, 0, 0), base(0, 0, 0), base(4, -4, -5)];
        let mut wanted = Vec::new();
        crate::codec::append(
            &mut wanted,
            &(cost(-4), cost(0), bases, 4_i64, 10_i64, whole),
        );
        assert_eq!(bytes, wanted);
        assert_eq!(postcard::from_bytes(&bytes), Ok(counters));
    }

    #[test]
    fn a_window_that_was_not_touched_yet_is_empty() {
        let mut counters = Counters::new(&FIRST, None);
        counters.hold(&cost(5));
        assert_eq!(stands(&counters, &SECOND), (0, 0));
    }

    #[test]
    fn a_new_calendar_continues_a_twin_or_counts_from_now_on() {
        let mut counters = Counters::new(&FIRST, None);
        counters.hold(&cost(5));
        counters.end(1, &cost(5), &cost(5));
        counters.hold(&cost(7));
        let windows = [
            FIRST[0],
            Span { start: 0, end: 99 },
            Span { start: 4, end: 99 },
        ];
        counters.recalendar(
            (&[Some(0), None, None], &windows),
            7,
            |start| {
                if start == 4 { cost(7) } else { cost(0) }
            },
            |_| None,
        );
        let at = |i: usize| counters.of_meter(Some(i), &windows[i], Meter::Cost);
        assert_eq!(at(0), (5, 7));
        assert_eq!(at(1), (5, 7));
        assert_eq!(at(2), (0, 0));
        let since = |i: usize| counters.counted_since(Some(i), &windows[i]);
        assert_eq!((since(0), since(1), since(2)), (None, None, Some(7)));
        let mut bytes = Vec::new();
        crate::codec::append(&mut bytes, &counters);
        assert_eq!(postcard::from_bytes(&bytes), Ok(counters));
    }
}
