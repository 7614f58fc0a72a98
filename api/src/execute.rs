//! The walk: one billable execution from its request to its record, one line a step.
//!
//! | step | file | may refuse with | leaves behind |
//! |---|---|---|---|
//! | resolve | `resolve.rs` | 400, 403, 404 | nothing |
//! | admit | `admit.rs`, `ahead.rs` | 402, 409, 422, 429, 503 | a durable hold, and a slot |
//! | run | `run.rs` | never: failure is a value | captured output |
//! | settle | `settle.rs` | storage fault only | an entry, durable |
//! | reply | `reply.rs` | never | the record |

pub(crate) mod admit;
pub(crate) mod ahead;
mod reply;
pub(crate) mod request;
mod resolve;
mod run;
mod settle;

pub(crate) use settle::quantities;

use std::sync::Arc;

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::idempotency::Key;
use crate::ids;
use crate::live::{Flight, Phase, Stage};
use crate::record::Record;
use crate::registry::Tenant;
use admit::Admitted;
use request::Request;
use resolve::Plan;

/// How the client wants to hear of the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It waits, and is refused at once when its tenant runs as much as it may.
    Sync,
    /// It does not wait, and the execution may stand in the tenant's queue.
    Async,
}

/// Everything that the walk is given.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) key: String,
    pub(crate) project: Option<String>,
    pub(crate) request: Request,
    pub(crate) idempotency: Option<Key>,
    pub(crate) trace_id: String,
    pub(crate) mode: Mode,
}

/// An execution on its way, or one that was here before.
#[derive(Debug)]
pub(crate) enum Begun {
    /// This request began it.
    Fresh(Arc<Flight>),
    /// An earlier one with the same key did.
    Replayed(Arc<Record>),
}

impl Job {
    pub(crate) fn new(caller: &Caller, tenant: Arc<Tenant>, request: Request, mode: Mode) -> Job {
        Job {
            tenant,
            key: caller.key.clone(),
            project: caller.project.clone(),
            request,
            idempotency: None,
            trace_id: String::new(),
            mode,
        }
    }
}

/// Begins an execution on the server's own threads, and answers once it is as far as `stage`.
///
/// From here on nothing depends on the client's connection: who goes away still pays for what runs.
pub(crate) async fn begin(app: &Arc<App>, job: Job, stage: Stage) -> Result<Begun, ApiError> {
    let id = ids::new(&app.clock)?;
    // It reads files when an image is named first; another thread would cost every other request
    // more than that.
    let plan = resolve::plan(app, id, job)?;
    let flight = app
        .live
        .begin(id, plan.record.clone(), plan.limits.output_bytes);
    drop(app.detach(execute(Arc::clone(app), plan, Arc::clone(&flight))));
    match flight.until(stage).await {
        Phase::Refused(error) => Err(error),
        Phase::Replayed(record) => Ok(Begun::Replayed(record)),
        Phase::Admitting | Phase::Queued | Phase::Running | Phase::Finished(_) => {
            Ok(Begun::Fresh(flight))
        }
    }
}

/// Runs one execution, from admission to its record.
///
/// Invariant: once `admit` has opened a hold, this runs to its end, and the hold is settled or
/// released.
async fn execute(app: Arc<App>, plan: Plan, flight: Arc<Flight>) {
    let _landing = Landing {
        app: Arc::clone(&app),
        flight: Arc::clone(&flight),
    };
    let mut admission = match admit::admit(&app, &plan, &flight).await {
        Ok(Admitted::Fresh(admission)) => *admission,
        Ok(Admitted::Replay(record)) => return reply::replayed(&flight, record),
        Ok(Admitted::Cancelled) => return reply::cancelled(&app, &flight),
        Err(refused) => return reply::refused(&app, &flight, refused),
    };
    let ran = run::run(&app, plan, &mut admission, &flight).await;
    let sandbox = ran.sandbox;
    match settle::settle(&app, ran, admission).await {
        Ok(record) => {
            reply::finished(&app, &flight, record);
            app.runtime.forget(sandbox);
        }
        // If the settlement failed, the shim still has the figures, and the next start settles
        // from them.
        Err(broken) => reply::refused(&app, &flight, broken),
    }
}

/// Takes an execution out of the air however its walk ends, so that nobody waits for one that is
/// gone.
struct Landing {
    app: Arc<App>,
    flight: Arc<Flight>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        if matches!(
            self.flight.phase(),
            Phase::Admitting | Phase::Queued | Phase::Running
        ) {
            let error = ApiError::internal("the walk ended before its execution");
            self.flight.advance(Phase::Refused(error), |_| ());
        }
        self.app.live.end(&self.flight.id);
    }
}
