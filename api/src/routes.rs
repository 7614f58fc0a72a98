//! Every URL of the API, with the scope that it needs and the body that it takes; and what happens
//! around each.
//!
//! Around every handler, in this order: request id, drain, token, scope, body (bounded in bytes and
//! time), then the handler; then the form of lists, status, metrics and security headers. Nothing
//! but a handler decides anything.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web::{Bytes, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};

use crate::app::App;
use crate::auth::{self, Caller};
use crate::call::{Answer, Call};
use crate::csv;
use crate::error::ApiError;
use crate::handlers::{
    adjustments, audit, budgets, credit, denials, entries, estimate, events, executions, exports,
    files, forecast, grants, holds, operations, periods, proofs, quota_changes, quotas, rates,
    reconciliation, statements, tenants, tokens, totals, usage, webhooks,
};
use crate::scope::Scope;
use crate::telemetry;
use Access::{Needs, Open, TenantOr};
use BodyMax::{Large, Nothing, Small};

/// Who may call a route.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Access {
    /// Everybody, without a token.
    Open,
    /// Tokens with this scope.
    Needs(Scope),
    /// Tokens with the first scope; and tokens of the tenant itself with the second.
    TenantOr(Scope, Scope),
}

/// What a route takes as a body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BodyMax {
    Nothing,
    /// `server.body_small_max_bytes`
    Small,
    /// `server.body_max_bytes`
    Large,
}

type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Answer>>>;

/// One method of one path.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    access: Access,
    body: BodyMax,
    handler: Handler,
}

macro_rules! routes {
    ($($method:ident $path:literal $access:expr, $body:expr => $handler:path;)+) => {
        /// All of them.
        pub(crate) static ROUTES: &[Route] = &[$(Route {
            method: stringify!($method),
            path: $path,
            access: $access,
            body: $body,
            handler: |call| Box::pin($handler(call)),
        }),+];
    };
}

const ADMIN: Access = Needs(Scope::TenantAdmin);
const SEE: Access = Needs(Scope::QuotaRead);
const SET: Access = Needs(Scope::QuotaWrite);
const RUN: Access = Needs(Scope::ExecutionRun);
const READ: Access = Needs(Scope::ExecutionRead);
const USAGE: Access = Needs(Scope::UsageRead);
const BOOKS: Access = Needs(Scope::LedgerRead);
const EXPORTS: Access = Needs(Scope::ExportRead);
const RATES: Access = Needs(Scope::RateRead);
const PRICE: Access = Needs(Scope::RateWrite);
const ADJUST: Access = Needs(Scope::LedgerAdjust);
const APPROVE: Access = Needs(Scope::LedgerApprove);
const CLOSE: Access = Needs(Scope::PeriodClose);
const AUDIT: Access = Needs(Scope::AuditRead);
const TOKENS: Access = TenantOr(Scope::TenantAdmin, Scope::TokenWrite);

routes! {
    GET    "/healthz"                           Open, Nothing => operations::healthz;
    GET    "/readyz"                            Open, Nothing => operations::readyz;
    GET    "/metrics"                           Open, Nothing => operations::metrics;
    GET    "/openapi.json"                      Open, Nothing => operations::openapi;
    GET    "/.well-known/jwks.json"             Open, Nothing => tokens::jwks;

    POST   "/v1/tenants"                        ADMIN, Small => tenants::create;
    GET    "/v1/tenants"                        ADMIN, Nothing => tenants::list;
    GET    "/v1/tenants/{tenant}"               ADMIN, Nothing => tenants::get;
    PATCH  "/v1/tenants/{tenant}"               ADMIN, Small => tenants::patch;
    POST   "/v1/tenants/{tenant}/suspend"       ADMIN, Small => tenants::suspend;
    POST   "/v1/tenants/{tenant}/resume"        ADMIN, Small => tenants::resume;
    POST   "/v1/tenants/{tenant}/tokens"        TOKENS, Small => tokens::create;
    GET    "/v1/tenants/{tenant}/tokens"        TOKENS, Nothing => tokens::list;
    DELETE "/v1/tokens/{jti}"                   TOKENS, Nothing => tokens::revoke;
    GET    "/v1/tenants/{tenant}/quotas"        SEE, Nothing => quotas::get;
    PUT    "/v1/tenants/{tenant}/quotas"        SET, Small => quotas::put;
    GET    "/v1/tenants/{tenant}/quotas/changes" SEE, Nothing => quota_changes::list;
    POST   "/v1/tenants/{tenant}/quotas/changes" SET, Small => quota_changes::create;
    DELETE "/v1/tenants/{tenant}/quotas/changes/{change}" SET, Nothing => quota_changes::cancel;
    GET    "/v1/quotas"                         SEE, Nothing => quotas::own;
    GET    "/v1/tenants/{tenant}/limits"        SET, Nothing => quotas::limits;
    PUT    "/v1/tenants/{tenant}/limits"        SET, Small => quotas::put_limits;
    GET    "/v1/tenants/{tenant}/budgets"       SEE, Nothing => budgets::get;
    PUT    "/v1/tenants/{tenant}/budgets"       SET, Small => budgets::put;
    DELETE "/v1/tenants/{tenant}/budgets"       SET, Nothing => budgets::delete;
    GET    "/v1/budgets"                        SEE, Nothing => budgets::own;

    GET    "/v1/webhooks"                       TOKENS, Nothing => webhooks::list;
    GET    "/v1/webhooks/{name}"                TOKENS, Nothing => webhooks::get;
    PUT    "/v1/webhooks/{name}"                TOKENS, Small => webhooks::put;
    DELETE "/v1/webhooks/{name}"                TOKENS, Nothing => webhooks::delete;
    GET    "/v1/webhooks/{name}/deliveries"     TOKENS, Nothing => webhooks::deliveries;
    POST   "/v1/webhooks/{name}/deliveries/{id}/retry" TOKENS, Small => webhooks::retry;

    POST   "/v1/executions"                     RUN, Large => executions::create;
    GET    "/v1/executions"                     READ, Nothing => executions::list;
    GET    "/v1/executions/{id}"                READ, Nothing => executions::get;
    DELETE "/v1/executions/{id}"                RUN, Nothing => executions::cancel;
    GET    "/v1/executions/{id}/events"         READ, Nothing => events::follow;
    GET    "/v1/executions/{id}/files"          READ, Nothing => files::read;
    DELETE "/v1/executions/{id}/files"          RUN, Nothing => files::remove;
    GET    "/v1/executions/{id}/files/list"     READ, Nothing => files::list;

    GET    "/v1/usage"                          USAGE, Nothing => usage::usage;
    GET    "/v1/costs"                          USAGE, Nothing => usage::costs;
    GET    "/v1/forecast"                       USAGE, Nothing => forecast::forecast;
    GET    "/v1/exports/{format}"               EXPORTS, Nothing => exports::export;
    GET    "/v1/entries"                        BOOKS, Nothing => entries::entries;
    GET    "/v1/entries/{seq}"                  BOOKS, Nothing => entries::one;
    GET    "/v1/holds"                          BOOKS, Nothing => holds::list;
    GET    "/v1/denials"                        BOOKS, Nothing => denials::counts;
    GET    "/v1/denials/recent"                 BOOKS, Nothing => denials::recent;
    GET    "/v1/estimate"                       RUN, Nothing => estimate::estimate;
    GET    "/v1/rates"                          RATES, Nothing => rates::list;
    POST   "/v1/rates"                          PRICE, Small => rates::create;
    POST   "/v1/rates/preview"                  RATES, Small => statements::preview;
    GET    "/v1/grants"                         BOOKS, Nothing => grants::list;
    POST   "/v1/grants"                         ADJUST, Small => grants::create;
    DELETE "/v1/tenants/{tenant}/grants/{entry}" ADJUST, Nothing => grants::void;
    GET    "/v1/tenants/{tenant}/terms"         BOOKS, Nothing => credit::terms;
    PUT    "/v1/tenants/{tenant}/terms"         PRICE, Small => credit::put_terms;
    GET    "/v1/statements"                     BOOKS, Nothing => statements::statement;
    GET    "/v1/statements/totals"              BOOKS, Nothing => totals::totals;
    GET    "/v1/periods"                        BOOKS, Nothing => periods::list;
    POST   "/v1/periods/{period}/close"         CLOSE, Small => periods::close;
    GET    "/v1/adjustments"                    AUDIT, Nothing => adjustments::list;
    POST   "/v1/adjustments"                    ADJUST, Small => adjustments::propose;
    POST   "/v1/adjustments/{id}/approve"       APPROVE, Small => adjustments::approve;
    POST   "/v1/adjustments/{id}/reject"        APPROVE, Small => adjustments::reject;

    GET    "/v1/ledger/checkpoint"              BOOKS, Nothing => proofs::checkpoint;
    POST   "/v1/ledger/checkpoint"              BOOKS, Small => proofs::sign;
    GET    "/v1/ledger/keys"                    BOOKS, Nothing => proofs::keys;
    GET    "/v1/ledger/proofs/inclusion"        BOOKS, Nothing => proofs::inclusion;
    GET    "/v1/ledger/proofs/consistency"      BOOKS, Nothing => proofs::consistency;
    GET    "/v1/audit"                          AUDIT, Nothing => audit::acts;
    GET    "/v1/reconciliation"                 BOOKS, Nothing => reconciliation::get;
}

/// Puts every route into actix, with our own answers to unknown paths and methods.
pub(crate) fn configure(service: &mut ServiceConfig) {
    let mut paths: Vec<&'static str> = ROUTES.iter().map(|route| route.path).collect();
    paths.dedup();
    for path in paths {
        let mut resource = web::resource(path);
        let mut methods = Vec::new();
        for route in ROUTES.iter().filter(|route| route.path == path) {
            let Ok(method) = Method::from_bytes(route.method.as_bytes()) else {
                continue;
            };
            methods.push(route.method);
            resource = resource.route(web::method(method).to(
                move |app: web::Data<App>, http: HttpRequest, payload: Payload| {
                    serve(route, app.into_inner(), http, payload)
                },
            ));
        }
        let allow = methods.join(", ");
        let refuse = move |app: web::Data<App>, http: HttpRequest| {
            let error = ApiError::MethodNotAllowed {
                allow: allow.clone(),
            };
            std::future::ready(stray(&app, &http, &error))
        };
        service.service(resource.default_service(web::to(refuse)));
    }
}

/// Answers a path that is none.
pub(crate) async fn unknown_path(app: web::Data<App>, http: HttpRequest) -> HttpResponse {
    stray(&app, &http, &ApiError::NotFound { what: "path" })
}

fn stray(app: &App, http: &HttpRequest, error: &ApiError) -> HttpResponse {
    let request_id = id_of(app, http);
    let (status, code, _) = error.code().contract();
    telemetry::refused(code);
    telemetry::answered("none", "none", status.as_u16(), Duration::ZERO);
    dressed(error.respond(&request_id), &request_id)
}

fn id_of(app: &App, http: &HttpRequest) -> String {
    let given = http
        .headers()
        .get("x-request-id")
        .and_then(|value| value.to_str().ok());
    telemetry::request_id(app, given)
}

/// One request through one route.
async fn serve(
    route: &'static Route,
    app: Arc<App>,
    http: HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let started = app.clock.elapsed();
    let request_id = id_of(&app, &http);
    app.requests.fetch_add(1, Ordering::SeqCst);
    let as_csv = route.method == "GET" && csv::is_wanted(http.headers());
    let mut answer = handle(route, &app, http, payload, request_id.clone()).await;
    if as_csv {
        answer = answer.and_then(csv::list);
    }
    app.requests.fetch_sub(1, Ordering::SeqCst);
    let response = answer.unwrap_or_else(|error| {
        let (_, code, _) = error.code().contract();
        telemetry::refused(code);
        error.respond(&request_id)
    });
    let took = app.clock.elapsed().saturating_sub(started);
    let status = response.status().as_u16();
    telemetry::answered(route.path, route.method, status, took);
    tracing::debug!(
        request_id,
        route = route.path,
        method = route.method,
        status,
        "answered"
    );
    dressed(response, &request_id)
}

async fn handle(
    route: &'static Route,
    app: &Arc<App>,
    http: HttpRequest,
    payload: Payload,
    request_id: String,
) -> Answer {
    // Reading goes on to the end, and so does cancelling, which brings the end nearer.
    if !matches!(route.method, "GET" | "DELETE") && app.is_draining() {
        return Err(ApiError::Draining);
    }
    let caller = match route.access {
        Open => None,
        _ => Some(auth::caller(app, http.headers())?),
    };
    if let Some(caller) = &caller {
        allow(route.access, caller)?;
    }
    let body = read_body(route.body, app, &http, payload).await?;
    (route.handler)(Call {
        app: Arc::clone(app),
        caller,
        http,
        body,
        request_id,
    })
    .await
}

fn allow(access: Access, caller: &Caller) -> Result<(), ApiError> {
    match access {
        Open => Ok(()),
        Needs(scope) => caller.needs(scope),
        TenantOr(_, own) if !caller.is_operator() => caller.needs(own),
        TenantOr(scope, _) => caller.needs(scope),
    }
}

/// Reads the body within the route's bytes and the server's time.
async fn read_body(
    max: BodyMax,
    app: &App,
    http: &HttpRequest,
    payload: Payload,
) -> Result<Bytes, ApiError> {
    let server = &app.config.server;
    let limit_bytes = match max {
        Nothing => 0,
        Small => server.body_small_max_bytes,
        Large => server.body_max_bytes,
    };
    let declared = http
        .headers()
        .get("content-length")
        .and_then(|value| value.to_str().ok());
    let declared = declared.and_then(|text| text.parse::<u64>().ok());
    let limit = u64::try_from(limit_bytes).unwrap_or(u64::MAX);
    if declared.is_some_and(|length| length > limit) {
        return Err(ApiError::PayloadTooLarge { limit_bytes });
    }
    let reading = payload.to_bytes_limited(limit_bytes);
    let within = Duration::from_millis(server.body_timeout_ms);
    let body = match tokio::time::timeout(within, reading).await {
        Err(_) => return Err(ApiError::RequestTimeout),
        Ok(Err(_)) => return Err(ApiError::PayloadTooLarge { limit_bytes }),
        Ok(Ok(Err(_))) => return Err(ApiError::invalid("", "the body could not be read")),
        Ok(Ok(Ok(body))) => body,
    };
    let is_json = |text: &str| {
        let kind = text.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    };
    let kind = http
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok());
    if !body.is_empty() && !kind.is_some_and(is_json) {
        return Err(ApiError::UnsupportedMediaType);
    }
    Ok(body)
}

/// The headers that every answer carries.
fn dressed(mut response: HttpResponse, request_id: &str) -> HttpResponse {
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        (
            "content-security-policy",
            "default-src 'none'; frame-ancestors 'none'",
        ),
        ("cache-control", "no-store"),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    // A request id is checked or made by us, so this cannot fail; if it did, the answer goes
    // without.
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_one_path_stand_together() {
        let mut paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
        paths.dedup();
        let mut unique = paths.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(paths.len(), unique.len());
    }

    #[test]
    fn only_operations_and_public_keys_are_open() {
        for route in ROUTES {
            let open = matches!(route.access, Open);
            assert_eq!(open, !route.path.starts_with("/v1/"), "{}", route.path);
        }
    }
}
