//! What operators look through: who did what, and whether the books agree with each other and with
//! the kernel.

pub(super) mod detail;

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::{
    Adjusted, AsOf, Body, Compared, Entry, EntryKind, EntryQuery, Ledger, Meter, Money, QueryError,
    Reconciled,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::entries::{EntryList, entry};
use super::usage::{AsOfView, failed};
use crate::app::App;
use crate::call::{Answer, Call, ok};
use crate::clock::rfc3339;
use crate::error::{ApiError, Problem};
use crate::shape;

/// Acts that are read from the ledger at once.
const CHUNK: usize = 1000;

/// One quantity, found in two ways that know nothing of each other.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PairView {
    /// Whose; null for all tenants together.
    pub tenant: Option<String>,
    /// Of what; `cost` is in the currency.
    pub meter: String,
    /// Whether it is what was measured above what was charged.
    pub overrun: bool,
    /// What was found in each of the two ways, by their names; decimal.
    pub found: BTreeMap<&'static str, String>,
}

/// Entries of a range against the rows that usage reports are made from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RangeView {
    /// Start, inclusive.
    pub from: String,
    /// End, exclusive; what counts is when a run's hold was opened.
    pub to: String,
    /// Up to where this includes everything.
    pub as_of: AsOfView,
    /// Settlements in the range.
    pub settlements: u64,
    /// Entries read to find them.
    pub entries_read: u64,
    /// By meter, over all tenants; without `cost` where there is more than one currency.
    pub totals: Vec<PairView>,
    /// Where the two differ; none expected.
    pub differences: Vec<PairView>,
}

/// Rows of all time against the counters that quotas are decided by.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BalancesView {
    /// Up to where this includes everything.
    pub as_of: AsOfView,
    /// By meter, over all tenants.
    pub totals: Vec<PairView>,
    /// Where the two differ; none expected.
    pub differences: Vec<PairView>,
}

/// CPU time of this server's executions against the kernel's counter of all its sandboxes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CpuView {
    /// What the kernel has counted since the server began to serve, in us.
    pub kernel_us: u64,
    /// What was charged of it.
    pub charged_us: u64,
    /// What was measured above what was held: the platform's loss.
    pub overrun_us: u64,
    /// The rest: what `explained_by` names. Below zero something was charged that the kernel has
    /// not counted.
    pub residual_us: i64,
    /// What of the rest sandboxes have used before they were anybody's: the making of each, and
    /// what was started ahead.
    pub making_us: u64,
    /// The rest for each execution that has ended.
    pub residual_per_execution_us: i64,
    /// Executions settled.
    pub executions: u64,
    /// Executions released without a charge; what they used is in the rest.
    pub released: u64,
    /// Executions under way; what they have used so far is in the rest.
    pub in_flight: u64,
    /// What the rest consists of.
    pub explained_by: [&'static str; 4],
}

/// Whether the books agree.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReconciliationView {
    /// Whether there is no difference, and no CPU time charged that the kernel has not counted.
    pub agrees: bool,
    /// Entries against rows.
    pub range: RangeView,
    /// Rows against balances.
    pub balances: BalancesView,
    /// Executions against the kernel.
    pub cpu: CpuView,
}

/// What an act must be to be listed.
struct Wanted {
    actor: Option<String>,
    action: Option<String>,
    subject: Option<String>,
}

impl Wanted {
    fn passes(&self, entry: &Entry) -> bool {
        let (actor, action, subject) = match &entry.body {
            Body::Acted(acted) => (&acted.actor, acted.action.as_str(), &acted.subject),
            Body::Adjusted(adjusted) => (&adjusted.approver.key, APPROVED, &approved(adjusted)),
            Body::Settled(_) => return false,
        };
        let same = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        same(&self.actor, actor) && same(&self.action, action) && same(&self.subject, subject)
    }
}

/// The action by which an adjustment becomes an entry of its own.
pub(super) const APPROVED: &str = "adjustment.approve";

/// What was approved: the subject on which it was proposed.
pub(super) fn approved(adjusted: &Adjusted) -> String {
    format!("adjustments/{}", adjusted.tenant)
}

/// Lists administrative acts by number, oldest first, approved adjustments among them (for
/// operators)
#[utoipa::path(get, path = "/v1/audit", tag = "proof",
    params(("actor" = Option<String>, Query, description = "a key's jti, or server"),
        ("action" = Option<String>, Query), ("subject" = Option<String>, Query),
        ("tenant" = Option<String>, Query),
        ("from" = Option<String>, Query), ("to" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = EntryList), (status = 400, body = Problem),
        (status = 403, body = Problem)))]
pub(crate) async fn acts(call: Call) -> Answer {
    let mut query = call.query()?;
    let tenant = call.tenant(&mut query)?;
    let page = query.page(&call.app, |cursor| cursor.parse().ok());
    let wanted = Wanted {
        actor: query.take("actor"),
        action: query.take("action"),
        subject: query.take("subject"),
    };
    let (from, to) = (query.time("from"), query.time("to"));
    query.finish()?;
    let asked = EntryQuery {
        after: page.cursor.unwrap_or(0),
        tenant: tenant.map(|tenant| tenant.profile.name.clone()),
        kind: None,
        from,
        to,
        limit: CHUNK,
    };
    let (ledger, most) = (
        call.app.ledger.clone(),
        call.app.config.server.list_scan_max,
    );
    let found = call
        .app
        .blocking(move || select(&ledger, asked, &wanted, (page.limit, most)))
        .await?
        .map_err(failed)?;
    let (as_of, entries, next) = found;
    Ok(ok(&EntryList {
        items: entries.iter().map(entry).collect(),
        next_cursor: next.map(|next| next.to_string()),
        as_of: as_of.into(),
    }))
}

/// At most `limit` acts, of at most `most` that are looked at; and where to go on.
fn select(
    ledger: &Ledger,
    mut asked: EntryQuery,
    wanted: &Wanted,
    (limit, most): (usize, usize),
) -> Result<(AsOf, Vec<Entry>, Option<u64>), QueryError> {
    let mut found = Vec::new();
    let mut rounds = most.div_ceil(CHUNK);
    loop {
        let (as_of, entries, next) = piece(ledger, &asked)?;
        for entry in entries {
            let seq = entry.seq;
            if wanted.passes(&entry) {
                found.push(entry);
            }
            if found.len() == limit {
                return Ok((as_of, found, Some(seq).filter(|seq| *seq < as_of.seq)));
            }
        }
        rounds = rounds.saturating_sub(1);
        match next {
            Some(next) if rounds > 0 => asked.after = next,
            next => return Ok((as_of, found, next)),
        }
    }
}

/// The next acts, those that are adjustments among them, and up to where all were looked at, unless
/// that is the end.
fn piece(
    ledger: &Ledger,
    asked: &EntryQuery,
) -> Result<(AsOf, Vec<Entry>, Option<u64>), QueryError> {
    let of = |kind| {
        ledger.entries(&EntryQuery {
            kind: Some(kind),
            ..asked.clone()
        })
    };
    let (acts, adjustments) = (of(EntryKind::Acted)?, of(EntryKind::Adjusted)?);
    let next = acts.next.into_iter().chain(adjustments.next).min();
    let through = next.unwrap_or(acts.as_of.seq);
    let mut entries = acts.entries;
    entries.extend(adjustments.entries);
    entries.retain(|entry| entry.seq <= through);
    entries.sort_unstable_by_key(|entry| entry.seq);
    Ok((acts.as_of, entries, next))
}

/// Holds entries, usage, balances and the kernel's CPU counter against each other (for operators)
#[utoipa::path(get, path = "/v1/reconciliation", tag = "proof",
    params(("from" = String, Query, description = "RFC 3339, on an hour"),
        ("to" = String, Query, description = "RFC 3339, on an hour, at most 31 days after from")),
    responses((status = 200, body = ReconciliationView), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn reconciliation(call: Call) -> Answer {
    call.operator()?;
    let mut query = call.query()?;
    for name in ["from", "to"] {
        if !query.has(name) {
            query.faults.add(format!("?{name}"), "is required");
        }
    }
    let (from, to) = (query.time("from"), query.time("to"));
    query.finish()?;
    let (from, to) = (from.unwrap_or(0), to.unwrap_or(0));
    let Ok(_turn) = call.app.books.turn.try_acquire() else {
        return Err(ApiError::Overloaded {
            detail: "another reconciliation is under way",
        });
    };
    let (ledger, most) = (
        call.app.ledger.clone(),
        call.app.config.proof.reconciliation_entries_max,
    );
    let found = call.app.blocking(move || ledger.reconcile(from, to, most));
    let found = found.await?.map_err(failed)?;
    let cpu = cpu(&call.app)?;
    let agrees = found.range_differences.is_empty()
        && found.balances_differences.is_empty()
        && cpu.residual_us >= 0;
    Ok(ok(&ReconciliationView {
        agrees,
        range: range(&found, from, to),
        balances: BalancesView {
            as_of: found.balances_as_of.into(),
            totals: pairs(&found.balances, ["rows", "balances"]),
            differences: pairs(&found.balances_differences, ["rows", "balances"]),
        },
        cpu,
    }))
}

fn range(found: &Reconciled, from: i64, to: i64) -> RangeView {
    let names = ["entries", "rows"];
    RangeView {
        from: rfc3339(from),
        to: rfc3339(to),
        as_of: found.as_of.into(),
        settlements: found.settlements,
        entries_read: found.entries_read,
        totals: pairs(&found.range, names),
        differences: pairs(&found.range_differences, names),
    }
}

fn pairs(of: &[Compared], names: [&'static str; 2]) -> Vec<PairView> {
    let pair = |pair: &Compared| PairView {
        tenant: pair.tenant.clone(),
        meter: pair.meter.name().to_owned(),
        overrun: pair.overrun,
        found: names
            .into_iter()
            .zip([pair.one, pair.other].map(|value| number(pair.meter, value)))
            .collect(),
    };
    of.iter().map(pair).collect()
}

fn number(meter: Meter, value: i128) -> String {
    match meter {
        Meter::Cost => shape::plain(&Money(value).to_string()).to_owned(),
        _ => value.to_string(),
    }
}

fn cpu(app: &Arc<App>) -> Result<CpuView, ApiError> {
    let sums = app.books.sums();
    let made_us = app.runtime.making_cpu_us();
    let used = app
        .runtime
        .used_cpu_us()
        .map_err(|error| ApiError::Unavailable {
            reason: crate::config::chain(&error),
            retry: crate::error::Retry::Safe,
        })?;
    let kernel_us = used.saturating_sub(sums.baseline_us);
    let settled_us = sums.charged_us.saturating_add(sums.overrun_us);
    // Each execution's figure is rounded up to a whole microsecond.
    let rounding_us = sums.executions.min(settled_us.saturating_sub(kernel_us));
    let rest = kernel_us.saturating_add(rounding_us);
    let residual_us = i64::try_from(rest)
        .unwrap_or(i64::MAX)
        .saturating_sub(i64::try_from(settled_us).unwrap_or(i64::MAX));
    let ended = i64::try_from(sums.executions.saturating_add(sums.released)).unwrap_or(i64::MAX);
    Ok(CpuView {
        kernel_us,
        charged_us: sums.charged_us,
        overrun_us: sums.overrun_us,
        residual_us,
        making_us: made_us.saturating_sub(sums.made_before_us),
        residual_per_execution_us: residual_us.checked_div(ended).unwrap_or(0),
        executions: sums.executions,
        released: sums.released,
        in_flight: u64::try_from(app.live.count()).unwrap_or(u64::MAX),
        explained_by: [
            "making_us: sandboxes, and interpreters started ahead, before a run is charged",
            "what still ran between the end of the main process and its kill",
            "executions under way, and sandboxes that wait",
            "executions that were released without a charge, and readers of files that were kept",
        ],
    })
}
