//! The executions in flight: their state, their output as it comes, and the way to cancel them.
//!
//! ```text
//! admitting -> queued -> running -> finished(record)      the entry goes once the record is kept
//!     \\-> refused(error) | replayed(record of an earlier one)
//! ```
//! The walk alone moves an execution on; everybody else reads, waits for a change, or asks for a
//! cancel. The output kept here is bounded by the execution's own limit, so that a slow reader
//! costs nothing more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use ledger::Left;
use runtime::Stream;
use tokio::sync::{oneshot, watch};

use crate::error::ApiError;
use crate::record::{Record, State};

type Id = [u8; 16];

/// All executions in flight.
#[derive(Debug, Default)]
pub(crate) struct Live {
    by_id: Mutex<HashMap<Id, Arc<Flight>>>,
}

/// One execution in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) id: Id,
    pub(crate) tenant: String,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    /// Apart from `changed`, so that output wakes nobody who waits for the end.
    stage: watch::Sender<Stage>,
    cancelled: watch::Sender<bool>,
}

/// What somebody may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Nothing yet.
    Undecided,
    /// It was admitted, queued or refused.
    Decided,
    /// It has ended, one way or the other.
    Ended,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// What it looks like while it is not finished.
    record: Record,
    chunks: Vec<Chunk>,
    kept: BTreeMap<&'static str, u64>,
    output_max: u64,
    /// Whether a client was told of it before it ran.
    announced: bool,
    /// What its hold has left of the caps on executions.
    left: Vec<Left>,
}

/// Where an execution is.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Nobody has said yes yet.
    Admitting,
    /// It waits.
    Queued,
    /// It has a slot.
    Running,
    /// It is settled.
    Finished(Arc<Record>),
    /// It was refused and never was.
    Refused(ApiError),
    /// It never was: an earlier one with the same key stands for it.
    Replayed(Arc<Record>),
}

impl Phase {
    fn stage(&self) -> Stage {
        match self {
            Phase::Admitting => Stage::Undecided,
            Phase::Queued | Phase::Running => Stage::Decided,
            Phase::Finished(_) | Phase::Refused(_) | Phase::Replayed(_) => Stage::Ended,
        }
    }
}

/// A piece of output.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) stream: &'static str,
    /// Of the first byte, in its stream.
    pub(crate) offset: u64,
    pub(crate) bytes: Arc<[u8]>,
}

impl Live {
    /// Registers an execution that looks like `record` until it has ended.
    pub(crate) fn begin(&self, id: Id, record: Record, output_max: u64) -> Arc<Flight> {
        let inner = Inner {
            phase: Phase::Admitting,
            chunks: Vec::new(),
            kept: BTreeMap::new(),
            output_max,
            announced: false,
            left: Vec::new(),
            record,
        };
        let flight = Arc::new(Flight {
            id,
            tenant: inner.record.tenant.clone(),
            inner: Mutex::new(inner),
            changed: watch::Sender::new(0),
            stage: watch::Sender::new(Stage::Undecided),
            cancelled: watch::Sender::new(false),
        });
        self.lock().insert(id, Arc::clone(&flight));
        flight
    }

    /// The execution, if it is in flight and admitted or being admitted.
    pub(crate) fn get(&self, id: &Id) -> Option<Arc<Flight>> {
        self.lock().get(id).cloned()
    }

    /// The admitted executions of a tenant, or of all.
    pub(crate) fn list(&self, tenant: Option<&str>) -> Vec<Arc<Flight>> {
        let all = self.lock();
        let of = all
            .values()
            .filter(|flight| tenant.is_none_or(|name| flight.tenant == name));
        let mut flights: Vec<_> = of.filter(|flight| flight.is_admitted()).cloned().collect();
        flights.sort_by_key(|flight| flight.id);
        flights
    }

    /// Forgets an execution; readers that hold on to it still see its end.
    pub(crate) fn end(&self, id: &Id) {
        self.lock().remove(id);
    }

    pub(crate) fn cancel_all(&self) {
        for flight in self.lock().values() {
            flight.cancel();
        }
    }

    /// How many are in flight.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Id, Arc<Flight>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Moves it on; `touch` brings what it looks like up to date.
    pub(crate) fn advance(&self, phase: Phase, touch: impl FnOnce(&mut Record)) {
        let mut inner = self.lock();
        touch(&mut inner.record);
        inner.record.state = match phase {
            Phase::Admitting | Phase::Queued => State::Queued,
            Phase::Refused(_) | Phase::Replayed(_) => State::Queued,
            Phase::Running => State::Running,
            Phase::Finished(_) => State::Finished,
        };
        inner.announced |= matches!(phase, Phase::Queued);
        let stage = phase.stage();
        inner.phase = phase;
        drop(inner);
        self.notify();
        self.stage.send_if_modified(|now| {
            let moved = *now < stage;
            *now = stage.max(*now);
            moved
        });
    }

    /// Keeps a piece of output for those who follow, up to the execution's limit.
    pub(crate) fn output(&self, stream: Stream, bytes: &[u8]) {
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let mut inner = self.lock();
        let max = inner.output_max;
        let kept = inner.kept.entry(name).or_default();
        let offset = *kept;
        let room = usize::try_from(max.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        if bytes.is_empty() {
            return;
        }
        *kept += u64::try_from(bytes.len()).unwrap_or(0);
        inner.chunks.push(Chunk {
            stream: name,
            offset,
            bytes: Arc::from(bytes),
        });
        drop(inner);
        self.notify();
    }

    /// Notes what its hold has left of the caps on executions.
    pub(crate) fn note_left(&self, left: Vec<Left>) {
        self.lock().left = left;
    }

    /// What its hold has left; nothing while it has none.
    pub(crate) fn left(&self) -> Vec<Left> {
        self.lock().left.clone()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase.clone()
    }

    pub(crate) fn is_admitted(&self) -> bool {
        let unknown = |phase: &Phase| {
            matches!(
                phase,
                Phase::Admitting | Phase::Refused(_) | Phase::Replayed(_)
            )
        };
        !unknown(&self.lock().phase)
    }

    /// Whether a client was told of it before it ran, and so must find out what became of it.
    pub(crate) fn was_announced(&self) -> bool {
        self.lock().announced
    }

    /// What it looks like now.
    pub(crate) fn record(&self) -> Arc<Record> {
        let inner = self.lock();
        match &inner.phase {
            Phase::Finished(record) => Arc::clone(record),
            _ => Arc::new(inner.record.clone()),
        }
    }

    /// Where it is, and the pieces of output from the `from`-th on, of one moment: no end without
    /// all output. Its record, read after this, has the start of whatever output there is.
    pub(crate) fn news(&self, from: usize) -> (Phase, Vec<Chunk>) {
        let inner = self.lock();
        let chunks = inner.chunks.get(from..).unwrap_or_default().to_vec();
        (inner.phase.clone(), chunks)
    }

    /// Tells of every change after this call.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until it is there, or further on.
    pub(crate) async fn until(&self, stage: Stage) -> Phase {
        let mut reached = self.stage.subscribe();
        // The sender lives in `self`, so that this cannot fail while it is awaited.
        drop(reached.wait_for(|now| *now >= stage).await);
        self.phase()
    }

    /// Asks for its end; the walk hears of it wherever it is.
    pub(crate) fn cancel(&self) {
        self.cancelled.send_replace(true);
    }

    /// Resolves once somebody has asked for its end.
    pub(crate) async fn until_cancelled(&self) {
        let mut cancelled = self.cancelled.subscribe();
        // The sender lives in `self`, so that this cannot fail while it is awaited.
        drop(cancelled.wait_for(|cancelled| *cancelled).await);
    }

    /// A receiver that fires at a cancel, for the runtime; the sender's task ends with the
    /// execution.
    pub(crate) fn cancel_signal(self: &Arc<Flight>) -> oneshot::Receiver<()> {
        let (mut sender, receiver) = oneshot::channel();
        let flight = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = flight.until_cancelled() => drop(sender.send(())),
                () = sender.closed() => {}
            }
        });
        receiver
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::records::tests::record;

    #[test]
    fn nobody_sees_output_without_a_start_or_an_end_without_all_output() {
        for n in 0..200 {
            let id = [n; 16];
            let looks = record(id, "acme", "");
            let mut ended = Record::clone(&looks);
            ended.started_at = Some("now".to_owned());
            let ended = Arc::new(ended);
            let flight = Live::default().begin(id, Record::clone(&looks), 1 << 10);
            thread::scope(|scope| {
                scope.spawn(|| {
                    flight.advance(Phase::Running, |record| {
                        record.started_at = Some("now".to_owned());
                    });
                    flight.output(Stream::Stdout, b"one");
                    flight.output(Stream::Stdout, b"two");
                    flight.advance(Phase::Finished(Arc::clone(&ended)), |_| {});
                });
                loop {
                    let (phase, chunks) = flight.news(0);
                    let record = flight.record();
                    if matches!(phase, Phase::Finished(_)) {
                        assert_eq!(chunks.len(), 2);
                        break;
                    }
                    assert!(chunks.is_empty() || record.started_at.is_some());
                }
            });
        }
    }
}
