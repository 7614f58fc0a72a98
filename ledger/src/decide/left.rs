//! What is left of the caps on the number of runs once a hold is open.

use crate::calendar::Span;
use crate::clock::Micros;
use crate::quantity::Meter;
use crate::quota::{CapOf, Left};
use crate::state::{Limit, Places, Stands, Tenant};

/// What a hold that was opened at `at`, through `key`, with these places, has left of each cap on
/// the number of runs that concerns it: quotas in the order in which they were given first.
pub(crate) fn left(tenant: &Tenant, places: Places, key: &str, at: Micros) -> Vec<Left> {
    let mut quotas: Vec<(&Limit, Stands)> = tenant
        .limits(places, at)
        .filter(|(limit, _)| limit.meter == Meter::Executions)
        .collect();
    quotas.sort_unstable_by_key(|(limit, _)| limit.rule());
    let rules = tenant.rules(at).all();
    let quota = |(limit, (posted, held, window)): (&Limit, Stands)| {
        let quota = &rules.get(limit.rule())?.quota;
        Some(Left {
            of: CapOf::Quota {
                scope: quota.scope.clone(),
                window: quota.window,
            },
            limit: limit.most,
            left: limit.most.saturating_sub(posted.saturating_add(held)),
            window: (window != Span::EVER).then_some((window.start, window.end)),
        })
    };
    let starts = tenant.start_caps(key, at).map(|(scope, cap, begun)| Left {
        of: CapOf::Starts(scope),
        limit: cap.into(),
        left: cap.saturating_sub(begun.count).into(),
        window: Some((at, begun.free_at.unwrap_or(at))),
    });
    let open = Left {
        of: CapOf::Concurrency,
        limit: tenant.concurrency.into(),
        left: tenant.concurrency.saturating_sub(tenant.open).into(),
        window: None,
    };
    let quotas = quotas.into_iter().filter_map(quota);
    quotas.chain(starts).chain([open]).collect()
}
