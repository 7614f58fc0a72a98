//! What is left of the caps on the number of runs once a hold is open.

use crate::calendar::Span;
use crate::clock::Micros;
use crate::quantity::Meter;
use crate::quota::{CapOf, Left};
use crate::state::{Places, Tenant};

/// Room for what is left of most runs' caps.
pub(crate) const ROOM: usize = 8;

/// Notes in `all` what a hold that was opened at `at`, through `key`, with these places, has left
/// of each cap on the number of runs that concerns it: quotas in the order in which they were
/// given first. `quotas` is room to sort them in.
pub(crate) fn left(
    tenant: &Tenant,
    (places, key, at): (Places, &str, Micros),
    quotas: &mut Vec<(usize, Left)>,
    all: &mut Vec<Left>,
) {
    let counts = tenant.limits_of(places, at, |limit| limit.meter == Meter::Executions);
    quotas.clear();
    quotas.extend(counts.map(|(limit, (posted, held, window))| {
        let left = Left {
            of: CapOf::Quota {
                scope: limit.scope,
                window: limit.window,
            },
            limit: limit.most,
            left: limit.most.saturating_sub(posted.saturating_add(held)),
            window: (window != Span::EVER).then_some((window.start, window.end)),
        };
        (limit.rule(), left)
    }));
    quotas.sort_unstable_by_key(|(rule, _)| *rule);
    all.extend(quotas.iter().map(|(_, left)| *left));
    let starts = tenant.start_caps(key, at);
    all.extend(starts.map(|(scope, cap, begun)| Left {
        of: CapOf::Starts(scope),
        limit: cap.into(),
        left: cap.saturating_sub(begun.count).into(),
        window: Some((at, begun.free_at.unwrap_or(at))),
    }));
    all.push(Left {
        of: CapOf::Concurrency,
        limit: tenant.concurrency.into(),
        left: tenant.concurrency.saturating_sub(tenant.open).into(),
        window: None,
    });
}
