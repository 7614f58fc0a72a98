//! What the threads of a ledger and its handles share.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::Duration;

use crate::clock::{Clock, Micros};
use crate::denials::Denied;
use crate::error::Error;
use crate::index::Index;
use crate::journal::segment;
use crate::options::Options;
use crate::statement::Kept;
use crate::tree::Tree;
use crate::view::View;

/// How long a read waits for what was durable when it came.
const READ_WAIT: Duration = Duration::from_millis(200);

/// How long the writer waits before it looks again whether the commits have caught up.
const TAIL_WAIT: Duration = Duration::from_millis(100);

/// Quarters of [`Options::tail_max`] after which a commit is wanted before its time: the later, the
/// fewer rows are written for a command, but the rest is all that the writer can do meanwhile.
const DUE_QUARTERS: u64 = 3;

/// Sealed indexes kept in memory, about 7 MiB each.
const INDEXES_KEPT: usize = 4;

/// How the commit thread shall end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// Write everything, then end.
    Orderly,
    /// End as a crash would.
    Abandon,
}

/// How far the files made from the journal are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Committed {
    /// The last command in the view's database.
    pub(crate) view_lsn: u64,
    /// The last command in the checkpoint.
    pub(crate) checkpoint_lsn: u64,
    /// The last commit failed.
    pub(crate) failed: bool,
    /// A commit is wanted before its time.
    pub(crate) due: bool,
    /// Commits shall end.
    pub(crate) stop: Option<Stop>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The configuration.
    pub(crate) options: Options,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    view: RwLock<View>,
    absorbed: Mutex<u64>,
    absorbed_more: Condvar,
    committed: Mutex<Committed>,
    committed_more: Condvar,
    durable_lsn: AtomicU64,
    /// Whether commands are recorded.
    pub(crate) writable: AtomicBool,
    /// Whether there is room for holds.
    pub(crate) room: AtomicBool,
    /// Commands in the queue.
    pub(crate) queued: AtomicU64,
    /// Bytes of the journal in use.
    pub(crate) journal_bytes: AtomicU64,
    /// When the first command of the batch was decided that the view takes in now.
    absorbing: Mutex<Option<Micros>>,
    denied: Mutex<Denied>,
    /// Sealed indexes that were read last.
    indexes: Mutex<VecDeque<Arc<Index>>>,
    /// The stored tree, once a proof was asked for.
    pub(crate) tree: Mutex<Option<Tree>>,
    /// Statements that cannot change any more.
    pub(crate) statements: Kept,
}

impl Shared {
    /// Shared state around a recovered view.
    pub(crate) fn new(
        options: Options,
        clock: Arc<dyn Clock>,
        view: View,
        done: Committed,
    ) -> Self {
        let lsn = view.state.lsn;
        let denied = Denied::new(options.denial_counters_max, options.denials_ring);
        Self {
            options,
            clock,
            view: RwLock::new(view),
            absorbed: Mutex::new(lsn),
            absorbed_more: Condvar::new(),
            committed: Mutex::new(done),
            committed_more: Condvar::new(),
            durable_lsn: AtomicU64::new(lsn),
            writable: AtomicBool::new(true),
            room: AtomicBool::new(true),
            queued: AtomicU64::new(0),
            journal_bytes: AtomicU64::new(0),
            absorbing: Mutex::new(None),
            denied: Mutex::new(denied),
            indexes: Mutex::new(VecDeque::new()),
            tree: Mutex::new(None),
            statements: Kept::default(),
        }
    }

    /// The view, including everything that was durable when this was called, unless that takes
    /// longer than a read may wait.
    pub(crate) fn fresh_view(&self) -> RwLockReadGuard<'_, View> {
        let durable = self.durable();
        let absorbed = self.absorbed.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = |absorbed: &mut u64| *absorbed < durable;
        drop(
            self.absorbed_more
                .wait_timeout_while(absorbed, READ_WAIT, behind),
        );
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view as it is.
    pub(crate) fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view, to change it.
    pub(crate) fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view takes in a batch that begins with a command of that time. What waits behind it is
    /// younger.
    pub(crate) fn absorbing(&self, since: Option<Micros>) {
        *self
            .absorbing
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// How old the oldest durable command is that reads do not include.
    pub(crate) fn read_lag_us(&self, now: Micros) -> u64 {
        let absorbing = self
            .absorbing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        absorbing.map_or(0, |since| {
            u64::try_from(now.saturating_sub(since)).unwrap_or(0)
        })
    }

    /// The view includes everything up to `lsn`.
    pub(crate) fn absorbed(&self, lsn: u64) {
        self.absorbing(None);
        *self.absorbed.lock().unwrap_or_else(PoisonError::into_inner) = lsn;
        self.absorbed_more.notify_all();
        let mut committed = self.committed();
        let behind = lsn.saturating_sub(committed.view_lsn);
        if !committed.due && behind > self.options.tail_max / 4 * DUE_QUARTERS {
            committed.due = true;
            self.committed_more.notify_all();
        }
    }

    /// The last command that reads include.
    pub(crate) fn absorbed_lsn(&self) -> u64 {
        *self.absorbed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last durable command.
    pub(crate) fn durable(&self) -> u64 {
        self.durable_lsn.load(Ordering::Acquire)
    }

    /// Everything up to `lsn` is durable.
    pub(crate) fn set_durable(&self, lsn: u64) {
        self.durable_lsn.store(lsn, Ordering::Release);
    }

    /// How far the commits are.
    pub(crate) fn committed(&self) -> MutexGuard<'_, Committed> {
        self.committed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how far the commits are, or what is wanted of them.
    pub(crate) fn set_committed(&self, change: impl FnOnce(&mut Committed)) {
        change(&mut self.committed());
        self.committed_more.notify_all();
    }

    /// Waits until a commit is wanted or `interval` has passed; says how far commits are then.
    pub(crate) fn wait_commit(&self, interval: Duration) -> Committed {
        let idle = |committed: &mut Committed| !committed.due && committed.stop.is_none();
        let waiting = self
            .committed_more
            .wait_timeout_while(self.committed(), interval, idle);
        let mut committed = waiting.unwrap_or_else(PoisonError::into_inner).0;
        committed.due = false;
        *committed
    }

    /// Waits while the files made from the journal lie too far behind it, so that an open after a
    /// crash stays short. Where they cannot be written there is nothing to wait for.
    pub(crate) fn wait_tail(&self) {
        let durable = self.durable();
        let mut committed = self.committed();
        loop {
            let behind = durable.saturating_sub(committed.view_lsn.min(committed.checkpoint_lsn));
            if behind <= self.options.tail_max || committed.failed || committed.stop.is_some() {
                return;
            }
            if !committed.due {
                committed.due = true;
                self.committed_more.notify_all();
            }
            let waiting = self.committed_more.wait_timeout(committed, TAIL_WAIT);
            committed = waiting.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What is remembered of refusals.
    pub(crate) fn denied(&self) -> MutexGuard<'_, Denied> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of a sealed segment; the last few are kept.
    pub(crate) fn index(&self, number: u32) -> Result<Arc<Index>, Error> {
        let kept = || self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept()
            .iter()
            .find(|index| index.segment == number)
            .map(Arc::clone);
        if let Some(index) = found {
            return Ok(index);
        }
        let path = segment::index_path(&self.options.dir, number);
        let index = Index::read(&path)?
            .map(Arc::new)
            .ok_or_else(|| Error::File {
                what: "read the index",
                path,
                source: io::Error::from(io::ErrorKind::InvalidData),
            })?;
        let mut kept = kept();
        kept.push_front(Arc::clone(&index));
        kept.truncate(INDEXES_KEPT);
        Ok(index)
    }
}
