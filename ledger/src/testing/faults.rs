//! A disk that fails when it is told to.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::journal::disk::{Disk, DiskFile, FileDisk};

/// What shall fail from now on.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Writes take half of what they are given.
    pub(crate) short_writes: AtomicBool,
    /// Syncs fail, once what was written has reached the disk.
    pub(crate) syncs: AtomicBool,
    /// There is no room for another segment.
    pub(crate) no_room: AtomicBool,
}

/// Real files with faults.
#[derive(Debug)]
pub(crate) struct FaultDisk(pub(crate) Arc<Faults>);

#[derive(Debug)]
struct FaultFile {
    file: Box<dyn DiskFile>,
    faults: Arc<Faults>,
}

fn is(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Acquire)
}

impl FaultDisk {
    fn wrap(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FaultFile {
            file,
            faults: Arc::clone(&self.0),
        })
    }
}

impl Disk for FaultDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        if is(&self.0.no_room) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        FileDisk.create(path, bytes).map(|file| self.wrap(file))
    }

    fn open(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        FileDisk.open(path, bytes).map(|file| self.wrap(file))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        FileDisk.sync_dir(path)
    }
}

impl DiskFile for FaultFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let most = if is(&self.faults.short_writes) {
            bytes.len() / 2
        } else {
            bytes.len()
        };
        self.file.write_at(&bytes[..most], offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()?;
        if is(&self.faults.syncs) {
            Err(io::Error::other("injected"))
        } else {
            Ok(())
        }
    }

    fn clear_from(&self, offset: u64) -> io::Result<()> {
        self.file.clear_from(offset)
    }
}
