//! Prepaid credit of tenants: what was granted to them, what it has paid, and how it ended.

mod history;

use std::sync::Arc;

use actix_web::HttpResponse;
use ledger::{Act, Effect, Grant, GrantState, Money};
use serde::Serialize;
use utoipa::ToSchema;

use self::history::Given;
use super::credit::terms_of;
use super::statements::{decimal, reading};
use crate::call::{Answer, Call, ok};
use crate::clock::{parse_rfc3339, rfc3339};
use crate::error::{ApiError, Problem, Retry};
use crate::idempotency::{Key, Once, act_once};
use crate::json::Object;
use crate::registry::{Tenant, act};

/// Longest name of a grant, and longest reason, in bytes.
const TEXT_MAX: usize = 200;

/// The route as idempotency keys are bound to it.
const GRANT: &str = "POST /v1/grants";

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
    /// What it has paid; decimal.
    pub used: String,
    /// What is left; decimal. Nothing of a voided one.
    pub left: String,
    /// `live`, `spent`, `expired` (what is left pays for no new run) or `voided`.
    pub state: &'static str,
    /// ISO 4217 code.
    pub currency: String,
    /// Lower is drawn first; of the same, the one that ends first, then the oldest.
    pub priority: u8,
    /// From when on it pays for no new run; null for never.
    pub expires_at: Option<String>,
    /// The act that took back what was left.
    pub voided: Option<VoidedView>,
}

/// How a grant was taken back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VoidedView {
    /// The entry of the act.
    pub entry: u64,
    /// When.
    pub at: String,
    /// Who: a key.
    pub by: String,
    /// What was left of it, and is gone; decimal.
    pub left: String,
}

/// A tenant's grants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantList {
    /// Those with something left, in the order in which they are drawn; with `state` by entry.
    pub items: Vec<GrantView>,
    /// Of a list by `state`: where it goes on.
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

/// Lists a tenant's grants: those that have something left, or by their state
#[utoipa::path(get, path = "/v1/grants", tag = "money",
    params(("tenant" = Option<String>, Query),
        ("state" = Option<String>, Query,
            description = "live, spent, expired, voided or all; absent: with something left"),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = GrantList), (status = 400, body = Problem),
        (status = 503, body = Problem)))]
pub(crate) async fn list(call: Call) -> Answer {
    let mut query = call.query()?;
    let tenant = call.one_tenant(&mut query)?;
    let page = query.page(&call.app, |cursor| cursor.parse::<u64>().ok());
    let state = query.take("state");
    let known = ["live", "spent", "expired", "voided", "all"];
    if state
        .as_deref()
        .is_some_and(|state| !known.contains(&state))
    {
        let detail = "must be live, spent, expired, voided or all";
        query.faults.add("?state", detail);
    }
    query.finish()?;
    let now = call.app.clock.wall_us();
    let Some(state) = state else {
        let grants = terms_of(&call, &tenant)?.grants;
        let items = grants
            .iter()
            .map(|one| view(&Given::from(one), now))
            .collect();
        let next_cursor = None;
        return Ok(ok(&GrantList { items, next_cursor }));
    };
    let (ledger, name) = (call.app.ledger.clone(), tenant.profile.name.clone());
    let is = move |given: &Given| state == "all" || state == given.state(now);
    let after = page.cursor.unwrap_or(0);
    let read = move || history::page(&ledger, &name, after, page.limit, is);
    let found = reading(&call, read).await?;
    Ok(ok(&GrantList {
        items: found.given.iter().map(|one| view(one, now)).collect(),
        next_cursor: found.next.map(|next| next.to_string()),
    }))
}

/// Grants a tenant credit
///
/// An `Idempotency-Key` that has granted something answers that grant, as it now is.
#[utoipa::path(post, path = "/v1/grants", tag = "money", request_body = GrantBody,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = GrantView), (status = 200, body = GrantView),
        (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn create(call: Call) -> Answer {
    call.no_query()?;
    let body = call.object()?;
    let key = Key::of(&call, GRANT, &body);
    let (grant, reason) = Call::read_map(body, read)?;
    let key = key.transpose()?;
    let app = &call.app;
    let tenant = app.registry.tenant(&grant.tenant);
    let tenant = tenant.ok_or(ApiError::NotFound { what: "tenant" })?;
    let actor = call.caller()?.actor(reason);
    let wanted = Act {
        effect: Some(Effect::Grant(grant.clone())),
        ..act(&actor, "grant.add", "credit", &tenant.profile.name)
    };
    let entry = match key {
        None => app.registry.record(wanted).await?,
        Some(key) => match act_once(&call, wanted, &key).await? {
            Once::Made(entry) => entry,
            Once::Earlier(entry) => return granted(&call, &tenant, entry).await,
        },
    };
    let made = Given::from(&GrantState {
        entry,
        left: grant.amount,
        grant,
    });
    Ok(HttpResponse::Created().json(view(&made, app.clock.wall_us())))
}

/// What was granted with the same key before, as it now is.
async fn granted(call: &Call, tenant: &Arc<Tenant>, entry: u64) -> Answer {
    let (ledger, name) = (call.app.ledger.clone(), tenant.profile.name.clone());
    let after = entry.saturating_sub(1);
    let read = move || history::page(&ledger, &name, after, 1, |_| true);
    let found = reading(call, read).await?.given;
    let own = found.first().filter(|one| one.entry == entry);
    let own = own.ok_or_else(|| ApiError::Unavailable {
        reason: format!("grant {entry} is recorded, and reads do not show it yet"),
        retry: Retry::SameKey,
    })?;
    Ok(HttpResponse::Ok()
        .insert_header(("Idempotent-Replayed", "true"))
        .json(view(own, call.app.clock.wall_us())))
}

fn read(body: &mut Object<'_>) -> Option<(Grant, Option<String>)> {
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
    Ok(HttpResponse::NoContent().finish())
}

fn view(given: &Given, now: i64) -> GrantView {
    let grant = &given.grant;
    GrantView {
        entry: given.entry,
        tenant: grant.tenant.clone(),
        name: grant.name.clone(),
        amount: decimal(grant.amount),
        used: decimal(given.used),
        left: decimal(given.left),
        state: given.state(now),
        currency: grant.currency.clone(),
        priority: grant.priority,
        expires_at: grant.expires_at.map(rfc3339),
        voided: given.voided.as_ref().map(|voided| VoidedView {
            entry: voided.entry,
            at: rfc3339(voided.at),
            by: voided.by.clone(),
            left: decimal(Money(grant.amount.0.saturating_sub(given.used.0))),
        }),
    }
}
