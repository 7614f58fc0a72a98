//! Refused holds: counted by tenant, quota and minute, and the last ones one by one. In memory, and
//! bounded: a refusal costs the refused nothing, so it must not cost the ledger anything either.

use std::collections::{BTreeMap, VecDeque};

use crate::calendar::MINUTE_US;
use crate::clock::Micros;
use crate::command::HoldRequest;
use crate::money::Money;
use crate::quantity::Meter;
use crate::query::{Denial, DenialCount, Denials, DeniedBy, Stood};
use crate::quota::{Cause, Scope, Violation};
use crate::rejection::Rejection;

/// What is counted together: a minute, a tenant, what refused, whose use, what was in the way.
type Counted = (Micros, String, DeniedBy, Scope, Cause);

/// What is remembered of refusals.
#[derive(Debug)]
pub(crate) struct Denied {
    /// The number of each counter, and what it has counted.
    counts: BTreeMap<Counted, (u64, u64)>,
    last: VecDeque<Denial>,
    counts_max: usize,
    last_max: usize,
    /// The next number of a counter or a refusal.
    next: u64,
}

/// Why a hold was refused.
struct Why {
    by: DeniedBy,
    scope: Scope,
    cause: Cause,
    stood: Option<Stood>,
}

impl Denied {
    /// Nothing refused yet; keeps at most so many counters, and single refusals.
    pub(crate) fn new(counts_max: usize, last_max: usize) -> Self {
        Self {
            counts: BTreeMap::new(),
            last: VecDeque::new(),
            counts_max,
            last_max,
            next: 1,
        }
    }

    /// Notes a refusal, if it is one of use and not of a fault in the request.
    pub(crate) fn note(&mut self, request: &HoldRequest, rejection: &Rejection, at: Micros) {
        for why in whys(rejection) {
            self.add(request, why, at);
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn add(&mut self, request: &HoldRequest, why: Why, at: Micros) {
        let Why {
            by,
            scope,
            cause,
            stood,
        } = why;
        let minute = at - at.rem_euclid(MINUTE_US);
        let tenant = request.tenant.clone();
        let counted = (minute, tenant.clone(), by.clone(), scope.clone(), cause);
        let number = self.number();
        self.counts.entry(counted).or_insert((number, 0)).1 += 1;
        while self.counts.len() > self.counts_max {
            self.counts.pop_first();
        }
        self.last.push_front(Denial {
            at,
            tenant,
            project: request.project.clone(),
            function: request.function.clone(),
            key: request.key.clone(),
            by,
            scope,
            cause,
            stood,
            number,
        });
        self.last.truncate(self.last_max);
    }

    /// What is remembered, of one tenant or of all.
    pub(crate) fn list(&self, tenant: Option<&str>) -> Denials {
        let mine = |name: &str| tenant.is_none_or(|tenant| tenant == name);
        let counts = self.counts.iter().filter(|(key, _)| mine(&key.1));
        let count = |(counted, (number, count)): (&Counted, &(u64, u64))| {
            let (minute, tenant, by, scope, cause) = counted.clone();
            DenialCount {
                tenant,
                by,
                scope,
                cause,
                minute,
                count: *count,
                number: *number,
            }
        };
        // Time never goes back, so later minutes have higher numbers.
        let mut counts: Vec<DenialCount> = counts.map(count).collect();
        counts.sort_unstable_by_key(|one| std::cmp::Reverse(one.number));
        Denials {
            counts,
            last: self
                .last
                .iter()
                .filter(|denial| mine(&denial.tenant))
                .cloned()
                .collect(),
        }
    }
}

/// Everything that stood in the way of a hold; nothing for a fault in the request.
fn whys(rejection: &Rejection) -> Vec<Why> {
    let one = |by, scope: &Scope, cause, stood| {
        let scope = scope.clone();
        vec![Why {
            by,
            scope,
            cause,
            stood,
        }]
    };
    let stood = |meter, limit, (posted, held), requested| {
        Some(Stood {
            meter,
            limit,
            posted,
            held,
            requested,
        })
    };
    let runs = |cap: u32, found| stood(Meter::Executions, cap.into(), found, 1);
    let money = |limit: Money, amount: Money| {
        let of = |money: Money| u128::try_from(money.0).unwrap_or(0);
        stood(Meter::Cost, of(limit), (0, 0), of(amount))
    };
    let (posted, held, whole) = (Cause::Posted, Cause::Held, &Scope::Tenant);
    match rejection {
        Rejection::Quota(violations) => violations.iter().map(violated).collect(),
        Rejection::Rate {
            scope, cap, begun, ..
        } => one(
            DeniedBy::Rate,
            scope,
            posted,
            runs(*cap, ((*begun).into(), 0)),
        ),
        Rejection::Concurrency { cap, open } => {
            let stood = runs(*cap, (0, (*open).into()));
            one(DeniedBy::Concurrency, whole, held, stood)
        }
        Rejection::InsufficientFunds { amount, available } => {
            one(DeniedBy::Credit, whole, posted, money(*available, *amount))
        }
        Rejection::MaxCost { amount, max_cost } => {
            one(DeniedBy::MaxCost, whole, posted, money(*max_cost, *amount))
        }
        Rejection::Suspended { .. } => one(DeniedBy::Suspended, whole, posted, None),
        _ => Vec::new(),
    }
}

fn violated(violation: &Violation) -> Why {
    Why {
        by: DeniedBy::Quota(violation.quota.clone()),
        scope: violation.scope.clone(),
        cause: violation.cause,
        stood: Some(Stood {
            meter: violation.meter,
            limit: violation.limit,
            posted: violation.posted,
            held: violation.held,
            requested: violation.requested,
        }),
    }
}
