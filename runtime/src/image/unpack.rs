//! Unpacks an archive in a process that can reach nothing but the new directory.
//!
//! ```text
//! farebox image import --exec--> farebox unpack ORDER      working directory: the new tree
//!   stdin: the archive             new pid, mount, network, ipc and uts namespaces
//!   stdout: one report               fork --> confined: the tree is its root, three capabilities
//! ```
//!
//! A fault in what reads archives, ours or a library's, then has nothing to work on: no other file,
//! no process, no network, no program to start, and no memory of the command's. What it made is
//! looked through again by `image/tree.rs` before it counts as an image.

mod archive;
mod confine;
mod lay;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;
use serde::{Deserialize, Serialize};

use self::lay::Ground;
use super::flaw::{self, Bounds, Flaw};
use crate::launcher::kernel;
use crate::launcher::step::{During, Failed, log};

/// Longest report in bytes: it fits into an empty pipe, so that nobody waits for its reader.
pub(super) const REPORT_MAX: usize = 4096;
/// Longest text of the host's in a report, in characters.
const TEXT_MAX: usize = 256;

/// What a process is to unpack, as its one argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// The process that asks: when it is gone, nobody wants the tree any more.
    pub(super) parent: i32,
    /// Whether the archive is a layer over what is there, with whiteouts.
    pub(super) is_layer: bool,
    /// What is left of the bounds.
    pub(super) bounds: Bounds,
    /// The bounds themselves, for messages.
    pub(super) told: Bounds,
}

/// How it went, as one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Report {
    Done(Tally),
    Refused(Refused),
    Failed {
        step: String,
        path: String,
        reason: String,
    },
}

impl From<Failed> for Report {
    fn from(failed: Failed) -> Report {
        Report::Failed {
            step: clip(&failed.step),
            path: String::new(),
            reason: clip(&failed.source.to_string()),
        }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tally {
    /// Bytes of contents and of headers that go before them.
    pub(super) bytes: u64,
    pub(super) entries: u64,
    /// Entries whose set-id bits were left out.
    pub(super) set_ids: u64,
    /// Extended attributes that were left out.
    pub(super) attributes: u64,
}

/// An archive that may not be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refused {
    /// The entry at fault, escaped.
    pub(super) entry: String,
    pub(super) flaw: Flaw,
}

impl Refused {
    fn of(path: &[u8], flaw: Flaw) -> Refused {
        // As it is in the archive: whether it begins with a slash is part of the matter.
        let entry = match path {
            b"" => "the archive".to_owned(),
            path => flaw::escape(path),
        };
        Refused { entry, flaw }
    }
}

/// Why unpacking stopped.
#[derive(Debug)]
enum Stop {
    /// The archive's fault.
    Refused(Refused),
    /// The host's.
    Failed {
        step: &'static str,
        path: String,
        source: io::Error,
    },
}

impl Stop {
    fn failed(step: &'static str, path: &[u8], source: io::Error) -> Stop {
        let path = flaw::escape(path);
        Stop::Failed { step, path, source }
    }

    fn reading(source: io::Error) -> Stop {
        Stop::failed("read", b"the archive", source)
    }
}

/// What `farebox unpack ORDER` does. Called once, before any thread.
///
/// Only the import of an image starts it as it must be started; by hand it ends with an error.
#[must_use]
pub fn unpack_main(order: &str) -> ExitCode {
    let Ok(order) = serde_json::from_str::<Order>(order) else {
        log(
            "unpack",
            "it is started by `farebox image import`, not by hand",
        );
        return ExitCode::FAILURE;
    };
    match fork_confined(&order) {
        Ok(code) => ExitCode::from(code),
        Err(failed) => tell(&failed.into()),
    }
}

/// Takes new namespaces, of which the one of processes begins with the fork, and waits for the
/// child that works in them.
fn fork_confined(order: &Order) -> Result<u8, Failed> {
    confine::detach(order.parent)?;
    match kernel::fork().during("fork")? {
        ForkResult::Child => {
            let code = match confine::enter(order) {
                Ok(root) => {
                    let done = unpack(&mut io::stdin().lock(), root.as_fd(), order);
                    tell(&report(done))
                }
                Err(failed) => tell(&failed.into()),
            };
            kernel::exit_now(u8::from(code != ExitCode::SUCCESS))
        }
        ForkResult::Parent { child } => match waitpid(child, None).during("wait for the child")? {
            WaitStatus::Exited(_, 0) => Ok(0),
            // A signal's number tells that memory or time ran out.
            WaitStatus::Signaled(_, signal, _) => {
                Ok(u8::try_from(128 + signal as i32).unwrap_or(1))
            }
            _ => Ok(1),
        },
    }
}

/// Unpacks `input` into the directory `root`.
fn unpack(input: &mut dyn Read, root: BorrowedFd<'_>, order: &Order) -> Result<Tally, Stop> {
    let mut ground = Ground::new(root, order);
    archive::read(input, &mut |member, content| ground.lay(member, content))?;
    Ok(ground.tally())
}

fn report(done: Result<Tally, Stop>) -> Report {
    match done {
        Ok(tally) => Report::Done(tally),
        Err(Stop::Refused(refused)) => Report::Refused(refused),
        Err(Stop::Failed { step, path, source }) => Report::Failed {
            step: step.to_owned(),
            path,
            reason: clip(&source.to_string()),
        },
    }
}

fn clip(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

/// Reports to whoever has asked; they see from the exit code whether that went well.
fn tell(report: &Report) -> ExitCode {
    let told = serde_json::to_vec(report)
        .map_err(io::Error::from)
        .and_then(|json| io::stdout().lock().write_all(&json))
        .and_then(|()| io::stdout().flush());
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(_nobody_reads) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests;
