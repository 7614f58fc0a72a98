//! The handle to a ledger: commands in, tickets out, and reads that never wait for the writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::absorb;
use crate::charges::Charges;
use crate::clock::{Clock, Micros};
use crate::command::{Act, Held, HoldRequest, Receipt, Recorded, Released, Settlement};
use crate::commit;
use crate::decide::{self, Desk};
use crate::entries;
use crate::entry::{Entry, Hold};
use crate::error::{Busy, Error, OpenError, QueryError};
use crate::id::Id;
use crate::journal::disk::{Disk, FileDisk};
use crate::money::Money;
use crate::options::Options;
use crate::query::{
    ChargeQuery, Denials, Document, EntryPage, EntryQuery, Estimate, GrantState, Head, Health,
    Terms, UsageQuery, UsageReport,
};
use crate::rate::RateCard;
use crate::reconcile::{self, Reconciled};
use crate::recover::{self, Recovered};
use crate::rejection::Rejection;
use crate::shared::{Shared, Stop};
use crate::state::{Bounds, Subject};
use crate::sync::{Carrier, Handover, Sync};
use crate::ticket::{Answer, Ticket, ticket};
use crate::usage;
use crate::writer::{Command, Holding, Kept, Settling, Writer};

/// Batches that may wait for the view before the writer waits for it.
const BATCHES: usize = 64;

/// Batches taken in that wait to be filled again.
const SPENT: usize = 4;

/// A ledger; cheap to clone. Every command is durable before its ticket resolves.
///
/// Its threads end with [`Ledger::close`], or when the last clone is dropped: then nothing durable
/// is lost, but the next open has more to replay.
#[derive(Clone, Debug)]
pub struct Ledger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    commands: SyncSender<Command>,
    closed: AtomicBool,
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    writer: JoinHandle<()>,
    sync: JoinHandle<()>,
    view: JoinHandle<()>,
    commit: JoinHandle<()>,
    /// Held until all of them have ended.
    lock: std::fs::File,
}

impl Ledger {
    /// Opens the ledger in `options.dir`, recovering whatever a crash has left.
    pub fn open(options: Options, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_on(options, clock, Arc::new(FileDisk))
    }

    /// Opens the ledger with its journal on the given disk.
    pub(crate) fn open_on(
        options: Options,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, OpenError> {
        if let Some((key, fault)) = options.faults().into_iter().next() {
            return Err(OpenError::Options { key, fault });
        }
        let Recovered {
            lock,
            view,
            journal,
            committed,
            journal_bytes,
        } = recover::recover(&options, &disk)?;
        let (commands, queue) = mpsc::sync_channel(options.queue);
        let (batches, durable) = mpsc::sync_channel(BATCHES);
        let (taken_in, spent) = mpsc::sync_channel(SPENT);
        let state = view.state.clone();
        let counted = state.bounds;
        let shared = Arc::new(Shared::new(options, clock, view, committed));
        shared.journal_bytes.store(journal_bytes, Ordering::Relaxed);
        let handover = Arc::new(Handover::default());
        let carrier = Carrier {
            shared: Arc::clone(&shared),
            view: batches,
        };
        let writer = Writer {
            bounds: Bounds::of(&shared.options),
            shared: Arc::clone(&shared),
            journal,
            state,
            commands: queue,
            carrier: carrier.clone(),
            handover: Arc::clone(&handover),
            spent,
            kept: Kept::default(),
        };
        let sync = Sync {
            carrier,
            handover,
            commands: commands.clone(),
        };
        let (for_view, for_commit) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = Threads {
            writer: start("writer", move || writer.run())?,
            sync: start("sync", move || sync.run())?,
            view: start("view", move || absorb::run(&for_view, &durable, &taken_in))?,
            commit: start("commit", move || commit::run(&for_commit))?,
            lock,
        };
        let threads = Mutex::new(Some(threads));
        let closed = AtomicBool::new(false);
        let ledger = Self {
            inner: Arc::new(Inner {
                shared,
                commands,
                closed,
                threads,
            }),
        };
        ledger.record_bounds(counted);
        Ok(ledger)
    }

    /// Sets aside the worst case of a run. Busy while the queue is full, the disk has no room for
    /// another segment, or the ledger cannot be written.
    pub fn hold(&self, request: HoldRequest) -> Result<Ticket<Result<Held, Rejection>>, Busy> {
        if !self.inner.shared.room.load(Ordering::Acquire) {
            self.poke();
            return Err(Busy::NoRoom);
        }
        self.inner
            .send(|answer| Command::Hold(Box::new(Holding::new(request)), answer))
    }

    /// Ends a hold with a charge.
    pub fn settle(
        &self,
        settlement: Settlement,
    ) -> Result<Ticket<Result<Receipt, Rejection>>, Busy> {
        self.inner
            .send(|answer| Command::Settle(Box::new(Settling::new(settlement)), answer))
    }

    /// Ends a hold without a charge.
    pub fn release(
        &self,
        hold: Id,
        reason: String,
    ) -> Result<Ticket<Result<Released, Rejection>>, Busy> {
        self.inner
            .send(|answer| Command::Release(hold, reason, answer))
    }

    /// Records an administrative act.
    pub fn act(&self, act: Act) -> Result<Ticket<Result<Recorded, Rejection>>, Busy> {
        self.inner
            .send(|answer| Command::Act(Box::new(act), answer))
    }

    /// Lets the writer look for room again: it does so with each batch, and holds make none
    /// while there is no room.
    fn poke(&self) {
        let queued = &self.inner.shared.queued;
        queued.fetch_add(1, Ordering::Relaxed);
        if self.inner.commands.try_send(Command::Look).is_err() {
            queued.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The latest document of a subject.
    pub fn document(&self, subject: &str) -> Option<Document> {
        let view = self.inner.shared.fresh_view();
        view.state
            .subject(subject)
            .and_then(|found| document(subject, found))
    }

    /// The latest documents of all subjects that begin with `prefix`, in their order.
    pub fn documents(&self, prefix: &str) -> Vec<Document> {
        let view = self.inner.shared.fresh_view();
        view.state
            .subjects(prefix)
            .filter_map(|(name, found)| document(name, found))
            .collect()
    }

    /// All open holds, oldest first.
    pub fn open_holds(&self) -> Vec<Arc<Hold>> {
        self.inner.shared.fresh_view().state.open_holds()
    }

    /// By which cards a tenant is charged and what credit it has; `None` for an unknown tenant.
    pub fn terms(&self, tenant: &str) -> Option<Terms> {
        let now = self.inner.shared.clock.now_us();
        let view = self.inner.shared.fresh_view();
        let at = now.max(view.state.at);
        let tenant = view.state.tenant(tenant)?;
        let card = view.state.card_for(tenant, at).map(|card| &card.card);
        let (_, held) = tenant.lifetime();
        let left = tenant.credit.grants().iter();
        Some(Terms {
            rate_card: tenant.card.clone(),
            currency: card.map(|card| card.currency.clone()),
            prepaid: tenant.credit.prepaid,
            available: tenant.credit.available(at),
            held: Money(held.cost),
            grants: left
                .map(|one| GrantState {
                    entry: one.seq,
                    grant: one.grant.clone(),
                    left: one.left,
                })
                .collect(),
        })
    }

    /// What a hold would be opened with now, or why it would be refused. Opens nothing and counts
    /// no denial; another hold may take the room at any moment.
    ///
    /// # Errors
    /// As [`Ledger::hold`] would be refused.
    pub fn estimate(&self, request: &HoldRequest) -> Result<Estimate, Rejection> {
        let shared = &self.inner.shared;
        let now = shared.clock.now_us();
        let view = shared.fresh_view();
        let desk = Desk {
            state: &view.state,
            options: &shared.options,
            at: now.max(view.state.at),
            now,
        };
        decide::hold(desk, request, None).map(|terms| terms.estimate(&view.state))
    }

    /// All rate cards with the entries that recorded them, oldest entry first.
    pub fn rate_cards(&self) -> Vec<(u64, Arc<RateCard>)> {
        let view = self.inner.shared.fresh_view();
        let cards = view.state.cards().iter();
        cards
            .map(|card| (card.seq, Arc::clone(&card.card)))
            .collect()
    }

    /// Usage per window and group.
    pub fn usage(&self, query: &UsageQuery) -> Result<UsageReport, QueryError> {
        usage::usage(&self.inner.shared, query)
    }

    /// Holds entries, rows and balances against each other, each found by itself; `from` and `to`
    /// lie on hours, and at most `entries_max` entries are read.
    pub fn reconcile(
        &self,
        from: Micros,
        to: Micros,
        entries_max: u64,
    ) -> Result<Reconciled, QueryError> {
        reconcile::reconcile(&self.inner.shared, from, to, entries_max)
    }

    /// Settlements one after the other, up to what is durable now.
    pub fn charges(&self, query: ChargeQuery) -> Charges {
        Charges::new(Arc::clone(&self.inner.shared), query)
    }

    /// Entries in the order of their numbers.
    pub fn entries(&self, query: &EntryQuery) -> Result<EntryPage, QueryError> {
        entries::entries(&self.inner.shared, query)
    }

    /// The settlement of an execution.
    pub fn settlement_of(&self, execution: Id) -> Result<Option<Entry>, QueryError> {
        entries::settlement_of(&self.inner.shared, &execution)
    }

    /// Refusals since the ledger was opened; of one tenant, or of all.
    pub fn denials(&self, tenant: Option<&str>) -> Denials {
        self.inner.shared.denied().list(tenant)
    }

    /// Size and root of the durable entries.
    pub fn head(&self) -> Head {
        let view = self.inner.shared.fresh_view();
        Head {
            size: view.frontier.size(),
            root: view.frontier.root(),
            lsn: view.state.lsn,
        }
    }

    /// How the ledger is.
    pub fn health(&self) -> Health {
        let shared = &self.inner.shared;
        let committed = *shared.committed();
        let now = shared.clock.now_us();
        let read_lag_us = shared.read_lag_us(now);
        let view = shared.view();
        Health {
            writable: shared.writable.load(Ordering::Acquire),
            room: shared.room.load(Ordering::Acquire),
            queue_depth: shared.queued.load(Ordering::Relaxed),
            durable_lsn: shared.durable(),
            absorbed_lsn: view.state.lsn,
            view_lsn: committed.view_lsn,
            checkpoint_lsn: committed.checkpoint_lsn,
            view: view.rows_fault.is_none() && !committed.failed,
            open_holds: u64::try_from(view.state.holds_len()).unwrap_or(u64::MAX),
            journal_bytes: shared.journal_bytes.load(Ordering::Relaxed),
            journal_segments: view.position.segment.into(),
            read_lag_us,
            view_lag_us: view.unwritten.age_us(now),
            view_bytes: view.rows.store().bytes(),
            clock_ahead_us: u64::try_from(view.state.at.saturating_sub(now)).unwrap_or(0),
        }
    }

    /// What its threads share.
    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Answers what is queued, then writes checkpoint and view, and ends the threads. Commands
    /// after it are refused, also through other clones.
    pub fn close(self) -> Result<(), Error> {
        self.inner.end(Stop::Orderly)
    }
}

impl Inner {
    fn send<T>(
        &self,
        command: impl FnOnce(Answer<Result<T, Rejection>>) -> Command,
    ) -> Result<Ticket<Result<T, Rejection>>, Busy> {
        let writable = self.shared.writable.load(Ordering::Acquire);
        if !writable || self.closed.load(Ordering::Acquire) {
            return Err(Busy::NotWritable);
        }
        let (ticket, answer) = ticket();
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        self.commands.try_send(command(answer)).map_err(|error| {
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => Busy::QueueFull,
                TrySendError::Disconnected(_) => Busy::NotWritable,
            }
        })?;
        Ok(ticket)
    }

    fn end(&self, stop: Stop) -> Result<(), Error> {
        self.closed.store(true, Ordering::Release);
        let threads = self
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(Threads {
            writer,
            sync,
            view,
            commit,
            lock,
        }) = threads
        else {
            return Ok(());
        };
        // A writer that has ended already takes no message, and needs none.
        let told = self.commands.send(Command::Close);
        tracing::debug!(running = told.is_ok(), "closing the ledger");
        join("writer", writer)?;
        join("sync", sync)?;
        join("view", view)?;
        self.shared
            .set_committed(|committed| committed.stop = Some(stop));
        join("commit", commit)?;
        drop(lock);
        let failed = self.shared.committed().failed;
        if failed {
            Err(Error::Thread { thread: "commit" })
        } else {
            Ok(())
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.end(Stop::Abandon) {
            tracing::error!(%error, "the ledger did not end well");
        }
    }
}

fn start(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let spawned = thread::Builder::new()
        .name(format!("ledger-{name}"))
        .spawn(work);
    spawned.map_err(|_source| Error::Thread { thread: name })
}

fn join(thread: &'static str, handle: JoinHandle<()>) -> Result<(), Error> {
    handle.join().map_err(|_panic| Error::Thread { thread })
}

fn document(subject: &str, found: &Subject) -> Option<Document> {
    let bytes = found.document.as_ref()?;
    Some(Document {
        subject: subject.to_owned(),
        seq: found.seq,
        at: found.at,
        bytes: Arc::clone(bytes),
    })
}

mod books;
mod prove;
mod quotas;
pub use self::prove::{Consistency, Inclusion};

#[cfg(test)]
mod closing;
#[cfg(test)]
mod model;
#[cfg(test)]
mod paid;
#[cfg(test)]
mod scopes;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod windows;
