//! Statements of tenants' months, and what a month would have cost by a card that is only drafted.

use ledger::{LineKind, Money, Period, PeriodState, Phase, Priced, RateCard, StatementLine};
use serde::Serialize;
use utoipa::ToSchema;

use super::rates::{self, RateBody};
use super::usage::failed;
use crate::call::{Answer, Call, Query, ok};
use crate::clock::rfc3339;
use crate::error::{ApiError, Problem};
use crate::shape::plain;

/// What one tenant's month comes to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatementView {
    /// The tenant.
    pub tenant: String,
    /// The calendar month in UTC.
    #[schema(example = "2026-11")]
    pub period: String,
    /// Its start, inclusive.
    pub start: String,
    /// Its end, exclusive.
    pub end: String,
    /// `open`, `grace` (ended, not closed) or `closed`: then the statement is the same for ever.
    pub state: &'static str,
    /// ISO 4217 code; null where nothing counts in the month.
    pub currency: Option<String>,
    /// The last entry that can count; of a closed month, the entry that closed it.
    pub through: u64,
    /// What was used, by meter, tier and rate; adjustments and corrections; credit; rounding.
    pub items: Vec<LineView>,
    /// Always null: the list is bounded.
    pub next_cursor: Option<String>,
    /// What is payable: exactly the sum of the items, in whole minor units; decimal.
    pub total: String,
}

/// A line of a statement.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineView {
    /// `included`, `usage`, `adjustment`, `correction` (of a closed month), `refund` (of credit),
    /// `credit` or `rounding`.
    pub kind: &'static str,
    /// What was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meter: Option<&'static str>,
    /// In which tier of its price, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<u8>,
    /// How much, in base units of the meter, or packages; decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<String>,
    /// Base units in one priced unit; decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_size: Option<String>,
    /// The price of one unit; decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// The entry of the adjustment, or of the grant that has paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
    /// The entry that is reversed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reverses: Option<u64>,
    /// The closed month that is corrected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrects: Option<String>,
    /// Why; of credit, the grant's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it adds to the total; decimal, below zero for what is taken off.
    pub amount: String,
}

/// A month by the cards that were in force, and by a drafted one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PreviewView {
    /// The tenant.
    pub tenant: String,
    /// The calendar month in UTC.
    pub period: String,
    /// `open`, `grace` or `closed`.
    pub state: &'static str,
    /// The last entry that can count.
    pub through: u64,
    /// How many runs were priced; decimal.
    pub runs: String,
    /// What they cost.
    pub was: PricedView,
    /// What they would have cost, in the order in which they ended.
    pub would_be: PricedView,
    /// By how much that is more; decimal. Null where the currencies differ.
    pub difference: Option<String>,
}

/// The charges of a month, neither rounded nor adjusted, before credit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PricedView {
    /// ISO 4217 code; null where nothing ran.
    pub currency: Option<String>,
    /// By meter, tier and rate.
    pub lines: Vec<LineView>,
    /// Exactly the sum of the lines; decimal.
    pub total: String,
}

/// Shows what a tenant's month comes to, line by line
#[utoipa::path(get, path = "/v1/statements", tag = "money",
    params(("period" = Option<String>, Query, description = "YYYY-MM; absent: this month"),
        ("tenant" = Option<String>, Query)),
    responses((status = 200, body = StatementView), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn statement(call: Call) -> Answer {
    let (tenant, period) = which(&call, call.query()?)?;
    let ledger = call.app.ledger.clone();
    let made = reading(&call, move || ledger.statement(&tenant, period)).await?;
    Ok(ok(&StatementView {
        tenant: made.tenant.clone(),
        period: period.to_string(),
        start: rfc3339(period.start()),
        end: rfc3339(period.end()),
        state: phase_name(made.state),
        currency: made.currency.clone(),
        through: made.through,
        items: made.lines.iter().map(line).collect(),
        next_cursor: None,
        total: decimal(made.total),
    }))
}

/// Prices a tenant's month by a drafted card, beside what it did cost; records nothing (for
/// operators)
///
/// The whole month is priced by the draft, whatever its `effective_from`, with nothing carried over
/// from the month before.
#[utoipa::path(post, path = "/v1/rates/preview", tag = "money", request_body = RateBody,
    params(("period" = Option<String>, Query, description = "YYYY-MM; absent: this month"),
        ("tenant" = Option<String>, Query)),
    responses((status = 200, body = PreviewView), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 503, body = Problem)))]
pub(crate) async fn preview(call: Call) -> Answer {
    call.operator()?;
    let (tenant, period) = which(&call, call.query()?)?;
    let card = RateCard::read(serde_json::Value::Object(call.object()?))
        .map_err(|error| ApiError::invalid("", rates::told(&error)))?;
    let ledger = call.app.ledger.clone();
    let made = reading(&call, move || ledger.preview(&tenant, period, &card)).await?;
    let same = made.was.currency == made.would_be.currency;
    let more = made.would_be.total.0.saturating_sub(made.was.total.0);
    Ok(ok(&PreviewView {
        tenant: made.tenant,
        period: period.to_string(),
        state: phase_name(made.state),
        through: made.through,
        runs: made.runs.to_string(),
        difference: same.then(|| decimal(Money(more))),
        was: priced(made.was),
        would_be: priced(made.would_be),
    }))
}

/// The tenant and the month that a query names.
fn which(call: &Call, mut query: Query) -> Result<(String, Period), ApiError> {
    let tenant = call.one_tenant(&mut query)?;
    let period = month(call, &mut query);
    query.finish()?;
    Ok((tenant.profile.name.clone(), period))
}

/// The month that a query names; this one, if it names none.
pub(super) fn month(call: &Call, query: &mut Query) -> Period {
    let this = Period::of(call.app.clock.wall_us());
    match query.take("period") {
        None => this,
        Some(text) => {
            let period = Period::parse(&text).filter(|period| *period <= this);
            if period.is_none() {
                let detail = format!("must be a month as YYYY-MM, up to {this}");
                query.faults.add("?period", detail);
            }
            period.unwrap_or(this)
        }
    }
}

/// Reads much of the ledger, where that holds up nobody, and not too much at once.
pub(super) async fn reading<T: Send + 'static>(
    call: &Call,
    read: impl FnOnce() -> Result<T, ledger::QueryError> + Send + 'static,
) -> Result<T, ApiError> {
    let pass = call.app.reports.enter(call.caller()?)?;
    let work = move || {
        let _pass = pass;
        read()
    };
    call.app.blocking(work).await?.map_err(failed)
}

pub(super) fn phase_name(state: PeriodState) -> &'static str {
    match state.phase {
        Phase::Open => "open",
        Phase::Grace => "grace",
        Phase::Closed(_) => "closed",
    }
}

pub(super) fn decimal(money: Money) -> String {
    plain(&money.to_string()).to_owned()
}

fn priced(of: Priced) -> PricedView {
    PricedView {
        lines: of.lines.iter().map(line).collect(),
        total: decimal(of.total),
        currency: of.currency,
    }
}

fn line(of: &StatementLine) -> LineView {
    LineView {
        kind: match of.kind {
            LineKind::Included => "included",
            LineKind::Usage => "usage",
            LineKind::Adjustment => "adjustment",
            LineKind::Correction => "correction",
            LineKind::Refund => "refund",
            LineKind::Credit => "credit",
            LineKind::Rounding => "rounding",
        },
        meter: of.meter.map(ledger::Meter::name),
        tier: of.tier,
        quantity: of.quantity.map(|quantity| quantity.to_string()),
        unit_size: of.unit_size.map(|size| size.to_string()),
        rate: of.rate.map(decimal),
        entry: of.entry,
        reverses: of.reverses,
        corrects: of.corrects.map(|period| period.to_string()),
        description: of.description.clone(),
        amount: decimal(of.amount),
    }
}
