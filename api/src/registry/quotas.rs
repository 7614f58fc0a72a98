//! A tenant's own quotas, and what they change to at instants to come.
//!
//! One document has all of it, `quotas/NAME`. The ledger is given every list with its instant and
//! decides by its own time which one is in force, so that no act that crosses that instant can
//! bring an old limit back.

use std::sync::Arc;

use ledger::Quota;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::documents::read;
use super::{Actor, Registry, Subject, Tenant, budgets};
use crate::error::ApiError;
use crate::ids::{self, Kind};
use crate::json::{Faults, Object};
use crate::shape::{self, QuotaBody};

/// Quotas that take the place of a tenant's own at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) id: [u8; 16],
    pub(crate) effective_us: i64,
    pub(crate) quotas: Vec<Quota>,
    /// The key that asked for it, and why.
    pub(crate) author: String,
    pub(crate) reason: String,
    pub(crate) made_us: i64,
}

/// The document of a tenant that has changes; one without them is the bare list.
#[derive(Serialize)]
struct Document {
    quotas: Vec<QuotaBody>,
    changes: Vec<Stored>,
}

#[derive(Serialize)]
struct Stored {
    id: String,
    effective_us: i64,
    quotas: Vec<QuotaBody>,
    author: String,
    reason: String,
    made_us: i64,
}

#[derive(Default, Deserialize)]
struct Read {
    quotas: Vec<Map<String, Value>>,
    changes: Vec<ReadChange>,
}

#[derive(Deserialize)]
struct ReadChange {
    id: String,
    effective_us: i64,
    quotas: Vec<Map<String, Value>>,
    author: String,
    reason: String,
    made_us: i64,
}

/// The bytes of a tenant's own quotas and their changes.
pub(super) fn bytes(quotas: &[Quota], changes: &[Change]) -> Vec<u8> {
    let bodies = |quotas: &[Quota]| quotas.iter().map(shape::quota_body).collect::<Vec<_>>();
    if changes.is_empty() {
        return super::documents::bytes(&bodies(quotas));
    }
    let stored = |change: &Change| Stored {
        id: ids::text(Kind::Change, &change.id),
        effective_us: change.effective_us,
        quotas: bodies(&change.quotas),
        author: change.author.clone(),
        reason: change.reason.clone(),
        made_us: change.made_us,
    };
    super::documents::bytes(&Document {
        quotas: bodies(quotas),
        changes: changes.iter().map(stored).collect(),
    })
}

/// What [`bytes`] has written.
pub(super) fn parse(subject: &str, bytes: &[u8]) -> (Vec<Quota>, Vec<Change>) {
    let Read { quotas, changes } = if bytes.first() == Some(&b'[') {
        Read {
            quotas: read(subject, bytes).unwrap_or_default(),
            changes: Vec::new(),
        }
    } else {
        read(subject, bytes).unwrap_or_default()
    };
    let change = |change: ReadChange| {
        Some(Change {
            id: ids::parse(Kind::Change, &change.id)?,
            effective_us: change.effective_us,
            quotas: list(subject, change.quotas),
            author: change.author,
            reason: change.reason,
            made_us: change.made_us,
        })
    };
    let changes = changes.into_iter().filter_map(change).collect();
    (list(subject, quotas), changes)
}

fn list(subject: &str, maps: Vec<Map<String, Value>>) -> Vec<Quota> {
    let mut faults = Faults::default();
    let mut quotas = Vec::with_capacity(maps.len());
    for map in maps {
        quotas.extend(shape::read_quota(&mut Object::new(map, &mut faults)));
    }
    for fault in faults.into_vec() {
        tracing::error!(subject, fault = fault.detail, "a quota cannot be read");
    }
    quotas
}

impl Tenant {
    /// The changes that are still to come.
    pub(crate) fn changes_to_come(&self, now_us: i64) -> impl Iterator<Item = &Change> {
        let come = move |change: &&Change| change.effective_us > now_us;
        self.changes.iter().filter(come)
    }

    /// Makes the last change that has come the quotas themselves.
    fn take_over(&mut self, now_us: i64) {
        let come = self.changes.iter();
        let come = come
            .take_while(|change| change.effective_us <= now_us)
            .count();
        if let Some(last) = self.changes.drain(..come).next_back() {
            self.quotas = last.quotas;
        }
    }
}

impl Registry {
    /// Replaces a tenant's own quotas, at once. Changes to come stay.
    pub(crate) async fn set_quotas(
        &self,
        actor: &Actor,
        name: &str,
        quotas: Vec<Quota>,
        expect: Option<u64>,
    ) -> Result<Arc<Tenant>, ApiError> {
        let _acts = self.acts.lock().await;
        let mut tenant = self.known(name)?;
        tenant.take_over(self.clock.wall_us());
        tenant.quotas = quotas;
        self.put(actor, ("quotas.set", Subject::Quotas), tenant, expect)
            .await
    }

    /// Has a tenant's own quotas replaced at an instant to come, for a reason.
    pub(crate) async fn change_quotas(
        &self,
        actor: &Actor,
        name: &str,
        (effective_us, quotas): (i64, Vec<Quota>),
        expect: Option<u64>,
    ) -> Result<(Arc<Tenant>, [u8; 16]), ApiError> {
        let _acts = self.acts.lock().await;
        let mut tenant = self.known(name)?;
        let now_us = self.clock.wall_us();
        if effective_us <= now_us {
            return Err(ApiError::invalid("/effective_at", "must lie in the future"));
        }
        tenant.take_over(now_us);
        let at = tenant.changes.iter();
        let at = at
            .take_while(|change| change.effective_us < effective_us)
            .count();
        if tenant
            .changes
            .get(at)
            .is_some_and(|change| change.effective_us == effective_us)
        {
            let detail = "there is a change for that instant: cancel it first".to_owned();
            return Err(ApiError::Conflict { detail });
        }
        let id = ids::new(&self.clock)?;
        let change = Change {
            id,
            effective_us,
            quotas,
            author: actor.key.clone(),
            reason: actor.reason.clone().unwrap_or_default(),
            made_us: now_us,
        };
        tenant.changes.insert(at, change);
        let what = ("quotas.change", Subject::Quotas);
        Ok((self.put(actor, what, tenant, expect).await?, id))
    }

    /// Cancels a change of quotas that is still to come.
    pub(crate) async fn cancel_change(
        &self,
        actor: &Actor,
        name: &str,
        id: &[u8; 16],
        expect: Option<u64>,
    ) -> Result<Arc<Tenant>, ApiError> {
        let _acts = self.acts.lock().await;
        let mut tenant = self.known(name)?;
        let missing = ApiError::NotFound {
            what: "change of quotas",
        };
        let found = tenant.changes.iter().position(|change| change.id == *id);
        let found = found.ok_or(missing)?;
        let change = tenant.changes.remove(found);
        if change.effective_us <= self.clock.wall_us() {
            let detail = "it is in force: set the quotas anew instead".to_owned();
            return Err(ApiError::Conflict { detail });
        }
        let what = ("quotas.cancel", Subject::Quotas);
        self.put(actor, what, tenant, expect).await
    }

    /// All that the ledger counts for a tenant while `own` are its quotas: these over its tier's,
    /// and what its budgets count besides.
    pub(super) fn counted_quotas(&self, tenant: &Tenant, own: &[Quota]) -> Vec<Quota> {
        let mut quotas = self.effective_quotas(own);
        let more = budgets::counted(&quotas, &tenant.budgets).cloned();
        let more: Vec<Quota> = more.collect();
        quotas.extend(more);
        quotas
    }

    /// A tenant's own quotas over its tier's: a meter that its own name is not the tier's any more.
    fn effective_quotas(&self, own: &[Quota]) -> Vec<Quota> {
        let named = |quota: &Quota| own.iter().any(|mine| mine.meter == quota.meter);
        let tier = self.tier.quotas.iter().filter(|quota| !named(quota));
        own.iter().chain(tier).cloned().collect()
    }

    /// Where a quota in force comes from; `None` for what is counted for a budget.
    pub(crate) fn quota_source(&self, tenant: &Tenant, quota: &Quota) -> Option<&'static str> {
        let later = tenant.changes.iter().map(|change| &change.quotas);
        if std::iter::once(&tenant.quotas)
            .chain(later)
            .any(|own| own.contains(quota))
        {
            return Some("tenant");
        }
        self.tier.quotas.contains(quota).then_some("tier")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{Meter, Mode, Scope, Window};

    fn quota(limit: u128) -> Quota {
        Quota {
            scope: Scope::Project("web".to_owned()),
            meter: Meter::Executions,
            window: Window::Day,
            timezone: "Asia/Tokyo".to_owned(),
            limit,
            mode: Mode::Hard,
            overdraft: 1,
        }
    }

    #[test]
    fn documents_read_back_as_written_with_changes_and_without() {
        let change = |number, effective_us| Change {
            id: [number; 16],
            effective_us,
            quotas: vec![quota(effective_us.unsigned_abs().into())],
            author: "key_1".to_owned(),
            reason: "a \"reason\"".to_owned(),
            made_us: 3,
        };
        let changes = [change(1, 5), change(2, 9)];
        for changes in [&changes[..], &[]] {
            let stored = bytes(&[quota(1)], changes);
            assert_eq!(
                parse("quotas/acme", &stored),
                (vec![quota(1)], changes.to_vec())
            );
        }
    }
}
