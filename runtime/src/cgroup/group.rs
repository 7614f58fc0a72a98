//! One group a sandbox: limited, read, watched and killed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::AtFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid, fchownat};

use super::hierarchy::{Version, open_file, read_file, write_file};
use super::{PERIOD_US, parse};
use crate::launcher::kernel;
use crate::launcher::step::{During, Failed};
use crate::wire::WireLimits;

/// What lies unread in sockets counts apart on v1, in spite of the file's name not only of TCP: one
/// part in so many of the memory limit, on top of it. The bound behind it is the whole machine's.
const SOCKETS_SHARE: u64 = 8;

/// More CPUs than a machine has: a quota of so many holds nobody back.
const CPUS_MAX: u64 = 8192;

/// What a sandbox may do with which device on v1: the ones libcontainer binds, and terminals.
const DEVICES: [&str; 8] = [
    "c 1:3 rw",
    "c 1:5 rw",
    "c 1:7 rw",
    "c 1:8 rw",
    "c 1:9 rw",
    "c 5:0 rw",
    "c 5:2 rw",
    "c 136:* rw",
];

/// One sandbox's group, or the platform's, in every hierarchy.
#[derive(Debug)]
pub(crate) struct Group {
    pub(super) version: Version,
    pub(super) parts: Vec<Part>,
}

/// A group in one hierarchy.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) controllers: Vec<&'static str>,
    pub(super) dir: OwnedFd,
}

impl Group {
    /// Every descriptor that is held.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.parts.iter().map(|part| part.dir.as_raw_fd())
    }

    /// Which interface the group has.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Opens a file of the group.
    pub(crate) fn open(&self, controller: &str, name: &str, write: bool) -> io::Result<File> {
        open_file(self.dir(controller)?, name, write)
    }

    /// Moves this process, which has one thread, into the group.
    ///
    /// On v1 by `tasks`, which does not wait for the machine's other CPUs (7 to 15 ms when idle).
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.parts
            .iter()
            .try_for_each(|part| write_file(part.dir.as_fd(), self.entrance(), "0"))
    }

    /// Opens, for each hierarchy, the file through which a process moves itself into the group.
    pub(crate) fn entrances(&self) -> io::Result<Vec<OwnedFd>> {
        let parts = self.parts.iter();
        parts
            .map(|part| open_file(part.dir.as_fd(), self.entrance(), true).map(OwnedFd::from))
            .collect()
    }

    /// Lets the user `uid`, who has a descriptor of the group, fork into it: on v2, where who may
    /// do that is who may write this file.
    pub(crate) fn admit(&self, uid: u32) -> io::Result<()> {
        self.parts.iter().try_for_each(|part| {
            let dir = Some(part.dir.as_raw_fd());
            let uid = Some(Uid::from_raw(uid));
            Ok(fchownat(
                dir,
                self.entrance(),
                uid,
                None,
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )?)
        })
    }

    fn entrance(&self) -> &'static str {
        match self.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.procs",
        }
    }

    /// Sets every limit of a new group, and on v1 the devices.
    pub(crate) fn limit(&self, limits: &WireLimits) -> Result<(), Failed> {
        self.set_limits(limits, false)?;
        if self.version == Version::V2 {
            return Ok(());
        }
        self.set("devices", "devices.deny", "a")?;
        DEVICES
            .iter()
            .try_for_each(|rule| self.set("devices", "devices.allow", rule))
    }

    /// Replaces the limits `from` by others.
    pub(crate) fn limit_anew(&self, from: &WireLimits, to: &WireLimits) -> Result<(), Failed> {
        self.set_limits(to, to.memory_bytes > from.memory_bytes)
    }

    /// On v1 memory may never be more than memory with swap: the latter is first where it `grows`.
    fn set_limits(&self, limits: &WireLimits, grows: bool) -> Result<(), Failed> {
        let memory = limits.memory_bytes.to_string();
        let quota = (u64::from(limits.cpu_millis) * PERIOD_US / 1000).to_string();
        let pids = limits.pids.to_string();
        match self.version {
            Version::V1 => {
                let with_swap =
                    || self.set_if_there("memory", "memory.memsw.limit_in_bytes", &memory);
                if grows {
                    with_swap()?;
                }
                self.set("memory", "memory.limit_in_bytes", &memory)?;
                if !grows {
                    with_swap()?;
                }
                let sockets = (limits.memory_bytes / SOCKETS_SHARE).to_string();
                self.set_if_there("memory", "memory.kmem.tcp.limit_in_bytes", &sockets)?;
                self.set("cpu", "cpu.cfs_period_us", &PERIOD_US.to_string())?;
                self.set("cpu", "cpu.cfs_quota_us", &quota)?;
                self.set("pids", "pids.max", &pids)
            }
            Version::V2 => {
                self.set("memory", "memory.max", &memory)?;
                self.set_if_there("memory", "memory.swap.max", "0")?;
                self.set("memory", "memory.oom.group", "1")?;
                self.set("cpu", "cpu.max", &format!("{quota} {PERIOD_US}"))?;
                self.set("pids", "pids.max", &pids)
            }
        }
    }

    /// A descriptor that polls readable (v1) or urgent (v2) when the kernel has no memory to give.
    pub(crate) fn watch_memory(&self) -> io::Result<OwnedFd> {
        match self.version {
            Version::V1 => {
                let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
                let control = self.open("memory", "memory.oom_control", false)?;
                let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
                write_file(self.dir("memory")?, "cgroup.event_control", &line)?;
                Ok(event.into())
            }
            Version::V2 => {
                let events = self.open("memory", "memory.events", false)?;
                // A change is told of once it was read.
                let mut text = String::new();
                io::Read::read_to_string(&mut &events, &mut text)?;
                Ok(events.into())
            }
        }
    }

    /// Holds nothing back any more: a process that is being killed needs the CPU to end, and a
    /// crowd at a small share would take seconds over it.
    pub(crate) fn hurry(&self) -> io::Result<()> {
        // Not unlimited, which would patch the scheduler's code for every group of the machine.
        let quota = (PERIOD_US * CPUS_MAX).to_string();
        match self.version {
            Version::V1 => write_file(self.dir("cpu")?, "cpu.cfs_quota_us", &quota),
            Version::V2 => write_file(self.dir("cpu")?, "cpu.max", &format!("{quota} {PERIOD_US}")),
        }
    }

    /// Lets a descriptor of [`Group::watch_memory`] tell of the next event, and not of the last
    /// again.
    pub(crate) fn hush(&self, watch: &OwnedFd) -> io::Result<()> {
        let mut bytes = [0; 512];
        match self.version {
            Version::V1 => nix::unistd::read(watch.as_raw_fd(), &mut bytes)?,
            // From its beginning, and this very open file: the kernel notes what each has seen.
            Version::V2 => nix::sys::uio::pread(watch, &mut bytes, 0)?,
        };
        Ok(())
    }

    /// Whether the group holds far more memory than it may. On v2 what the network stack charges in
    /// an interrupt is let past the limit, and nothing is killed for it.
    pub(crate) fn is_over(&self) -> io::Result<bool> {
        if self.version == Version::V1 {
            return Ok(false);
        }
        let number = |name| -> io::Result<Option<u64>> {
            let text = read_file(self.dir("memory")?, name)?;
            Ok(text.trim().parse().ok())
        };
        let (current, most) = (number("memory.current")?, number("memory.max")?);
        let over = current.zip(most);
        Ok(over.is_some_and(|(current, most)| current > most.saturating_add(most / 4)))
    }

    /// Whether the group was removed from every hierarchy before it was opened.
    pub(crate) fn is_gone(&self) -> bool {
        self.parts.is_empty()
    }

    /// The processes in the group.
    pub(crate) fn pids(&self) -> io::Result<Vec<Pid>> {
        let mut found = Vec::new();
        for part in &self.parts {
            let text = read_file(part.dir.as_fd(), "cgroup.procs")?;
            found.extend(parse::pids(&text).into_iter().map(Pid::from_raw));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The processes in the group as one hierarchy has them, those with the lowest numbers first:
    /// one read, however many there are.
    pub(crate) fn members(&self) -> io::Result<Vec<Pid>> {
        let text = read_file(self.dir("pids")?, "cgroup.procs")?;
        let mut found = parse::pids(&text);
        found.sort_unstable();
        Ok(found.into_iter().map(Pid::from_raw).collect())
    }

    /// Kills every process in the group.
    pub(crate) fn kill(&self) -> io::Result<()> {
        if self.version == Version::V2
            && let Some(part) = self.parts.first()
            && write_file(part.dir.as_fd(), "cgroup.kill", "1").is_ok()
        {
            return Ok(());
        }
        for pid in self.pids()? {
            let Ok(process) = kernel::pidfd_open(pid) else {
                continue;
            };
            // The number may have been given to another process before it was pinned.
            if self.pids()?.contains(&pid) {
                kernel::pidfd_signal(process.as_fd(), Signal::SIGKILL)?;
            }
        }
        Ok(())
    }

    fn set(&self, controller: &str, name: &str, value: &str) -> Result<(), Failed> {
        write_file(
            self.dir(controller).during("find a controller")?,
            name,
            value,
        )
        .during(&format!("write {value} to {name}"))
    }

    fn set_if_there(&self, controller: &str, name: &str, value: &str) -> Result<(), Failed> {
        match self.set(controller, name, value) {
            Err(failed) if failed.source.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    pub(super) fn dir(&self, controller: &str) -> io::Result<BorrowedFd<'_>> {
        let holds =
            |part: &&Part| self.version == Version::V2 || part.controllers.contains(&controller);
        let part = self
            .parts
            .iter()
            .find(holds)
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(part.dir.as_fd())
    }
}
