//! The nine caps on one execution, as the API and the tiers name them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Caps on one execution; the units are in the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Time on the wall.
    pub wall_ms: u64,
    /// CPU time of all processes.
    pub cpu_ms: u64,
    /// CPU share, in thousandths of a CPU.
    pub cpu_millis: u64,
    /// Memory with swap.
    pub memory_bytes: u64,
    /// Processes and threads at once.
    pub pids: u64,
    /// The sandbox's disk; rounded up to a class.
    pub disk_bytes: u64,
    /// Files and directories on it; rounded up with it.
    pub inodes: u64,
    /// Open files of a process.
    pub open_files: u64,
    /// Kept output of each stream.
    pub output_bytes: u64,
}

impl Limits {
    /// The names, in their order.
    pub const NAMES: [&'static str; 9] = [
        "wall_ms",
        "cpu_ms",
        "cpu_millis",
        "memory_bytes",
        "pids",
        "disk_bytes",
        "inodes",
        "open_files",
        "output_bytes",
    ];

    /// Limits whose values `of` gives by name.
    pub fn from_fn(mut of: impl FnMut(&'static str) -> u64) -> Limits {
        Limits {
            wall_ms: of("wall_ms"),
            cpu_ms: of("cpu_ms"),
            cpu_millis: of("cpu_millis"),
            memory_bytes: of("memory_bytes"),
            pids: of("pids"),
            disk_bytes: of("disk_bytes"),
            inodes: of("inodes"),
            open_files: of("open_files"),
            output_bytes: of("output_bytes"),
        }
    }

    /// The value of that name; zero for a name that is none.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        match name {
            "wall_ms" => self.wall_ms,
            "cpu_ms" => self.cpu_ms,
            "cpu_millis" => self.cpu_millis,
            "memory_bytes" => self.memory_bytes,
            "pids" => self.pids,
            "disk_bytes" => self.disk_bytes,
            "inodes" => self.inodes,
            "open_files" => self.open_files,
            "output_bytes" => self.output_bytes,
            _ => 0,
        }
    }

    /// What the runtime is given.
    pub(crate) fn to_runtime(self) -> runtime::Limits {
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        runtime::Limits {
            wall_ms: self.wall_ms,
            cpu_ms: self.cpu_ms,
            cpu_millis: small(self.cpu_millis),
            memory_bytes: self.memory_bytes,
            pids: small(self.pids),
            disk_bytes: self.disk_bytes,
            inodes: self.inodes,
            open_files: small(self.open_files),
            output_bytes: self.output_bytes,
        }
    }

    /// What the ledger holds the worst case of.
    pub(crate) fn ceiling(self) -> ledger::Ceiling {
        ledger::Ceiling {
            cpu_ms: self.cpu_ms,
            wall_ms: self.wall_ms,
            cpu_millis: u32::try_from(self.cpu_millis).unwrap_or(u32::MAX),
            memory_bytes: self.memory_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_field_and_every_field_has_a_name() {
        let limits = Limits::from_fn(|name| u64::try_from(name.len()).unwrap());
        let json = serde_json::to_value(limits).unwrap();
        let fields = json.as_object().unwrap();
        assert_eq!(fields.len(), Limits::NAMES.len());
        for name in Limits::NAMES {
            assert_eq!(fields[name], name.len());
            assert_eq!(limits.get(name), fields[name].as_u64().unwrap());
        }
    }
}
