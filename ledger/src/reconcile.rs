//! Entries, rows and balances against each other, each found by itself: entries are read from the
//! journal, rows from the view, balances from the counters that holds are decided by.

mod limits;
mod statements;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

pub use self::limits::{LimitCompared, LimitsCompared};
pub use self::statements::MonthCompared;
use crate::calendar::DAY_US;
use crate::clock::Micros;
use crate::entry::Body;
use crate::error::{Error, Fault, QueryError};
use crate::id::Id;
use crate::journal::reader::{Reader, Step};
use crate::journal::segment;
use crate::quantity::{Meter, Quantities};
use crate::query::{AsOf, GroupBy, Only, UsageQuery};
use crate::quota::Window;
use crate::record::{Posting, Record};
use crate::shared::Shared;
use crate::state::{Amounts, amounts};
use crate::usage;
use crate::view::View;
use crate::view::row::Sums;
use crate::walk;

/// The longest time that is reconciled at once.
const RANGE_MAX_US: i64 = 31 * DAY_US;

/// One quantity, found in two ways.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compared {
    /// Whose; `None` for all tenants together.
    pub tenant: Option<String>,
    /// Of what.
    pub meter: Meter,
    /// Whether it is what was measured above what was charged.
    pub overrun: bool,
    /// In entries (of a range), in rows (of all time); money in 10^-12 of the currency.
    pub one: i128,
    /// In rows (of a range), in balances (of all time).
    pub other: i128,
}

/// What a reconciliation has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reconciled {
    /// Up to where the range includes everything.
    pub as_of: AsOf,
    /// Settlements of holds that were opened in the range.
    pub settlements: u64,
    /// Entries read to find them.
    pub entries_read: u64,
    /// Entries against rows in the range: the sums over all tenants.
    pub range: Vec<Compared>,
    /// The tenants and meters where the two differ.
    pub range_differences: Vec<Compared>,
    /// Up to where the balances include everything.
    pub balances_as_of: AsOf,
    /// Rows of all time against balances: the sums over all tenants.
    pub balances: Vec<Compared>,
    /// The tenants and meters where the two differ.
    pub balances_differences: Vec<Compared>,
    /// Statements against rows, of each month that the range touches.
    pub months: Vec<MonthCompared>,
    /// The counters of every quota in force against entries and open holds.
    pub limits: LimitsCompared,
}

/// What one tenant used, by one of the ways to find it.
#[derive(Clone, Copy, Default)]
struct Used {
    posted: Amounts,
    overrun: Quantities,
}

type ByTenant = BTreeMap<String, Used>;

/// What the journal has of a range.
#[derive(Default)]
struct Scan {
    used: ByTenant,
    settlements: u64,
    entries: u64,
    /// Holds opened in the range that have not ended yet.
    open: HashSet<Id>,
    /// The last command seen.
    lsn: u64,
}

/// See [`crate::Ledger::reconcile`].
pub(crate) fn reconcile(
    shared: &Arc<Shared>,
    from: Micros,
    to: Micros,
    entries_max: u64,
) -> Result<Reconciled, QueryError> {
    if to.saturating_sub(from) > RANGE_MAX_US {
        let fault = "must be at most 31 days after from".to_owned();
        return Err(QueryError::Invalid { field: "to", fault });
    }
    let hours = query(from, to, Window::Hour);
    let (as_of, rows, one_currency) = usage::totals(shared, &hours, one_currency)?;
    let scan = scan(shared, (from, to), as_of, entries_max)?;
    let rows = rows.into_iter().map(|(tenant, sums)| (tenant, used(&sums)));
    let (range, range_differences) = compare(&scan.used, &rows.collect(), one_currency);
    let began = segment::list(&shared.options.dir)?.first().copied();
    let began = began.map(|number| first_at(shared, number)).transpose()?;
    let (start, _) = month_around(began.flatten().unwrap_or(to));
    let (_, end) = month_around(as_of.at.max(to));
    let ever = query(start, end, Window::Month);
    let (balances_as_of, rows, counters) = usage::totals(shared, &ever, balances)?;
    let rows = rows.into_iter().map(|(tenant, sums)| {
        // Balances know nothing of overrun.
        let overrun = Quantities::default();
        (
            tenant,
            Used {
                overrun,
                ..used(&sums)
            },
        )
    });
    let (balances, balances_differences) = compare(&rows.collect(), &counters, one_currency);
    Ok(Reconciled {
        as_of,
        settlements: scan.settlements,
        entries_read: scan.entries,
        range,
        range_differences,
        balances_as_of,
        balances,
        balances_differences,
        months: statements::compared(shared, (from, to), entries_max)?,
        limits: limits::compared(shared, entries_max)?,
    })
}

fn too_far(entries_max: u64) -> QueryError {
    let fault = format!("is too far: there are more than {entries_max} entries");
    QueryError::Invalid { field: "to", fault }
}

fn query(from: Micros, to: Micros, window: Window) -> UsageQuery {
    UsageQuery {
        from,
        to,
        window,
        timezone: "UTC".to_owned(),
        group_by: vec![GroupBy::Tenant],
        only: Only::default(),
        by_currency: false,
        cursor: None,
        limit: 1,
    }
}

fn month_around(at: Micros) -> (Micros, Micros) {
    let zone = jiff::tz::TimeZone::UTC;
    let span = crate::calendar::span(&zone, Window::Month, at);
    span.map_or((at, at), |span| (span.start, span.end))
}

fn used(sums: &Sums) -> Used {
    Used {
        posted: Amounts {
            quantities: sums.usage,
            cost: sums.cost(None).0.saturating_add(sums.adjusted().0),
        },
        overrun: sums.overrun(),
    }
}

/// Whether all rate cards are of one currency.
fn one_currency(view: &View) -> bool {
    let mut cards = view.state.cards().iter().map(|card| &card.card.currency);
    let first = cards.next();
    cards.all(|other| Some(other) == first)
}

/// What the counters of each whole tenant have posted.
fn balances(view: &View) -> ByTenant {
    let names = view.state.tenant_names().into_iter();
    let posted = |name: String| {
        let (posted, _held) = view.state.tenant(&name)?.lifetime();
        let overrun = Quantities::default();
        Some((name, Used { posted, overrun }))
    };
    names.filter_map(posted).collect()
}

/// The sums of both sides, and every tenant and meter where they differ. Money is only added up
/// where all of it is of one currency.
fn compare(one: &ByTenant, other: &ByTenant, one_currency: bool) -> (Vec<Compared>, Vec<Compared>) {
    let mut differences = Vec::new();
    let (mut all_one, mut all_other) = (Used::default(), Used::default());
    let names: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    for name in names {
        let of = |side: &ByTenant| side.get(name).copied().unwrap_or_default();
        let (one, other) = (of(one), of(other));
        add(&mut all_one, &one);
        add(&mut all_other, &other);
        let pairs = pairs(Some(name), &one, &other);
        differences.extend(pairs.filter(|pair| pair.one != pair.other));
    }
    let used = |pair: &Compared| pair.one != 0 || pair.other != 0;
    let added = |pair: &Compared| pair.meter != Meter::Cost || one_currency;
    let sums = pairs(None, &all_one, &all_other);
    let sums = sums.filter(used).filter(added).collect();
    (sums, differences)
}

fn add(sum: &mut Used, more: &Used) {
    sum.posted.add(&more.posted);
    sum.overrun = sum.overrun.plus(&more.overrun);
}

fn pairs(tenant: Option<&String>, one: &Used, other: &Used) -> impl Iterator<Item = Compared> {
    let pair = |meter, overrun, one, other| Compared {
        tenant: tenant.cloned(),
        meter,
        overrun,
        one,
        other,
    };
    let mut all = vec![pair(Meter::Cost, false, one.posted.cost, other.posted.cost)];
    for meter in Meter::MEASURED {
        let of = |side: &Quantities| i128::try_from(side.get(meter)).unwrap_or(i128::MAX);
        let (posted, over) = (of(&one.posted.quantities), of(&one.overrun));
        let (posted_other, over_other) = (of(&other.posted.quantities), of(&other.overrun));
        all.push(pair(meter, false, posted, posted_other));
        all.push(pair(meter, true, over, over_other));
    }
    all.into_iter()
}

/// Reads the journal from the first command of the range on, until the range is over and every hold
/// of it has ended, or everything of `as_of` was seen.
fn scan(
    shared: &Shared,
    range: (Micros, Micros),
    as_of: AsOf,
    entries_max: u64,
) -> Result<Scan, QueryError> {
    let dir = &shared.options.dir;
    let mut scan = Scan::default();
    for number in from_segment(shared, range.0)? {
        let mut reader = Reader::open(&segment::path(dir, number))?;
        while let Step::Frame(frame) = reader.step()? {
            if frame.header.first_lsn > as_of.lsn {
                return Ok(scan);
            }
            let durable = walk::decode(number, &frame)?;
            for (item, lsn) in durable.items.iter().zip(durable.first_lsn..) {
                let over = item.record.at() >= range.1 && scan.open.is_empty();
                if over || lsn > as_of.lsn {
                    return Ok(scan);
                }
                scan.lsn = lsn;
                scan.take(&item.record, range);
            }
            if scan.entries > entries_max {
                return Err(too_far(entries_max));
            }
        }
    }
    if scan.lsn == as_of.lsn || as_of.lsn == 0 {
        return Ok(scan);
    }
    let (lsn, seq) = (scan.lsn, as_of.seq);
    let what = "the journal ends before what is durable".to_owned();
    let fault = Fault {
        segment: 0,
        offset: 0,
        lsn,
        seq,
        what,
    };
    Err(Error::Corrupt { fault }.into())
}

/// The segments that may have commands from `from` on.
fn from_segment(shared: &Shared, from: Micros) -> Result<Vec<u32>, Error> {
    let mut numbers = segment::list(&shared.options.dir)?;
    // The first commands of segments are in the order of time.
    let (mut low, mut high) = (0, numbers.len());
    while low < high {
        let middle = low.midpoint(high);
        let first = first_at(shared, numbers[middle])?;
        if first.is_some_and(|at| at <= from) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(numbers.split_off(low.saturating_sub(1)))
}

/// The time of the first command in a segment; spare segments have none.
fn first_at(shared: &Shared, number: u32) -> Result<Option<Micros>, Error> {
    let mut reader = Reader::open(&segment::path(&shared.options.dir, number))?;
    let Step::Frame(frame) = reader.step()? else {
        return Ok(None);
    };
    let durable = walk::decode(number, &frame)?;
    Ok(durable.items.first().map(|item| item.record.at()))
}

impl Scan {
    fn take(&mut self, record: &Record, (from, to): (Micros, Micros)) {
        match record {
            Record::Hold(hold) => {
                if (from..to).contains(&hold.opened_at) {
                    self.open.insert(hold.id);
                }
            }
            Record::Release(release) => {
                self.open.remove(&release.hold);
            }
            Record::Settled(posting) => {
                self.entries += 1;
                self.settled(posting, (from, to));
            }
            Record::Entered(entry) => {
                self.entries += 1;
                if let Body::Adjusted(adjusted) = &entry.body
                    && (from..to).contains(&entry.at)
                {
                    let used = self.used.entry(adjusted.tenant.clone()).or_default();
                    used.posted.add(&amounts(adjusted));
                }
            }
        }
    }

    fn settled(&mut self, posting: &Posting, (from, to): (Micros, Micros)) {
        self.open.remove(&posting.hold.id);
        if !(from..to).contains(&posting.hold.opened_at) {
            return;
        }
        self.settlements += 1;
        let tenant = posting.hold.whose().map_or("", |whose| whose.tenant);
        let posted = Amounts {
            quantities: posting.posted,
            cost: posting.total.0,
        };
        let overrun = posting.overrun.as_deref().copied().unwrap_or_default();
        let used = self.used.entry(tenant.to_owned()).or_default();
        add(used, &Used { posted, overrun });
    }
}

#[cfg(test)]
mod tests;
