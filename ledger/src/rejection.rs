//! The domain's "no": every way a command can be refused.

use crate::clock::Micros;
use crate::id::Id;
use crate::money::Money;
use crate::period::Period;
use crate::quota::{Scope, Violation};

/// Why a command was refused. A refusal records and consumes nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// No act has made this tenant known.
    #[error("tenant `{tenant}` is not known")]
    UnknownTenant {
        /// The tenant named.
        tenant: String,
    },
    /// The tenant is suspended.
    #[error("tenant `{tenant}` is suspended")]
    Suspended {
        /// The tenant named.
        tenant: String,
    },
    /// At least one hard quota has no room for the worst case.
    #[error("{} quota(s) have no room for this run", .0.len())]
    Quota(Vec<Violation>),
    /// As many runs as may begin in a minute have begun.
    #[error("{begun} executions of {scope} have begun in the last minute, and {cap} may")]
    Rate {
        /// Whose cap: the tenant's or the key's.
        scope: Scope,
        /// The cap.
        cap: u32,
        /// Runs that have begun.
        begun: u32,
        /// When there is room for another one.
        free_at: Micros,
    },
    /// As many runs as the tenant may have at once are open.
    #[error("{open} of {cap} concurrent executions are in use")]
    Concurrency {
        /// The tenant's cap.
        cap: u32,
        /// Its open holds.
        open: u32,
    },
    /// The prepaid credit does not cover the worst case.
    #[error("{available} of credit does not cover {amount}")]
    InsufficientFunds {
        /// What the worst case costs.
        amount: Money,
        /// What is left.
        available: Money,
    },
    /// The worst case costs more than the caller wants to pay.
    #[error("the worst case costs {amount}, more than the {max_cost} allowed")]
    MaxCost {
        /// What the worst case costs.
        amount: Money,
        /// What the caller allowed.
        max_cost: Money,
    },
    /// No rate card is in force now.
    #[error("no rate card is in force")]
    NoRateCard,
    /// The idempotency key opened this execution before, with the same request.
    #[error("this idempotency key already opened execution {execution}")]
    Replay {
        /// What the key opened.
        execution: Id,
    },
    /// The idempotency key opened an execution before, with another request.
    #[error("this idempotency key opened execution {execution} with another request")]
    IdempotencyMismatch {
        /// What the key opened.
        execution: Id,
    },
    /// No hold of that id is open: never opened, or already settled or released.
    #[error("hold {hold} is not open")]
    HoldNotOpen {
        /// The hold named.
        hold: Id,
    },
    /// A hold of that id is open already.
    #[error("hold {hold} or its execution is open already")]
    HoldExists {
        /// The hold named.
        hold: Id,
    },
    /// The subject was changed since the caller looked.
    #[error("`{subject}` was last changed by entry {seq}")]
    Conflict {
        /// The subject of the act.
        subject: String,
        /// The entry of its last act; zero if there is none.
        seq: u64,
    },
    /// A window began, or a run of before it ended, while what it had seen was being found.
    #[error("the running windows have moved on while their use was counted; try again")]
    Moved,
    /// The period cannot be closed.
    #[error("period {period} {fault}")]
    NotClosable {
        /// The period named.
        period: Period,
        /// What stands in the way.
        fault: String,
    },
    /// No such adjustment waits for a decision.
    #[error("no adjustment {proposal} waits for a decision")]
    NotPending {
        /// The adjustment named.
        proposal: u64,
    },
    /// Whoever proposed an adjustment may not approve it.
    #[error("adjustment {proposal} must be approved by somebody else than who proposed it")]
    OwnProposal {
        /// The adjustment named.
        proposal: u64,
    },
    /// A settlement is reversed at most once.
    #[error("entry {entry} is reversed already, or is about to be")]
    Reversed {
        /// The settlement's entry.
        entry: u64,
    },
    /// As many holds as may be are open in the whole ledger; some end soon.
    #[error("{limit} holds are open, and no more may be")]
    TooManyHolds {
        /// The bound.
        limit: u64,
    },
    /// As many idempotency keys of the tenant as may be are kept; the oldest end with their time.
    #[error("{limit} idempotency keys of the tenant are kept, and no more may be")]
    TooManyKeys {
        /// The bound.
        limit: u64,
    },
    /// A bound of what the ledger keeps is reached: waiting does not help.
    #[error("the bound of {limit} {what} is reached")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A field has a value that no command may carry.
    #[error("{field} {fault}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        fault: String,
    },
}
