//! The ledger's entries: by number, and by what they are of.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::{
    Acted, Adjusted, Adjustment, Body, ChargeQuery, Entry, EntryKind, EntryQuery, Funding, Id,
    Ledger, Only, QueryError,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::adjustments::{PartyView, party};
use super::audit::{self, detail::detail};
use super::usage::{AsOfView, failed, only};
use crate::call::{Answer, Call, Query, ok};
use crate::clock::rfc3339;
use crate::error::{ApiError, Problem};
use crate::ids::{self, Kind};
use crate::record::{ChargeView, Outcome};
use crate::registry::Tenant;
use crate::shape::{self, QuotaBody};

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
    /// When that was opened: the instant whose windows and prices count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<String>,
    /// The entry of the rate card that prices it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_card: Option<u64>,
    /// Booked on which project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// For which function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
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

/// Lists entries by number
///
/// Filters by project, function, key, image and tag find settlements, and adjustments that reverse
/// one; `execution` its settlement and these. Where few pass, a page may be short and still have a
/// next one.
#[utoipa::path(get, path = "/v1/entries", tag = "money",
    params(("tenant" = Option<String>, Query),
        ("kind" = Option<String>, Query, description = "settlement, act or adjustment"),
        ("project" = Option<String>, Query), ("function" = Option<String>, Query),
        ("image" = Option<String>, Query), ("key" = Option<String>, Query),
        ("tag" = Option<String>, Query, description = "KEY:VALUE, repeatable"),
        ("execution" = Option<String>, Query),
        ("from" = Option<String>, Query), ("to" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = EntryList), (status = 400, body = Problem)))]
pub(crate) async fn entries(call: Call) -> Answer {
    let mut query = call.query()?;
    let only = only(&call, &mut query)?;
    let page = query.page(&call.app, |cursor| cursor.parse().ok());
    let kind = kind(&mut query);
    let execution = query.take("execution").and_then(|text| {
        let id = ids::parse(Kind::Execution, &text);
        if id.is_none() {
            query.faults.add("?execution", "is no id of an execution");
        }
        id
    });
    let (from, to) = (query.time("from"), query.time("to"));
    query.finish()?;
    let mut asked = EntryQuery {
        after: page.cursor.unwrap_or(0),
        tenant: only.tenant.clone(),
        kind,
        from,
        to,
        limit: page.limit,
    };
    let all = execution.is_none()
        && only
            == Only {
                tenant: only.tenant.clone(),
                ..Only::default()
            };
    let (ledger, most) = (
        call.app.ledger.clone(),
        call.app.config.server.list_scan_max,
    );
    let work = move || {
        if all {
            return piece(&ledger, &asked);
        }
        let execution = execution.map(Id);
        if let Some(execution) = execution
            && let Some(settled) = ledger.settlement_of(execution)?
        {
            // What reverses it comes after it.
            asked.after = asked.after.max(settled.seq.saturating_sub(1));
        }
        let limit = asked.limit;
        asked.limit = audit::CHUNK;
        let only = ChargeQuery {
            only,
            ..ChargeQuery::default()
        };
        let passes = |entry: &Entry| {
            only.passes(entry) && execution.is_none_or(|id| settles(entry) == Some(id))
        };
        let next = |asked: &EntryQuery| piece(&ledger, asked);
        audit::select(next, asked, passes, (limit, most))
    };
    let (as_of, entries, next) = call.app.blocking(work).await?.map_err(failed)?;
    Ok(ok(&EntryList {
        items: entries.iter().map(entry).collect(),
        next_cursor: next.map(|next| next.to_string()),
        as_of: as_of.into(),
    }))
}

/// The next entries.
fn piece(ledger: &Ledger, asked: &EntryQuery) -> Result<audit::Piece, QueryError> {
    let found = ledger.entries(asked)?;
    Ok((found.as_of, found.entries, found.next))
}

/// The kind asked for.
fn kind(query: &mut Query) -> Option<EntryKind> {
    let name = query.take("kind")?;
    let kind = match name.as_str() {
        "settlement" => EntryKind::Settled,
        "act" => EntryKind::Acted,
        "adjustment" => EntryKind::Adjusted,
        _ => {
            query
                .faults
                .add("?kind", "must be settlement, act or adjustment");
            return None;
        }
    };
    Some(kind)
}

/// The execution that an entry settles, or whose settlement it reverses.
fn settles(entry: &Entry) -> Option<Id> {
    match &entry.body {
        Body::Settled(settled) => Some(settled.hold.execution),
        Body::Adjusted(adjusted) => adjusted.what.reversed().map(|of| of.hold.execution),
        Body::Acted(_) => None,
    }
}

/// Shows an entry
#[utoipa::path(get, path = "/v1/entries/{seq}", tag = "money",
    params(("seq" = u64, Path), ("tenant" = Option<String>, Query)),
    responses((status = 200, body = EntryView), (status = 404, body = Problem)))]
pub(crate) async fn one(call: Call) -> Answer {
    let mut query = call.query()?;
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    let missing = || ApiError::NotFound { what: "entry" };
    let seq: u64 = call.path("seq").parse().map_err(|_no_number| missing())?;
    let ledger = call.app.ledger.clone();
    let found = call.app.blocking(move || ledger.entry(seq)).await?;
    let found = found.map_err(failed)?.ok_or_else(missing)?;
    let own = |tenant: &Arc<Tenant>| found.tenant() == Some(&tenant.profile.name);
    if tenant.as_ref().is_some_and(|tenant| !own(tenant)) {
        return Err(missing());
    }
    Ok(ok(&entry(&found)))
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
        opened_at: None,
        rate_card: None,
        project: None,
        function: None,
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
            view.opened_at = Some(rfc3339(hold.opened_at));
            view.rate_card = Some(hold.rate_card);
            view.project = Some(hold.project.clone());
            view.function.clone_from(&hold.function);
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
