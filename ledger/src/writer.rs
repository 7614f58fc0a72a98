//! The one writer thread: it alone decides, and it answers only what is durable.
//!
//! ```text
//! block for one command, take what else waits -> decide each from memory into one frame
//!   -> hand it over: append, fdatasync -> answer all -> hand the batch to the view
//! ```
//! There is no timer: while one batch syncs, the next one is decided and grows. What waits is
//! decided in shares, after each of which the batch goes if it can.

mod ahead;
mod queue;

use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use self::ahead::{Ahead, Waiting};
pub(crate) use self::queue::{Command, Holding, Reply, Settling};
use crate::clock::Micros;
use crate::command::{Act, Held, HoldRequest, Receipt, Recorded, Released, Settlement};
use crate::decide::{self, Desk};
use crate::entry::Entry;
use crate::error::Failed;
use crate::id::Id;
use crate::journal::frame::FrameBuilder;
use crate::journal::{Journal, Space};
use crate::quota::Left;
use crate::rate::Charge;
use crate::record::{self, HoldRef, OpenHold, Posting, Record, Run};
use crate::rejection::Rejection;
use crate::shared::Shared;
use crate::state::{Bounds, Known, Located, State};
use crate::sync::{Batch, Carrier, Handover, Turn};
use crate::view::{Durable, Item, Spent};

/// The writer thread's own.
#[derive(Debug)]
pub(crate) struct Writer {
    /// What all threads share.
    pub(crate) shared: Arc<Shared>,
    /// Where it writes.
    pub(crate) journal: Journal,
    /// What it decides from.
    pub(crate) state: State,
    /// The bounds that the state keeps.
    pub(crate) bounds: Bounds,
    /// Where commands come from.
    pub(crate) commands: Receiver<Command>,
    /// What carries batches through that are too small to be handed over.
    pub(crate) carrier: Carrier,
    /// Where all others go.
    pub(crate) handover: Arc<Handover>,
    /// Where durable batches come back from, emptied, to be filled again.
    pub(crate) spent: Receiver<Spent>,
    /// What it keeps to itself from batch to batch.
    pub(crate) kept: Kept,
}

/// The most answers of a batch that the writer carries through by itself while it has nothing else
/// to do: so few that waking another thread would cost more.
const FEW: usize = 4;
/// Commands after which the writer looks whether what it has decided can go. Were all that waits
/// one batch, its callers would all come again at once, and the disk and the writer take turns.
const SHARE: usize = 256;
/// Holds that have ended, kept to be used again.
const SPARE_HOLDS: usize = 4_096;

/// What the writer keeps to itself from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    ahead: Ahead,
    known: Known,
    /// The stored names of the run at hand.
    names: Vec<u8>,
    /// What is left of the quotas of the run at hand.
    quotas: Vec<(usize, Left)>,
    /// The answers of the batch.
    replies: Vec<Reply>,
    /// Whether the last batch had more than a few answers.
    many: bool,
    /// Nobody else has these.
    spare_holds: Vec<Arc<OpenHold>>,
}

impl Kept {
    /// Empties what comes back, which this thread has made.
    fn empty(&mut self, spent: Spent) -> (Vec<u8>, Vec<Item>) {
        let Spent {
            mut frame,
            mut items,
        } = spent;
        frame.clear();
        for item in items.drain(..) {
            let Record::Settled(Posting { mut hold, .. }) = item.record else {
                continue;
            };
            if self.spare_holds.len() < SPARE_HOLDS && Arc::get_mut(&mut hold).is_some() {
                self.spare_holds.push(hold);
            }
        }
        (frame, items)
    }

    /// The open hold with these stored `bytes`.
    fn open(&mut self, hold: &HoldRef<'_>, bytes: &[u8]) -> Arc<OpenHold> {
        let mut open = self.spare_holds.pop().unwrap_or_default();
        match Arc::get_mut(&mut open) {
            Some(spare) => hold.open_in(spare, bytes),
            None => open = Arc::new(hold.open(bytes)),
        }
        open
    }
}

/// A frame being filled.
struct Draft {
    now: Micros,
    /// Commands taken for it.
    taken: usize,
    space: Space,
    frame: FrameBuilder,
    items: Vec<Item>,
}

/// What comes after some commands were decided.
enum Round {
    /// More commands, for this frame if there is one.
    Next(Option<Draft>),
    /// None.
    Last,
}

/// Tells that nothing is recorded any more, however the writer ends.
struct End(Arc<Shared>, Arc<Handover>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.writable.store(false, Ordering::Release);
        self.1.close();
    }
}

/// The ledger cannot be written any more; the cause has been logged.
#[derive(Debug)]
pub(crate) struct Poisoned;

impl Writer {
    /// Runs until the ledger is closed or dropped, or a write fails.
    pub(crate) fn run(mut self) {
        let _end = End(Arc::clone(&self.shared), Arc::clone(&self.handover));
        let mut waiting = None;
        while self.kept.ahead.wait(&self.commands, self.kept.many) {
            let draft = waiting.take().unwrap_or_else(|| self.draft());
            match self.round(draft) {
                Ok(Round::Next(draft)) => waiting = draft,
                Ok(Round::Last) | Err(Poisoned) => return,
            }
        }
    }

    /// A frame to be filled.
    fn draft(&mut self) -> Draft {
        self.shared.wait_tail();
        let space = self.journal.space();
        let room = &self.shared.room;
        room.store(space == Space::Holds, Ordering::Release);
        let spent = self.spent.try_recv().ok();
        let (frame, items) = self.kept.empty(spent.unwrap_or_default());
        Draft {
            now: 0,
            taken: 0,
            space,
            frame: FrameBuilder::new(self.state.lsn + 1, self.state.seq + 1, frame),
            items,
        }
    }

    /// Decides some of what waits, as much as the frame takes, and hands all of it over if it can
    /// be; else the frame waits for more.
    fn round(&mut self, mut draft: Draft) -> Result<Round, Poisoned> {
        draft.now = self.shared.clock.now_us();
        let before = draft.taken;
        let most = self.shared.options.batch_max.min(before + SHARE);
        let mut open = true;
        while draft.taken < most && self.journal.takes_more(&draft.frame) {
            let kept = &mut self.kept;
            let next = kept.ahead.next(&self.commands, &self.state, &kept.known);
            let Some(Waiting { command, located }) = next else {
                break;
            };
            if matches!(command, Command::Close) {
                open = false;
                break;
            }
            draft.taken += 1;
            self.decide(command, located, &mut draft)?;
        }
        let taken = u64::try_from(draft.taken - before).unwrap_or(0);
        self.shared.queued.fetch_sub(taken, Ordering::Relaxed);
        let full =
            draft.taken >= self.shared.options.batch_max || !self.journal.takes_more(&draft.frame);
        let waiting = self.hand_over(draft, full || !open)?;
        Ok(if open {
            Round::Next(waiting)
        } else {
            Round::Last
        })
    }

    /// Hands over what was decided, unless others are on their way and it need not be yet.
    fn hand_over(&mut self, draft: Draft, must: bool) -> Result<Option<Draft>, Poisoned> {
        let count = self.kept.replies.len();
        if count == 0 {
            return Ok(None);
        }
        let turn = self.handover.turn(must)?;
        if turn == Turn::Later {
            return Ok(Some(draft));
        }
        self.kept.many = count > FEW;
        let Draft { frame, items, .. } = draft;
        let frame = (!items.is_empty()).then(|| {
            let start = self.journal.position().offset;
            let frame = frame.finish(self.journal.salt());
            let staged = self.journal.stage(frame.len());
            let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
            let durable = Durable {
                start,
                position: self.journal.position(),
                first_lsn: self.state.lsn + 1 - count,
                frame,
                items,
            };
            (staged, durable)
        });
        let replies = mem::take(&mut self.kept.replies);
        let batch = Batch { frame, replies };
        self.kept.replies = if turn == Turn::Idle && !self.kept.many {
            self.carrier.carry(batch, || {})?
        } else {
            self.handover.put(batch)
        };
        Ok(None)
    }

    /// `located` is where a hold's run was counted before, if that has been looked up.
    fn decide(
        &mut self,
        command: Command,
        located: Option<Located>,
        draft: &mut Draft,
    ) -> Result<(), Poisoned> {
        let at = draft.now.max(self.state.at.saturating_add(1));
        let fits = match (draft.space, &command) {
            (Space::Nothing, _) | (Space::Reserve, Command::Hold(..)) => false,
            (Space::Reserve | Space::Holds, _) => true,
        };
        if !fits {
            command.refuse(Failed::NoRoom);
            return Ok(());
        }
        let reply = match command {
            Command::Look | Command::Close => return Ok(()),
            Command::Hold(mut holding, answer) => {
                let room = mem::take(&mut holding.room);
                let held = self.hold(&holding.request, (located, room), at, draft)?;
                answer.put(held, Some(holding));
                Reply::Held(answer)
            }
            Command::Settle(mut settling, answer) => {
                let room = mem::take(&mut settling.room);
                let receipt = self.settle(&settling.settlement, room, at, draft)?;
                answer.put(receipt, Some(settling));
                Reply::Settled(answer)
            }
            Command::Release(hold, reason, answer) => {
                answer.put(self.release(hold, reason, at, draft)?, None);
                Reply::Released(answer)
            }
            Command::Act(act, answer) => {
                answer.put(self.act(*act, at, draft)?, None);
                Reply::Recorded(answer)
            }
        };
        self.kept.replies.push(reply);
        Ok(())
    }

    fn desk(&self, at: Micros) -> Desk<'_> {
        Desk {
            state: &self.state,
            options: &self.shared.options,
            at,
            now: at,
        }
    }

    fn hold(
        &mut self,
        request: &HoldRequest,
        (located, mut left): (Option<Located>, Vec<Left>),
        at: Micros,
        draft: &mut Draft,
    ) -> Result<Result<Held, Rejection>, Poisoned> {
        let known = located.or_else(|| {
            self.kept.names.clear();
            Run::of(request).append(&mut self.kept.names);
            self.kept.known.find(&self.kept.names)
        });
        let terms = match decide::hold(self.desk(at), request, known) {
            Ok(terms) => terms,
            Err(rejection) => {
                self.shared.denied().note(request, &rejection, at);
                return Ok(Err(rejection));
            }
        };
        let hold = terms.open(request);
        let place = match self.write(draft, |bytes| hold.encode(bytes)) {
            Ok(place) => place,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let bytes = record::body(draft.frame.record(&place));
        let open = self.kept.open(&hold, bytes);
        let mut held = Held {
            lsn: self.state.lsn + 1,
            opened_at: open.opened_at,
            granted: hold.granted,
            quantities: open.quantities,
            amount: open.amount,
            rate_card: open.rate_card,
            left: Vec::new(),
        };
        if let (None, Some(located)) = (known, terms.located) {
            self.kept.known.keep(&self.kept.names, located);
        }
        let located = self.take(Record::Hold(open), terms.located, place, draft)?;
        if let Some(located) = located
            && let Some(tenant) = self.state.placed(located.tenant)
        {
            let run = (located.scopes, &*request.key, at);
            decide::left(tenant, run, &mut self.kept.quotas, &mut left);
        }
        held.left = left;
        Ok(Ok(held))
    }

    fn settle(
        &mut self,
        settlement: &Settlement,
        room: Charge,
        at: Micros,
        draft: &mut Draft,
    ) -> Result<Result<Receipt, Rejection>, Poisoned> {
        let charged = match decide::settle(self.desk(at), settlement, room) {
            Ok(charged) => charged,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let seq = self.state.seq + 1;
        let entry = charged.enter(seq, at, settlement);
        let place = match self.write(draft, |bytes| entry.encode(bytes)) {
            Ok(place) => place,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let posting = entry.posting(Arc::clone(&charged.hold));
        self.take(Record::Settled(posting), None, place, draft)?;
        Ok(Ok(Receipt {
            entry: seq,
            at,
            posted: charged.posted,
            overrun: charged.overrun,
            charge: charged.charge,
        }))
    }

    fn release(
        &mut self,
        hold: Id,
        reason: String,
        at: Micros,
        draft: &mut Draft,
    ) -> Result<Result<Released, Rejection>, Poisoned> {
        let decided = decide::release(self.desk(at), hold, reason).and_then(|release| {
            let place = self.write(draft, |bytes| release.encode(bytes))?;
            Ok((release, place))
        });
        let (release, place) = match decided {
            Ok(decided) => decided,
            Err(rejection) => return Ok(Err(rejection)),
        };
        self.take(Record::Release(Arc::new(release)), None, place, draft)?;
        let lsn = self.state.lsn;
        Ok(Ok(Released { lsn, at }))
    }

    fn act(
        &mut self,
        act: Act,
        at: Micros,
        draft: &mut Draft,
    ) -> Result<Result<Recorded, Rejection>, Poisoned> {
        let seq = self.state.seq + 1;
        let desk = Desk {
            now: draft.now,
            ..self.desk(at)
        };
        let decided = decide::act(desk, act).and_then(|body| {
            let entry = Entry { seq, at, body };
            let place = self.write(draft, |bytes| record::encode(&entry, bytes))?;
            Ok((entry, place))
        });
        let (entry, place) = match decided {
            Ok(decided) => decided,
            Err(rejection) => return Ok(Err(rejection)),
        };
        self.take(Record::Entered(Arc::new(entry)), None, place, draft)?;
        Ok(Ok(Recorded { entry: seq, at }))
    }

    /// Puts a record's bytes into the frame.
    fn write(
        &self,
        draft: &mut Draft,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Range<usize>, Rejection> {
        let most = self.journal.record_max();
        let place = draft.frame.push(most, encode);
        place.ok_or_else(|| Rejection::Invalid {
            field: "fields",
            fault: format!("take more than {most} bytes together"),
        })
    }

    /// Puts a record, which lies in the frame at `place`, into the state.
    fn take(
        &mut self,
        record: Record,
        located: Option<Located>,
        place: Range<usize>,
        draft: &mut Draft,
    ) -> Result<Option<Located>, Poisoned> {
        let lsn = self.state.lsn + 1;
        let applied = self.state.apply(lsn, &record, located, &self.bounds);
        let located = applied.map_err(|fault| {
            tracing::error!(%fault, "a decision does not fit the state; nothing more is recorded");
            Poisoned
        })?;
        let before = usize::try_from(self.journal.position().offset).unwrap_or(0);
        draft.items.push(Item {
            record,
            located,
            offset: u32::try_from(before + place.start).unwrap_or(u32::MAX),
            bytes: u32::try_from(place.len()).unwrap_or(u32::MAX),
            leaf: None,
        });
        Ok(located)
    }
}
