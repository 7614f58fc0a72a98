//! The audit of a journal in the order of its records.
//!
//! What is global is looked at here: numbers and times, which holds are open, and the tree. The
//! tenants' side is another thread's, a window of the journal at a time; of several faults that of
//! the lowest command is told.

use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use super::checks;
use super::order::{Opened, Order};
use super::tenants::Tenants;
use super::window::{Entered, What, Window, short};
use crate::command::Effect;
use crate::entry::{Body, Entry};
use crate::error::{Error, Fault};
use crate::journal::Position;
use crate::journal::reader::Frame;
use crate::merkle::{Frontier, Hash, Leaves};
use crate::quantity::{Ceiling, Quantities};
use crate::rate::{Charge, Price, RateCard, Standing};
use crate::record::{self, Ending, OpenHold, Slate, Stored};
use crate::state::{ANOTHER_HOLD, Amounts, Booked};
use crate::verify::Verified;
use crate::verify::reversals::Reversals;
use crate::view::Checkpoint;
use crate::walk::{self, Read, Segments};

/// Windows that there are at once: one is filled, one is audited, and one waits.
const WINDOWS: usize = 3;
const THREAD: &str = "audit";

/// The thread that audits windows.
struct Auditor {
    windows: Sender<Window>,
    /// Windows that were audited and are empty again.
    empty: Receiver<Window>,
    thread: JoinHandle<Result<Tenants, Fault>>,
}

impl Auditor {
    fn start() -> Result<Self, Error> {
        let (windows, full) = mpsc::channel::<Window>();
        let (back, empty) = mpsc::channel();
        for _ in 1..WINDOWS {
            back.send(Window::default()).map_err(|_gone| ended())?;
        }
        let audit = move || {
            let mut tenants = Tenants::new();
            for mut window in full {
                tenants.take(&mut window)?;
                window.begin(0, 0);
                // Nobody wants the last ones back.
                back.send(window).ok();
            }
            Ok(tenants)
        };
        let thread = thread::Builder::new().name(THREAD.to_owned());
        let thread = thread.spawn(audit).map_err(|_spawn| ended())?;
        Ok(Self {
            windows,
            empty,
            thread,
        })
    }
}

fn ended() -> Error {
    Error::Thread { thread: THREAD }
}

/// An audit under way.
pub(super) struct Audit {
    order: Order,
    frontier: Frontier,
    reversals: Reversals,
    /// A checkpoint that is still to be passed.
    checkpoint: Option<Checkpoint>,
    /// Sizes whose roots are wanted, ascending, and those found.
    wanted: Vec<u64>,
    roots: Vec<(u64, Hash)>,
    window: Window,
    auditor: Option<Auditor>,
    /// What the other thread has come to.
    tenants: Tenants,
    /// The fault that has ended the audit here.
    met: Option<Fault>,
    /// Cards by which a charge depends on its run only, with their entries.
    flat: Vec<(u64, RateCard)>,
    /// Slate for the next record, and for what its charge should be.
    slate: Slate,
    charge: Charge,
}

impl Audit {
    pub(super) fn new(checkpoint: Option<Checkpoint>, sizes: &[u64]) -> Result<Self, Error> {
        let mut wanted = sizes.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let mut audit = Self {
            order: Order::default(),
            frontier: Frontier::default(),
            reversals: Reversals::default(),
            checkpoint: checkpoint.filter(|checkpoint| checkpoint.state.lsn > 0),
            wanted,
            roots: Vec::new(),
            window: Window::default(),
            auditor: Some(Auditor::start()?),
            tenants: Tenants::new(),
            met: None,
            flat: Vec::new(),
            slate: Slate::default(),
            charge: Charge::room(),
        };
        audit.note_root();
        Ok(audit)
    }

    fn push(&mut self, leaf: Hash) {
        self.frontier.push(leaf);
        self.note_root();
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
        self.order.last.seq
    }

    /// Checks a frame and takes it in. What it lacks is told by [`Audit::wait`], too.
    pub(super) fn take(&mut self, number: u32, frame: &Frame<'_>) -> Result<(), Error> {
        let taken = self.frame(number, frame);
        if let Err(Error::Corrupt { fault }) = &taken {
            self.met = Some(fault.clone());
        }
        taken
    }

    fn frame(&mut self, number: u32, frame: &Frame<'_>) -> Result<(), Error> {
        self.reversals.frame(number, self.entries() + 1);
        if self.window.ends(number) {
            self.hand_over(number)?;
        }
        let mut leaves = Leaves::default();
        walk::records(number, frame, |read| {
            let is_entry = self.record(&read)?;
            if let Some(leaf) = record::leaf(read.bytes) {
                leaves.add(leaf, |hash| self.push(hash));
            }
            Ok(is_entry)
        })?;
        leaves.end(|hash| self.push(hash));
        self.pass_checkpoint(walk::end(number, frame))
    }

    /// Takes in a record; says whether it is an entry.
    fn record(&mut self, read: &Read<'_>) -> Result<bool, String> {
        if let Some(ending) = record::ending(read.bytes) {
            read.is_numbered(Some(ending.seq))?;
            self.settled(read, &ending)?;
            return Ok(true);
        }
        if let Some((hold, granted)) = record::hold(read.bytes, &mut self.slate) {
            self.hold(read, hold, &granted)?;
            return Ok(false);
        }
        let mut slate = Slate::default();
        let stored = read.stored(&mut slate, |_id| None)?;
        let is_entry = stored.seq().is_some();
        match stored {
            Stored::Hold(hold, granted) => self.hold(read, hold, &granted)?,
            Stored::Release(release) => {
                self.order.number(read.lsn, release.at, None)?;
                let open = self.order.end(&release.hold)?;
                let hold = (&open.hold.as_ref().into(), open.place, open.slot);
                let what = (What::Released, release.at);
                self.window.put(read, hold, what, &[]);
            }
            Stored::Settled(settlement, hold) => {
                let mut bytes = hold.bytes().to_vec();
                settlement.settled.append(&mut bytes);
                let ending = Ending {
                    seq: settlement.seq,
                    at: settlement.at,
                    id: hold.id,
                    hold: &bytes,
                };
                self.settled(read, &ending)?;
            }
            Stored::Entered(entry) => self.entered(read, entry)?,
        }
        Ok(is_entry)
    }

    /// Takes in a hold, which is the worst case of what it was granted.
    fn hold(
        &mut self,
        read: &Read<'_>,
        hold: Arc<OpenHold>,
        granted: &Ceiling,
    ) -> Result<(), String> {
        if granted.quantities() != Some(hold.quantities) {
            return Err("the hold is not the worst case of its limits".to_owned());
        }
        let at = hold.opened_at;
        self.order.number(read.lsn, at, None)?;
        let booked = Booked::from(hold.as_ref());
        let place = self.window.book(&booked);
        let slot = self.order.open(Arc::clone(&hold), place)?;
        let key = hold.key().ok_or("the hold's key cannot be read")?;
        let what = What::Opened(short(key.len()));
        let names = hold.all_names();
        self.window
            .put(read, (&booked, place, slot), (what, at), names);
        Ok(())
    }

    /// Takes in a settlement, which must carry the hold that was opened.
    fn settled(&mut self, read: &Read<'_>, ending: &Ending<'_>) -> Result<(), String> {
        self.order.number(read.lsn, ending.at, Some(ending.seq))?;
        let Opened { hold, slot, place } = self.order.end(&ending.id)?;
        let rest = ending.hold.strip_prefix(hold.bytes());
        let rest = rest.ok_or(ANOTHER_HOLD)?;
        let booked = Booked::from(hold.as_ref());
        let (what, bytes) = match self.charged(rest, &booked)? {
            Some(posted) => (What::Charged(self.window.charge(&posted)), &[][..]),
            None => (What::Settled, rest),
        };
        self.window
            .put(read, (&booked, place, slot), (what, ending.at), bytes);
        self.slate.keep(hold);
        Ok(())
    }

    /// Checks the charge of a settlement that says so behind its hold, where it depends on nothing
    /// else; then it answers what is posted. This thread has less to do than the other one.
    fn charged(&mut self, rest: &[u8], hold: &Booked) -> Result<Option<Amounts>, String> {
        let card = self
            .flat
            .binary_search_by_key(&hold.rate_card, |card| card.0);
        let Some((_, card)) = card.ok().and_then(|place| self.flat.get(place)) else {
            return Ok(None);
        };
        let month = |_: &Price| Standing::default();
        let charge = |room, posted: &Quantities| card.charge_in(room, posted, month);
        if let Some(posts) = self.slate.posts(rest, charge)
            && posts.is_within(&hold.held)
        {
            return Ok(Some(posts));
        }
        let settled = self.slate.settled(rest)?;
        checks::measured(&settled, hold)?;
        checks::charged(card, &settled, hold, month, &mut self.charge)?;
        Ok(settled.funded.is_empty().then(|| settled.posts()))
    }

    /// Takes in an act or an adjustment, which ends the window.
    fn entered(&mut self, read: &Read<'_>, entry: Arc<Entry>) -> Result<(), String> {
        self.order.number(read.lsn, entry.at, Some(entry.seq))?;
        let segment = self.window.segment;
        self.reversals.entry(&entry, || Fault {
            segment,
            offset: read.offset.into(),
            lsn: read.lsn,
            seq: entry.seq,
            what: String::new(),
        });
        if let Body::Acted(acted) = &entry.body
            && let Some(Effect::RateCard(card)) = &acted.effect
            && card.is_flat()
        {
            self.flat.push((entry.seq, card.clone()));
        }
        let open = if looks_at_holds(&entry) {
            self.order.all_open()
        } else {
            Vec::new()
        };
        self.window.entered = Some(Entered {
            lsn: read.lsn,
            offset: read.offset,
            entry,
            open,
        });
        self.hand_over(segment).map_err(|error| error.to_string())
    }

    /// Gives the window to the other thread, and begins one in a segment.
    fn hand_over(&mut self, segment: u32) -> Result<(), Error> {
        // Where the other thread has ended, that was for a fault; this one looks for it later.
        let auditor = self.auditor.as_ref().ok_or_else(ended)?;
        let mut next = auditor.empty.recv().map_err(|_gone| ended())?;
        next.begin(self.window.number + 1, segment);
        let full = mem::replace(&mut self.window, next);
        auditor.windows.send(full).map_err(|_gone| ended())
    }

    /// The checkpoint beside the journal must have the same tree.
    fn pass_checkpoint(&mut self, end: Position) -> Result<(), Error> {
        let lsn = self.order.last.lsn;
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
            lsn: self.order.last.lsn,
            seq: self.entries(),
            what: what.to_owned(),
        };
        Error::Corrupt { fault }
    }

    /// Waits for the other thread; tells the first fault that either has met.
    pub(super) fn wait(&mut self) -> Result<(), Error> {
        if let Some(auditor) = self.auditor.take() {
            // Where it has ended already, it tells why.
            auditor.windows.send(mem::take(&mut self.window)).ok();
            drop(auditor.windows);
            let tenants = auditor.thread.join().map_err(|_panic| ended())?;
            self.tenants = tenants.map_err(|fault| Error::Corrupt { fault })?;
        }
        match self.met.take() {
            Some(fault) => Err(Error::Corrupt { fault }),
            None => Ok(()),
        }
    }

    /// The last checks, at the end of the journal.
    pub(super) fn finish(
        mut self,
        dir: &Path,
        segments: &Segments,
        end: Position,
    ) -> Result<Verified, Error> {
        mem::take(&mut self.reversals).check(dir, segments)?;
        if self.checkpoint.is_some() {
            return Err(self.fault(end, "the journal ends before the checkpoint"));
        }
        let open = self.order.count();
        if !self.tenants.are_balanced(open) {
            return Err(self.fault(end, "balances are not the sums of the records"));
        }
        Ok(Verified {
            commands: self.order.last.lsn,
            entries: self.entries(),
            root: self.frontier.root(),
            holds_open: u64::try_from(open).unwrap_or(u64::MAX),
            torn_bytes: 0,
            roots: self.roots,
        })
    }
}

/// Whether what an entry does depends on the open holds.
fn looks_at_holds(entry: &Entry) -> bool {
    let Body::Acted(acted) = &entry.body else {
        return false;
    };
    matches!(
        acted.effect,
        Some(
            Effect::Tenant { .. }
                | Effect::Settings(_)
                | Effect::Counted { .. }
                | Effect::ClosePeriod(_)
        )
    )
}
