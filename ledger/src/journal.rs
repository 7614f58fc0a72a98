//! The journal: the truth and the entry store, as segments of checksummed frames.
//!
//! One frame is one batch of commands, durable before any of them is answered. A write or sync that
//! fails ends the journal for good: what reached the disk is known only after the next start.

pub(crate) mod disk;
pub(crate) mod frame;
pub(crate) mod reader;
pub(crate) mod room;
pub(crate) mod segment;

use std::io;
use std::sync::Arc;

use self::disk::DiskFile;
use self::frame::FrameBuilder;
use self::room::{Room, Segment};

/// The longest record in bytes.
pub(crate) const RECORD_MAX: usize = 512 << 10;
/// A frame takes no further record once it has this many bytes.
const FRAME_SOFT: usize = 1 << 20;

/// The place behind a frame.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize,
)]
pub(crate) struct Position {
    /// The segment.
    pub(crate) segment: u32,
    /// The offset in it.
    pub(crate) offset: u64,
}

/// For which commands there is room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Space {
    /// For all.
    Holds,
    /// For all but holds: what is left is for their settlements.
    Reserve,
    /// For none.
    Nothing,
}

/// The journal's end, where the writer appends.
#[derive(Debug)]
pub(crate) struct Journal {
    current: Segment,
    room: Room,
    record_max: usize,
    frame_soft: usize,
}

impl Journal {
    /// Goes on writing in `current`.
    pub(crate) fn new(current: Segment, room: Room) -> Self {
        let quarter = usize::try_from(current.header.bytes / 4).unwrap_or(usize::MAX);
        Self {
            current,
            room,
            record_max: RECORD_MAX.min(quarter),
            frame_soft: FRAME_SOFT.min(quarter),
        }
    }

    /// Makes sure that the next frame has a place, and says for which commands.
    pub(crate) fn space(&mut self) -> Space {
        let frame_max = self.frame_soft + self.record_max + frame::HEADER + frame::TRAILER + 16;
        let frame_max = u64::try_from(frame_max).unwrap_or(u64::MAX);
        if self.current.used + frame_max > self.current.header.bytes {
            match self.room.take() {
                Some(next) => self.current = next,
                None => return Space::Nothing,
            }
        }
        if self.room.has_spare() {
            Space::Holds
        } else {
            Space::Reserve
        }
    }

    /// The longest record that a frame takes.
    pub(crate) fn record_max(&self) -> usize {
        self.record_max
    }

    /// Whether a frame takes another record.
    pub(crate) fn takes_more(&self, frame: &FrameBuilder) -> bool {
        frame.len() < self.frame_soft
    }

    /// The salt of the segment that the next frame goes to.
    pub(crate) fn salt(&self) -> u64 {
        self.current.header.salt
    }

    /// Where the next frame goes.
    pub(crate) fn position(&self) -> Position {
        Position {
            segment: self.current.header.number,
            offset: self.current.used,
        }
    }

    /// Gives a finished frame of so many bytes its place behind all before it. What is staged is to
    /// be written in its order; after an error nothing more must be.
    pub(crate) fn stage(&mut self, bytes: usize) -> Staged {
        let staged = Staged {
            file: Arc::clone(&self.current.file),
            offset: self.current.used,
        };
        self.current.used += u64::try_from(bytes).unwrap_or(u64::MAX);
        staged
    }
}

/// The place of a frame that is not written yet.
#[derive(Debug)]
pub(crate) struct Staged {
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl Staged {
    /// Writes the frame and makes it durable.
    pub(crate) fn write(&self, frame: &[u8]) -> io::Result<()> {
        let written = self.file.write_at(frame, self.offset)?;
        if written != frame.len() {
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
        self.file.sync()
    }
}
