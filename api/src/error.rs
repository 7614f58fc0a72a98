//! Every way in which a request can fail: the one file that maps failures to codes and statuses.
//!
//! A handler returns an [`ApiError`]; the body that the client sees is RFC 9457 problem details.
//! The domain's no (`ledger::Rejection`) and what broke (`Busy`, `Failed`) are translated here and
//! nowhere else. What a tenant's code did is never an error: it is an outcome in a 200.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, HttpResponseBuilder};
use ledger::{Cause, Violation};
use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use self::translate::rejected;
use crate::rate_limit;
use crate::shape;

mod translate;

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// Where: a JSON pointer into the body, `?name` for a query parameter, or a header's name.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

impl Fault {
    pub(crate) fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Fault {
        Fault {
            pointer: pointer.into(),
            detail: detail.into(),
        }
    }
}

/// Why a request was not done.
#[derive(Debug, Clone)]
pub(crate) enum ApiError {
    /// The request is malformed; all its faults.
    InvalidArgument(Vec<Fault>),
    /// The body is longer than the route takes.
    PayloadTooLarge { limit_bytes: usize },
    /// The body is not JSON.
    UnsupportedMediaType,
    /// The path has no such method.
    MethodNotAllowed { allow: String },
    /// The body took too long to arrive.
    RequestTimeout,
    /// No token, or not a good one; `reason` is for the log.
    Unauthenticated { reason: &'static str },
    /// The token does not reach so far.
    Forbidden { detail: String },
    /// The tenant may do nothing now.
    TenantSuspended,
    /// There is no such thing, or it is another tenant's.
    NotFound { what: &'static str },
    /// This program was built without it.
    NotBuilt { detail: String },
    /// What was the sandbox is gone, or nothing of it was kept.
    SandboxGone,
    /// The file has no byte in the range that was asked for.
    RangeNotSatisfiable { size: u64 },
    /// The prepaid credit does not cover the worst case.
    InsufficientFunds { detail: String },
    /// The worst case costs more than a budget or the caller allows.
    BudgetExceeded { detail: String },
    /// Quotas have no room for the worst case.
    QuotaExceeded {
        violated: Vec<Violation>,
        now_us: i64,
    },
    /// The tenant runs as much at once as it may.
    ConcurrencyExceeded { cap: u32, detail: String },
    /// More asynchronous work waits for the tenant than may.
    RateExceeded { detail: String },
    /// As many executions as may begin in a minute have begun; of the key, or of the tenant.
    StartsExceeded {
        of_key: bool,
        cap: u32,
        wait_us: i64,
        detail: String,
    },
    /// The thing was changed, or is in a state that forbids it.
    Conflict { detail: String },
    /// The first request with this key is still being admitted.
    IdempotencyInFlight,
    /// The key was used with another request.
    IdempotencyMismatch,
    /// The machine has no room now.
    Overloaded { detail: &'static str },
    /// The server is about to end.
    Draining,
    /// Something that is needed is not there; `reason` is for the log.
    Unavailable { reason: String, retry: Retry },
    /// A fault of ours; `reason` is for the log.
    Internal { reason: String },
}

/// Whether the same request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// It did nothing: sending it again cannot do anything twice.
    Safe,
    /// It may have done something: send it again only with the same idempotency key.
    SameKey,
    /// Sending the same again will not help.
    No,
}

/// The stable name of a failure; part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Code {
    InvalidArgument,
    PayloadTooLarge,
    UnsupportedMediaType,
    MethodNotAllowed,
    RequestTimeout,
    Unauthenticated,
    Forbidden,
    TenantSuspended,
    NotFound,
    NotBuilt,
    SandboxGone,
    RangeNotSatisfiable,
    InsufficientFunds,
    BudgetExceeded,
    QuotaExceeded,
    ConcurrencyExceeded,
    RateExceeded,
    Conflict,
    IdempotencyInFlight,
    IdempotencyMismatch,
    Overloaded,
    Draining,
    Unavailable,
    Internal,
}

impl Code {
    /// Status, name and title: what clients may rely on.
    pub(crate) fn contract(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        let (status, name, title) = match self {
            Code::InvalidArgument => (400, "invalid_argument", "The request is malformed"),
            Code::PayloadTooLarge => (413, "payload_too_large", "The body is too long"),
            Code::UnsupportedMediaType => (415, "unsupported_media_type", "This takes JSON only"),
            Code::MethodNotAllowed => (405, "method_not_allowed", "The path has no such method"),
            Code::RequestTimeout => (408, "request_timeout", "The request took too long"),
            Code::Unauthenticated => (401, "unauthenticated", "A valid token is needed"),
            Code::Forbidden => (403, "forbidden", "The token does not allow this"),
            Code::TenantSuspended => (403, "tenant_suspended", "The tenant is suspended"),
            Code::NotFound => (404, "not_found", "There is no such thing"),
            Code::NotBuilt => (501, "not_built", "This build cannot do that"),
            Code::SandboxGone => (410, "sandbox_gone", "The sandbox is gone"),
            Code::RangeNotSatisfiable => {
                (416, "range_not_satisfiable", "The file has no such bytes")
            }
            Code::InsufficientFunds => (402, "insufficient_funds", "The credit is too small"),
            Code::BudgetExceeded => (402, "budget_exceeded", "This may cost too much"),
            Code::QuotaExceeded => (429, "quota_exceeded", "A quota has no room for this"),
            Code::ConcurrencyExceeded => (429, "concurrency_exceeded", "Too much runs at once"),
            Code::RateExceeded => (429, "rate_exceeded", "Too much is asked at once"),
            Code::Conflict => (409, "conflict", "This conflicts with what is there"),
            Code::IdempotencyInFlight => (
                409,
                "idempotency_in_flight",
                "The first request with this key is being admitted",
            ),
            Code::IdempotencyMismatch => (
                422,
                "idempotency_mismatch",
                "This key was used with another request",
            ),
            Code::Overloaded => (503, "overloaded", "The machine is full"),
            Code::Draining => (503, "draining", "The server is stopping"),
            Code::Unavailable => (503, "unavailable", "The service is not available now"),
            Code::Internal => (500, "internal", "Internal error"),
        };
        (
            S::from_u16(status).unwrap_or(S::INTERNAL_SERVER_ERROR),
            name,
            title,
        )
    }
}

/// One quota without room, as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Violated {
    /// The quota's name.
    #[schema(example = "tenant/executions/day")]
    pub quota: String,
    /// Whose use counts; null for the whole tenant.
    pub scope: Option<shape::QuotaScope>,
    /// What counts.
    pub meter: String,
    /// Over which time.
    pub window: String,
    /// The most that may be posted and held; decimal.
    pub limit: String,
    /// Used in the window; decimal.
    pub posted: String,
    /// Held in the window; decimal.
    pub held: String,
    /// What the refused request needed; decimal.
    pub requested: String,
    /// When the window ends; null for a lifetime.
    pub resets_at: Option<String>,
    /// `posted`: only a new window or a higher limit helps. `held`: trying again soon may.
    pub cause: &'static str,
}

/// RFC 9457 problem details.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`, but for quotas the registered type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The same for every problem of one code.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// This occurrence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Stable name of the failure.
    pub code: Code,
    /// The request's id, as in the log and in `X-Request-Id`.
    pub request_id: String,
    /// Whether the same request may be sent again.
    pub retry: Retry,
    /// All faults of a malformed request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
    /// The quotas without room.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub violated: Vec<Violated>,
}

impl ApiError {
    /// A request with one fault.
    pub(crate) fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> ApiError {
        ApiError::InvalidArgument(vec![Fault::new(pointer, detail)])
    }

    pub(crate) fn internal(reason: impl std::fmt::Display) -> ApiError {
        ApiError::Internal {
            reason: reason.to_string(),
        }
    }

    pub(crate) fn code(&self) -> Code {
        match self {
            ApiError::InvalidArgument(_) => Code::InvalidArgument,
            ApiError::PayloadTooLarge { .. } => Code::PayloadTooLarge,
            ApiError::UnsupportedMediaType => Code::UnsupportedMediaType,
            ApiError::MethodNotAllowed { .. } => Code::MethodNotAllowed,
            ApiError::RequestTimeout => Code::RequestTimeout,
            ApiError::Unauthenticated { .. } => Code::Unauthenticated,
            ApiError::Forbidden { .. } => Code::Forbidden,
            ApiError::TenantSuspended => Code::TenantSuspended,
            ApiError::NotFound { .. } => Code::NotFound,
            ApiError::NotBuilt { .. } => Code::NotBuilt,
            ApiError::SandboxGone => Code::SandboxGone,
            ApiError::RangeNotSatisfiable { .. } => Code::RangeNotSatisfiable,
            ApiError::InsufficientFunds { .. } => Code::InsufficientFunds,
            ApiError::BudgetExceeded { .. } => Code::BudgetExceeded,
            ApiError::QuotaExceeded { .. } => Code::QuotaExceeded,
            ApiError::ConcurrencyExceeded { .. } => Code::ConcurrencyExceeded,
            ApiError::RateExceeded { .. } | ApiError::StartsExceeded { .. } => Code::RateExceeded,
            ApiError::Conflict { .. } => Code::Conflict,
            ApiError::IdempotencyInFlight => Code::IdempotencyInFlight,
            ApiError::IdempotencyMismatch => Code::IdempotencyMismatch,
            ApiError::Overloaded { .. } => Code::Overloaded,
            ApiError::Draining => Code::Draining,
            ApiError::Unavailable { .. } => Code::Unavailable,
            ApiError::Internal { .. } => Code::Internal,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            ApiError::InvalidArgument(_)
            | ApiError::PayloadTooLarge { .. }
            | ApiError::UnsupportedMediaType
            | ApiError::MethodNotAllowed { .. }
            | ApiError::Unauthenticated { .. }
            | ApiError::Forbidden { .. }
            | ApiError::TenantSuspended
            | ApiError::NotFound { .. }
            | ApiError::NotBuilt { .. }
            | ApiError::SandboxGone
            | ApiError::RangeNotSatisfiable { .. }
            | ApiError::InsufficientFunds { .. }
            | ApiError::BudgetExceeded { .. }
            | ApiError::Conflict { .. }
            | ApiError::IdempotencyMismatch => Retry::No,
            ApiError::QuotaExceeded { violated, .. } if only_held(violated) => Retry::Safe,
            ApiError::QuotaExceeded { .. } => Retry::No,
            ApiError::RequestTimeout
            | ApiError::ConcurrencyExceeded { .. }
            | ApiError::RateExceeded { .. }
            | ApiError::StartsExceeded { .. }
            | ApiError::Overloaded { .. }
            | ApiError::Draining => Retry::Safe,
            ApiError::Unavailable { retry, .. } => *retry,
            ApiError::IdempotencyInFlight | ApiError::Internal { .. } => Retry::SameKey,
        }
    }

    /// Seconds after which trying again may help.
    fn retry_after_s(&self) -> Option<u64> {
        match self {
            ApiError::QuotaExceeded { violated, .. } if only_held(violated) => Some(1),
            ApiError::QuotaExceeded { violated, now_us } => {
                let resets = violated.iter().filter(|one| one.cause == Cause::Posted);
                let last = resets
                    .map(|one| one.resets_at)
                    .max_by_key(|at| at.unwrap_or(i64::MAX))?;
                Some(rate_limit::seconds(last?.saturating_sub(*now_us)))
            }
            ApiError::StartsExceeded { wait_us, .. } => Some(rate_limit::seconds(*wait_us)),
            ApiError::ConcurrencyExceeded { .. }
            | ApiError::RateExceeded { .. }
            | ApiError::IdempotencyInFlight
            | ApiError::Overloaded { .. }
            | ApiError::Unavailable { .. } => Some(1),
            ApiError::Draining => Some(5),
            _ => None,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            ApiError::InvalidArgument(faults) => {
                let each = faults
                    .iter()
                    .map(|f| format!("{}: {}", f.pointer, f.detail));
                Some(each.collect::<Vec<_>>().join("; "))
            }
            ApiError::PayloadTooLarge { limit_bytes } => {
                Some(format!("this route takes at most {limit_bytes} bytes"))
            }
            ApiError::MethodNotAllowed { allow } => Some(format!("allowed: {allow}")),
            ApiError::NotFound { what } => Some(format!("no such {what}")),
            ApiError::SandboxGone => Some("its files were not kept, or are gone".to_owned()),
            ApiError::RangeNotSatisfiable { size } => Some(format!("the file has {size} bytes")),
            ApiError::QuotaExceeded { violated, .. } => {
                let names = violated.iter().map(|one| one.quota.as_str());
                Some(format!(
                    "no room in {}",
                    names.collect::<Vec<_>>().join(", ")
                ))
            }
            ApiError::Overloaded { detail } => Some((*detail).to_owned()),
            ApiError::Forbidden { detail }
            | ApiError::NotBuilt { detail }
            | ApiError::InsufficientFunds { detail }
            | ApiError::BudgetExceeded { detail }
            | ApiError::ConcurrencyExceeded { detail, .. }
            | ApiError::RateExceeded { detail }
            | ApiError::StartsExceeded { detail, .. }
            | ApiError::Conflict { detail } => Some(detail.clone()),
            ApiError::UnsupportedMediaType
            | ApiError::RequestTimeout
            | ApiError::Unauthenticated { .. }
            | ApiError::TenantSuspended
            | ApiError::IdempotencyInFlight
            | ApiError::IdempotencyMismatch
            | ApiError::Draining
            | ApiError::Unavailable { .. }
            | ApiError::Internal { .. } => None,
        }
    }

    /// What stands in the log and is kept from the client.
    fn hidden(&self) -> Option<&str> {
        match self {
            ApiError::Unauthenticated { reason } => Some(reason),
            ApiError::Unavailable { reason, .. } | ApiError::Internal { reason } => Some(reason),
            _ => None,
        }
    }

    /// Everything there is to say, on one line, for the log and the operator.
    pub(crate) fn to_log(&self) -> String {
        let (_, code, title) = self.code().contract();
        let said = self.hidden().map(str::to_owned).or_else(|| self.detail());
        format!("{code}: {}", said.as_deref().unwrap_or(title))
    }

    pub(crate) fn problem(&self, request_id: &str) -> Problem {
        let (status, _, title) = self.code().contract();
        let (errors, violated) = match self {
            ApiError::InvalidArgument(faults) => (faults.clone(), Vec::new()),
            ApiError::QuotaExceeded { violated, .. } => {
                (Vec::new(), violated.iter().map(shape::violated).collect())
            }
            _ => (Vec::new(), Vec::new()),
        };
        let kind = match self {
            ApiError::QuotaExceeded { .. } => {
                "https://iana.org/assignments/http-problem-types#quota-exceeded"
            }
            _ => "about:blank",
        };
        Problem {
            kind,
            title,
            status: status.as_u16(),
            detail: self.detail(),
            code: self.code(),
            request_id: request_id.to_owned(),
            retry: self.retry(),
            errors,
            violated,
        }
    }

    /// The answer to the client; what it must not see goes to the log under the request's id.
    pub(crate) fn respond(&self, request_id: &str) -> HttpResponse {
        let (status, code, _) = self.code().contract();
        if let Some(reason) = self.hidden() {
            let reason = reason.escape_debug();
            if status.is_server_error() {
                tracing::error!(request_id, code, %reason, "request failed");
            } else {
                tracing::debug!(request_id, code, %reason, "request refused");
            }
        }
        let mut response = HttpResponseBuilder::new(status);
        response.content_type("application/problem+json");
        if let Some(seconds) = self.retry_after_s() {
            response.insert_header(("Retry-After", seconds.to_string()));
        }
        rate_limit::insert(&mut response, &rate_limit::of_refusal(self));
        if let ApiError::RangeNotSatisfiable { size } = self {
            response.insert_header(("Content-Range", format!("bytes */{size}")));
        }
        if let ApiError::MethodNotAllowed { allow } = self {
            response.insert_header(("Allow", allow.as_str()));
        }
        if matches!(self, ApiError::Unauthenticated { .. }) {
            response.insert_header(("WWW-Authenticate", "Bearer realm=\"farebox\""));
        }
        let body = serde_json::to_vec(&self.problem(request_id)).unwrap_or_default();
        response.body(body)
    }
}

fn only_held(violated: &[Violation]) -> bool {
    violated.iter().all(|one| one.cause == Cause::Held)
}
