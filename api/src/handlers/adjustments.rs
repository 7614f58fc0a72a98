//! Adjustments: proposed by one person, approved or rejected by another.

use actix_web::HttpResponse;
use ledger::{Act, Adjustment, Body, Effect, Money, Party, Proposal, Proposed};
use serde::Serialize;
use utoipa::ToSchema;

use super::statements::decimal;
use super::usage::failed;
use crate::budgets;
use crate::call::{Answer, Call, List, ok};
use crate::clock::rfc3339;
use crate::error::{ApiError, Problem, Retry};
use crate::idempotency::{Key, Once, act_once};
use crate::json::Object;
use crate::registry::{Tenant, act};

/// Longest reason or description, in bytes.
const TEXT_MAX: usize = 200;

/// The route as idempotency keys are bound to it.
const PROPOSE: &str = "POST /v1/adjustments";

/// An adjustment, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdjustmentView {
    /// Its id: the entry that proposed it; decimal.
    pub id: String,
    /// `pending`, `approved` or `rejected`.
    pub state: &'static str,
    /// Whose it is.
    pub tenant: String,
    /// ISO 4217 code.
    pub currency: String,
    /// What it adds to what the tenant owes; decimal, below zero for a credit.
    pub amount: String,
    /// The settlement that it reverses; null for a line of its own.
    pub reverses: Option<u64>,
    /// As it stands on the statement; null for a reversal.
    pub description: Option<String>,
    /// Why.
    pub reason: String,
    /// Who proposed it.
    pub author: PartyView,
    /// When.
    pub proposed_at: String,
    /// Who approved or rejected it.
    pub decided_by: Option<PartyView>,
    /// When.
    pub decided_at: Option<String>,
    /// The adjustment's own entry once it is approved, or that of its rejection.
    pub entry: Option<u64>,
    /// Why it was rejected.
    pub rejected_because: Option<String>,
}

/// A key, and whom it stands for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PartyView {
    /// The key: the token's `jti`.
    pub key: String,
    /// The token's `sub`.
    pub subject: String,
}

/// A page of adjustments.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdjustmentList {
    /// By id. Of those decided, the last 1,000; approved ones are entries for ever.
    pub items: Vec<AdjustmentView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// What `POST /v1/adjustments` takes: `reverses`, or `amount` and `description`.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct AdjustmentBody {
    /// Whose it is.
    tenant: String,
    /// The entry of a settlement that is taken back whole.
    reverses: Option<u64>,
    /// What is added to what the tenant owes; decimal, below zero for a credit.
    amount: Option<String>,
    /// The currency of the tenant's rate card, which it is if absent.
    currency: Option<String>,
    /// As it stands on the statement.
    description: Option<String>,
    /// Why.
    reason: String,
}

/// What a rejection takes.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct RejectionBody {
    /// Why.
    reason: Option<String>,
}

/// What is asked for.
enum Wanted {
    Reversal(u64),
    Line {
        amount: Money,
        currency: Option<String>,
        description: String,
    },
}

/// Lists adjustments by id
#[utoipa::path(get, path = "/v1/adjustments", tag = "money",
    params(("state" = Option<String>, Query, description = "pending, approved or rejected"),
        ("tenant" = Option<String>, Query), ("limit" = Option<u32>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, body = AdjustmentList), (status = 400, body = Problem)))]
pub(crate) async fn list(call: Call) -> Answer {
    let mut query = call.query()?;
    let tenant = call.tenant(&mut query)?;
    let page = query.page(&call.app, |cursor| cursor.parse::<u64>().ok());
    let state = query.take("state");
    let known = ["pending", "approved", "rejected"];
    if state
        .as_deref()
        .is_some_and(|state| !known.contains(&state))
    {
        let detail = "must be pending, approved or rejected";
        query.faults.add("?state", detail);
    }
    query.finish()?;
    let mut all = call.app.ledger.adjustments();
    all.sort_by_key(|one| one.id);
    let wanted = |one: &&Proposed| {
        let own = |tenant: &Tenant| tenant.profile.name == one.proposal.tenant;
        tenant.as_deref().is_none_or(own)
            && state.as_deref().is_none_or(|state| state == state_of(one))
            && page.cursor.is_none_or(|after| one.id > after)
    };
    let rest = all.iter().filter(wanted);
    let views = rest.take(page.limit.saturating_add(1)).map(view).collect();
    Ok(ok(&List::cut(
        views,
        page.limit,
        |last: &AdjustmentView| last.id.clone(),
    )))
}

/// Proposes an adjustment, which changes nothing until somebody else approves it
///
/// An `Idempotency-Key` that has proposed one answers that one, as it now is.
#[utoipa::path(post, path = "/v1/adjustments", tag = "money", request_body = AdjustmentBody,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = AdjustmentView), (status = 200, body = AdjustmentView),
        (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem),
        (status = 429, body = Problem)))]
pub(crate) async fn propose(call: Call) -> Answer {
    call.no_query()?;
    let body = call.object()?;
    let key = Key::of(&call, PROPOSE, &body);
    let (name, wanted, reason) = Call::read_map(body, read)?;
    let key = key.transpose()?;
    let tenant = call.app.registry.tenant(&name);
    tenant.ok_or(ApiError::NotFound { what: "tenant" })?;
    let caller = call.caller()?;
    let subject = caller.subject.clone();
    let proposal = match wanted {
        Wanted::Reversal(entry) => reversal(&call, &name, entry, subject).await?,
        Wanted::Line {
            amount,
            currency,
            description,
        } => {
            let own = || {
                call.app
                    .ledger
                    .terms(&name)
                    .and_then(|terms| terms.currency)
            };
            Proposal {
                currency: currency.or_else(own).unwrap_or_default(),
                tenant: name.clone(),
                amount,
                subject,
                what: Adjustment::Line { description },
            }
        }
    };
    let wanted = Act {
        effect: Some(Effect::Propose(proposal)),
        ..act(
            &caller.actor(Some(reason)),
            "adjustment.propose",
            "adjustments",
            &name,
        )
    };
    let id = match key {
        None => call.app.registry.record(wanted).await?,
        Some(key) => match act_once(&call, wanted, &key).await? {
            Once::Made(id) => id,
            Once::Earlier(id) => return earlier(&call, id),
        },
    };
    let made = recorded(&call, id, false)?;
    Ok(HttpResponse::Created().json(view(&made)))
}

/// What was proposed with the same key before, as it now is.
fn earlier(call: &Call, id: u64) -> Answer {
    let earlier = found(call, id).ok().ok_or_else(|| ApiError::Conflict {
        detail: format!("adjustment {id} was proposed with this key, and is long decided"),
    })?;
    Ok(HttpResponse::Ok()
        .insert_header(("Idempotent-Replayed", "true"))
        .json(view(&earlier)))
}

fn read(body: &mut Object<'_>) -> Option<(String, Wanted, String)> {
    let tenant = body.required_text("tenant", TEXT_MAX);
    let reason = body.required_text("reason", TEXT_MAX);
    let reverses = body.integer("reverses", 1, u64::MAX);
    let amount = body.text("amount", TEXT_MAX).and_then(|text| {
        let amount = Money::parse(&text);
        if let Err(error) = &amount {
            body.fault("amount", error.to_string());
        }
        amount.ok()
    });
    let currency = body.text("currency", TEXT_MAX);
    let description = body.text("description", TEXT_MAX);
    let wanted = match (reverses, amount, description) {
        (Some(entry), None, None) if currency.is_none() => Some(Wanted::Reversal(entry)),
        (None, Some(amount), Some(description)) => Some(Wanted::Line {
            amount,
            currency,
            description,
        }),
        _ => {
            let detail = "must have `reverses` alone, or `amount` and `description`";
            body.fault("", detail);
            None
        }
    };
    Some((tenant?, wanted?, reason?))
}

/// The reversal of a settlement of the tenant's.
async fn reversal(
    call: &Call,
    tenant: &str,
    entry: u64,
    subject: String,
) -> Result<Proposal, ApiError> {
    let ledger = call.app.ledger.clone();
    let read = call.app.blocking(move || ledger.entry(entry)).await?;
    let settled = match read.map_err(failed)?.map(|found| found.body) {
        Some(Body::Settled(settled)) if settled.hold.tenant == tenant => settled,
        _ => {
            let detail = "is not the entry of a settlement of this tenant";
            return Err(ApiError::invalid("/reverses", detail));
        }
    };
    Ok(Proposal::reversal(entry, settled, subject))
}

/// Approves an adjustment that somebody else has proposed: it is recorded
#[utoipa::path(post, path = "/v1/adjustments/{id}/approve", tag = "money",
    params(("id" = String, Path)),
    responses((status = 200, body = AdjustmentView), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn approve(call: Call) -> Answer {
    let subject = call.caller()?.subject.clone();
    call.read(|_nothing| Some(()))?;
    let effect = |proposal| Effect::Approve { proposal, subject };
    decide(call, "adjustment.approve", None, effect).await
}

/// Rejects an adjustment
#[utoipa::path(post, path = "/v1/adjustments/{id}/reject", tag = "money",
    request_body = RejectionBody, params(("id" = String, Path)),
    responses((status = 200, body = AdjustmentView), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn reject(call: Call) -> Answer {
    let subject = call.caller()?.subject.clone();
    let reason = call.read(|body| Some(body.text("reason", TEXT_MAX)))?;
    let effect = |proposal| Effect::Reject { proposal, subject };
    decide(call, "adjustment.reject", reason, effect).await
}

async fn decide(
    call: Call,
    action: &str,
    reason: Option<String>,
    effect: impl FnOnce(u64) -> Effect,
) -> Answer {
    call.no_query()?;
    let id = call.path("id").parse::<u64>().ok();
    let one = found(&call, id.unwrap_or(0))?;
    let tenant = &one.proposal.tenant;
    let actor = call.caller()?.actor(reason);
    let wanted = Act {
        effect: Some(effect(one.id)),
        ..act(&actor, action, "adjustments", tenant)
    };
    call.app.registry.record(wanted).await?;
    let now = recorded(&call, one.id, true)?;
    // What was approved may be what a budget has waited for.
    if let Some(verdict) = now.verdict.as_ref().filter(|verdict| verdict.approved) {
        budgets::used(&call.app, tenant, verdict.at);
    }
    Ok(ok(&view(&now)))
}

/// The adjustment of that id, if the ledger remembers it.
fn found(call: &Call, id: u64) -> Result<Proposed, ApiError> {
    let all = call.app.ledger.adjustments().into_iter();
    let mut own = all.filter(|one| one.id == id);
    own.next().ok_or(ApiError::NotFound { what: "adjustment" })
}

/// An adjustment after what was just recorded of it.
fn recorded(call: &Call, id: u64, decided: bool) -> Result<Proposed, ApiError> {
    let now = found(call, id).ok();
    let now = now.filter(|one| one.verdict.is_some() == decided);
    now.ok_or_else(|| ApiError::Unavailable {
        reason: format!("adjustment {id} is recorded, and reads do not show it yet"),
        retry: Retry::SameKey,
    })
}

fn state_of(one: &Proposed) -> &'static str {
    match &one.verdict {
        None => "pending",
        Some(verdict) if verdict.approved => "approved",
        Some(_) => "rejected",
    }
}

pub(super) fn party(of: &Party) -> PartyView {
    PartyView {
        key: of.key.clone(),
        subject: of.subject.clone(),
    }
}

fn view(one: &Proposed) -> AdjustmentView {
    let (proposal, verdict) = (&one.proposal, one.verdict.as_ref());
    AdjustmentView {
        id: one.id.to_string(),
        state: state_of(one),
        tenant: proposal.tenant.clone(),
        currency: proposal.currency.clone(),
        amount: decimal(proposal.amount),
        reverses: proposal.what.reverses(),
        description: match &proposal.what {
            Adjustment::Line { description } => Some(description.clone()),
            Adjustment::Reversal { .. } => None,
        },
        reason: one.reason.clone(),
        author: party(&one.author),
        proposed_at: rfc3339(one.at),
        decided_by: verdict.map(|verdict| party(&verdict.by)),
        decided_at: verdict.map(|verdict| rfc3339(verdict.at)),
        entry: verdict.map(|verdict| verdict.entry),
        rejected_because: verdict.and_then(|verdict| verdict.reason.clone()),
    }
}
