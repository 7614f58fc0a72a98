//! What keeps the server running: health, readiness, metrics, and the document of the API.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::call::{Answer, Call, ok};
use crate::openapi;
use crate::telemetry;

/// How far the ledger's own time may be ahead of the clock before it is worth a warning, in us.
const CLOCK_AHEAD_MAX_US: u64 = 1_000_000;

/// Whether the process lives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Alive {
    /// Always `ok`.
    pub status: &'static str,
}

/// Whether the server can do its work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ready {
    /// All of the others.
    pub ready: bool,
    /// The posture of a live sandbox was found right at start.
    pub posture: bool,
    /// The ledger records commands.
    pub ledger: bool,
    /// The launcher lives.
    pub launcher: bool,
    /// The server takes new requests.
    pub accepting: bool,
    /// The ledger's own time, which never goes back, is not more than a second ahead of the clock.
    /// A warning, no part of `ready`: the clock was ahead before, and no period can be closed until
    /// it has caught up.
    pub clock: bool,
}

/// Whether the process lives
#[utoipa::path(get, path = "/healthz", tag = "operations", security(()),
    responses((status = 200, body = Alive)))]
pub(crate) async fn healthz(_call: Call) -> Answer {
    Ok(ok(&Alive { status: "ok" }))
}

/// Whether the server can do its work
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()),
    responses((status = 200, body = Ready), (status = 503, body = Ready)))]
pub(crate) async fn readyz(call: Call) -> Answer {
    let app = &call.app;
    let health = app.ledger.health();
    let posture = app.posture_ok.load(Ordering::SeqCst);
    let (ledger, launcher) = (health.writable && health.room, app.runtime.healthy());
    let accepting = !app.is_draining();
    let ready = posture && ledger && launcher && accepting;
    let body = Ready {
        ready,
        posture,
        ledger,
        launcher,
        accepting,
        clock: health.clock_ahead_us <= CLOCK_AHEAD_MAX_US,
    };
    if ready {
        return Ok(ok(&body));
    }
    Ok(HttpResponse::ServiceUnavailable().json(body))
}

/// Metrics in Prometheus text
#[utoipa::path(get, path = "/metrics", tag = "operations", security(()),
    responses((status = 200, content_type = "text/plain", body = String)))]
pub(crate) async fn metrics(call: Call) -> Answer {
    let app = Arc::clone(&call.app);
    let text = call.app.blocking(move || telemetry::render(&app)).await?;
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(text))
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "operations", security(()),
    responses((status = 200, content_type = "application/json", body = String)))]
pub(crate) async fn openapi(_call: Call) -> Answer {
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .body(openapi::document()))
}
