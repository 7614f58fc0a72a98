//! The groups of this instance: made, limited, read, killed and removed, on cgroup v1, hybrid and
//! v2.
//!
//! `/farebox/INSTANCE/platform` holds server, launcher and shims;
//! `/farebox/INSTANCE/sandboxes/NAME` one sandbox, `/farebox/INSTANCE/templates/UID` one template.
//! Everything goes through directory descriptors that were opened once, so that it works in any
//! mount namespace, also in one where no hierarchy is mounted.

mod devices;
mod group;
mod hierarchy;
mod home;
mod meter;
mod parse;

pub(crate) use self::group::Group;
pub(crate) use self::hierarchy::{Hierarchies, Version};
pub(crate) use self::home::{Home, Kin};
pub(crate) use self::meter::{CpuCounter, Meter, Reading};

/// CPU weight of a sandbox that shares with nobody, among the sandboxes: `cpu.shares` on v1 and
/// `cpu.weight` on v2.
pub(crate) const WEIGHT: u32 = 1_000;

/// The least weight that both versions take.
pub(crate) const WEIGHT_LEAST: u32 = 2;

/// CPU bandwidth period in us: the kernel's default.
pub(crate) const PERIOD_US: u64 = 100_000;

/// The v1 controllers that a sandbox needs.
const CONTROLLERS: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "devices"];

/// The v2 controllers that a sandbox needs.
///
/// Not `io`, though it would count: with it the loop driver lets a sandbox's group do the backing
/// file's work too, whose page cache then counts as the sandbox's, and each is throttled by the
/// other: to fill a disk of more than the memory limit takes twenty times as long.
const CONTROLLERS_V2: [&str; 3] = ["cpu", "memory", "pids"];
