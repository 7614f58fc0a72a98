//! Logs, metrics and request ids. Labels are closed sets: routes, codes, outcomes; never a tenant
//! or an id.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ledger::EntryQuery;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::app::App;
use crate::config::Log;
use crate::ids::{self, Kind};

/// Upper bounds of the buckets of request times, in seconds.
const SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0,
];

/// The process's one recorder; the first caller installs it.
pub(crate) fn recorder() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let matcher = Matcher::Suffix("_seconds".to_owned());
        let recorder = match builder.set_buckets_for_metric(matcher, &SECONDS) {
            Ok(builder) => builder.build_recorder(),
            Err(_) => PrometheusBuilder::new().build_recorder(),
        };
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed: /metrics will be empty");
        }
        describe();
        handle
    })
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!(
        "farebox_http_requests_total",
        "Requests answered, by route and status."
    );
    describe_histogram!(
        "farebox_http_request_seconds",
        "Time to the head of the answer."
    );
    describe_counter!("farebox_refusals_total", "Requests not done, by code.");
    describe_counter!("farebox_executions_total", "Executions ended, by outcome.");
    describe_counter!(
        "farebox_cpu_us_total",
        "CPU time charged for, in microseconds."
    );
    describe_counter!(
        "farebox_records_lost_total",
        "Execution records that were not written."
    );
    describe_counter!(
        "farebox_budget_alerts_total",
        "Thresholds of budgets that were reached."
    );
    describe_counter!(
        "farebox_webhook_deliveries_total",
        "Attempts to deliver to webhooks, by result: delivered, failed (tried again) or dead."
    );
    describe_gauge!(
        "farebox_outbox_pending",
        "Deliveries to webhooks that wait or are being sent."
    );
    describe_gauge!("farebox_outbox_lag_seconds", "Age of the oldest of them.");
    describe_gauge!(
        "farebox_http_requests_in_flight",
        "Requests being answered."
    );
    describe_gauge!(
        "farebox_executions_in_flight",
        "Executions between request and record."
    );
    describe_gauge!("farebox_slots_free", "Slots of the machine that are free.");
    describe_gauge!("farebox_slots_waiting", "Executions that wait for a slot.");
    describe_gauge!(
        "farebox_sandboxes_ready",
        "Sandboxes that were made ahead and stand ready."
    );
    describe_counter!(
        "farebox_starts_total",
        "Programs started, by start: warm (in a sandbox made ahead) or cold."
    );
    describe_gauge!(
        "farebox_async_waiting",
        "Executions that wait for their tenant's turn."
    );
    describe_ledger();
    describe_checkpoints();
}

/// Descriptions of the metrics about the ledger: how large it is, and how far behind what is made
/// from its journal.
fn describe_ledger() {
    use metrics::{describe_counter, describe_gauge};
    describe_gauge!(
        "farebox_ledger_writable",
        "1 while commands are recorded, else 0."
    );
    describe_gauge!(
        "farebox_ledger_queue",
        "Commands that wait for the ledger's writer."
    );
    describe_gauge!("farebox_ledger_open_holds", "Holds that are open.");
    describe_gauge!(
        "farebox_ledger_lag",
        "Durable commands that reads do not include yet."
    );
    describe_gauge!("farebox_ledger_lag_seconds", "Age of the oldest of them.");
    describe_gauge!(
        "farebox_ledger_view_lag",
        "Durable commands that the view on disk does not include yet."
    );
    describe_gauge!(
        "farebox_ledger_view_lag_seconds",
        "Age of the oldest of them."
    );
    describe_gauge!(
        "farebox_ledger_clock_ahead_seconds",
        "How far the ledger's own time is ahead of the clock."
    );
    describe_gauge!("farebox_ledger_view_bytes", "Bytes of the view on disk.");
    describe_counter!(
        "farebox_ledger_commands_total",
        "Durable commands of the ledger."
    );
    describe_counter!(
        "farebox_ledger_journal_bytes_total",
        "Bytes of the journal in use; it is never shortened."
    );
    describe_gauge!(
        "farebox_ledger_journal_segments",
        "Segments of the journal in use."
    );
}

/// Descriptions of the metrics about checkpoints.
fn describe_checkpoints() {
    use metrics::{describe_counter, describe_gauge};
    describe_gauge!(
        "farebox_checkpoint_size",
        "Entries that the newest signed checkpoint covers."
    );
    describe_gauge!(
        "farebox_checkpoint_lag_entries",
        "Durable entries that no signed checkpoint covers yet."
    );
    describe_gauge!(
        "farebox_checkpoint_lag_seconds",
        "Age of the oldest of them."
    );
    describe_counter!(
        "farebox_checkpoint_failures_total",
        "Checkpoints that could not be signed."
    );
    describe_gauge!(
        "farebox_checkpoint_push_lag_entries",
        "Durable entries that no checkpoint delivered since the start covers, by place."
    );
    describe_gauge!(
        "farebox_checkpoint_push_lag_seconds",
        "Seconds that a checkpoint has waited to be delivered, by place."
    );
    describe_counter!(
        "farebox_checkpoint_push_failures_total",
        "Attempts to deliver a checkpoint that failed, by place."
    );
}

/// How far checkpoints are behind the ledger, and each place they go to behind both.
fn gauge_checkpoints(app: &App) {
    let entries = app.ledger.head().size;
    let signed = app.proof.latest().map_or(0, |latest| latest.size);
    set("farebox_checkpoint_size", signed);
    let lag = entries.saturating_sub(signed);
    set("farebox_checkpoint_lag_entries", lag);
    set_seconds("farebox_checkpoint_lag_seconds", unsigned_us(app, signed));
    for lag in app.proof.lags() {
        let behind = entries.saturating_sub(lag.delivered);
        let set = |name: &'static str, value| {
            metrics::gauge!(name, "sink" => lag.sink).set(wide(value));
        };
        set("farebox_checkpoint_push_lag_entries", behind);
        set("farebox_checkpoint_push_lag_seconds", lag.seconds);
    }
}

/// How old the first entry is after the first `signed`; zero if there is none. Reads the journal.
fn unsigned_us(app: &App, signed: u64) -> u64 {
    let query = EntryQuery {
        after: signed,
        limit: 1,
        ..EntryQuery::default()
    };
    let page = match app.ledger.entries(&query) {
        Ok(page) => page,
        Err(error) => {
            tracing::warn!(%error, "the oldest entry that is not signed cannot be read");
            return 0;
        }
    };
    let age = |at| u64::try_from(app.clock.wall_us().saturating_sub(at)).unwrap_or(0);
    page.entries.first().map_or(0, |entry| age(entry.at))
}

fn set(name: &'static str, value: u64) {
    metrics::gauge!(name).set(wide(value));
}

fn set_seconds(name: &'static str, micros: u64) {
    metrics::gauge!(name).set(Duration::from_micros(micros).as_secs_f64());
}

/// A count as metrics have it: exact up to 2^53.
fn wide(value: u64) -> f64 {
    let low = u32::try_from(value % (1 << 32)).unwrap_or(u32::MAX);
    let high = u32::try_from(value >> 32).unwrap_or(u32::MAX);
    f64::from(high).mul_add(4_294_967_296.0, f64::from(low))
}

/// All metrics as Prometheus text, gauges as they are now. Blocks: it may read the journal.
pub(crate) fn render(app: &App) -> String {
    let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    let (free, waiting) = app.machine.load();
    set(
        "farebox_http_requests_in_flight",
        count(app.requests.load(Ordering::SeqCst)),
    );
    set("farebox_executions_in_flight", count(app.live.count()));
    set("farebox_slots_free", count(free));
    set("farebox_slots_waiting", count(waiting));
    set("farebox_sandboxes_ready", count(app.runtime.ready()));
    set("farebox_async_waiting", count(app.turns.waiting()));
    let (pending, age) = app.outbox.lag();
    set("farebox_outbox_pending", count(pending));
    set("farebox_outbox_lag_seconds", age.as_secs());
    let health = app.ledger.health();
    set("farebox_ledger_writable", u64::from(health.writable));
    set("farebox_ledger_queue", health.queue_depth);
    set("farebox_ledger_open_holds", health.open_holds);
    set(
        "farebox_ledger_lag",
        health.durable_lsn.saturating_sub(health.absorbed_lsn),
    );
    set_seconds("farebox_ledger_lag_seconds", health.read_lag_us);
    set(
        "farebox_ledger_view_lag",
        health.durable_lsn.saturating_sub(health.view_lsn),
    );
    set_seconds("farebox_ledger_view_lag_seconds", health.view_lag_us);
    set_seconds("farebox_ledger_clock_ahead_seconds", health.clock_ahead_us);
    set("farebox_ledger_view_bytes", health.view_bytes);
    set("farebox_ledger_journal_segments", health.journal_segments);
    metrics::counter!("farebox_ledger_commands_total").absolute(health.durable_lsn);
    metrics::counter!("farebox_ledger_journal_bytes_total").absolute(health.journal_bytes);
    gauge_checkpoints(app);
    let recorder = recorder();
    recorder.run_upkeep();
    recorder.render()
}

/// A request has its answer.
pub(crate) fn answered(route: &'static str, method: &'static str, status: u16, took: Duration) {
    let labels = [("route", route.to_owned()), ("method", method.to_owned())];
    metrics::histogram!("farebox_http_request_seconds", &labels).record(took.as_secs_f64());
    let [route, method] = labels;
    let labels = [route, method, ("status", status.to_string())];
    metrics::counter!("farebox_http_requests_total", &labels).increment(1);
}

/// A request was not done.
pub(crate) fn refused(code: &'static str) {
    metrics::counter!("farebox_refusals_total", "code" => code).increment(1);
}

/// An execution has ended.
pub(crate) fn execution_ended(outcome: &str, cpu_us: u64) {
    metrics::counter!("farebox_executions_total", "outcome" => outcome.to_owned()).increment(1);
    metrics::counter!("farebox_cpu_us_total").increment(cpu_us);
}

/// The client's request id, if it is one that may stand in a log and a header; else a new one.
pub(crate) fn request_id(app: &App, given: Option<&str>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match given {
        Some(id) if (1..=128).contains(&id.len()) && id.chars().all(plain) => id.to_owned(),
        _ => ids::new(&app.clock).map_or_else(
            |_| "req_unknown".to_owned(),
            |id| ids::text(Kind::Request, &id),
        ),
    }
}

/// The trace id of a W3C `traceparent`, if it is well formed and not all zeros.
pub(crate) fn trace_id(traceparent: Option<&str>) -> Option<String> {
    let mut parts = traceparent?.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let hex = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let good = version.len() == 2
        && hex(version)
        && trace.len() == 32
        && hex(trace)
        && trace.bytes().any(|byte| byte != b'0');
    good.then(|| trace.to_owned())
}

/// Sends the process's logs to standard error. A second call changes nothing.
pub fn start_log(log: &Log) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::builder().parse_lossy(&log.filter);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let set = if log.json {
        builder.json().try_init()
    } else {
        builder.with_ansi(false).try_init()
    };
    if set.is_err() {
        tracing::debug!("the log was started before");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_keep_their_value_beyond_32_bits() {
        for (value, shown) in [
            (0, "0"),
            (4_294_967_295, "4294967295"),
            (4_294_967_296, "4294967296"),
            (9_007_199_254_740_991, "9007199254740991"),
        ] {
            assert_eq!(wide(value).to_string(), shown);
        }
    }

    #[test]
    fn only_well_formed_trace_ids_are_taken() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            trace_id(Some(&format!("00-{id}-00f067aa0ba902b7-01"))).as_deref(),
            Some(id)
        );
        assert_eq!(
            trace_id(Some(&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)))),
            None
        );
        assert_eq!(trace_id(Some(&format!("00-{}-x", id.to_uppercase()))), None);
        assert_eq!(trace_id(Some("x")), None);
        assert_eq!(trace_id(None), None);
    }
}
