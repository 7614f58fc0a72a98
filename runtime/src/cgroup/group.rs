//! The groups themselves: this instance's home, and one group a sandbox.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

use super::hierarchy::{Hierarchies, Root, Version, open_file, read_file, write_file};
use super::{CONTROLLERS_V2, PERIOD_US, devices, parse};
use crate::launcher::kernel;
use crate::launcher::step::{During, Failed};
use crate::wire::WireLimits;

/// The group above all instances.
const TOP: &str = "farebox";
/// The group of server, launcher and shims.
const PLATFORM: &str = "platform";
/// The group above the sandboxes.
const SANDBOXES: &str = "sandboxes";

/// CPU shares (v1; 1024 is the default) and weight (v2; 100 is) of the platform: it must get its
/// turn when every sandbox burns.
const PLATFORM_SHARES: &str = "16384";
const PLATFORM_WEIGHT: &str = "1600";

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

/// This instance's groups in every hierarchy.
#[derive(Debug)]
pub(crate) struct Home {
    version: Version,
    instance: String,
    branches: Vec<Branch>,
}

/// This instance's groups in one hierarchy.
#[derive(Debug)]
struct Branch {
    controllers: Vec<&'static str>,
    root: OwnedFd,
    platform: OwnedFd,
    sandboxes: OwnedFd,
}

/// One sandbox's group, or the platform's, in every hierarchy.
#[derive(Debug)]
pub(crate) struct Group {
    version: Version,
    parts: Vec<Part>,
}

/// A group in one hierarchy.
#[derive(Debug)]
struct Part {
    controllers: Vec<&'static str>,
    dir: OwnedFd,
}

impl Home {
    /// Makes this instance's groups, or finds them as an earlier launcher left them.
    pub(crate) fn make(hierarchies: Hierarchies, instance: &str) -> Result<Home, Failed> {
        let version = hierarchies.version;
        let branches = hierarchies
            .roots
            .into_iter()
            .map(|root| branch(version, root, instance))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Home {
            version,
            instance: instance.to_owned(),
            branches,
        })
    }

    /// A sandbox's group as an absolute path, for libcontainer.
    pub(crate) fn path_of(&self, name: &str) -> String {
        format!("/{TOP}/{}/{SANDBOXES}/{name}", self.instance)
    }

    /// The counter of the CPU time that all sandboxes have used together, those that are gone
    /// included: a group counts what its children have used.
    pub(crate) fn cpu_counter(&self) -> io::Result<File> {
        // On v2 there is one branch for all controllers.
        let (name, has_it): (_, fn(&&Branch) -> bool) = match self.version {
            Version::V1 => ("cpuacct.usage", |branch| {
                branch.controllers.contains(&"cpuacct")
            }),
            Version::V2 => ("cpu.stat", |_only| true),
        };
        let branch = self.branches.iter().find(has_it);
        let branch = branch.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        open_file(branch.sandboxes.as_fd(), name, false)
    }

    /// Every descriptor that is held.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.branches.iter().flat_map(|branch| {
            [
                branch.root.as_raw_fd(),
                branch.platform.as_raw_fd(),
                branch.sandboxes.as_raw_fd(),
            ]
        })
    }

    /// Moves a process with all its threads into the platform's group.
    pub(crate) fn enter_platform(&self, pid: Pid) -> io::Result<()> {
        for branch in &self.branches {
            write_file(branch.platform.as_fd(), "cgroup.procs", &pid.to_string())?;
        }
        Ok(())
    }

    /// Makes a sandbox's group, without limits but with its CPU weight while it is made.
    ///
    /// # Errors
    /// One that is there already: its counters would be another's.
    pub(crate) fn create(&self, name: &str, weight: u32) -> io::Result<Group> {
        for (made, branch) in self.branches.iter().enumerate() {
            let dir = Some(branch.sandboxes.as_raw_fd());
            if let Err(errno) = mkdirat(dir, name, Mode::from_bits_truncate(0o755)) {
                for earlier in self.branches.iter().take(made) {
                    remove_dir(earlier.sandboxes.as_fd(), name)?;
                }
                return Err(errno.into());
            }
        }
        let group = self.open(name)?;
        let file = match self.version {
            Version::V1 => "cpu.shares",
            Version::V2 => "cpu.weight",
        };
        write_file(group.dir("cpu")?, file, &weight.to_string())?;
        Ok(group)
    }

    /// Opens a sandbox's group; parts that are gone already are left out.
    pub(crate) fn open(&self, name: &str) -> io::Result<Group> {
        let mut parts = Vec::new();
        for branch in &self.branches {
            match open_group(branch.sandboxes.as_fd(), name) {
                Ok(dir) => parts.push(Part {
                    controllers: branch.controllers.clone(),
                    dir,
                }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Group {
            version: self.version,
            parts,
        })
    }

    /// The platform's group.
    pub(crate) fn platform(&self) -> io::Result<Group> {
        let parts = self.branches.iter().map(|branch| {
            let dir = branch.platform.try_clone()?;
            Ok(Part {
                controllers: branch.controllers.clone(),
                dir,
            })
        });
        Ok(Group {
            version: self.version,
            parts: parts.collect::<io::Result<_>>()?,
        })
    }

    /// The sandboxes that have a group in any hierarchy.
    pub(crate) fn sandboxes(&self) -> io::Result<Vec<String>> {
        let mut names = std::collections::BTreeSet::new();
        for branch in &self.branches {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let raw = Some(branch.sandboxes.as_raw_fd());
            let mut dir = Dir::openat(raw, ".", flags, Mode::empty())?;
            for entry in dir.iter() {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type() == Some(nix::dir::Type::Directory) && !name.starts_with('.') {
                    names.insert(name);
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Removes a sandbox's group from every hierarchy. One that is gone is no error.
    ///
    /// # Errors
    /// `ResourceBusy` while a process is left in it.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.branches
            .iter()
            .try_for_each(|branch| remove_dir(branch.sandboxes.as_fd(), name))
    }

    /// Moves the platform's processes to the root group and removes this instance's groups.
    pub(crate) fn dismantle(&self) -> io::Result<()> {
        for branch in &self.branches {
            let members = read_file(branch.platform.as_fd(), "cgroup.procs")?;
            for pid in parse::pids(&members) {
                match write_file(branch.root.as_fd(), "cgroup.procs", &pid.to_string()) {
                    // It has ended meanwhile.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    other => other?,
                }
            }
        }
        for branch in &self.branches {
            let root = branch.root.as_fd();
            let instance = open_group(root, &format!("{TOP}/{}", self.instance))?;
            remove_dir(instance.as_fd(), SANDBOXES)?;
            remove_dir(instance.as_fd(), PLATFORM)?;
            let top = open_group(root, TOP)?;
            remove_dir(top.as_fd(), &self.instance)?;
            match remove_dir(root, TOP) {
                // Another instance lives.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                other => other?,
            }
        }
        Ok(())
    }
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
        let file = match self.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.procs",
        };
        self.parts
            .iter()
            .try_for_each(|part| write_file(part.dir.as_fd(), file, "0"))
    }

    /// Sets every limit, and on v1 the devices.
    pub(crate) fn limit(&self, limits: &WireLimits) -> Result<(), Failed> {
        let memory = limits.memory_bytes.to_string();
        let quota = (u64::from(limits.cpu_millis) * PERIOD_US / 1000).to_string();
        let pids = limits.pids.to_string();
        match self.version {
            Version::V1 => {
                self.set("memory", "memory.limit_in_bytes", &memory)?;
                self.set_if_there("memory", "memory.memsw.limit_in_bytes", &memory)?;
                let sockets = (limits.memory_bytes / SOCKETS_SHARE).to_string();
                self.set_if_there("memory", "memory.kmem.tcp.limit_in_bytes", &sockets)?;
                self.set("cpu", "cpu.cfs_period_us", &PERIOD_US.to_string())?;
                self.set("cpu", "cpu.cfs_quota_us", &quota)?;
                self.set("pids", "pids.max", &pids)?;
                self.set("devices", "devices.deny", "a")?;
                DEVICES
                    .iter()
                    .try_for_each(|rule| self.set("devices", "devices.allow", rule))
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

    fn dir(&self, controller: &str) -> io::Result<BorrowedFd<'_>> {
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

/// How often another instance may remove the group above all while this one makes its own below.
const RACES_MAX: u32 = 100;

fn branch(version: Version, root: Root, instance: &str) -> Result<Branch, Failed> {
    let mut races = 0;
    while let Err(failed) = make_groups(version, root.dir.as_fd(), instance) {
        races += 1;
        if failed.source.kind() != io::ErrorKind::NotFound || races > RACES_MAX {
            return Err(failed);
        }
    }
    let path = format!("{TOP}/{instance}/{SANDBOXES}");
    let platform = format!("{TOP}/{instance}/{PLATFORM}");
    let open =
        |path: &str| open_group(root.dir.as_fd(), path).during(&format!("open the group /{path}"));
    let (sandboxes, platform) = (open(&path)?, open(&platform)?);
    let weight = match version {
        Version::V1 if root.controllers.contains(&"cpu") => Some(("cpu.shares", PLATFORM_SHARES)),
        Version::V1 => None,
        Version::V2 => Some(("cpu.weight", PLATFORM_WEIGHT)),
    };
    if let Some((name, value)) = weight {
        write_file(platform.as_fd(), name, value).during(&format!("write {value} to {name}"))?;
    }
    if version == Version::V2 {
        devices::restrict(sandboxes.as_fd()).during("restrict the sandboxes' devices")?;
    }
    Ok(Branch {
        controllers: root.controllers,
        root: root.dir,
        platform,
        sandboxes,
    })
}

fn make_groups(version: Version, root: BorrowedFd<'_>, instance: &str) -> Result<(), Failed> {
    if version == Version::V2 {
        delegate(root, ".")?;
    }
    let mut path = String::new();
    for name in [TOP, instance, SANDBOXES] {
        path = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}/{name}")
        };
        make_dir(root, &path).during(&format!("make the group /{path}"))?;
        if version == Version::V2 {
            delegate(root, &path)?;
        }
    }
    let platform = format!("{TOP}/{instance}/{PLATFORM}");
    make_dir(root, &platform).during(&format!("make the group /{platform}"))
}

/// Gives the children of a v2 group the controllers.
fn delegate(root: BorrowedFd<'_>, path: &str) -> Result<(), Failed> {
    let dir = open_group(root, path).during(&format!("open the group /{path}"))?;
    for controller in CONTROLLERS_V2 {
        write_file(
            dir.as_fd(),
            "cgroup.subtree_control",
            &format!("+{controller}"),
        )
        .during(&format!("delegate {controller} below the group /{path}"))?;
    }
    Ok(())
}

fn make_dir(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    match mkdirat(
        Some(root.as_raw_fd()),
        path,
        Mode::from_bits_truncate(0o755),
    ) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn remove_dir(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match unlinkat(Some(dir.as_raw_fd()), name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn open_group(dir: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    kernel::open_beneath(dir, path, (OFlag::O_RDONLY | OFlag::O_DIRECTORY).bits())
}
