//! What a run costs by a rate card, and what it can cost at most.
//!
//! A month is the calendar month in UTC of the hold's instant. Graduated, volume and package prices
//! and allowances look at what the tenant's month has used before the run. Runs that are held later
//! may end sooner, and take allowance and tiers first: a worst case covers every order, so it
//! counts on no allowance and on the dearest tier that the month can still reach.

use super::{Charge, ChargeLine, Model, Price, RateCard, Tier};
use crate::money::{Money, Rounding};
use crate::quantity::Quantities;

/// How a tenant's month stands with one meter, in base units.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Standing {
    /// Priced so far.
    pub(crate) used: u128,
    /// Free of charge, with what was carried over.
    pub(crate) free: u128,
}

impl Charge {
    /// An empty one with room for most cards' lines.
    pub(crate) fn room() -> Self {
        Self {
            currency: String::with_capacity(3),
            total: Money::ZERO,
            lines: Vec::with_capacity(4),
        }
    }
}

impl RateCard {
    /// Whether no run's price depends on what else its month has used.
    pub(crate) fn is_flat(&self) -> bool {
        self.prices.iter().all(Price::is_flat)
    }

    /// What these quantities cost after what each meter's month has used; `None` where an amount
    /// passes what the integer holds.
    pub(crate) fn charge(
        &self,
        used: &Quantities,
        month: impl Fn(&Price) -> Standing,
    ) -> Option<Charge> {
        self.charge_in(Charge::room(), used, month)
    }

    /// The same, made in the room of a charge that nobody needs.
    pub(crate) fn charge_in(
        &self,
        room: Charge,
        used: &Quantities,
        month: impl Fn(&Price) -> Standing,
    ) -> Option<Charge> {
        let Charge {
            mut currency,
            mut lines,
            ..
        } = room;
        currency.clone_from(&self.currency);
        lines.clear();
        for price in &self.prices {
            let quantity = price.billed(used)?;
            if quantity > 0 {
                price.lines(quantity, &month, &mut lines)?;
            }
        }
        let add = |sum: Money, line: &ChargeLine| sum.checked_add(line.amount);
        Some(Charge {
            currency,
            total: lines.iter().try_fold(Money::ZERO, add)?,
            lines,
        })
    }

    /// The most that a run within these quantities can cost, whatever else ends before it.
    pub(crate) fn worst_case(
        &self,
        used: &Quantities,
        month: impl Fn(&Price) -> Standing,
    ) -> Option<Money> {
        let most = |sum: Money, price: &Price| match price.billed(used)? {
            0 => Some(sum),
            quantity => sum.checked_add(price.most(quantity, &month)?),
        };
        self.prices.iter().try_fold(Money::ZERO, most)
    }
}

impl Price {
    /// The quantity that is priced: rounded up to whole increments.
    pub(crate) fn billed(&self, used: &Quantities) -> Option<u128> {
        let quantity = used.get(self.meter);
        if self.increment == 1 {
            return Some(quantity);
        }
        let increment = u128::from(self.increment);
        quantity.div_ceil(increment).checked_mul(increment)
    }

    /// Whether a run's price does not depend on what else its month has used.
    fn is_flat(&self) -> bool {
        matches!(self.model, Model::Unit { .. }) && self.allowance.included == 0
    }

    fn lines(
        &self,
        quantity: u128,
        month: &impl Fn(&Price) -> Standing,
        lines: &mut Vec<ChargeLine>,
    ) -> Option<()> {
        let unit_size = self.meter.unit_size();
        let line = |tier, quantity, rate, amount| ChargeLine {
            meter: self.meter,
            tier,
            quantity,
            unit_size,
            rate,
            amount,
        };
        let month = if self.is_flat() {
            Standing::default()
        } else {
            month(self)
        };
        let free = quantity.min(month.free.saturating_sub(month.used));
        if free > 0 {
            lines.push(line(0, free, Money::ZERO, Money::ZERO));
        }
        let from = month.used.saturating_sub(month.free);
        let to = from.checked_add(quantity - free)?;
        if from == to {
            return Some(());
        }
        match &self.model {
            Model::Unit { amount: rate } => {
                let amount = rate.times(to - from, unit_size, Rounding::HalfEven)?;
                lines.push(line(0, to - from, *rate, amount));
            }
            Model::Graduated { tiers } => {
                for (index, stretch) in (0_u8..).zip(stretches(tiers, from, to)) {
                    if stretch.from < stretch.to {
                        let amount = stretch.amount(unit_size)?;
                        let quantity = stretch.to - stretch.from;
                        lines.push(line(index, quantity, stretch.rate, amount));
                    }
                }
            }
            Model::Volume { tiers } => {
                let (index, rate) = reached(tiers, to)?;
                let after = rate.times(to, unit_size, Rounding::HalfEven)?;
                let (_, rate_before) = reached(tiers, from)?;
                let before = rate_before.times(from, unit_size, Rounding::HalfEven)?;
                let amount = Money(after.0.checked_sub(before.0)?);
                lines.push(line(index, to - from, rate, amount));
            }
            Model::Package { size, amount: rate } => {
                let begun = to.div_ceil(*size) - from.div_ceil(*size);
                if begun > 0 {
                    let amount = rate.times(begun, 1, Rounding::HalfEven)?;
                    let unit_size = 1;
                    lines.push(ChargeLine {
                        unit_size,
                        ..line(0, begun, *rate, amount)
                    });
                }
            }
        }
        Some(())
    }

    /// The most that `quantity` or any part of it can cost, whatever the month uses before it.
    fn most(&self, quantity: u128, month: &impl Fn(&Price) -> Standing) -> Option<Money> {
        let unit_size = self.meter.unit_size();
        let from = || {
            let month = month(self);
            month.used.saturating_sub(month.free)
        };
        match &self.model {
            Model::Unit { amount } => amount.times(quantity, unit_size, Rounding::Up),
            Model::Graduated { tiers } => {
                let from = from();
                let reachable = tiers
                    .iter()
                    .filter(|tier| tier.up_to.is_none_or(|end| end > from));
                let rate = reachable.clone().map(|tier| tier.amount).max()?;
                let most = rate.times(quantity, unit_size, Rounding::Up)?;
                // Each line is rounded at both of its ends.
                most.checked_add(Money(i128::try_from(reachable.count()).ok()?))
            }
            Model::Volume { tiers } => {
                // Prices do not rise, so that the tier the month stands in is the dearest.
                let (_, rate) = reached(tiers, from().checked_add(1)?)?;
                let most = rate.times(quantity, unit_size, Rounding::Up)?;
                most.checked_add(Money(1))
            }
            Model::Package { size, amount } => {
                amount.times(quantity.div_ceil(*size), 1, Rounding::Up)
            }
        }
    }
}

/// A part of the use that lies in one tier.
#[derive(Clone, Copy)]
struct Stretch {
    /// Where the tier begins.
    begin: u128,
    from: u128,
    to: u128,
    rate: Money,
}

impl Stretch {
    /// What the tier costs at its end less what it costs at its beginning: so that the runs of a
    /// month together cost what the month costs.
    fn amount(&self, unit_size: u64) -> Option<Money> {
        let until = |at: u128| {
            self.rate
                .times(at - self.begin, unit_size, Rounding::HalfEven)
        };
        Some(Money(until(self.to)?.0 - until(self.from)?.0))
    }
}

/// What of `from` to `to` lies in each tier; empty stretches included.
fn stretches(tiers: &[Tier], from: u128, to: u128) -> impl Iterator<Item = Stretch> + Clone {
    let begins = [0].into_iter();
    let ends = tiers.iter().map(|tier| tier.up_to.unwrap_or(u128::MAX));
    let begins = begins.chain(ends);
    tiers.iter().zip(begins).map(move |(tier, begin)| {
        let end = tier.up_to.unwrap_or(u128::MAX);
        Stretch {
            begin,
            from: from.clamp(begin, end),
            to: to.clamp(begin, end),
            rate: tier.amount,
        }
    })
}

/// The tier that use of `at` has reached, and its price.
fn reached(tiers: &[Tier], at: u128) -> Option<(u8, Money)> {
    let mut tiers = (0_u8..).zip(tiers);
    let found = tiers.find(|(_, tier)| tier.up_to.is_none_or(|end| at <= end));
    found.map(|(index, tier)| (index, tier.amount))
}

#[cfg(test)]
mod tests;
