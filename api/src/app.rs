//! What every request can reach, in one struct that lives as long as the server.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ledger::Ledger;
use runtime::Runtime;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::books::Books;
use crate::budgets::Watch;
use crate::clock::Clock;
use crate::config::Config;
use crate::execute::ahead::Granted;
use crate::gate::Gate;
use crate::images::ImageSource;
use crate::kept::KeptFiles;
use crate::keys::Keys;
use crate::live::Live;
use crate::machine::Machine;
use crate::outbox::Outbox;
use crate::proof::Proof;
use crate::records::Records;
use crate::registry::Registry;
use crate::tasks::Tasks;
use crate::token::Remembered;
use crate::turns::Turns;

/// The server's state.
#[derive(Debug)]
pub(crate) struct App {
    /// As it was at start; nothing changes it.
    pub(crate) config: Config,
    /// The only clocks there are.
    pub(crate) clock: Clock,
    /// Who used and owes what.
    pub(crate) ledger: Ledger,
    /// Runs untrusted code.
    pub(crate) runtime: Runtime,
    /// Whose sandbox may be taken before its hold is durable.
    pub(crate) granted: Granted,
    /// Where images are looked up.
    pub(crate) images: Arc<dyn ImageSource>,
    /// Signs and verifies tokens.
    pub(crate) keys: Keys,
    /// Tokens that were found good lately.
    pub(crate) remembered: Remembered,
    /// Signs the ledger's checkpoints.
    pub(crate) proof: Proof,
    /// CPU time settled since the start.
    pub(crate) books: Books,
    /// Tenants, tokens, revocations.
    pub(crate) registry: Registry,
    /// The machine's slots.
    pub(crate) machine: Machine,
    /// The queues of asynchronous executions.
    pub(crate) turns: Turns,
    /// Executions in flight.
    pub(crate) live: Live,
    /// The files of failed runs that are kept for reading.
    pub(crate) kept: Arc<KeptFiles>,
    /// Executions that have ended.
    pub(crate) records: Records,
    /// What webhooks are to be told.
    pub(crate) outbox: Arc<Outbox>,
    /// Tenants whose budgets are to be looked at.
    pub(crate) watch: Watch,
    /// Work that no connection owns, and that the server waits for before it ends.
    pub(crate) tasks: Tasks,
    /// Where that work runs: the server's own threads, not those that serve connections.
    pub(crate) walk: Handle,
    /// Reports that are being made.
    pub(crate) reports: Arc<Gate>,
    /// Event streams that may still be opened.
    pub(crate) event_streams: Arc<Semaphore>,
    /// Whether the live sandbox's posture was found right.
    pub(crate) posture_ok: AtomicBool,
    /// Whether the server is about to end.
    pub(crate) draining: AtomicBool,
    /// Requests being answered.
    pub(crate) requests: AtomicUsize,
}

impl App {
    /// Runs `work` to its end, whoever stops waiting for it.
    pub(crate) fn detach<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.walk.spawn(self.tasks.track(work))
    }

    /// Runs `work`, which blocks, where it holds up nobody.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, crate::error::ApiError> {
        self.walk
            .spawn_blocking(work)
            .await
            .map_err(crate::error::ApiError::internal)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }
}
