//! One execution without a server: `farebox run`. The same walk, the same ledger, the same bill.

use std::sync::Arc;

use ledger::Mode as QuotaMode;
use runtime::Stream;
use serde_json::{Map, Value};

use crate::app::App;
use crate::config::Config;
use crate::error::{ApiError, Problem};
use crate::execute::{self, Begun, Job, Mode, request};
use crate::json::{Faults, Object};
use crate::live::{Flight, Phase, Stage};
use crate::record::Record;
use crate::registry::{Actor, Tenant};
use crate::server::{self, Backend, ServeError};

/// The tenant that everything without a server is booked on.
const TENANT: &str = "local";

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be set up, or not be closed in order.
    #[error("cannot run without a server")]
    Setup(#[source] ServeError),
    /// The request was refused, as the API would refuse it.
    #[error("{}", .0.detail.as_deref().unwrap_or(.0.title))]
    Refused(Box<Problem>),
}

/// Runs `body`, which is what `POST /v1/executions` takes, and answers its record; blocks until it
/// has ended.
///
/// `on_output` sees the output as it comes, up to the output limit. SIGINT and SIGTERM cancel the
/// execution.
///
/// # Errors
/// [`RunError`]. How the program ended is in the record, never here.
pub fn run_once(
    config: Config,
    backend: Backend,
    body: Map<String, Value>,
    on_output: &mut dyn FnMut(Stream, &[u8]),
) -> Result<Record, RunError> {
    let walk = server::walk_runtime(&config).map_err(RunError::Setup)?;
    let handle = walk.handle().clone();
    let app = walk
        .block_on(server::assemble(config, backend, handle))
        .map_err(RunError::Setup)?;
    walk.block_on(server::prepare(&app))
        .map_err(RunError::Setup)?;
    let posture = walk.block_on(app.runtime.check_posture());
    posture.map_err(|error| RunError::Setup(ServeError::Posture(error)))?;
    let ran = walk.block_on(run(&app, body, on_output));
    walk.block_on(app.tasks.idle());
    walk.block_on(server::close(&app))
        .map_err(RunError::Setup)?;
    ran.map_err(|error| RunError::Refused(Box::new(error.problem(""))))
}

async fn run(
    app: &Arc<App>,
    body: Map<String, Value>,
    on_output: &mut dyn FnMut(Stream, &[u8]),
) -> Result<Record, ApiError> {
    let tenant = local(app).await?;
    let mut faults = Faults::default();
    let mut object = Object::new(body, &mut faults);
    let request = request::read(&mut object, &app.config, &tenant.limits);
    object.finish();
    let request = faults.check(request)?;
    let request = request.ok_or_else(|| ApiError::internal("no request and no fault"))?;
    let job = Job {
        tenant,
        key: TENANT.to_owned(),
        project: None,
        request,
        idempotency: None,
        trace_id: "0".repeat(32),
        mode: Mode::Sync,
    };
    let flight = match execute::begin(app, job, Stage::Decided).await? {
        Begun::Fresh(flight) => flight,
        Begun::Replayed(record) => return Ok(Record::clone(&record)),
    };
    follow(&flight, on_output).await
}

/// Passes output on until the end; a signal cancels.
async fn follow(
    flight: &Flight,
    on_output: &mut dyn FnMut(Stream, &[u8]),
) -> Result<Record, ApiError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).map_err(ApiError::internal)?;
    let mut int = signal(SignalKind::interrupt()).map_err(ApiError::internal)?;
    let mut changed = flight.watch();
    let mut sent = 0;
    loop {
        changed.mark_unchanged();
        let (phase, chunks) = flight.news(sent);
        for chunk in chunks {
            sent += 1;
            let stream = if chunk.stream == "stdout" {
                Stream::Stdout
            } else {
                Stream::Stderr
            };
            on_output(stream, &chunk.bytes);
        }
        match phase {
            Phase::Finished(record) | Phase::Replayed(record) => {
                return Ok(Record::clone(&record));
            }
            Phase::Refused(error) => return Err(error),
            Phase::Admitting | Phase::Queued | Phase::Running => {}
        }
        tokio::select! {
            _ = changed.changed() => {}
            _ = term.recv() => flight.cancel(),
            _ = int.recv() => flight.cancel(),
        }
    }
}

/// The local tenant, made on first use; its quotas only tell.
async fn local(app: &App) -> Result<Arc<Tenant>, ApiError> {
    let actor = Actor::server();
    if app.registry.tenant(TENANT).is_none() {
        app.registry.create(&actor, TENANT, None).await?;
    }
    let mut quotas = app.config.tier.quotas.clone();
    quotas
        .iter_mut()
        .for_each(|quota| quota.mode = QuotaMode::Soft);
    app.registry.set_quotas(&actor, TENANT, quotas, None).await
}
