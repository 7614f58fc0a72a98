//! A sandbox of the real runtime: its two sockets, and one execution from go to the last counter.
//!
//! ```text
//! Go to the shim, Start to init, at the same time
//!   -> Exited (init) | cancel | output limit -> Finish to the shim -> Ended
//!   -> Ended by itself (wall, cpu, memory, init gone)
//!   -> shim gone without a word -> the launcher's sweep writes what it can still read
//! ```
//!
//! Everything that comes from init or the shim is hostile: it decides what the tenant's own report
//! says, and nothing else.

use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::Report;
use super::pump::{Ends, Pipes, Pump};
use crate::autopsy::Autopsy;
use crate::error::StartError;
use crate::kept::{Kept, LiveKept};
use crate::measured::Measured;
use crate::outcome::{EndedBy, Evidence, Outcome, decide};
use crate::output::OutputSink;
use crate::runner::Waiting;
use crate::runtime::channel::Channel;
use crate::runtime::live::{Live, tame};
use crate::runtime::shares::Part;
use crate::spec::{File, Process, SandboxId, SandboxSpec};
use crate::wire::{
    self, CHUNK_MAX, Deviation, Ended, FromInit, FromShim, Go, Start, ToInit, ToShim, WireError,
    WireMeasured,
};

/// How long what is left in the pipes may take once nobody should be writing to them any more.
const REST: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct LiveSandbox {
    live: Arc<Live>,
    spec: SandboxSpec,
    share: Part,
    /// `None` once the sandbox has been ended or handed on.
    shim: Option<Channel>,
    init: Channel,
    is_warm: bool,
    /// Where an interpreter waits that was started ahead.
    waiting: Option<Waiting>,
}

impl LiveSandbox {
    pub(crate) fn new(
        live: Arc<Live>,
        spec: SandboxSpec,
        share: Part,
        shim: Channel,
        init: Channel,
    ) -> LiveSandbox {
        LiveSandbox {
            live,
            spec,
            share,
            shim: Some(shim),
            init,
            is_warm: false,
            waiting: None,
        }
    }

    /// This one was made ahead, perhaps with an interpreter that waits.
    pub(crate) fn warm(mut self, waiting: Option<Waiting>) -> LiveSandbox {
        self.is_warm = true;
        self.with_waiting(waiting)
    }

    /// An interpreter waits in it, perhaps.
    pub(crate) fn with_waiting(mut self, waiting: Option<Waiting>) -> LiveSandbox {
        self.waiting = waiting;
        self
    }

    /// Has the interpreter that waits here do nothing else any more; false if it has ended.
    pub(crate) async fn hurry(&self) -> bool {
        let Some(waiting) = &self.waiting else {
            return true;
        };
        let limit = Duration::from_millis(self.live.options.start_ms);
        let waits = timeout(limit, waiting.hurry()).await == Ok(true);
        // What it has done meanwhile is not its owner's.
        self.share.begin();
        waits
    }

    pub(crate) fn is_warm(&self) -> bool {
        self.is_warm
    }

    pub(crate) fn id(&self) -> SandboxId {
        self.spec.id
    }

    pub(crate) async fn put(&mut self, files: &[File]) -> Result<(), StartError> {
        let limit_ms = self.live.options.put_ms;
        let all = async {
            for file in files {
                lay(&self.init, file).await?;
            }
            Ok(())
        };
        match timeout(Duration::from_millis(limit_ms), all).await {
            Ok(done) => done,
            Err(_elapsed) => Err(StartError::TimedOut {
                step: "writing files",
                limit_ms,
            }),
        }
    }

    pub(crate) async fn run(
        mut self,
        process: Process,
        sink: Option<OutputSink>,
        cancel: oneshot::Receiver<()>,
    ) -> Report {
        let started_us = self.live.clock.now_us();
        let Some(shim) = self.shim.take() else {
            return failed("the sandbox has ended".to_owned(), started_us);
        };
        self.live.expect_no_end(self.spec.id);
        let (mut pump, ends) = match self.pump(&process, sink) {
            Ok(made) => made,
            Err(error) => {
                self.shim = Some(shim);
                return failed(format!("cannot make pipes: {error}"), started_us);
            }
        };
        if let Err(reason) = self.go(&shim, &process, ends).await {
            self.shim = Some(shim);
            return failed(reason, started_us);
        }
        pump.begin();
        let mut course = Course {
            shim: &shim,
            init: &self.init,
            pump,
            heard: Heard::default(),
            finishing: false,
            end_wait: Duration::from_millis(self.live.options.end_ms),
        };
        let ended = course.run(&process, cancel).await;
        course.pump.rest(REST).await;
        let Course { pump, heard, .. } = course;
        let (ended, seen) = ended.map_or((None, None), |(ended, seen)| (Some(ended), seen));
        let (ended, shim) = match ended {
            Some(_) => (ended, Some(shim)),
            None => {
                drop(shim);
                (self.swept().await, None)
            }
        };
        let outcome = heard.outcome(ended, process.reduced);
        let is_bad = outcome != Outcome::Exited { code: 0 };
        let mut kept = None;
        if let Some(shim) = shim {
            if is_bad && process.keep_s > 0 {
                kept = self.kept(&shim).await;
            }
            self.live.keep_unsettled(self.spec.id, shim);
        }
        let measured = ended.map_or_else(WireMeasured::default, |ended| ended.measured);
        let (stdout, stderr) = pump.into_captured();
        Report {
            outcome,
            measured: Measured::from(measured),
            autopsy: is_bad.then(|| Autopsy::new(ended, seen)),
            stdout,
            stderr,
            kept,
            started_us,
            finished_us: self.live.clock.now_us(),
        }
    }

    /// What the launcher read of a sandbox whose shim went without a word.
    async fn swept(&self) -> Option<Ended> {
        let end_wait = Duration::from_millis(self.live.options.end_ms);
        if !self.live.gone(self.spec.id, end_wait).await {
            tracing::error!(sandbox = %self.spec.id, "a sandbox without a shim is not swept");
            return None;
        }
        self.live
            .read_final(self.spec.id)
            .map(|record| record.ended)
    }

    /// Waits for the shim to say whether it keeps the files of a run that failed.
    async fn kept(&self, shim: &Channel) -> Option<Kept> {
        let limit = Duration::from_millis(self.live.options.end_ms);
        let (for_s, descriptors) = match timeout(limit, shim.recv::<FromShim>()).await {
            Ok(Ok(Some((FromShim::Kept { for_s }, descriptors)))) if for_s > 0 => {
                (for_s, descriptors)
            }
            other => {
                tracing::warn!(sandbox = %self.spec.id, ?other, "its files are not kept");
                return None;
            }
        };
        let [socket] = wire::exactly(descriptors).ok()?;
        let kept = LiveKept::new(Arc::clone(&self.live), self.spec.id, for_s, socket);
        kept.ok().map(Kept::live)
    }

    /// What moves the process's input and output, and the process's ends unless it has them.
    fn pump(
        &mut self,
        process: &Process,
        sink: Option<OutputSink>,
    ) -> std::io::Result<(Pump, Option<Ends>)> {
        let most = process.output_bytes;
        if let Some(waiting) = self.waiting.take() {
            let (pipes, input) = waiting.order(process, self.spec.limits.open_files)?;
            return Ok((Pump::new(pipes, input, most, sink)?, None));
        }
        let (pipes, ends) = Pipes::new()?;
        let pump = Pump::new(pipes, process.stdin.clone(), most, sink)?;
        Ok((pump, Some(ends)))
    }

    /// Starts the clocks and the process, in one moment. An interpreter that waits begins when it
    /// gets its input, which is after it.
    async fn go(
        &self,
        shim: &Channel,
        process: &Process,
        ends: Option<Ends>,
    ) -> Result<(), String> {
        let go = ToShim::Go(Go {
            execution: process.execution,
            wall_us: process.wall_ms.saturating_mul(1000),
            cpu_us: process.cpu_ms.saturating_mul(1000),
            cpu_millis: self.spec.limits.cpu_millis,
            keep_s: process.keep_s,
        });
        let start = ToInit::Start(Start {
            argv: process.argv.clone(),
            env: process.env.clone(),
            cwd: process.cwd.clone(),
            open_files: self.spec.limits.open_files,
        });
        if let Some(ends) = ends {
            let descriptors = [ends.stdin.as_fd(), ends.stdout.as_fd(), ends.stderr.as_fd()];
            // Init first: if the command does not fit into its frame, the shim has not begun.
            let started = self.init.send(&start, &descriptors).await;
            started.map_err(|error| format!("cannot hand the command to init: {error}"))?;
        }
        shim.send(&go, &[])
            .await
            .map_err(|error| format!("cannot start the clocks: {error}"))
    }

    /// Has the shim look at the sandbox from outside; why not, if it gives no answer.
    pub(crate) async fn inspect(&self) -> Result<Vec<Deviation>, String> {
        let Some(shim) = &self.shim else {
            return Err("the sandbox has ended".to_owned());
        };
        let answer = async {
            shim.send(&ToShim::Inspect, &[]).await?;
            shim.recv::<FromShim>().await
        };
        let limit = Duration::from_millis(self.live.options.start_ms);
        match timeout(limit, answer).await {
            Ok(Ok(Some((FromShim::Inspected { deviations }, _)))) => Ok(deviations),
            Ok(Ok(other)) => Err(format!("its shim said {other:?}")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_elapsed) => Err("its shim does not answer".to_owned()),
        }
    }

    pub(crate) async fn discard(mut self) {
        let Some(shim) = self.shim.take() else { return };
        let ended = async {
            shim.send(&ToShim::Finish { failed: false }, &[]).await?;
            shim.recv::<FromShim>().await
        };
        let end_wait = Duration::from_millis(self.live.options.end_ms);
        // Whatever comes of it: closing the socket ends the sandbox too, a little later.
        drop(timeout(end_wait, ended).await);
        drop(shim.try_send(&ToShim::Settled));
    }
}

impl Drop for LiveSandbox {
    /// Ends a sandbox that nobody has run anything in.
    fn drop(&mut self) {
        if let Some(shim) = self.shim.take() {
            // It fails only where the shim is gone; closing the socket tells it as well.
            drop(shim.try_send(&ToShim::Finish { failed: false }));
        }
    }
}

/// Has a sandbox's init write a file below its workspace.
pub(crate) async fn lay(init: &Channel, file: &File) -> Result<(), StartError> {
    let refused = |errno| StartError::File {
        path: file.path.clone(),
        source: std::io::Error::from_raw_os_error(errno),
    };
    if !File::path_is_plain(&file.path) {
        return Err(refused(libc::EINVAL));
    }
    let gone = |error: WireError| StartError::Gone {
        reason: error.to_string(),
    };
    let size = u64::try_from(file.content.len()).unwrap_or(u64::MAX);
    let head = ToInit::File {
        path: file.path.clone(),
        mode: file.mode,
        size,
    };
    init.send(&head, &[]).await.map_err(gone)?;
    for chunk in file.content.chunks(CHUNK_MAX) {
        init.send(&ToInit::Chunk(chunk.to_vec()), &[])
            .await
            .map_err(gone)?;
    }
    match init.recv::<FromInit>().await.map_err(gone)? {
        Some((FromInit::Done, _)) => Ok(()),
        Some((FromInit::Refused { errno, .. }, _)) => Err(refused(errno)),
        Some(_) => Err(StartError::Gone {
            reason: "its init broke the protocol".to_owned(),
        }),
        None => Err(StartError::Gone {
            reason: "its init ended".to_owned(),
        }),
    }
}

/// A report of an execution that never began.
fn failed(reason: String, at_us: u64) -> Report {
    Report {
        outcome: Outcome::StartFailed { reason },
        measured: Measured::default(),
        autopsy: None,
        stdout: crate::output::Captured::default(),
        stderr: crate::output::Captured::default(),
        kept: None,
        started_us: at_us,
        finished_us: at_us,
    }
}

/// An execution under way.
struct Course<'a> {
    shim: &'a Channel,
    init: &'a Channel,
    pump: Pump,
    heard: Heard,
    /// The shim has been told to end it.
    finishing: bool,
    end_wait: Duration,
}

/// What the server has seen of an execution besides its output.
#[derive(Debug, Default)]
struct Heard {
    wait_status: Option<i32>,
    start_failed: Option<String>,
    cancelled: bool,
    output_limit: bool,
}

impl Heard {
    /// How it ended, by this and by what the shim or the launcher says.
    fn outcome(self, ended: Option<Ended>, reduced: bool) -> Outcome {
        if let Some(reason) = self.start_failed {
            return Outcome::StartFailed { reason };
        }
        decide(&Evidence {
            ended_by: ended.map(|ended| EndedBy::from(ended.by)),
            wait_status: self.wait_status,
            oom_kills: ended.map_or(0, |ended| ended.measured.oom_kills),
            pids_events: ended.map_or(0, |ended| ended.measured.pids_refused),
            disk_full: ended.is_some_and(|ended| ended.disk_full),
            cancelled: self.cancelled,
            output_limit: self.output_limit,
            reduced,
        })
    }
}

impl Course<'_> {
    /// Goes on until the shim has the last word; `None` if it has none.
    async fn run(
        &mut self,
        process: &Process,
        mut cancel: oneshot::Receiver<()>,
    ) -> Option<(Ended, Option<wire::Autopsy>)> {
        // The shim's clock is the one that counts; this one only keeps a silent shim from holding
        // us forever.
        let wall = Duration::from_millis(process.wall_ms);
        let mut overdue = pin!(sleep(wall + self.end_wait));
        let (mut may_cancel, mut hears_init) = (true, true);
        loop {
            let was_finishing = self.finishing;
            tokio::select! {
                frame = self.shim.recv::<FromShim>() => return match frame {
                    Ok(Some((FromShim::Ended(ended, seen), _))) => Some((ended, seen)),
                    Ok(_) | Err(_) => None,
                },
                frame = self.init.recv::<FromInit>(), if hears_init => {
                    hears_init = self.hear(frame).await;
                }
                over = self.pump.turn(), if self.pump.is_open() => {
                    if over && process.kill_on_output_limit && !self.finishing {
                        self.heard.output_limit = true;
                        self.finish(true).await;
                    }
                }
                asked = &mut cancel, if may_cancel => {
                    may_cancel = false;
                    // A dropped sender is no cancel.
                    if asked.is_ok() && !self.finishing {
                        self.heard.cancelled = true;
                        self.finish(true).await;
                    }
                }
                () = &mut overdue => return None,
            }
            if self.finishing && !was_finishing {
                overdue.set(sleep(self.end_wait));
            }
        }
    }

    /// Takes one frame of init's; says whether there can be more.
    async fn hear(
        &mut self,
        frame: Result<Option<(FromInit, Vec<std::os::fd::OwnedFd>)>, WireError>,
    ) -> bool {
        match frame {
            Ok(Some((FromInit::Exited { status, .. }, _))) => {
                if !self.finishing {
                    self.heard.wait_status = Some(status);
                    self.finish(status != 0).await;
                }
                true
            }
            Ok(Some((FromInit::Refused { errno, path }, _))) => {
                let reason = std::io::Error::from_raw_os_error(errno);
                self.heard.start_failed = Some(format!("cannot start {:?}: {reason}", tame(&path)));
                self.finish(true).await;
                true
            }
            Ok(Some((FromInit::Hello | FromInit::Done | FromInit::Started, _))) => true,
            // Gone, or talking nonsense: the shim sees the first and the clocks end the second.
            Ok(None) | Err(_) => false,
        }
    }

    /// Tells the shim to end everything, and whether it went badly.
    async fn finish(&mut self, failed: bool) {
        self.finishing = true;
        // If it is gone, its socket says so next.
        drop(self.shim.send(&ToShim::Finish { failed }, &[]).await);
    }
}
