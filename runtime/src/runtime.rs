//! The handle on the launcher: opens sandboxes, checks their posture, knows what was left behind.

use std::sync::Arc;

use crate::error::{Error, PostureError, StartError};
#[cfg(feature = "fake")]
use crate::fake::{FakeOptions, FakeRuntime};
use crate::launcher::LauncherHandle;
use crate::measured::Measured;
use crate::outcome::EndedBy;
use crate::sandbox::Sandbox;
use crate::spec::{Limits, SandboxId, SandboxSpec};
use crate::wire::{self, WireImage};

pub(crate) mod channel;
mod fair;
mod forks;
pub(crate) mod live;
mod open;
mod options;
mod pool;
mod ready;
pub(crate) mod shares;
mod turns;
mod warm;

use self::live::Live;
pub use self::options::Options;
pub use self::pool::PoolOptions;

/// What the shim of an earlier server wrote down about a sandbox whose end no server saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Final {
    /// Which sandbox.
    pub sandbox: SandboxId,
    /// What ran in it; `None` if it never got as far as go, or if its shim died.
    pub execution: Option<[u8; 16]>,
    /// What the kernel counted until its end.
    pub measured: Measured,
    /// What ended it.
    pub ended_by: EndedBy,
}

impl From<wire::FinalRecord> for Final {
    fn from(record: wire::FinalRecord) -> Final {
        Final {
            sandbox: SandboxId(record.sandbox),
            execution: record.execution,
            measured: record.ended.measured.into(),
            ended_by: record.ended.by.into(),
        }
    }
}

/// Handle on the runtime; cheap to clone, usable from any task.
#[derive(Debug, Clone)]
pub struct Runtime {
    backend: Backend,
}

#[derive(Debug, Clone)]
enum Backend {
    Live(Arc<Live>),
    #[cfg(feature = "fake")]
    Fake(Arc<FakeRuntime>),
}

impl Runtime {
    /// Waits until the launcher is up, which takes as long as an earlier one needs to end, and
    /// listens to it.
    ///
    /// Must be called within a tokio runtime with time and I/O; that runtime carries the listening
    /// task.
    ///
    /// # Errors
    /// [`Error::LauncherDown`] with what the launcher says.
    pub async fn connect(launcher: LauncherHandle, options: Options) -> Result<Runtime, Error> {
        let live = Live::connect(launcher, options).await?;
        Ok(Runtime {
            backend: Backend::Live(live),
        })
    }

    /// A runtime without processes, whose "code" is the small script language of [`crate::fake`].
    #[cfg(feature = "fake")]
    #[must_use]
    pub fn fake(options: FakeOptions) -> Runtime {
        Runtime {
            backend: Backend::Fake(Arc::new(FakeRuntime::new(options))),
        }
    }

    /// The limits as they will be in force: disk and inodes rounded up to a class of disks.
    ///
    /// # Errors
    /// [`StartError::Refused`] if no class is that large.
    pub fn effective(&self, limits: &Limits) -> Result<Limits, StartError> {
        match &self.backend {
            Backend::Live(live) => live.options.effective(limits),
            #[cfg(feature = "fake")]
            Backend::Fake(_) => Ok(*limits),
        }
    }

    /// Makes a sandbox and waits until it is idle and ready for files and a process.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left of the sandbox then.
    pub async fn open(&self, spec: SandboxSpec) -> Result<Sandbox, StartError> {
        match &self.backend {
            Backend::Live(live) => {
                let image = WireImage::Digest(spec.image.0);
                live.open(&spec, image).await.map(Sandbox::live)
            }
            #[cfg(feature = "fake")]
            Backend::Fake(fake) => fake.open(spec).map(Sandbox::fake),
        }
    }

    /// A sandbox that stands ready for this, idle; none if there is none. It has an id of its own.
    pub async fn open_ready(&self, spec: &SandboxSpec) -> Option<Sandbox> {
        match &self.backend {
            Backend::Live(live) => {
                let image = WireImage::Digest(spec.image.0);
                live.open_ready(spec, image).await.map(Sandbox::live)
            }
            #[cfg(feature = "fake")]
            Backend::Fake(_) => None,
        }
    }

    /// Opens one live sandbox on an empty root and has it looked at from outside.
    ///
    /// # Errors
    /// Names every fault with its cure; the server must then refuse to serve.
    pub async fn check_posture(&self) -> Result<(), PostureError> {
        match &self.backend {
            Backend::Live(live) => live.check_posture().await,
            #[cfg(feature = "fake")]
            Backend::Fake(_) => Ok(()),
        }
    }

    /// What sandboxes of an earlier server left to be settled, oldest first.
    ///
    /// Complete once [`Runtime::connect`] has returned. Reads files: call it at start only.
    #[must_use]
    pub fn left_behind(&self) -> Vec<Final> {
        match &self.backend {
            Backend::Live(live) => live.left_behind(),
            #[cfg(feature = "fake")]
            Backend::Fake(fake) => fake.left_behind(),
        }
    }

    /// Says that the figures of `sandbox` are safe: durably settled, or not to be charged at all.
    ///
    /// Call it after the settlement of every [`crate::Report`] and of everything that was left
    /// behind. Until then the sandbox's slot stays taken (for 30 s at most) and its shim is ready
    /// to write the figures down, should the server die first.
    pub fn forget(&self, sandbox: SandboxId) {
        match &self.backend {
            Backend::Live(live) => live.forget(sandbox),
            #[cfg(feature = "fake")]
            Backend::Fake(fake) => fake.forget(sandbox),
        }
    }

    /// CPU time that all sandboxes have used together, in us, as the kernel counts it for the group
    /// above them: those that are gone are included, and so is what making and ending them took.
    ///
    /// It only grows while the launcher lives; it begins anew when the group was made anew. Reads
    /// one file, whose descriptor came from the launcher.
    ///
    /// # Errors
    /// [`Error::CpuCounter`].
    pub fn used_cpu_us(&self) -> Result<u64, Error> {
        match &self.backend {
            Backend::Live(live) => live.used_cpu_us(),
            #[cfg(feature = "fake")]
            Backend::Fake(fake) => Ok(fake.used_cpu_us()),
        }
    }

    /// CPU time that sandboxes have used before they were anybody's, in us, since this server
    /// began: their init, and what was started ahead in them. A part of [`Runtime::used_cpu_us`].
    #[must_use]
    pub fn making_cpu_us(&self) -> u64 {
        match &self.backend {
            Backend::Live(live) => live.making_cpu_us(),
            #[cfg(feature = "fake")]
            Backend::Fake(_) => 0,
        }
    }

    /// CPU time that the templates of interpreters have used since the launcher came up, in us. No
    /// part of [`Runtime::used_cpu_us`]: what a fork uses is its sandbox's, from its first page on.
    #[must_use]
    pub fn templates_cpu_us(&self) -> u64 {
        match &self.backend {
            Backend::Live(live) => live.templates_cpu_us(),
            #[cfg(feature = "fake")]
            Backend::Fake(_) => 0,
        }
    }

    /// How many sandboxes that were made ahead stand ready.
    #[must_use]
    pub fn ready(&self) -> usize {
        match &self.backend {
            Backend::Live(live) => live.ready_ahead(),
            #[cfg(feature = "fake")]
            Backend::Fake(_) => 0,
        }
    }

    /// Whether the launcher lives; once false it stays so, and every [`Runtime::open`] fails.
    #[must_use]
    pub fn healthy(&self) -> bool {
        match &self.backend {
            Backend::Live(live) => live.healthy(),
            #[cfg(feature = "fake")]
            Backend::Fake(fake) => fake.healthy(),
        }
    }

    /// Tells the launcher to end and waits until every sandbox is gone. Nothing can be opened after
    /// it.
    pub async fn drain(&self) {
        match &self.backend {
            Backend::Live(live) => live.drain().await,
            #[cfg(feature = "fake")]
            Backend::Fake(fake) => fake.drain().await,
        }
    }
}
