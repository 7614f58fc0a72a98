//! Questions to the ledger and their answers.

use std::sync::Arc;

use crate::clock::Micros;
use crate::command::Grant;
use crate::entry::{Entry, EntryKind};
use crate::money::Money;
use crate::quantity::{Ceiling, Meter, Quantities};
use crate::quota::{Cause, Scope, Window};

/// Up to where an answer includes everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AsOf {
    /// The last entry included.
    pub seq: u64,
    /// The last command included.
    pub lsn: u64,
    /// The time of the last command included.
    pub at: Micros,
}

/// What usage is broken down by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum GroupBy {
    /// Tenant.
    Tenant,
    /// Project.
    Project,
    /// Function.
    Function,
    /// Meter: an item has the quantity of one meter only.
    Meter,
}

/// Asks for usage per window and group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageQuery {
    /// Start, inclusive; on a border of the windows in `timezone`.
    pub from: Micros,
    /// End, exclusive; on a border too.
    pub to: Micros,
    /// `Hour`, `Day` or `Month`.
    pub window: Window,
    /// IANA name of the zone whose calendar cuts the windows.
    pub timezone: String,
    /// Groups; without any there is one item a window.
    pub group_by: Vec<GroupBy>,
    /// Only this tenant.
    pub tenant: Option<String>,
    /// Only this project.
    pub project: Option<String>,
    /// Only this function.
    pub function: Option<String>,
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// Items a page: 1 to 10,000.
    pub limit: usize,
}

/// Usage of one group in one window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageItem {
    /// Start of the window.
    pub start: Micros,
    /// End of the window.
    pub end: Micros,
    /// The tenant, if grouped by it.
    pub tenant: Option<String>,
    /// The project, if grouped by it.
    pub project: Option<String>,
    /// The function, if grouped by it and one was invoked.
    pub function: Option<String>,
    /// The meter, if grouped by it: then `usage`, `overrun` and `cost` are of this meter alone.
    pub meter: Option<Meter>,
    /// What was charged for.
    pub usage: Quantities,
    /// What was measured above that.
    pub overrun: Quantities,
    /// What it cost.
    pub cost: Money,
}

/// A page of usage, ordered by window and group; empty windows are left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageReport {
    /// Up to where it includes everything.
    pub as_of: AsOf,
    /// The currency of the costs, once there is a rate card.
    pub currency: Option<String>,
    /// The items.
    pub items: Vec<UsageItem>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// Asks for entries in the order of their numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EntryQuery {
    /// Only entries after this number.
    pub after: u64,
    /// Only of this tenant.
    pub tenant: Option<String>,
    /// Only of this kind.
    pub kind: Option<EntryKind>,
    /// Only recorded at this time or later.
    pub from: Option<Micros>,
    /// Only recorded before this time.
    pub to: Option<Micros>,
    /// Entries a page: 1 to 1,000.
    pub limit: usize,
}

/// A page of entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryPage {
    /// Up to where it includes everything.
    pub as_of: AsOf,
    /// The entries.
    pub entries: Vec<Entry>,
    /// What to give as `after` for the next page, if there may be one.
    pub next: Option<u64>,
}

/// The latest document of a subject.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// The subject.
    pub subject: String,
    /// The entry of the subject's last act: what `expect` must name.
    pub seq: u64,
    /// When that act was recorded.
    pub at: Micros,
    /// The document.
    pub bytes: Arc<[u8]>,
}

/// The ledger's head: what is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Entries.
    pub size: u64,
    /// RFC 6962 root over their stored bytes.
    pub root: [u8; 32],
    /// The last command included.
    pub lsn: u64,
}

/// How the ledger is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Health {
    /// Whether commands are recorded; false for ever once a write has failed.
    pub writable: bool,
    /// Whether there is room on the disk for more holds.
    pub room: bool,
    /// Commands that wait.
    pub queue_depth: u64,
    /// The last durable command.
    pub durable_lsn: u64,
    /// The last command that reads include.
    pub absorbed_lsn: u64,
    /// The last command that the view on disk includes.
    pub view_lsn: u64,
    /// The last command that the checkpoint on disk includes.
    pub checkpoint_lsn: u64,
    /// Whether the view can be read and written.
    pub view: bool,
    /// Open holds.
    pub open_holds: u64,
    /// Bytes of the journal's segments in use.
    pub journal_bytes: u64,
    /// Bytes of the view on disk.
    pub view_bytes: u64,
}

/// What refused a hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DeniedBy {
    /// A quota, by name.
    Quota(String),
    /// The concurrency cap.
    Concurrency,
    /// The caller's own `max_cost`.
    MaxCost,
    /// The tenant is suspended.
    Suspended,
}

/// Refusals of one kind in one minute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DenialCount {
    /// The tenant refused.
    pub tenant: String,
    /// What refused.
    pub by: DeniedBy,
    /// Whose use was counted.
    pub scope: Scope,
    /// Start of the minute.
    pub minute: Micros,
    /// Refusals.
    pub count: u64,
}

/// One refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    /// When.
    pub at: Micros,
    /// The tenant refused.
    pub tenant: String,
    /// The project named.
    pub project: String,
    /// The key used.
    pub key: String,
    /// What refused.
    pub by: DeniedBy,
    /// Whether posted use or only open holds were in the way.
    pub cause: Cause,
}

/// Refusals since the ledger was opened, within its bounds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Denials {
    /// Counts, by minute, newest first.
    pub counts: Vec<DenialCount>,
    /// The last ones, newest first.
    pub last: Vec<Denial>,
}

/// By which cards a tenant is charged, and its credit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    /// The id of its own cards; `None` for the default.
    pub rate_card: Option<String>,
    /// The currency of its card in force; `None` if there is none.
    pub currency: Option<String>,
    /// Whether a hold needs credit for all of its worst case.
    pub prepaid: bool,
    /// Credit that has not ended, held or not.
    pub available: Money,
    /// What open holds set aside.
    pub held: Money,
    /// Grants with something left, in the order in which they are drawn.
    pub grants: Vec<GrantState>,
}

/// A grant and what is left of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantState {
    /// The entry that recorded it.
    pub entry: u64,
    /// As it was granted.
    pub grant: Grant,
    /// What is left.
    pub left: Money,
}

/// What a run would be held with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Estimate {
    /// The limits that it would get.
    pub granted: Ceiling,
    /// The worst case of these.
    pub quantities: Quantities,
    /// What that costs.
    pub amount: Money,
    /// ISO 4217 code.
    pub currency: String,
    /// Id of the rate card.
    pub rate_card: String,
}
