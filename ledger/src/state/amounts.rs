//! Quantities with their cost: what a scope has posted or held.

use serde::{Deserialize, Serialize};

use crate::quantity::{Meter, Quantities};

/// Quantities and money, added and subtracted together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Amounts {
    /// The measured meters.
    pub(crate) quantities: Quantities,
    /// Money in 10^-12 of the currency. With volume prices a run may cost less than nothing.
    pub(crate) cost: i128,
}

impl Amounts {
    /// The amount of one meter; money below nothing counts as nothing.
    #[inline]
    pub(crate) fn get(&self, meter: Meter) -> u128 {
        if meter == Meter::Cost {
            u128::try_from(self.cost).unwrap_or(0)
        } else {
            self.quantities.get(meter)
        }
    }

    /// Whether nothing of it is above `other`.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.quantities.above(&other.quantities).is_zero() && self.cost <= other.cost
    }

    /// Adds; saturating, which only quantities that no machine can produce reach.
    pub(crate) fn add(&mut self, other: &Self) {
        self.quantities = self.quantities.plus(&other.quantities);
        self.cost = self.cost.saturating_add(other.cost);
    }

    /// Subtracts; what is subtracted was added before, so nothing goes below zero.
    pub(crate) fn subtract(&mut self, other: &Self) {
        *self = self.less(other);
    }

    /// What remains without `other`.
    pub(crate) fn less(&self, other: &Self) -> Self {
        Self {
            quantities: self.quantities.above(&other.quantities),
            cost: self.cost.saturating_sub(other.cost),
        }
    }
}
