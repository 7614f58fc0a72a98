//! The files of execution records: how a frame is written, and how a segment is read back.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{Id, Index, Options, RecordsError, Segment};

const MAGIC: &[u8; 4] = b"FBR1";
/// Magic, length, checksum, id, time, length of the tenant.
const HEAD: usize = 4 + 4 + 8 + 16 + 8 + 1;
/// Longer bodies are not written by anyone: a length above it is damage.
const BODY_MAX: u32 = 256 << 20;

/// One record on disk, without its body.
pub(super) struct Frame {
    pub(super) id: Id,
    pub(super) at_us: i64,
    pub(super) tenant: String,
    pub(super) body_offset: u64,
    pub(super) length: u32,
}

impl Frame {
    /// The offset after the frame.
    pub(super) fn end(&self) -> u64 {
        self.body_offset + u64::from(self.length)
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the record is too long")
}

fn checksum(body: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(body);
    let mut sum = [0; 8];
    sum.iter_mut()
        .zip(digest.iter())
        .for_each(|(to, from)| *to = *from);
    sum
}

pub(super) fn encode(id: &Id, at_us: i64, tenant: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(body.len())
        .ok()
        .filter(|length| *length <= BODY_MAX);
    let length = length.ok_or_else(too_long)?;
    let name = u8::try_from(tenant.len()).ok().ok_or_else(too_long)?;
    let mut bytes = Vec::with_capacity(HEAD + tenant.len() + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&checksum(body));
    bytes.extend_from_slice(id);
    bytes.extend_from_slice(&at_us.to_le_bytes());
    bytes.push(name);
    bytes.extend_from_slice(tenant.as_bytes());
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// The frame that these bytes, as `encode` makes them, are at `offset`.
pub(super) fn frame(bytes: &[u8], offset: u64) -> Option<Frame> {
    let head = Head::read(bytes)?;
    let (_, rest) = bytes.split_at_checked(HEAD)?;
    head.frame(offset, rest.get(..head.tenant)?)
}

/// The fixed part of a frame.
struct Head {
    length: u32,
    sum: [u8; 8],
    id: Id,
    at_us: i64,
    tenant: usize,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Head> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (sum, rest) = rest.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (at, rest) = rest.split_first_chunk::<8>()?;
        let length = u32::from_le_bytes(*length);
        (magic == MAGIC && length <= BODY_MAX).then_some(Head {
            length,
            sum: *sum,
            id: *id,
            at_us: i64::from_le_bytes(*at),
            tenant: usize::from(*rest.first()?),
        })
    }

    /// The frame at `offset` with this head and this tenant.
    fn frame(&self, offset: u64, tenant: &[u8]) -> Option<Frame> {
        let before = u64::try_from(HEAD.checked_add(tenant.len())?).ok()?;
        Some(Frame {
            id: self.id,
            at_us: self.at_us,
            tenant: std::str::from_utf8(tenant).ok()?.to_owned(),
            body_offset: offset.checked_add(before)?,
            length: self.length,
        })
    }
}

/// Reads the frame at `offset`; `None` at the end or at the first damage.
fn read(file: &File, offset: u64, size: u64) -> Option<Frame> {
    let mut bytes = [0; HEAD];
    file.read_exact_at(&mut bytes, offset).ok()?;
    let head = Head::read(&bytes)?;
    let mut tenant = vec![0; head.tenant];
    file.read_exact_at(&mut tenant, offset.checked_add(u64::try_from(HEAD).ok()?)?)
        .ok()?;
    let frame = head.frame(offset, &tenant)?;
    // A torn last frame is the one kind of damage that a crash makes, so only the last one is
    // summed.
    let whole = frame.end() < size
        || (frame.end() == size && sums(file, frame.body_offset, head.length, &head.sum));
    whole.then_some(frame)
}

fn sums(file: &File, offset: u64, length: u32, sum: &[u8; 8]) -> bool {
    let Ok(length) = usize::try_from(length) else {
        return false;
    };
    let mut body = vec![0; length];
    file.read_exact_at(&mut body, offset).is_ok() && checksum(&body) == *sum
}

fn open(path: &Path, new: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(new)
        .mode(0o600)
        .open(path)
}

pub(super) fn create(dir: &Path, number: u64) -> io::Result<Segment> {
    let path = dir.join(format!("{number:012}.rec"));
    let file = Arc::new(open(&path, true)?);
    Ok(Segment {
        file,
        path,
        bytes: 0,
        newest_us: 0,
    })
}

/// Reads the index of all segments; what lies behind the first damage of one is cut off.
pub(super) fn read_all(dir: &Path, options: &Options) -> Result<Index, RecordsError> {
    let fault = |what, path: &Path| {
        let path = path.to_owned();
        move |source| RecordsError { what, path, source }
    };
    fs::create_dir_all(dir).map_err(fault("create", dir))?;
    let mut index = Index::default();
    for (number, path) in list(dir).map_err(fault("list", dir))? {
        let file = Arc::new(open(&path, false).map_err(fault("open", &path))?);
        let size = file.metadata().map_err(fault("look at", &path))?.len();
        let segment = Segment {
            file: Arc::clone(&file),
            path: path.clone(),
            bytes: 0,
            newest_us: 0,
        };
        index.segments.insert(number, segment);
        let mut offset = 0;
        while index.count < options.index_max
            && let Some(frame) = read(&file, offset, size)
        {
            offset = frame.end();
            index.add(number, &frame);
        }
        if offset < size {
            let cut = fault("cut", &path);
            let path = path.display();
            tracing::warn!(%path, offset, size, "dropping the torn end of records");
            file.set_len(offset).map_err(cut)?;
        }
    }
    Ok(index)
}

fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".rec"))
            .and_then(|number| number.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}
