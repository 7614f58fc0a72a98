//! A tenant's prepaid credit: what was granted, in which order it is drawn, and what is left.

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::command::Grant;
use crate::entry::Funding;
use crate::money::Money;

/// A grant that has something left.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Left {
    /// The entry that recorded it.
    pub(crate) seq: u64,
    /// As it was granted.
    pub(crate) grant: Grant,
    /// What is left of it.
    pub(crate) left: Money,
}

impl Left {
    fn is_valid(&self, at: Micros) -> bool {
        self.grant.expires_at.is_none_or(|end| at < end)
    }
}

/// The credit of one tenant.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Credit {
    /// Whether a hold needs credit for all of its worst case.
    pub(crate) prepaid: bool,
    /// In the order in which they are drawn: priority, earliest end, oldest.
    grants: Vec<Left>,
}

impl Credit {
    /// Grants with something left, in the order in which they are drawn.
    pub(crate) fn grants(&self) -> &[Left] {
        &self.grants
    }

    /// All that is left and has not ended at `at`.
    pub(crate) fn available(&self, at: Micros) -> Money {
        let valid = self.grants.iter().filter(|one| one.is_valid(at));
        let sum = valid.fold(0_i128, |sum, one| sum.saturating_add(one.left.0));
        Money(sum)
    }

    /// How a charge for a run that was held at `at` is paid from credit, as far as there is any.
    pub(crate) fn draw(&self, at: Micros, charge: Money) -> Vec<Funding> {
        let mut due = charge.0;
        let mut funded = Vec::new();
        for one in self.grants.iter().filter(|one| one.is_valid(at)) {
            if due <= 0 {
                break;
            }
            let amount = due.min(one.left.0);
            due -= amount;
            funded.push(Funding {
                grant: one.seq,
                amount: Money(amount),
            });
        }
        funded
    }

    /// Takes what was drawn. The message says which grant has not as much.
    pub(crate) fn take(&mut self, funded: &[Funding]) -> Result<(), String> {
        for Funding { grant, amount } in funded {
            let one = self.grants.iter_mut().find(|one| one.seq == *grant);
            let left = one.ok_or_else(|| format!("grant {grant} has nothing left"))?;
            if amount.0 <= 0 || amount.0 > left.left.0 {
                return Err(format!(
                    "grant {grant} has {} left, not {amount}",
                    left.left
                ));
            }
            left.left.0 -= amount.0;
        }
        if !funded.is_empty() {
            self.grants.retain(|one| one.left.0 > 0);
        }
        Ok(())
    }

    /// Adds a grant.
    pub(crate) fn add(&mut self, seq: u64, grant: &Grant) {
        let rank = |one: &Grant| (one.priority, one.expires_at.unwrap_or(Micros::MAX));
        let place = self
            .grants
            .partition_point(|one| (rank(&one.grant), one.seq) < (rank(grant), seq));
        let left = Left {
            seq,
            grant: grant.clone(),
            left: grant.amount,
        };
        self.grants.insert(place, left);
    }

    /// Takes back what is left of a grant; answers how much that was.
    pub(crate) fn void(&mut self, seq: u64) -> Option<Money> {
        let place = self.grants.iter().position(|one| one.seq == seq)?;
        Some(self.grants.remove(place).left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(amount: i128, priority: u8, expires_at: Option<Micros>) -> Grant {
        Grant {
            tenant: "acme".to_owned(),
            name: "trial".to_owned(),
            amount: Money(amount),
            currency: "USD".to_owned(),
            priority,
            expires_at,
        }
    }

    #[test]
    fn credit_is_drawn_by_priority_then_end_then_age() {
        let mut credit = Credit::default();
        credit.add(1, &grant(10, 5, None));
        credit.add(2, &grant(10, 5, Some(100)));
        credit.add(3, &grant(10, 0, None));
        credit.add(4, &grant(10, 5, Some(100)));
        let order = |funded: &[Funding]| -> Vec<(u64, i128)> {
            funded.iter().map(|one| (one.grant, one.amount.0)).collect()
        };
        let funded = credit.draw(50, Money(25));
        assert_eq!(order(&funded), [(3, 10), (2, 10), (4, 5)]);
        credit.take(&funded).unwrap();
        assert_eq!(credit.available(50), Money(15));
        assert_eq!(credit.available(100), Money(10), "what has ended is gone");
        assert_eq!(order(&credit.draw(100, Money(99))), [(1, 10)]);
        assert_eq!(credit.void(1), Some(Money(10)));
        assert_eq!(credit.void(1), None);
        assert!(credit.take(&funded).is_err());
    }
}
