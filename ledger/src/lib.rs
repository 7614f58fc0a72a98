//! The ledger of Farebox: who used and owes what.
//!
//! One writer thread decides from memory, writes each batch as one checksummed frame to a journal,
//! syncs it and only then answers. Everything else (checkpoint, sidecar indexes, the view's
//! database) is made from the journal and can be made again. Nothing here reads a clock, the
//! environment or a float.
#![forbid(unsafe_code)]

mod absorb;
mod adjust;
mod backup;
mod before;
mod calendar;
mod charges;
mod clock;
mod codec;
mod command;
mod commit;
mod decide;
mod denials;
mod entries;
mod entry;
mod error;
mod file;
mod hash;
mod id;
mod index;
mod journal;
mod ledger;
mod merkle;
mod money;
mod options;
mod period;
mod preview;
mod quantity;
mod query;
mod quota;
mod rate;
mod reconcile;
mod record;
mod recover;
mod rejection;
mod shared;
mod state;
mod statement;
mod sync;
#[cfg(test)]
mod testing;
mod ticket;
mod tree;
mod usage;
mod verify;
mod view;
mod walk;
mod writer;

pub use adjust::{Adjustment, Party, Proposal, Proposed, Verdict};
pub use backup::{Copied, copy_journal};
pub use charges::{Charges, read_entries};
pub use clock::{Clock, Micros};
pub use command::{
    Act, Before, Effect, Grant, Held, HoldRequest, Idempotency, Receipt, Recorded, Released,
    ScopeBounds, Settings, Settlement,
};
pub use entry::{Acted, Adjusted, Body, Entry, EntryKind, Funding, Hold, Settled};
pub use error::{Busy, Error, Failed, Fault, OpenError, QueryError, VerifyError};
pub use id::Id;
pub use ledger::{Consistency, Inclusion, Ledger};
pub use merkle::{check_consistency, check_inclusion};
pub use money::{Money, MoneyError};
pub use options::Options;
pub use period::{Closed, Closing, Period, PeriodState, PeriodTotal, Phase};
pub use preview::{Preview, Priced};
pub use quantity::{Ceiling, Meter, OnLow, Quantities};
pub use query::{
    AsOf, ChargeQuery, Denial, DenialCount, Denials, DeniedBy, Document, EntryPage, EntryQuery,
    Estimate, GrantState, GroupBy, Head, Health, Only, Stood, Terms, UsageItem, UsageQuery,
    UsageReport,
};
pub use quota::{
    CapOf, Cause, Left, Mode, Quota, QuotaChange, QuotaState, Scope, ScopeKind, StartCaps,
    Violation, Window,
};
pub use rate::{Allowance, Charge, ChargeLine, Model, Price, RateCard, RateCardError, Tier};
pub use reconcile::{Compared, LimitCompared, LimitsCompared, MonthCompared, Reconciled};
pub use rejection::Rejection;
pub use statement::{LineKind, Statement, StatementLine, StatementTotal, StatementTotals};
pub use ticket::Ticket;
pub use verify::{Progress, Rebuilt, Verified, rebuild, verify, verify_at};
