//! Tenants: made, shown, renamed, suspended and resumed by operators.

use std::sync::Arc;

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::call::{Answer, Call, List, ok};
use crate::clock::rfc3339;
use crate::error::{ApiError, Problem};
use crate::registry::Tenant;

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantView {
    /// Its name: the id, never changed.
    #[schema(example = "acme")]
    pub name: String,
    /// What people call it.
    pub display_name: Option<String>,
    /// `active` or `suspended`.
    pub state: &'static str,
    /// When it was made.
    pub created_at: String,
}

/// What `POST /v1/tenants` takes.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct TenantBody {
    /// 1 to 64 of a-z, 0-9 and `-`, beginning with a letter or digit.
    name: String,
    /// What people call it.
    display_name: Option<String>,
}

/// What `PATCH /v1/tenants/{tenant}` takes.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct TenantPatch {
    /// What people call it.
    display_name: Option<String>,
}

/// Why something is done; stands in the ledger.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handlers read")]
pub(crate) struct ReasonBody {
    /// At most 200 bytes.
    reason: Option<String>,
}

/// A page of tenants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantList {
    /// By name.
    pub items: Vec<TenantView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

fn view(tenant: &Tenant) -> TenantView {
    let profile = &tenant.profile;
    TenantView {
        name: profile.name.clone(),
        display_name: profile.display_name.clone(),
        state: if profile.suspended {
            "suspended"
        } else {
            "active"
        },
        created_at: rfc3339(profile.created_us),
    }
}

/// Whether a tenant may be called so.
fn is_tenant_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=64).contains(&name.len()) && !name.starts_with('-') && name.chars().all(plain)
}

/// Makes a tenant
#[utoipa::path(post, path = "/v1/tenants", tag = "tenants", request_body = TenantBody,
    responses((status = 201, body = TenantView), (status = 409, body = Problem)))]
pub(crate) async fn create(call: Call) -> Answer {
    call.no_query()?;
    let (name, display_name) = call.read(|body| {
        let name = body.required_text("name", 64);
        let display_name = body.text("display_name", 200);
        if name.as_deref().is_some_and(|name| !is_tenant_name(name)) {
            body.fault(
                "name",
                "must be 1 to 64 of a-z, 0-9 and -, not beginning with -",
            );
        }
        Some((name?, display_name))
    })?;
    let actor = call.caller()?.actor(None);
    let tenant = call
        .app
        .registry
        .create(&actor, &name, display_name)
        .await?;
    let location = format!("/v1/tenants/{name}");
    Ok(HttpResponse::Created()
        .insert_header(("Location", location))
        .json(view(&tenant)))
}

/// Lists tenants by name
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants",
    params(("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = TenantList)))]
pub(crate) async fn list(call: Call) -> Answer {
    let mut query = call.query()?;
    let page = query.page(&call.app, |cursor| Some(cursor.to_owned()));
    query.finish()?;
    let after = page.cursor.as_deref();
    let tenants = call
        .app
        .registry
        .tenants(after, page.limit.saturating_add(1));
    let views = tenants.iter().map(|tenant| view(tenant)).collect();
    Ok(ok(&List::cut(views, page.limit, |last: &TenantView| {
        last.name.clone()
    })))
}

/// Shows a tenant
#[utoipa::path(get, path = "/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path)),
    responses((status = 200, body = TenantView), (status = 404, body = Problem)))]
pub(crate) async fn get(call: Call) -> Answer {
    call.no_query()?;
    Ok(ok(&view(&*call.path_tenant()?)))
}

/// Renames a tenant
#[utoipa::path(patch, path = "/v1/tenants/{tenant}", tag = "tenants", request_body = TenantPatch,
    params(("tenant" = String, Path)),
    responses((status = 200, body = TenantView), (status = 404, body = Problem)))]
pub(crate) async fn patch(call: Call) -> Answer {
    call.no_query()?;
    let tenant = call.path_tenant()?;
    let display_name = call.read(|body| Some(body.text("display_name", 200)))?;
    let actor = call.caller()?.actor(None);
    let name = &tenant.profile.name;
    let tenant = call.app.registry.rename(&actor, name, display_name).await?;
    Ok(ok(&view(&tenant)))
}

/// Suspends a tenant: its tokens are refused and it runs nothing until it is resumed
#[utoipa::path(post, path = "/v1/tenants/{tenant}/suspend", tag = "tenants",
    request_body = ReasonBody, params(("tenant" = String, Path)),
    responses((status = 200, body = TenantView), (status = 404, body = Problem)))]
pub(crate) async fn suspend(call: Call) -> Answer {
    Ok(ok(&view(&*set_suspended(call, true).await?)))
}

/// Resumes a tenant
#[utoipa::path(post, path = "/v1/tenants/{tenant}/resume", tag = "tenants",
    request_body = ReasonBody, params(("tenant" = String, Path)),
    responses((status = 200, body = TenantView), (status = 404, body = Problem)))]
pub(crate) async fn resume(call: Call) -> Answer {
    Ok(ok(&view(&*set_suspended(call, false).await?)))
}

async fn set_suspended(call: Call, suspended: bool) -> Result<Arc<Tenant>, ApiError> {
    call.no_query()?;
    let tenant = call.path_tenant()?;
    let reason = call.read(|body| Some(body.text("reason", 200)))?;
    let actor = call.caller()?.actor(reason);
    call.app
        .registry
        .suspend(&actor, &tenant.profile.name, suspended)
        .await
}
