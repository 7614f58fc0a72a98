//! The runtime on a real launcher: one task reads what it says, everyone else waits for their part
//! of it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::channel::Channel;
use super::forks::Forks;
use super::shares::Shares;
use super::turns::Turns;
use super::warm::Ahead;
use super::{Final, Options};
use crate::cgroup::CpuCounter;
use crate::clock::Monotonic;
use crate::error::{Error, Fault, PostureError, StartError};
use crate::launcher::LauncherHandle;
use crate::spec::{Digest, Network, SandboxId, SandboxSpec};
use crate::wire::{self, FRAME_MAX, FinalRecord, FromLauncher, Id, Refusal, ToShim, WireImage};

/// How long the launcher may take to say that it is up: an earlier one may hold the state for 10 s,
/// and sweeping what it left takes as long again at most.
const UP: Duration = Duration::from_secs(30);

/// How long the launcher may take to end with everything that it has made.
const DOWN: Duration = Duration::from_secs(30);

/// Handle on the launcher; shared by the runtime and every sandbox.
#[derive(Debug)]
pub(crate) struct Live {
    pub(super) launcher: Channel,
    /// What all sandboxes have used, as the launcher has opened it.
    cpu: Option<CpuCounter>,
    /// What all templates have used, and had when the launcher came up.
    templates_cpu: Option<(CpuCounter, u64)>,
    child: Mutex<Option<Child>>,
    pub(crate) clock: Monotonic,
    pub(crate) options: Options,
    state: Mutex<State>,
    pub(super) shares: Arc<Shares>,
    pub(super) turns: Arc<Turns>,
    /// What stands ready.
    pub(super) ahead: Ahead,
    pub(super) forks: Forks,
    /// Told whenever `state` changes or the launcher goes.
    pub(super) changed: Notify,
    healthy: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Sandboxes that were asked for and not answered yet.
    asked: HashMap<Id, oneshot::Sender<Refusal>>,
    /// Sandboxes whose slots are taken.
    slots: HashSet<Id>,
    /// Sandboxes that will soon be gone: those that have been answered for, and those of which it
    /// is not certain that anything will run in them.
    ending: HashSet<Id>,
    /// How many have gone.
    gone: u64,
    /// Shims that wait to hear that their figures are safe.
    unsettled: HashMap<Id, Channel>,
    /// Shims that keep files; none while their figures are not safe. Closing the socket ends them.
    kept: HashMap<Id, Option<Channel>>,
}

/// How many sandboxes are made at a time: one a CPU, and one for when another waits for the kernel.
fn at_once() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) + 1
}

impl Live {
    /// Waits until the launcher is up, and starts the task that listens to it.
    pub(crate) async fn connect(
        launcher: LauncherHandle,
        options: Options,
    ) -> Result<Arc<Live>, Error> {
        let (socket, child) = launcher.into_parts();
        let launcher =
            Channel::new(socket, FRAME_MAX).map_err(|source| Error::LauncherSocket { source })?;
        let gone = |reason: String| Error::LauncherDown { reason };
        let descriptors = match timeout(UP, launcher.recv::<FromLauncher>()).await {
            Ok(Ok(Some((FromLauncher::Up { .. }, descriptors)))) => descriptors,
            Ok(Ok(Some((FromLauncher::Unable { step, reason }, _)))) => {
                return Err(gone(format!("cannot {}: {}", tame(&step), tame(&reason))));
            }
            Ok(Ok(Some(_))) => return Err(gone("it speaks out of turn".to_owned())),
            Ok(Ok(None)) => return Err(gone("it ended; its log says why".to_owned())),
            Ok(Err(error)) => return Err(gone(error.to_string())),
            Err(_elapsed) => return Err(gone(format!("it is not up after {} s", UP.as_secs()))),
        };
        let mut counters = descriptors
            .into_iter()
            .map(|file| CpuCounter::new(File::from(file)));
        let (cpu, templates_cpu) = (counters.next(), counters.next());
        let live = Arc::new(Live {
            launcher,
            cpu,
            templates_cpu: templates_cpu.map(|counter| {
                let then_us = counter.used_us().unwrap_or(0);
                (counter, then_us)
            }),
            child: Mutex::new(Some(child)),
            clock: Monotonic::start(),
            ahead: Ahead::new(options.pool),
            forks: Forks::new(options.templates),
            options: options.clone(),
            state: Mutex::default(),
            shares: Arc::default(),
            turns: Arc::new(Turns::new(at_once())),
            changed: Notify::new(),
            healthy: AtomicBool::new(true),
        });
        tokio::spawn(Arc::clone(&live).listen());
        tokio::spawn(Arc::clone(&live.shares).keep_fair(live.clock));
        if options.pool.max > 0 {
            tokio::spawn(Arc::clone(&live).tend());
        }
        Ok(live)
    }

    /// Listens to the launcher until it is gone.
    async fn listen(self: Arc<Live>) {
        loop {
            match self.launcher.recv::<FromLauncher>().await {
                Ok(Some((FromLauncher::Refused { sandbox, reason }, _))) => {
                    let asked = {
                        let mut state = self.state();
                        state.slots.remove(&sandbox);
                        state.asked.remove(&sandbox)
                    };
                    // Whoever asked may have given up.
                    drop(asked.map(|asked| asked.send(reason)));
                }
                Ok(Some((FromLauncher::Gone { sandbox }, _))) => self.note_gone(sandbox),
                Ok(Some((FromLauncher::Up { .. } | FromLauncher::Unable { .. }, _))) => {}
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the launcher's socket failed");
                    break;
                }
            }
            self.changed.notify_waiters();
        }
        self.healthy.store(false, Ordering::SeqCst);
        // Dropping the senders tells everyone who waits for an answer that none will come.
        self.state().asked.clear();
        self.changed.notify_waiters();
    }

    fn note_gone(&self, sandbox: Id) {
        let kept = {
            let mut state = self.state();
            state.slots.remove(&sandbox);
            state.ending.remove(&sandbox);
            state.gone += 1;
            state.unsettled.remove(&sandbox);
            state.kept.remove(&sandbox)
        };
        // Its figures were safe before: what a sweep has written of it says nothing new.
        if let Some(Some(_)) = kept {
            self.remove_final(SandboxId(sandbox));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No refusal is waited for any more.
    pub(super) fn answered(&self, id: SandboxId) {
        self.state().asked.remove(&id.0);
    }

    pub(crate) fn healthy(&self) -> bool {
        self.healthy.load(Ordering::SeqCst)
    }

    /// Notes that a sandbox is asked for; answers where a refusal will come.
    pub(super) fn ask(&self, id: SandboxId) -> Result<oneshot::Receiver<Refusal>, StartError> {
        let (refuse, refused) = oneshot::channel();
        let mut state = self.state();
        if !state.slots.insert(id.0) {
            return Err(StartError::Refused {
                reason: format!("{id} is live already"),
            });
        }
        state.asked.insert(id.0, refuse);
        Ok(refused)
    }

    /// Takes back what [`Live::ask`] noted.
    pub(super) fn give_up(&self, id: SandboxId) {
        let mut state = self.state();
        state.asked.remove(&id.0);
        state.slots.remove(&id.0);
    }

    /// Waits until nothing is left of a sandbox; false if that takes longer than `limit`.
    pub(crate) async fn gone(&self, id: SandboxId, limit: Duration) -> bool {
        timeout(limit, self.until_gone(id)).await.is_ok()
    }

    /// Waits until nothing is left of a sandbox, or the launcher is gone too.
    pub(crate) async fn until_gone(&self, id: SandboxId) {
        loop {
            let changed = self.changed.notified();
            if !self.healthy() || !self.state().slots.contains(&id.0) {
                return;
            }
            changed.await;
        }
    }

    /// Notes that a shim keeps files: its socket stays open when its figures are safe.
    pub(crate) fn expect_kept(&self, id: SandboxId) {
        self.state().kept.insert(id.0, None);
    }

    /// Lets kept files go.
    pub(crate) fn drop_kept(&self, id: SandboxId) {
        // Dropped without the lock; it closes a socket.
        let kept = self.state().kept.remove(&id.0);
        drop(kept);
    }

    /// Keeps the socket of a shim that has answered, until its figures are safe.
    pub(crate) fn keep_unsettled(&self, id: SandboxId, shim: Channel) {
        let mut state = self.state();
        state.unsettled.insert(id.0, shim);
        if state.slots.contains(&id.0) {
            state.ending.insert(id.0);
        }
    }

    /// Notes that nothing may ever run in a sandbox, unless [`Live::expect_no_end`] follows.
    pub(super) fn expect_end(&self, id: SandboxId) {
        let mut state = self.state();
        if state.slots.contains(&id.0) {
            state.ending.insert(id.0);
        }
    }

    /// Something runs in a sandbox.
    pub(crate) fn expect_no_end(&self, id: SandboxId) {
        if self.state().ending.remove(&id.0) {
            self.changed.notify_waiters();
        }
    }

    /// How many sandboxes have gone, and whether another will soon, without anyone having to end
    /// it.
    pub(super) fn leaving(&self) -> (u64, bool) {
        let state = self.state();
        let mut ending = state.ending.iter();
        let is_any = ending.any(|id| !state.kept.contains_key(id));
        (state.gone, is_any)
    }

    fn final_path(&self, id: SandboxId) -> PathBuf {
        self.options
            .state_dir
            .join("final")
            .join(format!("{}.json", id.hex()))
    }

    /// Reads what a shim, or the launcher for it, has written down about a sandbox.
    pub(crate) fn read_final(&self, id: SandboxId) -> Option<FinalRecord> {
        let bytes = std::fs::read(self.final_path(id)).ok()?;
        let record: FinalRecord = serde_json::from_slice(&bytes).ok()?;
        (record.sandbox == id.0).then_some(record)
    }

    pub(crate) fn left_behind(&self) -> Vec<Final> {
        let dir = self.options.state_dir.join("final");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(dir = %dir.display(), %error, "cannot list final files");
                }
                return Vec::new();
            }
        };
        let mut all: Vec<Final> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let id: SandboxId = name.to_str()?.strip_suffix(".json")?.parse().ok()?;
                let found = self.read_final(id);
                if found.is_none() {
                    tracing::error!(sandbox = %id, "a final file cannot be read");
                }
                found.map(Final::from)
            })
            .collect();
        // Ids are time-ordered.
        all.sort_unstable_by_key(|one| one.sandbox);
        all
    }

    /// CPU time of all sandboxes of this state directory, those that are gone included, in us.
    pub(crate) fn used_cpu_us(&self) -> Result<u64, Error> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let used = self
            .cpu
            .as_ref()
            .ok_or_else(missing)
            .and_then(CpuCounter::used_us);
        used.map_err(|source| Error::CpuCounter { source })
    }

    /// CPU time of all templates since the launcher came up, in us.
    pub(crate) fn templates_cpu_us(&self) -> u64 {
        let used = self.templates_cpu.as_ref().and_then(|(counter, then_us)| {
            let now_us = counter.used_us().ok()?;
            Some(now_us.saturating_sub(*then_us))
        });
        used.unwrap_or(0)
    }

    pub(crate) fn forget(&self, id: SandboxId) {
        // Nobody waits for this sandbox any more: now others may be made.
        self.refill();
        let shim = self.state().unsettled.remove(&id.0);
        if let Some(shim) = shim
            && shim.try_send(&ToShim::Settled).is_ok()
        {
            if let Some(kept) = self.state().kept.get_mut(&id.0) {
                *kept = Some(shim);
            }
            return;
        }
        self.remove_final(id);
    }

    fn remove_final(&self, id: SandboxId) {
        match std::fs::remove_file(self.final_path(id)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::error!(sandbox = %id, %error, "cannot remove a final file"),
        }
    }

    /// Has a sandbox on an empty root looked at by its shim, which is root and outside.
    pub(crate) async fn check_posture(self: &Arc<Live>) -> Result<(), PostureError> {
        let spec = SandboxSpec {
            id: SandboxId([0xff; 16]),
            owner: String::new(),
            image: Digest([0; 32]),
            limits: self.options.least(),
            network: Network::None,
            interpreter: None,
        };
        let sandbox = self.open(&spec, WireImage::Empty).await;
        let sandbox = sandbox.map_err(|source| PostureError::Start { source })?;
        let answer = sandbox.inspect().await;
        sandbox.discard().await;
        let limit = Duration::from_millis(self.options.end_ms);
        let is_gone = self.gone(spec.id, limit).await;
        let deviations = answer.map_err(|reason| PostureError::Unanswered { reason })?;
        let mut faults: Vec<Fault> = deviations.into_iter().map(Fault::from).collect();
        if !is_gone {
            faults.push(Fault {
                what: "end of the sandbox".to_owned(),
                found: "it is not gone in time".to_owned(),
                cure: "the launcher's log says what holds it".to_owned(),
            });
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(PostureError::Wrong { faults })
        }
    }

    pub(crate) async fn drain(&self) {
        self.healthy.store(false, Ordering::SeqCst);
        {
            let mut state = self.state();
            state.unsettled.clear();
            state.kept.clear();
        }
        self.launcher.end();
        let child = self
            .child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut child) = child else { return };
        let ended = tokio::task::spawn_blocking(move || child.wait());
        match timeout(DOWN, ended).await {
            Ok(Ok(Ok(status))) if status.success() => {}
            Ok(other) => tracing::error!(?other, "the launcher ended badly"),
            Err(_elapsed) => tracing::error!("the launcher does not end"),
        }
    }
}

/// Text from another process, fit for a log: bounded and without control characters.
pub(crate) fn tame(text: &str) -> String {
    wire::clip(text)
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

impl From<wire::Deviation> for Fault {
    fn from(of: wire::Deviation) -> Fault {
        Fault {
            what: tame(&of.what),
            found: tame(&of.found),
            cure: tame(&of.cure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_a_sandbox_cannot_forge_log_lines() {
        assert_eq!(tame("a\nERROR b\x1b[0m"), "a?ERROR b?[0m");
        assert!(tame(&"x".repeat(9999)).len() <= wire::TEXT_MAX);
    }
}
