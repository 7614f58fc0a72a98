//! What a period would have cost by another rate card, beside what it did cost.

use std::sync::Arc;

use crate::entry::Body;
use crate::error::QueryError;
use crate::money::Money;
use crate::period::{Period, PeriodState};
use crate::rate::{Price, RateCard};
use crate::shared::Shared;
use crate::state::Billing;
use crate::statement::{self, Charged, StatementLine};

/// The charges of a period.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Priced {
    /// ISO 4217 code; `None` where nothing ran.
    pub currency: Option<String>,
    /// By meter, tier and rate.
    pub lines: Vec<StatementLine>,
    /// The exact sum, neither rounded nor adjusted, before credit.
    pub total: Money,
}

/// A period by the cards that were in force, and by another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Preview {
    /// The tenant.
    pub tenant: String,
    /// The period, and how it stands.
    pub state: PeriodState,
    /// The last entry that can count.
    pub through: u64,
    /// Runs that were priced.
    pub runs: u64,
    /// What they cost.
    pub was: Priced,
    /// What they would have cost by the other card, in the order in which they ended, with nothing
    /// carried over from the month before.
    pub would_be: Priced,
}

/// Prices a tenant's period by `card`. Records nothing.
pub(crate) fn preview(
    shared: &Arc<Shared>,
    tenant: &str,
    period: Period,
    card: &RateCard,
) -> Result<Preview, QueryError> {
    let scope = statement::scope(shared, period);
    let (mut was, mut would_be) = (Charged::default(), Charged::default());
    let (mut billing, mut runs, mut fault) = (Billing::default(), 0_u64, None);
    let start = period.start();
    statement::each(shared, Some(tenant), &scope, |entry| {
        let Body::Settled(settled) = &entry.body else {
            return;
        };
        if fault.is_some() {
            return;
        }
        runs += 1;
        was.add(&settled.charge, scope.card(settled.hold.rate_card));
        billing.open(start, card);
        let month = |price: &Price| billing.standing(price, start);
        match card.charge(&settled.posted, month) {
            Some(charge) => would_be.add(&charge, Some(card)),
            None => fault = Some(entry.seq),
        }
        billing.end(start, &settled.posted, card);
    })?;
    if let Some(seq) = fault {
        return Err(QueryError::Invalid {
            field: "price",
            fault: format!("makes entry {seq} cost more than can be counted"),
        });
    }
    Ok(Preview {
        tenant: tenant.to_owned(),
        state: scope.state,
        through: scope.through,
        runs,
        was: priced(was),
        would_be: priced(would_be),
    })
}

fn priced(charged: Charged) -> Priced {
    let total = charged.total;
    let (currency, lines) = charged.finish();
    Priced {
        currency,
        lines,
        total,
    }
}
