//! Statements against rows, month by month.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Compared, Used, compare, one_currency, query, used};
use crate::clock::Micros;
use crate::error::QueryError;
use crate::money::Money;
use crate::period::{Period, Phase};
use crate::query::AsOf;
use crate::quota::Window;
use crate::shared::Shared;
use crate::state::Amounts;
use crate::{statement, usage};

/// What the lines of all statements of a month come to, against the month's rows. Credit and
/// rounding are left out: they settle what is owed, and are not what was used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MonthCompared {
    /// The month.
    pub period: Period,
    /// How it stands.
    pub phase: Phase,
    /// Up to where both include everything.
    pub as_of: AsOf,
    /// The sums over all tenants; empty where there is more than one currency.
    pub totals: Vec<Compared>,
    /// The tenants where the two differ.
    pub differences: Vec<Compared>,
}

/// The months that a range touches.
pub(super) fn compared(
    shared: &Arc<Shared>,
    (from, to): (Micros, Micros),
    entries_max: u64,
) -> Result<Vec<MonthCompared>, QueryError> {
    let mut months = Vec::new();
    let mut period = Period::of(from);
    while period.start() < to {
        months.push(month(shared, period, entries_max)?);
        period = period.next();
    }
    Ok(months)
}

fn month(
    shared: &Arc<Shared>,
    period: Period,
    entries_max: u64,
) -> Result<MonthCompared, QueryError> {
    let asked = query(period.start(), period.end(), Window::Month);
    let (as_of, rows, one_currency) = usage::totals(shared, &asked, one_currency)?;
    let (phase, sums) = statement::sums(shared, period, as_of.seq, entries_max)?;
    let money = |cost: Money| Used {
        posted: Amounts {
            cost: cost.0,
            ..Amounts::default()
        },
        ..Used::default()
    };
    let sums: BTreeMap<String, Used> = sums
        .into_iter()
        .map(|(tenant, cost)| (tenant, money(cost)))
        .collect();
    let rows = rows
        .into_iter()
        .map(|(tenant, sums)| (tenant, money(Money(used(&sums).posted.cost))));
    let (totals, differences) = compare(&sums, &rows.collect(), one_currency);
    Ok(MonthCompared {
        period,
        phase,
        as_of,
        totals,
        differences,
    })
}
