//! How `serve` and `run` begin, in this order: data directory, launcher, another user.
//!
//! All of it in the one thread that the process has: the launcher is forked from it, and a change
//! of user concerns the whole process only while there is no other thread.

use api::Config;
use runtime::{DiskClass, LauncherConfig, LauncherHandle, ServerUser, WireLimits};

use super::data_dir;
use super::exit::Exit;
use super::fault::Fault;

/// Starts the launcher, gives the data directory to the server's user and becomes that user.
pub(crate) fn start(config: &Config) -> Result<LauncherHandle, Fault> {
    must_be_root()?;
    data_dir::prepare(&config.server.data_dir, config.server.user)?;
    let launcher = runtime::spawn(&launcher_config(config)).map_err(|error| {
        Fault::new(Exit::Host, "cannot start the launcher")
            .caused_by(&error)
            .cure("farebox doctor says what this host lacks")
    })?;
    let user = ServerUser {
        uid: config.server.user,
        gid: config.server.user,
    };
    runtime::drop_privileges(user).map_err(|error| {
        Fault::new(
            Exit::Failed,
            format!("cannot become user {}", config.server.user),
        )
        .caused_by(&error)
        .cure("set server.user to a numeric id other than 0")
    })?;
    Ok(launcher)
}

/// Only root can make what sandboxes are made of.
pub(crate) fn must_be_root() -> Result<(), Fault> {
    if data_dir::is_root() {
        return Ok(());
    }
    Err(Fault::new(Exit::Host, "cannot start sandboxes")
        .because("only root can make namespaces, cgroups and loop devices")
        .cure("start as root: the server becomes user server.user before it listens"))
}

/// What the launcher is told while this process is still root. It believes nothing later.
fn launcher_config(config: &Config) -> LauncherConfig {
    let classes = config
        .disk
        .class_bytes
        .iter()
        .zip(&config.disk.class_inodes);
    LauncherConfig {
        images_dir: config.images_dir(),
        state_dir: config.run_dir(),
        server_uid: config.server.user,
        server_gid: config.server.user,
        uid_base: config.launcher.uid_base,
        sandboxes_max: u32::try_from(config.machine.slots).unwrap_or(u32::MAX),
        maxima: WireLimits {
            cpu_millis: config.launcher.cpu_millis_max,
            memory_bytes: config.launcher.memory_bytes_max,
            pids: config.launcher.pids_max,
            open_files: config.launcher.open_files_max,
        },
        disk_classes: classes
            .map(|(&bytes, &inodes)| DiskClass { bytes, inodes })
            .collect(),
        disk_commit_bytes: config.disk.commit_bytes,
        disks_ahead: config.disk.ahead,
        template_forks: config.pool.template_forks,
        keep_s_max: config.sandbox.keep_on_failure_s_max,
    }
}
