//! What one scope has posted and holds, in all its current windows at once.
//!
//! A scope keeps running totals and, for each window, what the totals were when the window began:
//! what is posted in a window is the difference. A command touches the totals only; a window costs
//! something only when it begins, or when a hold that was opened before it ends in it.

use serde::{Deserialize, Serialize};

use super::amounts::Amounts;
use crate::calendar::Span;
use crate::clock::Micros;
use crate::quantity::Meter;

/// What a scope's totals were when its current window began.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Base {
    /// Start of the window.
    start: Micros,
    /// Posted before it, and since then for holds opened before it.
    posted: Amounts,
    /// Held for holds opened before it.
    held: Amounts,
}

/// The counters of one scope.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Counters {
    posted: Amounts,
    held: Amounts,
    /// One for each of the tenant's calendars, in their order.
    bases: Vec<Base>,
    /// The latest start of a base: holds opened since need no look at them.
    since: Micros,
    /// Until when all bases are current.
    until: Micros,
}

impl Counters {
    /// Counters of a scope that nothing has used yet.
    pub(crate) fn new(windows: &[Span]) -> Self {
        let base = |window: &Span| Base {
            start: window.start,
            posted: Amounts::default(),
            held: Amounts::default(),
        };
        Self {
            posted: Amounts::default(),
            held: Amounts::default(),
            bases: windows.iter().map(base).collect(),
            since: latest_start(windows.iter().map(|window| window.start)),
            until: i64::MIN,
        }
    }

    /// Begins the windows that are not yet the current ones; the first of these ends at `until`.
    pub(crate) fn roll(&mut self, windows: &[Span], at: Micros, until: Micros) {
        if at < self.until {
            return;
        }
        for (base, window) in self.bases.iter_mut().zip(windows) {
            if base.start < window.start {
                // Whatever is open now was opened before the window began: this is the first
                // touch since.
                *base = Base {
                    start: window.start,
                    posted: self.posted,
                    held: self.held,
                };
            }
        }
        self.since = latest_start(self.bases.iter().map(|base| base.start));
        self.until = until;
    }

    /// Sets aside.
    pub(crate) fn hold(&mut self, amounts: &Amounts) {
        self.held.add(amounts);
    }

    /// Ends what was set aside at `opened_at`, and posts.
    pub(crate) fn end(&mut self, opened_at: Micros, held: &Amounts, posted: &Amounts) {
        self.held.subtract(held);
        self.posted.add(posted);
        if opened_at >= self.since {
            return;
        }
        for base in self.bases.iter_mut().filter(|base| opened_at < base.start) {
            base.held.subtract(held);
            base.posted.add(posted);
        }
    }

    /// Adds to what is posted without ending anything.
    pub(crate) fn adjust(&mut self, amount: &Amounts) {
        self.posted.add(amount);
    }

    /// All that was ever posted, and all that is held.
    pub(crate) fn lifetime(&self) -> (Amounts, Amounts) {
        (self.posted, self.held)
    }

    /// What one meter has posted and holds in the window of calendar `index`, if `window` is the
    /// current one; for ever, where there is no index.
    pub(crate) fn of_meter(
        &self,
        index: Option<usize>,
        window: &Span,
        meter: Meter,
    ) -> (u128, u128) {
        let (posted, held) = (self.posted.get(meter), self.held.get(meter));
        let Some(index) = index else {
            return (posted, held);
        };
        match self.bases.get(index) {
            // Money may fall, so its difference is taken before it is counted.
            Some(base) if base.start == window.start && meter == Meter::Cost => (
                self.posted.less(&base.posted).get(meter),
                self.held.less(&base.held).get(meter),
            ),
            Some(base) if base.start == window.start => (
                posted.saturating_sub(base.posted.get(meter)),
                held.saturating_sub(base.held.get(meter)),
            ),
            _ => (0, 0),
        }
    }

    /// Whether nothing is set aside.
    pub(crate) fn idle(&self) -> bool {
        self.held == Amounts::default()
    }

    /// Takes over other calendars. `from` names for each new calendar the old one that it
    /// continues; a calendar that continues none counts from now on, with `open(start)` being what
    /// is held for holds opened before `start`.
    pub(crate) fn recalendar(
        &mut self,
        from: &[Option<usize>],
        windows: &[Span],
        open: impl Fn(Micros) -> Amounts,
    ) {
        let fresh = |window: &Span| {
            // A window that begins when another one began has had the same use.
            let twin = self.bases.iter().find(|base| base.start == window.start);
            twin.cloned().unwrap_or_else(|| Base {
                start: window.start,
                posted: self.posted,
                held: open(window.start),
            })
        };
        let bases = from.iter().zip(windows).map(|(old, window)| {
            old.and_then(|old| self.bases.get(old).cloned())
                .unwrap_or_else(|| fresh(window))
        });
        self.bases = bases.collect();
        self.since = latest_start(self.bases.iter().map(|base| base.start));
        self.until = i64::MIN;
    }
}

fn latest_start(starts: impl Iterator<Item = Micros>) -> Micros {
    starts.max().unwrap_or(i64::MIN)
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
        let mut counters = Counters::new(&FIRST);
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
    fn a_window_that_was_not_touched_yet_is_empty() {
        let mut counters = Counters::new(&FIRST);
        counters.hold(&cost(5));
        assert_eq!(stands(&counters, &SECOND), (0, 0));
    }

    #[test]
    fn a_new_calendar_continues_a_twin_or_counts_from_now_on() {
        let mut counters = Counters::new(&FIRST);
        counters.hold(&cost(5));
        counters.end(1, &cost(5), &cost(5));
        counters.hold(&cost(7));
        let windows = [
            FIRST[0],
            Span { start: 0, end: 99 },
            Span { start: 4, end: 99 },
        ];
        counters.recalendar(&[Some(0), None, None], &windows, |start| {
            if start == 4 { cost(7) } else { cost(0) }
        });
        let at = |i: usize| counters.of_meter(Some(i), &windows[i], Meter::Cost);
        assert_eq!(at(0), (5, 7));
        assert_eq!(at(1), (5, 7));
        assert_eq!(at(2), (0, 0));
    }
}
