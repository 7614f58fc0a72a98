//! What a tenant's months have priced of each meter, for prices and allowances that look at it.

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::quantity::{Meter, Quantities};
use crate::rate::{Price, RateCard, Standing};

/// One calendar month in UTC.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Month {
    start: Micros,
    /// Priced in it, rounded up to increments.
    used: Quantities,
    /// Free units that were left over before it, for meters that have any.
    carried: Vec<(Meter, u128)>,
    /// Open holds that will be priced in it.
    open: u32,
}

/// The month of the last hold, and those before it in which a hold is still open.
///
/// A run is priced in the month of its hold, which may have ended when the run does. What is
/// carried over is fixed when the next month begins with its first hold: a run that ends later no
/// longer changes it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Billing {
    /// In their order; the last one is the current one.
    months: Vec<Month>,
}

impl Month {
    fn carried(&self, meter: Meter) -> u128 {
        let found = self.carried.iter().find(|(carried, _)| *carried == meter);
        found.map_or(0, |(_, units)| *units)
    }

    /// What of a price's allowance goes over into the month that begins at `next`.
    fn left(&self, price: &Price, next: Micros) -> u128 {
        let allowance = price.allowance;
        if allowance.rollover_max == 0 {
            return 0;
        }
        let free = allowance.included.saturating_add(self.carried(price.meter));
        let mut left = free
            .saturating_sub(self.used.get(price.meter))
            .min(allowance.rollover_max);
        // Months without any use leave all of theirs; a carry that has reached its maximum stays.
        let mut idle = months_between(self.start, next).saturating_sub(1);
        while idle > 0 && left < allowance.rollover_max {
            left = left
                .saturating_add(allowance.included)
                .min(allowance.rollover_max);
            idle -= 1;
        }
        left
    }
}

impl Billing {
    /// A word of each cache line that another run needs.
    pub(crate) fn near(&self) -> u64 {
        let last = self.months.last();
        last.map_or(0, |month| u64::from(month.open) ^ month.used.executions)
    }

    fn month(&self, start: Micros) -> Option<&Month> {
        self.months.iter().rev().find(|month| month.start == start)
    }

    fn month_mut(&mut self, start: Micros) -> Option<&mut Month> {
        let mut newest_first = self.months.iter_mut().rev();
        newest_first.find(|month| month.start == start)
    }

    fn left(&self, price: &Price, next: Micros) -> u128 {
        self.months.last().map_or(0, |last| last.left(price, next))
    }

    /// How the month that begins at `start` stands with a price's meter.
    pub(crate) fn standing(&self, price: &Price, start: Micros) -> Standing {
        let (used, carried) = match self.month(start) {
            Some(month) => (month.used.get(price.meter), month.carried(price.meter)),
            None => (0, self.left(price, start)),
        };
        Standing {
            used,
            free: price.allowance.included.saturating_add(carried),
        }
    }

    /// Notes a hold in the month that begins at `start`, which begins with it if it has not;
    /// `card` prices the hold.
    pub(crate) fn open(&mut self, start: Micros, card: &RateCard) {
        if self.months.last().is_none_or(|last| last.start < start) {
            let carried = card
                .prices
                .iter()
                .map(|price| (price.meter, self.left(price, start)));
            let next = Month {
                start,
                carried: carried.filter(|(_, left)| *left > 0).collect(),
                ..Month::default()
            };
            self.months.retain(|month| month.open > 0);
            self.months.push(next);
        }
        if let Some(month) = self.month_mut(start) {
            month.open += 1;
        }
    }

    /// Ends a hold of the month that begins at `start`, with what was priced by `card`.
    pub(crate) fn end(&mut self, start: Micros, posted: &Quantities, card: &RateCard) {
        let Some(month) = self.month_mut(start) else {
            return;
        };
        month.open = month.open.saturating_sub(1);
        month.used = month.used.plus(posted);
        for price in card.prices.iter().filter(|price| price.increment > 1) {
            let raw = posted.get(price.meter);
            let more = price.billed(posted).unwrap_or(raw).saturating_sub(raw);
            month.used = month.used.plus(&Quantities::of(price.meter, more));
        }
    }
}

/// How many calendar months lie between the starts of two.
fn months_between(from: Micros, to: Micros) -> u64 {
    let month = |at: Micros| i64::from(crate::calendar::month_number(at));
    u64::try_from(month(to) - month(from)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Money;
    use crate::rate::{Allowance, Model};

    /// 2026-01-01T00:00:00Z and the first days of the months behind it.
    const JANUARY: Micros = 1_767_225_600_000_000;
    const DAY: Micros = 86_400_000_000;
    const FEBRUARY: Micros = JANUARY + 31 * DAY;
    const MARCH: Micros = FEBRUARY + 28 * DAY;
    const JULY: Micros = MARCH + (31 + 30 + 31 + 30) * DAY;

    fn card(included: u128, rollover_max: u128) -> RateCard {
        let model = Model::Unit {
            amount: Money::ZERO,
        };
        RateCard {
            id: "x".to_owned(),
            currency: "USD".to_owned(),
            effective_from: 0,
            prices: vec![Price {
                increment: 10,
                allowance: Allowance {
                    included,
                    rollover_max,
                },
                ..Price::plain(Meter::CpuUs, model)
            }],
        }
    }

    fn cpu(cpu_us: u64) -> Quantities {
        Quantities {
            cpu_us,
            ..Quantities::default()
        }
    }

    #[test]
    fn what_is_left_is_carried_up_to_its_maximum_also_over_idle_months() {
        let card = card(100, 250);
        let price = &card.prices[0];
        let mut billing = Billing::default();
        billing.open(JANUARY, &card);
        billing.open(JANUARY, &card);
        billing.end(JANUARY, &cpu(31), &card);
        // 31 is billed as 40.
        assert_eq!(billing.standing(price, JANUARY).used, 40);
        assert_eq!(billing.standing(price, JANUARY).free, 100);
        assert_eq!(billing.standing(price, FEBRUARY).free, 160);
        assert_eq!(billing.standing(price, MARCH).free, 260);
        assert_eq!(billing.standing(price, JULY).free, 350);
        billing.open(MARCH, &card);
        assert_eq!(billing.standing(price, MARCH).free, 260);
        billing.end(JANUARY, &cpu(60), &card);
        assert_eq!(billing.standing(price, JANUARY).used, 100);
        assert_eq!(billing.standing(price, MARCH).used, 0);
    }

    #[test]
    fn without_a_rollover_each_month_begins_anew() {
        let card = card(100, 0);
        let mut billing = Billing::default();
        billing.open(JANUARY, &card);
        billing.open(FEBRUARY, &card);
        assert_eq!(billing.standing(&card.prices[0], FEBRUARY).free, 100);
    }
}
