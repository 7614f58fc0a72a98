//! The launcher's loop: requests in, shims out, the dead swept.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use super::disks::Disks;
use super::images::Images;
use super::networks::Networks;
use super::slots::{Admission, Slots};
use super::state::State;
use super::step::{During, Failed, log};
use super::templates::{Start, Templates};
use super::{cpus, hex, kernel, root, sweep, userns};
use crate::cgroup::{Home, Kin, WEIGHT, WEIGHT_LEAST};
use crate::clock::Monotonic;
use crate::disk::Template;
use crate::seccomp::Program;
use crate::shim::{self, Host, Job, Sockets};
use crate::truth::Cpu;
use crate::wire::{
    self, DiskClass, FRAME_MAX, FromLauncher, Id, LauncherConfig, Make, Refusal, ToLauncher,
    WireError,
};

/// Answers that wait for the server to read them; with more, no request is taken.
const OUTBOX_MAX: usize = 64;
/// How long shims may take to end by themselves when the server is gone, in us.
const END_WAIT_US: u64 = 10_000_000;
/// How long their sweep may take once they were killed, in us.
const KILL_WAIT_US: u64 = 15_000_000;

/// A launcher that may serve.
#[derive(Debug)]
pub(super) struct Launcher {
    config: LauncherConfig,
    state: State,
    home: Home,
    /// The CPU time of all sandboxes; the server has no privilege to open it by itself.
    counters: [File; 2],
    templates: Vec<Template>,
    disks: Disks,
    filter: Rc<Program>,
    cpu: Cpu,
    store: OwnedFd,
    images: Images,
    /// By slot and owner.
    userns: Owned,
    networks: Networks,
    forks: Templates,
    slots: Slots,
    signals: SignalFd,
    outbox: VecDeque<FromLauncher>,
}

impl Launcher {
    /// Sweeps what an earlier launcher left, and is ready to serve.
    pub(super) fn new(
        config: LauncherConfig,
        state: State,
        home: Home,
        templates: Vec<Template>,
        (filter, forks): (Program, Program),
    ) -> Result<Launcher, Failed> {
        sweep::boot(
            &home,
            (state.final_dir(), (config.server_uid, config.server_gid)),
        )?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block().during("block SIGCHLD")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&mask, flags).during("watch for SIGCHLD")?;
        let mut options = File::options();
        options.read(true).custom_flags(OFlag::O_DIRECTORY.bits());
        let store = options
            .open(root::IMAGES)
            .during("open the image store")?
            .into();
        Ok(Launcher {
            slots: Slots::new(&config),
            images: Images::default(),
            userns: HashMap::new(),
            networks: Networks::new()?,
            forks: Templates::new(config.uid_base, config.template_forks, forks),
            outbox: VecDeque::from([FromLauncher::Up {
                instance: state.instance.clone(),
            }]),
            filter: Rc::new(filter),
            cpu: Cpu::read().during("read /proc/cpuinfo")?,
            disks: Disks::new(config.disks_ahead),
            config,
            state,
            counters: [
                home.cpu_counter(Kin::Sandboxes)
                    .during("open the CPU counter of all sandboxes")?,
                home.cpu_counter(Kin::Templates)
                    .during("open the CPU counter of all templates")?,
            ],
            home,
            templates,
            store,
            signals,
        })
    }

    /// Serves until the server is gone and nothing is left of its sandboxes.
    pub(super) fn run(mut self, server: &OwnedFd) -> Result<(), Failed> {
        let flags = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        fcntl(server.as_raw_fd(), flags).during("make the server's socket non-blocking")?;
        while self.turn(server)? {}
        self.end()?;
        self.home.dismantle().during("remove the launcher's groups")
    }

    /// Waits for one event; false when the server is gone.
    fn turn(&mut self, server: &OwnedFd) -> Result<bool, Failed> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, self.outbox.len() < OUTBOX_MAX);
        wanted.set(PollFlags::POLLOUT, !self.outbox.is_empty());
        let mut polled = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(server.as_fd(), wanted),
        ];
        let disks = self.disks.socket();
        polled.extend(disks.map(|socket| PollFd::new(socket, PollFlags::POLLIN)));
        match poll(&mut polled, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).during("wait for events"),
        }
        let ready = polled[1].revents().unwrap_or(PollFlags::empty());
        self.disks.receive();
        self.reap()?;
        self.end_overdue()?;
        self.sweep();
        if !self.flush(server) {
            return Ok(false);
        }
        if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP) {
            self.receive(server)
        } else {
            Ok(true)
        }
    }

    /// A sweep that must wait is tried again soon; nothing else has a time.
    fn timeout(&self) -> PollTimeout {
        let waits = !self.slots.orphaned().is_empty() || self.networks.any_making();
        if waits {
            PollTimeout::from(sweep::RETRY_MS)
        } else {
            PollTimeout::NONE
        }
    }

    /// Takes one request; false when the server is gone.
    fn receive(&mut self, server: &OwnedFd) -> Result<bool, Failed> {
        match wire::recv::<ToLauncher>(server.as_fd(), FRAME_MAX) {
            Ok(Some((ToLauncher::Make(make), descriptors))) => {
                let sandbox = make.sandbox;
                if let Err(reason) = self.make(&make, descriptors) {
                    self.outbox
                        .push_back(FromLauncher::Refused { sandbox, reason });
                }
                Ok(true)
            }
            Ok(Some((ToLauncher::Renew(image), _))) => {
                for uid in self.forks.renew(image, &self.home) {
                    forget_owner(&mut self.userns, &mut self.networks, uid);
                }
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(WireError::Socket { source, .. }) => match source.kind() {
                io::ErrorKind::WouldBlock => Ok(true),
                io::ErrorKind::ConnectionReset => Ok(false),
                _ => Err(source).during("receive from the server"),
            },
            Err(error) => {
                log("launcher", &format!("refused a frame: {error}"));
                Ok(true)
            }
        }
    }

    /// Checks a request and forks its shim.
    fn make(&mut self, make: &Make, descriptors: Vec<OwnedFd>) -> Result<(), Refusal> {
        let host = |reason: String| Refusal::Host {
            reason: wire::clip(&reason),
        };
        let sockets = sockets(descriptors).map_err(host)?;
        let allowed = cpus::allowed()
            .map_err(|error| host(format!("cannot tell the machine's CPUs: {error}")))?;
        let admission = self.slots.admit(make, &self.config, &allowed)?;
        let (disk, template) = disk_of(make.disk_class, &self.config, &self.templates)?;
        let image = self.images.of(self.store.as_fd(), make.image)?;
        let start = image.zip(make.template.as_ref());
        let start = start.map(|((image, root), env)| Start {
            image,
            root: root.as_fd(),
            env,
            home: &self.home,
            filter: &self.filter,
            open_files: self.config.maxima.open_files,
        });
        let fork_from = start.and_then(|start| {
            self.forks.get(&start, |uid| {
                forget_owner(&mut self.userns, &mut self.networks, uid);
            })
        });
        let owner = fork_from.map_or(0, |one| one.uid);
        let userns = namespace(&mut self.userns, &admission, owner)
            .map_err(|error| host(format!("cannot make a user namespace: {error}")))?;
        // Who is behind is not helped at everyone's cost.
        let disk_ahead = (!make.behind).then(|| self.disks.take(make.disk_class));
        let job = Job {
            sandbox: make.sandbox,
            group: self.home.path_of(&hex(&make.sandbox)),
            name: hex(&make.sandbox),
            image: image.map(|(_digest, root)| root),
            uid_first: admission.uid_first,
            userns,
            template,
            disk_ahead: disk_ahead.flatten(),
            disk: *disk,
            limits: make.limits,
            weight: make.weight.clamp(WEIGHT_LEAST, WEIGHT),
            behind: make.behind,
            cpus: &admission.cpus,
            network: make.network,
            network_ahead: self.networks.take((admission.index, owner), make.ahead),
            networks: self.networks.wanted(make.ahead),
            fork_from,
        };
        let host_side = Host {
            launcher: Pid::this(),
            home: &self.home,
            final_dir: self.state.final_dir(),
            owner: (self.config.server_uid, self.config.server_gid),
            filter: &self.filter,
            cpu: &self.cpu,
            cpus: u64::try_from(allowed.len()).unwrap_or(1),
            keep_s_max: self.config.keep_s_max,
            maxima: &self.config.maxima,
        };
        match kernel::fork().map_err(|error| host(format!("cannot fork a shim: {error}")))? {
            ForkResult::Child => kernel::exit_now(shim::run(&host_side, &job, sockets)),
            ForkResult::Parent { child } => self.slots.take(make.sandbox, &admission, child),
        }
        if !make.behind {
            let made_of = (&*self.templates, self.state.dir());
            self.disks.refill(make.disk_class, made_of);
        }
        Ok(())
    }

    /// Kills shims that were stopped while they made a network: there is nothing else that they
    /// wait for, and that their parent is told of each that stops is what wakes this one.
    fn end_overdue(&mut self) -> Result<(), Failed> {
        for sandbox in self.networks.overdue() {
            if let Some(shim) = self.slots.shim(&sandbox) {
                log("launcher", "killed a shim that was stopped by a template");
                kill(shim, Signal::SIGKILL).during("kill a shim")?;
            }
        }
        Ok(())
    }

    /// Reaps every child that has ended: shims, and orphans of sandboxes.
    fn reap(&mut self) -> Result<(), Failed> {
        while self.signals.read_signal().during("read SIGCHLD")?.is_some() {}
        self.networks.receive(|sandbox| self.slots.index(sandbox));
        loop {
            let (pid, is_clean) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code == 0),
                Ok(WaitStatus::Signaled(pid, _, _)) => (pid, false),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno).during("wait for children"),
            };
            self.disks.reaped(pid);
            if let Some(uid) = self.forks.reaped(pid, &self.home) {
                forget_owner(&mut self.userns, &mut self.networks, uid);
            }
            // Before the shim's slot is another's.
            self.networks.receive(|sandbox| self.slots.index(sandbox));
            if let Some(sandbox) = self.slots.shim_ended(pid) {
                self.networks.ended(&sandbox);
                if is_clean {
                    self.gone(sandbox);
                } else {
                    log(
                        "launcher",
                        &format!("the shim of {} ended badly", hex(&sandbox)),
                    );
                }
            }
        }
    }

    /// One attempt at each sandbox whose shim has left something.
    fn sweep(&mut self) {
        let owner = (self.config.server_uid, self.config.server_gid);
        for sandbox in self.slots.orphaned() {
            match sweep::attempt(&self.home, sandbox, (self.state.final_dir(), owner)) {
                Ok(true) => self.gone(sandbox),
                Ok(false) => {}
                Err(error) => {
                    log(
                        "launcher",
                        &format!("cannot sweep {} yet: {error}", hex(&sandbox)),
                    );
                }
            }
        }
    }

    fn gone(&mut self, sandbox: Id) {
        self.slots.free(sandbox);
        self.outbox.push_back(FromLauncher::Gone { sandbox });
    }

    /// Sends what the server has room for; false when it is gone.
    fn flush(&mut self, server: &OwnedFd) -> bool {
        while let Some(frame) = self.outbox.front() {
            let counters = match frame {
                FromLauncher::Up { .. } => self.counters.as_slice(),
                _ => &[],
            };
            let descriptors: Vec<_> = counters.iter().map(AsFd::as_fd).collect();
            match wire::send(server.as_fd(), frame, FRAME_MAX, &descriptors) {
                Ok(()) => drop(self.outbox.pop_front()),
                Err(WireError::Socket { source, .. })
                    if source.kind() == io::ErrorKind::WouldBlock =>
                {
                    return true;
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// The server is gone: waits for the shims, which see it too, then kills what does not end.
    fn end(&mut self) -> Result<(), Failed> {
        self.disks.end();
        self.forks.end(&self.home);
        let clock = Monotonic::start();
        let mut is_patient = true;
        while !self.slots.is_empty() {
            let waited_us = clock.now_us();
            if is_patient && waited_us > END_WAIT_US {
                is_patient = false;
                for shim in self.slots.shims() {
                    log(
                        "launcher",
                        &format!("killed shim {shim}, which did not end"),
                    );
                    kill(shim, Signal::SIGKILL).during("kill a shim")?;
                }
            }
            if waited_us > KILL_WAIT_US {
                return Err(Failed::because(
                    "end every sandbox",
                    "a process does not die",
                ));
            }
            let mut polled = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let soon = if self.slots.orphaned().is_empty() {
                100
            } else {
                sweep::RETRY_MS
            };
            match poll(&mut polled, PollTimeout::from(soon)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).during("wait for shims"),
            }
            self.reap()?;
            self.sweep();
        }
        // Somebody may still be on the way from a template to a sandbox that is gone.
        sweep::templates(&self.home, &Monotonic::start()).during("remove the templates' groups")
    }
}

/// The two sockets that come with a request.
fn sockets(descriptors: Vec<OwnedFd>) -> Result<Sockets, String> {
    let [server, init] = wire::exactly(descriptors).map_err(|error| error.to_string())?;
    for socket in [&server, &init] {
        if getsockopt(socket, sockopt::SockType) != Ok(SockType::SeqPacket) {
            return Err("a descriptor is not a SOCK_SEQPACKET socket".to_owned());
        }
    }
    Ok(Sockets { server, init })
}

/// The size of a class of disks, and its template.
fn disk_of<'a>(
    class: u8,
    config: &'a LauncherConfig,
    templates: &'a [Template],
) -> Result<(&'a DiskClass, &'a Template), Refusal> {
    let class = usize::from(class);
    let found = config.disk_classes.get(class).zip(templates.get(class));
    found.ok_or_else(|| Refusal::Limit {
        name: "disk_class".to_owned(),
    })
}

/// The user namespaces of slots, by slot and owner.
type Owned = HashMap<(u32, u32), OwnedFd>;

/// The user namespace of a slot that belongs to `owner`, made on its first use.
fn namespace<'a>(
    made: &'a mut Owned,
    admission: &Admission,
    owner: u32,
) -> io::Result<&'a OwnedFd> {
    use std::collections::hash_map::Entry;
    match made.entry((admission.index, owner)) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => Ok(entry.insert(userns::make(admission.uid_first, owner)?)),
    }
}

/// Drops the namespaces of slots that belonged to a template.
fn forget_owner(made: &mut Owned, networks: &mut Networks, uid: u32) {
    made.retain(|(_slot, owner), _| *owner != uid);
    networks.forget_owner(uid);
}
