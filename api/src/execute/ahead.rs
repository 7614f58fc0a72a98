//! Step 3, beside the hold: while that becomes durable, a sandbox that stands ready is taken and
//! the files go into it. Only the start waits for the hold.
//!
//! Who is refused must not use up what stands ready for others: a tenant has one taken ahead at a
//! time, and none after a refusal until its next hold.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use runtime::Sandbox;

use super::resolve::Plan;
use super::{Mode, run};
use crate::app::App;

/// Tenants of whom a sandbox may be taken ahead.
#[derive(Debug, Default)]
pub(crate) struct Granted(Mutex<HashSet<String>>);

/// Tenants that are known at most; more take theirs after their holds.
const TENANTS_MAX: usize = 65_536;

impl Granted {
    fn tenants(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one may be taken for this tenant now; not again before [`Granted::put`].
    fn take(&self, tenant: &str) -> bool {
        self.tenants().remove(tenant)
    }

    /// A hold of this tenant was granted.
    pub(super) fn put(&self, tenant: &str) {
        let mut tenants = self.tenants();
        if tenants.len() < TENANTS_MAX && !tenants.contains(tenant) {
            tenants.insert(tenant.to_owned());
        }
    }
}

/// A sandbox with the plan's files in it, if one may be taken now and stands ready. Dropping it
/// ends it.
pub(super) async fn take(app: &App, plan: &Plan) -> Option<Sandbox> {
    // An asynchronous execution may wait for its hold for long.
    if plan.mode == Mode::Async || !app.granted.take(&plan.record.tenant) {
        return None;
    }
    let spec = run::spec(app, plan, plan.limits);
    let mut sandbox = app.runtime.open_ready(&spec).await?;
    // What is wrong with the files is told by the walk, after the hold.
    sandbox.put(&plan.files).await.ok()?;
    Some(sandbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_taken_at_a_time_and_none_after_a_refusal() {
        let granted = Granted::default();
        assert!(!granted.take("acme"), "nothing was granted yet");
        granted.put("acme");
        assert!(!granted.take("other"));
        assert!(granted.take("acme"));
        assert!(!granted.take("acme"), "one is on its way, or was refused");
        granted.put("acme");
        assert!(granted.take("acme"));
    }
}
