//! What must hold of every record, given all before it.

use std::hint::black_box;
use std::mem;
use std::path::Path;
use std::sync::Arc;

use crate::clock::Micros;
use crate::command::Effect;
use crate::decide;
use crate::entry::{Acted, Adjusted, Body};
use crate::error::{Error, Fault};
use crate::id::Id;
use crate::journal::Position;
use crate::journal::reader::Frame;
use crate::merkle::{self, Frontier, Hash};
use crate::period::Period;
use crate::quantity::{Ceiling, Meter};
use crate::rate::{Charge, Price};
use crate::record::{self, OpenHold, Posting, Record, SettledRef, Slate, Stored};
use crate::state::{Amounts, Bounds, Known, Located, Near, State, amounts, coming, held};
use crate::verify::Verified;
use crate::verify::reversals::Reversals;
use crate::view::Checkpoint;
use crate::walk::{self, Read, Segments};

/// Sums of one tenant, kept apart from the state's own.
#[derive(Clone, Default)]
struct Balance {
    posted: Amounts,
    held: Amounts,
    open: u32,
}

/// An audit under way.
pub(super) struct Audit {
    state: State,
    frontier: Frontier,
    /// By the place of the tenant.
    balances: Vec<Balance>,
    known: Known,
    reversals: Reversals,
    /// A checkpoint that is still to be passed.
    checkpoint: Option<Checkpoint>,
    /// Sizes whose roots are wanted, ascending, and those found.
    wanted: Vec<u64>,
    roots: Vec<(u64, Hash)>,
    /// Slate for the next record, and for what its charge should be.
    slate: Slate,
    charge: Charge,
}

impl Audit {
    pub(super) fn new(checkpoint: Option<Checkpoint>, sizes: &[u64]) -> Self {
        let mut wanted = sizes.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let mut audit = Self {
            state: State::default(),
            frontier: Frontier::default(),
            balances: Vec::new(),
            known: Known::default(),
            reversals: Reversals::default(),
            checkpoint: checkpoint.filter(|checkpoint| checkpoint.state.lsn > 0),
            wanted,
            roots: Vec::new(),
            slate: Slate::default(),
            charge: Charge::room(),
        };
        audit.note_root();
        audit
    }

    /// Notes the root if it is wanted.
    fn note_root(&mut self) {
        let size = self.frontier.size();
        if self.wanted.get(self.roots.len()) == Some(&size) {
            self.roots.push((size, self.frontier.root()));
        }
    }

    /// Entries so far.
    pub(super) fn entries(&self) -> u64 {
        self.state.seq
    }

    /// Checks a frame and takes it in.
    pub(super) fn take(&mut self, number: u32, frame: &Frame<'_>) -> Result<(), Error> {
        self.reversals.frame(number, self.state.seq + 1);
        let mut slate = mem::take(&mut self.slate);
        let mut coming = coming(frame.payload);
        walk::records(number, frame, |read| {
            let near = coming.next(&self.state, &self.known, |near| self.bring_near(near));
            let open = |id: &Id| self.state.hold(id).map(Arc::clone);
            let stored = read.stored(&mut slate, open)?;
            self.record(&read, &stored, near)?;
            if let Stored::Entered(entry) = &stored {
                self.reversals.entry(entry, || Fault {
                    segment: number,
                    offset: read.offset.into(),
                    lsn: read.lsn,
                    seq: entry.seq,
                    what: String::new(),
                });
            }
            let is_entry = stored.seq().is_some();
            if let Some(hold) = stored.into_hold() {
                slate.keep(hold);
            }
            Ok(is_entry)
        })?;
        self.slate = slate;
        self.pass_checkpoint(walk::end(number, frame))
    }

    /// Reads words of the balances of these.
    fn bring_near(&self, near: &[Option<Near<'_>>]) {
        let balance = |(located, _): &Near<'_>| {
            let place = usize::try_from(located.tenant).ok()?;
            let one = self.balances.get(place)?;
            Some(one.held.quantities.cpu_us ^ one.posted.quantities.cpu_us)
        };
        let words = near.iter().flatten().filter_map(balance);
        black_box(words.fold(0, |all, word| all ^ word));
    }

    /// Checks a record and takes it in; `near` is where it is counted, if that is known.
    fn record(
        &mut self,
        read: &Read<'_>,
        stored: &Stored<'_>,
        near: Option<Located>,
    ) -> Result<(), String> {
        let record = stored.record();
        let (mut known, mut released) = (None, None);
        match (stored, &record) {
            (Stored::Hold(hold, granted), _) => {
                known = near.or_else(|| self.known.find(hold.all_names()));
                let located = match known {
                    Some(located) => located,
                    None => self.locate(hold)?,
                };
                self.hold(granted, hold, located)?;
            }
            (Stored::Settled(stored, _), Record::Settled(posting)) => {
                self.settled(&stored.settled, posting)?;
            }
            (Stored::Release(release), _) => released = self.state.hold(&release.hold).cloned(),
            (Stored::Entered(entry), _) => match &entry.body {
                Body::Acted(acted) => self.acted(entry.at, acted)?,
                Body::Adjusted(adjusted) => self.adjusted(entry.at, adjusted)?,
                Body::Settled(_) => {}
            },
            (Stored::Settled(..), _) => {}
        }
        let bounds = Bounds::audit();
        let located = self.state.apply(read.lsn, &record, known, &bounds)?;
        if let Some(located) = located {
            self.balance(located.tenant, &record, released.as_deref())?;
        }
        if let (Record::Hold(hold), None, Some(located)) = (&record, known, located) {
            // An audit counts all scopes.
            self.known.keep(hold.all_names(), located);
        }
        if let Some(leaf) = record::leaf(read.bytes) {
            self.frontier.push(merkle::leaf(leaf));
            self.note_root();
        }
        Ok(())
    }

    /// Where a hold is counted that was not met before.
    fn locate(&self, hold: &OpenHold) -> Result<Located, String> {
        let run = hold.run().ok_or("the hold's names cannot be read")?;
        let unknown = || format!("tenant `{}` is not known", run.whose.tenant);
        self.state.locate(&run).ok_or_else(unknown)
    }

    /// A hold must have been allowed: priced by the card in force, within every hard quota and the
    /// cap.
    fn hold(&self, granted: &Ceiling, hold: &OpenHold, located: Located) -> Result<(), String> {
        let state = &self.state;
        let tenant = state
            .placed(located.tenant)
            .ok_or("its tenant is not known")?;
        if granted.quantities() != Some(hold.quantities) {
            return Err("the hold is not the worst case of its limits".to_owned());
        }
        let card = state
            .card_for(tenant, hold.opened_at)
            .filter(|card| card.seq == hold.rate_card);
        let card = card.ok_or("the hold is not priced by the card in force")?;
        let month = |price: &Price| tenant.standing_of(price, hold.opened_at);
        if card.card.worst_case(&hold.quantities, month) != Some(hold.amount) {
            return Err("the hold's amount is not what its card says".to_owned());
        }
        if tenant.suspended || tenant.open >= tenant.concurrency {
            return Err(
                "the hold passes its tenant's concurrency, or the tenant is suspended".into(),
            );
        }
        if tenant.is_capped() {
            let key = hold.key().ok_or("the hold's key cannot be read")?;
            if let Some(too_fast) = tenant.too_fast(key, hold.opened_at) {
                return Err(format!("the hold passes its cap on starts: {too_fast}"));
            }
        }
        let need = held(hold);
        if decide::lacking_credit(tenant, &need, hold.opened_at).is_some() {
            return Err("the hold passes its tenant's credit".to_owned());
        }
        let places = located.scopes;
        let at = hold.opened_at;
        if !decide::within_limits(tenant, places, &need, at)
            && let Some(violation) = decide::violations(tenant, places, &need, at).first()
        {
            return Err(format!("the hold passes quota `{}`", violation.quota));
        }
        Ok(())
    }

    /// A period must have been ready to be closed.
    fn acted(&self, at: Micros, acted: &Acted) -> Result<(), String> {
        match &acted.effect {
            Some(Effect::ClosePeriod(period)) => {
                decide::books::close(&self.state, *period, at).map_err(|no| no.to_string())
            }
            _ => Ok(()),
        }
    }

    /// An adjustment must be what was proposed, approved by somebody else, and reverse what was not
    /// reversed before; that the settlement is the one in the journal is checked at the end.
    fn adjusted(&mut self, at: Micros, adjusted: &Adjusted) -> Result<(), String> {
        let approver = adjusted.approver.clone();
        let approved = decide::books::approve(&self.state, adjusted.proposal, approver, at);
        if approved.map_err(|no| no.to_string())? != *adjusted {
            return Err("the adjustment is not what was proposed".to_owned());
        }
        let tenant = self.state.find(&adjusted.tenant).map(|(place, _)| place);
        let balance = self.balance_of(tenant.ok_or("its tenant is not known")?)?;
        balance.posted.add(&amounts(adjusted));
        Ok(())
    }

    /// A settlement must post the lesser of measured and held, at its hold's price.
    fn settled(&mut self, settled: &SettledRef<'_>, posting: &Posting) -> Result<(), String> {
        let hold = &posting.hold;
        // Nearly always nothing was measured above what is posted, and that is not above the hold.
        let plain = settled.overrun.is_zero() && settled.posted.above(&hold.quantities).is_zero();
        let meters = Meter::MEASURED.into_iter().filter(|_| !plain);
        for meter in meters {
            let held = hold.quantities.get(meter);
            let (posted, overrun) = (settled.posted.get(meter), settled.overrun.get(meter));
            if posted > held || (overrun > 0 && posted != held) {
                return Err(format!("{meter} is not the lesser of measured and held"));
            }
        }
        let card = self
            .state
            .card(hold.rate_card)
            .ok_or("its rate card is not known")?;
        if self.state.is_closed(hold.opened_at) {
            let period = Period::of(hold.opened_at);
            return Err(format!("it counts in period {period}, which is closed"));
        }
        // That the hold is the one that was opened is seen when the record is taken in.
        let open = self.state.hold_of(&hold.id);
        let (_, tenant) = open.ok_or_else(|| format!("hold {} is not open", hold.id))?;
        let month = |price: &Price| tenant.standing_of(price, hold.opened_at);
        let room = mem::take(&mut self.charge);
        let charge = card.card.charge_in(room, settled.posted, month);
        if settled.funded != tenant.credit.draw(hold.opened_at, posting.total) {
            return Err("the charge is not paid from the credit that there was".to_owned());
        }
        if charge.as_ref() != Some(settled.charge) || posting.total > hold.amount {
            return Err("the charge is not what the rate card says".to_owned());
        }
        self.charge = charge.unwrap_or_default();
        Ok(())
    }

    /// Adds a record up apart from the state; `released` is the hold that a release has ended.
    fn balance(
        &mut self,
        tenant: u32,
        record: &Record,
        released: Option<&OpenHold>,
    ) -> Result<(), String> {
        let balance = self.balance_of(tenant)?;
        let ended = match record {
            Record::Hold(hold) => {
                balance.held.add(&held(hold));
                balance.open += 1;
                return Ok(());
            }
            Record::Settled(posting) => {
                balance.posted.add(&Amounts {
                    quantities: posting.posted,
                    cost: posting.total.0,
                });
                Some(posting.hold.as_ref())
            }
            Record::Release(_) | Record::Entered(_) => released,
        };
        if let Some(hold) = ended {
            balance.held.subtract(&held(hold));
            balance.open = balance.open.saturating_sub(1);
        }
        Ok(())
    }

    fn balance_of(&mut self, tenant: u32) -> Result<&mut Balance, String> {
        let place = usize::try_from(tenant).unwrap_or(usize::MAX);
        if self.balances.len() <= place {
            let tenants = self.state.tenants_len();
            self.balances.resize(tenants, Balance::default());
        }
        let balance = self.balances.get_mut(place);
        balance.ok_or_else(|| "its tenant is not known".to_owned())
    }

    /// The checkpoint beside the journal must have the same tree.
    fn pass_checkpoint(&mut self, end: Position) -> Result<(), Error> {
        let lsn = self.state.lsn;
        let Some(checkpoint) = self
            .checkpoint
            .take_if(|checkpoint| checkpoint.state.lsn <= lsn)
        else {
            return Ok(());
        };
        if checkpoint.state.lsn == lsn && checkpoint.frontier == self.frontier {
            return Ok(());
        }
        Err(self.fault(end, "the checkpoint's tree is not the journal's"))
    }

    fn fault(&self, position: Position, what: &str) -> Error {
        let fault = Fault {
            segment: position.segment,
            offset: position.offset,
            lsn: self.state.lsn,
            seq: self.state.seq,
            what: what.to_owned(),
        };
        Error::Corrupt { fault }
    }

    /// The last checks, at the end of the journal.
    pub(super) fn finish(
        mut self,
        dir: &Path,
        segments: &Segments,
        end: Position,
    ) -> Result<Verified, Error> {
        std::mem::take(&mut self.reversals).check(dir, segments)?;
        if self.checkpoint.is_some() {
            return Err(self.fault(end, "the journal ends before the checkpoint"));
        }
        let nothing = Balance::default();
        let balanced = self
            .state
            .tenants()
            .iter()
            .enumerate()
            .all(|(place, tenant)| {
                let balance = self.balances.get(place).unwrap_or(&nothing);
                let sums = ((balance.posted, balance.held), balance.open);
                (tenant.lifetime(), tenant.open) == sums
            });
        if !balanced || (self.state.holds_len() == 0 && !self.state.idle()) {
            return Err(self.fault(end, "balances are not the sums of the records"));
        }
        Ok(Verified {
            commands: self.state.lsn,
            entries: self.state.seq,
            root: self.frontier.root(),
            holds_open: u64::try_from(self.state.holds_len()).unwrap_or(u64::MAX),
            torn_bytes: 0,
            roots: self.roots,
        })
    }
}
