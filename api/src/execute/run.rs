//! Step 4: a sandbox, the files, the process. Never fails: whatever happens is a value that can be
//! settled.

use std::sync::Arc;
use std::time::Duration;

use runtime::{Network, OutputSink, Report, Sandbox, SandboxId, SandboxSpec, StartError};

use super::admit::Admission;
use super::resolve::Plan;
use crate::app::App;
use crate::clock::rfc3339;
use crate::error::{ApiError, Retry};
use crate::ids;
use crate::limits::Limits;
use crate::live::Flight;
use crate::record::{Outcome, Record, Start};

/// What a run came to.
#[derive(Debug)]
pub(super) struct Ran {
    /// All that was known before it ended.
    pub(super) record: Record,
    /// The limits that it ran with.
    pub(super) limits: Limits,
    pub(super) end: End,
    pub(super) finished_us: i64,
    /// Which execution this is.
    pub(super) execution: [u8; 16],
    /// The sandbox whose figures the runtime keeps until they are settled.
    pub(super) sandbox: SandboxId,
}

/// How it came to it.
#[derive(Debug)]
pub(super) enum End {
    /// The process ran.
    Ran(Box<Report>),
    /// Nothing of the tenant's code has run, and this is how the execution ended.
    NotStarted(Outcome),
    /// Nothing has run, and the same request may be sent again.
    Refused(ApiError),
}

/// Runs the plan under its admission.
pub(super) async fn run(
    app: &App,
    plan: Plan,
    admission: &mut Admission,
    flight: &Arc<Flight>,
) -> Ran {
    let mut sandbox = SandboxId([0; 16]);
    let ready = admission.ready.take();
    let granted = admission.held.granted;
    let limits = Limits {
        wall_ms: granted.wall_ms,
        cpu_ms: granted.cpu_ms,
        ..plan.limits
    };
    let reduced = limits != plan.limits;
    let execution = plan.id;
    let mut record = plan.record.clone();
    record.limits = Some(limits);
    let end = match open_with_files(app, &plan, limits, ready).await {
        Ok(opened) => {
            sandbox = opened.id();
            let (report, started) = start(app, plan, (opened, limits), reduced, flight).await;
            record.start = Some(started.how);
            record.started_at = Some(rfc3339(started.at_us));
            match report.outcome {
                runtime::Outcome::StartFailed { .. } => {
                    End::NotStarted(Outcome::from(&report.outcome))
                }
                _ => End::Ran(Box::new(report)),
            }
        }
        Err(error) => not_started(error),
    };
    Ran {
        record,
        limits,
        end,
        finished_us: app.clock.wall_us(),
        execution,
        sandbox,
    }
}

/// How and when the process was started.
struct Started {
    how: Start,
    at_us: i64,
}

/// What the plan's sandbox must be.
pub(super) fn spec(app: &App, plan: &Plan, limits: Limits) -> SandboxSpec {
    SandboxSpec {
        // Without random bytes the id is all zeros, and the runtime refuses the second sandbox of
        // that name.
        id: SandboxId(ids::new(&app.clock).unwrap_or_default()),
        owner: plan.record.tenant.clone(),
        image: plan.image,
        limits: limits.to_runtime(),
        network: Network::None,
        interpreter: plan.interpreter.clone(),
    }
}

/// A sandbox with the plan's files in it: `ready`, if that is one.
async fn open_with_files(
    app: &App,
    plan: &Plan,
    limits: Limits,
    ready: Option<Sandbox>,
) -> Result<Sandbox, StartError> {
    if let Some(ready) = ready {
        return Ok(ready);
    }
    let mut sandbox = open(app, &spec(app, plan, limits)).await?;
    if let Err(error) = sandbox.put(&plan.files).await {
        sandbox.discard().await;
        return Err(error);
    }
    Ok(sandbox)
}

/// Runs the process.
async fn start(
    app: &App,
    plan: Plan,
    (sandbox, limits): (Sandbox, Limits),
    reduced: bool,
    flight: &Arc<Flight>,
) -> (Report, Started) {
    let mut process = plan.process;
    process.wall_ms = limits.wall_ms;
    process.cpu_ms = limits.cpu_ms;
    process.reduced = reduced;
    let started = Started {
        how: if sandbox.is_warm() {
            Start::Warm
        } else {
            Start::Cold
        },
        at_us: app.clock.wall_us(),
    };
    metrics::counter!("farebox_starts_total", "start" => started.how.as_str()).increment(1);
    flight.advance(crate::live::Phase::Running, |record| {
        record.limits = Some(limits);
        record.start = Some(started.how);
        record.started_at = Some(rfc3339(started.at_us));
    });
    let follower = Arc::clone(flight);
    let sink: OutputSink = Box::new(move |stream, bytes| follower.output(stream, bytes));
    let report = sandbox
        .run(process, Some(sink), flight.cancel_signal())
        .await;
    (report, started)
}

/// Opens a sandbox; files that are kept give way to it, the oldest first.
async fn open(app: &App, spec: &SandboxSpec) -> Result<Sandbox, StartError> {
    let limit = Duration::from_millis(app.config.launcher.end_ms);
    loop {
        let opened = app.runtime.open(spec.clone()).await;
        if !matches!(opened, Err(StartError::Overloaded { .. })) {
            return opened;
        }
        let Some(oldest) = app.kept.end_oldest() else {
            return opened;
        };
        // If that takes too long there are others, or the machine is full.
        drop(tokio::time::timeout(limit, oldest.gone()).await);
    }
}

fn not_started(error: StartError) -> End {
    match error {
        StartError::Overloaded { .. } => End::Refused(ApiError::Overloaded {
            detail: "no room for another sandbox",
        }),
        StartError::LauncherGone => End::Refused(ApiError::Unavailable {
            reason: error.to_string(),
            retry: Retry::Safe,
        }),
        StartError::File { .. } => {
            End::NotStarted(Outcome::start_failed(crate::config::chain(&error)))
        }
        StartError::Refused { .. }
        | StartError::UnsafeImage { .. }
        | StartError::TimedOut { .. }
        | StartError::Failed { .. }
        | StartError::Gone { .. }
        | StartError::Server { .. } => {
            let reason = crate::config::chain(&error);
            tracing::error!(reason = %reason.escape_debug(), "a sandbox could not be started");
            End::NotStarted(Outcome::start_failed(reason))
        }
    }
}
