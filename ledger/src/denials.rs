//! Refused holds: counted by tenant, quota and minute, and the last ones one by one. In memory, and
//! bounded: a refusal costs the refused nothing, so it must not cost the ledger anything either.

use std::collections::{BTreeMap, VecDeque};

use crate::calendar::MINUTE_US;
use crate::clock::Micros;
use crate::command::HoldRequest;
use crate::query::{Denial, DenialCount, Denials, DeniedBy};
use crate::quota::{Cause, Scope};
use crate::rejection::Rejection;

/// What is counted together: a minute, a tenant, what refused, whose use, what was in the way.
type Counted = (Micros, String, DeniedBy, Scope, Cause);

/// What is remembered of refusals.
#[derive(Debug)]
pub(crate) struct Denied {
    counts: BTreeMap<Counted, u64>,
    last: VecDeque<Denial>,
    counts_max: usize,
    last_max: usize,
}

impl Denied {
    /// Nothing refused yet; keeps at most so many counters, and single refusals.
    pub(crate) fn new(counts_max: usize, last_max: usize) -> Self {
        Self {
            counts: BTreeMap::new(),
            last: VecDeque::new(),
            counts_max,
            last_max,
        }
    }

    /// Notes a refusal, if it is one of use and not of a fault in the request.
    pub(crate) fn note(&mut self, request: &HoldRequest, rejection: &Rejection, at: Micros) {
        let (by, scope, cause) = match rejection {
            Rejection::Quota(violations) => {
                for violation in violations {
                    let by = DeniedBy::Quota(violation.quota.clone());
                    self.add(request, by, violation.scope.clone(), (at, violation.cause));
                }
                return;
            }
            Rejection::Rate { scope, .. } => (DeniedBy::Rate, scope.clone(), Cause::Posted),
            Rejection::Concurrency { .. } => (DeniedBy::Concurrency, Scope::Tenant, Cause::Held),
            Rejection::InsufficientFunds { .. } => (DeniedBy::Credit, Scope::Tenant, Cause::Posted),
            Rejection::MaxCost { .. } => (DeniedBy::MaxCost, Scope::Tenant, Cause::Posted),
            Rejection::Suspended { .. } => (DeniedBy::Suspended, Scope::Tenant, Cause::Posted),
            _ => return,
        };
        self.add(request, by, scope, (at, cause));
    }

    fn add(&mut self, request: &HoldRequest, by: DeniedBy, scope: Scope, why: (Micros, Cause)) {
        let (at, cause) = why;
        let minute = at - at.rem_euclid(MINUTE_US);
        let tenant = request.tenant.clone();
        let counted = (minute, tenant.clone(), by.clone(), scope.clone(), cause);
        *self.counts.entry(counted).or_insert(0) += 1;
        while self.counts.len() > self.counts_max {
            self.counts.pop_first();
        }
        let (project, key) = (request.project.clone(), request.key.clone());
        self.last.push_front(Denial {
            at,
            tenant,
            project,
            key,
            by,
            scope,
            cause,
        });
        self.last.truncate(self.last_max);
    }

    /// What is remembered, of one tenant or of all.
    pub(crate) fn list(&self, tenant: Option<&str>) -> Denials {
        let mine = |name: &str| tenant.is_none_or(|tenant| tenant == name);
        let counts = self.counts.iter().rev().filter(|(key, _)| mine(&key.1));
        let count = |(counted, count): (&Counted, &u64)| {
            let (minute, tenant, by, scope, cause) = counted.clone();
            DenialCount {
                tenant,
                by,
                scope,
                cause,
                minute,
                count: *count,
            }
        };
        Denials {
            counts: counts.map(count).collect(),
            last: self
                .last
                .iter()
                .filter(|denial| mine(&denial.tenant))
                .cloned()
                .collect(),
        }
    }
}
