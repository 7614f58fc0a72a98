//! Entries, the ledger's immutable records, and the holds that settlements end.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::adjust::{Adjustment, Party};
use crate::clock::Micros;
use crate::command::{Effect, Grant, Idempotency};
use crate::id::Id;
use crate::money::Money;
use crate::period::Period;
use crate::quantity::{Ceiling, Quantities};
use crate::rate::Charge;
use crate::record;

/// A hold as it was opened. Settlements carry it whole, so that an entry needs nothing beside it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// The hold's id.
    pub id: Id,
    /// The execution that it pays for.
    pub execution: Id,
    /// Who pays.
    pub tenant: String,
    /// For which project.
    pub project: String,
    /// For which function, if one was invoked.
    pub function: Option<String>,
    /// Through which key.
    pub key: String,
    /// The image, as the caller named it.
    pub image: String,
    /// The caller's tags.
    pub tags: Vec<(String, String)>,
    /// The limits that were granted.
    pub granted: Ceiling,
    /// Whether quotas lowered the limits below what was asked.
    pub reduced: bool,
    /// The worst case held.
    pub quantities: Quantities,
    /// What the worst case costs.
    pub amount: Money,
    /// Entry of the rate card that prices it.
    pub rate_card: u64,
    /// When it was opened: the instant whose windows and prices count.
    pub opened_at: Micros,
    /// The caller's retry key.
    pub idempotency: Option<Idempotency>,
}

/// A settled run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settled {
    /// The hold that it ended.
    pub hold: Arc<Hold>,
    /// What was charged: the lesser of measured and held.
    pub posted: Quantities,
    /// What was measured above it.
    pub overrun: Quantities,
    /// What it costs.
    pub charge: Charge,
    /// What of it is paid from credit; the rest is payable.
    pub funded: Vec<Funding>,
    /// How the run ended.
    pub outcome: String,
    /// Whether the measure is an estimate.
    pub estimated: bool,
}

/// What a grant pays of a charge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Funding {
    /// The entry of the grant.
    pub grant: u64,
    /// How much.
    pub amount: Money,
}

/// A recorded administrative act; see [`crate::Act`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Acted {
    /// Who acted.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// What it was done to.
    pub subject: String,
    /// The tenant that it concerns.
    pub tenant: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The subject's new state; empty forgets it.
    pub document: Option<Vec<u8>>,
    /// What the ledger did.
    pub effect: Option<Effect>,
}

/// An approved adjustment. It counts in the period of its own instant, whatever it corrects.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Adjusted {
    /// The entry that proposed it.
    pub proposal: u64,
    /// Who proposed it.
    pub author: Party,
    /// Who approved it: never the same.
    pub approver: Party,
    /// Why.
    pub reason: String,
    /// Whose it is.
    pub tenant: String,
    /// ISO 4217 code.
    pub currency: String,
    /// What it adds to what the tenant owes: below zero for a credit.
    pub amount: Money,
    /// What it is.
    pub what: Adjustment,
    /// What of a debit is paid from credit; the rest is payable.
    pub funded: Vec<Funding>,
    /// What of a reversed settlement was paid from credit: a grant again, of this entry's number.
    pub refunded: Money,
    /// The period of the reversed settlement, if that was closed already.
    pub corrects: Option<Period>,
}

impl Adjusted {
    /// The credit that a reversal gives back. The grants that paid may be used up or have ended, so
    /// it is a grant of its own, which is drawn first and does not end.
    pub fn refund(&self) -> Option<Grant> {
        let reversed = self.what.reverses().unwrap_or(self.proposal);
        (self.refunded.0 > 0).then(|| Grant {
            tenant: self.tenant.clone(),
            name: format!("reversal of entry {reversed}"),
            amount: self.refunded,
            currency: self.currency.clone(),
            priority: 0,
            expires_at: None,
        })
    }
}

/// What an entry records.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// A settled run.
    Settled(Settled),
    /// An administrative act.
    Acted(Acted),
    /// An approved adjustment.
    Adjusted(Adjusted),
}

/// The kinds of entries, for filters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum EntryKind {
    /// Settled runs.
    Settled,
    /// Administrative acts.
    Acted,
    /// Approved adjustments.
    Adjusted,
}

/// An immutable record. Entries are numbered densely from 1.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub seq: u64,
    /// When it was recorded; strictly increasing.
    pub at: Micros,
    /// What it records.
    pub body: Body,
}

impl Entry {
    /// Reads an entry as it is stored, hashed and proved; the message says what is wrong with the
    /// bytes.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, String> {
        record::entry(bytes)
    }

    /// What kind of entry it is.
    pub fn kind(&self) -> EntryKind {
        match self.body {
            Body::Settled(_) => EntryKind::Settled,
            Body::Acted(_) => EntryKind::Acted,
            Body::Adjusted(_) => EntryKind::Adjusted,
        }
    }

    /// The instant whose windows it counts in: when a run's hold was opened, or its own.
    pub fn counts_at(&self) -> Micros {
        match &self.body {
            Body::Settled(settled) => settled.hold.opened_at,
            Body::Acted(_) | Body::Adjusted(_) => self.at,
        }
    }

    /// The tenant that it concerns.
    pub fn tenant(&self) -> Option<&str> {
        match &self.body {
            Body::Settled(settled) => Some(&settled.hold.tenant),
            Body::Acted(acted) => acted.tenant.as_deref(),
            Body::Adjusted(adjusted) => Some(&adjusted.tenant),
        }
    }
}
