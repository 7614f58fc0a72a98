//! `farebox run` without a data directory: a temporary one, and somebody who removes it.
//!
//! Whoever runs the program has become another user by the end and cannot remove what is root's in
//! that directory. So a second process of the same binary does the work in it, and this one, still
//! root, waits, hands signals on, and removes it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

use super::arguments::RunArgs;
use super::exit::Exit;
use super::fault::Fault;
use super::place::configuration;

/// Signals that this process waits for, and that the other one inherits as blocked.
const WAITED_FOR: [Signal; 3] = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT];

/// Takes back what a process of this kind inherits from [`run`].
pub(crate) fn unblock_signals() -> Result<(), Fault> {
    let signals: SigSet = WAITED_FOR.into_iter().collect();
    signals
        .thread_unblock()
        .map_err(|errno| fault("listen to signals").caused_by(&errno))
}

/// Runs `args` again in a temporary data directory, with images from where they would come from.
pub(crate) fn run(args: &RunArgs, json: bool) -> Result<ExitCode, Fault> {
    let images = configuration(&args.place, Vec::new())?.images_dir();
    // Blocked before the process exists, so that its end cannot be missed; it starts with none
    // blocked, as the standard library leaves them.
    let signals: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]
        .into_iter()
        .collect();
    let signals = signals
        .thread_block()
        .and_then(|()| SignalFd::new(&signals));
    let mut signals = signals.map_err(|errno| fault("wait for signals").caused_by(&errno))?;
    let dir = Directory::make()?;
    let mut child = command(args, json, &dir.0, &images)
        .and_then(|mut command| command.spawn())
        .map_err(|error| fault("start this binary again").caused_by(&error))?;
    let ended = wait(&mut child, &mut signals)?;
    // A program's code, or the signal that ended the process, as a shell tells it.
    let signal = || ended.signal().and_then(|signal| signal.checked_add(128));
    let code = ended
        .code()
        .or_else(signal)
        .and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or_else(|| Exit::NotRun.into(), ExitCode::from))
}

/// Waits for the end of `child`; who asks this process to stop asks it.
fn wait(child: &mut Child, signals: &mut SignalFd) -> Result<ExitStatus, Fault> {
    loop {
        let ended = child.try_wait();
        let ended = ended.map_err(|error| fault("wait for its end").caused_by(&error))?;
        if let Some(ended) = ended {
            return Ok(ended);
        }
        let signal = match signals.read_signal() {
            Ok(signal) => signal,
            Err(Errno::EINTR) => None,
            Err(errno) => return Err(fault("wait for signals").caused_by(&errno)),
        };
        let number = signal.and_then(|signal| i32::try_from(signal.ssi_signo).ok());
        let stop = number.is_some_and(|number| number != Signal::SIGCHLD as i32);
        if let (true, Ok(pid)) = (stop, i32::try_from(child.id())) {
            // It may have ended by itself just now.
            kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap_or_default();
        }
    }
}

fn command(args: &RunArgs, json: bool, dir: &Path, images: &Path) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .env("FAREBOX_IMAGES__DIR", images)
        .env("FAREBOX_LOG__FILTER", "error");
    command.arg("run").arg("--data-dir").arg(dir);
    if json {
        command.arg("--json");
    }
    if args.stdin {
        command.arg("--stdin");
    }
    if let Some(file) = &args.place.config {
        command.arg("--config").arg(file);
    }
    if let Some(image) = &args.image {
        command.arg("--image").arg(image);
    }
    if let Some(language) = args.language {
        command.arg("--language").arg(language.name());
    }
    for (name, value) in &args.limit {
        command.arg("--limit").arg(format!("{name}={value}"));
    }
    command.arg("--").arg(&args.file).args(&args.args);
    Ok(command)
}

/// A directory that goes with this value.
struct Directory(PathBuf);

impl Directory {
    fn make() -> Result<Self, Fault> {
        let path = std::env::temp_dir().join(format!("farebox-run-{}", std::process::id()));
        // One that is there already may be somebody's trap.
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| {
                fault(&format!("make {}", path.display()))
                    .caused_by(&error)
                    .cure("remove it, or give --data-dir")
            })?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed lies where the system removes such things.
        drop(fs::remove_dir_all(&self.0));
    }
}

fn fault(what: &str) -> Fault {
    Fault::new(Exit::NotRun, format!("cannot {what}")).cure("give --data-dir")
}
