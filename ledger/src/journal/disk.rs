//! The seam to the disk under the journal: the file form here, a fault-injecting one in the tests.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};

/// Makes and opens the files of segments.
pub(crate) trait Disk: Send + Sync + Debug {
    /// Makes a file of `bytes` zeros whose room is taken.
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file that exists, and takes the room of `bytes` for it, which a copy may lack.
    fn open(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// One segment's file.
pub(crate) trait DiskFile: Send + Sync + Debug {
    /// Writes, perhaps less than all; says how much.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes everything written durable.
    fn sync(&self) -> io::Result<()>;

    /// Makes everything from `offset` on zero, durably, with its room still taken.
    fn clear_from(&self, offset: u64) -> io::Result<()>;
}

/// Real files.
#[derive(Debug)]
pub(crate) struct FileDisk;

impl Disk for FileDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        take_room(&file, bytes)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        take_room(&file, bytes)?;
        Ok(Box::new(file))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn clear_from(&self, offset: u64) -> io::Result<()> {
        let bytes = self.metadata()?.len();
        self.set_len(offset)?;
        take_room(self, bytes)?;
        self.sync_all()
    }
}

fn take_room(file: &File, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let bytes = i64::try_from(bytes).map_err(io::Error::other)?;
    fallocate(file.as_raw_fd(), FallocateFlags::empty(), 0, bytes).map_err(io::Error::from)
}
