//! Changes of a tenant's quotas at instants to come: asked for with a reason, shown, cancelled.

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::quotas::{REASON_MAX, operators_tenant, read_quotas};
use crate::call::{Answer, Call, tagged};
use crate::clock::{parse_rfc3339, rfc3339};
use crate::error::{ApiError, Problem};
use crate::ids::{self, Kind};
use crate::registry::Tenant;
use crate::registry::quotas::Change;
use crate::shape::{self, QuotaBody};

/// What a tenant's own quotas change to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangeView {
    /// Its id.
    #[schema(example = "qch_0193...")]
    pub id: String,
    /// From when on, inclusive.
    pub effective_at: String,
    /// The tenant's whole own list from then on.
    pub quotas: Vec<QuotaBody>,
    /// The key that asked for it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// When it was asked for.
    pub created_at: String,
}

/// Changes to come.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangeList {
    /// The earliest first.
    pub items: Vec<ChangeView>,
    /// Always null: the list is short.
    pub next_cursor: Option<String>,
}

/// What `POST /v1/tenants/{tenant}/quotas/changes` takes.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct ChangeBody {
    /// From when on; RFC 3339, in the future.
    effective_at: String,
    /// The tenant's whole own list from then on; an empty one leaves the tier's alone.
    quotas: Vec<QuotaBody>,
    /// Why; at most 200 bytes.
    reason: String,
}

/// The changes of a tenant that are still to come.
pub(super) fn views(tenant: &Tenant, now_us: i64) -> Vec<ChangeView> {
    tenant.changes_to_come(now_us).map(view).collect()
}

fn view(change: &Change) -> ChangeView {
    ChangeView {
        id: ids::text(Kind::Change, &change.id),
        effective_at: rfc3339(change.effective_us),
        quotas: change.quotas.iter().map(shape::quota_body).collect(),
        author: change.author.clone(),
        reason: change.reason.clone(),
        created_at: rfc3339(change.made_us),
    }
}

fn shown(call: &Call, tenant: &Tenant) -> HttpResponse {
    let items = views(tenant, call.app.clock.wall_us());
    let list = ChangeList {
        items,
        next_cursor: None,
    };
    tagged(tenant.quotas_seq, &list)
}

/// Lists the changes of a tenant's quotas that are to come
#[utoipa::path(get, path = "/v1/tenants/{tenant}/quotas/changes", tag = "quotas",
    params(("tenant" = String, Path)),
    responses((status = 200, body = ChangeList), (status = 404, body = Problem)))]
pub(crate) async fn list(call: Call) -> Answer {
    call.no_query()?;
    let tenant = operators_tenant(&call)?;
    Ok(shown(&call, &tenant))
}

/// Has a tenant's own quotas replaced at an instant to come
#[utoipa::path(post, path = "/v1/tenants/{tenant}/quotas/changes", tag = "quotas",
    request_body = ChangeBody,
    params(("tenant" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 201, body = ChangeView), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn create(call: Call) -> Answer {
    call.no_query()?;
    let tenant = operators_tenant(&call)?;
    let expect = call.if_match()?;
    let (change, reason) = call.read(|body| {
        let text = body.required_text("effective_at", 64);
        let effective_us = text.as_deref().and_then(parse_rfc3339);
        if text.is_some() && effective_us.is_none() {
            body.fault("effective_at", "must be an RFC 3339 time");
        }
        let reason = body.required_text("reason", REASON_MAX);
        if reason
            .as_deref()
            .is_some_and(|reason| reason.trim().is_empty())
        {
            body.fault("reason", "is empty");
        }
        let quotas = read_quotas(body, &call);
        Some(((effective_us?, quotas?), reason?))
    })?;
    let actor = call.caller()?.actor(Some(reason));
    let name = &tenant.profile.name;
    let registry = &call.app.registry;
    let (tenant, id) = registry.change_quotas(&actor, name, change, expect).await?;
    let made = tenant.changes.iter().find(|change| change.id == id);
    let made = made.ok_or_else(|| ApiError::internal("a change is gone as it is made"))?;
    Ok(HttpResponse::Created()
        .insert_header(("ETag", format!("\"{}\"", tenant.quotas_seq)))
        .json(view(made)))
}

/// Cancels a change of a tenant's quotas that is still to come
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/quotas/changes/{change}", tag = "quotas",
    params(("tenant" = String, Path), ("change" = String, Path),
        ("reason" = Option<String>, Query), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = ChangeList), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn cancel(call: Call) -> Answer {
    let tenant = operators_tenant(&call)?;
    let mut query = call.query()?;
    let reason = query.take("reason");
    if reason
        .as_ref()
        .is_some_and(|reason| reason.len() > REASON_MAX)
    {
        let detail = format!("is longer than {REASON_MAX} bytes");
        query.faults.add("?reason", detail);
    }
    query.finish()?;
    let expect = call.if_match()?;
    let missing = ApiError::NotFound {
        what: "change of quotas",
    };
    let id = ids::parse(Kind::Change, call.path("change")).ok_or(missing)?;
    let actor = call.caller()?.actor(reason);
    let name = &tenant.profile.name;
    let registry = &call.app.registry;
    let tenant = registry.cancel_change(&actor, name, &id, expect).await?;
    Ok(shown(&call, &tenant))
}
