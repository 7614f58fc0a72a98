//! Refused executions: counted by minute and by what was in the way, and the last ones one by one.

use ledger::{Cause, DeniedBy};
use serde::Serialize;
use utoipa::ToSchema;

use crate::call::{Answer, Call, ok};
use crate::clock::rfc3339;
use crate::error::{ApiError, Problem};
use crate::shape::{self, QuotaScope};

/// Refusals of one kind in one minute.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DenialView {
    /// The tenant refused.
    pub tenant: String,
    /// The quota's name, or `rate`, `concurrency`, `credit`, `max_cost`, `suspended`.
    #[schema(example = "tenant/executions/day")]
    pub by: String,
    /// Whose use was counted; null for the whole tenant.
    pub scope: Option<QuotaScope>,
    /// What was in the way: `posted`, what was used already; `held`, only open holds.
    pub cause: &'static str,
    /// Start of the minute.
    pub minute: String,
    /// Refusals; decimal.
    pub count: String,
}

/// Refusals since the server started, within its bounds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DenialList {
    /// Newest minute first.
    pub items: Vec<DenialView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// One refusal; one that several quotas refused is here once for each.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecentDenial {
    /// When.
    pub at: String,
    /// The tenant refused.
    pub tenant: String,
    /// The project named.
    pub project: String,
    /// The function named.
    pub function: Option<String>,
    /// The key used.
    pub key: String,
    /// As in the counts.
    pub by: String,
    /// Whose use was counted; null for the whole tenant.
    pub scope: Option<QuotaScope>,
    /// `posted` or `held`.
    pub cause: &'static str,
    /// What was counted; null where nothing was.
    pub meter: Option<&'static str>,
    /// The most there might be: a quota's limit with its overdraft, a cap, the credit that was
    /// left, or `max_cost`; decimal.
    pub limit: Option<String>,
    /// What was used; decimal.
    pub posted: Option<String>,
    /// What was held; decimal.
    pub held: Option<String>,
    /// What the execution needed; decimal.
    pub requested: Option<String>,
}

/// The last refusals since the server started, within its bounds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecentDenialList {
    /// Newest first.
    pub items: Vec<RecentDenial>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// Which refusals a list shows.
struct Wanted {
    by: Option<String>,
    cause: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
    /// Only those with lower numbers.
    before: Option<u64>,
    limit: usize,
}

impl Wanted {
    fn passes(&self, (by, cause): (&DeniedBy, Cause), at: i64, number: u64) -> bool {
        let same = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        same(&self.by, name(by))
            && same(&self.cause, shape::cause(cause))
            && self.from.is_none_or(|from| from <= at)
            && self.to.is_none_or(|to| at < to)
            && self.before.is_none_or(|before| number < before)
    }
}

fn name(by: &DeniedBy) -> &str {
    match by {
        DeniedBy::Quota(name) => name,
        DeniedBy::Rate => "rate",
        DeniedBy::Concurrency => "concurrency",
        DeniedBy::Credit => "credit",
        DeniedBy::MaxCost => "max_cost",
        DeniedBy::Suspended => "suspended",
    }
}

/// The first of what passes, newest first, and where the next page begins: by the number of the
/// last one, so that what is refused meanwhile moves nothing.
fn page<T>(mut all: Vec<T>, limit: usize, number: impl Fn(&T) -> u64) -> (Vec<T>, Option<String>) {
    let more = all.len() > limit;
    all.truncate(limit);
    let last = all.last().filter(|_| more);
    let next = last.map(|last| number(last).to_string());
    (all, next)
}

/// Which tenant's, which of them, and which page.
fn asked(call: &Call) -> Result<(Option<String>, Wanted), ApiError> {
    let mut query = call.query()?;
    let tenant = call.tenant(&mut query)?;
    let page = query.page(&call.app, |cursor| cursor.parse().ok());
    let wanted = Wanted {
        by: query.take("by"),
        cause: query.take("cause"),
        from: query.time("from"),
        to: query.time("to"),
        before: page.cursor,
        limit: page.limit,
    };
    if !matches!(wanted.cause.as_deref(), None | Some("posted" | "held")) {
        query.faults.add("?cause", "must be posted or held");
    }
    query.finish()?;
    let name = tenant.map(|tenant| tenant.profile.name.clone());
    Ok((name, wanted))
}

/// Counts refusals since the server started, by minute, newest first
#[utoipa::path(get, path = "/v1/denials", tag = "money",
    params(("tenant" = Option<String>, Query),
        ("by" = Option<String>, Query, description = "as in the answer"),
        ("cause" = Option<String>, Query, description = "posted or held"),
        ("from" = Option<String>, Query), ("to" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = DenialList), (status = 400, body = Problem)))]
pub(crate) async fn counts(call: Call) -> Answer {
    let (tenant, wanted) = asked(&call)?;
    let mut counts = call.app.ledger.denials(tenant.as_deref()).counts;
    counts.retain(|one| wanted.passes((&one.by, one.cause), one.minute, one.number));
    let (counts, next_cursor) = page(counts, wanted.limit, |one| one.number);
    let views = counts.into_iter().map(|one| DenialView {
        by: name(&one.by).to_owned(),
        tenant: one.tenant,
        scope: shape::scope(&one.scope),
        cause: shape::cause(one.cause),
        minute: rfc3339(one.minute),
        count: one.count.to_string(),
    });
    let items = views.collect();
    Ok(ok(&DenialList { items, next_cursor }))
}

/// Lists the last refusals one by one, newest first
#[utoipa::path(get, path = "/v1/denials/recent", tag = "money",
    params(("tenant" = Option<String>, Query),
        ("by" = Option<String>, Query, description = "as in the answer"),
        ("cause" = Option<String>, Query, description = "posted or held"),
        ("from" = Option<String>, Query), ("to" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = RecentDenialList), (status = 400, body = Problem)))]
pub(crate) async fn recent(call: Call) -> Answer {
    let (tenant, wanted) = asked(&call)?;
    let mut last = call.app.ledger.denials(tenant.as_deref()).last;
    last.retain(|one| wanted.passes((&one.by, one.cause), one.at, one.number));
    let (last, next_cursor) = page(last, wanted.limit, |one| one.number);
    let views = last.into_iter().map(|one| RecentDenial {
        meter: one.stood.map(|stood| stood.meter.name()),
        limit: one.stood.map(|of| shape::quantity(of.meter, of.limit)),
        posted: one.stood.map(|of| shape::quantity(of.meter, of.posted)),
        held: one.stood.map(|of| shape::quantity(of.meter, of.held)),
        requested: one.stood.map(|of| shape::quantity(of.meter, of.requested)),
        function: one.function,
        at: rfc3339(one.at),
        by: name(&one.by).to_owned(),
        tenant: one.tenant,
        project: one.project,
        key: one.key,
        scope: shape::scope(&one.scope),
        cause: shape::cause(one.cause),
    });
    let items = views.collect();
    Ok(ok(&RecentDenialList { items, next_cursor }))
}
