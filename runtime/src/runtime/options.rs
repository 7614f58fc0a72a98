//! What the runtime needs to know besides its launcher, and what limits come to by it.

use std::path::PathBuf;

use super::pool::PoolOptions;
use crate::error::StartError;
use crate::spec::Limits;
use crate::wire::DiskClass;

/// What the runtime needs to know besides its launcher; the first two as in
/// [`crate::LauncherConfig`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The launcher's state directory, where final files are.
    pub state_dir: PathBuf,
    /// Sizes of disks on offer, smallest first.
    pub disk_classes: Vec<DiskClass>,
    /// How long making a sandbox may take, in ms.
    pub start_ms: u64,
    /// How long laying all files of one execution may take, in ms.
    pub put_ms: u64,
    /// How long ending a sandbox may take before it is given up for lost, in ms.
    pub end_ms: u64,
    /// Sandboxes made ahead.
    pub pool: PoolOptions,
    /// Whether interpreters may be forked from templates; if not, each is started.
    pub templates: bool,
}

impl Options {
    /// Limits that are enough for a sandbox in which nothing runs.
    pub(super) fn least(&self) -> Limits {
        let disk = self.disk_classes.first();
        Limits {
            wall_ms: 1_000,
            cpu_ms: 1_000,
            cpu_millis: 1_000,
            memory_bytes: 64 << 20,
            pids: 16,
            disk_bytes: disk.map_or(1, |disk| disk.bytes),
            inodes: disk.map_or(1, |disk| disk.inodes),
            open_files: 64,
            output_bytes: 1,
        }
    }

    /// The smallest class of disks that has room for the limits.
    pub(super) fn disk_class(&self, limits: &Limits) -> Result<u8, StartError> {
        let fits =
            |class: &DiskClass| class.bytes >= limits.disk_bytes && class.inodes >= limits.inodes;
        let found = self
            .disk_classes
            .iter()
            .position(fits)
            .and_then(|at| u8::try_from(at).ok());
        found.ok_or_else(|| {
            let reason = "disk_bytes or inodes pass the largest class of disks".to_owned();
            StartError::Refused { reason }
        })
    }

    /// The limits as they will be in force: disk and inodes rounded up to a class of disks.
    pub(crate) fn effective(&self, limits: &Limits) -> Result<Limits, StartError> {
        let class = usize::from(self.disk_class(limits)?);
        let disk = self.disk_classes.get(class);
        let (disk_bytes, inodes) = disk.map_or((limits.disk_bytes, limits.inodes), |disk| {
            (disk.bytes, disk.inodes)
        });
        Ok(Limits {
            disk_bytes,
            inodes,
            ..*limits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(disk_bytes: u64, inodes: u64) -> Limits {
        Limits {
            wall_ms: 1,
            cpu_ms: 1,
            cpu_millis: 1,
            memory_bytes: 1,
            pids: 1,
            disk_bytes,
            inodes,
            open_files: 1,
            output_bytes: 1,
        }
    }

    #[test]
    fn disk_and_inodes_are_rounded_up_to_the_smallest_class_that_has_both() {
        let options = Options {
            state_dir: PathBuf::from("/nowhere"),
            disk_classes: vec![
                DiskClass {
                    bytes: 100,
                    inodes: 10,
                },
                DiskClass {
                    bytes: 200,
                    inodes: 20,
                },
            ],
            start_ms: 1,
            put_ms: 1,
            end_ms: 1,
            pool: PoolOptions::default(),
            templates: true,
        };
        let effective = |bytes, inodes| {
            let found = options.effective(&limits(bytes, inodes));
            found.ok().map(|limits| (limits.disk_bytes, limits.inodes))
        };
        assert_eq!(effective(1, 1), Some((100, 10)));
        assert_eq!(effective(100, 11), Some((200, 20)));
        assert_eq!(effective(101, 1), Some((200, 20)));
        assert_eq!(effective(201, 1), None);
    }
}
