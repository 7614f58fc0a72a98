//! The counters that hard limits are decided by against entries and open holds: every scope and
//! window that a quota in force names.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::charges::Charges;
use crate::clock::Micros;
use crate::entry::{Body, Entry, Hold};
use crate::error::QueryError;
use crate::quantity::Meter;
use crate::query::{AsOf, ChargeQuery, Only};
use crate::quota::{QuotaState, Scope};
use crate::shared::Shared;
use crate::state::Amounts;

/// Entries that are read at once.
const PAGE: usize = 10_000;

/// A quota's counters, and what entries and open holds come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitCompared {
    /// Whose.
    pub tenant: String,
    /// The quota, with the counters.
    pub state: QuotaState,
    /// What entries have posted in the window.
    pub posted: u128,
    /// What open holds hold in it.
    pub held: u128,
}

/// What comparing quotas has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitsCompared {
    /// Up to where both sides include everything.
    pub as_of: AsOf,
    /// Quotas that were compared.
    pub checked: u64,
    /// Quotas that were not: their window is not counted from its beginning, or has more entries
    /// than may be read.
    pub unchecked: u64,
    /// Those that differ.
    pub differences: Vec<LimitCompared>,
}

/// A quota that is being added up.
struct Sum {
    state: QuotaState,
    start: Micros,
    posted: Amounts,
    held: Amounts,
}

impl Sum {
    fn is_of(&self, hold: &Hold) -> bool {
        if hold.opened_at < self.start {
            return false;
        }
        match &self.state.quota.scope {
            Scope::Tenant => true,
            Scope::Project(name) => hold.project == *name,
            Scope::Function(name) => hold.function.as_ref() == Some(name),
            Scope::Key(name) => hold.key == *name,
        }
    }

    fn take(&mut self, entry: &Entry) {
        match &entry.body {
            Body::Settled(settled) if self.is_of(&settled.hold) => {
                self.posted.add(&Amounts {
                    quantities: settled.posted,
                    cost: settled.charge.total.0,
                });
            }
            Body::Adjusted(adjusted)
                if self.state.quota.scope == Scope::Tenant && entry.at >= self.start =>
            {
                self.posted.add(&crate::state::amounts(adjusted));
            }
            _ => {}
        }
    }
}

/// Compares all quotas in force, reading at most so many entries.
pub(super) fn compared(
    shared: &Arc<Shared>,
    entries_max: u64,
) -> Result<LimitsCompared, QueryError> {
    let now = shared.clock.now_us();
    let view = shared.fresh_view();
    let (state, as_of) = (&view.state, view.as_of());
    let mut sums: BTreeMap<String, Vec<Sum>> = BTreeMap::new();
    let mut unchecked = 0;
    for name in state.tenant_names() {
        let tenant = state.tenant(&name).into_iter();
        for state in tenant.flat_map(|tenant| tenant.quota_states(now.max(state.at))) {
            if state.counted_since.is_some() {
                unchecked += 1;
                continue;
            }
            sums.entry(name.clone()).or_default().push(Sum {
                start: state.starts_at.unwrap_or(i64::MIN),
                state,
                posted: Amounts::default(),
                held: Amounts::default(),
            });
        }
    }
    for hold in state.open_holds() {
        let mine = sums.get_mut(&hold.tenant).into_iter().flatten();
        for sum in mine.filter(|sum| sum.is_of(&hold)) {
            sum.held.add(&Amounts {
                quantities: hold.quantities,
                cost: hold.amount.0,
            });
        }
    }
    drop(view);
    // A lifetime is read from the first entry on, if that is not too much.
    if as_of.seq > entries_max {
        for sums in sums.values_mut() {
            let before = sums.len();
            sums.retain(|sum| sum.start > i64::MIN);
            unchecked += wide(before - sums.len());
        }
    }
    add_up(shared, &mut sums, as_of, entries_max)?;
    let checked = sums.values().map(|sums| wide(sums.len())).sum();
    let all = sums
        .into_iter()
        .flat_map(|(tenant, sums)| sums.into_iter().map(move |sum| (tenant.clone(), sum)));
    let compared = all.map(|(tenant, sum)| {
        let meter: Meter = sum.state.quota.meter;
        LimitCompared {
            tenant,
            posted: sum.posted.get(meter),
            held: sum.held.get(meter),
            state: sum.state,
        }
    });
    let differ = |one: &LimitCompared| (one.posted, one.held) != (one.state.posted, one.state.held);
    Ok(LimitsCompared {
        as_of,
        checked,
        unchecked,
        differences: compared.filter(differ).collect(),
    })
}

fn add_up(
    shared: &Arc<Shared>,
    sums: &mut BTreeMap<String, Vec<Sum>>,
    as_of: AsOf,
    entries_max: u64,
) -> Result<(), QueryError> {
    let Some(from) = sums.values().flatten().map(|sum| sum.start).min() else {
        return Ok(());
    };
    let query = ChargeQuery {
        after: 0,
        until: Some(as_of.seq),
        from: Some(from),
        to: None,
        only: Only::default(),
    };
    let mut read = 0;
    let mut charges = Charges::new(Arc::clone(shared), query);
    while let Some(page) = charges.page(PAGE)? {
        read += wide(page.len());
        if read > entries_max {
            return Err(super::too_far(entries_max));
        }
        for entry in page {
            let mine = entry.tenant().and_then(|tenant| sums.get_mut(tenant));
            mine.into_iter().flatten().for_each(|sum| sum.take(&entry));
        }
    }
    Ok(())
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
