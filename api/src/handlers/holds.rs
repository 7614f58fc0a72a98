//! Open holds, and the scopes that they count against.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::Hold;
use serde::Serialize;
use utoipa::ToSchema;

use crate::call::{Answer, Call, List, ok};
use crate::clock::rfc3339;
use crate::error::Problem;
use crate::ids::{self, Kind};
use crate::shape;

/// What to say of holds that are not open.
const RELEASED: &str = "must be open: a hold that was settled is an entry (?execution= of \
                        /v1/entries), and one that was released charged nothing and left none; \
                        its execution tells why";

/// A hold.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HoldView {
    /// Its id.
    pub id: String,
    /// The execution that it pays for.
    pub execution: String,
    /// Who pays.
    pub tenant: String,
    /// `open`: one that was settled is an entry, and one that was released has left none.
    pub state: &'static str,
    /// When it was opened.
    pub opened_at: String,
    /// The worst case held, by meter; decimal.
    pub quantities: BTreeMap<String, String>,
    /// What the worst case costs; decimal.
    pub amount: String,
    /// What it counts against.
    pub scopes: Vec<HoldScope>,
}

/// Whose use a hold is a part of; exactly one field is set.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct HoldScope {
    /// The whole tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// One project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// One function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// One key, by its `jti`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A page of holds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HoldList {
    /// Oldest first.
    pub items: Vec<HoldView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// Lists open holds, oldest first
#[utoipa::path(get, path = "/v1/holds", tag = "money",
    params(("tenant" = Option<String>, Query), ("state" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = HoldList), (status = 400, body = Problem)))]
pub(crate) async fn list(call: Call) -> Answer {
    let mut query = call.query()?;
    let tenant = call.tenant(&mut query)?;
    let page = query.page(&call.app, |cursor| ids::parse(Kind::Hold, cursor));
    if query.take("state").is_some_and(|state| state != "open") {
        query.faults.add("?state", RELEASED);
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
    let whole = HoldScope {
        tenant: Some(hold.tenant.clone()),
        ..HoldScope::default()
    };
    let project = HoldScope {
        project: Some(hold.project.clone()),
        ..HoldScope::default()
    };
    let function = hold.function.clone().map(|name| HoldScope {
        function: Some(name),
        ..HoldScope::default()
    });
    let key = HoldScope {
        key: Some(hold.key.clone()),
        ..HoldScope::default()
    };
    let scopes = [whole, project].into_iter().chain(function).chain([key]);
    HoldView {
        id: ids::text(Kind::Hold, &hold.id.0),
        execution: ids::text(Kind::Execution, &hold.execution.0),
        tenant: hold.tenant.clone(),
        state: "open",
        opened_at: rfc3339(hold.opened_at),
        quantities: shape::quantities(&hold.quantities),
        amount: hold.amount.to_string(),
        scopes: scopes.collect(),
    }
}
