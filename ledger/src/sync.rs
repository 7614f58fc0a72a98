//! The sync thread: makes one batch durable after the other, gives its answers, and hands it to the
//! view. The writer decides the next batch meanwhile.
//!
//! At most one batch waits here; until there is room for it, the writer's next one grows.

use std::io;
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::journal::Staged;
use crate::shared::Shared;
use crate::view::Durable;
use crate::writer::{Command, Poisoned, Reply};

/// What was decided together.
#[derive(Debug)]
pub(crate) struct Batch {
    /// What is to be written and where, unless nothing was recorded.
    pub(crate) frame: Option<(Staged, Durable)>,
    /// The answers to it.
    pub(crate) replies: Vec<Reply>,
}

/// Whether a batch can be handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// Not yet; a [`Command::Look`] says when.
    Later,
    /// It can.
    Free,
    /// It can, and there is no other one on its way.
    Idle,
}

#[derive(Debug, Default)]
struct State {
    batch: Option<Batch>,
    /// A batch is being written.
    writing: bool,
    /// The sync thread has nothing to do and waits.
    asleep: bool,
    /// The writer blocks until there is room.
    blocked: bool,
    /// The writer wants to be told once there is room.
    wanted: bool,
    closed: bool,
    failed: bool,
    /// Room for answers.
    spare: Vec<Reply>,
}

/// Where batches are handed over.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    state: Mutex<State>,
    to_sync: Condvar,
    to_writer: Condvar,
}

impl Handover {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the writer's next batch can be handed over; waits for it if it has to be.
    pub(crate) fn turn(&self, must: bool) -> Result<Turn, Poisoned> {
        let mut state = self.lock();
        while must && !state.failed && (state.writing || state.batch.is_some()) {
            state.blocked = true;
            let waiting = self.to_writer.wait(state);
            state = waiting.unwrap_or_else(PoisonError::into_inner);
        }
        if state.failed {
            return Err(Poisoned);
        }
        state.wanted = state.writing || state.batch.is_some();
        Ok(match (state.wanted, state.asleep) {
            (true, _) => Turn::Later,
            (false, false) => Turn::Free,
            (false, true) => Turn::Idle,
        })
    }

    /// Hands over a batch, whose turn it is; gives room for the answers of the next one.
    pub(crate) fn put(&self, batch: Batch) -> Vec<Reply> {
        let mut state = self.lock();
        state.batch = Some(batch);
        if mem::take(&mut state.asleep) {
            self.to_sync.notify_one();
        }
        mem::take(&mut state.spare)
    }

    /// Says that no more batches come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.to_sync.notify_one();
    }

    /// The next batch.
    fn take(&self) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.batch.take() {
                state.writing = true;
                return Some(batch);
            }
            if state.closed {
                return None;
            }
            state.asleep = true;
            let waiting = self.to_sync.wait(state);
            state = waiting.unwrap_or_else(PoisonError::into_inner);
            state.asleep = false;
        }
    }

    /// What was taken is written, or has failed; whether the writer wants to be told.
    fn written(&self, failed: bool) -> bool {
        let mut state = self.lock();
        state.writing = false;
        state.failed |= failed;
        if mem::take(&mut state.blocked) {
            self.to_writer.notify_one();
        }
        mem::take(&mut state.wanted)
    }
}

/// What carries batches through.
#[derive(Clone, Debug)]
pub(crate) struct Carrier {
    /// What all threads share.
    pub(crate) shared: Arc<Shared>,
    /// Where durable batches go.
    pub(crate) view: SyncSender<Durable>,
}

impl Carrier {
    /// Makes a batch durable, says so with `written`, then answers; gives back the room of the
    /// answers.
    pub(crate) fn carry(
        &self,
        batch: Batch,
        written: impl FnOnce(),
    ) -> Result<Vec<Reply>, Poisoned> {
        let Batch { frame, mut replies } = batch;
        if let Some((staged, durable)) = &frame {
            self.write(staged, durable).map_err(|error| {
                tracing::error!(%error,
                    "the journal could not be written; nothing more is recorded");
                Poisoned
            })?;
        }
        written();
        replies.drain(..).for_each(Reply::give);
        if let Some((_, durable)) = frame
            && self.view.send(durable).is_err()
        {
            tracing::error!("the view has ended; nothing more is recorded");
            return Err(Poisoned);
        }
        Ok(replies)
    }

    fn write(&self, staged: &Staged, durable: &Durable) -> io::Result<()> {
        staged.write(&durable.frame)?;
        let bytes = u64::try_from(durable.frame.len()).unwrap_or(u64::MAX);
        let in_use = &self.shared.journal_bytes;
        in_use.fetch_add(bytes, Ordering::Relaxed);
        self.shared.set_durable(durable.last_lsn());
        Ok(())
    }
}

/// The sync thread's own.
#[derive(Debug)]
pub(crate) struct Sync {
    /// What carries batches through.
    pub(crate) carrier: Carrier,
    /// Where they come from.
    pub(crate) handover: Arc<Handover>,
    /// Where the writer waits for commands.
    pub(crate) commands: SyncSender<Command>,
}

impl Sync {
    /// Runs until the writer has ended, or a write fails.
    pub(crate) fn run(self) {
        while let Some(batch) = self.handover.take() {
            match self.carrier.carry(batch, || self.tell(false)) {
                Ok(spare) => self.handover.lock().spare = spare,
                Err(Poisoned) => return,
            }
        }
    }

    /// Wakes the writer, if it waits until what was taken is written, or has failed.
    fn tell(&self, failed: bool) {
        if !self.handover.written(failed) {
            return;
        }
        let queued = &self.carrier.shared.queued;
        queued.fetch_add(1, Ordering::Relaxed);
        if self.commands.try_send(Command::Look).is_err() {
            queued.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// However it ends, nothing more is written.
impl Drop for Sync {
    fn drop(&mut self) {
        let writable = &self.carrier.shared.writable;
        writable.store(false, Ordering::Release);
        self.tell(true);
    }
}
