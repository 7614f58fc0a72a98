//! Terms of tenants: by which cards they are charged, and how their credit stands.

use std::sync::Arc;

use ledger::{Act, Effect, Money, Terms};
use serde::Serialize;
use utoipa::ToSchema;

use super::statements::decimal;
use crate::call::{Answer, Call, ok};
use crate::error::{ApiError, Problem};
use crate::registry::{Tenant, act};

/// Longest id of a card, and longest reason, in bytes.
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

pub(super) fn terms_of(call: &Call, tenant: &Arc<Tenant>) -> Result<Terms, ApiError> {
    let terms = call.app.ledger.terms(&tenant.profile.name);
    terms.ok_or(ApiError::NotFound { what: "tenant" })
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
