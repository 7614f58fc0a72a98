//! Usage from the view's rows: tenant, project and function in slots of 15 minutes, or in months.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fold;
use super::{Groups, Names, Plan, Summed};
use crate::calendar::month_number;
use crate::error::QueryError;
use crate::query::{AsOf, GroupBy};
use crate::quota::Window;
use crate::shared::Shared;
use crate::view::View;
use crate::view::row::{self, Grain, Key, Row, Sums};
use crate::view::store::Store;

/// How often to start again when rows changed under the scan, before holding them still.
const TRIES: usize = 3;

/// What is taken out of the view at one instant.
struct Cut {
    as_of: AsOf,
    currency: Option<String>,
    store: Arc<Store>,
    tenants: Vec<Rows>,
}

/// A tenant, its currency and its warm rows.
struct Rows {
    tenant: String,
    currency: Option<String>,
    warm: Vec<(Key, Row)>,
}

/// The rows changed while they were read.
struct Changed;

/// Sums up rows. A page after the first leaves out again what was added since.
pub(super) fn sum(shared: &Shared, plan: &Plan<'_>) -> Result<Summed, QueryError> {
    let (cut, groups, ()) = gather(shared, plan, || plan.groups(), |_view| ())?;
    finish(shared, plan, &cut, groups)
}

/// What the rows of all windows of the question come to, by tenant; and what `also` finds in the
/// view at the same instant.
pub(super) fn totals<T>(
    shared: &Shared,
    plan: &Plan<'_>,
    also: impl Fn(&View) -> T,
) -> Result<(AsOf, BTreeMap<String, Sums>, T), QueryError> {
    let (cut, groups, also) = gather(shared, plan, Groups::all, also)?;
    let mut totals: BTreeMap<String, Sums> = BTreeMap::new();
    for ((_, names), sums) in groups.sums {
        let tenant = names.into_iter().next().flatten();
        totals
            .entry(tenant.unwrap_or_default())
            .or_default()
            .add(&sums);
    }
    Ok((cut.as_of, totals, also))
}

/// Sums up at one instant, and asks the view for more at that same instant.
fn gather<T>(
    shared: &Shared,
    plan: &Plan<'_>,
    groups: impl Fn() -> Groups,
    also: impl Fn(&View) -> T,
) -> Result<(Cut, Groups, T), QueryError> {
    for _ in 0..TRIES {
        let view = shared.fresh_view();
        let (cut, also) = (cut(plan, &view)?, also(&view));
        drop(view);
        if let Ok(groups) = scan(plan, &cut, groups())? {
            return Ok((cut, groups, also));
        }
    }
    // Nothing changes while the view is held.
    let view = shared.fresh_view();
    let (cut, also) = (cut(plan, &view)?, also(&view));
    match scan(plan, &cut, groups())? {
        Ok(groups) => Ok((cut, groups, also)),
        Err(Changed) => Err(QueryError::ViewUnavailable),
    }
}

fn finish(
    shared: &Shared,
    plan: &Plan<'_>,
    cut: &Cut,
    mut groups: Groups,
) -> Result<Summed, QueryError> {
    let as_of = match &plan.cursor {
        None => cut.as_of,
        Some(cursor) if cursor.seq > cut.as_of.seq => return Err(super::stray()),
        Some(cursor) => {
            fold::take_away(shared, plan, (cursor.seq, cut.as_of.seq), &mut groups)?;
            cursor.as_of()
        }
    };
    Ok(Summed {
        groups,
        as_of,
        currency: cut.currency.clone(),
        windows: plan.windows.len(),
    })
}

/// Months in UTC have rows of their own.
pub(super) fn grain(plan: &Plan<'_>) -> Grain {
    if plan.query.window == Window::Month && plan.query.timezone == "UTC" {
        Grain::Month
    } else {
        Grain::Day
    }
}

fn keys(plan: &Plan<'_>, tenant: &str) -> (Vec<u8>, Vec<u8>) {
    let grain = grain(plan);
    let from = plan
        .windows
        .first()
        .map_or(plan.query.to, |span| span.start);
    let first = row::number(grain, from);
    let last = row::number(grain, plan.query.to - 1);
    let key = |number| row::start(tenant, grain, number);
    (key(first), key(last.saturating_add(1)))
}

fn cut(plan: &Plan<'_>, view: &View) -> Result<Cut, QueryError> {
    if view.rows_fault.is_some() {
        return Err(QueryError::ViewUnavailable);
    }
    let names = match &plan.query.only.tenant {
        Some(tenant) => vec![tenant.clone()],
        None => view.state.tenant_names(),
    };
    let warm = |tenant: String| {
        let (from, to) = keys(plan, &tenant);
        let currency = plan.query.by_currency;
        let warm = |(place, _)| view.rows.warm(place, &from, &to);
        Rows {
            warm: view.state.find(&tenant).map_or_else(Vec::new, warm),
            currency: currency
                .then(|| fold::tenants_currency(view, &tenant))
                .flatten(),
            tenant,
        }
    };
    Ok(Cut {
        as_of: view.as_of(),
        currency: fold::currency(view, plan),
        store: Arc::clone(view.rows.store()),
        tenants: names.into_iter().map(warm).collect(),
    })
}

/// Sums up the database's rows, but where there is a warm one, that.
fn scan(
    plan: &Plan<'_>,
    cut: &Cut,
    mut groups: Groups,
) -> Result<Result<Groups, Changed>, QueryError> {
    for rows in &cut.tenants {
        let warm = &rows.warm;
        let (from, to) = keys(plan, &rows.tenant);
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
            add(plan, &mut groups, rows, (&key, &row))?;
        }
        for (key, row) in warm {
            add(plan, &mut groups, rows, (key, row))?;
        }
    }
    Ok(Ok(groups))
}

fn add(
    plan: &Plan<'_>,
    groups: &mut Groups,
    rows: &Rows,
    (key, row): (&[u8], &Row),
) -> Result<(), QueryError> {
    let parsed = row::parse(&rows.tenant, key);
    let (number, project, function) = parsed.ok_or(QueryError::ViewUnavailable)?;
    let only = &plan.query.only;
    let other = |wanted: &Option<String>, found| {
        wanted
            .as_deref()
            .is_some_and(|wanted| Some(wanted) != found)
    };
    // An adjustment may belong to no project.
    let project = Some(project).filter(|project| !project.is_empty());
    if other(&only.project, project) || other(&only.function, function) {
        return Ok(());
    }
    let name = |by: &&GroupBy| match by {
        GroupBy::Tenant => Some(rows.tenant.clone()),
        GroupBy::Project => project.map(str::to_owned),
        _ => function.map(str::to_owned),
    };
    let currency = plan.query.by_currency.then(|| rows.currency.clone());
    let names: Names = plan.groups.iter().map(name).chain(currency).collect();
    for slot in &row.slots {
        if let Some(window) = window_of(plan, number, slot.number) {
            groups.change((window, names.clone()), |sums| sums.add(&slot.sums));
        }
    }
    Ok(())
}

fn window_of(plan: &Plan<'_>, number: u32, slot: u8) -> Option<usize> {
    match grain(plan) {
        Grain::Month => plan
            .windows
            .iter()
            .position(|span| month_number(span.start) == number),
        Grain::Day => plan.window_at(row::slot_start(number, slot)),
    }
}
