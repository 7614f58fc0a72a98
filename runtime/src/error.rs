//! What can break in the runtime; how tenants' code ends is an [`crate::Outcome`], not an error.

use std::io;

use crate::spec::Digest;

/// The runtime cannot be connected.
#[expect(
    clippy::error_impl_error,
    reason = "named with its crate, as in std::io"
)]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The launcher's socket cannot be used.
    #[error("cannot use the launcher's socket")]
    LauncherSocket {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The launcher is not up.
    #[error("the launcher is not up: {reason}")]
    LauncherDown {
        /// What it said, or what was seen of it.
        reason: String,
    },
    /// The counter of all sandboxes' CPU time cannot be read.
    #[error("cannot read the CPU counter of all sandboxes")]
    CpuCounter {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The seccomp list in the binary cannot be compiled.
    #[error("cannot compile the seccomp list: {reason}")]
    Seccomp {
        /// Which rule, and why.
        reason: String,
    },
}

/// A sandbox could not be made ready; nothing of the tenant's code has run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No slot, disk or memory is free now; trying again later may work.
    #[error("no room for another sandbox: {reason}")]
    Overloaded {
        /// What has run out.
        reason: String,
    },
    /// The launcher will not make such a sandbox, now or later.
    #[error("the launcher refused the sandbox: {reason}")]
    Refused {
        /// Which bound it passes.
        reason: String,
    },
    /// The image is not as it came into the store; no sandbox is made of it.
    #[error("image {image} may not be used: {entry} {why}")]
    UnsafeImage {
        /// Which.
        image: Digest,
        /// The entry at fault.
        entry: String,
        /// What is wrong with it, and what to do; from the launcher, printable.
        why: String,
    },
    /// The launcher has gone; the server must end.
    #[error("the launcher is gone")]
    LauncherGone,
    /// A step took longer than its limit.
    #[error("{step} took longer than {limit_ms} ms")]
    TimedOut {
        /// Which step.
        step: &'static str,
        /// Its limit in milliseconds.
        limit_ms: u64,
    },
    /// The shim could not make it.
    #[error("{step} failed: {reason}")]
    Failed {
        /// Which step.
        step: String,
        /// What the shim said; not trusted, bounded, printable.
        reason: String,
    },
    /// A file could not be laid into the sandbox; mostly the caller's fault (no room, a path that
    /// is a directory).
    #[error("cannot write {path:?} in the sandbox")]
    File {
        /// The path as given.
        path: String,
        /// What init said.
        #[source]
        source: io::Error,
    },
    /// The sandbox went away or broke the protocol.
    #[error("the sandbox is gone: {reason}")]
    Gone {
        /// What was seen.
        reason: String,
    },
    /// The server has no descriptors or memory left for it.
    #[error("cannot {action}")]
    Server {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Nothing could be read of a sandbox's kept files.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// They are gone: their time is over, or somebody let them go.
    #[error("the sandbox is gone")]
    Gone,
    /// There is nothing at the path, or the way there is none.
    #[error("no such file or directory")]
    NotFound,
    /// The sandbox's own user may not look at it.
    #[error("the sandbox's user may not read it")]
    Denied,
    /// A directory that was to be read, or a pipe, socket or device.
    #[error("not a regular file")]
    NotAFile,
    /// Something else that was to be listed.
    #[error("not a directory")]
    NotADirectory,
    /// The file system says no.
    #[error("cannot read it")]
    Failed {
        /// What it says.
        #[source]
        source: io::Error,
    },
}

impl ReadError {
    pub(crate) fn from_errno(errno: i32) -> ReadError {
        match errno {
            libc::ENOENT | libc::ELOOP | libc::ENAMETOOLONG => ReadError::NotFound,
            libc::EACCES | libc::EPERM => ReadError::Denied,
            libc::EISDIR | libc::ENXIO => ReadError::NotAFile,
            libc::ENOTDIR => ReadError::NotADirectory,
            errno => ReadError::Failed {
                source: io::Error::from_raw_os_error(errno),
            },
        }
    }
}

/// One thing that is wrong with a live sandbox's posture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What was looked at.
    pub what: String,
    /// What was found, against what must be.
    pub found: String,
    /// What to do about it.
    pub cure: String,
}

/// The posture check failed, so the server must not serve.
#[derive(Debug, thiserror::Error)]
pub enum PostureError {
    /// No sandbox could be opened to look at.
    #[error("cannot open a sandbox on an empty root")]
    Start {
        /// Why.
        #[source]
        source: StartError,
    },
    /// Its shim did not answer.
    #[error("nobody has looked at the sandbox: {reason}")]
    Unanswered {
        /// What was seen.
        reason: String,
    },
    /// The sandbox is not as it must be.
    #[error("the sandbox's posture is wrong: {}", list(faults))]
    Wrong {
        /// Every fault found.
        faults: Vec<Fault>,
    },
}

fn list(faults: &[Fault]) -> String {
    let each = faults
        .iter()
        .map(|fault| format!("{}: {} ({})", fault.what, fault.found, fault.cure));
    each.collect::<Vec<_>>().join("; ")
}
