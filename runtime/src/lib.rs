//! Runs untrusted code in sandboxes and measures it; knows nothing of tenants, money or HTTP.
//!
//! [`Runtime::open`] makes a [`Sandbox`], [`Sandbox::put`] lays files into it, [`Sandbox::run`]
//! runs one process to its end and answers a [`Report`]. The privileged half lives in other
//! processes: the launcher, a shim for each sandbox, and init inside it.

mod autopsy;
mod cgroup;
mod clock;
mod disk;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
mod host;
pub mod image;
mod init;
mod kept;
mod launcher;
mod measured;
mod oci;
mod outcome;
mod output;
mod posture;
mod reader;
mod runner;
mod runtime;
mod sandbox;
mod seccomp;
mod shim;
mod spec;
mod template;
mod truth;
mod wire;

pub use crate::autopsy::{Autopsy, DiskFree, ProcessSeen};
pub use crate::error::{Error, Fault, PostureError, ReadError, StartError};
pub use crate::host::{
    Check, Needs, PrivilegeError, ServerUser, Verdict, doctor, drop_privileges, server_user,
};
pub use crate::image::unpack_main;
pub use crate::kept::{EntryKind, Kept, KeptEntry, Listing, Piece};
pub use crate::launcher::{LauncherHandle, SpawnError, launcher_main, spawn};
pub use crate::measured::Measured;
pub use crate::outcome::{Clock, EndedBy, Outcome};
pub use crate::output::{Captured, OutputSink, Stream};
pub use crate::runner::Interpreter;
pub use crate::runtime::{Final, Options, PoolOptions, Runtime};
pub use crate::sandbox::{Report, Sandbox};
pub use crate::spec::{
    Digest, File, Limits, Network, ParseIdError, Process, SandboxId, SandboxSpec,
};
pub use crate::wire::{DiskClass, LauncherConfig, WireLimits};
