//! Executions: begun, listed, shown, cancelled.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, HttpResponseBuilder};
use serde::Serialize;
use utoipa::ToSchema;

use super::events;
use crate::app::App;
use crate::call::{Answer, Call, List, ok};
use crate::error::{ApiError, Problem};
use crate::execute::request::{self, ExecutionBody};
use crate::execute::{self, Begun, Job, Mode};
use crate::idempotency::Key;
use crate::ids::{self, Kind};
use crate::live::{Flight, Stage};
use crate::lookup;
use crate::rate_limit;
use crate::record::{Record, State};
use crate::registry::Tenant;
use crate::telemetry;

/// The route as idempotency keys are bound to it.
const CREATE: &str = "POST /v1/executions";

/// How long a cancel waits for the end, so that most answers show it.
const CANCEL_WAIT: Duration = Duration::from_secs(2);

/// A page of executions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExecutionList {
    /// Newest first.
    pub items: Vec<Record>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// Runs code in a sandbox
///
/// Answers 200 with the record once it has ended. `Prefer: respond-async`: 202 at once. `Accept:
/// text/event-stream`: its events as they happen.
#[utoipa::path(post, path = "/v1/executions", tag = "executions", request_body = ExecutionBody,
    params(("tenant" = Option<String>, Query), ("Idempotency-Key" = Option<String>, Header),
        ("Prefer" = Option<String>, Header)),
    responses((status = 200, body = Record), (status = 202, body = Record),
        (status = 400, body = Problem), (status = 402, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem), (status = 429, body = Problem),
        (status = 503, body = Problem)))]
pub(crate) async fn create(call: Call) -> Answer {
    let app = &call.app;
    let mut query = call.query()?;
    let tenant = call.one_tenant(&mut query)?;
    query.finish()?;
    let body = call.object()?;
    let key = Key::of(&call, CREATE, &body);
    let request = Call::read_map(body, |body| {
        request::read(body, &app.config, &tenant.limits)
    })?;
    let streams = accepts_events(&call);
    let mode = if prefers_async(&call) && !streams {
        Mode::Async
    } else {
        Mode::Sync
    };
    let mut job = Job::new(call.caller()?, tenant, request, mode);
    job.idempotency = key.transpose()?;
    job.trace_id = match telemetry::trace_id(call.header("traceparent")) {
        Some(given) => given,
        None => ids::hex(&ids::new(&app.clock)?),
    };
    let permit = if streams {
        Some(events::permit(app)?)
    } else {
        None
    };
    // Who waits for the end is not woken before it.
    let stage = if streams || mode == Mode::Async {
        Stage::Decided
    } else {
        Stage::Ended
    };
    let flight = match execute::begin(app, job, stage).await? {
        Begun::Replayed(record) => return Ok(replayed(&record, mode)),
        Begun::Fresh(flight) => flight,
    };
    if let Some(permit) = permit {
        return Ok(events::stream_live(&call, flight, permit));
    }
    if mode == Mode::Async {
        // 202 however quick it was: who asks not to wait is always answered in the same way.
        let response = limited(HttpResponse::Accepted(), &call, &flight);
        return Ok(located(response, &flight.record()));
    }
    let record = flight.record();
    let response = limited(HttpResponse::Ok(), &call, &flight);
    Ok(located(response, &record))
}

/// With what is left of the caps on executions.
fn limited(mut response: HttpResponseBuilder, call: &Call, flight: &Flight) -> HttpResponseBuilder {
    let policies = rate_limit::of_admitted(&flight.left(), call.app.clock.wall_us());
    rate_limit::insert(&mut response, &policies);
    response
}

/// 200 for what has ended, 202 for what has not.
fn begun(record: &Record) -> HttpResponseBuilder {
    match record.state {
        State::Finished => HttpResponse::Ok(),
        State::Queued | State::Running => HttpResponse::Accepted(),
    }
}

fn located(mut response: HttpResponseBuilder, record: &Arc<Record>) -> HttpResponse {
    response
        .insert_header(("Location", format!("/v1/executions/{}", record.id)))
        .json(record)
}

/// The record of an earlier execution with the same key, as it now is.
fn replayed(record: &Arc<Record>, mode: Mode) -> HttpResponse {
    let mut response = match (mode, record.state) {
        (Mode::Async, State::Queued | State::Running) => HttpResponse::Accepted(),
        _ => HttpResponse::Ok(),
    };
    response.insert_header(("Idempotent-Replayed", "true"));
    located(response, record)
}

fn prefers_async(call: &Call) -> bool {
    let values = call
        .http
        .headers()
        .get_all("prefer")
        .filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|preference| {
        let name = preference.split([';', '=']).next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case("respond-async")
    })
}

fn accepts_events(call: &Call) -> bool {
    call.header("accept")
        .is_some_and(|value| value.contains("text/event-stream"))
}

/// Which executions a list shows.
#[derive(Debug)]
struct Filter {
    state: Option<State>,
    tags: Vec<(String, String)>,
    from_us: Option<i64>,
    to_us: Option<i64>,
    /// Functions and kept sandboxes are not built yet: whoever asks for theirs finds none.
    none: bool,
}

impl Filter {
    fn passes(&self, record: &Record, made_us: i64) -> bool {
        let tagged = |(key, value): &(String, String)| record.tags.get(key) == Some(value);
        !self.none
            && self.state.is_none_or(|state| record.state == state)
            && self.tags.iter().all(tagged)
            && self.from_us.is_none_or(|from| made_us >= from)
            && self.to_us.is_none_or(|to| made_us < to)
    }
}

/// Lists a tenant's executions, newest first
#[utoipa::path(get, path = "/v1/executions", tag = "executions",
    params(("tenant" = Option<String>, Query), ("state" = Option<State>, Query),
        ("tag" = Option<String>, Query, description = "KEY:VALUE; may be given more than once"),
        ("function" = Option<String>, Query), ("sandbox" = Option<String>, Query),
        ("from" = Option<String>, Query), ("to" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = ExecutionList), (status = 400, body = Problem)))]
pub(crate) async fn list(call: Call) -> Answer {
    let mut query = call.query()?;
    let tenant = call.one_tenant(&mut query)?;
    let page = query.page(&call.app, |cursor| ids::parse(Kind::Execution, cursor));
    let state = query.take("state").and_then(|name| {
        let states = [State::Queued, State::Running, State::Finished];
        let names = ["queued", "running", "finished"].into_iter().zip(states);
        let state = names
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, state)| state);
        if state.is_none() {
            query
                .faults
                .add("?state", "must be queued, running or finished");
        }
        state
    });
    let tags = query.tags();
    let none = query.take("function").is_some() | query.take("sandbox").is_some();
    let (from_us, to_us) = (query.time("from"), query.time("to"));
    query.finish()?;
    let filter = Filter {
        state,
        tags,
        from_us,
        to_us,
        none,
    };
    let app = Arc::clone(&call.app);
    let name = tenant.profile.name.clone();
    let search = move || find(&app, &name, &filter, page.cursor, page.limit);
    Ok(ok(&call.app.blocking(search).await?))
}

/// The newest executions before `before` that pass. Looks at a bounded number of records: a page
/// may be short, or empty, and still have a next one.
fn find(
    app: &App,
    tenant: &str,
    filter: &Filter,
    before: Option<[u8; 16]>,
    limit: usize,
) -> List<Arc<Record>> {
    let scan = app.config.server.list_scan_max.max(limit);
    let live = app.live.list(Some(tenant));
    let mut ids: Vec<[u8; 16]> = live.iter().map(|flight| flight.id).collect();
    ids.retain(|id| before.is_none_or(|before| *id < before));
    ids.extend(
        app.records
            .ids(tenant, before.as_ref(), scan.saturating_add(1)),
    );
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids.dedup();
    let mut items = Vec::new();
    let mut last = None;
    for (looked, id) in ids.iter().enumerate() {
        if items.len() == limit || looked == scan {
            let next_cursor = last.map(|id| ids::text(Kind::Execution, &id));
            return List { items, next_cursor };
        }
        last = Some(*id);
        let flight = live.iter().find(|flight| flight.id == *id);
        let record = match flight {
            Some(flight) => Some(flight.record()),
            None => app.records.get(tenant, id),
        };
        items.extend(record.filter(|record| filter.passes(record, ids::made_us(id))));
    }
    List {
        items,
        next_cursor: None,
    }
}

/// The execution that the path names, if it is the caller's.
pub(super) async fn of_path(call: &Call) -> Result<([u8; 16], Arc<Record>), ApiError> {
    let mut query = call.query()?;
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    find_one(call, tenant).await
}

/// The execution that the path names, if it is that tenant's.
pub(super) async fn find_one(
    call: &Call,
    tenant: Option<Arc<Tenant>>,
) -> Result<([u8; 16], Arc<Record>), ApiError> {
    let missing = || ApiError::NotFound { what: "execution" };
    let id = ids::parse(Kind::Execution, call.path("id")).ok_or_else(missing)?;
    let app = Arc::clone(&call.app);
    let name = tenant.map(|tenant| tenant.profile.name.clone());
    let search = move || lookup::find(&app, name.as_deref(), &id);
    let record = call.app.blocking(search).await??;
    Ok((id, record.ok_or_else(missing)?))
}

/// Shows an execution as it now is
#[utoipa::path(get, path = "/v1/executions/{id}", tag = "executions",
    params(("id" = String, Path), ("tenant" = Option<String>, Query)),
    responses((status = 200, body = Record), (status = 404, body = Problem)))]
pub(crate) async fn get(call: Call) -> Answer {
    let (_, record) = of_path(&call).await?;
    Ok(ok(&record))
}

/// Cancels an execution; one that has ended stays as it is
#[utoipa::path(delete, path = "/v1/executions/{id}", tag = "executions",
    params(("id" = String, Path), ("tenant" = Option<String>, Query)),
    responses((status = 200, body = Record), (status = 202, body = Record),
        (status = 404, body = Problem)))]
pub(crate) async fn cancel(call: Call) -> Answer {
    let (id, record) = of_path(&call).await?;
    let Some(flight) = call.app.live.get(&id) else {
        return Ok(ok(&record));
    };
    flight.cancel();
    // Too late is fine: the answer is 202 then, and the record tells later.
    drop(tokio::time::timeout(CANCEL_WAIT, flight.until(Stage::Ended)).await);
    let record = flight.record();
    Ok(located(begun(&record), &record))
}
