//! What is read of a state: tenants, holds, cards, retry keys and subjects.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::idempotency::Opened;
use super::{Card, Located, Open, State, Subject, Tenant};
use crate::clock::Micros;
use crate::command::{Before, Settings};
use crate::entry::Hold;
use crate::id::Id;
use crate::record::{OpenHold, Run};

impl State {
    /// Where a run would be counted; `None` if its tenant is not known.
    pub(crate) fn locate(&self, run: &Run<'_>) -> Option<Located> {
        let (place, tenant) = self.find(run.whose.tenant)?;
        Some(Located {
            tenant: place,
            scopes: tenant.places(run),
        })
    }

    /// The tenant at a place.
    pub(crate) fn placed(&self, place: u32) -> Option<&Tenant> {
        self.tenants.get(usize::try_from(place).ok()?)
    }

    /// A tenant, and its place.
    pub(crate) fn find(&self, name: &str) -> Option<(u32, &Tenant)> {
        let place = *self.names.get(name)?;
        Some((place, self.placed(place)?))
    }

    /// A tenant.
    pub(crate) fn tenant(&self, name: &str) -> Option<&Tenant> {
        self.find(name).map(|(_, tenant)| tenant)
    }

    /// A tenant, to be put wrong.
    #[cfg(test)]
    pub(crate) fn tenant_mut(&mut self, name: &str) -> Option<&mut Tenant> {
        let place = usize::try_from(*self.names.get(name)?).ok()?;
        self.tenants.get_mut(place)
    }

    /// All tenants, by place.
    pub(crate) fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }

    /// How many tenants there are.
    pub(crate) fn tenants_len(&self) -> usize {
        self.tenants.len()
    }

    /// The names of all tenants, in order.
    pub(crate) fn tenant_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// An open hold.
    pub(crate) fn hold(&self, id: &Id) -> Option<&Arc<OpenHold>> {
        self.holds.get(id).map(|open| &open.hold)
    }

    /// An open hold, and its tenant.
    pub(crate) fn hold_of(&self, id: &Id) -> Option<(&Arc<OpenHold>, &Tenant)> {
        let open = self.holds.get(id)?;
        Some((&open.hold, self.placed(open.located.tenant)?))
    }

    /// Where an open hold is counted.
    pub(crate) fn located(&self, id: &Id) -> Option<Located> {
        self.holds.get(id).map(|open| open.located)
    }

    /// How many holds are open.
    pub(crate) fn holds_len(&self) -> usize {
        self.holds.len()
    }

    /// All open holds, oldest first.
    pub(crate) fn open_holds(&self) -> Vec<Arc<Hold>> {
        let mut open: Vec<&Open> = self.holds.values().collect();
        open.sort_unstable_by_key(|open| open.hold.opened_at);
        let whole = open.into_iter().filter_map(|open| open.hold.whole());
        whole.map(Arc::new).collect()
    }

    /// Whether an execution has an open hold.
    pub(crate) fn is_executing(&self, execution: &Id) -> bool {
        self.executions.contains(execution)
    }

    /// The card in force for a tenant at an instant.
    pub(crate) fn card_for(&self, tenant: &Tenant, at: Micros) -> Option<&Card> {
        let default = || self.cards.first().map(|first| first.card.id.as_str());
        let id = tenant.card.as_deref().or_else(default)?;
        self.card_at(id, at)
    }

    /// The card of an id that is in force at an instant.
    pub(crate) fn card_at(&self, id: &str, at: Micros) -> Option<&Card> {
        let in_force = self
            .cards
            .iter()
            .filter(|card| card.card.id == id && card.card.effective_from <= at);
        in_force.max_by_key(|card| (card.card.effective_from, card.seq))
    }

    /// The card that an entry recorded.
    pub(crate) fn card(&self, seq: u64) -> Option<&Card> {
        super::card_of(&self.cards, seq)
    }

    /// All cards, in the order of their entries.
    pub(crate) fn cards(&self) -> &[Card] {
        &self.cards
    }

    /// What a retry key has opened.
    pub(crate) fn opened(
        &self,
        tenant: &str,
        key: &[u8; 32],
        at: Micros,
        ttl: i64,
    ) -> Option<&Opened> {
        self.keys
            .get(tenant)
            .and_then(|keys| keys.get(key, at, ttl))
    }

    /// What the windows around `at` that a tenant's quotas name, and that are not counted from
    /// their beginning, have seen in all; what counts in them is still to be left out.
    pub(crate) fn before(&self, settings: &Settings, at: Micros) -> Vec<Before> {
        let Some((place, tenant)) = self.find(&settings.tenant) else {
            return Vec::new();
        };
        let mut found: Vec<Before> = Vec::new();
        for quota in settings.all_quotas() {
            if found.iter().any(|one| one.is_of(quota)) {
                continue;
            }
            found.extend(tenant.before(quota, at));
        }
        let mut open = BTreeMap::new();
        for one in &mut found {
            let of = |start| self.opened_before(place, start);
            one.open = *open.entry(one.start).or_insert_with_key(|start| of(*start));
        }
        found
    }

    /// Whether that still is all that they have seen, at `at`.
    pub(crate) fn still_before(&self, settings: &Settings, before: &[Before], at: Micros) -> bool {
        let now = self.before(settings, at);
        let same = |(now, then): (&Before, &Before)| {
            let more = then.posted.above(&now.posted);
            let found = Before {
                posted: now.posted,
                cost: now.cost,
                ..then.clone()
            };
            *now == found && more.is_zero()
        };
        now.len() == before.len() && now.iter().zip(before).all(same)
    }

    /// How many of a tenant's open holds were opened before an instant.
    fn opened_before(&self, tenant: u32, at: Micros) -> u64 {
        let mine = |open: &&Open| open.located.tenant == tenant && open.hold.opened_at < at;
        u64::try_from(self.holds.values().filter(mine).count()).unwrap_or(u64::MAX)
    }

    /// How many retry keys of a tenant are kept, and when the oldest ends.
    pub(crate) fn keys_kept(&self, tenant: &str, ttl: i64) -> (usize, Option<Micros>) {
        let keys = self.keys.get(tenant);
        keys.map_or((0, None), |keys| (keys.len(), keys.oldest_ends(ttl)))
    }

    /// A subject of acts.
    pub(crate) fn subject(&self, name: &str) -> Option<&Subject> {
        self.subjects.get(name)
    }

    /// The subjects whose names begin with `prefix`, in order.
    pub(crate) fn subjects(&self, prefix: &str) -> impl Iterator<Item = (&String, &Subject)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let from = self.subjects.range::<str, _>(from);
        from.take_while(move |(name, _)| name.starts_with(prefix))
    }

    /// How many subjects are kept, and the bytes of their documents.
    pub(crate) fn subjects_kept(&self) -> (usize, u64) {
        (self.subjects.len(), self.documents_bytes)
    }

    /// Whether nothing is held anywhere; what must be so once the last hold has ended.
    pub(crate) fn idle(&self) -> bool {
        self.holds.is_empty() && self.tenants.iter().all(Tenant::idle)
    }
}
