//! The state that decisions are made from, and how records change it.
//!
//! The writer, the view's replica, recovery and the audit all build it by the same
//! [`State::apply`]: a record says what was decided, so applying decides nothing.

mod amounts;
mod billing;
mod books;
mod credit;
mod idempotency;
mod scope;
mod tally;
mod tenant;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use self::amounts::Amounts;
pub(crate) use self::billing::Billing;
pub(crate) use self::books::amounts;
pub(crate) use self::credit::Credit;
pub(crate) use self::idempotency::Opened;
pub(crate) use self::tenant::{Places, Rule, Tenant};
use crate::adjust::Adjustments;
use crate::clock::Micros;
use crate::command::{Effect, Idempotency};
use crate::entry::{Acted, Body, Entry, Hold};
use crate::hash::{Map, Set};
use crate::id::Id;
use crate::options::Options;
use crate::period::{Closed, Period};
use crate::quantity::Quantities;
use crate::rate::RateCard;
use crate::record::{OpenHold, Posting, Record};

/// The bounds that applying keeps by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounds {
    /// See [`Options::scopes_max`].
    pub(crate) scopes_max: u64,
    /// See [`Options::scopes_per_tenant_max`].
    pub(crate) scopes_per_tenant_max: u64,
    /// See [`Options::idempotency_ttl_s`].
    pub(crate) idempotency_ttl_us: i64,
}

impl Bounds {
    pub(crate) fn of(options: &Options) -> Self {
        let ttl_us = i64::try_from(options.idempotency_ttl_s).unwrap_or(i64::MAX);
        Self {
            scopes_max: options.scopes_max,
            scopes_per_tenant_max: options.scopes_per_tenant_max,
            idempotency_ttl_us: ttl_us.saturating_mul(1_000_000),
        }
    }

    /// For an audit, which counts everything and looks up no retry keys.
    pub(crate) fn audit() -> Self {
        Self {
            scopes_max: u64::MAX,
            scopes_per_tenant_max: u64::MAX,
            idempotency_ttl_us: 0,
        }
    }
}

/// An open hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Open {
    /// As it was opened.
    pub(crate) hold: Arc<OpenHold>,
    /// Place of its tenant.
    tenant: u32,
    /// Which of the tenant's counters count it.
    places: Places,
}

/// What acts were done to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Subject {
    /// Entry of the last act.
    pub(crate) seq: u64,
    /// When it was recorded.
    pub(crate) at: Micros,
    /// The latest document, if any act had one.
    pub(crate) document: Option<Arc<[u8]>>,
}

/// A recorded rate card.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Card {
    /// The entry that recorded it.
    pub(crate) seq: u64,
    /// The card.
    pub(crate) card: Arc<RateCard>,
}

/// Everything that decisions depend on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// The last command.
    pub(crate) lsn: u64,
    /// The last entry.
    pub(crate) seq: u64,
    /// The time of the last command.
    pub(crate) at: Micros,
    tenants: Vec<Tenant>,
    /// Where each tenant is.
    names: Map<String, u32>,
    holds: Map<Id, Open>,
    executions: Set<Id>,
    keys: Map<String, idempotency::Keys>,
    cards: Vec<Card>,
    subjects: BTreeMap<String, Subject>,
    documents_bytes: u64,
    scopes: u64,
    /// When the first command was decided.
    since: Option<Micros>,
    closed: BTreeMap<Period, Closed>,
    /// What was proposed, approved and reversed.
    pub(crate) adjustments: Adjustments,
}

/// What a hold sets aside.
pub(crate) fn held(hold: &OpenHold) -> Amounts {
    Amounts {
        quantities: hold.quantities,
        cost: hold.amount.0,
    }
}

/// What a settlement posts.
fn posted(posting: &Posting) -> Amounts {
    Amounts {
        quantities: posting.posted,
        cost: posting.total.0,
    }
}

impl State {
    /// Takes in the record of command `lsn`. The message says why it cannot follow on this state:
    /// then the record, or this code, is wrong, and the state must not be used any more.
    pub(crate) fn apply(
        &mut self,
        lsn: u64,
        record: &Record,
        bounds: &Bounds,
    ) -> Result<(), String> {
        if lsn != self.lsn + 1 {
            return Err(format!("command {lsn} follows on command {}", self.lsn));
        }
        let at = record.at();
        if at <= self.at && self.lsn > 0 {
            return Err(format!("its time {at} is not after {}", self.at));
        }
        if let Some(seq) = record.seq().filter(|seq| *seq != self.seq + 1) {
            return Err(format!("entry {seq} follows on entry {}", self.seq));
        }
        match record {
            Record::Hold(hold) => self.open(hold, bounds)?,
            Record::Release(release) => {
                let open = self.end(&release.hold, at, &Amounts::default())?;
                self.bill(&open, &Quantities::default())?;
            }
            Record::Settled(posting) => {
                let open = self.end(&posting.hold.id, at, &posted(posting))?;
                if !Arc::ptr_eq(&open.hold, &posting.hold) && open.hold != posting.hold {
                    return Err("the settlement's hold is not the one that was opened".to_owned());
                }
                self.bill(&open, &posting.posted)?.take(&posting.funded)?;
            }
            Record::Entered(entry) => self.enter(entry)?,
        }
        self.seq = record.seq().unwrap_or(self.seq);
        self.since.get_or_insert(at);
        self.lsn = lsn;
        self.at = at;
        Ok(())
    }

    fn enter(&mut self, entry: &Entry) -> Result<(), String> {
        match &entry.body {
            Body::Settled(_) => Err("a settlement is taken in as what it posts".to_owned()),
            Body::Acted(acted) => self.act(entry, acted),
            Body::Adjusted(adjusted) => self.adjust(entry, adjusted),
        }
    }

    /// Adds what a hold has ended with to its month; answers the tenant's credit.
    fn bill(&mut self, open: &Open, posted: &Quantities) -> Result<&mut Credit, String> {
        let hold = &open.hold;
        let card = self.card(hold.rate_card).map(|card| Arc::clone(&card.card));
        let card = card.ok_or("its rate card is not known")?;
        let tenant = Self::tenant_at(&mut self.tenants, open.tenant);
        let tenant = tenant.ok_or("its tenant is not known")?;
        let month = tenant.month(hold.opened_at);
        tenant.billing.end(month, posted, &card);
        Ok(&mut tenant.credit)
    }

    fn open(&mut self, hold: &Arc<OpenHold>, bounds: &Bounds) -> Result<(), String> {
        let at = hold.opened_at;
        let run = hold.run().ok_or("the hold's names cannot be read")?;
        let unknown = || format!("tenant `{}` is not known", run.whose.tenant);
        let place = self.names.get(run.whose.tenant);
        let place = place.copied().ok_or_else(unknown)?;
        let card = self.card(hold.rate_card).map(|card| Arc::clone(&card.card));
        let tenant = Self::tenant_at(&mut self.tenants, place).ok_or_else(unknown)?;
        if self.holds.contains_key(&hold.id) || !self.executions.insert(hold.execution) {
            return Err("the hold or its execution is open already".to_owned());
        }
        let counted = tenant.scopes();
        let room = bounds.scopes_per_tenant_max.saturating_sub(counted);
        let room = room.min(bounds.scopes_max.saturating_sub(self.scopes));
        let places = tenant.count_scopes(&run, at, room);
        self.scopes += tenant.scopes() - counted;
        let amounts = held(hold);
        tenant.on_places(places, at, |counters| counters.hold(&amounts));
        if let Some(card) = card {
            let month = tenant.month(at);
            tenant.billing.open(month, &card);
        }
        tenant.open += 1;
        if let Some(key) = hold.idempotency {
            self.remember(key, run.whose.tenant, hold, bounds);
        }
        self.holds.insert(
            hold.id,
            Open {
                hold: Arc::clone(hold),
                tenant: place,
                places,
            },
        );
        Ok(())
    }

    fn tenant_at(tenants: &mut [Tenant], place: u32) -> Option<&mut Tenant> {
        tenants.get_mut(usize::try_from(place).ok()?)
    }

    fn remember(&mut self, key: Idempotency, tenant: &str, hold: &OpenHold, bounds: &Bounds) {
        if bounds.idempotency_ttl_us > 0 {
            let keys = self.keys.entry(tenant.to_owned()).or_default();
            keys.insert(
                key,
                hold.execution,
                hold.opened_at,
                bounds.idempotency_ttl_us,
            );
        }
    }

    fn end(&mut self, id: &Id, at: Micros, posted: &Amounts) -> Result<Open, String> {
        let open = self
            .holds
            .remove(id)
            .ok_or_else(|| format!("hold {id} is not open"))?;
        let hold = &open.hold;
        self.executions.remove(&hold.execution);
        let tenant = Self::tenant_at(&mut self.tenants, open.tenant)
            .ok_or("the hold's tenant is not known")?;
        let amounts = held(hold);
        tenant.on_places(open.places, at, |counters| {
            counters.end(hold.opened_at, &amounts, posted);
        });
        tenant.open = tenant.open.saturating_sub(1);
        Ok(open)
    }

    fn act(&mut self, entry: &Entry, acted: &Acted) -> Result<(), String> {
        match &acted.effect {
            None => {}
            Some(Effect::RateCard(card)) => {
                self.cards.push(Card {
                    seq: entry.seq,
                    card: Arc::new(card.clone()),
                });
            }
            Some(Effect::Tenant {
                tenant,
                suspended,
                concurrency,
                quotas,
            }) => {
                let place = self.tenant_place(tenant);
                let open = self.holds.values().filter(|open| open.tenant == place);
                let open = open.map(|open| (open.hold.as_ref(), open.places));
                let tenant = Self::tenant_at(&mut self.tenants, place)
                    .ok_or_else(|| format!("tenant `{tenant}` is not known"))?;
                tenant.suspended = *suspended;
                tenant.concurrency = *concurrency;
                let counted = tenant.scopes();
                tenant.set_quotas(quotas, entry.at, open)?;
                self.scopes += tenant.scopes() - counted;
            }
            Some(Effect::Terms {
                tenant,
                rate_card,
                prepaid,
            }) => {
                let tenant = self.known(tenant)?;
                tenant.card.clone_from(rate_card);
                tenant.credit.prepaid = *prepaid;
            }
            Some(Effect::Grant(grant)) => {
                let tenant = self.known(&grant.tenant)?;
                tenant.credit.add(entry.seq, grant);
            }
            Some(Effect::VoidGrant { tenant, grant }) => {
                let voided = self.known(tenant)?.credit.void(*grant);
                voided.ok_or_else(|| format!("grant {grant} has nothing left"))?;
            }
            Some(effect) => self.keep_books(entry, acted, effect)?,
        }
        self.note(entry, acted);
        Ok(())
    }

    fn known(&mut self, name: &str) -> Result<&mut Tenant, String> {
        let unknown = || format!("tenant `{name}` is not known");
        let place = self.names.get(name).copied().ok_or_else(unknown)?;
        Self::tenant_at(&mut self.tenants, place).ok_or_else(unknown)
    }

    /// The place of a tenant, which is made if it is new.
    fn tenant_place(&mut self, name: &str) -> u32 {
        if let Some(place) = self.names.get(name) {
            return *place;
        }
        let place = u32::try_from(self.tenants.len()).unwrap_or(u32::MAX);
        self.tenants.push(Tenant::new());
        self.names.insert(name.to_owned(), place);
        place
    }

    fn note(&mut self, entry: &Entry, acted: &Acted) {
        let bytes = |document: &[u8]| u64::try_from(document.len()).unwrap_or(u64::MAX);
        let old = self
            .subjects
            .remove(&acted.subject)
            .and_then(|subject| subject.document);
        self.documents_bytes -= old.as_deref().map_or(0, bytes);
        let document = match acted.document.as_deref() {
            Some([]) => return,
            Some(new) => Some(Arc::from(new)),
            None => old,
        };
        self.documents_bytes += document.as_deref().map_or(0, bytes);
        let subject = Subject {
            seq: entry.seq,
            at: entry.at,
            document,
        };
        self.subjects.insert(acted.subject.clone(), subject);
    }

    /// A tenant.
    pub(crate) fn tenant(&self, name: &str) -> Option<&Tenant> {
        let place = self.names.get(name)?;
        self.tenants.get(usize::try_from(*place).ok()?)
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
        let tenant = self.tenants.get(usize::try_from(open.tenant).ok()?)?;
        Some((&open.hold, tenant))
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
        let place = self
            .cards
            .binary_search_by_key(&seq, |card| card.seq)
            .ok()?;
        self.cards.get(place)
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
