//! What a live sandbox is, seen from outside: every way in which it is not as it must be.
//!
//! `oci.rs` says what is asked of the container library; this says what came of it. It is read from
//! `/proc/PID` of init by the shim, as root, before any tenant's code runs; a server that finds one
//! deviation does not serve.

mod mounts;
mod process;

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::wire::{DiskClass, WireLimits, clip};

pub(crate) use crate::wire::Deviation;

/// Most deviations that are told: more would not fit one frame, and one is enough to refuse.
const DEVIATIONS_MAX: usize = 8;
/// Longest text of one field, in bytes.
const FIELD_MAX: usize = 120;

/// What a sandbox must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    /// First host id of its range.
    pub(crate) uid_first: u32,
    /// Path of its group, in every hierarchy that has one.
    pub(crate) group: &'a str,
    /// Its limits.
    pub(crate) limits: &'a WireLimits,
    /// Its disk.
    pub(crate) disk: DiskClass,
}

/// A live process, by its directory in a `/proc` of ours.
#[derive(Clone, Debug)]
struct Subject {
    dir: PathBuf,
}

impl Subject {
    fn read(&self, name: &str) -> io::Result<String> {
        std::fs::read_to_string(self.dir.join(name))
    }

    fn link(&self, name: impl AsRef<Path>) -> io::Result<String> {
        let target = std::fs::read_link(self.dir.join(name))?;
        Ok(target.to_string_lossy().into_owned())
    }
}

/// Looks at the sandbox whose init is `init`; a part that cannot be read is a deviation too.
pub(crate) fn inspect(init: Pid, expected: &Expected<'_>) -> Vec<Deviation> {
    let subject = Subject {
        dir: format!("/proc/{init}").into(),
    };
    let mut found = Findings::default();
    let parts: [(&str, io::Result<()>); 7] = [
        ("status", process::status(&subject, expected, &mut found)),
        ("id maps", process::id_maps(&subject, expected, &mut found)),
        ("namespaces", process::namespaces(&subject, &mut found)),
        ("groups", process::groups(&subject, expected, &mut found)),
        ("limits", process::limits(&subject, expected, &mut found)),
        ("descriptors", process::descriptors(&subject, &mut found)),
        ("mounts", mounts::check(&subject, &mut found)),
    ];
    found.unread(parts);
    found.0
}

/// A process that a template has forked into a sandbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fork {
    /// Its id here.
    pub(crate) process: Pid,
    /// Its id inside, by its own account.
    pub(crate) pid: u32,
}

/// Looks at a fork in the sandbox whose init is `init`: it must be what a process is that init has
/// started, with three pipes in hand.
pub(crate) fn inspect_fork(init: Pid, fork: Fork, expected: &Expected<'_>) -> Vec<Deviation> {
    let [subject, init] = [fork.process, init].map(|pid| Subject {
        dir: format!("/proc/{pid}").into(),
    });
    let mut found = Findings::default();
    let parts: [(&str, io::Result<()>); 5] = [
        (
            "status",
            process::fork_status(&subject, &init, (fork.pid, expected), &mut found),
        ),
        (
            "namespaces",
            process::same_namespaces(&subject, &init, &mut found),
        ),
        ("groups", process::groups(&subject, expected, &mut found)),
        ("limits", process::limits(&subject, expected, &mut found)),
        ("descriptors", process::three_pipes(&subject, &mut found)),
    ];
    found.unread(parts);
    found.0
}

/// The deviations so far.
#[derive(Debug, Default)]
struct Findings(Vec<Deviation>);

impl Findings {
    fn add(&mut self, what: &str, found: &str, cure: &str) {
        if self.0.len() < DEVIATIONS_MAX {
            let short = |text: &str| clip(text).chars().take(FIELD_MAX).collect();
            self.0.push(Deviation {
                what: short(what),
                found: short(found),
                cure: short(cure),
            });
        }
    }

    /// A part that cannot be read is a deviation too.
    fn unread<const N: usize>(&mut self, parts: [(&str, io::Result<()>); N]) {
        for (what, outcome) in parts {
            if let Err(error) = outcome {
                let found = format!("cannot be read: {error}");
                self.add(what, &found, "run the launcher as root");
            }
        }
    }

    /// Notes a deviation unless `found` is what it must be.
    fn must_be(&mut self, what: &str, found: &str, must: &str, cure: &str) {
        if found != must {
            self.add(what, &format!("{found:?}, must be {must:?}"), cure);
        }
    }
}
