//! Usage per window and group, summed from the view's rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::calendar::{self, HOUR_US, Span};
use crate::clock::Micros;
use crate::codec;
use crate::error::QueryError;
use crate::quantity::Meter;
use crate::query::{AsOf, GroupBy, UsageItem, UsageQuery, UsageReport};
use crate::quota::Window;
use crate::shared::Shared;
use crate::view::View;
use crate::view::row::{self, Grain, Key, Row, Sums};
use crate::view::store::Store;

/// Windows that one question may span.
const WINDOWS_MAX: i64 = 20_000;
/// Groups times windows that one question may sum up.
const SUMS_MAX: usize = 1_000_000;
/// Items a page.
const LIMIT_MAX: usize = 10_000;
/// How often to start again when rows changed under the scan, before holding them still.
const TRIES: usize = 3;

/// What an item is grouped by, without the window.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
struct Names {
    tenant: Option<String>,
    project: Option<String>,
    function: Option<String>,
}

/// The last item of a page.
type Cursor = (Micros, Names, Option<Meter>);

type Groups = BTreeMap<(usize, Names), Sums>;

/// A checked question.
struct Plan<'a> {
    query: &'a UsageQuery,
    windows: Vec<Span>,
    grain: Grain,
}

/// What is taken out of the view at one instant.
struct Cut {
    as_of: AsOf,
    currency: Option<String>,
    store: Arc<Store>,
    tenants: Vec<(String, Vec<(Key, Row)>)>,
}

/// The rows changed while they were read.
struct Changed;

/// Answers the question.
pub(crate) fn usage(shared: &Shared, query: &UsageQuery) -> Result<UsageReport, QueryError> {
    let plan = plan(query)?;
    let (cut, groups, ()) = plan.gather(shared, |_view| ())?;
    plan.report(&cut, groups)
}

/// What the rows of all windows of the question come to, by tenant; and what `also` finds in the
/// view at the same instant.
pub(crate) fn totals<T>(
    shared: &Shared,
    query: &UsageQuery,
    also: impl Fn(&View) -> T,
) -> Result<(AsOf, BTreeMap<String, Sums>, T), QueryError> {
    let plan = plan(query)?;
    let (cut, groups, also) = plan.gather(shared, also)?;
    let mut totals: BTreeMap<String, Sums> = BTreeMap::new();
    for ((_, names), sums) in groups {
        totals
            .entry(names.tenant.unwrap_or_default())
            .or_default()
            .add(&sums);
    }
    Ok((cut.as_of, totals, also))
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
    let zone = calendar::zone(&query.timezone).ok_or_else(|| {
        invalid(
            "tz",
            format!("`{}` is not a known time zone", query.timezone),
        )
    })?;
    for (field, at) in [("from", query.from), ("to", query.to)] {
        let span = calendar::span(&zone, query.window, at)
            .ok_or_else(|| invalid(field, "lies outside the calendar"))?;
        if span.start != at {
            let nearest = if at - span.start <= span.end - at {
                span.start
            } else {
                span.end
            };
            return Err(QueryError::Border { field, nearest });
        }
    }
    if query.to <= query.from {
        return Err(invalid("to", "must be after from"));
    }
    let shortest = if query.window == Window::Hour {
        HOUR_US
    } else {
        23 * HOUR_US
    };
    if query.to.saturating_sub(query.from) / shortest > WINDOWS_MAX {
        return Err(invalid(
            "to",
            format!("must be at most {WINDOWS_MAX} windows after from"),
        ));
    }
    let windows = calendar::spans(&zone, query.window, query.from, query.to);
    let by_month = query.window == Window::Month && query.timezone == "UTC";
    Ok(Plan {
        query,
        windows,
        grain: if by_month { Grain::Month } else { Grain::Day },
    })
}

impl Plan<'_> {
    /// Sums up at one instant, and asks the view for more at that same instant.
    fn gather<T>(
        &self,
        shared: &Shared,
        also: impl Fn(&View) -> T,
    ) -> Result<(Cut, Groups, T), QueryError> {
        for _ in 0..TRIES {
            let view = shared.fresh_view();
            let (cut, also) = (self.cut(&view)?, also(&view));
            drop(view);
            if let Ok(groups) = self.sum(&cut)? {
                return Ok((cut, groups, also));
            }
        }
        let view = shared.fresh_view();
        let (cut, also) = (self.cut(&view)?, also(&view));
        match self.sum(&cut)? {
            Ok(groups) => Ok((cut, groups, also)),
            Err(Changed) => Err(QueryError::ViewUnavailable),
        }
    }

    fn keys(&self, tenant: &str) -> (Vec<u8>, Vec<u8>) {
        let first = row::number(self.grain, self.query.from);
        let last = row::number(self.grain, self.query.to - 1);
        let key = |number| row::start(tenant, self.grain, number);
        (key(first), key(last.saturating_add(1)))
    }

    fn cut(&self, view: &View) -> Result<Cut, QueryError> {
        if view.rows_fault.is_some() {
            return Err(QueryError::ViewUnavailable);
        }
        let names = match &self.query.tenant {
            Some(tenant) => vec![tenant.clone()],
            None => view.state.tenant_names(),
        };
        let warm = |tenant: String| {
            let (from, to) = self.keys(&tenant);
            let rows = view.rows.warm(&tenant, &from, &to);
            (tenant, rows)
        };
        let card = view.state.cards().first();
        Ok(Cut {
            as_of: view.as_of(),
            currency: card.map(|card| card.card.currency.clone()),
            store: Arc::clone(view.rows.store()),
            tenants: names.into_iter().map(warm).collect(),
        })
    }

    /// Sums up the database's rows, but where there is a warm one, that.
    fn sum(&self, cut: &Cut) -> Result<Result<Groups, Changed>, QueryError> {
        let mut groups = Groups::new();
        for (tenant, warm) in &cut.tenants {
            let (from, to) = self.keys(tenant);
            for stored in cut.store.scan(from, to) {
                let (key, value) = stored?;
                if warm
                    .binary_search_by(|(warm, _)| warm.as_ref().cmp(&key))
                    .is_ok()
                {
                    continue;
                }
                let row = Row::decode(&value).ok_or(QueryError::ViewUnavailable)?;
                if row.lsn > cut.as_of.lsn {
                    return Ok(Err(Changed));
                }
                self.add(&mut groups, tenant, &key, &row)?;
            }
            for (key, row) in warm {
                self.add(&mut groups, tenant, key, row)?;
            }
        }
        Ok(Ok(groups))
    }

    fn add(
        &self,
        groups: &mut Groups,
        tenant: &str,
        key: &[u8],
        row: &Row,
    ) -> Result<(), QueryError> {
        let parsed = row::parse(tenant, key);
        let (number, project, function) = parsed.ok_or(QueryError::ViewUnavailable)?;
        let query = self.query;
        let other = |wanted: &Option<String>, found| {
            wanted
                .as_deref()
                .is_some_and(|wanted| Some(wanted) != found)
        };
        if other(&query.project, Some(project)) || other(&query.function, function) {
            return Ok(());
        }
        let by = |group| query.group_by.contains(&group);
        let names = Names {
            tenant: by(GroupBy::Tenant).then(|| tenant.to_owned()),
            project: by(GroupBy::Project).then(|| project.to_owned()),
            function: function
                .filter(|_| by(GroupBy::Function))
                .map(str::to_owned),
        };
        for slot in &row.slots {
            let Some(window) = self.window_of(number, slot.number) else {
                continue;
            };
            groups
                .entry((window, names.clone()))
                .or_default()
                .add(&slot.sums);
        }
        if groups.len() > SUMS_MAX {
            return Err(invalid(
                "group_by",
                "makes too many groups; ask for a shorter time",
            ));
        }
        Ok(())
    }

    fn window_of(&self, number: u32, slot: u8) -> Option<usize> {
        match self.grain {
            Grain::Month => self
                .windows
                .iter()
                .position(|span| calendar::month_number(span.start) == number),
            Grain::Day => {
                let at = row::slot_start(number, slot);
                let after = self.windows.partition_point(|span| span.start <= at);
                let place = after.checked_sub(1)?;
                self.windows.get(place)?.contains(at).then_some(place)
            }
        }
    }

    fn report(&self, cut: &Cut, groups: Groups) -> Result<UsageReport, QueryError> {
        let after = match &self.query.cursor {
            None => None,
            Some(text) => {
                Some(decode(text).ok_or_else(|| invalid("cursor", "is not one of this list"))?)
            }
        };
        let mut items = Vec::new();
        let mut next_cursor = None;
        let mut last = None;
        'groups: for ((window, names), sums) in groups {
            let Some(span) = self.windows.get(window) else {
                continue;
            };
            for (meter, item) in self.items(span, &names, &sums) {
                let place: Cursor = (span.start, names.clone(), meter);
                if after.as_ref().is_some_and(|after| place <= *after) {
                    continue;
                }
                if items.len() == self.query.limit {
                    next_cursor = last.as_ref().map(encode);
                    break 'groups;
                }
                items.push(item);
                last = Some(place);
            }
        }
        Ok(UsageReport {
            as_of: cut.as_of,
            currency: cut.currency.clone(),
            items,
            next_cursor,
        })
    }

    /// One item, or one for each meter used.
    fn items(&self, span: &Span, names: &Names, sums: &Sums) -> Vec<(Option<Meter>, UsageItem)> {
        let overrun = sums.overrun();
        let item = |meter: Option<Meter>| UsageItem {
            start: span.start,
            end: span.end,
            tenant: names.tenant.clone(),
            project: names.project.clone(),
            function: names.function.clone(),
            meter,
            usage: meter.map_or(sums.usage, |meter| sums.usage.only(meter)),
            overrun: meter.map_or(overrun, |meter| overrun.only(meter)),
            cost: sums.cost(meter),
        };
        if !self.query.group_by.contains(&GroupBy::Meter) {
            return vec![(None, item(None))];
        }
        let used = |meter: &Meter| sums.usage.get(*meter) > 0 || overrun.get(*meter) > 0;
        let meters = Meter::MEASURED.into_iter().filter(used);
        meters
            .map(|meter| (Some(meter), item(Some(meter))))
            .collect()
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
