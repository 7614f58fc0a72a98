//! Quotas and limits of tenants: shown with how they stand, replaced whole under `If-Match`.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use ledger::Quota;

use super::quota_changes::{self, ChangeView};
use crate::call::{Answer, Call, tagged};
use crate::error::{ApiError, Problem};
use crate::execute::request::{LimitsBody, choice, read_limits};
use crate::json::Object;
use crate::limits::Limits;
use crate::registry::{LimitsDoc, Tenant};
use crate::shape::{self, QuotaBody, QuotaView};

/// Bytes of a reason.
pub(super) const REASON_MAX: usize = 200;

/// The highest cap on starts.
const STARTS_MAX: u64 = 10_000_000;

/// The quotas in force.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuotaList {
    /// The tenant's own, then its tier's.
    pub items: Vec<QuotaView>,
    /// Always null: the list is short.
    pub next_cursor: Option<String>,
    /// What the tenant's own list changes to, the earliest first.
    pub changes: Vec<ChangeView>,
}

/// What `PUT /v1/tenants/{tenant}/quotas` takes: the tenant's whole own list.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct QuotasBody {
    /// An empty list leaves the tier's alone.
    quotas: Vec<QuotaBody>,
    /// Why; at most 200 bytes.
    reason: Option<String>,
}

/// What a tenant's executions may ask for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitsView {
    /// Executions at once.
    pub concurrency: u32,
    /// Executions that may begin in any 60 seconds; null: as many as there are.
    pub starts_per_minute: Option<u32>,
    /// The same through each key.
    pub key_starts_per_minute: Option<u32>,
    /// The most that an execution may ask for.
    pub maximum: Limits,
    /// What one gets that does not ask.
    pub default: Limits,
    /// Images that may be used, by name or digest; null: all.
    pub images: Option<Vec<String>>,
    /// `shared`, or `fresh`: no execution of its runs in a fork of an interpreter that others are
    /// forked from, too.
    pub isolation: &'static str,
}

/// What `PUT /v1/tenants/{tenant}/limits` takes; what is absent is the tier's.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct LimitsPut {
    /// Executions at once.
    concurrency: Option<u32>,
    /// Executions that may begin in any 60 seconds.
    starts_per_minute: Option<u32>,
    /// The same through each key.
    key_starts_per_minute: Option<u32>,
    /// The most that an execution may ask for.
    maximum: Option<LimitsBody>,
    /// What one gets that does not ask.
    default: Option<LimitsBody>,
    /// Images that may be used, by name or digest.
    images: Option<Vec<String>>,
    /// `shared` if absent, or `fresh`.
    isolation: Option<String>,
}

/// Shows a tenant's quotas and how they stand
#[utoipa::path(get, path = "/v1/tenants/{tenant}/quotas", tag = "quotas",
    params(("tenant" = String, Path)),
    responses((status = 200, body = QuotaList), (status = 404, body = Problem)))]
pub(crate) async fn get(call: Call) -> Answer {
    call.no_query()?;
    let tenant = operators_tenant(&call)?;
    show(&call, &tenant)
}

/// Shows the own quotas and how they stand
#[utoipa::path(get, path = "/v1/quotas", tag = "quotas",
    params(("tenant" = Option<String>, Query)),
    responses((status = 200, body = QuotaList)))]
pub(crate) async fn own(call: Call) -> Answer {
    let mut query = call.query()?;
    let tenant = call.one_tenant(&mut query)?;
    query.finish()?;
    show(&call, &tenant)
}

/// Replaces a tenant's own quotas, which lie over its tier's
#[utoipa::path(put, path = "/v1/tenants/{tenant}/quotas", tag = "quotas",
    request_body = QuotasBody,
    params(("tenant" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = QuotaList), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn put(call: Call) -> Answer {
    call.no_query()?;
    let tenant = operators_tenant(&call)?;
    let expect = call.if_match()?;
    let (quotas, reason) = call.read_list("quotas", |body| {
        let reason = body.text("reason", REASON_MAX);
        Some((read_quotas(body, &call)?, reason))
    })?;
    let actor = call.caller()?.actor(reason);
    let name = &tenant.profile.name;
    let tenant = call
        .app
        .registry
        .set_quotas(&actor, name, quotas, expect)
        .await?;
    show(&call, &tenant)
}

/// The list of quotas in a body; a quota must not be named twice.
pub(super) fn read_quotas(body: &mut Object<'_>, call: &Call) -> Option<Vec<Quota>> {
    let max = usize::try_from(call.app.config.ledger.quotas_per_tenant_max).unwrap_or(usize::MAX);
    let quotas = body.objects("quotas", max, shape::read_quota);
    if quotas.is_none() {
        body.fault("quotas", "is required: a list");
    }
    let quotas = quotas?;
    for (at, quota) in quotas.iter().enumerate() {
        let mut earlier = quotas.iter().take(at);
        if earlier.any(|other| other.name() == quota.name()) {
            body.fault(
                &format!("quotas/{at}"),
                "is the same quota as an earlier one",
            );
        }
    }
    Some(quotas)
}

fn show(call: &Call, tenant: &Tenant) -> Answer {
    let states = call
        .app
        .ledger
        .quotas(&tenant.profile.name)
        .unwrap_or_default();
    let registry = &call.app.registry;
    let views = states.iter().filter_map(|state| {
        let source = registry.quota_source(tenant, &state.quota)?;
        Some(shape::quota_view(state, source))
    });
    Ok(tagged(
        tenant.quotas_seq,
        &QuotaList {
            items: views.collect(),
            next_cursor: None,
            changes: quota_changes::views(tenant, call.app.clock.wall_us()),
        },
    ))
}

/// The tenant that the path names, for an operator alone.
pub(super) fn operators_tenant(call: &Call) -> Result<Arc<Tenant>, ApiError> {
    let tenant = call.path_tenant()?;
    if call.caller()?.is_operator() {
        return Ok(tenant);
    }
    let detail = "this is for operators: /v1/quotas shows the own quotas".to_owned();
    Err(ApiError::Forbidden { detail })
}

/// Shows a tenant's limits
#[utoipa::path(get, path = "/v1/tenants/{tenant}/limits", tag = "quotas",
    params(("tenant" = String, Path)),
    responses((status = 200, body = LimitsView), (status = 404, body = Problem)))]
pub(crate) async fn limits(call: Call) -> Answer {
    call.no_query()?;
    let tenant = call.path_tenant()?;
    Ok(tagged(tenant.limits_seq, &limits_view(&tenant.limits)))
}

/// Replaces a tenant's limits
#[utoipa::path(put, path = "/v1/tenants/{tenant}/limits", tag = "quotas",
    request_body = LimitsPut,
    params(("tenant" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = LimitsView), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn put_limits(call: Call) -> Answer {
    call.no_query()?;
    let tenant = call.path_tenant()?;
    let expect = call.if_match()?;
    let limits = call.read(|body| read(body, &call))?;
    let actor = call.caller()?.actor(None);
    let name = &tenant.profile.name;
    let tenant = call
        .app
        .registry
        .set_limits(&actor, name, limits, expect)
        .await?;
    // What waits for a cap looks again.
    call.app.turns.freed(&tenant.profile.name);
    Ok(tagged(tenant.limits_seq, &limits_view(&tenant.limits)))
}

fn read(body: &mut Object<'_>, call: &Call) -> Option<LimitsDoc> {
    let config = &call.app.config;
    let tier = &config.tier;
    let concurrency = body.integer("concurrency", 1, 100_000);
    let starts = body.integer("starts_per_minute", 1, STARTS_MAX);
    let key_starts = body.integer("key_starts_per_minute", 1, STARTS_MAX);
    let narrow = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
    // A tenant's maximum may pass its tier's, but not the launcher's and the largest disk's.
    let widest = LimitsDoc {
        concurrency: narrow(concurrency).unwrap_or(tier.concurrency),
        starts_per_minute: narrow(starts).or(tier.starts_per_minute),
        key_starts_per_minute: narrow(key_starts).or(tier.key_starts_per_minute),
        maximum: config.widest(),
        default: tier.maximum,
        images: None,
        fresh: choice(body, "isolation", "shared", "fresh"),
    };
    let maximum = body.object("maximum", |object| read_limits(object, config, &widest));
    let maximum = maximum.unwrap_or(tier.maximum);
    // A default that is not named is the tier's, or the maximum where that is less.
    let default = Limits::from_fn(|name| tier.default.get(name).min(maximum.get(name)));
    let within = LimitsDoc {
        maximum,
        default,
        ..widest
    };
    let default = body.object("default", |object| read_limits(object, config, &within));
    let images = body.texts("images", config.tenants.images_max);
    Some(LimitsDoc {
        default: default.unwrap_or(within.default),
        images,
        ..within
    })
}

fn limits_view(limits: &LimitsDoc) -> LimitsView {
    LimitsView {
        concurrency: limits.concurrency,
        starts_per_minute: limits.starts_per_minute,
        key_starts_per_minute: limits.key_starts_per_minute,
        maximum: limits.maximum,
        default: limits.default,
        images: limits.images.clone(),
        isolation: if limits.fresh { "fresh" } else { "shared" },
    }
}
