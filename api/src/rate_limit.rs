//! The fields `RateLimit-Policy` and `RateLimit`: what is left of each cap on the number of
//! executions, on answers to `POST /v1/executions`.
//!
//! Their form is that of draft-ietf-httpapi-ratelimit-headers-10.
//! The names of the policies are fixed words: nothing that a tenant wrote reaches a header.

use actix_web::HttpResponseBuilder;
use ledger::{CapOf, Left, Meter, ScopeKind, Window};

use crate::error::ApiError;

/// Policies on one answer; what there is more of is left out.
const POLICIES_MAX: usize = 8;
/// The largest integer of a structured field.
const INTEGER_MAX: u128 = 999_999_999_999_999;
/// Seconds over which starts are counted.
const STARTS_S: u64 = 60;

/// One cap and what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    name: String,
    quota: u128,
    left: u128,
    /// Seconds that it is counted over; `None` for executions at once and for ever.
    window_s: Option<u64>,
    /// Seconds until there is more.
    resets_s: Option<u64>,
    at_once: bool,
}

/// A time to come in whole seconds, rounded up; zero if it has passed.
pub(crate) fn seconds(us: i64) -> u64 {
    u64::try_from(us).unwrap_or(0).div_ceil(1_000_000)
}

fn quota_name(scope: ScopeKind, window: Window) -> String {
    format!("{}/executions/{}", scope.name(), window.name())
}

fn starts(of_key: bool, cap: u128, left: u128, resets_s: Option<u64>) -> Policy {
    let name = if of_key {
        "key/starts"
    } else {
        "tenant/starts"
    };
    Policy {
        name: name.to_owned(),
        quota: cap,
        left,
        window_s: Some(STARTS_S),
        resets_s,
        at_once: false,
    }
}

fn concurrency(cap: u128, left: u128) -> Policy {
    Policy {
        name: "concurrency".to_owned(),
        quota: cap,
        left,
        window_s: None,
        resets_s: None,
        at_once: true,
    }
}

/// The caps of an execution that was admitted.
pub(crate) fn of_admitted(left: &[Left], now_us: i64) -> Vec<Policy> {
    let policy = |one: &Left| {
        let until = one.window.map(|(_, end)| end.saturating_sub(now_us));
        let resets_s = until.filter(|us| *us > 0).map(seconds);
        match one.of {
            CapOf::Concurrency => concurrency(one.limit, one.left),
            CapOf::Starts(scope) => {
                let of_key = scope == ScopeKind::Key;
                starts(of_key, one.limit, one.left, resets_s)
            }
            CapOf::Quota { scope, window } => Policy {
                name: quota_name(scope, window),
                quota: one.limit,
                left: one.left,
                window_s: one
                    .window
                    .map(|(start, end)| seconds(end.saturating_sub(start))),
                resets_s,
                at_once: false,
            },
        }
    };
    left.iter().map(policy).collect()
}

/// The caps that a refusal tells of.
pub(crate) fn of_refusal(error: &ApiError) -> Vec<Policy> {
    match error {
        ApiError::StartsExceeded {
            of_key,
            cap,
            wait_us,
            ..
        } => vec![starts(*of_key, (*cap).into(), 0, Some(seconds(*wait_us)))],
        ApiError::ConcurrencyExceeded { cap, .. } => vec![concurrency((*cap).into(), 0)],
        ApiError::QuotaExceeded { violated, now_us } => {
            let counts = violated.iter().filter(|one| one.meter == Meter::Executions);
            let policies = counts.map(|one| Policy {
                name: quota_name(one.scope.kind(), one.window),
                quota: one.limit,
                left: 0,
                window_s: None,
                resets_s: one.resets_at.map(|at| seconds(at.saturating_sub(*now_us))),
                at_once: false,
            });
            policies.collect()
        }
        _ => Vec::new(),
    }
}

/// Puts both fields on an answer, if there is anything to tell.
pub(crate) fn insert(response: &mut HttpResponseBuilder, policies: &[Policy]) {
    let policies = policies.iter().take(POLICIES_MAX);
    if policies.len() == 0 {
        return;
    }
    let policy: Vec<String> = policies.clone().map(Policy::rule).collect();
    let standing: Vec<String> = policies.map(Policy::standing).collect();
    response.insert_header(("RateLimit-Policy", policy.join(", ")));
    response.insert_header(("RateLimit", standing.join(", ")));
}

impl Policy {
    fn rule(&self) -> String {
        let mut text = format!("\"{}\";q={}", self.name, self.quota.min(INTEGER_MAX));
        if let Some(seconds) = self.window_s {
            text.push_str(&format!(";w={seconds}"));
        }
        if self.at_once {
            text.push_str(";qu=\"concurrent-requests\"");
        }
        text
    }

    fn standing(&self) -> String {
        let mut text = format!("\"{}\";r={}", self.name, self.left.min(INTEGER_MAX));
        if let Some(seconds) = self.resets_s {
            text.push_str(&format!(";t={seconds}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_says_quota_window_rest_and_reset() {
        let left = [
            Left {
                of: CapOf::Quota {
                    scope: ScopeKind::Project,
                    window: Window::Day,
                },
                limit: u128::MAX,
                left: 7,
                window: Some((0, 86_400_000_000)),
            },
            Left {
                of: CapOf::Starts(ScopeKind::Key),
                limit: 5,
                left: 5,
                window: Some((10, 10)),
            },
            Left {
                of: CapOf::Concurrency,
                limit: 16,
                left: 15,
                window: None,
            },
        ];
        let policies = of_admitted(&left, 86_399_000_001);
        let rules: Vec<_> = policies.iter().map(Policy::rule).collect();
        let all = [
            "\"project/executions/day\";q=999999999999999;w=86400",
            "\"key/starts\";q=5;w=60",
            "\"concurrency\";q=16;qu=\"concurrent-requests\"",
        ];
        assert_eq!(rules, all);
        let standing: Vec<_> = policies.iter().map(Policy::standing).collect();
        let all = [
            "\"project/executions/day\";r=7;t=1",
            "\"key/starts\";r=5",
            "\"concurrency\";r=15",
        ];
        assert_eq!(standing, all);
    }
}
