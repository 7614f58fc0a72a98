//! Opens a sandbox: one that was made ahead is claimed, else one is made, by turns.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::channel::Channel;
use super::live::Live;
use super::pool::Kind;
use super::ready::ready;
use super::shares::CpuFiles;
use crate::cgroup::WEIGHT;
use crate::error::StartError;
use crate::runner::Waiting;
use crate::sandbox::live::LiveSandbox;
use crate::spec::{Network, SandboxId, SandboxSpec};
use crate::wire::{
    FRAME_MAX, INIT_FRAME_MAX, Make, ToLauncher, WireImage, WireLimits, WireNetwork,
};

/// A sandbox that is made, idle and nobody's.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) id: SandboxId,
    pub(super) shim: Channel,
    pub(super) init: Channel,
    /// The files of its part of the CPUs.
    pub(super) cpu: CpuFiles,
    /// Where an interpreter waits in it.
    pub(super) waiting: Option<Waiting>,
}

impl Live {
    /// A sandbox that was made ahead, if one stands ready; it has an id of its own. Whoever takes
    /// one soon runs something in it or drops it.
    pub(crate) async fn open_ready(
        self: &Arc<Live>,
        spec: &SandboxSpec,
        image: WireImage,
    ) -> Option<LiveSandbox> {
        if !self.healthy() || !spec.limits.zeros().is_empty() {
            return None;
        }
        let make = self.wanted(spec, image).ok()?;
        let kind = self.claimable(spec, &make)?;
        // What stands ready is for those who have a slot, while there is not room for them all.
        if self.is_resting(kind) {
            return None;
        }
        let sandbox = self.claim(spec, kind, &make.limits).await?;
        self.note_asked(spec, kind, &make.limits);
        Some(sandbox)
    }

    /// The kind of which one may be claimed. What stands ready is replaced at everyone's cost:
    /// whoever has had too much waits for their own.
    fn claimable(&self, spec: &SandboxSpec, make: &Make) -> Option<Kind> {
        let kind = Kind::of(make, spec.interpreter.as_ref())?;
        (!self.shares.is_behind(&spec.owner)).then_some(kind)
    }

    /// Opens a sandbox, idle; `image` is its root. One that was made ahead has an id of its own.
    pub(crate) async fn open(
        self: &Arc<Live>,
        spec: &SandboxSpec,
        image: WireImage,
    ) -> Result<LiveSandbox, StartError> {
        if !self.healthy() {
            return Err(StartError::LauncherGone);
        }
        if let Some(name) = spec.limits.zeros().first() {
            return Err(StartError::Refused {
                reason: format!("{name} is zero"),
            });
        }
        let make = self.wanted(spec, image)?;
        if let Some(kind) = self.claimable(spec, &make) {
            self.note_asked(spec, kind, &make.limits);
            if let Some(sandbox) = self.claim(spec, kind, &make.limits).await {
                return Ok(sandbox);
            }
        }
        let until_us = self.clock.now_us() + self.options.end_ms * 1_000;
        loop {
            let changed = self.changed.notified();
            let (gone, _) = self.leaving();
            let opened = self.open_cold(spec, make.clone()).await;
            if !matches!(opened, Err(StartError::Overloaded { .. })) {
                return opened;
            }
            // What stands ready for others is in the way, or what has been answered for and is not
            // gone.
            if self.give_way().await {
                continue;
            }
            let left_us = until_us.saturating_sub(self.clock.now_us());
            let (gone_now, is_any_ending) = self.leaving();
            if left_us == 0 || (gone_now == gone && !is_any_ending) {
                return opened;
            }
            if gone_now == gone {
                drop(timeout(Duration::from_micros(left_us), changed).await);
            }
        }
    }

    async fn open_cold(
        self: &Arc<Live>,
        spec: &SandboxSpec,
        make: Make,
    ) -> Result<LiveSandbox, StartError> {
        let behind = self.shares.is_behind(&spec.owner);
        let turn = self.turns.take(&spec.owner, behind).await;
        let share = self.shares.join(&spec.owner, spec.id.0);
        let (weight, behind) = share.place();
        let make = Make {
            weight,
            behind,
            ..make
        };
        let made = self.make_with_fork(make, spec.interpreter.as_ref()).await?;
        drop(turn);
        let share = if made.id == spec.id {
            share
        } else {
            self.shares.join(&spec.owner, made.id.0)
        };
        share.attach(made.cpu);
        let live = Arc::clone(self);
        let spec = SandboxSpec {
            id: made.id,
            ..spec.clone()
        };
        let sandbox = LiveSandbox::new(live, spec, share, made.shim, made.init);
        Ok(sandbox.with_waiting(made.waiting))
    }

    /// Has the launcher make a sandbox.
    pub(super) async fn make(&self, make: Make) -> Result<Made, StartError> {
        let id = SandboxId(make.sandbox);
        let server = |action| move |source| StartError::Server { action, source };
        let (shim, shim_far) =
            Channel::pair(FRAME_MAX).map_err(server("make the shim's socket"))?;
        let (init, init_far) =
            Channel::pair(INIT_FRAME_MAX).map_err(server("make init's socket"))?;
        let refused = self.ask(id)?;
        let sent = self
            .launcher
            .send(
                &ToLauncher::Make(make),
                &[shim_far.as_fd(), init_far.as_fd()],
            )
            .await;
        if sent.is_err() {
            self.give_up(id);
            return Err(StartError::LauncherGone);
        }
        drop((shim_far, init_far));
        let limit_ms = self.options.start_ms;
        let limit = Duration::from_millis(limit_ms);
        let ready = timeout(limit, ready(&shim, &init, refused)).await;
        self.answered(id);
        let cpu = ready.map_err(|_elapsed| StartError::TimedOut {
            step: "making the sandbox",
            limit_ms,
        })??;
        Ok(Made {
            id,
            shim,
            init,
            cpu,
            waiting: None,
        })
    }

    fn wanted(&self, spec: &SandboxSpec, image: WireImage) -> Result<Make, StartError> {
        let limits = &spec.limits;
        let disk_class = self.options.disk_class(limits)?;
        Ok(Make {
            sandbox: spec.id.0,
            image,
            disk_class,
            limits: WireLimits {
                cpu_millis: limits.cpu_millis,
                memory_bytes: limits.memory_bytes,
                pids: limits.pids,
                open_files: limits.open_files,
            },
            weight: WEIGHT,
            behind: false,
            ahead: false,
            network: match spec.network {
                Network::None => WireNetwork::None,
            },
            template: None,
        })
    }
}
