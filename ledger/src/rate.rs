//! Rate cards: what each meter costs from when on, by which model.

mod form;
mod pricing;

use serde::{Deserialize, Serialize};

pub use self::form::RateCardError;
pub(crate) use self::pricing::Standing;
use crate::clock::Micros;
use crate::money::Money;
use crate::quantity::Meter;

/// The most prices on a card; there are only so many meters.
const PRICES_MAX: usize = 64;
/// The longest card id in bytes.
const ID_MAX: usize = 128;

/// The most tiers of one price.
const TIERS_MAX: usize = 32;

/// How quantities turn into money; a line stays one meter's. What graduated, volume and package
/// prices charge for a run is the difference that the run makes to its tenant's month.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Model {
    /// Every unit costs the same.
    Unit {
        /// The price of one unit of the meter.
        amount: Money,
    },
    /// Each unit costs what its tier says; the month climbs through the tiers.
    Graduated {
        /// Ascending; the last one has no end.
        tiers: Vec<Tier>,
    },
    /// All units of the month cost what the tier says that the month has reached.
    Volume {
        /// Ascending, with prices that do not rise; the last one has no end.
        tiers: Vec<Tier>,
    },
    /// Units are sold by the package, and a package that is begun is paid for.
    Package {
        /// Base units of the meter in one package.
        size: u128,
        /// The price of one package.
        amount: Money,
    },
}

/// A stretch of a month's use with one price.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tier {
    /// Where it ends, in base units of the meter; `None` for the last one.
    pub up_to: Option<u128>,
    /// The price of one unit of the meter in it.
    pub amount: Money,
}

/// What of a meter's use is free each calendar month (UTC).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Allowance {
    /// Base units that are free in each month.
    pub included: u128,
    /// How much of what was left over may be carried into the next month, at most.
    pub rollover_max: u128,
}

/// The price of one meter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Price {
    /// What is priced.
    pub meter: Meter,
    /// How.
    pub model: Model,
    /// A run's quantity is rounded up to whole multiples of this many base units; 1 rounds nothing.
    pub increment: u64,
    /// What is free.
    pub allowance: Allowance,
}

impl Price {
    /// A price without increment and allowance.
    pub fn plain(meter: Meter, model: Model) -> Self {
        Self {
            meter,
            model,
            increment: 1,
            allowance: Allowance::default(),
        }
    }
}

/// Prices in one currency, in force from an instant until the next card's. Never edited.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RateCard {
    /// Its name; cards that follow each other may share it.
    pub id: String,
    /// ISO 4217 code.
    pub currency: String,
    /// From when on it is in force.
    pub effective_from: Micros,
    /// At most one price a meter.
    pub prices: Vec<Price>,
}

/// One priced meter of a charge, in one tier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChargeLine {
    /// What was priced.
    pub meter: Meter,
    /// Which tier of its price, from 0; what an allowance covers has a line of its own at no rate.
    pub tier: u8,
    /// How much of it, in its base unit; packages, where those are sold.
    pub quantity: u128,
    /// Base units in one priced unit; 1 for packages.
    pub unit_size: u64,
    /// The price of one unit.
    pub rate: Money,
    /// What it costs. With unit prices `quantity x rate / unit_size`, rounded half-even to 10^-12
    /// once; else the difference between the month with this run and without it.
    pub amount: Money,
}

/// What a run costs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Charge {
    /// ISO 4217 code.
    pub currency: String,
    /// The exact sum of the lines.
    pub total: Money,
    /// One line for each priced meter that was used.
    pub lines: Vec<ChargeLine>,
}

impl RateCard {
    /// Every reason why this card cannot be recorded.
    pub(crate) fn fault(&self) -> Option<String> {
        let currency = self.currency.as_bytes();
        if self.id.is_empty() || self.id.len() > ID_MAX {
            return Some(format!("id must have 1 to {ID_MAX} bytes"));
        }
        if currency.len() != 3 || !currency.iter().all(u8::is_ascii_uppercase) {
            return Some(format!(
                "currency `{}` is not an ISO 4217 code",
                self.currency
            ));
        }
        if self.prices.len() > PRICES_MAX {
            return Some(format!("has more than {PRICES_MAX} prices"));
        }
        let twice = |(i, price): (usize, &Price)| {
            let before = self.prices.iter().take(i);
            before
                .map(|other| other.meter)
                .any(|meter| meter == price.meter)
                .then(|| format!("`{}` has two prices", price.meter))
        };
        self.prices
            .iter()
            .find_map(Price::fault)
            .or_else(|| self.prices.iter().enumerate().find_map(twice))
    }
}

impl Price {
    fn fault(&self) -> Option<String> {
        let fault = |what: &str| Some(format!("the price of `{}` {what}", self.meter));
        if self.meter == Meter::Cost {
            return Some("`cost` is what prices make; it has none".to_owned());
        }
        if self.increment == 0 {
            return fault("has an increment of zero");
        }
        if self.allowance.included == 0 && self.allowance.rollover_max > 0 {
            return fault("carries over an allowance that it has not");
        }
        match &self.model {
            Model::Unit { amount } | Model::Package { amount, .. } if *amount < Money::ZERO => {
                fault("is negative")
            }
            Model::Package { size: 0, .. } => fault("has packages of nothing"),
            Model::Unit { .. } | Model::Package { .. } => None,
            Model::Graduated { tiers } => tiers_fault(tiers).and_then(fault),
            Model::Volume { tiers } => {
                let rises = tiers.is_sorted_by(|a, b| a.amount >= b.amount);
                let rises = (!rises).then_some("rises with the volume");
                tiers_fault(tiers).or(rises).and_then(fault)
            }
        }
    }
}

fn tiers_fault(tiers: &[Tier]) -> Option<&'static str> {
    let Some((last, ends)) = tiers.split_last() else {
        return Some("has no tier");
    };
    let end = |tier: &Tier| tier.up_to.unwrap_or(0);
    if tiers.len() > TIERS_MAX {
        Some("has too many tiers")
    } else if tiers.iter().any(|tier| tier.amount < Money::ZERO) {
        Some("is negative")
    } else if last.up_to.is_some() || ends.iter().any(|tier| tier.up_to.is_none()) {
        Some("must have one tier without an end, the last")
    } else if !ends.is_sorted_by(|a, b| end(a) < end(b))
        || ends.first().is_some_and(|t| end(t) == 0)
    {
        Some("has tiers that do not ascend")
    } else {
        None
    }
}
