//! A window of the journal: what of its records is audited tenant by tenant.

use std::sync::Arc;

use crate::clock::Micros;
use crate::entry::Entry;
use crate::error::Fault;
use crate::record::OpenHold;
use crate::state::{Amounts, Booked, Located};
use crate::walk::Read;

/// Records of a window; the frame in which they are reached belongs to it as a whole.
const RECORDS: usize = 16_384;
/// Bytes of these records, in the same way.
const BYTES: usize = 8 << 20;

/// What has become of a hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// It was opened: the bytes are all its names, of which the last so many are its key.
    Opened(u32),
    /// It was released.
    Released,
    /// It was settled: the bytes are what its settlement says behind it.
    Settled,
    /// The same, by a charge that was found right and draws no credit; where the window has what
    /// it posts.
    Charged(u32),
}

/// A record of a hold or its end.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Put {
    /// The hold.
    pub(super) hold: Booked,
    /// Its number among those that are open at the same time.
    pub(super) slot: u32,
    /// Where it is counted, once that is known.
    pub(super) located: Located,
    /// What has become of it.
    pub(super) what: What,
    /// When.
    pub(super) at: Micros,
    bytes: (u32, u32),
    lsn: u64,
    seq: u64,
    offset: u32,
}

impl Put {
    /// Whether it is a hold.
    pub(super) fn is_hold(&self) -> bool {
        matches!(self.what, What::Opened(_))
    }

    /// The key that a hold with these bytes was opened through.
    pub(super) fn key<'a>(&self, bytes: &'a [u8]) -> Option<&'a str> {
        let What::Opened(key) = self.what else {
            return None;
        };
        let from = bytes.len().checked_sub(long(key))?;
        str::from_utf8(bytes.get(from..)?).ok()
    }

    /// A word of each of its cache lines.
    pub(super) fn near(&self) -> u64 {
        let held = &self.hold.held;
        let money = u64::from(held.cost == 0);
        held.quantities.cpu_us ^ money ^ self.hold.rate_card ^ self.lsn ^ u64::from(self.offset)
    }
}

/// An act or an adjustment, which ends a window.
#[derive(Debug)]
pub(super) struct Entered {
    /// The number of its command.
    pub(super) lsn: u64,
    /// Where it lies in the segment.
    pub(super) offset: u32,
    /// The entry.
    pub(super) entry: Arc<Entry>,
    /// The holds that are open, with their numbers, if it looks at these.
    pub(super) open: Vec<(Arc<OpenHold>, u32)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The segment that all of it lies in.
    pub(super) segment: u32,
    puts: Vec<Put>,
    bytes: Vec<u8>,
    charged: Vec<Amounts>,
    /// What it ends with.
    pub(super) entered: Option<Entered>,
}

impl Window {
    /// Whether it must end before a frame of that segment.
    pub(super) fn ends(&self, segment: u32) -> bool {
        let full = self.puts.len() >= RECORDS || self.bytes.len() >= BYTES;
        segment != self.segment || full
    }

    /// Adds a record.
    pub(super) fn put(
        &mut self,
        read: &Read<'_>,
        (hold, slot): (Booked, u32),
        (what, at): (What, Micros),
        bytes: &[u8],
    ) {
        let from = short(self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        self.puts.push(Put {
            hold,
            slot,
            located: Located::default(),
            what,
            at,
            bytes: (from, short(self.bytes.len())),
            lsn: read.lsn,
            seq: read.seq,
            offset: read.offset,
        });
    }

    /// Keeps what a settlement posts; says where.
    pub(super) fn charge(&mut self, posted: Amounts) -> u32 {
        self.charged.push(posted);
        short(self.charged.len() - 1)
    }

    /// What a settlement posts, where that was kept.
    pub(super) fn charged(&self, put: &Put) -> Option<&Amounts> {
        match put.what {
            What::Charged(place) => self.charged.get(long(place)),
            What::Opened(_) | What::Released | What::Settled => None,
        }
    }

    /// The records, in their order.
    pub(super) fn puts(&self) -> &[Put] {
        &self.puts
    }

    /// The record at a place.
    pub(super) fn get(&self, place: usize) -> Option<&Put> {
        self.puts.get(place)
    }

    /// Notes where the record at a place is counted.
    pub(super) fn locate(&mut self, place: usize, located: Located) {
        if let Some(put) = self.puts.get_mut(place) {
            put.located = located;
        }
    }

    /// The bytes of a record.
    pub(super) fn bytes(&self, put: &Put) -> &[u8] {
        let (from, to) = put.bytes;
        self.bytes.get(long(from)..long(to)).unwrap_or_default()
    }

    /// A fault of a record.
    pub(super) fn fault(&self, put: &Put, what: String) -> Fault {
        Fault {
            segment: self.segment,
            offset: put.offset.into(),
            lsn: put.lsn,
            seq: put.seq,
            what,
        }
    }

    /// Empties it, for records of that segment.
    pub(super) fn begin(&mut self, segment: u32) {
        self.segment = segment;
        self.puts.clear();
        self.bytes.clear();
        self.charged.clear();
        self.entered = None;
    }
}

/// A length as a place.
pub(super) fn short(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// A place as an index.
pub(super) fn long(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}
