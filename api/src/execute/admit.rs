//! Step 3: the hold for the worst case, then a slot of the machine; both end with the
//! [`Admission`].
//!
//! The order of refusal is the ledger's (quota, credit, starts in a minute, the tenant's
//! concurrency), then the machine's.

use std::sync::Arc;
use std::time::Duration;

use runtime::Sandbox;

use ledger::{Busy, Failed, Held, HoldRequest, Id, OnLow, Receipt, Rejection, Settlement, Ticket};

use super::resolve::Plan;
use super::{Mode, ahead};
use crate::app::App;
use crate::error::{ApiError, rejected};
use crate::idempotency::{self, Earlier, Key};
use crate::ids;
use crate::live::{Flight, Phase};
use crate::machine::Slot;
use crate::record::{Record, image_to_entry};
use crate::turns::{TooMany, Turn};

/// Leave to run, which must be spent: by [`Admission::settle`] or [`Admission::release`].
#[derive(Debug)]
pub(crate) struct Admission {
    hold: OpenHold,
    pub(super) held: Held,
    /// Where the plan's files are already.
    pub(super) ready: Option<Sandbox>,
    _slot: Slot,
}

/// A hold that is open. Whoever drops it instead of ending it (a wait that was cancelled, a panic)
/// releases it.
#[derive(Debug)]
struct OpenHold {
    app: Arc<App>,
    tenant: String,
    id: Id,
    open: bool,
}

/// What became of the wish to run.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// Leave to run.
    Fresh(Box<Admission>),
    /// An earlier execution has this key.
    Replay(Arc<Record>),
    /// Somebody cancelled it while it waited.
    Cancelled,
}

/// An answer to one attempt at a hold.
enum Attempt {
    Held(OpenHold, Box<Held>),
    Replay(Arc<Record>),
    /// A cap has no room now: of executions at once, or of starts.
    Capped(Rejection),
}

/// How often a key is followed to the next one, before the client is asked to come again.
const KEYS_MAX: usize = 16;

/// Opens a hold and takes a slot.
pub(super) async fn admit(
    app: &Arc<App>,
    plan: &Plan,
    flight: &Flight,
) -> Result<Admitted, ApiError> {
    let both = async { tokio::join!(hold(app, plan, flight), ahead::take(app, plan)) };
    let (hold, held, ready) = tokio::select! {
        (held, ready) = both => match held? {
            Attempt::Held(hold, held) => (hold, held, ready),
            Attempt::Replay(record) => return Ok(Admitted::Replay(record)),
            Attempt::Capped(no) => return Err(rejected(no, app.clock.wall_us())),
        },
        () = flight.until_cancelled(), if plan.mode == Mode::Async => {
            return Ok(Admitted::Cancelled);
        }
    };
    app.granted.put(&plan.record.tenant);
    flight.note_left(held.left.clone());
    if plan.mode == Mode::Async {
        flight.advance(Phase::Queued, |_| ());
    }
    let (slot, ready) = match app.machine.claim_free() {
        Some(slot) => (Ok(slot), ready),
        // A sandbox that waits is in the way of those who have a slot.
        None => {
            drop(ready);
            tokio::select! {
                slot = app.machine.claim(&plan.record.tenant) => (slot, None),
                () = flight.until_cancelled() => {
                    hold.release("cancelled before it ran").await;
                    return Ok(Admitted::Cancelled);
                }
            }
        }
    };
    let Ok(slot) = slot else {
        hold.release("the machine is full").await;
        return Err(ApiError::Overloaded {
            detail: "no slot came free in time",
        });
    };
    flight.advance(Phase::Running, |_| ());
    Ok(Admitted::Fresh(Box::new(Admission {
        hold,
        held: *held,
        ready,
        _slot: slot,
    })))
}

/// Opens the hold. An asynchronous execution waits in its tenant's queue while the tenant runs as
/// much as it may; one that has waited there waits for the cap on starts too.
///
/// Cancel safety: an answer that nobody awaits any more is an [`OpenHold`] that is dropped,
/// wherever it is then ([`ask`]), and so the hold is released.
async fn hold(app: &Arc<App>, plan: &Plan, flight: &Flight) -> Result<Attempt, ApiError> {
    let tenant = &plan.record.tenant;
    let waits = plan.mode == Mode::Async;
    let mut turn: Option<Turn> = None;
    if waits && app.turns.busy(tenant) {
        turn = Some(queue(app, tenant, flight).await?);
    }
    loop {
        let answer = attempt(app, plan).await?;
        match (&answer, &turn) {
            (Attempt::Capped(Rejection::Concurrency { .. }), None) if waits => {
                turn = Some(queue(app, tenant, flight).await?);
            }
            (Attempt::Capped(Rejection::Concurrency { .. }), Some(turn)) => turn.freed().await,
            // Its client was told that it waits: it begins once it may.
            (Attempt::Capped(Rejection::Rate { free_at, .. }), Some(turn)) => {
                let us = free_at.saturating_sub(app.clock.wall_us());
                let pause = Duration::from_micros(u64::try_from(us).unwrap_or(0));
                // A cap that is raised is looked at at once.
                let pause = tokio::time::sleep(pause.max(FULL_QUEUE_PAUSE));
                tokio::select! { () = pause => {}, () = turn.freed() => {} }
            }
            _ => return Ok(answer),
        }
    }
}

/// Stands in the tenant's queue until it is this execution's turn.
async fn queue(app: &App, tenant: &str, flight: &Flight) -> Result<Turn, ApiError> {
    let place = app.turns.join(tenant).map_err(|too_many| match too_many {
        TooMany::Tenant => {
            let max = app.config.machine.async_queue_per_tenant;
            let detail = format!("{max} asynchronous executions of the tenant wait already");
            ApiError::RateExceeded { detail }
        }
        TooMany::Machine => ApiError::Overloaded {
            detail: "too many executions wait",
        },
    })?;
    flight.advance(Phase::Queued, |_| ());
    Ok(place.turn().await)
}

/// One attempt at a hold, following keys whose executions were given up.
async fn attempt(app: &Arc<App>, plan: &Plan) -> Result<Attempt, ApiError> {
    let mut key = plan.idempotency;
    for _ in 0..KEYS_MAX {
        let (execution, mismatch) = match ask(app, request(app, plan, key)?).await? {
            Ok((hold, held)) => return Ok(Attempt::Held(hold, held)),
            Err(no @ (Rejection::Concurrency { .. } | Rejection::Rate { .. })) => {
                return Ok(Attempt::Capped(no));
            }
            Err(Rejection::Replay { execution }) => (execution, false),
            Err(Rejection::IdempotencyMismatch { execution }) => (execution, true),
            Err(no) => return Err(rejected(no, app.clock.wall_us())),
        };
        let (shared, tenant) = (Arc::clone(app), plan.record.tenant.clone());
        let look = move || idempotency::earlier(&shared, &tenant, &execution.0);
        match app.blocking(look).await?? {
            Earlier::Never => key = key.map(|key| key.after(&execution.0)),
            _ if mismatch => return Err(ApiError::IdempotencyMismatch),
            Earlier::Known(record) => return Ok(Attempt::Replay(record)),
            Earlier::InFlight => return Err(ApiError::IdempotencyInFlight),
        }
    }
    Err(ApiError::IdempotencyInFlight)
}

/// Asks the ledger: the answer always meets an [`OpenHold`] that takes it.
async fn ask(app: &Arc<App>, request: HoldRequest) -> Result<Asked, ApiError> {
    let hold = OpenHold {
        app: Arc::clone(app),
        tenant: request.tenant.clone(),
        id: request.hold,
        open: false,
    };
    let mut asking = Asking(Some((app.ledger.hold(request)?, hold)));
    Ok(asking.answer().await?)
}

/// The ledger's yes or no.
type Asked = Result<(OpenHold, Box<Held>), Rejection>;

/// A question to the ledger. If it is dropped before its answer, a task of its own waits for that.
struct Asking(Option<(Ticket<Result<Held, Rejection>>, OpenHold)>);

impl Asking {
    async fn answer(&mut self) -> Result<Asked, Failed> {
        let Some((ticket, _)) = &mut self.0 else {
            return Err(Failed::NotWritable);
        };
        let answer = ticket.await;
        let Some((_, hold)) = self.0.take() else {
            return Err(Failed::NotWritable);
        };
        Ok(hold.met(answer?))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let Some((ticket, hold)) = self.0.take() else {
            return;
        };
        let app = Arc::clone(&hold.app);
        // Nobody takes the hold, and so it is released as it is dropped.
        drop(app.detach(async move { ticket.await.map(|answer| drop(hold.met(answer))) }));
    }
}

fn request(app: &App, plan: &Plan, key: Option<Key>) -> Result<HoldRequest, ApiError> {
    let record = &plan.record;
    let floors = &app.config.limits;
    let on_low = if plan.reduce {
        OnLow::Reduce {
            min_cpu_ms: floors.cpu_ms_min,
            min_wall_ms: floors.wall_ms_min,
        }
    } else {
        OnLow::Refuse
    };
    Ok(HoldRequest {
        hold: Id(ids::new(&app.clock)?),
        execution: Id(plan.id),
        tenant: record.tenant.clone(),
        project: record.project.clone(),
        function: None,
        key: plan.key.clone(),
        image: image_to_entry(&record.image),
        tags: record
            .tags
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        ceiling: plan.limits.ceiling(),
        on_low,
        max_cost: plan.max_cost,
        idempotency: key.map(Key::to_ledger),
    })
}

impl Admission {
    /// The hold that pays.
    pub(super) fn hold(&self) -> Id {
        self.hold.id
    }

    /// Ends the hold with a charge; durable once this answers.
    pub(super) async fn settle(mut self, settlement: Settlement) -> Result<Receipt, ApiError> {
        let app = Arc::clone(&self.hold.app);
        // From here on the settlement ends it, or the next start does.
        self.hold.open = false;
        let ticket = loop {
            match app.ledger.settle(settlement.clone()) {
                Ok(ticket) => break ticket,
                Err(Busy::QueueFull) => tokio::time::sleep(FULL_QUEUE_PAUSE).await,
                Err(busy) => return Err(busy.into()),
            }
        };
        let settled = ticket.await?;
        app.turns.freed(&self.hold.tenant);
        settled.map_err(ApiError::internal)
    }

    /// Ends the hold without a charge.
    pub(super) async fn release(self, reason: &str) {
        self.hold.release(reason).await;
    }
}

impl OpenHold {
    /// Is open from here on if the ledger has said yes.
    fn met(mut self, answer: Result<Held, Rejection>) -> Asked {
        answer.map(|held| {
            self.open = true;
            (self, Box::new(held))
        })
    }

    async fn release(mut self, reason: &str) {
        self.open = false;
        release(&self.app, &self.tenant, self.id, reason).await;
    }
}

impl Drop for OpenHold {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        tracing::warn!(hold = %self.id, "a hold is released that nobody has ended");
        let (app, tenant, id) = (
            Arc::clone(&self.app),
            std::mem::take(&mut self.tenant),
            self.id,
        );
        let work = async move { release(&app, &tenant, id, "given up").await };
        drop(self.app.detach(work));
    }
}

/// How long to wait before the ledger's full queue is tried again; what must be settled is never
/// given up.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// Releases a hold, however long the ledger's queue is full. A ledger that cannot be written keeps
/// the hold: the next start ends it.
async fn release(app: &App, tenant: &str, hold: Id, reason: &str) {
    let ticket = loop {
        match app.ledger.release(hold, reason.to_owned()) {
            Ok(ticket) => break ticket,
            Err(Busy::QueueFull) => tokio::time::sleep(FULL_QUEUE_PAUSE).await,
            Err(busy) => return tracing::error!(%busy, hold = %hold, "a hold stays open"),
        }
    };
    match ticket.await {
        Ok(Ok(_)) => {}
        Ok(Err(no)) => tracing::error!(%no, hold = %hold, "a hold could not be released"),
        Err(failed) => tracing::error!(%failed, hold = %hold, "a hold stays open"),
    }
    app.turns.freed(tenant);
}
