//! Signs the ledger's tree as it is read back from the disk, keeps what was signed, and sends it
//! away.
//!
//! Before each signature the tree must still have the root that was signed last: a ledger that was
//! changed, or put back to an older state, is not signed again.

pub(crate) mod push;
pub(crate) mod store;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ledger::{Ledger, QueryError};
use tokio::sync::Notify;

use self::push::{Lag, Sink};
use self::store::{Signed, Store, StoreError};
use crate::app::App;
use crate::clock::Clock;
use crate::config::{Config, chain};
use crate::keys::{self, KeysError};
use crate::note::{NoteKey, NoteSigner};

/// Makes and keeps checkpoints.
#[derive(Debug)]
pub(crate) struct Proof {
    signer: NoteSigner,
    /// Its public key and those of its predecessors, newest first.
    keys: Vec<NoteKey>,
    clock: Clock,
    /// Held while a checkpoint is made, which may take a while.
    store: Mutex<Store>,
    latest: Mutex<Option<Signed>>,
    sinks: Vec<Arc<Sink>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    ended: AtomicBool,
    end: Notify,
}

/// Why a checkpoint cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProofError {
    /// The ledger cannot be read back.
    #[error("cannot read the ledger back")]
    Ledger(#[source] QueryError),
    /// The files of checkpoints cannot be used.
    #[error("cannot use the checkpoints")]
    Store(#[source] StoreError),
    /// The ledger is not the one that was signed.
    #[error(
        "the ledger is not the one whose {size} entries were signed: it was changed, or put back to \
         an older state; nothing is signed until it is as it was (farebox ledger verify)"
    )]
    Forked { size: u64 },
}

/// Why proofs cannot be made at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot use the ledger's signing key")]
    Keys(#[source] KeysError),
    #[error("cannot use the checkpoints")]
    Store(#[source] StoreError),
    #[error("cannot write the public keys to {path}")]
    Public {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl Proof {
    /// Opens keys and checkpoints of one data directory.
    pub(crate) fn open(config: &Config, ledger: &Ledger, clock: Clock) -> Result<Proof, OpenError> {
        let options = &config.proof;
        let data_dir = &config.server.data_dir;
        let mut seeds = keys::of_ledger(data_dir, &clock).map_err(OpenError::Keys)?;
        let origin = if options.origin.is_empty() {
            format!("farebox/{}/{:016x}", config.server.node, ledger.id())
        } else {
            options.origin.clone()
        };
        let public = seeds.iter().rev();
        let keys: Vec<_> = public
            .map(|key| NoteKey::new(origin.clone(), key.verifying_key()))
            .collect();
        let Some(newest) = seeds.pop() else {
            return Err(OpenError::Keys(KeysError::Malformed {
                path: data_dir.join("keys/ledger"),
                fault: "no key at all",
            }));
        };
        let dir = checkpoints_dir(&config.ledger_dir());
        let store = Store::open(&dir, options.checkpoint_days_max).map_err(OpenError::Store)?;
        publish(&dir.join(KEYS_FILE), &keys)?;
        Ok(Proof {
            signer: NoteSigner::new(origin, newest),
            keys,
            clock,
            latest: Mutex::new(store.latest().cloned()),
            store: Mutex::new(store),
            sinks: push::sinks(options, clock),
            threads: Mutex::default(),
            ended: AtomicBool::new(false),
            end: Notify::new(),
        })
    }

    /// The public keys, newest first.
    pub(crate) fn keys(&self) -> &[NoteKey] {
        &self.keys
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest checkpoint, if one was signed.
    pub(crate) fn latest(&self) -> Option<Signed> {
        self.latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The checkpoint over `size` entries, if one was signed.
    pub(crate) fn at(&self, size: u64) -> Result<Option<Signed>, ProofError> {
        self.store().at(size).map_err(ProofError::Store)
    }

    /// Signs the tree as it is now, if it has grown since the last time; answers the newest
    /// checkpoint, which is durable. Blocks: it reads the journal.
    pub(crate) fn sign(&self, ledger: &Ledger) -> Result<Signed, ProofError> {
        // Held all the while: two checkpoints at once could come into the files in either order.
        let mut store = self.store();
        let signed = self.sign_into(&mut store, ledger);
        drop(store);
        match signed {
            Ok((signed, true)) => {
                let shared = Arc::new(signed.clone());
                self.sinks.iter().for_each(|sink| sink.offer(&shared));
                Ok(signed)
            }
            Ok((signed, false)) => Ok(signed),
            Err(error) => {
                metrics::counter!("farebox_checkpoint_failures_total").increment(1);
                tracing::error!(error = chain(&error), "no checkpoint could be signed");
                Err(error)
            }
        }
    }

    /// Says whether the checkpoint is a new one.
    fn sign_into(&self, store: &mut Store, ledger: &Ledger) -> Result<(Signed, bool), ProofError> {
        let head = ledger.read_back().map_err(ProofError::Ledger)?;
        if let Some(last) = store.latest() {
            let forked = ProofError::Forked { size: last.size };
            if last.size > head.size {
                return Err(forked);
            }
            let root = ledger.root_at(last.size).map_err(ProofError::Ledger)?;
            if root != last.root {
                return Err(forked);
            }
            if last.size == head.size {
                return Ok((last.clone(), false));
            }
        }
        let text = self.signer.sign(head.size, &head.root);
        let (size, root) = (head.size, head.root);
        let signed = Signed { size, root, text };
        let appended = store.append(signed.clone(), self.clock.wall_us());
        appended.map_err(ProofError::Store)?;
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(signed.clone());
        tracing::info!(size, origin = self.signer.name(), "signed a checkpoint");
        Ok((signed, true))
    }

    /// How far each place is that checkpoints go to.
    pub(crate) fn lags(&self) -> impl Iterator<Item = Lag> {
        self.sinks.iter().map(|sink| sink.lag())
    }

    /// Starts delivering, with the newest checkpoint that there is.
    pub(crate) fn start(&self) -> std::io::Result<()> {
        let latest = self.latest().map(Arc::new);
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for sink in &self.sinks {
            latest.iter().for_each(|signed| sink.offer(signed));
            threads.push(sink.start()?);
        }
        Ok(())
    }

    /// Ends [`run`], signs what there is once more, and delivers it if the first attempt succeeds.
    /// Blocks.
    pub(crate) fn stop(&self, ledger: &Ledger) {
        self.ended.store(true, Ordering::SeqCst);
        self.end.notify_waiters();
        // What fails here is logged, and tried again by the next start.
        drop(self.sign(ledger));
        self.sinks.iter().for_each(|sink| sink.close());
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that delivers checkpoints has failed");
            }
        }
    }
}

/// Signs every `proof.checkpoint_s` seconds, until the server ends.
pub(crate) async fn run(app: Arc<App>) {
    let every = Duration::from_secs(app.config.proof.checkpoint_s);
    loop {
        let end = app.proof.end.notified();
        tokio::pin!(end);
        // From here on an end is noticed, and one before is seen.
        end.as_mut().enable();
        if app.proof.ended.load(Ordering::SeqCst) {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = end => return,
        }
        let signing = Arc::clone(&app);
        // A failure is logged and counted where it arises.
        drop(
            app.blocking(move || signing.proof.sign(&signing.ledger))
                .await,
        );
    }
}

/// The directory of the checkpoints.
fn checkpoints_dir(ledger_dir: &Path) -> std::path::PathBuf {
    ledger_dir.join("checkpoints")
}

/// The public keys, among the checkpoints: what a copy of the ledger is verified with.
const KEYS_FILE: &str = "keys";

/// Writes the public keys beside the checkpoints, for copies of the ledger.
fn publish(path: &Path, keys: &[NoteKey]) -> Result<(), OpenError> {
    let text: String = keys.iter().map(|key| format!("{key}\n")).collect();
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    std::fs::write(path, text).map_err(|source| OpenError::Public {
        path: path.display().to_string(),
        source,
    })
}
