//! The ledger's refusals and failures as errors of the API.

use ledger::{Busy, Failed, Rejection, Scope};

use super::{ApiError, Retry};

/// The domain's no, at `now_us`. `Replay` and `IdempotencyMismatch` are handled where holds are
/// asked for.
pub(crate) fn rejected(rejection: Rejection, now_us: i64) -> ApiError {
    let detail = rejection.to_string();
    match rejection {
        Rejection::UnknownTenant { .. } => ApiError::NotFound { what: "tenant" },
        Rejection::Suspended { .. } => ApiError::TenantSuspended,
        Rejection::Quota(violated) => ApiError::QuotaExceeded { violated, now_us },
        Rejection::Rate {
            scope,
            cap,
            free_at,
            ..
        } => ApiError::StartsExceeded {
            of_key: matches!(scope, Scope::Key(_)),
            cap,
            wait_us: free_at.saturating_sub(now_us),
            detail,
        },
        Rejection::Concurrency { cap, .. } => ApiError::ConcurrencyExceeded { cap, detail },
        Rejection::InsufficientFunds { .. } => ApiError::InsufficientFunds { detail },
        Rejection::MaxCost { .. } => ApiError::BudgetExceeded { detail },
        Rejection::NoRateCard => ApiError::Unavailable {
            reason: detail,
            retry: Retry::Safe,
        },
        Rejection::Replay { .. } | Rejection::HoldNotOpen { .. } | Rejection::HoldExists { .. } => {
            ApiError::internal(detail)
        }
        Rejection::IdempotencyMismatch { .. } => ApiError::IdempotencyMismatch,
        Rejection::NotClosable { .. }
        | Rejection::NotPending { .. }
        | Rejection::Reversed { .. } => ApiError::Conflict { detail },
        Rejection::OwnProposal { .. } => ApiError::Forbidden { detail },
        Rejection::Conflict { .. } => ApiError::Conflict {
            detail: "it was changed since you looked".to_owned(),
        },
        Rejection::Moved => ApiError::Unavailable {
            reason: detail,
            retry: Retry::Safe,
        },
        Rejection::TooManyHolds { .. } => ApiError::Overloaded {
            detail: "as many executions are open as the ledger may hold",
        },
        Rejection::TooManyKeys { .. } => ApiError::RateExceeded { detail },
        // A bound on what is kept: it stays reached until something is removed or the bound raised.
        Rejection::TooMany { .. } => ApiError::Conflict { detail },
        Rejection::Invalid { field, fault } => ApiError::invalid(field, fault),
    }
}

impl From<Busy> for ApiError {
    fn from(busy: Busy) -> ApiError {
        match busy {
            Busy::QueueFull => ApiError::Overloaded {
                detail: "too much waits for the ledger",
            },
            Busy::NoRoom | Busy::NotWritable => ApiError::Unavailable {
                reason: busy.to_string(),
                retry: Retry::Safe,
            },
        }
    }
}

impl From<Failed> for ApiError {
    fn from(failed: Failed) -> ApiError {
        let retry = match failed {
            Failed::NoRoom => Retry::Safe,
            Failed::NotWritable => Retry::SameKey,
        };
        ApiError::Unavailable {
            reason: failed.to_string(),
            retry,
        }
    }
}

impl From<getrandom::Error> for ApiError {
    fn from(error: getrandom::Error) -> ApiError {
        ApiError::internal(error)
    }
}
