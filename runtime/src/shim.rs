//! The shim: makes one sandbox, holds its deadlines, reads its counters, takes it down.
//!
//! ```text
//! fork -> mounts, time -> group -> container library -> limits -> Ready -> idle --Go--> running
//!   any step fails: Failed -> clean up                              Claim: new limits     |
//!                                                                           v             v
//!   Finish, Wall, Cpu, Oom, InitDied, ServerGone:                           +---> end <---+
//!   killed -> empty -> counters -> Ended -> clean up -> settled, or the final file
//!   its files are to be kept: ... Ended -> reader, Kept -> settled -> time is over -> clean up
//! exit code 0: nothing is left; another: the launcher must sweep
//! ```
//!
//! Forked from the launcher, with one thread for all its life. It never returns into the launcher's
//! code. When it dies, init dies with it (parent-death signal), and the launcher sweeps its groups.

mod autopsy;
mod claim;
mod container;
mod deadline;
mod fork;
mod keep;
mod mounts;
mod network;
mod watch;

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, alarm, getppid};

use self::watch::Sandbox;
use crate::cgroup::{Group, Home, Kin, Meter, Version};
use crate::clock;
use crate::disk::Template;
use crate::launcher::step::{During, Failed, log};
use crate::launcher::{cpus, kernel};
use crate::oci::{self, Posture};
use crate::posture::Expected;
use crate::seccomp::Program;
use crate::truth::Cpu;
use crate::wire::{self, DiskClass, FRAME_MAX, FromShim, Handle, Id, WireLimits, WireNetwork};

/// How long the container library may take to make a sandbox, in seconds, before the shim is
/// killed.
const MAKE_SECONDS: u32 = 30;

/// What every shim needs of its launcher.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    /// The launcher's pid: if it is not the parent any more, the shim ends.
    pub(crate) launcher: Pid,
    /// This instance's groups.
    pub(crate) home: &'a Home,
    /// Where final files go.
    pub(crate) final_dir: BorrowedFd<'a>,
    /// Owner of final files: uid and gid.
    pub(crate) owner: (u32, u32),
    /// The filter that init loads.
    pub(crate) filter: &'a Rc<Program>,
    /// What sandboxes are told of a CPU.
    pub(crate) cpu: &'a Cpu,
    /// CPUs that this machine has for sandboxes: so many can burn at once.
    pub(crate) cpus: u64,
    /// Longest that files may be kept, in s, whatever the server asks.
    pub(crate) keep_s_max: u32,
    /// No sandbox may have more, whatever the server asks.
    pub(crate) maxima: &'a WireLimits,
}

/// One sandbox to be made.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// Its identity.
    pub(crate) sandbox: Id,
    /// Its identity as 32 hex digits: the name of its group and of its final file.
    pub(crate) name: String,
    /// Absolute path of its group.
    pub(crate) group: String,
    /// Its image's root, in the launcher's mount namespace; none for an empty root.
    pub(crate) image: Option<&'a OwnedFd>,
    /// First host uid and gid of its range.
    pub(crate) uid_first: u32,
    /// A user namespace that maps to its range.
    pub(crate) userns: &'a OwnedFd,
    /// Its disk's template.
    pub(crate) template: &'a Template,
    /// Its disk, if it was made ahead: a detached mount.
    pub(crate) disk_ahead: Option<OwnedFd>,
    /// Its disk's size.
    pub(crate) disk: DiskClass,
    /// Its limits.
    pub(crate) limits: WireLimits,
    /// Its CPU weight until the server writes another.
    pub(crate) weight: u32,
    /// Whether it is behind others until the server says otherwise.
    pub(crate) behind: bool,
    /// CPUs that it runs on.
    pub(crate) cpus: &'a [usize],
    /// What it may reach.
    pub(crate) network: WireNetwork,
    /// Its network namespace, if one was made ahead: only where `userns` is entered, which owns it.
    pub(crate) network_ahead: Option<OwnedFd>,
    /// Where one for the next sandbox of the slot is handed over, if it is wanted.
    pub(crate) networks: Option<&'a OwnedFd>,
    /// Its image's template, which owns `userns` then.
    pub(crate) fork_from: Option<ForkFrom<'a>>,
}

/// A template that a sandbox's interpreter may be forked from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForkFrom<'a> {
    /// Where it takes requests.
    pub(crate) socket: &'a OwnedFd,
    /// Who it is.
    pub(crate) uid: u32,
}

impl Job<'_> {
    /// The descriptors of it that are needed once its file systems are mounted.
    fn descriptors(&self) -> Vec<RawFd> {
        let template = self.fork_from.map(|template| template.socket.as_raw_fd());
        let ahead = self.network_ahead.as_ref().map(AsRawFd::as_raw_fd);
        template
            .into_iter()
            .chain(ahead)
            .chain(self.networks.map(AsRawFd::as_raw_fd))
            .chain([self.userns.as_raw_fd()])
            .collect()
    }
}

/// The two sockets that come with a request.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// From the shim to the server.
    pub(crate) server: OwnedFd,
    /// From init to the server.
    pub(crate) init: OwnedFd,
}

/// Runs the whole life of one sandbox. The answer is the shim's exit code: 0 when nothing is left.
pub(crate) fn run(host: &Host<'_>, job: &Job<'_>, sockets: Sockets) -> u8 {
    let server = sockets.server;
    match make(host, job, &server, sockets.init) {
        Ok(sandbox) => {
            let code = watch::run(host, &sandbox);
            if code == 0 {
                network::make_next(job);
            }
            code
        }
        Err(failed) => {
            log(&job.name, &failed.to_string());
            let frame = told_failed(&failed);
            // The server may be gone; the log has it.
            drop(wire::send(server.as_fd(), &frame, FRAME_MAX, &[]));
            // What was made so far is the launcher's to sweep; usually that is nothing.
            u8::from(host.home.remove(Kin::Sandboxes, &job.name).is_err())
        }
    }
}

/// What the server is told of a step that failed.
fn told_failed(failed: &Failed) -> FromShim {
    FromShim::Failed {
        step: wire::clip(&failed.step),
        reason: wire::clip(&failed.source.to_string()),
    }
}

/// Makes the sandbox and tells the server.
fn make<'a>(
    host: &Host<'_>,
    job: &'a Job<'_>,
    server: &'a OwnedFd,
    init: OwnedFd,
) -> Result<Sandbox<'a>, Failed> {
    become_shim(host)?;
    let disk = mounts::make(job)?;
    let told = claim::tell(host.cpu, job).during("tell the sandbox what it has")?;
    begin_time().during("begin the sandbox's time")?;
    let group = host
        .home
        .create(&job.name, job.weight, job.behind)
        .during("make the sandbox's group")?;
    let memory_events = group.watch_memory().during("watch the group's memory")?;
    let meter = Meter::open(&group).during("open the group's counters")?;
    let platform = host.home.platform().during("open the platform's group")?;
    let config = oci::config(&Posture {
        uid_first: job.uid_first,
        group: &job.group,
        limits: &job.limits,
        disk: job.disk,
        network: job.network,
        netns: job.network_ahead.as_ref().map(AsRawFd::as_raw_fd),
        userns: job.fork_from.map(|_| job.userns.as_raw_fd()),
    });
    let handles = Handles::open(&group).during("open the group's limits")?;
    let mut kept = job.descriptors();
    kept.extend([server, &init, &disk, &memory_events].map(AsRawFd::as_raw_fd));
    kept.push(host.final_dir.as_raw_fd());
    kept.extend(told.descriptors());
    kept.extend(
        group
            .descriptors()
            .chain(platform.descriptors())
            .chain(host.home.descriptors()),
    );
    kept.extend(
        meter
            .descriptors()
            .chain(handles.0.iter().map(|(_, file)| file.as_raw_fd())),
    );
    kernel::close_all_from(3, &kept).during("close inherited descriptors")?;

    alarm::set(MAKE_SECONDS);
    let created = container::create(host, (&group, &platform), &config, init)?;
    group.limit(&job.limits)?;
    if job.network_ahead.is_none() {
        network::bring_up(created.init()?).during("bring the loopback up")?;
    }
    let init = created.start()?;
    cpus::pin(init, job.cpus).during("give init its CPUs")?;
    alarm::cancel();

    let sandbox = Sandbox {
        id: job.sandbox,
        name: &job.name,
        server,
        pidfd: kernel::pidfd_open(init).during("open init's pidfd")?,
        init,
        group,
        meter,
        memory_events,
        disk,
        userns: job.userns,
        template: job.fork_from,
        told,
        limits: Cell::new(job.limits),
        cpus: job.cpus,
        expected: Expected {
            uid_first: job.uid_first,
            group: &job.group,
            limits: &job.limits,
            disk: job.disk,
        },
    };
    handles.announce(&sandbox)?;
    Ok(sandbox)
}

/// Ties the shim's life to the launcher's, and gives it a signal mask and orphans of its own.
fn become_shim(host: &Host<'_>) -> Result<(), Failed> {
    prctl::set_name(c"farebox-shim").during("take a name")?;
    prctl::set_child_subreaper(true).during("become a sub-reaper")?;
    tie_to(host.launcher)?;
    SigSet::empty().thread_set_mask().during("unblock signals")
}

/// Has the shim die with the launcher. To be called again after a change of ids.
fn tie_to(launcher: Pid) -> Result<(), Failed> {
    prctl::set_pdeathsig(Signal::SIGKILL).during("tie the shim to the launcher")?;
    if getppid() != launcher {
        return Err(Failed::because("start", "the launcher is gone"));
    }
    Ok(())
}

/// Puts what this process forks from now on into a time namespace in which the machine has just
/// been started: by its clocks, by `sysinfo`, and by the times at which its processes began.
fn begin_time() -> std::io::Result<()> {
    // The name is too new for the library.
    unshare(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME))?;
    std::fs::write("/proc/self/timens_offsets", clock::offsets_to_zero()?)
}

/// The limit files that the server writes, open.
struct Handles(Vec<(Handle, File)>);

impl Handles {
    fn open(group: &Group) -> std::io::Result<Handles> {
        let files = match group.version() {
            Version::V1 => [
                "memory.limit_in_bytes",
                "cpu.cfs_quota_us",
                "cpu.shares",
                "cpu.idle",
                "pids.max",
            ],
            Version::V2 => [
                "memory.max",
                "cpu.max",
                "cpu.weight",
                "cpu.idle",
                "pids.max",
            ],
        };
        let kinds = [
            Handle::MemoryLimit,
            Handle::CpuQuota,
            Handle::CpuWeight,
            Handle::CpuIdle,
            Handle::PidsMax,
        ];
        let open = |(kind, file): (Handle, &str)| {
            let controller = file.split('.').next().unwrap_or_default();
            Ok((kind, group.open(controller, file, true)?))
        };
        kinds
            .into_iter()
            .zip(files)
            .map(open)
            .collect::<std::io::Result<_>>()
            .map(Handles)
    }

    /// Tells the server that the sandbox is ready.
    fn announce(&self, sandbox: &Sandbox<'_>) -> Result<(), Failed> {
        let (cpu, peak) = sandbox.meter.shared();
        let mut all: Vec<(Handle, BorrowedFd<'_>)> = self
            .0
            .iter()
            .map(|(kind, file)| (*kind, file.as_fd()))
            .collect();
        all.push((Handle::CpuUsage, cpu));
        all.extend(peak.map(|peak| (Handle::MemoryPeak, peak)));
        all.push((Handle::Init, sandbox.pidfd.as_fd()));
        let (handles, descriptors): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let frame = FromShim::Ready { handles };
        wire::send(sandbox.server.as_fd(), &frame, FRAME_MAX, &descriptors)
            .map_err(std::io::Error::other)
            .during("tell the server")
    }
}
