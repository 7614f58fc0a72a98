//! The state that decisions are made from, and how records change it.
//!
//! The writer, the view's replica, recovery and the audit all build it by the same
//! [`State::apply`]: a record says what was decided, so applying decides nothing.

mod amounts;
mod billing;
mod books;
mod credit;
mod idempotency;
mod known;
mod lookup;
mod near;
mod numbers;
mod rules;
mod scope;
mod starts;
mod tally;
mod tenant;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use self::amounts::Amounts;
pub(crate) use self::billing::Billing;
pub(crate) use self::books::amounts;
pub(crate) use self::credit::Credit;
pub(crate) use self::known::{Known, Sought};
pub(crate) use self::near::{AHEAD, Kind, Near, coming};
pub(crate) use self::numbers::Numbers;
pub(crate) use self::rules::Limit;
use self::tenant::all_counted;
pub(crate) use self::tenant::{Places, Stands, Tenant};
use crate::adjust::Adjustments;
use crate::clock::Micros;
use crate::command::{Before, Effect, Idempotency, ScopeBounds, Settings};
use crate::entry::{Acted, Body, Entry};
use crate::hash::{Map, Set};
use crate::id::Id;
use crate::options::Options;
use crate::period::{Closed, Period};
use crate::rate::RateCard;
use crate::record::{OpenHold, Posting, Record, Run};

/// The bounds that applying keeps by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounds {
    /// See [`Options::idempotency_ttl_s`].
    pub(crate) idempotency_ttl_us: i64,
}

impl Bounds {
    pub(crate) fn of(options: &Options) -> Self {
        let ttl_us = i64::try_from(options.idempotency_ttl_s).unwrap_or(i64::MAX);
        Self {
            idempotency_ttl_us: ttl_us.saturating_mul(1_000_000),
        }
    }

    /// For an audit, which looks up no retry keys.
    pub(crate) fn audit() -> Self {
        Self {
            idempotency_ttl_us: 0,
        }
    }
}

/// Where a run is counted. Places are given for good, in the order of the records: all states made
/// from the same records have the same ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Located {
    /// Place of its tenant.
    pub(crate) tenant: u32,
    /// Which of the tenant's counters count it.
    pub(crate) scopes: Places,
}

impl Located {
    /// Whether all scopes of a run are counted: then it is counted here for good.
    pub(crate) fn is_whole(&self) -> bool {
        all_counted(self.scopes)
    }
}

/// An open hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Open {
    /// As it was opened.
    pub(crate) hold: Arc<OpenHold>,
    /// Where it is counted.
    pub(crate) located: Located,
}

/// What counts of a hold for its tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Booked {
    /// The worst case, which is set aside.
    pub(crate) held: Amounts,
    /// Entry of the rate card that prices it.
    pub(crate) rate_card: u64,
    /// When it was opened.
    pub(crate) at: Micros,
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
    /// How many may be.
    pub(crate) bounds: ScopeBounds,
    /// When the first command was decided.
    since: Option<Micros>,
    closed: BTreeMap<Period, Closed>,
    /// What was proposed, approved and reversed.
    pub(crate) adjustments: Adjustments,
}

/// What is wrong with a settlement that carries another hold than the open one of that id.
pub(crate) const ANOTHER_HOLD: &str = "the settlement's hold is not the one that was opened";

impl From<&OpenHold> for Booked {
    fn from(hold: &OpenHold) -> Self {
        Self {
            held: held(hold),
            rate_card: hold.rate_card,
            at: hold.opened_at,
        }
    }
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

/// The card that an entry recorded.
fn card_of(cards: &[Card], seq: u64) -> Option<&Card> {
    let place = cards.binary_search_by_key(&seq, |card| card.seq).ok()?;
    cards.get(place)
}

impl State {
    /// Takes in the record of command `lsn`. The message says why it cannot follow on this state:
    /// then the record, or this code, is wrong, and the state must not be used any more.
    ///
    /// Says where a hold is counted. Whoever has heard it from a state with the same past gives it
    /// as `located`, which spares looking up the names.
    pub(crate) fn apply(
        &mut self,
        lsn: u64,
        record: &Record,
        located: Option<Located>,
        bounds: &Bounds,
    ) -> Result<Option<Located>, String> {
        let at = record.at();
        let last = Numbers {
            lsn: self.lsn,
            seq: self.seq,
            at: self.at,
        };
        let next = last.next(lsn, at, record.seq())?;
        let located = match record {
            Record::Hold(hold) => Some(self.open(hold, located, bounds)?),
            Record::Release(release) => {
                let open = self.strike(&release.hold)?;
                let booked = open.hold.as_ref().into();
                self.end(&booked, open.located, at, &Amounts::default())?;
                Some(open.located)
            }
            Record::Settled(posting) => {
                let open = self.strike(&posting.hold.id)?;
                if !Arc::ptr_eq(&open.hold, &posting.hold) && open.hold != posting.hold {
                    return Err(ANOTHER_HOLD.to_owned());
                }
                let booked = open.hold.as_ref().into();
                let credit = self.end(&booked, open.located, at, &posted(posting))?;
                credit.take(&posting.funded)?;
                Some(open.located)
            }
            Record::Entered(entry) => {
                self.enter(entry)?;
                None
            }
        };
        (self.lsn, self.seq, self.at) = (next.lsn, next.seq, next.at);
        self.since.get_or_insert(at);
        Ok(located)
    }

    fn enter(&mut self, entry: &Entry) -> Result<(), String> {
        match &entry.body {
            Body::Settled(_) => Err("a settlement is taken in as what it posts".to_owned()),
            Body::Acted(acted) => self.act(entry, acted),
            Body::Adjusted(adjusted) => self.adjust(entry, adjusted),
        }
    }

    fn open(
        &mut self,
        hold: &Arc<OpenHold>,
        located: Option<Located>,
        bounds: &Bounds,
    ) -> Result<Located, String> {
        let located = match located.filter(|located| self.counts(*located)) {
            Some(located) => located,
            None => {
                let run = hold.run().ok_or("the hold's names cannot be read")?;
                self.count(&run, hold.opened_at)?
            }
        };
        self.enlist(hold, located)?;
        let key = hold.key().ok_or("the hold's key cannot be read")?;
        self.begin(&hold.as_ref().into(), located, key)?;
        if let Some(key) = hold.idempotency {
            self.remember(key, hold, bounds)?;
        }
        Ok(located)
    }

    /// Puts a hold among the open ones.
    pub(crate) fn enlist(&mut self, hold: &Arc<OpenHold>, located: Located) -> Result<(), String> {
        let is_new = self.executions.insert(hold.execution);
        let open = Open {
            hold: Arc::clone(hold),
            located,
        };
        if self.holds.insert(hold.id, open).is_some() || !is_new {
            return Err("the hold or its execution is open already".to_owned());
        }
        Ok(())
    }

    /// Counts a hold through `key` for its tenant.
    pub(crate) fn begin(
        &mut self,
        hold: &Booked,
        located: Located,
        key: &[u8],
    ) -> Result<(), String> {
        let tenant = Self::tenant_at(&mut self.tenants, located.tenant);
        let tenant = tenant.ok_or("the hold's tenant is not known")?;
        tenant.hold(located.scopes, hold.at, &hold.held);
        if let Some(card) = card_of(&self.cards, hold.rate_card) {
            let month = tenant.month(hold.at);
            tenant.billing.open(month, &card.card);
        }
        tenant.open += 1;
        tenant.starts.add(key, hold.at);
        Ok(())
    }

    /// Whether a run can be counted there: it has been made here too.
    fn counts(&self, located: Located) -> bool {
        let tenant = self.placed(located.tenant);
        tenant.is_some_and(|tenant| tenant.counts(located.scopes))
    }

    /// Where a hold is counted; scopes that are not yet, are from now on, within the bounds.
    pub(crate) fn count(&mut self, run: &Run<'_>, at: Micros) -> Result<Located, String> {
        let unknown = || format!("tenant `{}` is not known", run.whose.tenant);
        let place = self.names.get(run.whose.tenant);
        let place = place.copied().ok_or_else(unknown)?;
        let tenant = Self::tenant_at(&mut self.tenants, place).ok_or_else(unknown)?;
        let counted = tenant.scopes();
        let room = self.bounds.per_tenant.saturating_sub(counted);
        let room = room.min(self.bounds.in_all.saturating_sub(self.scopes));
        let scopes = tenant.count_scopes(run, at, room);
        self.scopes += tenant.scopes() - counted;
        Ok(Located {
            tenant: place,
            scopes,
        })
    }

    fn tenant_at(tenants: &mut [Tenant], place: u32) -> Option<&mut Tenant> {
        tenants.get_mut(usize::try_from(place).ok()?)
    }

    fn remember(
        &mut self,
        key: Idempotency,
        hold: &OpenHold,
        bounds: &Bounds,
    ) -> Result<(), String> {
        let (ttl, at) = (bounds.idempotency_ttl_us, hold.opened_at);
        if ttl > 0 {
            let whose = hold.whose().ok_or("the hold's names cannot be read")?;
            let keys = self.keys.entry(whose.tenant.to_owned()).or_default();
            keys.insert(key, hold.execution, at, ttl);
        }
        Ok(())
    }

    /// Takes a hold from among the open ones.
    pub(crate) fn strike(&mut self, id: &Id) -> Result<Open, String> {
        let open = self.holds.remove(id);
        let open = open.ok_or_else(|| format!("hold {id} is not open"))?;
        self.executions.remove(&open.hold.execution);
        Ok(open)
    }

    /// Counts the end of a hold, and what is posted for it, for its tenant; answers the tenant's
    /// credit.
    pub(crate) fn end(
        &mut self,
        hold: &Booked,
        located: Located,
        at: Micros,
        posted: &Amounts,
    ) -> Result<&mut Credit, String> {
        let tenant = Self::tenant_at(&mut self.tenants, located.tenant);
        let tenant = tenant.ok_or("the hold's tenant is not known")?;
        tenant.on_places(located.scopes, at, |counters| {
            counters.end(hold.at, &hold.held, posted);
        });
        tenant.open = tenant.open.saturating_sub(1);
        let card = card_of(&self.cards, hold.rate_card).ok_or("its rate card is not known")?;
        let month = tenant.month(hold.at);
        tenant.billing.end(month, &posted.quantities, &card.card);
        Ok(&mut tenant.credit)
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
                let settings = Settings::plain(tenant, *suspended, *concurrency, quotas);
                self.take_settings(&settings, &[], entry.at)?;
            }
            Some(Effect::Settings(settings)) => self.take_settings(settings, &[], entry.at)?,
            Some(Effect::Counted { settings, before }) => {
                self.take_settings(settings, before, entry.at)?;
            }
            Some(Effect::CountScopes(bounds)) => self.bounds = *bounds,
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

    /// Takes over a tenant's settings, and what windows have seen before.
    fn take_settings(
        &mut self,
        settings: &Settings,
        before: &[Before],
        at: Micros,
    ) -> Result<(), String> {
        let name = &settings.tenant;
        let place = self.tenant_place(name);
        let here = |open: &&Open| open.located.tenant == place;
        let open = self.holds.values().filter(here);
        let open = open.map(|open| (open.hold.as_ref(), open.located.scopes));
        let tenant = Self::tenant_at(&mut self.tenants, place)
            .ok_or_else(|| format!("tenant `{name}` is not known"))?;
        let counted = tenant.scopes();
        tenant.set((settings, before), at, open)?;
        self.scopes += tenant.scopes() - counted;
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
}
