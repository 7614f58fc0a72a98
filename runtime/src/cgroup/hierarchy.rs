//! Which cgroup hierarchies this host has, and descriptors of their roots.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;

use super::parse::{CgroupMount, cgroup_mounts};
use super::{CONTROLLERS, CONTROLLERS_V2};
use crate::launcher::kernel;
use crate::launcher::step::{During, Failed};

/// Which interface the groups have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// One hierarchy a controller; also hybrid hosts, where v2 is mounted without controllers.
    V1,
    /// One tree.
    V2,
}

/// The hierarchies that sandboxes need.
#[derive(Debug)]
pub(crate) struct Hierarchies {
    /// Which interface they have.
    pub(crate) version: Version,
    /// On v2 the tree; on v1 one for each distinct hierarchy.
    pub(super) roots: Vec<Root>,
}

/// The root of one hierarchy.
#[derive(Debug)]
pub(super) struct Root {
    /// Its controllers, of those that we need; empty on v2.
    pub(super) controllers: Vec<&'static str>,
    /// Its root directory.
    pub(super) dir: OwnedFd,
}

impl Hierarchies {
    /// Opens the hierarchies that are mounted in this mount namespace.
    ///
    /// # Errors
    /// A controller that is neither on v1 nor on v2.
    pub(crate) fn open() -> Result<Hierarchies, Failed> {
        let info = std::fs::read_to_string("/proc/self/mountinfo").during("read mountinfo")?;
        let mounts = cgroup_mounts(&info);
        if let Some(tree) = mounts.iter().find(|mount| mount.kind == "cgroup2") {
            let offered = std::fs::read_to_string(Path::new(tree.point).join("cgroup.controllers"))
                .during("read cgroup.controllers")?;
            let offered: Vec<&str> = offered.split_ascii_whitespace().collect();
            if CONTROLLERS_V2.iter().all(|needed| offered.contains(needed)) {
                let root = Root {
                    controllers: Vec::new(),
                    dir: open_dir(tree.point)?,
                };
                return Ok(Hierarchies {
                    version: Version::V2,
                    roots: vec![root],
                });
            }
        }
        Ok(Hierarchies {
            version: Version::V1,
            roots: open_v1(&mounts)?,
        })
    }

    /// The tree, to be mounted where libcontainer looks for it; none on v1, where it shall see
    /// none.
    pub(crate) fn unified(&self) -> Option<BorrowedFd<'_>> {
        match self.version {
            Version::V1 => None,
            Version::V2 => self.roots.first().map(|root| root.dir.as_fd()),
        }
    }
}

fn open_v1(mounts: &[CgroupMount<'_>]) -> Result<Vec<Root>, Failed> {
    let mut roots: Vec<Root> = Vec::new();
    for controller in CONTROLLERS {
        if roots
            .iter()
            .any(|root| root.controllers.contains(&controller))
        {
            continue;
        }
        let holds = |mount: &&CgroupMount<'_>| {
            mount.kind == "cgroup" && mount.options.contains(&controller)
        };
        let mount = mounts.iter().find(holds).ok_or_else(|| {
            let cure = format!("mount the v1 hierarchy of {controller}, or the v2 tree with it");
            Failed::because(format!("find the cgroup controller {controller}"), cure)
        })?;
        let controllers = CONTROLLERS
            .into_iter()
            .filter(|other| mount.options.contains(other))
            .collect();
        roots.push(Root {
            controllers,
            dir: open_dir(mount.point)?,
        });
    }
    Ok(roots)
}

fn open_dir(path: &str) -> Result<OwnedFd, Failed> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    options.read(true).custom_flags(OFlag::O_DIRECTORY.bits());
    options
        .open(path)
        .map(OwnedFd::from)
        .during(&format!("open {path}"))
}

/// Opens a file of a group.
pub(super) fn open_file(dir: BorrowedFd<'_>, name: &str, write: bool) -> io::Result<File> {
    let access = if write {
        OFlag::O_WRONLY
    } else {
        OFlag::O_RDONLY
    };
    kernel::open_beneath(dir, name, access.bits()).map(File::from)
}

/// Writes a file of a group whole.
pub(super) fn write_file(dir: BorrowedFd<'_>, name: &str, value: &str) -> io::Result<()> {
    use std::io::Write;
    open_file(dir, name, true)?.write_all(value.as_bytes())
}

/// Reads a file of a group whole.
pub(super) fn read_file(dir: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    io::read_to_string(open_file(dir, name, false)?)
}
