//! Reading a segment frame by frame, and telling what its end is.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::frame::{self, FrameHeader};
use super::segment::{self, SegmentHeader};
use crate::error::Error;

/// Bytes read at once: as many as a processor's own cache holds beside what is made of them.
const CHUNK: usize = 256 << 10;
/// Bytes compared with zeros at once.
const ZEROS: usize = 64;

/// One segment being read.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    file: File,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// Its header; `None` for a damaged one.
    pub(crate) header: Option<SegmentHeader>,
    offset: u64,
    buffer: Vec<u8>,
    buffered_at: u64,
}

/// A whole frame.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// Where it begins in the segment.
    pub(crate) offset: u64,
    /// What its header says.
    pub(crate) header: FrameHeader,
    /// Its records.
    pub(crate) payload: &'a [u8],
}

/// What comes next in a segment.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A whole frame.
    Frame(Frame<'a>),
    /// No further whole frame.
    End(End),
}

/// Where the whole frames end, and what lies behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    /// The offset behind the last whole frame.
    pub(crate) offset: u64,
    /// What lies there.
    pub(crate) rest: Rest,
}

/// What lies behind the last whole frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rest {
    /// Zeros.
    Zeros,
    /// The first part of a frame, and zeros: what an interrupted write leaves.
    Torn {
        /// Bytes that are not zero, up to the last one.
        bytes: u64,
    },
    /// Something else, with no whole frame behind it: bit rot in the last frame, or a power cut
    /// that kept the frame's pages in another order.
    Damaged {
        /// Bytes up to the last one that is not zero.
        bytes: u64,
    },
    /// Something that is no frame, with a whole frame behind it: durable frames are damaged.
    FramesFollow {
        /// Where the whole frame begins.
        at: u64,
    },
}

impl Reader {
    /// Opens a segment at its first frame.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File {
            what: "read",
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let mut reader = Self {
            path: path.to_owned(),
            file,
            bytes,
            header: None,
            offset: segment::HEADER,
            buffer: Vec::new(),
            buffered_at: 0,
        };
        reader.header = SegmentHeader::decode(reader.read(0, 64)?);
        Ok(reader)
    }

    /// Whether the whole file is zeros: it was being made.
    pub(crate) fn is_blank(&mut self) -> Result<bool, Error> {
        Ok(self.last_nonzero(0)?.is_none())
    }

    /// Goes on reading at `offset`, which must be where a frame begins.
    pub(crate) fn seek(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// The next frame, or the end.
    pub(crate) fn step(&mut self) -> Result<Step<'_>, Error> {
        let offset = self.offset;
        let Some((header, size)) = self.whole_frame(offset)? else {
            return Ok(Step::End(End {
                offset,
                rest: self.rest(offset)?,
            }));
        };
        self.offset = offset + size;
        let length = usize::try_from(header.bytes).unwrap_or(usize::MAX);
        // It has just been checked, whole.
        let payload = self.read(offset + wide(frame::HEADER), length)?;
        Ok(Step::Frame(Frame {
            offset,
            header,
            payload,
        }))
    }

    /// The header and size of the whole, undamaged frame at `offset`.
    fn whole_frame(&mut self, offset: u64) -> Result<Option<(FrameHeader, u64)>, Error> {
        let salt = self.header.map_or(0, |header| header.salt);
        let header = FrameHeader::decode(self.read(offset, frame::HEADER)?, salt);
        let Some(header) = header else {
            return Ok(None);
        };
        let rest = self.read(offset + wide(frame::HEADER), header.rest())?;
        let size = wide(frame::HEADER) + wide(header.rest());
        Ok(header.payload(rest, salt).map(|_whole| (header, size)))
    }

    fn rest(&mut self, offset: u64) -> Result<Rest, Error> {
        let Some(last) = self.last_nonzero(offset)? else {
            return Ok(Rest::Zeros);
        };
        let bytes = last + 1 - offset;
        let mut at = offset + 8;
        while at <= last {
            if self.read(at, 4)? == frame::MAGIC && self.whole_frame(at)?.is_some() {
                return Ok(Rest::FramesFollow { at });
            }
            at += 8;
        }
        let torn = self.is_torn(offset, bytes)?;
        Ok(if torn {
            Rest::Torn { bytes }
        } else {
            Rest::Damaged { bytes }
        })
    }

    /// Whether the `bytes` at `offset` can be the first part of a frame.
    fn is_torn(&mut self, offset: u64, bytes: u64) -> Result<bool, Error> {
        let salt = self.header.map_or(0, |header| header.salt);
        let start = self.read(offset, frame::HEADER)?;
        let magic = start
            .iter()
            .zip(frame::MAGIC)
            .take(usize::try_from(bytes).unwrap_or(4));
        if !magic.fold(true, |same, (found, wanted)| same & (*found == wanted)) {
            return Ok(false);
        }
        // The checksum's own last bytes may be zeros, so a whole header may look shorter.
        Ok(match FrameHeader::decode(start, salt) {
            Some(header) => bytes < wide(frame::HEADER + header.rest()),
            None => bytes < 36,
        })
    }

    /// The last byte from `from` on that is not zero. Room that was taken but never written is
    /// skipped without being read.
    fn last_nonzero(&mut self, from: u64) -> Result<Option<u64>, Error> {
        let mut last = None;
        let mut at = from;
        while let Some(data) = self
            .seek_to(Whence::SeekData, at)
            .filter(|data| *data < self.bytes)
        {
            let end = self
                .seek_to(Whence::SeekHole, data)
                .unwrap_or(self.bytes)
                .min(self.bytes);
            last = self.last_nonzero_within(data, end)?.or(last);
            at = end.max(data + 1);
        }
        Ok(last)
    }

    /// Where the next written or unwritten stretch begins; `None` behind the last one.
    fn seek_to(&self, what: Whence, at: u64) -> Option<u64> {
        let offset = i64::try_from(at).ok()?;
        match lseek(self.file.as_raw_fd(), offset, what) {
            Ok(found) => u64::try_from(found).ok(),
            Err(Errno::ENXIO) => None,
            // A file system that cannot tell: all of it may be written.
            Err(_) => Some(if matches!(what, Whence::SeekData) {
                at
            } else {
                self.bytes
            }),
        }
    }

    fn last_nonzero_within(&mut self, from: u64, to: u64) -> Result<Option<u64>, Error> {
        let mut end = to;
        while end > from {
            let start = end.saturating_sub(wide(CHUNK)).max(from);
            let length = usize::try_from(end - start).unwrap_or(CHUNK);
            if let Some(place) = last_set(self.read(start, length)?) {
                return Ok(Some(start + wide(place)));
            }
            end = start;
        }
        Ok(None)
    }

    /// The bytes at `offset`; fewer at the end of the file.
    pub(crate) fn read(&mut self, offset: u64, length: usize) -> Result<&[u8], Error> {
        let length =
            length.min(usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(length));
        let inside = |at: u64, start: u64| usize::try_from(at.checked_sub(start)?).ok();
        let held = inside(offset, self.buffered_at)
            .filter(|place| place.saturating_add(length) <= self.buffer.len());
        let place = match held {
            Some(place) => place,
            None => {
                self.fill(offset, length)?;
                0
            }
        };
        Ok(self.buffer.get(place..place + length).unwrap_or_default())
    }

    /// Makes the buffer begin at `offset`; what it has of that already is not read again.
    fn fill(&mut self, offset: u64, length: usize) -> Result<(), Error> {
        let most = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(CHUNK);
        let wanted = length.max(CHUNK).min(most);
        let skipped = offset.checked_sub(self.buffered_at);
        let skipped = skipped.and_then(|skipped| usize::try_from(skipped).ok());
        let skipped = skipped.filter(|skipped| *skipped < self.buffer.len());
        let kept = skipped.map_or(0, |skipped| (self.buffer.len() - skipped).min(wanted));
        if let Some(skipped) = skipped {
            self.buffer.copy_within(skipped..skipped + kept, 0);
        }
        self.buffer.resize(wanted, 0);
        self.buffered_at = offset;
        let rest = self.buffer.get_mut(kept..).unwrap_or_default();
        let read = self.file.read_exact_at(rest, offset + wide(kept));
        read.map_err(|source| {
            self.buffer.clear();
            Error::File {
                what: "read",
                path: self.path.clone(),
                source,
            }
        })
    }
}

/// The place of the last byte that is not zero.
fn last_set(bytes: &[u8]) -> Option<usize> {
    let (blocks, rest) = bytes.as_chunks::<ZEROS>();
    let set = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0);
    let whole = bytes.len() - rest.len();
    if let Some(place) = set(rest) {
        return Some(whole + place);
    }
    let any = |block: &[u8; ZEROS]| block.iter().fold(0, |all, byte| all | byte) != 0;
    let block = blocks.iter().rposition(any)?;
    Some(block * ZEROS + set(blocks.get(block)?)?)
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The record at `offset` of a segment, as its index names it.
pub(crate) fn read_record(file: &File, offset: u32) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    let at = u64::from(offset);
    file.read_exact_at(&mut length, at.saturating_sub(4))?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > super::RECORD_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a record is too long",
        ));
    }
    let mut record = vec![0; length];
    file.read_exact_at(&mut record, at)?;
    Ok(record)
}
