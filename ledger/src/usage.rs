//! Usage per window and group: from the view's rows where these tell enough, else from the entries
//! one by one.
//!
//! Both ways sum the same settlements up to the same entry, page by page, and keep no more groups
//! than a page has items.

mod fold;
mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::calendar::{self, DAY_US, HOUR_US, Span};
use crate::clock::Micros;
use crate::codec;
use crate::entry::{Body, Hold};
use crate::error::QueryError;
use crate::money::Money;
use crate::period::Period;
use crate::quantity::{Meter, Quantities};
use crate::query::{AsOf, GroupBy, UsageItem, UsageQuery, UsageReport};
use crate::quota::Window;
use crate::shared::Shared;
use crate::view::View;
use crate::view::row::{Grain, SLOT_US, Sums};

/// Windows that one question may span.
const WINDOWS_MAX: i64 = 20_000;
/// Items a page.
const LIMIT_MAX: usize = 10_000;
/// Groups that one question may ask for, the meter included.
const GROUP_BY_MAX: usize = 3;
/// Tags that one question may filter by.
const TAGS_MAX: usize = 16;

/// The values of what is grouped by, without the meter, and at the end the currency if wanted.
type Names = Vec<Option<String>>;

/// Where the next page begins, and up to where it counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Cursor {
    seq: u64,
    lsn: u64,
    at: Micros,
    /// Start of a window.
    start: Micros,
    /// The last item of it that was handed out; none of it if absent.
    after: Option<(Names, Option<Meter>)>,
}

impl Cursor {
    fn as_of(&self) -> AsOf {
        AsOf {
            seq: self.seq,
            lsn: self.lsn,
            at: self.at,
        }
    }
}

/// A checked question.
struct Plan<'a> {
    query: &'a UsageQuery,
    /// The windows from the page's first on.
    windows: Vec<Span>,
    cursor: Option<Cursor>,
    /// What items are grouped by, but for the meter.
    groups: Vec<&'a GroupBy>,
    by_meter: bool,
}

/// The sums of the first groups of a page.
struct Groups {
    sums: BTreeMap<(usize, Names), Sums>,
    /// How many groups are kept: those that come first.
    most: usize,
    /// Whether a group was left out.
    more: bool,
    /// The first group of the page.
    first: Option<(usize, Names)>,
}

/// What a page is made of.
struct Summed {
    groups: Groups,
    as_of: AsOf,
    currency: Option<String>,
    /// Windows that were summed; the others are for the next page.
    windows: usize,
}

/// Answers the question.
pub(crate) fn usage(shared: &Shared, query: &UsageQuery) -> Result<UsageReport, QueryError> {
    let plan = plan(query)?;
    if plan.rows_tell() && has_days(shared, &plan) {
        let summed = rows::sum(shared, &plan)?;
        // Days may have gone while they were read.
        if has_days(shared, &plan) {
            return Ok(plan.report(summed));
        }
    }
    Ok(plan.report(fold::sum(shared, &plan)?))
}

/// Whether the view keeps all the rows that windows are summed up from.
fn has_days(shared: &Shared, plan: &Plan<'_>) -> bool {
    let kept_from = shared.view().rows.store().detail_from();
    rows::grain(plan) == Grain::Month
        || plan
            .windows
            .first()
            .is_none_or(|first| first.start >= kept_from)
}

/// What the rows of all windows of a question by tenant come to; and what `also` finds in the view
/// at the same instant.
pub(crate) fn totals<T>(
    shared: &Shared,
    query: &UsageQuery,
    also: impl Fn(&View) -> T,
) -> Result<(AsOf, BTreeMap<String, Sums>, T), QueryError> {
    let plan = plan(query)?;
    let totals = rows::totals(shared, &plan, also)?;
    if has_days(shared, &plan) {
        return Ok(totals);
    }
    let kept = Period::of(shared.view().rows.store().detail_from());
    let fault = format!(
        "must not be before {kept}: the view keeps the days of closed months no longer \
         (ledger.detail_months); usage and exports are told from the journal"
    );
    Err(invalid("from", fault))
}

fn invalid(field: &'static str, fault: impl Into<String>) -> QueryError {
    QueryError::Invalid {
        field,
        fault: fault.into(),
    }
}

fn plan(query: &UsageQuery) -> Result<Plan<'_>, QueryError> {
    if matches!(query.window, Window::Minute | Window::Lifetime) {
        return Err(invalid("window", "must be hour, day or month"));
    }
    if query.limit == 0 || query.limit > LIMIT_MAX {
        return Err(invalid("limit", format!("must be from 1 to {LIMIT_MAX}")));
    }
    let by = &query.group_by;
    let twice = (1..by.len()).any(|at| by.iter().take(at).any(|other| Some(other) == by.get(at)));
    if by.len() > GROUP_BY_MAX || twice {
        let fault = format!("must be at most {GROUP_BY_MAX}, each once");
        return Err(invalid("group_by", fault));
    }
    if query.only.tags.len() > TAGS_MAX {
        return Err(invalid(
            "tag",
            format!("must be given at most {TAGS_MAX} times"),
        ));
    }
    let zone = calendar::zone(&query.timezone).ok_or_else(|| {
        let fault = format!("`{}` is not a known time zone", query.timezone);
        invalid("tz", fault)
    })?;
    for (field, at) in [("from", query.from), ("to", query.to)] {
        let span = calendar::span(&zone, query.window, at)
            .ok_or_else(|| invalid(field, "lies outside the calendar"))?;
        if span.start != at {
            let before = at - span.start <= span.end - at;
            let nearest = if before { span.start } else { span.end };
            return Err(QueryError::Border { field, nearest });
        }
    }
    if query.to <= query.from {
        return Err(invalid("to", "must be after from"));
    }
    let shortest = match query.window {
        Window::Month => 27 * DAY_US,
        Window::Day => 23 * HOUR_US,
        _ => HOUR_US,
    };
    if query.to.saturating_sub(query.from) / shortest > WINDOWS_MAX {
        let fault = format!("must be at most {WINDOWS_MAX} windows after from");
        return Err(invalid("to", fault));
    }
    let mut windows = calendar::spans(&zone, query.window, query.from, query.to);
    let cursor = match &query.cursor {
        None => None,
        Some(text) => Some(
            decode(text)
                .filter(|cursor| windows.iter().any(|span| span.start == cursor.start))
                .ok_or_else(stray)?,
        ),
    };
    windows.retain(|span| {
        cursor
            .as_ref()
            .is_none_or(|cursor| cursor.start <= span.start)
    });
    let groups = by.iter().filter(|by| **by != GroupBy::Meter).collect();
    Ok(Plan {
        query,
        windows,
        cursor,
        groups,
        by_meter: by.contains(&GroupBy::Meter),
    })
}

/// A cursor of another list, or of none.
fn stray() -> QueryError {
    invalid("cursor", "is not one of this list")
}

impl Plan<'_> {
    /// Whether the rows know everything that is asked for, and end where the windows do.
    fn rows_tell(&self) -> bool {
        let only = &self.query.only;
        let known =
            |by: &&&GroupBy| matches!(by, GroupBy::Tenant | GroupBy::Project | GroupBy::Function);
        let aligned = |span: &Span| span.start % SLOT_US == 0 && span.end % SLOT_US == 0;
        only.image.is_none()
            && only.key.is_none()
            && only.tags.is_empty()
            && self.groups.iter().filter(known).count() == self.groups.len()
            && self.windows.iter().all(aligned)
    }

    /// No groups yet.
    fn groups(&self) -> Groups {
        let first = self.cursor.as_ref().and_then(|cursor| cursor.after.clone());
        Groups {
            sums: BTreeMap::new(),
            most: self.query.limit.saturating_add(1),
            more: false,
            first: first.map(|(names, _)| (0, names)),
        }
    }

    /// The group of an entry, if that counts.
    fn names_of(&self, body: &Body) -> Option<Names> {
        let (tenant, hold, currency) = match body {
            Body::Settled(of) => (&of.hold.tenant, Some(&of.hold), &of.charge.currency),
            Body::Adjusted(of) => {
                let hold = of.what.reversed().map(|settled| &settled.hold);
                (&of.tenant, hold, &of.currency)
            }
            Body::Acted(_) => return None,
        };
        let passes = self.query.only.admits(body);
        let name = |by: &&GroupBy| Self::name_of(by, tenant, hold.map(Arc::as_ref));
        let currency = self.query.by_currency.then(|| Some(currency.clone()));
        let names = || self.groups.iter().map(name).chain(currency).collect();
        passes.then(names)
    }

    fn name_of(by: &GroupBy, tenant: &str, hold: Option<&Hold>) -> Option<String> {
        if *by == GroupBy::Tenant {
            return Some(tenant.to_owned());
        }
        let hold = hold?;
        match by {
            GroupBy::Project => Some(hold.project.clone()),
            GroupBy::Function => hold.function.clone(),
            GroupBy::Image => Some(hold.image.clone()),
            GroupBy::Key => Some(hold.key.clone()),
            GroupBy::Tag(key) => {
                let mut tags = hold.tags.iter();
                tags.find(|(name, _)| name == key)
                    .map(|(_, value)| value.clone())
            }
            GroupBy::Tenant | GroupBy::Meter => None,
        }
    }

    /// The place of the window around an instant.
    fn window_at(&self, at: Micros) -> Option<usize> {
        let after = self.windows.partition_point(|span| span.start <= at);
        let place = after.checked_sub(1)?;
        self.windows.get(place)?.contains(at).then_some(place)
    }

    fn report(&self, summed: Summed) -> UsageReport {
        let Summed {
            groups,
            as_of,
            currency,
            windows,
        } = summed;
        let cursor = |start, after| {
            let AsOf { seq, lsn, at } = as_of;
            encode(&Cursor {
                seq,
                lsn,
                at,
                start,
                after,
            })
        };
        let start_of = |window: usize| self.windows.get(window).map(|span| span.start);
        // Where to go on once all of these groups are told.
        let rest = match groups.sums.last_key_value() {
            Some(((window, names), _)) if groups.more => {
                let after = Some((names.clone(), Meter::MEASURED.last().copied()));
                start_of(*window).map(|start| cursor(start, after))
            }
            _ => start_of(windows).map(|start| cursor(start, None)),
        };
        let told = self
            .cursor
            .as_ref()
            .and_then(|cursor| cursor.after.as_ref());
        let (mut items, mut last) = (Vec::new(), None);
        for ((window, names), sums) in groups.sums.iter().filter(|(_, sums)| !sums.is_zero()) {
            let Some(span) = self.windows.get(*window) else {
                continue;
            };
            for (meter, item) in self.items(span, names, sums) {
                let before = |(after, most): &(Names, Option<Meter>)| {
                    *window == 0 && (names, meter) <= (after, *most)
                };
                if told.is_some_and(before) {
                    continue;
                }
                if items.len() == self.query.limit {
                    let next_cursor = last;
                    return UsageReport {
                        as_of,
                        currency,
                        items,
                        next_cursor,
                    };
                }
                items.push(item);
                if items.len() == self.query.limit {
                    last = Some(cursor(span.start, Some((names.clone(), meter))));
                }
            }
        }
        UsageReport {
            as_of,
            currency,
            items,
            next_cursor: rest,
        }
    }

    /// One item, or one for each meter used and one for adjustments.
    fn items(&self, span: &Span, names: &Names, sums: &Sums) -> Vec<(Option<Meter>, UsageItem)> {
        let overrun = sums.overrun();
        let (group, currency) = match names.split_last() {
            Some((currency, group)) if self.query.by_currency => (group, currency.clone()),
            _ => (names.as_slice(), None),
        };
        let item = |meter: Option<Meter>| UsageItem {
            start: span.start,
            end: span.end,
            group: group.to_vec(),
            currency: currency.clone(),
            meter,
            usage: meter.map_or(sums.usage, |meter| sums.usage.only(meter)),
            overrun: meter.map_or(overrun, |meter| overrun.only(meter)),
            cost: sums.cost(meter),
            adjusted: if meter.is_some() {
                Money::ZERO
            } else {
                sums.adjusted()
            },
        };
        if !self.by_meter {
            return vec![(None, item(None))];
        }
        let used = |meter: &Meter| sums.usage.get(*meter) > 0 || overrun.get(*meter) > 0;
        let meters = Meter::MEASURED.into_iter().filter(used);
        let meters = meters.map(|meter| (Some(meter), item(Some(meter))));
        // Adjustments are of no meter: they have an item of their own.
        let adjusted = UsageItem {
            usage: Quantities::default(),
            overrun: Quantities::default(),
            cost: Money::ZERO,
            ..item(None)
        };
        let adjusted = (sums.adjusted() != Money::ZERO).then_some((None, adjusted));
        adjusted.into_iter().chain(meters).collect()
    }
}

impl Groups {
    /// Room for every group.
    fn all() -> Self {
        Self {
            sums: BTreeMap::new(),
            most: usize::MAX,
            more: false,
            first: None,
        }
    }

    /// Changes the sums of a group, unless the page ends before it.
    fn change(&mut self, key: (usize, Names), change: impl FnOnce(&mut Sums)) {
        if self.first.as_ref().is_some_and(|first| key < *first) {
            return;
        }
        if let Some(sums) = self.sums.get_mut(&key) {
            return change(sums);
        }
        if self.sums.len() < self.most {
            return change(self.sums.entry(key).or_default());
        }
        // A group that is left out once comes after all that are kept from then on.
        self.more = true;
        if self
            .sums
            .last_key_value()
            .is_some_and(|(last, _)| key < *last)
        {
            change(self.sums.entry(key).or_default());
            self.sums.pop_last();
        }
    }

    /// Takes an entry away from its group, if that is kept.
    fn take_away(&mut self, key: &(usize, Names), body: &Body) {
        if let Some(sums) = self.sums.get_mut(key) {
            sums.take_away(body);
        }
    }
}

fn encode(cursor: &Cursor) -> String {
    let mut bytes = Vec::new();
    codec::append(&mut bytes, cursor);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(text: &str) -> Option<Cursor> {
    let digits = text.as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
    postcard::from_bytes(&bytes?).ok()
}

#[cfg(test)]
mod detail;
#[cfg(test)]
mod tests;
