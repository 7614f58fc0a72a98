//! What windows have seen before a quota names them: found from the entries, so that a new quota
//! counts from the beginning of its window.

use std::sync::Arc;

use crate::charges::Charges;
use crate::command::{Before, Effect, Settings};
use crate::entry::{Body, Entry};
use crate::error::QueryError;
use crate::query::{ChargeQuery, Only};
use crate::quota::{Quota, Scope};
use crate::shared::Shared;

/// Entries that are read at once.
const PAGE: usize = 10_000;

/// The settings, with what their windows have seen.
pub(crate) fn counted(shared: &Arc<Shared>, settings: Settings) -> Result<Effect, QueryError> {
    let now = shared.clock.now_us();
    let view = shared.fresh_view();
    let until = view.state.seq;
    let mut before = view.state.before(&settings, now.max(view.state.at));
    drop(view);
    let Some(from) = before.iter().map(|one| one.start).min() else {
        return Ok(Effect::Counted { settings, before });
    };
    let query = ChargeQuery {
        after: 0,
        until: Some(until),
        from: Some(from),
        to: None,
        only: Only {
            tenant: Some(settings.tenant.clone()),
            ..Only::default()
        },
    };
    let mut charges = Charges::new(Arc::clone(shared), query);
    while let Some(page) = charges.page(PAGE)? {
        for entry in page {
            before.iter_mut().for_each(|one| one.leave_out(&entry));
        }
    }
    Ok(Effect::Counted { settings, before })
}

impl Settings {
    /// All quotas, in force and to come.
    pub(crate) fn all_quotas(&self) -> impl Iterator<Item = &Quota> {
        let later = self.changes.iter().flat_map(|change| &change.quotas);
        self.quotas.iter().chain(later)
    }
}

impl Before {
    /// Whether a quota counts by it.
    pub(crate) fn is_of(&self, quota: &Quota) -> bool {
        (self.window, &self.timezone, &self.scope) == (quota.window, &quota.timezone, &quota.scope)
    }

    /// Leaves out what an entry of the tenant has posted, if that counts in the window.
    fn leave_out(&mut self, entry: &Entry) {
        if entry.counts_at() < self.start {
            return;
        }
        match &entry.body {
            Body::Settled(settled) => {
                let hold = &settled.hold;
                let mine = match &self.scope {
                    Scope::Tenant => true,
                    Scope::Project(name) => hold.project == *name,
                    Scope::Function(name) => hold.function.as_ref() == Some(name),
                    Scope::Key(name) => hold.key == *name,
                };
                if mine {
                    self.posted = self.posted.above(&settled.posted);
                    self.cost.0 = self.cost.0.saturating_sub(settled.charge.total.0);
                }
            }
            Body::Adjusted(adjusted) if self.scope == Scope::Tenant => {
                self.cost.0 = self.cost.0.saturating_sub(adjusted.amount.0);
            }
            Body::Adjusted(_) | Body::Acted(_) => {}
        }
    }
}
