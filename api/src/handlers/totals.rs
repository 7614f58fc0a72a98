//! What a month comes to for all tenants: the totals of their statements in one answer.

use ledger::StatementTotal;
use serde::Serialize;
use utoipa::ToSchema;

use super::statements::{decimal, month, phase_name, reading};
use crate::call::{Answer, Call, List, ok};
use crate::error::Problem;

/// The totals of a month's statements.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TotalList {
    /// The calendar month in UTC.
    #[schema(example = "2026-11")]
    pub period: String,
    /// `open`, `grace` (ended, not closed) or `closed`.
    pub state: &'static str,
    /// The last entry that can count; of a closed month, the entry that closed it.
    pub through: u64,
    /// By tenant; without those for whom nothing counts in the month.
    pub items: Vec<TotalView>,
    /// What to give as `cursor` for the next page.
    pub next_cursor: Option<String>,
}

/// The total of one tenant's statement. Amounts are decimals.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TotalView {
    /// The tenant.
    pub tenant: String,
    /// ISO 4217 code.
    pub currency: String,
    /// What runs cost.
    pub charged: String,
    /// Adjustments and corrections.
    pub adjusted: String,
    /// What credit has paid, below zero, with what was given back of it.
    pub credit: String,
    /// From the exact sum to whole minor units.
    pub rounding: String,
    /// What is payable: the sum of these.
    pub total: String,
}

/// Shows what a month comes to for each tenant (for operators)
#[utoipa::path(get, path = "/v1/statements/totals", tag = "money",
    params(("period" = Option<String>, Query, description = "YYYY-MM; absent: this month"),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = TotalList), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn totals(call: Call) -> Answer {
    call.operator()?;
    let mut query = call.query()?;
    let page = query.page(&call.app, |cursor| Some(cursor.to_owned()));
    let period = month(&call, &mut query);
    query.finish()?;
    let ledger = call.app.ledger.clone();
    let made = reading(&call, move || ledger.statement_totals(period)).await?;
    let behind = |one: &&StatementTotal| {
        let after = page.cursor.as_ref();
        after.is_none_or(|after| one.tenant > *after)
    };
    let rest = made.totals.iter().filter(behind);
    let views = rest.take(page.limit.saturating_add(1)).map(view).collect();
    let list = List::cut(views, page.limit, |last: &TotalView| last.tenant.clone());
    Ok(ok(&TotalList {
        period: period.to_string(),
        state: phase_name(made.state),
        through: made.through,
        items: list.items,
        next_cursor: list.next_cursor,
    }))
}

fn view(of: &StatementTotal) -> TotalView {
    TotalView {
        tenant: of.tenant.clone(),
        currency: of.currency.clone(),
        charged: decimal(of.charged),
        adjusted: decimal(of.adjusted),
        credit: decimal(of.credit),
        rounding: decimal(of.rounding),
        total: decimal(of.total),
    }
}
