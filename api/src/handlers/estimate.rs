//! What a run would cost at most, and whether there is room for it now.

use std::collections::BTreeMap;

use ledger::{HoldRequest, Id, OnLow, Rejection};
use serde::Serialize;
use utoipa::ToSchema;

use crate::call::{Answer, Call, Query, ok};
use crate::error::{ApiError, Problem, Violated, rejected};
use crate::ids;
use crate::limits::Limits;
use crate::shape::{self, plain};

/// The limits that decide what a run can cost.
const COSTLY: [&str; 4] = ["wall_ms", "cpu_ms", "cpu_millis", "memory_bytes"];

/// Longest name of a project, in bytes.
const PROJECT_MAX: usize = 64;

/// What a run would be held with, if it came now. Nothing is set aside.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct EstimateView {
    /// Whether it would be admitted, as far as the ledger decides.
    pub room: bool,
    /// Why not: the code of the refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<crate::error::Code>,
    /// Why not, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The quotas without room.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub violated: Vec<Violated>,
    /// The most that it can use, by meter; decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantities: Option<BTreeMap<String, String>>,
    /// The most that it can cost; decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    /// ISO 4217 code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// The rate card that would price it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_card: Option<String>,
    /// CPU time that it would get: less than asked where quotas lower it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Wall time that it would get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
}

/// Says what a run within these limits would cost at most, and whether there is room for it
///
/// A limit that is absent is the tenant's default. Another run may take the room at any moment.
#[utoipa::path(get, path = "/v1/estimate", tag = "money",
    params(("tenant" = Option<String>, Query), ("wall_ms" = Option<u64>, Query),
        ("cpu_ms" = Option<u64>, Query), ("cpu_millis" = Option<u64>, Query),
        ("memory_bytes" = Option<u64>, Query), ("project" = Option<String>, Query),
        ("on_low_quota" = Option<String>, Query)),
    responses((status = 200, body = EstimateView), (status = 400, body = Problem)))]
pub(crate) async fn estimate(call: Call) -> Answer {
    let app = &call.app;
    let mut query = call.query()?;
    let tenant = call.one_tenant(&mut query)?;
    let floor = |name: &str| app.config.limits.min(name);
    let limits = Limits::from_fn(|name| {
        let (default, most) = (
            tenant.limits.default.get(name),
            tenant.limits.maximum.get(name),
        );
        if COSTLY.contains(&name) {
            number(&mut query, name, default, floor(name), most)
        } else {
            default
        }
    });
    let project = query
        .take("project")
        .unwrap_or_else(|| "default".to_owned());
    if !(1..=PROJECT_MAX).contains(&project.len()) {
        query.faults.add("?project", "must have 1 to 64 characters");
    }
    let reduce = match query.take("on_low_quota").as_deref() {
        None | Some("refuse") => false,
        Some("reduce") => true,
        Some(_) => {
            query
                .faults
                .add("?on_low_quota", "must be refuse or reduce");
            false
        }
    };
    query.finish()?;
    let floors = &app.config.limits;
    let request = HoldRequest {
        hold: Id(ids::new(&app.clock)?),
        execution: Id(ids::new(&app.clock)?),
        tenant: tenant.profile.name.clone(),
        project,
        function: None,
        key: call.caller()?.key.clone(),
        image: String::new(),
        tags: Vec::new(),
        ceiling: limits.ceiling(),
        on_low: if reduce {
            OnLow::Reduce {
                min_cpu_ms: floors.cpu_ms_min,
                min_wall_ms: floors.wall_ms_min,
            }
        } else {
            OnLow::Refuse
        },
        max_cost: None,
        idempotency: None,
    };
    Ok(ok(&match app.ledger.estimate(&request) {
        Ok(estimate) => EstimateView {
            room: true,
            quantities: Some(shape::quantities(&estimate.quantities)),
            amount: Some(plain(&estimate.amount.to_string()).to_owned()),
            currency: Some(estimate.currency),
            rate_card: Some(estimate.rate_card),
            cpu_ms: Some(estimate.granted.cpu_ms),
            wall_ms: Some(estimate.granted.wall_ms),
            ..EstimateView::default()
        },
        Err(no) => refusal(no, app.clock.wall_us())?,
    }))
}

/// A run without room; every other refusal is this request's own.
fn refusal(no: Rejection, now_us: i64) -> Result<EstimateView, ApiError> {
    let is_room = matches!(
        no,
        Rejection::Quota(_)
            | Rejection::Rate { .. }
            | Rejection::Concurrency { .. }
            | Rejection::InsufficientFunds { .. }
            | Rejection::Suspended { .. }
            | Rejection::TooManyHolds { .. }
            | Rejection::TooManyKeys { .. }
    );
    let error = rejected(no, now_us);
    if !is_room {
        return Err(error);
    }
    let problem = error.problem("");
    Ok(EstimateView {
        code: Some(problem.code),
        detail: problem.detail,
        violated: problem.violated,
        ..EstimateView::default()
    })
}

/// A whole number of the query from `least` to `most`.
fn number(query: &mut Query, name: &str, default: u64, least: u64, most: u64) -> u64 {
    let Some(text) = query.take(name) else {
        return default;
    };
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => number,
        _ => {
            let detail = format!("must be a whole number from {least} to {most}");
            query.faults.add(format!("?{name}"), detail);
            default
        }
    }
}
