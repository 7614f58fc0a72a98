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
}

/// The month of the last hold, and the one before it in which anything was held: a run is priced in
/// the month of its hold, which may have ended when the run does.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Billing {
    current: Month,
    before: Month,
}

impl Month {
    fn carried(&self, meter: Meter) -> u128 {
        let found = self.carried.iter().find(|(carried, _)| *carried == meter);
        found.map_or(0, |(_, units)| *units)
    }

    /// What of a price's allowance goes over into the month that begins at `next`.
    fn left(&self, price: &Price, next: Micros) -> u128 {
        let allowance = price.allowance;
        if allowance.rollover_max == 0 || self.start == 0 {
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
    /// How the month that begins at `start` stands with a price's meter; nothing is held.
    pub(crate) fn standing(&self, price: &Price, start: Micros) -> Standing {
        let (used, carried) = if start == self.current.start {
            (
                self.current.used.get(price.meter),
                self.current.carried(price.meter),
            )
        } else if start == self.before.start {
            (
                self.before.used.get(price.meter),
                self.before.carried(price.meter),
            )
        } else {
            (0, self.current.left(price, start))
        };
        Standing {
            used,
            held: 0,
            free: price.allowance.included.saturating_add(carried),
        }
    }

    /// Begins the month at `start`, unless it has begun; `card` is the one in force in it.
    pub(crate) fn begin(&mut self, start: Micros, card: Option<&RateCard>) {
        if start <= self.current.start {
            return;
        }
        let prices = card.map_or(&[][..], |card| &card.prices);
        let carried = prices
            .iter()
            .map(|price| (price.meter, self.current.left(price, start)));
        let next = Month {
            start,
            used: Quantities::default(),
            carried: carried.filter(|(_, left)| *left > 0).collect(),
        };
        self.before = std::mem::replace(&mut self.current, next);
    }

    /// Adds what was priced by `card` to the month that begins at `start`.
    pub(crate) fn add(&mut self, start: Micros, posted: &Quantities, card: &RateCard) {
        let month = if start == self.current.start {
            &mut self.current
        } else if start == self.before.start {
            &mut self.before
        } else {
            return;
        };
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
        billing.begin(JANUARY, Some(&card));
        billing.add(JANUARY, &cpu(31), &card);
        // 31 is billed as 40.
        assert_eq!(billing.standing(price, JANUARY).used, 40);
        assert_eq!(billing.standing(price, JANUARY).free, 100);
        assert_eq!(billing.standing(price, FEBRUARY).free, 160);
        assert_eq!(billing.standing(price, MARCH).free, 260);
        assert_eq!(billing.standing(price, JULY).free, 350);
        billing.begin(MARCH, Some(&card));
        assert_eq!(billing.standing(price, MARCH).free, 260);
        billing.add(JANUARY, &cpu(60), &card);
        assert_eq!(billing.standing(price, JANUARY).used, 100);
        assert_eq!(billing.standing(price, MARCH).used, 0);
    }

    #[test]
    fn without_a_rollover_each_month_begins_anew() {
        let card = card(100, 0);
        let mut billing = Billing::default();
        billing.begin(JANUARY, Some(&card));
        billing.begin(FEBRUARY, Some(&card));
        assert_eq!(billing.standing(&card.prices[0], FEBRUARY).free, 100);
    }
}
