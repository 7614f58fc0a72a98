//! A disk of its own for each sandbox: a sparse ext4 image of one of a few sizes, on a loop device.
//!
//! One formatted template a size class is made at start; a disk is a sparse copy of it into a file
//! without a name, so that whatever happens nothing is left: the file goes with its loop device,
//! the loop device (auto-clear) with its mount, the mount with the shim's mount namespace.

#![expect(unsafe_code, reason = "loop device ioctls")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{OFlag, copy_file_range};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Whence, lseek64};

use crate::launcher::kernel;
use crate::launcher::root::WRITEBACK;
use crate::launcher::step::{During, Failed};
use crate::wire::DiskClass;

/// Block size of file system and loop device, in bytes.
const BLOCK: u64 = 4096;
/// Bytes an inode takes in the inode table.
const INODE: u64 = 256;
/// Inodes that ext4 and the overlay take before the tenant does.
const INODES_OWN: u64 = 32;
/// Bytes that superblock, group descriptors and bitmaps take, beyond a share of the size.
const OVERHEAD: u64 = 1 << 20;
/// Share of the size that they take besides: one part in so many.
const OVERHEAD_SHARE: u64 = 256;
/// Nothing on a disk outlives its sandbox, so it is never made durable: a barrier would be an
/// fsync of the file on the host, at mount, at unmount, and whenever a tenant asks for one.
///
/// Blocks are laid out as written at once, not marked as unwritten first: that is for a crash too,
/// and costs a kernel thread's time for what is written, which is charged to nobody.
const OPTIONS: [&CStr; 3] = [c"nobarrier", c"noinit_itable", c"nodioread_nolock"];
/// Bytes of a disk that may wait to be written, in memory of the sandbox's.
///
/// Without a bound all of its page cache can be on its way to the disk at once. On cgroup v1 the
/// kernel then has nothing to take back when the file system needs memory in the middle of a write,
/// and kills.
const WRITEBACK_BYTES: u64 = 8 << 20;
/// How often a free loop device may be taken by another before it is an error.
const ATTEMPTS_MAX: u32 = 256;
/// Major number of loop devices.
const LOOP_MAJOR: u64 = 7;
/// `mkfs.ext4`, in the order of the usual places.
const MKFS: [&str; 4] = [
    "/usr/sbin/mkfs.ext4",
    "/sbin/mkfs.ext4",
    "/usr/bin/mkfs.ext4",
    "/usr/local/sbin/mkfs.ext4",
];

/// A formatted, empty disk of one class, to be copied.
#[derive(Debug)]
pub(crate) struct Template {
    file: File,
    size: u64,
    data: Vec<(i64, u64)>,
}

impl Template {
    /// Formats a template in `dir`; it has no name and goes with this value.
    pub(crate) fn make(dir: BorrowedFd<'_>, class: DiskClass) -> Result<Template, Failed> {
        let size = image_size(class);
        let file = unnamed_file(dir).during("make an unnamed file in the state directory")?;
        file.set_len(size).during("size a disk template")?;
        let program = mkfs().ok_or_else(|| {
            Failed::because("find mkfs.ext4", "not installed: apt-get install e2fsprogs")
        })?;
        let made = Command::new(program)
            .args([
                "-q",
                "-F",
                "-b",
                "4096",
                "-m",
                "0",
                "-O",
                "^has_journal,^resize_inode",
            ])
            .args(["-E", "lazy_itable_init=1,nodiscard"])
            .args([
                "-I",
                &INODE.to_string(),
                "-N",
                &(class.inodes + INODES_OWN).to_string(),
            ])
            .arg(format!(
                "/proc/{}/fd/{}",
                std::process::id(),
                file.as_raw_fd()
            ))
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .during("run mkfs.ext4")?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(Failed::because("format a disk template", said));
        }
        let data = extents(&file, size).during("read the extents of a disk template")?;
        Ok(Template { file, size, data })
    }

    /// Makes a disk of this class, with its file in `dir`: a detached mount.
    pub(crate) fn disk(&self, dir: BorrowedFd<'_>) -> Result<OwnedFd, Failed> {
        self.file(dir)?.mount()
    }

    /// Makes the file of a disk of this class in `dir`.
    pub(crate) fn file(&self, dir: BorrowedFd<'_>) -> Result<DiskFile, Failed> {
        let file = self.copy(dir).during("copy the disk template")?;
        Ok(DiskFile(file))
    }

    fn copy(&self, dir: BorrowedFd<'_>) -> io::Result<File> {
        let file = unnamed_file(dir)?;
        file.set_len(self.size)?;
        for (start, len) in &self.data {
            let (mut from, mut to) = (*start, *start);
            let mut left = *len;
            while left > 0 {
                let want = usize::try_from(left).map_err(io::Error::other)?;
                let copied =
                    copy_file_range(&self.file, Some(&mut from), &file, Some(&mut to), want)?;
                if copied == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                left = left.saturating_sub(u64::try_from(copied).map_err(io::Error::other)?);
            }
        }
        Ok(file)
    }
}

impl AsFd for Template {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The file of a disk; it has no name and goes with its last user.
#[derive(Debug)]
pub(crate) struct DiskFile(File);

impl DiskFile {
    /// Writes what is in it to the host's disk, without what the host's file system notes of it:
    /// where several are made, one [`DiskFile::mount`] waits for the notes of all.
    pub(crate) fn write_out(&self) -> Result<(), Failed> {
        kernel::write_out(self.0.as_fd()).during("write a disk's file")
    }

    /// Mounts it, detached.
    pub(crate) fn mount(self) -> Result<OwnedFd, Failed> {
        let (_device, number) = configure(&self.0)?;
        bound_writeback(number);
        let path = loop_path(number);
        let step = format!("mount {path}");
        let device = CString::new(path).during(&step)?;
        let attributes =
            libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOATIME;
        kernel::mount_device(c"ext4", &device, &OPTIONS, attributes).during(&step)
    }
}

/// Where `mkfs.ext4` is, if it is installed.
pub(crate) fn mkfs() -> Option<&'static str> {
    MKFS.into_iter()
        .find(|path| std::fs::exists(path).unwrap_or(false))
}

/// How large the image must be for its usable space to be the class's bytes.
fn image_size(class: DiskClass) -> u64 {
    let inodes = (class.inodes + INODES_OWN) * INODE;
    (class.bytes + inodes + class.bytes / OVERHEAD_SHARE + OVERHEAD).next_multiple_of(BLOCK)
}

fn unnamed_file(dir: BorrowedFd<'_>) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .mode(0o600)
        .open(format!("/proc/self/fd/{}", dir.as_raw_fd()))
}

/// The ranges of a sparse file that hold data: offset and length.
fn extents(file: &File, size: u64) -> io::Result<Vec<(i64, u64)>> {
    let end = i64::try_from(size).map_err(io::Error::other)?;
    let raw = file.as_raw_fd();
    let mut found = Vec::new();
    let mut at = 0;
    while at < end {
        let start = match lseek64(raw, at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        at = lseek64(raw, start, Whence::SeekHole)?;
        found.push((start, u64::try_from(at - start).map_err(io::Error::other)?));
    }
    Ok(found)
}

/// Ties a file to a free loop device; the device stays configured while it is open or mounted.
fn configure(file: &File) -> Result<(File, u64), Failed> {
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/loop-control");
    let control = control.during("open /dev/loop-control")?;
    let config = LoopConfig::new(file.as_fd());
    for _ in 0..ATTEMPTS_MAX {
        let number = free_loop(&control).during("find a free loop device")?;
        let path = loop_path(number);
        let device = open_loop(&path, number).during(&format!("open {path}"))?;
        match set_loop(&device, &config) {
            Ok(()) => return Ok((device, number)),
            // Another shim was faster.
            Err(Errno::EBUSY) => {}
            Err(errno) => return Err(errno).during(&format!("configure {path}")),
        }
    }
    Err(Failed::because(
        "take a loop device",
        "every free one was taken by another",
    ))
}

fn loop_path(number: u64) -> String {
    format!("/dev/loop{number}")
}

/// Bounds what waits to be written to a loop device, strictly: at once, not only when the host has
/// much of it. Kernels before 6.2 have no such files; what is lost there is said at
/// [`WRITEBACK_BYTES`].
fn bound_writeback(number: u64) {
    let settings = [("max_bytes", WRITEBACK_BYTES), ("strict_limit", 1)];
    for (name, value) in settings {
        let path = format!("{WRITEBACK}/{LOOP_MAJOR}:{number}/{name}");
        // Not made if it is not there; whatever else goes wrong is no reason to run nothing.
        let file = File::options().write(true).open(path);
        drop(file.and_then(|file| (&file).write_all(value.to_string().as_bytes())));
    }
}

/// Opens a loop device, whose node may still be missing from the launcher's private `/dev`.
fn open_loop(path: &str, number: u64) -> io::Result<File> {
    let open = || File::options().read(true).write(true).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let device = makedev(LOOP_MAJOR, number);
            match mknod(
                path,
                SFlag::S_IFBLK,
                Mode::from_bits_truncate(0o600),
                device,
            ) {
                Ok(()) | Err(Errno::EEXIST) => open(),
                Err(errno) => Err(errno.into()),
            }
        }
        other => other,
    }
}

fn free_loop(control: &File) -> io::Result<u64> {
    const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
    // SAFETY: this request takes no argument; the descriptor is open.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    u64::try_from(number).map_err(|_negative| io::Error::last_os_error())
}

fn set_loop(device: &File, config: &LoopConfig) -> Result<(), Errno> {
    const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
    // SAFETY: this request reads one `loop_config`, which `config` is, byte for byte.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const *config) };
    Errno::result(done).map(drop)
}

/// `struct loop_config` of the kernel's ABI.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// `struct loop_info64` of the kernel's ABI.
#[repr(C)]
struct LoopInfo {
    device_inode_rdevice_offset_sizelimit: [u64; 5],
    number_and_encryption: [u32; 3],
    flags: u32,
    names_and_key: [u8; 160],
    init: [u64; 2],
}

const _: () = assert!(
    size_of::<LoopConfig>() == 304,
    "the size that the kernel reads"
);

impl LoopConfig {
    fn new(file: BorrowedFd<'_>) -> LoopConfig {
        const LO_FLAGS_AUTOCLEAR: u32 = 4;
        LoopConfig {
            fd: file.as_raw_fd().cast_unsigned(),
            block_size: 4096,
            info: LoopInfo {
                device_inode_rdevice_offset_sizelimit: [0; 5],
                number_and_encryption: [0; 3],
                flags: LO_FLAGS_AUTOCLEAR,
                names_and_key: [0; 160],
                init: [0; 2],
            },
            reserved: [0; 8],
        }
    }
}

/// Makes the loop nodes that the launcher's private `/dev` starts with.
pub(crate) fn make_nodes(dev: &str) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(0o600);
    mknod(
        format!("{dev}/loop-control").as_str(),
        SFlag::S_IFCHR,
        mode,
        makedev(10, 237),
    )?;
    for number in 0..8 {
        let path = format!("{dev}/loop{number}");
        mknod(
            path.as_str(),
            SFlag::S_IFBLK,
            mode,
            makedev(LOOP_MAJOR, number),
        )?;
    }
    Ok(())
}

/// Blocks that ext4 may still show as free when it has refused a write: it keeps some back for
/// writes that are not laid out yet (167 were seen on a disk of 256 MiB). A disk with fewer left is
/// full.
const SLACK_BLOCKS: u64 = 256;

/// Bytes and inodes that are left for an ordinary user on the disk whose root is `dir`.
pub(crate) fn free(dir: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let (blocks, inodes) = kernel::free_space(dir)?;
    Ok((blocks.saturating_mul(BLOCK), inodes))
}

/// Whether a disk with so many bytes and inodes left is full.
pub(crate) fn is_full((bytes, inodes): (u64, u64)) -> bool {
    bytes < SLACK_BLOCKS * BLOCK || inodes == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_leaves_the_class_usable_and_is_whole_blocks() {
        let class = DiskClass {
            bytes: 256 << 20,
            inodes: 20_000,
        };
        let size = image_size(class);
        assert_eq!(size % BLOCK, 0);
        assert!(size > class.bytes + class.inodes * INODE);
        assert!(size < class.bytes + class.bytes / 20);
    }

    #[test]
    fn only_data_is_listed_in_extents() {
        use std::io::{Seek, SeekFrom, Write};
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.seek(SeekFrom::Start(512 << 10)).unwrap();
        file.write_all(&[1; 4096]).unwrap();
        let found = extents(&file, 1 << 20).unwrap();
        let total: u64 = found.iter().map(|(_, len)| len).sum();
        assert!((4096..1 << 20).contains(&total), "{found:?}");
    }
}
