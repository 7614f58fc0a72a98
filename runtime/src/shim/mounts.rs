//! The file systems of one sandbox, in the shim's own mount namespace.
//!
//! The image, cloned, read only and with its ids mapped, is the lower layer; the upper one is on
//! the sandbox's disk. Nothing here is ever unmounted: it goes with the mount namespace.

use std::ffi::CString;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::Job;
use crate::launcher::kernel;
use crate::launcher::root::{DISK, IMAGE, LIBRARY, STATE, TOLD, tmpfs};
use crate::launcher::step::{During, Failed};
use crate::oci::{ROOT, USER};

/// Directories of an empty root, with their modes; what is owned by the user.
const EMPTY_ROOT: [(&str, u32, bool); 5] = [
    ("dev", 0o755, false),
    ("proc", 0o755, false),
    ("etc", 0o755, false),
    ("tmp", 0o1777, false),
    ("workspace", 0o755, true),
];

/// Mounts everything; answers a descriptor of the disk's root, for the question whether it is full.
pub(super) fn make(job: &Job<'_>) -> Result<OwnedFd, Failed> {
    let image = job.image.map(|root| image(root, job.userns)).transpose()?;
    unshare(CloneFlags::CLONE_NEWNS).during("make a mount namespace")?;
    if let Some(tree) = image {
        attach(&tree, IMAGE)?;
    }
    match &job.disk_ahead {
        Some(disk) => attach(disk, DISK)?,
        None => {
            let state = directory(STATE).during("open the state directory")?;
            attach(&job.template.disk(state.as_fd())?, DISK)?;
        }
    }
    upper_layer(job).during("make the upper layer")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // What an image's own attributes would tell the overlay is not obeyed: no redirects, no files
    // whose content lies elsewhere.
    let layers = format!(
        "lowerdir={IMAGE},upperdir={DISK}/u,workdir={DISK}/w,redirect_dir=nofollow,metacopy=off"
    );
    mount(
        Some("overlay"),
        ROOT,
        Some("overlay"),
        flags,
        Some(layers.as_str()),
    )
    .during("mount the overlay")?;
    if job.image.is_some() {
        own_workspace().during("make the workspace the sandbox's own")?;
    }
    let flags = flags | MsFlags::MS_NOEXEC;
    tmpfs(LIBRARY.as_ref(), flags, "mode=700,size=1m,nr_inodes=64")?;
    // Whoever becomes the sandbox's root must find the files, to bind them.
    tmpfs(TOLD.as_ref(), flags, "mode=755,size=8m,nr_inodes=16")?;
    directory(DISK).during("open the disk")
}

/// The image's root as a detached mount of its own, with its ids mapped to the slot's range.
fn image(root: &OwnedFd, userns: &OwnedFd) -> Result<OwnedFd, Failed> {
    let tree = kernel::clone_tree(root.as_fd()).during("clone the image's mount")?;
    kernel::set_attributes(tree.as_fd(), kernel::IMAGE_ATTRIBUTES, Some(userns.as_fd()))
        .during("map the image's ids")?;
    Ok(tree)
}

fn attach(tree: &OwnedFd, point: &str) -> Result<(), Failed> {
    let step = format!("mount {point}");
    let point = CString::new(point).during(&step)?;
    kernel::attach(tree.as_fd(), &point).during(&step)
}

fn upper_layer(job: &Job<'_>) -> io::Result<()> {
    let (upper, work) = (format!("{DISK}/u"), format!("{DISK}/w"));
    for dir in [&upper, &work] {
        DirBuilder::new().mode(0o755).create(dir)?;
    }
    chown(&upper, Some(job.uid_first), Some(job.uid_first))?;
    if job.image.is_some() {
        return Ok(());
    }
    for (name, mode, is_users) in EMPTY_ROOT {
        let path = format!("{upper}/{name}");
        DirBuilder::new().mode(mode).create(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
        let owner = job.uid_first + if is_users { USER } else { 0 };
        chown(&path, Some(owner), Some(owner))?;
    }
    Ok(())
}

/// Has the overlay copy the workspace, as the first file in it would: nobody waits for it now.
fn own_workspace() -> io::Result<()> {
    let workspace = File::from(directory(&format!("{ROOT}/workspace"))?);
    workspace.set_permissions(workspace.metadata()?.permissions())
}

fn directory(path: &str) -> io::Result<OwnedFd> {
    let mut options = File::options();
    options
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits());
    options.open(path).map(OwnedFd::from)
}
