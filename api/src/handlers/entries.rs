//! What the ledger shows of itself: entries, holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::{Acted, Adjusted, Adjustment, Body, Entry, EntryKind, EntryQuery, Funding, Hold};
use serde::Serialize;
use utoipa::ToSchema;

use super::adjustments::{PartyView, party};
use super::audit::{self, detail::detail};
use super::usage::{AsOfView, failed};
use crate::call::{Answer, Call, List, ok};
use crate::clock::rfc3339;
use crate::error::Problem;
use crate::ids::{self, Kind};
use crate::record::{ChargeView, Outcome};
use crate::shape::{self, QuotaBody, QuotaScope};

/// An immutable record of the ledger.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EntryView {
    /// Its number; entries are numbered without gaps.
    pub seq: u64,
    /// When it was recorded.
    pub at: String,
    /// `settlement`, `act` or `adjustment`.
    pub kind: &'static str,
    /// Whom it concerns.
    pub tenant: Option<String>,
    /// The execution that was settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<String>,
    /// The hold that paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// Booked on which project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Through which key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// In which image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The caller's tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What was charged for, by meter; decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<BTreeMap<String, String>>,
    /// What was measured above that, by meter; decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrun: Option<BTreeMap<String, String>>,
    /// What it costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charge: Option<ChargeView>,
    /// What of it credit pays; the rest is payable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub funded: Option<Vec<FundedView>>,
    /// Whether the quantities are an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated: Option<bool>,
    /// Who acted: a key, or `server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// What was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// What it was done to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the act has done: an object whose members depend on the action.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub detail: Option<serde_json::Value>,
    /// Of an act on quotas: the changes that it has left to come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_changes: Option<Vec<QuotaChangeView>>,
    /// What was adjusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adjustment: Option<AdjustedView>,
}

/// Quotas that are in force from an instant on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuotaChangeView {
    /// From when on, inclusive.
    pub effective_at: String,
    /// All that is in force then: the tenant's own, its tier's, and what its budgets count.
    pub quotas: Vec<QuotaBody>,
}

/// An approved adjustment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdjustedView {
    /// Its id: the entry that proposed it; decimal.
    pub id: String,
    /// Who proposed it.
    pub author: PartyView,
    /// Who approved it.
    pub approver: PartyView,
    /// ISO 4217 code.
    pub currency: String,
    /// What it adds to what the tenant owes; decimal, below zero for a credit.
    pub amount: String,
    /// The settlement that it reverses, whose charge it takes back.
    pub reverses: Option<u64>,
    /// The closed month that it corrects.
    pub corrects: Option<String>,
    /// As it stands on the statement; null for a reversal.
    pub description: Option<String>,
    /// What the reversed run has used, by meter; decimal. It stays used: only its charge is taken
    /// back.
    pub usage: BTreeMap<String, String>,
    /// What of a reversed settlement was paid from credit, and is a grant again; decimal.
    pub refunded: String,
}

impl From<&Adjusted> for AdjustedView {
    fn from(of: &Adjusted) -> AdjustedView {
        let decimal = |money: ledger::Money| shape::plain(&money.to_string()).to_owned();
        let taken = of.what.reversed().map(|settled| settled.posted);
        let usage = shape::quantities(&taken.unwrap_or_default());
        AdjustedView {
            id: of.proposal.to_string(),
            author: party(&of.author),
            approver: party(&of.approver),
            currency: of.currency.clone(),
            amount: decimal(of.amount),
            reverses: of.what.reverses(),
            corrects: of.corrects.map(|period| period.to_string()),
            description: match &of.what {
                Adjustment::Line { description } => Some(description.clone()),
                Adjustment::Reversal { .. } => None,
            },
            usage,
            refunded: decimal(of.refunded),
        }
    }
}

/// What a grant pays of a charge.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FundedView {
    /// The entry of the grant.
    pub grant: u64,
    /// How much; decimal.
    pub amount: String,
}

impl From<&Funding> for FundedView {
    fn from(of: &Funding) -> FundedView {
        FundedView {
            grant: of.grant,
            amount: shape::plain(&of.amount.to_string()).to_owned(),
        }
    }
}

/// A page of entries.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EntryList {
    /// By number.
    pub items: Vec<EntryView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
    /// Up to where this includes everything.
    pub as_of: AsOfView,
}

/// A hold.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HoldView {
    /// Its id.
    pub id: String,
    /// The execution that it pays for.
    pub execution: String,
    /// Who pays.
    pub tenant: String,
    /// `open`: what has ended is an entry.
    pub state: &'static str,
    /// When it was opened.
    pub opened_at: String,
    /// The worst case held, by meter; decimal.
    pub quantities: BTreeMap<String, String>,
    /// What the worst case costs; decimal.
    pub amount: String,
    /// What it counts against.
    pub scopes: Vec<QuotaScope>,
}

/// A page of holds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HoldList {
    /// Oldest first.
    pub items: Vec<HoldView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// Lists entries by number
#[utoipa::path(get, path = "/v1/entries", tag = "money",
    params(("tenant" = Option<String>, Query),
        ("kind" = Option<String>, Query, description = "settlement, act or adjustment"),
        ("from" = Option<String>, Query), ("to" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = EntryList), (status = 400, body = Problem)))]
pub(crate) async fn entries(call: Call) -> Answer {
    let mut query = call.query()?;
    let tenant = call.tenant(&mut query)?;
    let page = query.page(&call.app, |cursor| cursor.parse().ok());
    let kind = query.take("kind").and_then(|name| match name.as_str() {
        "settlement" => Some(EntryKind::Settled),
        "act" => Some(EntryKind::Acted),
        "adjustment" => Some(EntryKind::Adjusted),
        _ => {
            query
                .faults
                .add("?kind", "must be settlement, act or adjustment");
            None
        }
    });
    let (from, to) = (query.time("from"), query.time("to"));
    query.finish()?;
    let asked = EntryQuery {
        after: page.cursor.unwrap_or(0),
        tenant: tenant.map(|tenant| tenant.profile.name.clone()),
        kind,
        from,
        to,
        limit: page.limit,
    };
    let ledger = call.app.ledger.clone();
    let found = call
        .app
        .blocking(move || ledger.entries(&asked))
        .await?
        .map_err(failed)?;
    Ok(ok(&EntryList {
        items: found.entries.iter().map(entry).collect(),
        next_cursor: found.next.map(|next| next.to_string()),
        as_of: found.as_of.into(),
    }))
}

/// An entry as the API shows it: for who has its bytes and need not believe a server.
#[must_use]
pub fn entry_json(of: &Entry) -> serde_json::Value {
    serde_json::to_value(entry(of)).unwrap_or_default()
}

pub(super) fn entry(entry: &Entry) -> EntryView {
    let mut view = EntryView {
        seq: entry.seq,
        at: rfc3339(entry.at),
        kind: "act",
        tenant: entry.tenant().map(str::to_owned),
        execution: None,
        hold: None,
        project: None,
        key: None,
        image: None,
        tags: None,
        outcome: None,
        usage: None,
        overrun: None,
        charge: None,
        funded: None,
        estimated: None,
        actor: None,
        action: None,
        subject: None,
        reason: None,
        detail: None,
        quota_changes: None,
        adjustment: None,
    };
    match &entry.body {
        Body::Settled(settled) => {
            let hold = &settled.hold;
            view.kind = "settlement";
            view.execution = Some(ids::text(Kind::Execution, &hold.execution.0));
            view.hold = Some(ids::text(Kind::Hold, &hold.id.0));
            view.project = Some(hold.project.clone());
            view.key = Some(hold.key.clone());
            view.image = Some(hold.image.clone());
            view.tags = Some(hold.tags.iter().cloned().collect());
            view.outcome = Some(Outcome::from_entry(&settled.outcome));
            view.usage = Some(shape::quantities(&settled.posted));
            view.overrun = Some(shape::quantities(&settled.overrun));
            view.charge = Some(ChargeView::from(&settled.charge));
            view.funded = Some(settled.funded.iter().map(FundedView::from).collect());
            view.estimated = Some(settled.estimated);
        }
        Body::Acted(acted) => {
            view.actor = Some(acted.actor.clone());
            view.action = Some(acted.action.clone());
            view.subject = Some(acted.subject.clone());
            view.reason.clone_from(&acted.reason);
            view.detail = detail(acted);
            view.quota_changes = quota_changes(acted);
        }
        Body::Adjusted(adjusted) => {
            view.kind = "adjustment";
            view.actor = Some(adjusted.approver.key.clone());
            view.action = Some(audit::APPROVED.to_owned());
            view.subject = Some(audit::approved(adjusted));
            view.funded = Some(adjusted.funded.iter().map(FundedView::from).collect());
            view.reason = Some(adjusted.reason.clone());
            view.adjustment = Some(AdjustedView::from(adjusted));
        }
    }
    view
}

/// The changes of quotas that an act on quotas has left to come.
fn quota_changes(acted: &Acted) -> Option<Vec<QuotaChangeView>> {
    let settings = acted.effect.as_ref()?.settings()?;
    let changes = settings.changes.iter();
    let views = changes.map(|change| QuotaChangeView {
        effective_at: rfc3339(change.effective_at),
        quotas: change.quotas.iter().map(shape::quota_body).collect(),
    });
    acted.action.starts_with("quotas.").then(|| views.collect())
}

/// Lists open holds, oldest first
#[utoipa::path(get, path = "/v1/holds", tag = "money",
    params(("tenant" = Option<String>, Query), ("state" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = HoldList), (status = 400, body = Problem)))]
pub(crate) async fn holds(call: Call) -> Answer {
    let mut query = call.query()?;
    let tenant = call.tenant(&mut query)?;
    let page = query.page(&call.app, |cursor| ids::parse(Kind::Hold, cursor));
    if query.take("state").is_some_and(|state| state != "open") {
        query
            .faults
            .add("?state", "must be open: a hold that has ended is an entry");
    }
    query.finish()?;
    let own = |hold: &Arc<Hold>| {
        tenant
            .as_ref()
            .is_none_or(|tenant| tenant.profile.name == hold.tenant)
    };
    let mut open = call.app.ledger.open_holds();
    open.retain(own);
    open.sort_by_key(|hold| hold.id);
    let rest = open
        .iter()
        .filter(|hold| page.cursor.is_none_or(|after| hold.id.0 > after));
    let views = rest
        .take(page.limit.saturating_add(1))
        .map(|one| hold(one))
        .collect();
    Ok(ok(&List::cut(views, page.limit, |last: &HoldView| {
        last.id.clone()
    })))
}

pub(super) fn hold(hold: &Hold) -> HoldView {
    let scope = |project, function, key| QuotaScope {
        project,
        function,
        key,
    };
    let mut scopes = vec![scope(Some(hold.project.clone()), None, None)];
    scopes.extend(
        hold.function
            .clone()
            .map(|name| scope(None, Some(name), None)),
    );
    scopes.push(scope(None, None, Some(hold.key.clone())));
    HoldView {
        id: ids::text(Kind::Hold, &hold.id.0),
        execution: ids::text(Kind::Execution, &hold.execution.0),
        tenant: hold.tenant.clone(),
        state: "open",
        opened_at: rfc3339(hold.opened_at),
        quantities: shape::quantities(&hold.quantities),
        amount: hold.amount.to_string(),
        scopes,
    }
}
