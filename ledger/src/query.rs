//! Questions to the ledger and their answers.

use std::sync::Arc;

use crate::clock::Micros;
use crate::command::Grant;
use crate::entry::{Body, Entry, EntryKind, Hold};
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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum GroupBy {
    /// Tenant.
    Tenant,
    /// Project.
    Project,
    /// Function; none where no function was invoked.
    Function,
    /// Image, as it stands on the entry.
    Image,
    /// Key.
    Key,
    /// Meter: an item has the quantity of one meter only.
    Meter,
    /// The value of the tag with this key; none where there is no such tag.
    Tag(String),
}

/// Which settlements count. What is absent excludes none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Only {
    /// Of this tenant.
    pub tenant: Option<String>,
    /// Of this project.
    pub project: Option<String>,
    /// Of this function.
    pub function: Option<String>,
    /// In this image: as it stands on the entry, or the part before its `@`.
    pub image: Option<String>,
    /// Through this key.
    pub key: Option<String>,
    /// With all of these tags.
    pub tags: Vec<(String, String)>,
}

impl Only {
    /// Whether what a hold was settled for counts.
    pub fn passes(&self, hold: &Hold) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        let function = self.function.is_none() || self.function == hold.function;
        let image = |wanted: &String| {
            let rest = hold.image.strip_prefix(wanted.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
        };
        is(&self.tenant, &hold.tenant)
            && is(&self.project, &hold.project)
            && is(&self.key, &hold.key)
            && function
            && self.image.as_ref().is_none_or(image)
            && self.tags.iter().all(|tag| hold.tags.contains(tag))
    }

    /// Whether what an entry charges counts. An adjustment that reverses nothing is the tenant's
    /// alone.
    pub(crate) fn admits(&self, body: &Body) -> bool {
        let adjusted = match body {
            Body::Settled(settled) => return self.passes(&settled.hold),
            Body::Adjusted(adjusted) => adjusted,
            Body::Acted(_) => return false,
        };
        match adjusted.what.reversed() {
            Some(settled) => self.passes(&settled.hold),
            None => {
                let tenant = self.tenant.clone();
                let theirs = tenant.as_ref().is_none_or(|only| *only == adjusted.tenant);
                let alone = Self {
                    tenant,
                    ..Self::default()
                };
                theirs && *self == alone
            }
        }
    }
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
    /// At most three groups; without any there is one item a window.
    pub group_by: Vec<GroupBy>,
    /// What counts.
    pub only: Only,
    /// Whether costs are wanted: then what was charged in different currencies is never added up,
    /// but stands in items of its own.
    pub by_currency: bool,
    /// Where the last page ended. It carries the first page's `as_of`: nothing later counts.
    pub cursor: Option<String>,
    /// Items a page: 1 to 10,000. A page may be shorter and still have a next one.
    pub limit: usize,
}

/// Usage of one group in one window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageItem {
    /// Start of the window.
    pub start: Micros,
    /// End of the window.
    pub end: Micros,
    /// The value of each of `group_by` but the meter, in its order.
    pub group: Vec<Option<String>>,
    /// The meter, if grouped by it: then `usage`, `overrun` and `cost` are of this meter alone, and
    /// adjustments have an item without a meter.
    pub meter: Option<Meter>,
    /// What was charged for.
    pub usage: Quantities,
    /// What was measured above that.
    pub overrun: Quantities,
    /// What it cost; means nothing over tenants of different currencies, unless `by_currency`.
    pub cost: Money,
    /// What adjustments recorded in the window add to it; below zero for credits.
    pub adjusted: Money,
    /// The currency of cost and adjustments, if `by_currency`.
    pub currency: Option<String>,
}

/// A page of usage, ordered by window and group; empty windows are left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageReport {
    /// Up to where it includes everything.
    pub as_of: AsOf,
    /// The currency of all the costs that were asked for, if there is one and no other.
    pub currency: Option<String>,
    /// The items.
    pub items: Vec<UsageItem>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// Asks for settlements in the order of their numbers, all that there are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChargeQuery {
    /// Only after this number.
    pub after: u64,
    /// Up to this number at most; absent: up to what is durable now.
    pub until: Option<u64>,
    /// Only those whose holds were opened at this time or later: in whose windows they count.
    pub from: Option<Micros>,
    /// Only those whose holds were opened before this time.
    pub to: Option<Micros>,
    /// What counts.
    pub only: Only,
}

impl ChargeQuery {
    /// Whether an entry is one that is asked for.
    pub fn passes(&self, entry: &Entry) -> bool {
        let at = entry.counts_at();
        entry.seq > self.after
            && self.until.is_none_or(|until| entry.seq <= until)
            && self.from.is_none_or(|from| from <= at)
            && self.to.is_none_or(|to| at < to)
            && self.only.admits(&entry.body)
    }
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
    /// Segments of the journal in use; those that are ready for what comes are not counted.
    pub journal_segments: u64,
    /// How long the oldest durable command that reads do not include has been durable, in
    /// microseconds; zero if there is none.
    pub read_lag_us: u64,
    /// The same of the oldest one that the view on disk does not include.
    pub view_lag_us: u64,
    /// Bytes of the view on disk.
    pub view_bytes: u64,
    /// How far the ledger's own time, which never goes back, is ahead of the clock, in
    /// microseconds: seconds mean that the clock was ahead before.
    pub clock_ahead_us: u64,
}

/// What refused a hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DeniedBy {
    /// A quota, by name.
    Quota(String),
    /// A cap on starts.
    Rate,
    /// The concurrency cap.
    Concurrency,
    /// The prepaid credit.
    Credit,
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
    /// Whether posted use or only open holds were in the way.
    pub cause: Cause,
    /// Start of the minute.
    pub minute: Micros,
    /// Refusals.
    pub count: u64,
    /// The number of this counter: those that came later have higher ones.
    pub number: u64,
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
    /// The function named.
    pub function: Option<String>,
    /// The key used.
    pub key: String,
    /// What refused.
    pub by: DeniedBy,
    /// Whose use was counted.
    pub scope: Scope,
    /// Whether posted use or only open holds were in the way.
    pub cause: Cause,
    /// How it stood; `None` where nothing was counted.
    pub stood: Option<Stood>,
    /// The number of this refusal: those that came later have higher ones.
    pub number: u64,
}

/// How what refused a hold stood then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stood {
    /// What was counted.
    pub meter: Meter,
    /// The most there might be: a quota's limit with its overdraft, a cap, the credit that was
    /// left, the caller's `max_cost`.
    pub limit: u128,
    /// What was used.
    pub posted: u128,
    /// What was held.
    pub held: u128,
    /// What the hold needed.
    pub requested: u128,
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
