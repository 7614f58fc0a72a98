//! A live sandbox: its deadlines, its end, its last figures.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::Signal;
use nix::sys::time::TimeSpec;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::deadline::earliest_us;
use super::keep::Reader;
use super::{ForkFrom, Host, autopsy, claim, fork, told_failed};
use crate::cgroup::{Group, Kin, Meter, Reading, Version};
use crate::clock::Monotonic;
use crate::disk;
use crate::launcher::kernel;
use crate::launcher::state::write_final;
use crate::launcher::step::log;
use crate::posture::{self, Expected};
use crate::truth::Files;
use crate::wire::{
    self, Autopsy, Ended, EndedBy, FRAME_MAX, FinalRecord, FromShim, Go, Id, ToShim, WireLimits,
    WireMeasured,
};

/// How long the sandbox may take to empty before the answer goes out without proof, in us.
const EMPTY_WAIT_US: u64 = 400_000;
/// How long it may take before the launcher is left to sweep, in us.
const CLEAN_WAIT_US: u64 = 5_000_000;
/// How long the server may take to say that the figures are safe, in us.
const SETTLE_WAIT_US: u64 = 30_000_000;
/// How long after it has run out of memory the kernel may take to kill, in us.
const OOM_WAIT_US: u64 = 1_000_000;
/// How long to sleep at most until then, in us.
const OOM_LOOK_US: u64 = 2_000;
/// How long to wait before a group that is still busy is removed again, in us.
const REMOVE_RETRY_US: u64 = 1_000;

/// A sandbox that is made.
#[derive(Debug)]
pub(super) struct Sandbox<'a> {
    pub(super) id: Id,
    pub(super) name: &'a str,
    pub(super) server: &'a OwnedFd,
    pub(super) init: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) group: Group,
    pub(super) meter: Meter,
    pub(super) memory_events: OwnedFd,
    /// The root directory of its disk.
    pub(super) disk: OwnedFd,
    /// The slot's user namespace.
    pub(super) userns: &'a OwnedFd,
    /// Its image's template.
    pub(super) template: Option<ForkFrom<'a>>,
    /// What it is told of its share.
    pub(super) told: Files,
    /// What it is held to now.
    pub(super) limits: Cell<WireLimits>,
    /// CPUs that it runs on.
    pub(super) cpus: &'a [usize],
    /// What it must look like from outside.
    pub(super) expected: Expected<'a>,
}

/// An execution in the sandbox.
#[derive(Clone, Copy, Debug)]
struct Running {
    go: Go,
    since_us: u64,
    baseline: Reading,
}

/// Runs a sandbox to its end. The answer is the shim's exit code.
pub(super) fn run(host: &Host<'_>, sandbox: &Sandbox<'_>) -> u8 {
    let watch = Watch {
        sandbox,
        clock: Monotonic::start(),
        cpus: host.cpus,
        wary_until_us: Cell::new(0),
        has_failed: Cell::new(true),
    };
    let mut running = None;
    let by = loop {
        match watch.next(host, &mut running) {
            Ok(Some(by)) => break by,
            Ok(None) => {}
            Err(error) => {
                log(sandbox.name, &format!("cannot watch the sandbox: {error}"));
                break EndedBy::ServerGone;
            }
        }
    };
    watch.finish(host, by, running)
}

struct Watch<'a> {
    sandbox: &'a Sandbox<'a>,
    clock: Monotonic,
    cpus: u64,
    /// Until when a kill for memory may follow an event.
    wary_until_us: Cell<u64>,
    /// Whether the run ended badly: it has unless the server says otherwise.
    has_failed: Cell<bool>,
}

impl Watch<'_> {
    /// Waits for the next event or deadline; answers what ends the sandbox, if that does.
    fn next(&self, host: &Host<'_>, running: &mut Option<Running>) -> io::Result<Option<EndedBy>> {
        let sleep_us = match running {
            None => None,
            Some(running) => match self.left_us(running)? {
                Left::Until(sleep_us) => Some(sleep_us),
                Left::Nothing(by) => return Ok(Some(by)),
            },
        };
        let is_wary = self.clock.now_us() < self.wary_until_us.get();
        let sleep_us = match (is_wary, sleep_us) {
            (true, sleep_us) => Some(sleep_us.map_or(OOM_LOOK_US, |us| us.min(OOM_LOOK_US))),
            (false, sleep_us) => sleep_us,
        };
        let sandbox = self.sandbox;
        // A cgroup file always counts as readable; only urgent tells of a change.
        let event = match sandbox.group.version() {
            Version::V1 => PollFlags::POLLIN,
            Version::V2 => PollFlags::POLLPRI,
        };
        let [server, init, memory] = wait(
            [
                (sandbox.server.as_fd(), PollFlags::POLLIN),
                (sandbox.pidfd.as_fd(), PollFlags::POLLIN),
                (sandbox.memory_events.as_fd(), event),
            ],
            sleep_us,
        )?;
        if memory {
            // The event comes before the kill, and the kernel kills nothing if there is room again
            // by then, as there often is where a file is being written: the counter alone is the
            // truth.
            sandbox.group.hush(&sandbox.memory_events)?;
            // On v2 the kernel kills init with the rest.
            if sandbox.group.version() == Version::V1 {
                self.wary_until_us.set(self.clock.now_us() + OOM_WAIT_US);
            }
            if sandbox.group.is_over()? {
                return Ok(Some(EndedBy::Oom));
            }
        }
        if (init || memory || is_wary) && sandbox.meter.oom_kills() > 0 {
            return Ok(Some(EndedBy::Oom));
        }
        if init {
            return Ok(Some(EndedBy::InitDied));
        }
        if server {
            self.obey(host, running)
        } else {
            Ok(None)
        }
    }

    /// How long the execution may go on unwatched.
    fn left_us(&self, running: &Running) -> io::Result<Left> {
        let wall = running
            .go
            .wall_us
            .saturating_sub(self.clock.now_us() - running.since_us);
        if wall == 0 {
            return Ok(Left::Nothing(EndedBy::Wall));
        }
        let used = self
            .sandbox
            .meter
            .cpu_us()?
            .saturating_sub(running.baseline.cpu_us());
        let cpu = running.go.cpu_us.saturating_sub(used);
        if cpu == 0 {
            return Ok(Left::Nothing(EndedBy::Cpu));
        }
        Ok(Left::Until(wall.min(earliest_us(
            cpu,
            running.go.cpu_millis,
            self.cpus,
        ))))
    }

    /// Receives one frame of the server.
    fn obey(&self, host: &Host<'_>, running: &mut Option<Running>) -> io::Result<Option<EndedBy>> {
        match wire::recv::<ToShim>(self.sandbox.server.as_fd(), FRAME_MAX) {
            Ok(None) | Err(wire::WireError::Socket { .. }) => Ok(Some(EndedBy::ServerGone)),
            Ok(Some((ToShim::Finish { failed }, _))) => {
                self.has_failed.set(failed);
                Ok(Some(EndedBy::Finish))
            }
            Ok(Some((ToShim::Go(go), _))) if running.is_none() => {
                let baseline = self.sandbox.meter.read()?;
                *running = Some(Running {
                    go,
                    since_us: self.clock.now_us(),
                    baseline,
                });
                Ok(None)
            }
            Ok(Some((ToShim::Claim(limits), _))) if running.is_none() => {
                match claim::claim(host, self.sandbox, &limits) {
                    Ok(()) => Ok(self.answer(&FromShim::Claimed)),
                    Err(failed) => {
                        log(self.sandbox.name, &failed.to_string());
                        self.answer(&told_failed(&failed));
                        Ok(Some(EndedBy::Finish))
                    }
                }
            }
            Ok(Some((ToShim::Fork, descriptors))) if running.is_none() => {
                let sandbox = self.sandbox;
                if let Err(failed) = fork::ask(host, sandbox, descriptors) {
                    // Whoever waits for a word of the fork sees that nobody has its pipes.
                    log(sandbox.name, &failed.to_string());
                }
                Ok(None)
            }
            Ok(Some((ToShim::InspectFork(pid), _))) if running.is_none() => {
                let deviations = fork::inspect(self.sandbox, pid);
                Ok(self.answer(&FromShim::Inspected { deviations }))
            }
            Ok(Some((ToShim::Inspect, _))) if running.is_none() => {
                let deviations = posture::inspect(self.sandbox.init, &self.sandbox.expected);
                Ok(self.answer(&FromShim::Inspected { deviations }))
            }
            Ok(Some(_)) => {
                log(self.sandbox.name, "refused a frame that is out of turn");
                Ok(None)
            }
            Err(error) => {
                log(self.sandbox.name, &format!("refused a frame: {error}"));
                Ok(None)
            }
        }
    }

    /// Sends a frame before the end; answers what it means if the server is gone.
    fn answer(&self, frame: &FromShim) -> Option<EndedBy> {
        let told = wire::send(self.sandbox.server.as_fd(), frame, FRAME_MAX, &[]);
        told.is_err().then_some(EndedBy::ServerGone)
    }

    /// Ends everything, answers, and cleans up.
    fn finish(&self, host: &Host<'_>, by: EndedBy, running: Option<Running>) -> u8 {
        let ended_us = self.clock.now_us();
        let is_alone = by == EndedBy::Finish && self.is_init_alone();
        let autopsy = running.filter(|_| self.has_failed(by) && by != EndedBy::ServerGone);
        let autopsy = autopsy.map(|running| self.autopsy(&running, is_alone));
        let settled = is_alone || self.kill(EMPTY_WAIT_US);
        let disk_free = disk::free(self.sandbox.disk.as_fd()).ok();
        let autopsy = autopsy.map(|seen| Autopsy { disk_free, ..seen });
        let ended = Ended {
            by,
            measured: self.measured(running, ended_us),
            disk_full: disk_free.is_some_and(disk::is_full),
            unsettled: !settled,
        };
        let record = FinalRecord {
            sandbox: self.sandbox.id,
            execution: running.map(|running| running.go.execution),
            ended,
        };
        let is_told = by != EndedBy::ServerGone && self.tell(ended, autopsy);
        // Nobody waits for the rest.
        kernel::give_way();
        let for_s = running.map_or(0, |running| running.go.keep_s.min(host.keep_s_max));
        let kept = if is_told && for_s > 0 && self.has_failed(by) {
            self.keep(host, for_s)
        } else {
            None
        };
        let until_us = self.clock.now_us() + u64::from(for_s) * 1_000_000;
        let is_clean = kept.is_some() || self.clean_up(host);
        let is_safe = is_told && self.is_settled();
        if running.is_some() && !is_safe {
            let name = self.sandbox.name;
            if let Err(error) = write_final(host.final_dir, name, &record, host.owner) {
                log(name, &format!("cannot write the final file: {error}"));
            }
        }
        let Some(reader) = kept else {
            return u8::from(!is_clean);
        };
        if is_safe {
            self.watch_reader(&reader, until_us);
        }
        reader.end();
        u8::from(!self.clean_up(host))
    }

    /// Whether the run has ended badly: it has unless the server says otherwise.
    fn has_failed(&self, by: EndedBy) -> bool {
        by != EndedBy::Finish || self.has_failed.get()
    }

    /// Lets a reader into what was the sandbox, once nothing else is in it, and tells the server.
    fn keep(&self, host: &Host<'_>, for_s: u32) -> Option<Reader> {
        let server = self.sandbox.server.as_fd();
        let made = if self.is_empty() {
            Reader::start(host, self.sandbox).map_err(|failed| failed.to_string())
        } else {
            Err("its processes do not end".to_owned())
        };
        match made {
            Ok((reader, socket)) => {
                let frame = FromShim::Kept { for_s };
                let told = wire::send(server, &frame, FRAME_MAX, &[socket.as_fd()]);
                if told.is_err() {
                    reader.end();
                }
                // If the server is gone, its socket tells next.
                Some(reader)
            }
            Err(reason) => {
                let name = self.sandbox.name;
                log(name, &format!("cannot keep the files: {reason}"));
                // As above.
                drop(wire::send(
                    server,
                    &FromShim::Kept { for_s: 0 },
                    FRAME_MAX,
                    &[],
                ));
                None
            }
        }
    }

    /// Kills what is left of the sandbox and proves its group empty.
    fn is_empty(&self) -> bool {
        let until = self.clock.now_us() + CLEAN_WAIT_US;
        if !self.kill(CLEAN_WAIT_US) {
            return false;
        }
        loop {
            reap();
            match self.sandbox.group.pids() {
                Ok(pids) if pids.is_empty() => return true,
                Ok(_) if self.clock.now_us() < until => {
                    drop(wait([], Some(REMOVE_RETRY_US)));
                }
                Ok(_) | Err(_) => return false,
            }
        }
    }

    /// Waits until the time is over, the server lets the files go or is gone, or the reader has
    /// ended.
    fn watch_reader(&self, reader: &Reader, until_us: u64) {
        let server = self.sandbox.server.as_fd();
        loop {
            let left_us = until_us.saturating_sub(self.clock.now_us());
            let watched = [
                (server, PollFlags::POLLIN),
                (reader.pidfd.as_fd(), PollFlags::POLLIN),
            ];
            match wait(watched, Some(left_us)) {
                Ok([false, false]) if left_us > 0 => {}
                // There is nothing to say but good-bye.
                Ok([true, false])
                    if matches!(wire::recv::<ToShim>(server, FRAME_MAX), Ok(Some(_))) =>
                {
                    log(self.sandbox.name, "refused a frame that is out of turn");
                }
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// What there is to see before the kill.
    fn autopsy(&self, running: &Running, is_alone: bool) -> Autopsy {
        let Sandbox {
            group,
            init,
            expected,
            meter,
            ..
        } = self.sandbox;
        let cpu_us = meter.cpu_us().unwrap_or(0);
        let (processes, more) = if is_alone {
            (Vec::new(), 0)
        } else {
            autopsy::processes(group, *init, expected.uid_first)
        };
        Autopsy {
            cpu_us: cpu_us.saturating_sub(running.baseline.cpu_us()),
            disk_free: None,
            processes,
            more,
        }
    }

    /// What was used from go to this moment.
    fn measured(&self, running: Option<Running>, at_us: u64) -> WireMeasured {
        match (running, self.sandbox.meter.read()) {
            (Some(running), Ok(now)) => now.since(running.baseline, at_us - running.since_us),
            (None, _) => WireMeasured::default(),
            (Some(_), Err(error)) => {
                let name = self.sandbox.name;
                log(name, &format!("cannot read the counters: {error}"));
                WireMeasured::default()
            }
        }
    }

    /// Whether init is the only process of the sandbox. Nothing in it can leave one of its groups,
    /// so that one hierarchy tells for all.
    fn is_init_alone(&self) -> bool {
        self.sandbox
            .group
            .members()
            .is_ok_and(|pids| pids == [self.sandbox.init])
    }

    /// Kills init, and with it the whole pid namespace; true once all of it is gone.
    ///
    /// Init ends only when the kernel has reaped every other process of the namespace, so that its
    /// end proves the sandbox empty.
    fn kill(&self, wait_us: u64) -> bool {
        let pidfd = self.sandbox.pidfd.as_fd();
        if let Err(error) = kernel::pidfd_signal(pidfd, Signal::SIGKILL) {
            log(self.sandbox.name, &format!("cannot kill init: {error}"));
            return false;
        }
        // Init may be held back itself; until the others have ended, the platform pays.
        if let Err(error) = self.sandbox.group.hurry() {
            log(
                self.sandbox.name,
                &format!("cannot lift the CPU quota: {error}"),
            );
        }
        matches!(
            wait([(pidfd, PollFlags::POLLIN)], Some(wait_us)),
            Ok([true])
        )
    }

    fn tell(&self, ended: Ended, autopsy: Option<Autopsy>) -> bool {
        let frame = FromShim::Ended(ended, autopsy);
        wire::send(self.sandbox.server.as_fd(), &frame, FRAME_MAX, &[]).is_ok()
    }

    /// Waits for the server to say that the figures are safe.
    fn is_settled(&self) -> bool {
        let server = self.sandbox.server.as_fd();
        let until = self.clock.now_us() + SETTLE_WAIT_US;
        loop {
            let left_us = until.saturating_sub(self.clock.now_us());
            if !matches!(
                wait([(server, PollFlags::POLLIN)], Some(left_us)),
                Ok([true])
            ) {
                return false;
            }
            match wire::recv::<ToShim>(server, FRAME_MAX) {
                Ok(Some((ToShim::Settled, _))) => return true,
                // A finish that crossed our answer.
                Ok(Some((ToShim::Finish { .. }, _))) => {}
                Ok(Some(_) | None) | Err(_) => return false,
            }
        }
    }

    /// Reaps everything and removes the groups; true when nothing is left.
    fn clean_up(&self, host: &Host<'_>) -> bool {
        let until = self.clock.now_us() + CLEAN_WAIT_US;
        if !self.kill(CLEAN_WAIT_US) {
            return false;
        }
        loop {
            reap();
            match host.home.remove(Kin::Sandboxes, self.sandbox.name) {
                Ok(()) => return true,
                Err(error) if error.kind() != io::ErrorKind::ResourceBusy => {
                    log(
                        self.sandbox.name,
                        &format!("cannot remove the group: {error}"),
                    );
                    return false;
                }
                Err(_) if self.clock.now_us() >= until => return false,
                Err(_) => drop(wait([], Some(REMOVE_RETRY_US))),
            }
        }
    }
}

enum Left {
    Until(u64),
    Nothing(EndedBy),
}

/// Reaps every child that has ended.
fn reap() {
    while matches!(
        waitpid(None, Some(WaitPidFlag::WNOHANG)),
        Ok(status) if status != WaitStatus::StillAlive
    ) {}
}

/// Waits until one of the descriptors is ready or the time is over; tells which are.
fn wait<const N: usize>(
    watched: [(BorrowedFd<'_>, PollFlags); N],
    for_us: Option<u64>,
) -> io::Result<[bool; N]> {
    let mut polled = watched.map(|(fd, flags)| PollFd::new(fd, flags));
    let timeout = for_us.map(|us| TimeSpec::from(Duration::from_micros(us)));
    match ppoll(&mut polled, timeout, None) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(polled.map(|one| one.revents().is_some_and(|found| !found.is_empty())))
}
