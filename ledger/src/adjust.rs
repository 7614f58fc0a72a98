//! Adjustments: reversals of settlements, and credit and debit lines, each proposed by one person
//! and approved by another.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::entry::{Adjusted, Funding, Settled};
use crate::hash::Set;
use crate::money::Money;

/// Adjustments that may wait for approval, of all tenants.
pub(crate) const PENDING_MAX: usize = 1_000;
/// Decided adjustments that are remembered; approved ones are entries for ever.
const DECIDED_MAX: usize = 1_000;
/// Settlements that may be reversed, ever.
pub(crate) const REVERSED_MAX: usize = 1_000_000;
/// The most that one adjustment may add or take away: 10^15 of the currency.
pub(crate) const AMOUNT_MAX: Money = Money(10_i128.pow(27));

/// Who proposed or decided: two parties are the same person if either is the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Party {
    /// The key (a token's `jti`).
    pub key: String,
    /// Whom the key stands for (a token's `sub`).
    pub subject: String,
}

impl Party {
    /// Whether this may decide on what `other` has proposed.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        self.key != other.key && self.subject != other.subject
    }
}

/// What an adjustment is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Adjustment {
    /// A credit or debit for a reason of its own.
    Line {
        /// As it stands on the statement.
        description: String,
    },
    /// Takes back a whole settlement, once.
    Reversal {
        /// The settlement's entry.
        entry: u64,
        /// The settlement: what is taken back is exactly this.
        settled: Box<Settled>,
    },
}

impl Adjustment {
    /// The entry that is reversed, if one is.
    pub fn reverses(&self) -> Option<u64> {
        match self {
            Self::Line { .. } => None,
            Self::Reversal { entry, .. } => Some(*entry),
        }
    }

    /// The settlement that is reversed, if one is.
    pub fn reversed(&self) -> Option<&Settled> {
        match self {
            Self::Line { .. } => None,
            Self::Reversal { settled, .. } => Some(settled),
        }
    }

    /// What of a reversed settlement was paid from credit, and is given back.
    pub(crate) fn refund(&self) -> Money {
        let funded: &[Funding] = self.reversed().map_or(&[], |settled| &settled.funded);
        let sum = funded
            .iter()
            .fold(0_i128, |sum, one| sum.saturating_add(one.amount.0));
        Money(sum)
    }
}

/// An adjustment as it is proposed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// Whose it is.
    pub tenant: String,
    /// The currency of the tenant's cards.
    pub currency: String,
    /// What it adds to what the tenant owes: below zero for a credit.
    pub amount: Money,
    /// Whom the proposer's key stands for.
    pub subject: String,
    /// What it is.
    pub what: Adjustment,
}

impl Proposal {
    /// The reversal of a settlement, proposed by `subject`.
    pub fn reversal(entry: u64, settled: Settled, subject: String) -> Self {
        Self {
            tenant: settled.hold.tenant.clone(),
            currency: settled.charge.currency.clone(),
            amount: Money(settled.charge.total.0.saturating_neg()),
            subject,
            what: Adjustment::Reversal {
                entry,
                settled: Box::new(settled),
            },
        }
    }
}

/// What became of a proposal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it was approved, or else rejected.
    pub approved: bool,
    /// By whom.
    pub by: Party,
    /// When.
    pub at: Micros,
    /// The entry: the adjustment itself, or the act of its rejection.
    pub entry: u64,
    /// Why it was rejected.
    pub reason: Option<String>,
}

/// A proposed adjustment, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposed {
    /// The entry that proposed it: its id.
    pub id: u64,
    /// When.
    pub at: Micros,
    /// By whom.
    pub author: Party,
    /// Why.
    pub reason: String,
    /// What.
    pub proposal: Proposal,
    /// What became of it; `None` while it waits.
    pub verdict: Option<Verdict>,
}

/// All adjustments that the ledger knows of.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Adjustments {
    pending: BTreeMap<u64, Proposed>,
    /// The last ones, in the order in which they were decided.
    decided: VecDeque<Proposed>,
    reversed: Set<u64>,
}

impl Adjustments {
    /// Those that wait, oldest first.
    pub(crate) fn pending(&self) -> impl ExactSizeIterator<Item = &Proposed> {
        self.pending.values()
    }

    /// The last ones that were decided, oldest decision first.
    pub(crate) fn decided(&self) -> impl Iterator<Item = &Proposed> {
        self.decided.iter()
    }

    /// One that waits.
    pub(crate) fn waiting(&self, id: u64) -> Option<&Proposed> {
        self.pending.get(&id)
    }

    /// Whether a settlement is reversed, or about to be.
    pub(crate) fn takes_back(&self, entry: u64) -> bool {
        let reverses = |one: &Proposed| one.proposal.what.reverses() == Some(entry);
        self.reversed.contains(&entry) || self.pending().any(reverses)
    }

    /// How many settlements are reversed.
    pub(crate) fn reversed_len(&self) -> usize {
        self.reversed.len()
    }

    /// Adds a proposal.
    pub(crate) fn propose(&mut self, proposed: Proposed) {
        self.pending.insert(proposed.id, proposed);
    }

    /// Ends a proposal. The message says why it cannot be.
    pub(crate) fn decide(&mut self, id: u64, verdict: Verdict) -> Result<(), String> {
        let waiting = self.pending.remove(&id);
        let mut proposed = waiting.ok_or_else(|| format!("adjustment {id} is not pending"))?;
        if let (true, Some(entry)) = (verdict.approved, proposed.proposal.what.reverses())
            && !self.reversed.insert(entry)
        {
            return Err(format!("entry {entry} is reversed already"));
        }
        proposed.verdict = Some(verdict);
        self.decided.push_back(proposed);
        if self.decided.len() > DECIDED_MAX {
            self.decided.pop_front();
        }
        Ok(())
    }
}

/// Who approved an adjustment, and when.
pub(crate) fn approval(seq: u64, at: Micros, adjusted: &Adjusted) -> Verdict {
    Verdict {
        approved: true,
        by: adjusted.approver.clone(),
        at,
        entry: seq,
        reason: None,
    }
}
