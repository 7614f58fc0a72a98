//! Checkpoints leave the host: a head that never does proves nothing against who owns the host.
//!
//! Each place has one thread and one slot: the newest checkpoint takes the place of one that could
//! not be delivered yet, since it covers all that the older one does. Failures are tried again with
//! growing pauses, for as long as the server runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::store::{self, Signed};
use crate::clock::Clock;
use crate::config::{self, Proof as Options};

/// The first pause after a failure; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);

/// A place that checkpoints go to.
#[derive(Debug)]
enum Place {
    /// A file that is appended to, on another mount.
    File(PathBuf),
    /// A URL that each note is posted to.
    Url(String, ureq::Agent),
}

/// One place, its thread's slot, and how far it is.
#[derive(Debug)]
pub(crate) struct Sink {
    place: Place,
    clock: Clock,
    pause_max: Duration,
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Slot {
    /// What is to be delivered.
    waiting: Option<Arc<Signed>>,
    /// Since when something waits.
    since: Option<Duration>,
    /// Size of the last one delivered.
    delivered: u64,
    /// Nothing comes any more.
    closed: bool,
}

/// How far a place is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lag {
    /// `file` or `url`.
    pub(crate) sink: &'static str,
    /// Entries that the last delivered checkpoint covers.
    pub(crate) delivered: u64,
    /// Seconds that a checkpoint has waited.
    pub(crate) seconds: u64,
}

/// The places that are configured.
pub(crate) fn sinks(options: &Options, clock: Clock) -> Vec<Arc<Sink>> {
    let file =
        (!options.push_file.as_os_str().is_empty()).then(|| Place::File(options.push_file.clone()));
    let url = (!options.push_url.is_empty()).then(|| {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_millis(options.push_timeout_ms)))
            .max_redirects(0)
            .proxy(None)
            .build()
            .new_agent();
        Place::Url(options.push_url.clone(), agent)
    });
    let sink = |place| {
        Arc::new(Sink {
            place,
            clock,
            pause_max: Duration::from_secs(options.push_pause_max_s),
            slot: Mutex::default(),
            changed: Condvar::new(),
        })
    };
    file.into_iter().chain(url).map(sink).collect()
}

impl Sink {
    /// Starts the thread; it ends after [`Sink::close`].
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let sink = Arc::clone(self);
        let name = format!("push-{}", self.name());
        std::thread::Builder::new()
            .name(name)
            .spawn(move || sink.run())
    }

    /// A checkpoint to be delivered, in place of one that still waits.
    pub(crate) fn offer(&self, signed: &Arc<Signed>) {
        let mut slot = self.slot();
        slot.waiting = Some(Arc::clone(signed));
        slot.since = slot.since.or_else(|| Some(self.clock.elapsed()));
        drop(slot);
        self.changed.notify_all();
    }

    /// Lets the thread try once more, if something waits, and end.
    pub(crate) fn close(&self) {
        self.slot().closed = true;
        self.changed.notify_all();
    }

    /// How far it is.
    pub(crate) fn lag(&self) -> Lag {
        let slot = self.slot();
        let waited = |since| self.clock.elapsed().saturating_sub(since).as_secs();
        Lag {
            sink: self.name(),
            delivered: slot.delivered,
            seconds: slot.since.map_or(0, waited),
        }
    }

    fn name(&self) -> &'static str {
        match &self.place {
            Place::File(_) => "file",
            Place::Url(..) => "url",
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut pause = PAUSE;
        loop {
            let idle = |slot: &mut Slot| slot.waiting.is_none() && !slot.closed;
            let slot = self.changed.wait_while(self.slot(), idle);
            let slot = slot.unwrap_or_else(PoisonError::into_inner);
            let (signed, last) = (slot.waiting.clone(), slot.closed);
            drop(slot);
            let Some(signed) = signed else { return };
            match self.deliver(&signed) {
                Ok(()) => {
                    pause = PAUSE;
                    self.delivered(&signed);
                }
                Err(reason) => {
                    self.failed(&signed, &reason);
                    let waiting = |slot: &mut Slot| !slot.closed;
                    drop(self.changed.wait_timeout_while(self.slot(), pause, waiting));
                    pause = pause.saturating_mul(2).min(self.pause_max);
                }
            }
            if last {
                return;
            }
        }
    }

    fn delivered(&self, signed: &Arc<Signed>) {
        let mut slot = self.slot();
        slot.delivered = signed.size;
        if slot
            .waiting
            .as_ref()
            .is_some_and(|waiting| Arc::ptr_eq(waiting, signed))
        {
            slot.waiting = None;
            slot.since = None;
        } else {
            slot.since = Some(self.clock.elapsed());
        }
    }

    fn failed(&self, signed: &Signed, reason: &str) {
        let sink = self.name();
        metrics::counter!("farebox_checkpoint_push_failures_total", "sink" => sink).increment(1);
        tracing::warn!(
            sink,
            size = signed.size,
            reason,
            "a checkpoint was not delivered"
        );
    }

    fn deliver(&self, signed: &Signed) -> Result<(), String> {
        match &self.place {
            Place::File(path) => to_file(path, &signed.text),
            Place::Url(url, agent) => to_url(agent, url, &signed.text),
        }
    }
}

fn to_file(path: &Path, text: &str) -> Result<(), String> {
    let appended = store::append(path, text);
    appended.map_err(|error| format!("cannot append to {}: {error}", path.display()))
}

/// Posts the note. A redirect is not followed, and no delivery.
fn to_url(agent: &ureq::Agent, url: &str, text: &str) -> Result<(), String> {
    let posted = agent
        .post(url)
        .header("Content-Type", "text/plain; charset=utf-8")
        .send(text);
    let answer = posted.map_err(|error| config::chain(&error))?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(format!("the answer is {}", answer.status()))
    }
}
