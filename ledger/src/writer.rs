//! The one writer thread: it alone decides, and it answers only what is durable.
//!
//! ```text
//! block for one command, take what else waits -> decide each from memory into one frame
//!   -> append, fdatasync -> answer all -> hand the batch to the view
//! ```
//! There is no timer: while one batch syncs, the next one gathers.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};

use crate::clock::Micros;
use crate::command::{Act, Held, HoldRequest, Receipt, Recorded, Released, Settlement};
use crate::decide::{self, Desk};
use crate::entry::Entry;
use crate::error::Failed;
use crate::id::Id;
use crate::journal::frame::FrameBuilder;
use crate::journal::{Journal, Position, Space};
use crate::record::{self, Record};
use crate::rejection::Rejection;
use crate::shared::Shared;
use crate::state::{Bounds, State};
use crate::ticket::Answer;

/// A command on its way, with where its answer goes.
#[derive(Debug)]
pub(crate) enum Command {
    /// See [`crate::Ledger::hold`].
    Hold(HoldRequest, Answer<Result<Held, Rejection>>),
    /// See [`crate::Ledger::settle`].
    Settle(Settlement, Answer<Result<Receipt, Rejection>>),
    /// See [`crate::Ledger::release`].
    Release(Id, String, Answer<Result<Released, Rejection>>),
    /// See [`crate::Ledger::act`].
    Act(Act, Answer<Result<Recorded, Rejection>>),
    /// Only looks whether there is room again.
    Look,
    /// Ends the writer, after everything that was queued before.
    Close,
}

/// A decided command that waits for its frame to be durable.
enum Reply {
    Held(Answer<Result<Held, Rejection>>, Result<Held, Rejection>),
    Settled(
        Answer<Result<Receipt, Rejection>>,
        Result<Receipt, Rejection>,
    ),
    Released(
        Answer<Result<Released, Rejection>>,
        Result<Released, Rejection>,
    ),
    Recorded(
        Answer<Result<Recorded, Rejection>>,
        Result<Recorded, Rejection>,
    ),
}

/// A durable batch on its way to the view.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Where the frame begins.
    pub(crate) start: Position,
    /// The place behind it.
    pub(crate) end: Position,
    /// Number of the first record.
    pub(crate) first_lsn: u64,
    /// The frame.
    pub(crate) frame: Vec<u8>,
    /// The records, and where their bytes lie in the frame.
    pub(crate) records: Vec<(Record, Range<usize>)>,
}

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
    /// Where durable batches go.
    pub(crate) view: SyncSender<Batch>,
    /// Bytes of the last frame: the next one will need about as many.
    pub(crate) frame_bytes: usize,
}

/// A frame and the answers that wait for it.
struct Draft {
    now: Micros,
    space: Space,
    frame: FrameBuilder,
    records: Vec<(Record, Range<usize>)>,
    replies: Vec<Reply>,
}

/// Tells that nothing is recorded any more, however the writer ends.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.writable.store(false, Ordering::Release);
    }
}

/// The ledger cannot be written any more; the cause has been logged.
struct Poisoned;

impl Writer {
    /// Runs until the ledger is closed or dropped, or a write fails.
    pub(crate) fn run(mut self) {
        let _end = End(Arc::clone(&self.shared));
        let mut waiting = VecDeque::new();
        let mut open = true;
        while open {
            open = self.gather(&mut waiting);
            while !waiting.is_empty() {
                if let Err(Poisoned) = self.batch(&mut waiting) {
                    return;
                }
                if open && waiting.len() < self.shared.options.batch_max {
                    open = self.drain(&mut waiting);
                }
            }
        }
    }

    /// Blocks for the first command and takes what else waits; false once no more will come.
    fn gather(&self, waiting: &mut VecDeque<Command>) -> bool {
        match self.commands.recv() {
            Ok(Command::Close) | Err(_) => return false,
            Ok(command) => waiting.push_back(command),
        }
        self.drain(waiting)
    }

    fn drain(&self, waiting: &mut VecDeque<Command>) -> bool {
        while waiting.len() < self.shared.options.batch_max {
            match self.commands.try_recv() {
                Ok(Command::Close) => return false,
                Ok(command) => waiting.push_back(command),
                Err(_) => break,
            }
        }
        true
    }

    /// Decides as many of the waiting commands as one frame takes, and carries them through.
    fn batch(&mut self, waiting: &mut VecDeque<Command>) -> Result<(), Poisoned> {
        self.shared.wait_tail();
        let space = self.journal.space();
        self.shared
            .room
            .store(space == Space::Holds, Ordering::Release);
        let mut draft = Draft {
            now: self.shared.clock.now_us(),
            space,
            frame: FrameBuilder::new(self.state.lsn + 1, self.state.seq + 1, self.frame_bytes),
            records: Vec::with_capacity(waiting.len()),
            replies: Vec::with_capacity(waiting.len()),
        };
        let mut taken = 0;
        while self.journal.takes_more(&draft.frame) {
            let Some(command) = waiting.pop_front() else {
                break;
            };
            taken += 1;
            self.decide(command, &mut draft)?;
        }
        self.shared.queued.fetch_sub(taken, Ordering::Relaxed);
        self.carry(draft)
    }

    fn carry(&mut self, draft: Draft) -> Result<(), Poisoned> {
        let Draft {
            frame,
            records,
            replies,
            ..
        } = draft;
        if records.is_empty() {
            replies.into_iter().for_each(Reply::give);
            return Ok(());
        }
        let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let start = self.journal.position();
        let frame = frame.finish(self.journal.salt());
        self.frame_bytes = frame.len().saturating_add(frame.len() / 8);
        if let Err(error) = self.journal.append(&frame) {
            tracing::error!(%error, "the journal could not be written; nothing more is recorded");
            return Err(Poisoned);
        }
        let bytes = u64::try_from(frame.len()).unwrap_or(u64::MAX);
        self.shared
            .journal_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        self.shared.set_durable(self.state.lsn);
        replies.into_iter().for_each(Reply::give);
        let (end, first_lsn) = (self.journal.position(), self.state.lsn + 1 - count);
        let batch = Batch {
            start,
            end,
            first_lsn,
            frame,
            records,
        };
        if self.view.send(batch).is_err() {
            tracing::error!("the view has ended; nothing more is recorded");
            return Err(Poisoned);
        }
        Ok(())
    }

    fn decide(&mut self, command: Command, draft: &mut Draft) -> Result<(), Poisoned> {
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
            Command::Hold(request, answer) => Reply::Held(answer, self.hold(request, at, draft)?),
            Command::Settle(settlement, answer) => {
                Reply::Settled(answer, self.settle(&settlement, at, draft)?)
            }
            Command::Release(hold, reason, answer) => {
                let released = self.release(hold, reason, at, draft)?;
                Reply::Released(answer, released)
            }
            Command::Act(act, answer) => Reply::Recorded(answer, self.act(act, at, draft)?),
        };
        draft.replies.push(reply);
        Ok(())
    }

    fn desk(&self, at: Micros) -> Desk<'_> {
        Desk {
            state: &self.state,
            options: &self.shared.options,
            at,
        }
    }

    fn hold(
        &mut self,
        request: HoldRequest,
        at: Micros,
        draft: &mut Draft,
    ) -> Result<Result<Held, Rejection>, Poisoned> {
        let terms = match decide::hold(self.desk(at), &request) {
            Ok(terms) => terms,
            Err(rejection) => {
                self.shared.denied().note(&request, &rejection, at);
                return Ok(Err(rejection));
            }
        };
        let hold = terms.open(&request);
        let place = match self.write(draft, |bytes| hold.encode(bytes)) {
            Ok(place) => place,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let open = hold.open(record::body(draft.frame.record(&place)));
        let card = self.state.card(open.rate_card).map(|card| &card.card);
        let held = Held {
            lsn: self.state.lsn + 1,
            opened_at: open.opened_at,
            granted: hold.granted,
            quantities: open.quantities,
            amount: open.amount,
            currency: card.map_or_else(String::new, |card| card.currency.clone()),
            rate_card: card.map_or_else(String::new, |card| card.id.clone()),
        };
        self.take(Record::Hold(Arc::new(open)), place, draft)?;
        Ok(Ok(held))
    }

    fn settle(
        &mut self,
        settlement: &Settlement,
        at: Micros,
        draft: &mut Draft,
    ) -> Result<Result<Receipt, Rejection>, Poisoned> {
        let charged = match decide::settle(self.desk(at), settlement) {
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
        self.take(Record::Settled(posting), place, draft)?;
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
        self.take(Record::Release(Arc::new(release)), place, draft)?;
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
        let decided = decide::act(self.desk(at), act).and_then(|body| {
            let entry = Entry { seq, at, body };
            let place = self.write(draft, |bytes| record::encode(&entry, bytes))?;
            Ok((entry, place))
        });
        let (entry, place) = match decided {
            Ok(decided) => decided,
            Err(rejection) => return Ok(Err(rejection)),
        };
        self.take(Record::Entered(Arc::new(entry)), place, draft)?;
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
        place: Range<usize>,
        draft: &mut Draft,
    ) -> Result<(), Poisoned> {
        let lsn = self.state.lsn + 1;
        if let Err(fault) = self.state.apply(lsn, &record, &self.bounds) {
            tracing::error!(%fault, "a decision does not fit the state; nothing more is recorded");
            return Err(Poisoned);
        }
        draft.records.push((record, place));
        Ok(())
    }
}

impl Command {
    /// Answers that the command was not carried out.
    fn refuse(self, failed: Failed) {
        match self {
            Self::Hold(_, answer) => answer.give(Err(failed)),
            Self::Settle(_, answer) => answer.give(Err(failed)),
            Self::Release(_, _, answer) => answer.give(Err(failed)),
            Self::Act(_, answer) => answer.give(Err(failed)),
            Self::Look | Self::Close => {}
        }
    }
}

impl Reply {
    fn give(self) {
        match self {
            Self::Held(answer, held) => answer.give(Ok(held)),
            Self::Settled(answer, receipt) => answer.give(Ok(receipt)),
            Self::Released(answer, released) => answer.give(Ok(released)),
            Self::Recorded(answer, recorded) => answer.give(Ok(recorded)),
        }
    }
}
