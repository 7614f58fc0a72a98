//! Keeps sandboxes ready that are made ahead, and claims them: one is held to its limits and has
//! its owner's weight before anything runs in it, and is used once.
//!
//! They are made off the path of any request, by turns with what is asked for, and give way to it
//! when there is no room.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::live::{Live, tame};
use super::open::Made;
use super::pool::{Kind, Pool, PoolOptions, Recipe, Waits};
use crate::cgroup::WEIGHT;
use crate::clock;
use crate::error::StartError;
use crate::runner::{Interpreter, Waiting};
use crate::sandbox::live::{LiveSandbox, lay};
use crate::sandbox::pump::Pipes;
use crate::spec::{Digest, Network, SandboxId, SandboxSpec};
use crate::wire::{FromInit, FromShim, Make, ToInit, ToShim, WireImage, WireLimits, WireNetwork};

/// How often it is looked whether too many or too few are ready, at least.
const LOOK: Duration = Duration::from_millis(500);

/// How long the answer to a run has to go out before its sandbox is replaced.
const AFTER: Duration = Duration::from_millis(2);

/// How long an interpreter has stood ready before it loads more: where as many are wanted as are
/// kept ready, few get as old. One that is wanted while it loads makes who wants it wait.
const LOAD_AFTER: Duration = Duration::from_secs(1);

/// The same for a fork, which has loaded everything and goes through a run that does nothing: that
/// takes as much of the CPUs as it saves, and a quarter of what forking does.
const REHEARSE_AFTER: Duration = Duration::from_millis(20);

/// CPU weight while one is made ahead: a tenth of a tenant's.
const WEIGHT_AHEAD: u32 = WEIGHT / 10;

/// The name that what is made ahead has its turns and its weight under; no owner has it.
const NOBODY: &str = "";

/// What stands ready.
#[derive(Debug)]
pub(super) struct Ahead {
    pool: Mutex<Pool<Made>>,
    asked: Notify,
}

impl Ahead {
    pub(super) fn new(options: PoolOptions) -> Ahead {
        Ahead {
            pool: Mutex::new(Pool::new(options)),
            asked: Notify::new(),
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool<Made>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Notes that a sandbox of the kind was asked for.
    pub(super) fn note_asked(&self, spec: &SandboxSpec, kind: Kind, limits: &WireLimits) {
        let interpreter = spec.interpreter.as_ref();
        let now_us = self.clock.now_us();
        self.ahead.pool().note(kind, limits, interpreter, now_us);
    }

    /// A sandbox of the kind that was made ahead, held to the limits; none if none is ready.
    pub(super) async fn claim(
        self: &Arc<Live>,
        spec: &SandboxSpec,
        kind: Kind,
        limits: &WireLimits,
    ) -> Option<LiveSandbox> {
        loop {
            let has_live = self.shares.has(&spec.owner);
            let taken = {
                let mut pool = self.ahead.pool();
                let taken = pool.take(kind, limits, has_live, self.clock.now_us());
                // Before the pool is let go: who finds it empty must see that a slot may come free.
                taken
                    .iter()
                    .for_each(|taken| self.expect_end(taken.sandbox.id));
                taken
            };
            // While others are ready, none is made until this one's run is over: it would be in its
            // way.
            if taken.as_ref().is_none_or(|taken| taken.is_last) {
                self.refill();
            }
            let taken = taken?;
            let made = taken.sandbox;
            let id = made.id;
            match self.hold_to(&made, (&taken.limits, limits)).await {
                Ok(()) => {
                    let sandbox = self.give(spec.clone(), made);
                    if sandbox.hurry().await {
                        return Some(sandbox);
                    }
                    tracing::warn!(sandbox = %id, "an interpreter that waited has ended");
                    self.end(sandbox).await;
                }
                // There may be another.
                Err(reason) => {
                    tracing::warn!(sandbox = %id, reason, "cannot claim a sandbox");
                    self.end_idle(made).await;
                }
            }
        }
    }

    /// Whether there was no room for a sandbox that was asked for, lately.
    pub(super) fn is_resting(&self, kind: Kind) -> bool {
        self.ahead.pool().is_resting(kind, self.clock.now_us())
    }

    /// Has it looked whether more must be made.
    pub(crate) fn refill(&self) {
        self.ahead.asked.notify_one();
    }

    async fn hold_to(
        &self,
        made: &Made,
        (now, limits): (&WireLimits, &WireLimits),
    ) -> Result<(), String> {
        // Neither has anything to say while nothing runs.
        let init = made.init.recv::<FromInit>();
        let shim = made.shim.recv::<FromShim>();
        let heard = tokio::select! {
            biased;
            _ = init => true,
            _ = shim => true,
            () = std::future::ready(()) => false,
        };
        if heard {
            return Err("it has ended".to_owned());
        }
        if now == limits {
            return Ok(());
        }
        let answer = async {
            made.shim.send(&ToShim::Claim(*limits), &[]).await?;
            made.shim.recv::<FromShim>().await
        };
        let limit = Duration::from_millis(self.options.start_ms);
        match timeout(limit, answer).await {
            Ok(Ok(Some((FromShim::Claimed, _)))) => Ok(()),
            Ok(Ok(Some((FromShim::Failed { step, reason }, _)))) => {
                Err(format!("cannot {}: {}", tame(&step), tame(&reason)))
            }
            Ok(Ok(Some(_))) => Err("its shim broke the protocol".to_owned()),
            Ok(Ok(None)) => Err("its shim ended".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_elapsed) => Err("its shim does not answer".to_owned()),
        }
    }

    /// How many stand ready.
    pub(crate) fn ready_ahead(&self) -> usize {
        self.ahead.pool().ready()
    }

    /// Gives a sandbox to its owner.
    fn give(self: &Arc<Live>, spec: SandboxSpec, made: Made) -> LiveSandbox {
        let share = self.shares.join(&spec.owner, made.id.0);
        share.attach(made.cpu);
        let spec = SandboxSpec {
            id: made.id,
            ..spec
        };
        let live = Arc::clone(self);
        LiveSandbox::new(live, spec, share, made.shim, made.init).warm(made.waiting)
    }

    /// Ends one that stands ready, to make room, or waits for one that is being made; false if
    /// there is none.
    pub(super) async fn give_way(self: &Arc<Live>) -> bool {
        loop {
            let changed = self.changed.notified();
            let (spare, making) = {
                let mut pool = self.ahead.pool();
                pool.rest(self.clock.now_us());
                let spare = pool.spare();
                // As in `claim`.
                spare.iter().for_each(|made| self.expect_end(made.id));
                (spare, pool.making())
            };
            match spare {
                Some(made) => {
                    self.end_idle(made).await;
                    return true;
                }
                None if making == 0 => return false,
                None => changed.await,
            }
        }
    }

    /// Ends a sandbox that is nobody's, and waits until it is gone.
    pub(super) async fn end_idle(self: &Arc<Live>, made: Made) {
        let spec = SandboxSpec {
            id: made.id,
            owner: NOBODY.to_owned(),
            image: Digest([0; 32]),
            limits: self.options.least(),
            network: Network::None,
            interpreter: None,
        };
        self.end(self.give(spec, made)).await;
    }

    /// Ends a sandbox that was made ahead, and waits until it is gone.
    async fn end(self: &Arc<Live>, sandbox: LiveSandbox) {
        let id = sandbox.id();
        sandbox.discard().await;
        let limit = Duration::from_millis(self.options.end_ms);
        if !self.gone(id, limit).await {
            tracing::warn!(sandbox = %id, "a sandbox made ahead does not end");
        }
        // If it was dead already, the launcher has written down what there was to count.
        self.forget(id);
    }

    /// Keeps as many ready as are wanted, until the launcher is gone.
    pub(super) async fn tend(self: Arc<Live>) {
        while self.healthy() {
            let surplus = {
                let mut pool = self.ahead.pool();
                let surplus = pool.surplus(self.clock.now_us());
                surplus.iter().for_each(|made| self.expect_end(made.id));
                surplus
            };
            for made in surplus {
                self.end_idle(made).await;
            }
            if self.has_memory().await {
                self.make_all_ahead();
            }
            tokio::select! {
                () = self.ahead.asked.notified() => sleep(AFTER).await,
                () = sleep(LOOK) => {}
            }
        }
        drop(self.ahead.pool().drain());
    }

    /// Begins to make whatever is wanted.
    fn make_all_ahead(self: &Arc<Live>) {
        loop {
            let is_crowded = self.turns.others_wait(NOBODY);
            let next = self.ahead.pool().next(self.clock.now_us(), is_crowded);
            let Some((kind, recipe)) = next else { return };
            tokio::spawn(Arc::clone(self).make_ahead(kind, recipe));
        }
    }

    /// Whether the host has memory for more; what stands ready is ended until it has.
    async fn has_memory(self: &Arc<Live>) -> bool {
        while self.is_memory_short() {
            if !self.give_way().await {
                return false;
            }
        }
        true
    }

    /// Whether the host has less memory than must be left for what is asked for.
    fn is_memory_short(&self) -> bool {
        let least = self.options.pool.free_memory_bytes;
        // What cannot be told holds nothing back: the kernel's own limits stay.
        least > 0 && available_bytes().is_some_and(|bytes| bytes < least)
    }

    /// CPU time that sandboxes have used before they were anybody's, in us: those that stand ready
    /// too.
    pub(crate) fn making_cpu_us(&self) -> u64 {
        let pool = self.ahead.pool();
        let ready = pool.all_ready().map(|made| made.cpu.used_us());
        ready.sum::<u64>().saturating_add(self.shares.before_us())
    }

    async fn make_ahead(self: Arc<Live>, kind: Kind, recipe: Recipe) {
        let limits = recipe.limits;
        let made = self.make_one_ahead(kind.image, kind.disk_class, &recipe);
        let made = made.await;
        let now_us = self.clock.now_us();
        match made {
            Ok(made) if self.healthy() => {
                let id = made.id;
                let is_fork = made.waiting.as_ref().is_some_and(|waiting| waiting.is_fork);
                self.ahead.pool().put(kind, limits, made, now_us);
                let after = match kind.waits {
                    Waits::Fork if is_fork => Some(REHEARSE_AFTER),
                    Waits::Fork | Waits::Python => Some(LOAD_AFTER),
                    Waits::Nothing | Waits::Node { .. } => None,
                };
                if let Some(after) = after {
                    tokio::spawn(Arc::clone(&self).prepare(id, after));
                }
            }
            Ok(_too_late) => {}
            Err(error) => {
                let is_full = matches!(error, StartError::Overloaded { .. });
                if !is_full && self.healthy() {
                    tracing::warn!(%error, "no sandbox can be made ahead");
                }
                self.ahead.pool().failed(kind, is_full, now_us);
            }
        }
        self.changed.notify_waiters();
    }

    /// Has an interpreter prepare for a run if nobody has wanted it for a while, nor wants any:
    /// where they are wanted as fast as they are made, that would take the CPUs from making them.
    async fn prepare(self: Arc<Live>, id: SandboxId, after: Duration) {
        loop {
            sleep(after).await;
            let pool = self.ahead.pool();
            let made = pool.all_ready().find(|made| made.id == id);
            let Some((made, waiting)) = made.and_then(|made| Some((made, made.waiting.as_ref()?)))
            else {
                return;
            };
            if !self.turns.others_wait(NOBODY) {
                made.cpu.rest();
                return waiting.prepare();
            }
        }
    }

    /// Makes a sandbox that nobody waits for, with the recipe's interpreter waiting in it.
    pub(super) async fn make_one_ahead(
        &self,
        image: [u8; 32],
        disk_class: u8,
        recipe: &Recipe,
    ) -> Result<Made, StartError> {
        let sandbox = new_id()?;
        let _turn = self.turns.take(NOBODY, false).await;
        let image = WireImage::Digest(image);
        let make = Make {
            sandbox,
            image,
            disk_class,
            limits: recipe.limits,
            weight: WEIGHT_AHEAD,
            behind: false,
            ahead: true,
            network: WireNetwork::None,
            template: self.template_for(image, recipe.interpreter.as_ref(), false),
        };
        let forks = make.template.is_some();
        let made = self.make(make).await?;
        let Some(interpreter) = &recipe.interpreter else {
            return Ok(made);
        };
        let open_files = recipe.limits.open_files;
        let waiting = if forks {
            self.fork(&made, image, open_files).await?
        } else {
            let limit_ms = self.options.start_ms;
            let started = start_ahead(&made, interpreter, open_files);
            let waiting = timeout(Duration::from_millis(limit_ms), started).await;
            waiting.map_err(|_elapsed| StartError::TimedOut {
                step: "starting an interpreter",
                limit_ms,
            })??
        };
        Ok(Made {
            waiting: Some(waiting),
            ..made
        })
    }
}

/// Starts an interpreter in an idle sandbox and waits until it waits.
async fn start_ahead(
    made: &Made,
    interpreter: &Interpreter,
    open_files: u32,
) -> Result<Waiting, StartError> {
    let (pipes, ends) = Pipes::new().map_err(|source| StartError::Server {
        action: "make pipes",
        source,
    })?;
    if let Some(file) = interpreter.file() {
        lay(&made.init, &file).await?;
    }
    let descriptors = [ends.stdin.as_fd(), ends.stdout.as_fd(), ends.stderr.as_fd()];
    let start = ToInit::Start(interpreter.start(open_files));
    let sent = made.init.send(&start, &descriptors).await;
    sent.map_err(|error| StartError::Gone {
        reason: error.to_string(),
    })?;
    drop(ends);
    let gone = || StartError::Gone {
        reason: "its interpreter does not start".to_owned(),
    };
    let Ok(Some((FromInit::Started, _))) = made.init.recv::<FromInit>().await else {
        return Err(gone());
    };
    Waiting::ready(pipes, open_files).await.ok_or_else(gone)
}

/// Memory that the kernel could give without swapping, in bytes.
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// A new id, ordered by time like those that callers make.
pub(super) fn new_id() -> Result<[u8; 16], StartError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|source| StartError::Server {
        action: "name a sandbox",
        source: std::io::Error::other(source),
    })?;
    let [_, _, ms @ ..] = clock::wall_s().saturating_mul(1000).to_be_bytes();
    if let Some(front) = id.first_chunk_mut() {
        *front = ms;
    }
    Ok(id)
}
