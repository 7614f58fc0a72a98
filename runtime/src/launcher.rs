//! The launcher: the privileged fork server behind `farebox serve`, and how it is started.
//!
//! ```text
//! serve, as root --spawn--> sealed copy of this binary, empty environment --> launcher_main
//!   hygiene -> state lock -> groups -> private root -> boot sweep -> Up -> loop
//!   loop: Make -> checked -> fork shim;  shim ended -> sweep if it must -> Gone
//!   server gone -> shims end by themselves, are killed after a while -> own groups removed -> exit
//! ```
//!
//! One thread for all its life. It trusts nobody: what it is asked for is closed, bounded and
//! checked against its own configuration, and a frame that is not right is refused and logged.

pub(crate) mod cpus;
mod disks;
mod images;
pub(crate) mod kernel;
pub(crate) mod networks;
pub(crate) mod root;
mod serve;
pub(crate) mod slots;
mod spawn;
pub(crate) mod state;
pub(crate) mod step;
mod sweep;
mod templates;
pub(crate) mod userns;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigHandler, Signal};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Pid, setgroups};

pub use self::spawn::{LauncherHandle, SpawnError, spawn};

use self::serve::Launcher;
use self::step::{During, Failed, log};
use crate::cgroup::{Hierarchies, Home, Version};
use crate::disk::Template;
use crate::host::filter;
use crate::seccomp;
use crate::wire::{self, FRAME_MAX, FromLauncher, LauncherConfig};

/// Number of the descriptor that the server's socket is handed over at.
const SERVER: i32 = 3;
/// Longest configuration, in bytes.
const CONFIG_MAX: u64 = 64 * 1024;
/// Signals that reach the whole service when it is stopped: only the server acts on them.
const IGNORED: [Signal; 4] = [
    Signal::SIGPIPE,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGTERM,
];

/// What `farebox launcher` does: serves until the server is gone. Called once, before any thread.
///
/// Only [`spawn`] starts it as it must be started; by hand it ends with an error.
#[must_use]
pub fn launcher_main() -> ExitCode {
    if let Err(error) = kernel::close_all_from(4, &[]) {
        log(
            "launcher",
            &format!("cannot close inherited descriptors: {error}"),
        );
        return ExitCode::FAILURE;
    }
    if !kernel::is_open(SERVER) {
        log(
            "launcher",
            "it is started by `farebox serve` and `farebox run`, not by hand",
        );
        return ExitCode::FAILURE;
    }
    let server = kernel::inherited(SERVER);
    let ended = prepare(&server).and_then(|launcher| launcher.run(&server));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            log("launcher", &failed.to_string());
            let frame = FromLauncher::Unable {
                step: wire::clip(&failed.step),
                reason: wire::clip(&failed.source.to_string()),
            };
            // The server may be gone too; the log has it.
            drop(wire::send(server.as_fd(), &frame, FRAME_MAX, &[]));
            ExitCode::FAILURE
        }
    }
}

/// From a process as it was exec'd to a launcher that may serve.
fn prepare(server: &OwnedFd) -> Result<Launcher, Failed> {
    let peer = getsockopt(server, sockopt::PeerCredentials).during("ask who the server is")?;
    let config = read_config()?;
    setgroups(&[]).during("drop supplementary groups")?;
    prctl::set_name(c"farebox-launch").during("take a name")?;
    prctl::set_child_subreaper(true).during("become a sub-reaper")?;
    for signal in IGNORED {
        kernel::set_signal(signal, SigHandler::SigIgn).during("ignore signals")?;
    }
    check_open_files(&config)?;
    root::detach()?;
    let state = state::State::open(&config)?;
    let hierarchies = Hierarchies::open()?;
    let images = images::open_store(&config.images_dir)?;
    let templates = config
        .disk_classes
        .iter()
        .map(|class| Template::make(state.dir(), *class));
    let templates = templates.collect::<Result<Vec<_>, _>>()?;
    root::enter(
        &config.state_dir,
        root::Shown {
            images: images.as_fd(),
            state: state.dir(),
            cgroup: hierarchies.unified(),
        },
    )?;
    let null = File::open("/dev/null").during("open /dev/null")?;
    nix::unistd::dup2(null.as_raw_fd(), 0).during("replace standard input")?;
    let home = Home::make(hierarchies, &state.instance)?;
    let enter = |pid| {
        home.enter_platform(pid)
            .during("enter the platform's group")
    };
    enter(Pid::this())?;
    enter(Pid::from_raw(peer.pid()))?;
    let filter = seccomp::compile()
        .map_err(io::Error::other)
        .during("compile the seccomp filter")?;
    filter::loads(filter::PATIENCE_MS).map_err(|reason| {
        let cure = "if it has CONFIG_SECCOMP_FILTER, restart the host";
        Failed::because("load a seccomp filter", format!("{reason}: {cure}"))
    })?;
    let forks = seccomp::compile_for_templates(home.version() == Version::V2)
        .map_err(io::Error::other)
        .during("compile the templates' seccomp filter")?;
    Launcher::new(config, state, home, templates, (filter, forks))
}

fn read_config() -> Result<LauncherConfig, Failed> {
    let mut text = String::new();
    let stdin = std::io::stdin().lock();
    stdin
        .take(CONFIG_MAX)
        .read_to_string(&mut text)
        .during("read the configuration")?;
    serde_json::from_str(&text).during("understand the configuration")
}

/// A sandbox's processes cannot have more open files than the launcher may give.
fn check_open_files(config: &LauncherConfig) -> Result<(), Failed> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).during("read RLIMIT_NOFILE")?;
    if u64::from(config.maxima.open_files) > hard {
        let cure = format!("the hard limit here is {hard}: raise it, or lower the maximum");
        return Err(Failed::because("offer so many open files", cure));
    }
    kernel::raise_open_files().during("raise the soft limit on open files")?;
    Ok(())
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let written = write!(text, "{byte:02x}");
            debug_assert!(written.is_ok(), "writing to a string");
            text
        })
}

/// The bytes of lower-case hex digits.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
