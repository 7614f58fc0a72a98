//! Periods: the calendar months in UTC, and closing them for good.

use ledger::{Closing, Effect, Period, PeriodState, Phase};
use serde::Serialize;
use utoipa::ToSchema;

use super::holds::{HoldView, hold};
use super::statements::{decimal, phase_name};
use super::usage::failed;
use crate::call::{Answer, Call, List, ok};
use crate::clock::rfc3339;
use crate::error::{ApiError, Problem};
use crate::registry::act;

/// Longest reason, in bytes.
const TEXT_MAX: usize = 200;

/// A calendar month in UTC.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PeriodView {
    /// The month.
    #[schema(example = "2026-11")]
    pub period: String,
    /// Its start, inclusive.
    pub start: String,
    /// Its end, exclusive.
    pub end: String,
    /// `open`; `grace`: it has ended and is not closed; `closed`: nothing changes it any more.
    pub state: &'static str,
    /// The entry that closed it, the last one that counts.
    pub closed_by: Option<u64>,
    /// When it was closed.
    pub closed_at: Option<String>,
}

/// A page of periods.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PeriodList {
    /// Newest first.
    pub items: Vec<PeriodView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// What `POST /v1/periods/{period}/close` takes.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct CloseBody {
    /// Only tells what would be closed and what stands in the way; `false` if absent.
    dry_run: Option<bool>,
    /// Why; stands in the audit log.
    reason: Option<String>,
}

/// What closing a period fixes, or would fix.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClosingView {
    /// The period as it is after this.
    pub period: PeriodView,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Why it cannot be closed now; null where it can, or was.
    pub refused: Option<String>,
    /// The last entry that counts, or would.
    pub through: u64,
    /// What it comes to, by tenant.
    pub totals: Vec<PeriodTotalView>,
    /// Open holds of the period, which stand in the way: the 100 oldest.
    pub holds: Vec<HoldView>,
    /// How many there are; decimal.
    pub holds_open: String,
    /// Adjustments that wait for approval; decimal. Approved later, they count in a later period.
    pub adjustments_pending: String,
}

/// What a tenant's period comes to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PeriodTotalView {
    /// The tenant.
    pub tenant: String,
    /// ISO 4217 code.
    pub currency: Option<String>,
    /// The charges of its runs, exact; decimal.
    pub charged: String,
    /// Its adjustments, exact; decimal, below zero for credits.
    pub adjusted: String,
}

/// Lists the months from the first command on, newest first
#[utoipa::path(get, path = "/v1/periods", tag = "money",
    params(("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = PeriodList), (status = 400, body = Problem)))]
pub(crate) async fn list(call: Call) -> Answer {
    let mut query = call.query()?;
    let page = query.page(&call.app, Period::parse);
    query.finish()?;
    let mut periods = call.app.ledger.periods();
    periods.reverse();
    let rest = periods
        .into_iter()
        .filter(|state| page.cursor.is_none_or(|after| state.period < after));
    let views = rest.take(page.limit.saturating_add(1)).map(view).collect();
    Ok(ok(&List::cut(views, page.limit, |last: &PeriodView| {
        last.period.clone()
    })))
}

/// Closes a month that has ended and has no open hold, for ever
///
/// A checkpoint that covers the closing entry is signed before this answers, unless that fails.
/// Runs that were held in it can no longer be settled, as there are none; what is corrected later
/// counts in a later month. With `dry_run` it only tells what would be closed.
#[utoipa::path(post, path = "/v1/periods/{period}/close", tag = "money",
    request_body = CloseBody, params(("period" = String, Path, description = "YYYY-MM")),
    responses((status = 200, body = ClosingView), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn close(call: Call) -> Answer {
    call.no_query()?;
    let known = Period::parse(call.path("period")).filter(|period| {
        let periods = call.app.ledger.periods();
        periods.iter().any(|state| state.period == *period)
    });
    let period = known.ok_or(ApiError::NotFound { what: "period" })?;
    let (dry_run, reason) = call.read(|body| {
        let dry_run = body.flag("dry_run").unwrap_or(false);
        Some((dry_run, body.text("reason", TEXT_MAX)))
    })?;
    if !dry_run {
        let actor = call.caller()?.actor(reason);
        let wanted = ledger::Act {
            tenant: None,
            effect: Some(Effect::ClosePeriod(period)),
            ..act(&actor, "period.close", "period", &period.to_string())
        };
        call.app.registry.record(wanted).await?;
        // What is closed is signed at once, not when the next checkpoint is due. A failure does not
        // undo the closing; it is logged and counted where it arises, and tried again.
        let app = std::sync::Arc::clone(&call.app);
        drop(call.app.blocking(move || app.proof.sign(&app.ledger)).await);
    }
    let ledger = call.app.ledger.clone();
    let closing = call.app.blocking(move || ledger.closing(period)).await?;
    Ok(ok(&closing_view(&closing.map_err(failed)?, dry_run)))
}

fn view(state: PeriodState) -> PeriodView {
    let closed = match state.phase {
        Phase::Closed(closed) => Some(closed),
        Phase::Open | Phase::Grace => None,
    };
    PeriodView {
        period: state.period.to_string(),
        start: rfc3339(state.period.start()),
        end: rfc3339(state.period.end()),
        state: phase_name(state),
        closed_by: closed.map(|closed| closed.entry),
        closed_at: closed.map(|closed| rfc3339(closed.at)),
    }
}

fn closing_view(closing: &Closing, dry_run: bool) -> ClosingView {
    let totals = closing.totals.iter().map(|total| PeriodTotalView {
        tenant: total.tenant.clone(),
        currency: total.currency.clone(),
        charged: decimal(total.charged),
        adjusted: decimal(total.adjusted),
    });
    ClosingView {
        period: view(closing.state),
        dry_run,
        refused: closing.refused.clone().filter(|_| dry_run),
        through: closing.through,
        totals: totals.collect(),
        holds: closing.holds.iter().map(|one| hold(one)).collect(),
        holds_open: closing.holds_open.to_string(),
        adjustments_pending: closing.pending.to_string(),
    }
}
