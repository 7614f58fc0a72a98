//! One sandbox from idle to gone: files in, one process run, everything ended and counted.
//!
//! ```text
//! open -> idle --put--> idle --run--> running -> ended (Report)
//!              \--discard / drop--------------> ended
//! ```

use tokio::sync::oneshot;

use crate::autopsy::Autopsy;
use crate::error::StartError;
#[cfg(feature = "fake")]
use crate::fake::FakeSandbox;
use crate::kept::Kept;
use crate::measured::Measured;
use crate::outcome::Outcome;
use crate::output::{Captured, OutputSink};
use crate::spec::{File, Process, SandboxId};

pub(crate) mod live;
pub(crate) mod pump;

use self::live::LiveSandbox;

/// Everything there is to know about an execution that has ended.
#[derive(Debug, Clone)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// What the kernel counted.
    pub measured: Measured,
    /// What was seen of the sandbox before its end; `None` when the run ended well or never began.
    pub autopsy: Option<Autopsy>,
    /// Standard output: its head, and its last bytes.
    pub stdout: Captured,
    /// Standard error, likewise.
    pub stderr: Captured,
    /// The sandbox's files, if the run failed and they were to be kept. They go when this is
    /// dropped.
    pub kept: Option<Kept>,
    /// When go was said, in microseconds of the runtime's monotonic clock.
    pub started_us: u64,
    /// When the last counter was read, on the same clock.
    pub finished_us: u64,
}

/// One open sandbox, used by one tenant; it ends when it is dropped.
#[derive(Debug)]
pub struct Sandbox {
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Live(Box<LiveSandbox>),
    #[cfg(feature = "fake")]
    Fake(FakeSandbox),
}

impl Sandbox {
    pub(crate) fn live(sandbox: LiveSandbox) -> Sandbox {
        Sandbox {
            inner: Inner::Live(Box::new(sandbox)),
        }
    }

    #[cfg(feature = "fake")]
    pub(crate) fn fake(sandbox: FakeSandbox) -> Sandbox {
        Sandbox {
            inner: Inner::Fake(sandbox),
        }
    }

    /// Which sandbox this is.
    #[must_use]
    pub fn id(&self) -> SandboxId {
        match &self.inner {
            Inner::Live(live) => live.id(),
            #[cfg(feature = "fake")]
            Inner::Fake(fake) => fake.id(),
        }
    }

    /// Whether it was made ahead, rather than for whoever opened it.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        match &self.inner {
            Inner::Live(live) => live.is_warm(),
            #[cfg(feature = "fake")]
            Inner::Fake(_) => false,
        }
    }

    /// Lays files below `/workspace`, parents made; an existing file is replaced.
    ///
    /// # Errors
    /// [`StartError::File`] names the first that could not be written; earlier ones are there.
    pub async fn put(&mut self, files: &[File]) -> Result<(), StartError> {
        match &mut self.inner {
            Inner::Live(live) => live.put(files).await,
            #[cfg(feature = "fake")]
            Inner::Fake(fake) => fake.put(files),
        }
    }

    /// Runs one process to its end and ends the sandbox with it.
    ///
    /// Once the report is durably settled, call [`crate::Runtime::forget`]. Dropping the future
    /// ends the sandbox; its shim then writes down what had run, as if the server had died.
    ///
    /// Never fails: whatever happens is an outcome. `sink` sees the output as it arrives. Sending
    /// on `cancel` ends the run; dropping its sender does not.
    pub async fn run(
        self,
        process: Process,
        sink: Option<OutputSink>,
        cancel: oneshot::Receiver<()>,
    ) -> Report {
        match self.inner {
            Inner::Live(live) => live.run(process, sink, cancel).await,
            #[cfg(feature = "fake")]
            Inner::Fake(fake) => fake.run(process, sink, cancel).await,
        }
    }

    /// Ends the sandbox without having run anything.
    pub async fn discard(self) {
        match self.inner {
            Inner::Live(live) => live.discard().await,
            #[cfg(feature = "fake")]
            Inner::Fake(fake) => drop(fake),
        }
    }
}
