//! Whether the books agree with each other, with what is invoiced, with what limits are decided by,
//! and with the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::{
    Compared, LimitCompared, LimitsCompared, Meter, Money, MonthCompared, Phase, Reconciled,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::usage::{AsOfView, failed};
use crate::app::App;
use crate::call::{Answer, Call, ok};
use crate::clock::rfc3339;
use crate::error::{ApiError, Problem};
use crate::shape;

/// What may still run of an execution between the end of its main process and its kill, in us.
const END_US: u64 = 100_000;

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

/// The lines of all statements of a month against the month's rows; credit and rounding left out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MonthView {
    /// The month, such as 2026-11.
    pub period: String,
    /// `open`, `grace` or `closed`.
    pub state: &'static str,
    /// Up to where this includes everything.
    pub as_of: AsOfView,
    /// The cost over all tenants; empty where there is more than one currency.
    pub totals: Vec<PairView>,
    /// The tenants where the two differ; none expected.
    pub differences: Vec<PairView>,
}

/// The counters of a quota against entries and open holds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitView {
    /// Whose.
    pub tenant: String,
    /// The quota's name.
    pub quota: String,
    /// What is posted, by `entries` and in `balances`; decimal.
    pub posted: BTreeMap<&'static str, String>,
    /// What is held, by `holds` and in `balances`.
    pub held: BTreeMap<&'static str, String>,
}

/// Every counter that a quota in force is decided by, of tenants, projects, functions and keys in
/// their windows, against entries and open holds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitsView {
    /// Up to where this includes everything.
    pub as_of: AsOfView,
    /// Quotas that were compared.
    pub checked: u64,
    /// Quotas that were not: not counted from their window's beginning, or of a lifetime with more
    /// entries than may be read.
    pub unchecked: u64,
    /// Where they differ; none expected.
    pub differences: Vec<LimitView>,
}

/// CPU time of this server's executions, since it began to serve, against the kernel's counter of
/// all its sandboxes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CpuView {
    /// Whether the rest is at least nothing, and no more than the parts of it that are named.
    pub agrees: bool,
    /// When this server began to serve: what ran before is in the books, and not in these figures.
    pub since: String,
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
    /// What the templates that Python is forked from have used since the server started: the
    /// platform's own, and no part of the other figures.
    pub templates_us: u64,
    /// What executions under way may have used of the rest at most: what is held for them.
    pub under_way_us: u64,
    /// What the ends of executions may be of the rest at most: 100 ms for each that has ended or is
    /// under way, between the end of its main process and its kill.
    pub ends_us: u64,
    /// What of the rest is none of these: 0 where the books agree.
    pub unexplained_us: u64,
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
    /// Whether there is no difference anywhere, no CPU time charged that the kernel has not
    /// counted, and none counted that nothing explains.
    pub agrees: bool,
    /// Entries against rows.
    pub range: RangeView,
    /// Rows against balances.
    pub balances: BalancesView,
    /// Statements against rows, of each month that the range touches.
    pub statements: Vec<MonthView>,
    /// The counters of quotas against entries and holds.
    pub limits: LimitsView,
    /// Executions against the kernel.
    pub cpu: CpuView,
}

/// Holds entries, usage, balances and the kernel's CPU counter against each other (for operators)
#[utoipa::path(get, path = "/v1/reconciliation", tag = "proof",
    params(("from" = String, Query, description = "RFC 3339, on an hour"),
        ("to" = String, Query, description = "RFC 3339, on an hour, at most 31 days after from")),
    responses((status = 200, body = ReconciliationView), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn get(call: Call) -> Answer {
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
        && found.months.iter().all(|one| one.differences.is_empty())
        && found.limits.differences.is_empty()
        && cpu.agrees;
    Ok(ok(&ReconciliationView {
        agrees,
        range: range(&found, from, to),
        balances: BalancesView {
            as_of: found.balances_as_of.into(),
            totals: pairs(&found.balances, ["rows", "balances"]),
            differences: pairs(&found.balances_differences, ["rows", "balances"]),
        },
        statements: found.months.iter().map(month).collect(),
        limits: limits(&found.limits),
        cpu,
    }))
}

fn month(of: &MonthCompared) -> MonthView {
    let names = ["statements", "rows"];
    MonthView {
        period: of.period.to_string(),
        state: match of.phase {
            Phase::Open => "open",
            Phase::Grace => "grace",
            Phase::Closed(_) => "closed",
        },
        as_of: of.as_of.into(),
        totals: pairs(&of.totals, names),
        differences: pairs(&of.differences, names),
    }
}

fn limits(of: &LimitsCompared) -> LimitsView {
    let difference = |one: &LimitCompared| {
        let text = |value| shape::quantity(one.state.quota.meter, value);
        let pair = |name, found, counted| {
            BTreeMap::from([(name, text(found)), ("balances", text(counted))])
        };
        LimitView {
            tenant: one.tenant.clone(),
            quota: one.state.quota.name(),
            posted: pair("entries", one.posted, one.state.posted),
            held: pair("holds", one.held, one.state.held),
        }
    };
    LimitsView {
        as_of: of.as_of.into(),
        checked: of.checked,
        unchecked: of.unchecked,
        differences: of.differences.iter().map(difference).collect(),
    }
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
    let holds = app.ledger.open_holds();
    let in_flight = u64::try_from(app.live.count()).unwrap_or(u64::MAX);
    let making_us = made_us.saturating_sub(sums.made_before_us);
    let kernel_us = used.saturating_sub(sums.baseline_us);
    let settled_us = sums.charged_us.saturating_add(sums.overrun_us);
    // Each execution's figure is rounded up to a whole microsecond.
    let rounding_us = sums.executions.min(settled_us.saturating_sub(kernel_us));
    let rest = kernel_us.saturating_add(rounding_us);
    let residual_us = i64::try_from(rest)
        .unwrap_or(i64::MAX)
        .saturating_sub(i64::try_from(settled_us).unwrap_or(i64::MAX));
    let ended = sums.executions.saturating_add(sums.released);
    let explained = Explained {
        making_us,
        under_way_us: holds.iter().map(|hold| hold.quantities.cpu_us).sum(),
        ends_us: ended.saturating_add(in_flight).saturating_mul(END_US),
    };
    let unexplained_us = explained.leaves(residual_us);
    Ok(CpuView {
        agrees: residual_us >= 0 && unexplained_us == 0,
        since: rfc3339(sums.since_us),
        kernel_us,
        charged_us: sums.charged_us,
        overrun_us: sums.overrun_us,
        residual_us,
        making_us,
        templates_us: app.runtime.templates_cpu_us(),
        under_way_us: explained.under_way_us,
        ends_us: explained.ends_us,
        unexplained_us,
        residual_per_execution_us: residual_us
            .checked_div(i64::try_from(ended).unwrap_or(i64::MAX))
            .unwrap_or(0),
        executions: sums.executions,
        released: sums.released,
        in_flight,
        explained_by: [
            "making_us: sandboxes, and interpreters started ahead, before a run is charged",
            "ends_us: what still ran between the end of the main process and its kill",
            "under_way_us: executions under way",
            "executions that were released without a charge, and readers of files that were kept",
        ],
    })
}

/// The parts that the rest of the kernel's CPU time may consist of.
struct Explained {
    making_us: u64,
    under_way_us: u64,
    ends_us: u64,
}

impl Explained {
    /// What they leave of it.
    fn leaves(&self, residual_us: i64) -> u64 {
        let residual_us = u64::try_from(residual_us).unwrap_or(0);
        let parts = [self.making_us, self.under_way_us, self.ends_us];
        parts
            .into_iter()
            .fold(residual_us, |rest, part| rest.saturating_sub(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_parts_do_not_cover_is_unexplained() {
        let explained = Explained {
            making_us: 5,
            under_way_us: 7,
            ends_us: 100,
        };
        assert_eq!(explained.leaves(-3), 0);
        assert_eq!(explained.leaves(112), 0);
        assert_eq!(explained.leaves(115), 3);
    }
}
