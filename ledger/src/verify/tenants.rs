//! The tenants' side of an audit: whether each hold was allowed, and each settlement is priced and
//! counted as it must be.
//!
//! Counters lie all over a memory that no processor's cache holds. So a window's records are taken
//! tenant by tenant: each tenant's counters are fetched once for all of them.

use std::hint::black_box;
use std::mem;

use super::checks::{self, WorstCase};
use super::window::{Entered, Put, What, Window, long, short};
use crate::entry::Body;
use crate::error::Fault;
use crate::money::Money;
use crate::rate::{Charge, Price};
use crate::record::{Record, Run, Slate};
use crate::state::{AHEAD, Amounts, Booked, Bounds, Known, Located, Sought, State, amounts};

/// No record.
const NONE: u32 = u32::MAX;

/// Sums of one tenant, kept apart from the state's own.
#[derive(Clone, Debug, Default)]
struct Balance {
    posted: Amounts,
    held: Amounts,
    open: u32,
}

impl Balance {
    fn begin(&mut self, hold: &Booked) {
        self.held.add(&hold.held);
        self.open += 1;
    }

    fn end(&mut self, hold: &Booked, posted: &Amounts) {
        self.posted.add(posted);
        self.held.subtract(&hold.held);
        self.open = self.open.saturating_sub(1);
    }
}

/// The records of a window, by tenant.
#[derive(Debug, Default)]
struct Sorted {
    /// The record before each of the same tenant.
    before: Vec<u32>,
    /// The last record of each tenant, by the tenant's place.
    last: Vec<u32>,
    /// The tenants that have one, perhaps more than once.
    tenants: Vec<u32>,
    /// One tenant's records, the last one first.
    places: Vec<u32>,
}

/// All tenants, and the audit of what was recorded of them.
#[derive(Debug)]
pub(super) struct Tenants {
    /// All of the state but for open holds, which it has only while an act looks at them.
    state: State,
    known: Known,
    /// Where open holds are counted, by their numbers.
    slots: Vec<Located>,
    /// By the place of the tenant.
    balances: Vec<Balance>,
    sorted: Sorted,
    fault: Option<Fault>,
    /// Slate for the next settlement, and for what its charge should be.
    slate: Slate,
    charge: Charge,
    worst_case: WorstCase,
}

impl Tenants {
    pub(super) fn new() -> Self {
        Self {
            state: State::default(),
            known: Known::default(),
            slots: Vec::new(),
            balances: Vec::new(),
            sorted: Sorted::default(),
            fault: None,
            slate: Slate::default(),
            charge: Charge::room(),
            worst_case: WorstCase::default(),
        }
    }

    /// Audits a window; of several faults that of the lowest command is told.
    pub(super) fn take(&mut self, window: &mut Window) -> Result<(), Fault> {
        let mut sorted = mem::take(&mut self.sorted);
        sorted.before.clear();
        if let Err(fault) = self.sort(window, &mut sorted) {
            self.note(fault);
        }
        while let Some(tenant) = sorted.tenants.pop() {
            self.tenant(window, &mut sorted, tenant);
        }
        self.sorted = sorted;
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let Some(entered) = &window.entered else {
            return Ok(());
        };
        self.entered(entered).map_err(|what| Fault {
            segment: window.segment,
            offset: entered.offset.into(),
            lsn: entered.lsn,
            seq: entered.entry.seq,
            what,
        })
    }

    /// Keeps a fault, if it is that of the lowest command.
    fn note(&mut self, fault: Fault) {
        let all = self.fault.take().into_iter().chain([fault]);
        self.fault = all.min_by_key(|fault| fault.lsn);
    }

    /// Finds where each record is counted.
    fn sort(&mut self, window: &mut Window, sorted: &mut Sorted) -> Result<(), Fault> {
        let count = window.puts().len();
        for first in (0..count).step_by(AHEAD) {
            let places = first..count.min(first + AHEAD);
            let puts = window.puts().get(places.clone()).unwrap_or_default();
            let mut hashes = [0; AHEAD];
            for (put, hash) in puts.iter().zip(&mut hashes) {
                if put.is_hold() {
                    *hash = self.known.hash(window.bytes(put));
                }
            }
            let near = hashes.iter().map(|hash| self.known.near(*hash));
            black_box(near.fold(0, |all, word| all ^ word));
            for (place, hash) in places.zip(hashes) {
                let Some(put) = window.get(place) else { break };
                let located = self.locate(window, sorted, (put, hash));
                let located = located.map_err(|what| window.fault(place, what))?;
                window.locate(place, located);
                sorted.add(located);
            }
        }
        Ok(())
    }

    /// Where a record is counted; the hash is of a hold's names. Scopes of a hold that are not
    /// counted yet are from now on, once all before it is done.
    fn locate(
        &mut self,
        window: &Window,
        sorted: &mut Sorted,
        (put, hash): (&Put, u64),
    ) -> Result<Located, String> {
        if !put.is_hold() {
            return self.slot(put.slot);
        }
        let names = window.bytes(put);
        let located = match self.known.found(Sought { names, hash }) {
            Some(located) => located,
            None => {
                let run = Run::read(names).ok_or("the hold's names cannot be read")?;
                if let Some((tenant, _)) = self.state.find(run.whose.tenant) {
                    self.tenant(window, sorted, tenant);
                }
                let located = self.state.count(&run, put.at)?;
                if located.is_whole() {
                    self.known.keep(names, located);
                }
                located
            }
        };
        let slot = long(put.slot);
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, located);
        }
        self.slots[slot] = located;
        Ok(located)
    }

    /// Where an open hold is counted.
    fn slot(&self, slot: u32) -> Result<Located, String> {
        let located = self.slots.get(long(slot)).copied();
        located.ok_or_else(|| "its hold is not counted".to_owned())
    }

    /// Audits what there is of one tenant, up to its first fault.
    fn tenant(&mut self, window: &Window, sorted: &mut Sorted, tenant: u32) {
        sorted.take(tenant);
        for some in sorted.places.rchunks(AHEAD) {
            let places = some.iter().rev().map(|place| long(*place));
            let puts = places.filter_map(|place| Some((place, window.get(place)?)));
            self.bring_near(window, tenant, puts.clone().map(|(_, put)| put));
            for (place, put) in puts {
                if let Err(what) = self.put(window, put) {
                    return self.note(window.fault(place, what));
                }
            }
        }
    }

    /// Reads a word of each cache line that these records of a tenant need.
    fn bring_near<'a>(
        &self,
        window: &Window,
        tenant: u32,
        puts: impl Iterator<Item = &'a Put> + Clone,
    ) {
        let slots = puts.clone().map(|put| put.slot);
        black_box(slots.fold(0, |all, slot| all ^ slot));
        let words = puts.clone().map(|put| window.near(put));
        black_box(words.fold(0, |all, word| all ^ word));
        let runs = puts.map(|put| (put.located.scopes, put.key(window.bytes(put))));
        self.state.bring_tenant_near(tenant, runs);
    }

    /// Audits a record and counts it.
    fn put(&mut self, window: &Window, put: &Put) -> Result<(), String> {
        let (located, bytes) = (put.located, window.bytes(put));
        let hold = &window.hold(put).ok_or("its hold is not known")?;
        let posted = match put.what {
            What::Opened(_) => {
                let key = put.key(bytes).ok_or("the hold's key cannot be read")?;
                checks::hold(&self.state, hold, located, key, &mut self.worst_case)?;
                self.state.begin(hold, located, key)?;
                self.balance_of(located.tenant)?.begin(hold);
                return Ok(());
            }
            What::Released => {
                let posted = Amounts::default();
                self.state.end(hold, located, put.at, &posted)?;
                posted
            }
            What::Settled => {
                let settled = self.slate.settled(bytes)?;
                checks::measured(&settled, hold)?;
                let state = &self.state;
                let card = state.card(hold.rate_card);
                let card = &card.ok_or("its rate card is not known")?.card;
                let tenant = state.placed(located.tenant);
                let tenant = tenant.ok_or("its tenant is not known")?;
                let month = |price: &Price| tenant.standing_of(price, hold.at);
                checks::charged(card, &settled, hold, month, &mut self.charge)?;
                let total = settled.charge.total;
                checks::paid(state, hold, tenant, total, settled.funded)?;
                let posted = settled.posts();
                let credit = self.state.end(hold, located, put.at, &posted)?;
                credit.take(settled.funded)?;
                posted
            }
            What::Charged(_) => {
                let posted = window.charged(put).ok_or("what it posts is not known")?;
                let tenant = self.state.placed(located.tenant);
                let tenant = tenant.ok_or("its tenant is not known")?;
                checks::paid(&self.state, hold, tenant, Money(posted.cost), &[])?;
                self.state.end(hold, located, put.at, &posted)?;
                posted
            }
        };
        self.balance_of(located.tenant)?.end(hold, &posted);
        Ok(())
    }

    /// Audits an act or an adjustment and carries it out.
    fn entered(&mut self, entered: &Entered) -> Result<(), String> {
        let entry = &entered.entry;
        for (hold, slot) in &entered.open {
            let located = self.slot(*slot)?;
            self.state.enlist(hold, located)?;
        }
        match &entry.body {
            Body::Acted(acted) => checks::acted(&self.state, entry.at, acted)?,
            Body::Adjusted(adjusted) => {
                checks::adjusted(&self.state, entry.at, adjusted)?;
                let tenant = self.state.find(&adjusted.tenant).map(|(place, _)| place);
                let balance = self.balance_of(tenant.ok_or("its tenant is not known")?)?;
                balance.posted.add(&amounts(adjusted));
            }
            Body::Settled(_) => {}
        }
        // That the numbers follow on each other has been seen already.
        self.state.lsn = entered.lsn - 1;
        self.state.seq = entry.seq - 1;
        let record = Record::Entered(entry.clone());
        self.state
            .apply(entered.lsn, &record, None, &Bounds::audit())?;
        for (hold, _) in &entered.open {
            self.state.strike(&hold.id)?;
        }
        Ok(())
    }

    fn balance_of(&mut self, tenant: u32) -> Result<&mut Balance, String> {
        let place = long(tenant);
        if self.balances.len() <= place {
            let tenants = self.state.tenants_len();
            self.balances.resize(tenants, Balance::default());
        }
        let balance = self.balances.get_mut(place);
        balance.ok_or_else(|| "its tenant is not known".to_owned())
    }

    /// Whether all balances are the sums of the records, given how many holds are open.
    pub(super) fn are_balanced(&self, open: usize) -> bool {
        let nothing = Balance::default();
        let mut tenants = self.state.tenants().iter().enumerate();
        let balanced = tenants.all(|(place, tenant)| {
            let balance = self.balances.get(place).unwrap_or(&nothing);
            let sums = ((balance.posted, balance.held), balance.open);
            (tenant.lifetime(), tenant.open) == sums
        });
        balanced && (open > 0 || self.state.idle())
    }
}

impl Sorted {
    /// Adds the next record of the window.
    fn add(&mut self, located: Located) {
        let place = long(located.tenant);
        if self.last.len() <= place {
            self.last.resize(place + 1, NONE);
        }
        let next = short(self.before.len());
        let before = mem::replace(&mut self.last[place], next);
        if before == NONE {
            self.tenants.push(located.tenant);
        }
        self.before.push(before);
    }

    /// Takes the places of all records of a tenant so far.
    fn take(&mut self, tenant: u32) {
        self.places.clear();
        let Some(last) = self.last.get_mut(long(tenant)) else {
            return;
        };
        let mut next = mem::replace(last, NONE);
        while let Some(before) = self.before.get(long(next)) {
            self.places.push(next);
            next = *before;
        }
    }
}
