//! This instance's home in every hierarchy: its groups made, found again and removed.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::poll;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

use super::group::{Group, Part};
use super::hierarchy::{Hierarchies, Root, Version, open_file, read_file, write_file};
use super::{CONTROLLERS_V2, devices, parse};
use crate::launcher::kernel;
use crate::launcher::step::{During, Failed};

/// The group above all instances.
const TOP: &str = "farebox";
/// The group of server, launcher and shims.
const PLATFORM: &str = "platform";
/// The group above the sandboxes.
const SANDBOXES: &str = "sandboxes";
/// The group above the templates.
const TEMPLATES: &str = "templates";

/// CPU shares (v1; 1024 is the default) and weight (v2; 100 is) of the platform: it must get its
/// turn when every sandbox burns.
const PLATFORM_SHARES: &str = "16384";
const PLATFORM_WEIGHT: &str = "1600";

/// How often, and with which pause, a group is tried to be removed while a process in it ends.
const BUSY_TRIES: u32 = 500;
const BUSY_PAUSE_MS: u8 = 2;

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
    templates: OwnedFd,
}

/// Whose groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kin {
    /// Sandboxes.
    Sandboxes,
    /// Templates.
    Templates,
}

impl Branch {
    fn of(&self, kin: Kin) -> BorrowedFd<'_> {
        match kin {
            Kin::Sandboxes => self.sandboxes.as_fd(),
            Kin::Templates => self.templates.as_fd(),
        }
    }
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

    /// Which interface the groups have.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// A sandbox's group as an absolute path, for libcontainer.
    pub(crate) fn path_of(&self, name: &str) -> String {
        format!("/{TOP}/{}/{SANDBOXES}/{name}", self.instance)
    }

    /// The counter of the CPU time that all sandboxes, or all templates, have used together, those
    /// that are gone included: a group counts what its children have used.
    pub(crate) fn cpu_counter(&self, kin: Kin) -> io::Result<File> {
        // On v2 there is one branch for all controllers.
        let (name, has_it): (_, fn(&&Branch) -> bool) = match self.version {
            Version::V1 => ("cpuacct.usage", |branch| {
                branch.controllers.contains(&"cpuacct")
            }),
            Version::V2 => ("cpu.stat", |_only| true),
        };
        let branch = self.branches.iter().find(has_it);
        let branch = branch.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        open_file(branch.of(kin), name, false)
    }

    /// Every descriptor that a shim needs: each takes one of the few numbers that a sandbox with a
    /// low limit on open files has while it is made.
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

    /// Makes a sandbox's group, without limits but with its place on the CPUs while it is made.
    ///
    /// # Errors
    /// One that is there already: its counters would be another's.
    pub(crate) fn create(&self, name: &str, weight: u32, behind: bool) -> io::Result<Group> {
        let group = self.make_group(Kin::Sandboxes, name)?;
        let file = match self.version {
            Version::V1 => "cpu.shares",
            Version::V2 => "cpu.weight",
        };
        write_file(group.dir("cpu")?, file, &weight.to_string())?;
        if behind {
            write_file(group.dir("cpu")?, "cpu.idle", "1")?;
        }
        Ok(group)
    }

    /// Makes a group without limits.
    ///
    /// # Errors
    /// As [`Home::create`].
    pub(crate) fn make_group(&self, kin: Kin, name: &str) -> io::Result<Group> {
        for (made, branch) in self.branches.iter().enumerate() {
            let dir = Some(branch.of(kin).as_raw_fd());
            if let Err(errno) = mkdirat(dir, name, Mode::from_bits_truncate(0o755)) {
                for earlier in self.branches.iter().take(made) {
                    remove_dir(earlier.of(kin), name)?;
                }
                return Err(errno.into());
            }
        }
        self.open(kin, name)
    }

    /// Opens a group; parts that are gone already are left out.
    pub(crate) fn open(&self, kin: Kin, name: &str) -> io::Result<Group> {
        let mut parts = Vec::new();
        for branch in &self.branches {
            match open_group(branch.of(kin), name) {
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

    /// The names that have a group in any hierarchy.
    pub(crate) fn names(&self, kin: Kin) -> io::Result<Vec<String>> {
        let mut names = std::collections::BTreeSet::new();
        for branch in &self.branches {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let raw = Some(branch.of(kin).as_raw_fd());
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

    /// Removes a group from every hierarchy. One that is gone is no error.
    ///
    /// # Errors
    /// `ResourceBusy` while a process is left in it.
    pub(crate) fn remove(&self, kin: Kin, name: &str) -> io::Result<()> {
        self.branches
            .iter()
            .try_for_each(|branch| remove_dir(branch.of(kin), name))
    }

    /// Moves the platform's processes to the root group and removes this instance's groups.
    ///
    /// A process that is ending is not moved and keeps its group busy until it has ended: it is
    /// waited for.
    ///
    /// # Errors
    /// `ResourceBusy` when a group is still in use after a second.
    pub(crate) fn dismantle(&self) -> io::Result<()> {
        for branch in &self.branches {
            let mut tries = 1;
            while let Err(error) = self.dismantle_branch(branch) {
                if error.kind() != io::ErrorKind::ResourceBusy || tries == BUSY_TRIES {
                    return Err(error);
                }
                tries += 1;
                // Nothing tells of another's child that it is gone.
                poll(&mut [], BUSY_PAUSE_MS)?;
            }
        }
        Ok(())
    }

    fn dismantle_branch(&self, branch: &Branch) -> io::Result<()> {
        let root = branch.root.as_fd();
        let members = read_file(branch.platform.as_fd(), "cgroup.procs")?;
        for pid in parse::pids(&members) {
            match write_file(root, "cgroup.procs", &pid.to_string()) {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
        let instance = open_group(root, &format!("{TOP}/{}", self.instance))?;
        remove_dir(instance.as_fd(), SANDBOXES)?;
        remove_dir(instance.as_fd(), TEMPLATES)?;
        // The last that can be busy: once it is gone, nothing is tried again.
        remove_dir(instance.as_fd(), PLATFORM)?;
        let top = open_group(root, TOP)?;
        remove_dir(top.as_fd(), &self.instance)?;
        match remove_dir(root, TOP) {
            // Another instance lives.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
            other => other,
        }
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
    let open = |name: &str| {
        let path = format!("{TOP}/{instance}/{name}");
        open_group(root.dir.as_fd(), path.as_str()).during(&format!("open the group /{path}"))
    };
    let (sandboxes, platform, templates) = (open(SANDBOXES)?, open(PLATFORM)?, open(TEMPLATES)?);
    let weight = match version {
        Version::V1 if root.controllers.contains(&"cpu") => Some(("cpu.shares", PLATFORM_SHARES)),
        Version::V1 => None,
        Version::V2 => Some(("cpu.weight", PLATFORM_WEIGHT)),
    };
    if let Some((name, value)) = weight {
        write_file(platform.as_fd(), name, value).during(&format!("write {value} to {name}"))?;
    }
    if version == Version::V2 {
        for above in [&sandboxes, &templates] {
            devices::restrict(above.as_fd()).during("restrict the sandboxes' devices")?;
        }
    }
    Ok(Branch {
        controllers: root.controllers,
        root: root.dir,
        platform,
        sandboxes,
        templates,
    })
}

fn make_groups(version: Version, root: BorrowedFd<'_>, instance: &str) -> Result<(), Failed> {
    if version == Version::V2 {
        delegate(root, ".")?;
    }
    let home = format!("{TOP}/{instance}");
    let above = [SANDBOXES, TEMPLATES].map(|name| format!("{home}/{name}"));
    for path in [TOP.to_owned(), home.clone()].into_iter().chain(above) {
        make_dir(root, &path).during(&format!("make the group /{path}"))?;
        if version == Version::V2 {
            delegate(root, &path)?;
        }
    }
    if version == Version::V2 {
        lend(root, &home).during(&format!("let templates fork below the group /{home}"))?;
    }
    let platform = format!("{TOP}/{instance}/{PLATFORM}");
    make_dir(root, &platform).during(&format!("make the group /{platform}"))
}

/// Lets anyone who may enter a group below `path` do so from another one below it: the kernel asks
/// for the right to write this file, too. By itself it opens nothing: this group has controllers
/// for its children, so that no process can be in it, and nobody but root, and a template for one
/// fork, may enter any of those.
fn lend(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let file = open_file(root, &format!("{path}/cgroup.procs"), true)?;
    file.set_permissions(Permissions::from_mode(0o666))
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
