//! What a period comes to for each tenant: the totals of all statements, in one pass over what
//! counts in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{each, plus, scope};
use crate::entry::{Body, Entry, Funding};
use crate::error::QueryError;
use crate::money::Money;
use crate::period::{Period, PeriodState};
use crate::shared::Shared;

/// The total of one tenant's statement, and what it is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatementTotal {
    /// The tenant.
    pub tenant: String,
    /// ISO 4217 code.
    pub currency: String,
    /// What runs cost.
    pub charged: Money,
    /// Adjustments and corrections.
    pub adjusted: Money,
    /// What credit has paid, below zero, with what was given back of it.
    pub credit: Money,
    /// From the exact sum to whole minor units.
    pub rounding: Money,
    /// What is payable: the sum of these.
    pub total: Money,
}

/// The totals of a period, by tenant in the order of their names, and how the period stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatementTotals {
    /// The period, and how it stands.
    pub state: PeriodState,
    /// The last entry that can count.
    pub through: u64,
    /// Tenants for whom nothing counts in the period are left out.
    pub totals: Vec<StatementTotal>,
}

/// The totals of all statements of a period.
pub(crate) fn totals(shared: &Arc<Shared>, period: Period) -> Result<StatementTotals, QueryError> {
    let scope = scope(shared, period);
    let mut sums: BTreeMap<String, StatementTotal> = BTreeMap::new();
    each(shared, None, &scope, |entry| take(&mut sums, entry))?;
    let mut totals: Vec<StatementTotal> = sums.into_values().collect();
    for one in &mut totals {
        let exact = plus(plus(one.charged, one.adjusted), one.credit);
        one.total = exact.to_minor(&one.currency);
        one.rounding = Money(one.total.0.saturating_sub(exact.0));
    }
    Ok(StatementTotals {
        state: scope.state,
        through: scope.through,
        totals,
    })
}

fn take(sums: &mut BTreeMap<String, StatementTotal>, entry: &Entry) {
    let (tenant, currency, funded) = match &entry.body {
        Body::Settled(settled) => {
            let currency = &settled.charge.currency;
            (&settled.hold.tenant, currency, &settled.funded)
        }
        Body::Adjusted(adjusted) => (&adjusted.tenant, &adjusted.currency, &adjusted.funded),
        Body::Acted(_) => return,
    };
    if !sums.contains_key(tenant) {
        let new = StatementTotal {
            tenant: tenant.clone(),
            currency: currency.clone(),
            charged: Money::ZERO,
            adjusted: Money::ZERO,
            credit: Money::ZERO,
            rounding: Money::ZERO,
            total: Money::ZERO,
        };
        sums.insert(tenant.clone(), new);
    }
    let Some(sum) = sums.get_mut(tenant) else {
        return;
    };
    match &entry.body {
        Body::Settled(settled) => {
            let lines = settled.charge.lines.iter();
            sum.charged = lines.fold(sum.charged, |sum, line| plus(sum, line.amount));
        }
        Body::Adjusted(adjusted) => {
            sum.adjusted = plus(sum.adjusted, adjusted.amount);
            sum.credit = plus(sum.credit, adjusted.refunded);
        }
        Body::Acted(_) => {}
    }
    for Funding { amount, .. } in funded {
        sum.credit = Money(sum.credit.0.saturating_sub(amount.0));
    }
}
