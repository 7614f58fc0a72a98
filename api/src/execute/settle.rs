//! Step 5: what was measured becomes what is used, and the hold ends: settled with a charge, or
//! released.

use ledger::{Quantities, Settlement};

use super::admit::Admission;
use super::run::{End, Ran};
use crate::app::App;
use crate::clock::rfc3339;
use crate::error::ApiError;
use crate::evidence::Evidence;
use crate::ids::{self, Kind};
use crate::record::{self, ChargeView, Measured, Outcome, Receipt, Record, State, Usage};
use crate::text;

/// Ends the hold, and completes the record. Durable once this answers.
pub(super) async fn settle(app: &App, ran: Ran, admission: Admission) -> Result<Record, ApiError> {
    let Ran {
        mut record,
        limits,
        end,
        finished_us,
        sandbox,
        execution,
    } = ran;
    record.state = State::Finished;
    record.finished_at = Some(rfc3339(finished_us));
    let mut report = match end {
        End::Ran(report) => report,
        End::Refused(error) => {
            admission.release("refused by the runtime").await;
            app.books.released();
            app.runtime.forget(sandbox);
            return Err(error);
        }
        End::NotStarted(outcome) => {
            admission.release("start failed").await;
            app.books.released();
            app.runtime.forget(sandbox);
            record.evidence = Evidence::of_outcome(&outcome);
            record.outcome = Some(outcome);
            return Ok(record);
        }
    };
    let outcome = Outcome::from(&report.outcome);
    let hold = admission.hold();
    let settlement = Settlement {
        hold,
        measured: quantities(&report.measured, limits.memory_bytes),
        outcome: outcome.to_entry(),
        estimated: false,
    };
    let receipt = admission.settle(settlement).await?;
    app.books.settled(&receipt.posted, &receipt.overrun);
    if let Some(kept) = report.kept.take() {
        let until_us = finished_us.saturating_add(i64::from(kept.for_s()) * 1_000_000);
        record.kept_until = Some(rfc3339(until_us));
        app.kept.keep(execution, &record.tenant, kept, &app.walk);
    }
    (record.stdout, record.stdout_encoding) =
        text::text_of(&report.stdout.bytes, report.stdout.truncated);
    record.stdout_truncated = report.stdout.truncated;
    (record.stderr, record.stderr_encoding) =
        text::text_of(&report.stderr.bytes, report.stderr.truncated);
    record.stderr_truncated = report.stderr.truncated;
    record.evidence = Evidence::of_report(&outcome, &report, &limits);
    record.outcome = Some(outcome);
    record.measured = Some(Measured::from(&report.measured));
    record.usage = Some(Usage::from(&receipt.posted));
    record.overrun = record::over(&receipt.overrun);
    record.charge = Some(ChargeView::from(&receipt.charge));
    record.receipt = Some(Receipt {
        hold: ids::text(Kind::Hold, &hold.0),
        entry: receipt.entry,
        estimated: false,
    });
    Ok(record)
}

/// The runtime's counters as the ledger's meters: the one place where the two meet.
///
/// Memory is the limit times wall time in whole milliseconds, rounded up: the peak is shown, not
/// charged.
pub(crate) fn quantities(measured: &runtime::Measured, memory_bytes: u64) -> Quantities {
    let wall_ms = measured.wall_us.div_ceil(1_000);
    Quantities {
        executions: 1,
        cpu_us: measured.cpu_us,
        wall_us: measured.wall_us,
        memory_byte_ms: u128::from(memory_bytes) * u128::from(wall_ms),
        egress_bytes: measured.egress_bytes,
        ..Quantities::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_limit_times_wall_time_rounded_up() {
        let measured = runtime::Measured {
            wall_us: 1_001,
            cpu_us: 7,
            ..Default::default()
        };
        let used = quantities(&measured, 256 << 20);
        assert_eq!(used.memory_byte_ms, 2 * (256 << 20));
        assert_eq!((used.executions, used.cpu_us, used.wall_us), (1, 7, 1_001));
    }
}
