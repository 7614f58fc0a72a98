//! Webhooks: set, shown without their secrets, deleted; and what became of their deliveries.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::call::{Answer, Call, List, ok, tagged};
use crate::clock::rfc3339;
use crate::error::{ApiError, Problem};
use crate::ids::{self, Kind};
use crate::json::Object;
use crate::outbox::address::{URL_MAX, check_url};
use crate::outbox::sign::{SECRET_MAX, SECRET_MIN, Secret};
use crate::outbox::{Delivery, NotAgain, Target};
use crate::registry::budgets::is_name;
use crate::registry::{Webhook, WebhookDoc};

/// A webhook.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookView {
    /// Its name.
    pub name: String,
    /// Whose it is; null for the operator.
    pub tenant: Option<String>,
    /// Where deliveries are posted to.
    pub url: String,
    /// Whether anything is sent.
    pub enabled: bool,
    /// When it was made.
    pub created_at: String,
    /// The secret that signs deliveries; only in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// The webhooks of a tenant, or of the operator.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookList {
    /// By name.
    pub items: Vec<WebhookView>,
    /// Always null: the list is short.
    pub next_cursor: Option<String>,
}

/// What `PUT /v1/webhooks/{name}` takes.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct WebhookBody {
    /// `http://...`, whose every address must be public or allowed by `webhooks.allow_addresses`.
    url: String,
    /// 16 to 128 printable ASCII characters without spaces; made, and shown once, if absent from a
    /// new webhook, kept if absent from one that is there.
    secret: Option<String>,
    /// `true` if absent.
    enabled: Option<bool>,
}

/// One event on its way to a webhook.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryView {
    /// Its id; also the header `Farebox-Delivery`.
    pub id: String,
    /// The event as it is sent: a `CloudEvents` document.
    #[schema(value_type = Object)]
    pub event: serde_json::Value,
    /// `pending`, `delivered` or `dead`.
    pub state: &'static str,
    /// How often it was tried.
    pub attempts: u32,
    /// When the event happened.
    pub created_at: String,
    /// When it was last tried.
    pub last_attempt_at: Option<String>,
    /// The status that the receiver last answered.
    pub last_status: Option<u16>,
    /// What went wrong where there was no answer.
    pub last_error: Option<String>,
    /// When it is tried next; null if it is not.
    pub next_attempt_at: Option<String>,
}

/// A page of deliveries.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryList {
    /// Newest first.
    pub items: Vec<DeliveryView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// Lists the own webhooks, or those of the tenant that an operator names
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks",
    params(("tenant" = Option<String>, Query)),
    responses((status = 200, body = WebhookList)))]
pub(crate) async fn list(call: Call) -> Answer {
    let tenant = owner(&call)?;
    let all = call.app.registry.webhooks(tenant.as_deref());
    let view = |(name, webhook): (String, Arc<Webhook>)| {
        let tenant = tenant.clone();
        view(&Target { tenant, name }, &webhook, None)
    };
    Ok(ok(&WebhookList {
        items: all.into_iter().map(view).collect(),
        next_cursor: None,
    }))
}

/// Shows a webhook without its secret
#[utoipa::path(get, path = "/v1/webhooks/{name}", tag = "webhooks",
    params(("name" = String, Path), ("tenant" = Option<String>, Query)),
    responses((status = 200, body = WebhookView), (status = 404, body = Problem)))]
pub(crate) async fn get(call: Call) -> Answer {
    let (to, webhook) = known(&call)?;
    Ok(tagged(webhook.seq, &view(&to, &webhook, None)))
}

/// Makes or replaces a webhook
#[utoipa::path(put, path = "/v1/webhooks/{name}", tag = "webhooks", request_body = WebhookBody,
    params(("name" = String, Path), ("tenant" = Option<String>, Query),
        ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = WebhookView), (status = 201, body = WebhookView),
        (status = 400, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn put(call: Call) -> Answer {
    let to = target(&call)?;
    if !is_name(&to.name) {
        let detail = "must be 1 to 64 of a-z, 0-9 and -, not beginning with -";
        return Err(ApiError::invalid("{name}", detail));
    }
    let (url, given, enabled) = call.read(|body| read(body, &call))?;
    let app = &call.app;
    let old = app.registry.webhook(&to);
    let seen = seen(&call, old.as_deref())?;
    let made = match &given {
        None if old.is_none() => Some(Secret::generate()?),
        _ => None,
    };
    let fresh = match given.or_else(|| made.clone()) {
        Some(secret) => Some(keep(&call, secret).await?),
        None => None,
    };
    let kept = old.as_ref().map(|old| old.doc.secret.clone());
    let doc = WebhookDoc {
        url,
        enabled,
        secret: fresh.clone().or_else(|| kept.clone()).unwrap_or_default(),
        created_us: old
            .as_ref()
            .map_or_else(|| app.clock.wall_us(), |old| old.doc.created_us),
    };
    let actor = call.caller()?.actor(None);
    let set = app.registry.set_webhook(&actor, &to, doc, seen).await;
    // Of the two secrets, the one that is not in force goes.
    let stale = if set.is_ok() { kept } else { fresh.clone() };
    if let Some(stale) = stale.filter(|_| fresh.is_some()) {
        forget(&call, stale).await?;
    }
    let webhook = set?;
    let status = if old.is_none() {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(HttpResponse::build(status)
        .insert_header(("ETag", format!("\"{}\"", webhook.seq)))
        .json(view(&to, &webhook, made.as_ref())))
}

/// Deletes a webhook, with its secret and its deliveries
#[utoipa::path(delete, path = "/v1/webhooks/{name}", tag = "webhooks",
    params(("name" = String, Path), ("tenant" = Option<String>, Query),
        ("If-Match" = Option<String>, Header)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn delete(call: Call) -> Answer {
    let (to, webhook) = known(&call)?;
    let seen = seen(&call, Some(&webhook))?;
    let actor = call.caller()?.actor(None);
    call.app.registry.delete_webhook(&actor, &to, seen).await?;
    forget(&call, webhook.doc.secret.clone()).await?;
    let app = Arc::clone(&call.app);
    call.app.blocking(move || app.outbox.forget(&to)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Lists deliveries to a webhook, newest first
#[utoipa::path(get, path = "/v1/webhooks/{name}/deliveries", tag = "webhooks",
    params(("name" = String, Path), ("tenant" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = DeliveryList), (status = 404, body = Problem)))]
pub(crate) async fn deliveries(call: Call) -> Answer {
    let mut query = call.query()?;
    let tenant = call.tenant(&mut query)?;
    let page = query.page(&call.app, |cursor| {
        ids::parse(Kind::Delivery, cursor).map(|_| cursor.to_owned())
    });
    query.finish()?;
    let to = Target {
        tenant: tenant.map(|tenant| tenant.profile.name.clone()),
        name: call.path("name").to_owned(),
    };
    let webhook = call.app.registry.webhook(&to);
    webhook.ok_or(ApiError::NotFound { what: "webhook" })?;
    let after = page.cursor.as_deref();
    let limit = page.limit.saturating_add(1);
    let found = call.app.outbox.deliveries(&to, after, limit);
    let views = found.iter().map(delivery_view).collect();
    Ok(ok(&List::cut(views, page.limit, |last: &DeliveryView| {
        last.id.clone()
    })))
}

/// Sends a delivery again, whatever became of it
#[utoipa::path(post, path = "/v1/webhooks/{name}/deliveries/{id}/retry", tag = "webhooks",
    params(("name" = String, Path), ("id" = String, Path), ("tenant" = Option<String>, Query)),
    responses((status = 202, body = DeliveryView), (status = 404, body = Problem),
        (status = 429, body = Problem)))]
pub(crate) async fn retry(call: Call) -> Answer {
    let (to, _) = known(&call)?;
    call.read(|_| Some(()))?;
    let (app, id) = (Arc::clone(&call.app), call.path("id").to_owned());
    let again = call
        .app
        .blocking(move || app.outbox.retry(&to, &id))
        .await?;
    let delivery = again.map_err(|no| match no {
        NotAgain::Unknown => ApiError::NotFound { what: "delivery" },
        NotAgain::Full => ApiError::RateExceeded {
            detail: "too many deliveries wait: try again when some have ended".to_owned(),
        },
    })?;
    Ok(HttpResponse::Accepted().json(delivery_view(&delivery)))
}

fn read(body: &mut Object<'_>, call: &Call) -> Option<(String, Option<Secret>, bool)> {
    let allow = &call.app.config.webhooks.allow_addresses;
    let url = body.required_text("url", URL_MAX);
    let url = url.and_then(|url| match check_url(&url, allow) {
        Ok(url) => Some(url),
        Err(fault) => {
            body.fault("url", fault);
            None
        }
    });
    let secret = body.text("secret", SECRET_MAX).map(|text| {
        let secret = Secret::given(text);
        if secret.is_none() {
            let detail = format!("must be {SECRET_MIN} to {SECRET_MAX} printable ASCII characters");
            body.fault("secret", detail);
        }
        secret
    });
    let enabled = body.flag("enabled").unwrap_or(true);
    Some((url?, secret.flatten(), enabled))
}

/// Whose webhooks a request without other parameters is about: the token's tenant's, the one's that
/// an operator names, else the operator's.
fn owner(call: &Call) -> Result<Option<String>, ApiError> {
    let mut query = call.query()?;
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    Ok(tenant.map(|tenant| tenant.profile.name.clone()))
}

fn target(call: &Call) -> Result<Target, ApiError> {
    Ok(Target {
        tenant: owner(call)?,
        name: call.path("name").to_owned(),
    })
}

fn known(call: &Call) -> Result<(Target, Arc<Webhook>), ApiError> {
    let to = target(call)?;
    let webhook = call.app.registry.webhook(&to);
    let webhook = webhook.ok_or(ApiError::NotFound { what: "webhook" })?;
    Ok((to, webhook))
}

/// The entry that set the webhook, zero for none; refuses what `If-Match` does not match.
fn seen(call: &Call, webhook: Option<&Webhook>) -> Result<u64, ApiError> {
    let seen = webhook.map_or(0, |webhook| webhook.seq);
    if call.if_match()?.is_none_or(|expect| expect == seen) {
        return Ok(seen);
    }
    Err(ApiError::Conflict {
        detail: "it was changed since you looked".to_owned(),
    })
}

/// Keeps a secret; answers its id.
async fn keep(call: &Call, secret: Secret) -> Result<String, ApiError> {
    let app = Arc::clone(&call.app);
    let kept = call
        .app
        .blocking(move || app.outbox.secrets.keep(&secret, &app.clock));
    kept.await?.map_err(ApiError::internal)
}

async fn forget(call: &Call, secret: String) -> Result<(), ApiError> {
    let app = Arc::clone(&call.app);
    call.app
        .blocking(move || app.outbox.secrets.remove(&secret))
        .await
}

fn view(to: &Target, webhook: &Webhook, secret: Option<&Secret>) -> WebhookView {
    WebhookView {
        name: to.name.clone(),
        tenant: to.tenant.clone(),
        url: webhook.doc.url.clone(),
        enabled: webhook.doc.enabled,
        created_at: rfc3339(webhook.doc.created_us),
        secret: secret.map(|secret| secret.reveal().to_owned()),
    }
}

fn delivery_view(of: &Delivery) -> DeliveryView {
    DeliveryView {
        id: of.id.clone(),
        event: serde_json::from_str(&of.body).unwrap_or_default(),
        state: of.state.name(),
        attempts: of.attempts,
        created_at: rfc3339(of.created_us),
        last_attempt_at: of.last_us.map(rfc3339),
        last_status: of.status,
        last_error: of.fault.clone(),
        next_attempt_at: of.next_us.map(rfc3339),
    }
}
