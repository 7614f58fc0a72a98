//! Step 6: the record is kept and shown to whoever waits; nothing here can fail or is waited for.

use std::sync::Arc;

use crate::app::App;
use crate::budgets;
use crate::clock::rfc3339;
use crate::error::ApiError;
use crate::evidence::Evidence;
use crate::ids;
use crate::live::{Flight, Phase};
use crate::record::{Outcome, Record, State};
use crate::telemetry;

/// The execution is settled, or was given up without a charge.
pub(super) fn finished(app: &App, flight: &Flight, record: Record) {
    let record = Arc::new(record);
    let kind = record
        .outcome
        .as_ref()
        .map_or("lost", |outcome| outcome.kind.as_str());
    let cpu_us = record.usage.as_ref().map_or(0, |usage| usage.cpu_us);
    telemetry::execution_ended(kind, cpu_us);
    if record.receipt.is_some() {
        budgets::used(app, &record.tenant, ids::made_us(&flight.id));
    }
    // First of all the answer. Whoever asks again after it finds the flight until the record is
    // kept.
    flight.advance(Phase::Finished(Arc::clone(&record)), |_| ());
    app.records.keep(flight.id, &record);
    tracing::info!(
        execution = record.id,
        tenant = record.tenant,
        outcome = kind,
        cpu_us,
        entry = record.receipt.as_ref().map(|receipt| receipt.entry),
        "execution finished"
    );
}

/// It never began. One that was accepted for later keeps a record, as its client was told of it.
pub(super) fn refused(app: &App, flight: &Flight, error: ApiError) {
    if !flight.was_announced() {
        return flight.advance(Phase::Refused(error), |_| ());
    }
    let problem = error.problem("");
    let (_, code, title) = error.code().contract();
    let detail = problem.detail.unwrap_or_else(|| title.to_owned());
    never_ran(
        app,
        flight,
        Outcome::start_failed(format!("{code}: {detail}")),
    );
}

/// It was cancelled before it ran.
pub(super) fn cancelled(app: &App, flight: &Flight) {
    never_ran(app, flight, Outcome::cancelled());
}

/// An earlier execution stands for it.
pub(super) fn replayed(flight: &Flight, record: Arc<Record>) {
    flight.advance(Phase::Replayed(record), |_| ());
}

fn never_ran(app: &App, flight: &Flight, outcome: Outcome) {
    let mut record = Record::clone(&flight.record());
    record.state = State::Finished;
    record.evidence = Evidence::of_outcome(&outcome);
    record.outcome = Some(outcome);
    record.finished_at = Some(rfc3339(app.clock.wall_us()));
    finished(app, flight, record);
}
