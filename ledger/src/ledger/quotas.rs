//! Quotas: how they stand, and what is counted for them.

use super::Ledger;
use crate::before;
use crate::command::{Act, Effect, ScopeBounds, Settings};
use crate::error::QueryError;
use crate::quota::QuotaState;
use crate::ticket::Ticket;

impl Ledger {
    /// A tenant's quotas and how they stand; `None` for an unknown tenant.
    pub fn quotas(&self, tenant: &str) -> Option<Vec<QuotaState>> {
        let now = self.inner.shared.clock.now_us();
        let view = self.inner.shared.fresh_view();
        let at = now.max(view.state.at);
        view.state
            .tenant(tenant)
            .map(|tenant| tenant.quota_states(at))
    }

    /// The effect of replacing a tenant's settings, by which each quota counts what its running
    /// window has seen from its beginning. Where runs of before a window end meanwhile, recording
    /// it is refused with [`crate::Rejection::Moved`]: ask again then.
    ///
    /// Reads the tenant's entries since the earliest of these windows began.
    ///
    /// # Errors
    /// Where view or journal cannot be read.
    pub fn counted(&self, settings: Settings) -> Result<Effect, QueryError> {
        before::counted(&self.inner.shared, settings)
    }

    /// Records how many scopes are counted from now on, if that is not what the journal says.
    pub(super) fn record_bounds(&self, recorded: ScopeBounds) {
        let wanted = self.inner.shared.options.scopes();
        if wanted == recorded {
            return;
        }
        let subject = "ledger/scopes".to_owned();
        let ScopeBounds { in_all, per_tenant } = wanted;
        let recorded = self.act(Act {
            actor: "server".to_owned(),
            action: "ledger.count_scopes".to_owned(),
            subject,
            tenant: None,
            reason: Some(format!("{in_all} in all, {per_tenant} of a tenant")),
            document: None,
            effect: Some(Effect::CountScopes(wanted)),
            expect: None,
        });
        let recorded = recorded.map(Ticket::wait);
        if !matches!(recorded, Ok(Ok(Ok(_)))) {
            tracing::warn!(?recorded, "the bounds of scopes stay as they were");
        }
    }
}
