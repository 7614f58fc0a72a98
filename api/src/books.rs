//! CPU time that this server has settled since it started, to be held against what the kernel has
//! counted for all its sandboxes together.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use ledger::Quantities;
use tokio::sync::Semaphore;

/// Sums since the start.
#[derive(Debug)]
pub(crate) struct Books {
    /// When the server began to serve.
    since_us: AtomicI64,
    /// The kernel's counter then.
    baseline_us: AtomicU64,
    /// What of that sandboxes had used before they were anybody's.
    made_before_us: AtomicU64,
    executions: AtomicU64,
    charged_us: AtomicU64,
    overrun_us: AtomicU64,
    released: AtomicU64,
    /// One reconciliation at a time: each may read a month of entries.
    pub(crate) turn: Semaphore,
}

/// The sums at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    /// When the server began to serve.
    pub(crate) since_us: i64,
    pub(crate) baseline_us: u64,
    pub(crate) made_before_us: u64,
    /// Executions that were settled.
    pub(crate) executions: u64,
    /// CPU time of theirs that was charged.
    pub(crate) charged_us: u64,
    /// What was measured above that.
    pub(crate) overrun_us: u64,
    /// Executions that were released without a charge.
    pub(crate) released: u64,
}

impl Books {
    pub(crate) fn new() -> Books {
        Books {
            since_us: AtomicI64::new(0),
            baseline_us: AtomicU64::new(0),
            made_before_us: AtomicU64::new(0),
            executions: AtomicU64::new(0),
            charged_us: AtomicU64::new(0),
            overrun_us: AtomicU64::new(0),
            released: AtomicU64::new(0),
            turn: Semaphore::new(1),
        }
    }

    /// Begins to count: nothing of this server's runs yet.
    pub(crate) fn begin(&self, since_us: i64, baseline_us: u64, made_before_us: u64) {
        self.since_us.store(since_us, Ordering::SeqCst);
        self.baseline_us.store(baseline_us, Ordering::SeqCst);
        self.made_before_us.store(made_before_us, Ordering::SeqCst);
    }

    /// An execution was settled: what the ledger's receipt says.
    pub(crate) fn settled(&self, posted: &Quantities, overrun: &Quantities) {
        self.charged_us.fetch_add(posted.cpu_us, Ordering::SeqCst);
        self.overrun_us.fetch_add(overrun.cpu_us, Ordering::SeqCst);
        self.executions.fetch_add(1, Ordering::SeqCst);
    }

    /// An execution was released without a charge.
    pub(crate) fn released(&self) {
        self.released.fetch_add(1, Ordering::SeqCst);
    }

    /// The sums so far. Read them before the kernel's counter: that is then never behind them.
    pub(crate) fn sums(&self) -> Settled {
        Settled {
            since_us: self.since_us.load(Ordering::SeqCst),
            baseline_us: self.baseline_us.load(Ordering::SeqCst),
            made_before_us: self.made_before_us.load(Ordering::SeqCst),
            executions: self.executions.load(Ordering::SeqCst),
            charged_us: self.charged_us.load(Ordering::SeqCst),
            overrun_us: self.overrun_us.load(Ordering::SeqCst),
            released: self.released.load(Ordering::SeqCst),
        }
    }
}
