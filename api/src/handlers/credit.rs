//! Terms and prepaid credit of tenants: by which cards they are charged, what was granted to them.

use std::sync::Arc;

use ledger::{Act, Effect, Grant, GrantState, Money, Terms};
use serde::Serialize;
use utoipa::ToSchema;

use crate::call::{Answer, Call, ok};
use crate::clock::{parse_rfc3339, rfc3339};
use crate::error::{ApiError, Problem};
use crate::registry::{Tenant, act};
use crate::shape::plain;

/// Longest name of a grant, and longest reason, in bytes.
const TEXT_MAX: usize = 200;

/// By which cards a tenant is charged, and whether it pays before it runs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TermsView {
    /// The id of its own rate cards; null for the default ones.
    pub rate_card: Option<String>,
    /// The currency that it is charged in.
    pub currency: Option<String>,
    /// Whether a run is refused (402) whose worst case its credit does not cover.
    pub prepaid: bool,
    /// Credit that has not ended, less what open holds set aside; decimal, may be below zero where
    /// the tenant is not prepaid.
    pub free: String,
    /// Credit that has not ended; decimal.
    pub available: String,
    /// What open holds set aside; decimal.
    pub held: String,
}

/// What `PUT /v1/tenants/{tenant}/terms` takes.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct TermsBody {
    /// The id of the tenant's own rate cards; null or absent for the default ones.
    rate_card: Option<String>,
    /// `false` if absent.
    prepaid: Option<bool>,
    /// Why; stands in the audit log.
    reason: Option<String>,
}

/// Credit that was granted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantView {
    /// The entry that recorded it: its id.
    pub entry: u64,
    /// Whose it is.
    pub tenant: String,
    /// What it is called on statements.
    pub name: String,
    /// How much was granted; decimal.
    pub amount: String,
    /// What is left; decimal.
    pub left: String,
    /// ISO 4217 code.
    pub currency: String,
    /// Lower is drawn first; of the same, the one that ends first, then the oldest.
    pub priority: u8,
    /// From when on it pays for no new run; null for never.
    pub expires_at: Option<String>,
}

/// A tenant's grants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantList {
    /// In the order in which they are drawn; only those with something left.
    pub items: Vec<GrantView>,
    /// Always null: the list is bounded.
    pub next_cursor: Option<String>,
}

/// What `POST /v1/grants` takes.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct GrantBody {
    /// Whose it is.
    tenant: String,
    /// What it is called on statements.
    name: String,
    /// How much, above zero; decimal.
    amount: String,
    /// The currency of the tenant's rate card.
    currency: String,
    /// 0 to 255; 100 if absent.
    priority: Option<u8>,
    /// RFC 3339; never if absent.
    expires_at: Option<String>,
    /// Why; stands in the audit log.
    reason: Option<String>,
}

/// Shows by which cards a tenant is charged, and its credit
#[utoipa::path(get, path = "/v1/tenants/{tenant}/terms", tag = "money",
    params(("tenant" = String, Path)),
    responses((status = 200, body = TermsView), (status = 404, body = Problem)))]
pub(crate) async fn terms(call: Call) -> Answer {
    call.no_query()?;
    let tenant = call.path_tenant()?;
    Ok(ok(&terms_view(&terms_of(&call, &tenant)?)))
}

/// Says by which cards a tenant is charged, and whether it pays before it runs
#[utoipa::path(put, path = "/v1/tenants/{tenant}/terms", tag = "money",
    request_body = TermsBody, params(("tenant" = String, Path)),
    responses((status = 200, body = TermsView), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn put_terms(call: Call) -> Answer {
    call.no_query()?;
    let tenant = call.path_tenant()?;
    let (rate_card, prepaid, reason) = call.read(|body| {
        let rate_card = body.text("rate_card", TEXT_MAX);
        let prepaid = body.flag("prepaid").unwrap_or(false);
        Some((rate_card, prepaid, body.text("reason", TEXT_MAX)))
    })?;
    let name = &tenant.profile.name;
    let wanted = Act {
        effect: Some(Effect::Terms {
            tenant: name.clone(),
            rate_card,
            prepaid,
        }),
        ..act(&call.caller()?.actor(reason), "terms.set", "terms", name)
    };
    call.app.registry.record(wanted).await?;
    Ok(ok(&terms_view(&terms_of(&call, &tenant)?)))
}

/// Lists a tenant's grants that have something left
#[utoipa::path(get, path = "/v1/grants", tag = "money",
    params(("tenant" = Option<String>, Query)),
    responses((status = 200, body = GrantList), (status = 400, body = Problem)))]
pub(crate) async fn list(call: Call) -> Answer {
    let mut query = call.query()?;
    let tenant = call.one_tenant(&mut query)?;
    query.finish()?;
    let grants = terms_of(&call, &tenant)?.grants;
    Ok(ok(&GrantList {
        items: grants.iter().map(grant_view).collect(),
        next_cursor: None,
    }))
}

/// Grants a tenant credit
#[utoipa::path(post, path = "/v1/grants", tag = "money", request_body = GrantBody,
    responses((status = 201, body = GrantView), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn create(call: Call) -> Answer {
    call.no_query()?;
    let (grant, reason) = call.read(|body| {
        let tenant = body.required_text("tenant", TEXT_MAX);
        let name = body.required_text("name", TEXT_MAX);
        let amount = body.required_text("amount", TEXT_MAX);
        let amount = amount.and_then(|text| match Money::parse(&text) {
            Ok(amount) => Some(amount),
            Err(error) => {
                body.fault("amount", error.to_string());
                None
            }
        });
        let currency = body.required_text("currency", TEXT_MAX);
        let priority = body.integer("priority", 0, 255).unwrap_or(100);
        let expires_at = body.text("expires_at", TEXT_MAX).map(|text| {
            parse_rfc3339(&text).unwrap_or_else(|| {
                body.fault("expires_at", "must be an RFC 3339 time");
                0
            })
        });
        let reason = body.text("reason", TEXT_MAX);
        let grant = Grant {
            tenant: tenant?,
            name: name?,
            amount: amount?,
            currency: currency?,
            priority: u8::try_from(priority).ok()?,
            expires_at,
        };
        Some((grant, reason))
    })?;
    let app = &call.app;
    let tenant = app.registry.tenant(&grant.tenant);
    let tenant = tenant.ok_or(ApiError::NotFound { what: "tenant" })?;
    let actor = call.caller()?.actor(reason);
    let wanted = Act {
        effect: Some(Effect::Grant(grant.clone())),
        ..act(&actor, "grant.add", "credit", &tenant.profile.name)
    };
    let entry = app.registry.record(wanted).await?;
    let made = GrantState {
        entry,
        left: grant.amount,
        grant,
    };
    Ok(actix_web::HttpResponse::Created().json(grant_view(&made)))
}

/// Takes back what is left of a grant
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/grants/{entry}", tag = "money",
    params(("tenant" = String, Path), ("entry" = u64, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn void(call: Call) -> Answer {
    call.no_query()?;
    let tenant = call.path_tenant()?;
    let grants = terms_of(&call, &tenant)?.grants;
    let entry = call.path("entry").parse::<u64>().ok();
    let live = entry.filter(|entry| grants.iter().any(|one| one.entry == *entry));
    let grant = live.ok_or(ApiError::NotFound { what: "grant" })?;
    let name = &tenant.profile.name;
    let wanted = Act {
        effect: Some(Effect::VoidGrant {
            tenant: name.clone(),
            grant,
        }),
        ..act(&call.caller()?.actor(None), "grant.void", "credit", name)
    };
    call.app.registry.record(wanted).await?;
    Ok(actix_web::HttpResponse::NoContent().finish())
}

fn terms_of(call: &Call, tenant: &Arc<Tenant>) -> Result<Terms, ApiError> {
    let terms = call.app.ledger.terms(&tenant.profile.name);
    terms.ok_or(ApiError::NotFound { what: "tenant" })
}

fn decimal(money: Money) -> String {
    plain(&money.to_string()).to_owned()
}

fn terms_view(terms: &Terms) -> TermsView {
    TermsView {
        rate_card: terms.rate_card.clone(),
        currency: terms.currency.clone(),
        prepaid: terms.prepaid,
        free: decimal(Money(terms.available.0.saturating_sub(terms.held.0))),
        available: decimal(terms.available),
        held: decimal(terms.held),
    }
}

fn grant_view(state: &GrantState) -> GrantView {
    let grant = &state.grant;
    GrantView {
        entry: state.entry,
        tenant: grant.tenant.clone(),
        name: grant.name.clone(),
        amount: decimal(grant.amount),
        left: decimal(state.left),
        currency: grant.currency.clone(),
        priority: grant.priority,
        expires_at: grant.expires_at.map(rfc3339),
    }
}
