//! What was posted and what is held, meter by meter and side by side.
//!
//! A ledger has tens of thousands of these, and a command touches a dozen at random: what it costs
//! is the cache lines that it touches. So what quotas mostly limit lies in the first one, what else
//! a run nearly always has in the second, and the third is left alone by runs that have none of it.

use super::amounts::Amounts;
use crate::calendar::Span;
use crate::quantity::{Meter, Quantities};

/// Of one meter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Pair<T> {
    posted: T,
    held: T,
}

/// Of all meters, in a span of time.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub(crate) struct Tally {
    executions: Pair<u64>,
    cpu_us: Pair<u64>,
    wall_us: Pair<u64>,
    /// The span; its keeper says of what.
    pub(crate) span: Span,

    memory_byte_ms: Pair<u128>,
    /// Money may fall below nothing.
    cost: Pair<i128>,

    egress_bytes: Pair<u64>,
    ingress_bytes: Pair<u64>,
    storage_byte_ms: Pair<u128>,
}

/// Adds and subtracts. Sums are saturating, which only quantities that no machine can produce
/// reach; what is subtracted was added before, so nothing goes below zero.
macro_rules! change {
    ($of:expr, $less:expr, $more:expr) => {
        $of = $of.saturating_sub($less).saturating_add($more)
    };
}

impl Tally {
    /// Nothing, in a span.
    pub(crate) fn new(span: Span) -> Self {
        Self::of(span, &Amounts::default(), &Amounts::default())
    }

    /// What is given, in a span.
    pub(crate) fn of(span: Span, posted: &Amounts, held: &Amounts) -> Self {
        let (p, h) = (&posted.quantities, &held.quantities);
        let small = |posted, held| Pair { posted, held };
        let large = |posted, held| Pair { posted, held };
        Self {
            executions: small(p.executions, h.executions),
            cpu_us: small(p.cpu_us, h.cpu_us),
            wall_us: small(p.wall_us, h.wall_us),
            span,
            memory_byte_ms: large(p.memory_byte_ms, h.memory_byte_ms),
            cost: Pair {
                posted: posted.cost,
                held: held.cost,
            },
            egress_bytes: small(p.egress_bytes, h.egress_bytes),
            ingress_bytes: small(p.ingress_bytes, h.ingress_bytes),
            storage_byte_ms: large(p.storage_byte_ms, h.storage_byte_ms),
        }
    }

    /// A word of the first cache line.
    pub(crate) fn near(&self) -> u64 {
        self.executions.held
    }

    /// A word of each of the first two cache lines.
    pub(crate) fn near_all(&self) -> u64 {
        self.executions.held ^ u64::from(self.cost.held == 0)
    }

    /// Sets aside.
    pub(crate) fn hold(&mut self, amounts: &Amounts) {
        self.change_held(&Amounts::default(), amounts);
    }

    /// Ends what was set aside, and posts.
    pub(crate) fn end(&mut self, held: &Amounts, posted: &Amounts) {
        self.change_held(held, &Amounts::default());
        let more = &posted.quantities;
        change!(self.executions.posted, 0, more.executions);
        change!(self.cpu_us.posted, 0, more.cpu_us);
        change!(self.wall_us.posted, 0, more.wall_us);
        change!(self.memory_byte_ms.posted, 0, more.memory_byte_ms);
        change!(self.cost.posted, 0, posted.cost);
        if moves(more) {
            change!(self.egress_bytes.posted, 0, more.egress_bytes);
            change!(self.ingress_bytes.posted, 0, more.ingress_bytes);
            change!(self.storage_byte_ms.posted, 0, more.storage_byte_ms);
        }
    }

    fn change_held(&mut self, less: &Amounts, more: &Amounts) {
        change!(self.cost.held, less.cost, more.cost);
        let (less, more) = (&less.quantities, &more.quantities);
        change!(self.executions.held, less.executions, more.executions);
        change!(self.cpu_us.held, less.cpu_us, more.cpu_us);
        change!(self.wall_us.held, less.wall_us, more.wall_us);
        change!(
            self.memory_byte_ms.held,
            less.memory_byte_ms,
            more.memory_byte_ms
        );
        if moves(less) || moves(more) {
            change!(self.egress_bytes.held, less.egress_bytes, more.egress_bytes);
            change!(
                self.ingress_bytes.held,
                less.ingress_bytes,
                more.ingress_bytes
            );
            change!(
                self.storage_byte_ms.held,
                less.storage_byte_ms,
                more.storage_byte_ms
            );
        }
    }

    /// Posts without ending anything.
    pub(crate) fn post(&mut self, posted: &Amounts) {
        self.end(&Amounts::default(), posted);
    }

    /// What one meter has posted and holds; money below nothing counts as nothing.
    pub(crate) fn get(&self, meter: Meter) -> (u128, u128) {
        let small = |pair: &Pair<u64>| (pair.posted.into(), pair.held.into());
        let large = |pair: &Pair<u128>| (pair.posted, pair.held);
        match meter {
            Meter::Executions => small(&self.executions),
            Meter::CpuUs => small(&self.cpu_us),
            Meter::WallUs => small(&self.wall_us),
            Meter::MemoryByteMs => large(&self.memory_byte_ms),
            Meter::EgressBytes => small(&self.egress_bytes),
            Meter::IngressBytes => small(&self.ingress_bytes),
            Meter::StorageByteMs => large(&self.storage_byte_ms),
            Meter::Cost => (counted(self.cost.posted), counted(self.cost.held)),
        }
    }

    /// The same beyond what `before` has, of one of the meters that quotas mostly limit.
    #[inline]
    pub(crate) fn first_beyond(&self, before: &Self, meter: Meter) -> Option<(u64, u64)> {
        let (now, then) = match meter {
            Meter::Executions => (&self.executions, &before.executions),
            Meter::CpuUs => (&self.cpu_us, &before.cpu_us),
            Meter::WallUs => (&self.wall_us, &before.wall_us),
            _ => return None,
        };
        let posted = now.posted.saturating_sub(then.posted);
        Some((posted, now.held.saturating_sub(then.held)))
    }

    /// What one meter has posted and holds beyond what `before` has. Money may fall, so its
    /// difference is taken before it is counted.
    pub(crate) fn beyond(&self, before: &Self, meter: Meter) -> (u128, u128) {
        if let Some((posted, held)) = self.first_beyond(before, meter) {
            return (posted.into(), held.into());
        }
        if meter == Meter::Cost {
            let (now, then) = (self.cost, before.cost);
            return (
                counted(now.posted.saturating_sub(then.posted)),
                counted(now.held.saturating_sub(then.held)),
            );
        }
        let ((posted, held), then) = (self.get(meter), before.get(meter));
        (posted.saturating_sub(then.0), held.saturating_sub(then.1))
    }

    /// Everything posted, and everything held.
    pub(crate) fn amounts(&self) -> (Amounts, Amounts) {
        let side = |small: fn(&Pair<u64>) -> u64, large: fn(&Pair<u128>) -> u128, cost| Amounts {
            quantities: Quantities {
                executions: small(&self.executions),
                cpu_us: small(&self.cpu_us),
                wall_us: small(&self.wall_us),
                memory_byte_ms: large(&self.memory_byte_ms),
                egress_bytes: small(&self.egress_bytes),
                ingress_bytes: small(&self.ingress_bytes),
                storage_byte_ms: large(&self.storage_byte_ms),
            },
            cost,
        };
        (
            side(|pair| pair.posted, |pair| pair.posted, self.cost.posted),
            side(|pair| pair.held, |pair| pair.held, self.cost.held),
        )
    }
}

fn counted(money: i128) -> u128 {
    u128::try_from(money).unwrap_or(0)
}

/// Whether there is anything for the third line.
fn moves(quantities: &Quantities) -> bool {
    quantities.egress_bytes > 0 || quantities.ingress_bytes > 0 || quantities.storage_byte_ms > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Amounts of which no two meters are alike.
    fn amounts(n: u64) -> Amounts {
        Amounts {
            quantities: Quantities {
                executions: n + 1,
                cpu_us: n + 2,
                wall_us: n + 3,
                memory_byte_ms: (u128::from(n) << 64) + 4,
                egress_bytes: n + 5,
                ingress_bytes: n + 6,
                storage_byte_ms: u128::from(n) + 7,
            },
            cost: i128::from(n) + 8,
        }
    }

    #[test]
    fn every_meter_is_held_and_posted_by_itself() {
        let mut tally = Tally::new(Span::EVER);
        tally.hold(&amounts(100));
        tally.hold(&amounts(50));
        tally.end(&amounts(100), &amounts(70));
        let (posted, held) = tally.amounts();
        assert_eq!((posted, held), (amounts(70), amounts(50)));
        assert_eq!(tally, Tally::of(Span::EVER, &posted, &held));
        for meter in Meter::MEASURED.into_iter().chain([Meter::Cost]) {
            assert_eq!(tally.get(meter), (posted.get(meter), held.get(meter)));
        }
        tally.end(&amounts(50), &Amounts::default());
        assert_eq!(tally.amounts(), (amounts(70), Amounts::default()));
    }

    #[test]
    fn money_may_fall_and_is_counted_as_the_difference() {
        let money = |cost| Amounts {
            cost,
            ..Amounts::default()
        };
        let mut tally = Tally::new(Span::EVER);
        tally.post(&money(-5));
        assert_eq!(tally.get(Meter::Cost), (0, 0));
        let before = tally.clone();
        tally.post(&money(3));
        assert_eq!(tally.get(Meter::Cost), (0, 0));
        assert_eq!(tally.beyond(&before, Meter::Cost), (3, 0));
        assert_eq!(before.beyond(&tally, Meter::Cost), (0, 0));
    }

    #[test]
    fn a_tally_takes_three_cache_lines() {
        assert_eq!(size_of::<Tally>(), 3 * 64);
    }
}
