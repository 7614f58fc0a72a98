//! A runtime without processes, for tests of the layers above: a small script language in virtual
//! time.
//!
//! The script is the content of the first file laid by `put` that `argv` names (`/workspace/` in
//! front is allowed), else what follows `-c`, else `argv` itself as one line. Lines are run in
//! order; empty lines and lines that begin with `#` are skipped. The same script and limits give
//! the same [`Report`] every time.
//!
//! | line | does |
//! |---|---|
//! | `print TEXT`, `eprint TEXT` | a line on standard output, on standard error |
//! | `print(TEXT)` | as `print`; quotes around TEXT are dropped, so that `print(1)` works |
//! | `exit N`, `signal N` | ends the run with that code, that signal |
//! | `cpu_us N` | uses N us of CPU, and as much wall time as the CPU share makes of it |
//! | `sleep_ms N` | lets N ms of virtual wall time pass, at once |
//! | `wait` | waits in real time until cancelled or until the rest of the wall limit has passed |
//! | `flood N` | writes N bytes of `x` to standard output |
//! | `memory N`, `disk N`, `fork N` | uses N bytes of memory, N bytes of disk, N processes |
//! | `cat`, `env NAME`, `read PATH` | copies standard input, a variable, a file to the output |
//! | `process PID PARENT STATE CPU_US NAME` | a process that is there when a failed run ends |
//! | `others N` | N more processes that are not listed |
//! | `write PATH TEXT` | a file with a line of TEXT, for whoever reads the files that are kept |
//! | `fail start` | the run ends as `start_failed` |
//! | `lost` | the run ends as `lost` |
//!
//! Any other word is a command not found: a message on standard error and exit 127.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{Notify, oneshot};

use crate::error::StartError;
use crate::kept::Kept;
use crate::output::OutputSink;
use crate::runtime::Final;
use crate::sandbox::Report;
use crate::spec::{Digest, File, Process, SandboxId, SandboxSpec};

mod kept;
mod script;

pub(crate) use self::kept::FakeKept;

/// How the fake behaves.
#[derive(Debug, Clone)]
pub struct FakeOptions {
    /// Sandboxes that may be open at once; one more is refused as overloaded.
    pub capacity: u64,
    /// Images that cannot be opened.
    pub refused_images: Vec<Digest>,
    /// What [`crate::Runtime::left_behind`] tells.
    pub left_behind: Vec<Final>,
    /// Set to false, the launcher is gone.
    pub healthy: Arc<AtomicBool>,
}

impl Default for FakeOptions {
    fn default() -> FakeOptions {
        FakeOptions {
            capacity: 1024,
            refused_images: Vec::new(),
            left_behind: Vec::new(),
            healthy: Arc::new(AtomicBool::new(true)),
        }
    }
}

#[derive(Debug)]
pub(crate) struct FakeRuntime {
    options: FakeOptions,
    left_behind: Mutex<Vec<Final>>,
    open: Arc<Open>,
    /// CPU time of all that ran, in us.
    used: Arc<AtomicU64>,
}

/// How many sandboxes are open; the fake's stand-in for the launcher's slots.
#[derive(Debug, Default)]
struct Open {
    count: AtomicU64,
    closed: Notify,
}

impl FakeRuntime {
    pub(crate) fn new(options: FakeOptions) -> FakeRuntime {
        let left_behind = Mutex::new(options.left_behind.clone());
        FakeRuntime {
            options,
            left_behind,
            open: Arc::default(),
            used: Arc::default(),
        }
    }

    pub(crate) fn open(&self, spec: SandboxSpec) -> Result<FakeSandbox, StartError> {
        if !self.healthy() {
            return Err(StartError::LauncherGone);
        }
        if let Some(name) = spec.limits.zeros().first() {
            return Err(StartError::Refused {
                reason: format!("{name} is zero"),
            });
        }
        if self.options.refused_images.contains(&spec.image) {
            return Err(StartError::Refused {
                reason: format!("unknown image {}", spec.image),
            });
        }
        if self.open.count.fetch_add(1, Ordering::SeqCst) >= self.options.capacity {
            self.open.count.fetch_sub(1, Ordering::SeqCst);
            return Err(StartError::Overloaded {
                reason: "no free slot".to_owned(),
            });
        }
        let slot = Slot(Arc::clone(&self.open));
        Ok(FakeSandbox {
            spec,
            files: BTreeMap::new(),
            slot,
            used: Arc::clone(&self.used),
        })
    }

    pub(crate) fn left_behind(&self) -> Vec<Final> {
        self.left_behind
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn used_cpu_us(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }

    pub(crate) fn forget(&self, sandbox: SandboxId) {
        let mut left = self
            .left_behind
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        left.retain(|one| one.sandbox != sandbox);
    }

    pub(crate) fn healthy(&self) -> bool {
        self.options.healthy.load(Ordering::SeqCst)
    }

    pub(crate) async fn drain(&self) {
        self.options.healthy.store(false, Ordering::SeqCst);
        loop {
            let closed = self.open.closed.notified();
            if self.open.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            closed.await;
        }
    }
}

/// One of the slots; free again when dropped.
#[derive(Debug)]
struct Slot(Arc<Open>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
        self.0.closed.notify_one();
    }
}

#[derive(Debug)]
pub(crate) struct FakeSandbox {
    spec: SandboxSpec,
    files: BTreeMap<String, Vec<u8>>,
    slot: Slot,
    used: Arc<AtomicU64>,
}

impl FakeSandbox {
    pub(crate) fn id(&self) -> SandboxId {
        self.spec.id
    }

    pub(crate) fn put(&mut self, files: &[File]) -> Result<(), StartError> {
        for file in files {
            if !File::path_is_plain(&file.path) {
                let source = std::io::Error::from_raw_os_error(libc::EINVAL);
                return Err(StartError::File {
                    path: file.path.clone(),
                    source,
                });
            }
            self.files.insert(file.path.clone(), file.content.clone());
        }
        Ok(())
    }

    pub(crate) async fn run(
        self,
        process: Process,
        sink: Option<OutputSink>,
        cancel: oneshot::Receiver<()>,
    ) -> Report {
        let (mut report, written) =
            script::run(&self.spec, &self.files, &process, sink, cancel).await;
        if report.autopsy.is_some() && process.keep_s > 0 {
            let mut files = self.files;
            files.extend(written);
            let kept = FakeKept::new(files, process.keep_s, self.slot);
            report.kept = Some(Kept::fake(kept));
        }
        self.used
            .fetch_add(report.measured.cpu_us, Ordering::SeqCst);
        report
    }
}

#[cfg(test)]
mod tests;
