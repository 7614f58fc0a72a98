//! What can be asked of the ledger, and what it answers when it says yes.

use serde::{Deserialize, Serialize};

use crate::adjust::Proposal;
use crate::clock::Micros;
use crate::id::Id;
use crate::money::Money;
use crate::period::Period;
use crate::quantity::{Ceiling, OnLow, Quantities};
use crate::quota::{Left, Quota, QuotaChange, Scope, StartCaps, Window};
use crate::rate::{Charge, RateCard};

/// Ties a hold to a caller's retry key, within the tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Idempotency {
    /// Hash of key, method and route.
    #[serde(with = "crate::codec::array")]
    pub key: [u8; 32],
    /// Hash of the canonical request.
    #[serde(with = "crate::codec::array")]
    pub fingerprint: [u8; 32],
}

/// Sets aside the worst case of a run before it starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HoldRequest {
    /// The hold's id; new.
    pub hold: Id,
    /// The execution that it pays for; new.
    pub execution: Id,
    /// Who pays.
    pub tenant: String,
    /// For which project.
    pub project: String,
    /// For which function, if one is invoked.
    pub function: Option<String>,
    /// Through which key (a token's `jti`).
    pub key: String,
    /// The image's digest or name, as it shall stand on the entry.
    pub image: String,
    /// Tags that stay on the entry.
    pub tags: Vec<(String, String)>,
    /// The limits of the run.
    pub ceiling: Ceiling,
    /// What to do when quotas leave less than the worst case.
    pub on_low: OnLow,
    /// The most that the run may cost.
    pub max_cost: Option<Money>,
    /// The caller's retry key; consumed only if the hold opens.
    pub idempotency: Option<Idempotency>,
}

/// An open hold, as answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The number of the command.
    pub lsn: u64,
    /// The instant whose windows and prices count.
    pub opened_at: Micros,
    /// The limits to run with; lower than asked where quotas asked for it.
    pub granted: Ceiling,
    /// The worst case of these limits.
    pub quantities: Quantities,
    /// What it would cost.
    pub amount: Money,
    /// Entry of the rate card that prices it.
    pub rate_card: u64,
    /// What is left of each cap on the number of runs that concerns it.
    pub left: Vec<Left>,
}

/// Turns a hold into a charge for what was measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settlement {
    /// The hold that ends.
    pub hold: Id,
    /// What the run used; what lies above the hold is recorded as overrun and not charged.
    pub measured: Quantities,
    /// How the run ended, as it shall stand on the entry.
    pub outcome: String,
    /// Whether `measured` is an estimate.
    pub estimated: bool,
}

/// A settlement, as answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// The number of the entry.
    pub entry: u64,
    /// When it was recorded.
    pub at: Micros,
    /// What is charged: the lesser of measured and held, meter by meter.
    pub posted: Quantities,
    /// What was measured above it: the platform's loss.
    pub overrun: Quantities,
    /// What it costs.
    pub charge: Charge,
}

/// A release, as answered: the hold is gone and nothing is charged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Released {
    /// The number of the command.
    pub lsn: u64,
    /// When it was recorded.
    pub at: Micros,
}

/// An administrative act: recorded with its actor, and carried out where the ledger decides on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Act {
    /// Who acts.
    pub actor: String,
    /// What is done, such as `tenant.suspend`.
    pub action: String,
    /// What it is done to, such as `tenant/acme`.
    pub subject: String,
    /// The tenant that it concerns, so that a tenant's entries can be listed.
    pub tenant: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The subject's new state, opaque to the ledger. The latest is kept; an empty one forgets it
    /// (the entry stays).
    pub document: Option<Vec<u8>>,
    /// What the ledger itself shall do.
    pub effect: Option<Effect>,
    /// The entry that the caller believes to be the subject's last act; zero for none. Another
    /// one is a conflict.
    pub expect: Option<u64>,
}

/// The part of an act that the ledger decides on later.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Effect {
    /// Makes a tenant known, or replaces its settings as a whole, with no cap on starts and no
    /// quotas to come; see [`Effect::Settings`].
    Tenant {
        /// Its name.
        tenant: String,
        /// Whether its holds are refused.
        suspended: bool,
        /// How many holds it may have open at once.
        concurrency: u32,
        /// All its quotas.
        quotas: Vec<Quota>,
    },
    /// Adds a rate card. Of the cards of one id that are in force at an instant, the one with the
    /// latest `effective_from` counts, and of those the one recorded last. The id of the first card
    /// is that of every tenant whose terms name no other.
    RateCard(RateCard),
    /// Says by which cards a tenant is charged, and whether it pays before it runs.
    Terms {
        /// The tenant.
        tenant: String,
        /// The id of its cards; `None` for the default.
        rate_card: Option<String>,
        /// Whether a hold needs credit for all of its worst case.
        prepaid: bool,
    },
    /// Grants a tenant credit.
    Grant(Grant),
    /// Takes back what is left of a grant. What is held already is not taken back: as far as the
    /// credit does not reach, it becomes payable.
    VoidGrant {
        /// The tenant.
        tenant: String,
        /// The entry of the grant.
        grant: u64,
    },
    /// Closes a period that has ended and has no open hold, for ever: entries after this one do
    /// not count in it.
    ClosePeriod(Period),
    /// Proposes an adjustment. It needs a reason, and changes nothing until it is approved.
    Propose(Proposal),
    /// Approves an adjustment. This is recorded as the adjustment itself, not as an act.
    Approve {
        /// The entry that proposed it.
        proposal: u64,
        /// Whom the approver's key stands for.
        subject: String,
    },
    /// Ends a proposal without an adjustment.
    Reject {
        /// The entry that proposed it.
        proposal: u64,
        /// Whom the actor's key stands for.
        subject: String,
    },
    /// Makes a tenant known, or replaces its settings as a whole. Windows that no quota has named
    /// before are counted from this act on; see [`Effect::Counted`].
    Settings(Settings),
    /// Says how many scopes are counted from now on. A ledger that is opened with other bounds than
    /// the journal's records it by itself.
    CountScopes(ScopeBounds),
    /// The same as [`Effect::Settings`], with what the windows that its quotas name have seen
    /// already; made by [`crate::Ledger::counted`].
    Counted {
        /// The settings.
        settings: Settings,
        /// Of each window that is not counted from its beginning yet.
        before: Vec<Before>,
    },
}

impl Effect {
    /// The settings that it replaces, as a whole.
    pub fn settings(&self) -> Option<&Settings> {
        match self {
            Self::Settings(settings) | Self::Counted { settings, .. } => Some(settings),
            _ => None,
        }
    }
}

/// What a scope has posted for holds that were opened before a window began: what it posts beyond
/// that counts in the window. Recorded, so that nothing has to be found again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Before {
    /// Whose.
    pub scope: Scope,
    /// Which calendar's.
    pub window: Window,
    /// In which zone.
    pub timezone: String,
    /// When the window began.
    pub start: Micros,
    /// What was posted.
    pub posted: Quantities,
    /// What that cost, with adjustments where it is the whole tenant's.
    pub cost: Money,
    /// The tenant's open holds that were opened before, when this was found: once one of them has
    /// ended it does not hold any more.
    pub open: u64,
}

/// How many scopes (projects, functions, keys) are counted before a quota names them.
///
/// What is counted decides how later quotas stand, so the bounds are part of the journal: the
/// writer, the view, an audit and a rebuild count the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScopeBounds {
    /// Of all tenants.
    pub in_all: u64,
    /// Of each tenant.
    pub per_tenant: u64,
}

impl Default for ScopeBounds {
    /// What holds until others are recorded.
    fn default() -> Self {
        Self {
            in_all: 1_000_000,
            per_tenant: 10_000,
        }
    }
}

/// All that a tenant's holds are decided by, beside its terms and credit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The tenant.
    pub tenant: String,
    /// Whether its holds are refused.
    pub suspended: bool,
    /// How many holds it may have open at once.
    pub concurrency: u32,
    /// How many it may open in a minute.
    pub starts: StartCaps,
    /// All its quotas until the first change.
    pub quotas: Vec<Quota>,
    /// The changes, the earliest first. Those whose instant has passed count too: of all, the last
    /// one that has come is in force. What they count is counted from when they are recorded, so
    /// that a quota finds its window's use when it comes into force.
    pub changes: Vec<QuotaChange>,
}

impl Settings {
    /// Settings with no cap on starts and no quotas to come.
    pub fn plain(tenant: &str, suspended: bool, concurrency: u32, quotas: &[Quota]) -> Self {
        Self {
            tenant: tenant.to_owned(),
            suspended,
            concurrency,
            starts: StartCaps::default(),
            quotas: quotas.to_vec(),
            changes: Vec::new(),
        }
    }
}

/// Credit that a tenant's charges are paid from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// Whose it is.
    pub tenant: String,
    /// What it is called on statements.
    pub name: String,
    /// How much, above zero.
    pub amount: Money,
    /// The currency of the tenant's cards.
    pub currency: String,
    /// Lower is drawn first; of the same, the one that ends first, then the oldest.
    pub priority: u8,
    /// From when on it pays for no new run; `None` for never.
    pub expires_at: Option<Micros>,
}

/// An act, as answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// The number of the entry.
    pub entry: u64,
    /// When it was recorded.
    pub at: Micros,
}
