//! Budgets of tenants: shown with how they stand, replaced whole under `If-Match`.

use std::sync::Arc;

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::budgets::{NOW, Standing, standings};
use crate::call::{Answer, Call, tagged};
use crate::clock::rfc3339;
use crate::error::{ApiError, Problem};
use crate::json::Object;
use crate::registry::Tenant;
use crate::registry::budgets::{Budget, BudgetBody, read};
use crate::shape::{self, QuotaScope};

/// A budget and how it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BudgetView {
    /// Its name.
    pub name: String,
    /// Whose use counts; absent for the whole tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<QuotaScope>,
    /// What counts.
    pub meter: String,
    /// `day`, `month` or `lifetime`.
    pub window: String,
    /// The zone whose calendar cuts the windows.
    pub timezone: String,
    /// How much; decimal.
    pub amount: String,
    /// Percent of the amount at which somebody is told.
    pub thresholds: Vec<u16>,
    /// Who is told: a webhook of the tenant's by name, or `operator:NAME`; null: nobody.
    pub webhook: Option<String>,
    /// Used in the current window; decimal.
    pub posted: String,
    /// Whole percent of the amount that this is; decimal.
    pub used_percent: String,
    /// The thresholds that have fired in the current window.
    pub fired: Vec<u16>,
    /// When the window ends; null for a lifetime.
    pub resets_at: Option<String>,
}

/// A tenant's budgets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BudgetList {
    /// In the order in which they were set.
    pub items: Vec<BudgetView>,
    /// Always null: the list is short.
    pub next_cursor: Option<String>,
}

/// What `PUT /v1/tenants/{tenant}/budgets` takes: the tenant's whole list.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct BudgetsBody {
    /// An empty list is the same as `DELETE`.
    budgets: Vec<BudgetBody>,
}

/// Shows a tenant's budgets and how they stand
#[utoipa::path(get, path = "/v1/tenants/{tenant}/budgets", tag = "budgets",
    params(("tenant" = String, Path)),
    responses((status = 200, body = BudgetList), (status = 404, body = Problem)))]
pub(crate) async fn get(call: Call) -> Answer {
    call.no_query()?;
    let tenant = operators_tenant(&call)?;
    show(&call, tenant).await
}

/// Shows the own budgets and how they stand
#[utoipa::path(get, path = "/v1/budgets", tag = "budgets",
    params(("tenant" = Option<String>, Query)),
    responses((status = 200, body = BudgetList)))]
pub(crate) async fn own(call: Call) -> Answer {
    let mut query = call.query()?;
    let tenant = call.one_tenant(&mut query)?;
    query.finish()?;
    show(&call, tenant).await
}

/// Replaces a tenant's budgets
#[utoipa::path(put, path = "/v1/tenants/{tenant}/budgets", tag = "budgets",
    request_body = BudgetsBody,
    params(("tenant" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = BudgetList), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn put(call: Call) -> Answer {
    call.no_query()?;
    let tenant = operators_tenant(&call)?;
    let expect = call.if_match()?;
    let budgets = call.read_list("budgets", |body| read_all(body, &call, &tenant))?;
    let tenant = set(&call, &tenant, budgets, expect).await?;
    show(&call, tenant).await
}

/// Removes a tenant's budgets
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/budgets", tag = "budgets",
    params(("tenant" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn delete(call: Call) -> Answer {
    call.no_query()?;
    let tenant = operators_tenant(&call)?;
    let expect = call.if_match()?;
    if !tenant.budgets.is_empty() || expect.is_some() {
        set(&call, &tenant, Vec::new(), expect).await?;
    }
    Ok(HttpResponse::NoContent().finish())
}

fn read_all(body: &mut Object<'_>, call: &Call, tenant: &Tenant) -> Option<Vec<Budget>> {
    let options = &call.app.config.budgets;
    let budgets = body.objects("budgets", options.per_tenant_max, |object| {
        let budget = read(object, options)?;
        let to = budget.target(&tenant.profile.name);
        if to.is_some_and(|to| call.app.registry.webhook(&to).is_none()) {
            object.fault("webhook", "is not a webhook that is there");
        }
        Some(budget)
    });
    if budgets.is_none() {
        body.fault("budgets", "is required: a list");
    }
    let budgets = budgets?;
    for (at, budget) in budgets.iter().enumerate() {
        let mut earlier = budgets.iter().take(at);
        if earlier.any(|other| other.name == budget.name) {
            body.fault(&format!("budgets/{at}"), "has the name of an earlier one");
        }
    }
    Some(budgets)
}

async fn set(
    call: &Call,
    tenant: &Tenant,
    budgets: Vec<Budget>,
    expect: Option<u64>,
) -> Result<Arc<Tenant>, ApiError> {
    let actor = call.caller()?.actor(None);
    let name = &tenant.profile.name;
    let registry = &call.app.registry;
    let tenant = registry.set_budgets(&actor, name, budgets, expect).await?;
    call.app.watch.touch(name, NOW);
    Ok(tenant)
}

async fn show(call: &Call, tenant: Arc<Tenant>) -> Answer {
    let (app, seq) = (Arc::clone(&call.app), tenant.budgets_seq);
    // A read may wait for what was durable when it arrived.
    let all = call
        .app
        .blocking(move || standings(&app, &tenant))
        .await??;
    Ok(tagged(
        seq,
        &BudgetList {
            items: all.into_iter().map(view).collect(),
            next_cursor: None,
        },
    ))
}

fn view(of: Standing) -> BudgetView {
    let BudgetBody {
        name,
        scope,
        meter,
        window,
        timezone,
        amount,
        thresholds,
        webhook,
    } = of.budget.body();
    let quota = &of.budget.quota;
    let percent = of.posted.saturating_mul(100).checked_div(quota.limit);
    BudgetView {
        name,
        scope,
        meter,
        window,
        timezone,
        amount,
        thresholds,
        webhook,
        posted: shape::quantity(quota.meter, of.posted),
        used_percent: percent.unwrap_or(0).to_string(),
        fired: of.fired,
        resets_at: of.resets_at.map(rfc3339),
    }
}

/// The tenant that the path names, for an operator alone.
fn operators_tenant(call: &Call) -> Result<Arc<Tenant>, ApiError> {
    let tenant = call.path_tenant()?;
    if call.caller()?.is_operator() {
        return Ok(tenant);
    }
    let detail = "this is for operators: /v1/budgets shows the own budgets".to_owned();
    Err(ApiError::Forbidden { detail })
}
