//! A window of the journal: what of its records is audited tenant by tenant.

use std::sync::Arc;

use crate::clock::Micros;
use crate::entry::Entry;
use crate::error::Fault;
use crate::quantity::Quantities;
use crate::record::OpenHold;
use crate::state::{Amounts, Booked, Located};
use crate::walk::Read;

/// Records of a window; the frame in which they are reached belongs to it as a whole.
const RECORDS: usize = 32_768;
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

/// Where a hold is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    window: u64,
    hold: u32,
}

/// Amounts in less room, where they are of what a run nearly always has.
#[derive(Clone, Copy, Debug)]
enum Kept {
    /// All that there is of it.
    Few {
        executions: u64,
        cpu_us: u64,
        wall_us: u64,
        memory_byte_ms: u64,
        cost: u64,
    },
    /// Where the window has all of it.
    All(u32),
}

/// A hold in one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct KeptHold {
    held: Kept,
    rate_card: u64,
    at: Micros,
}

impl Kept {
    /// Keeps amounts; those that have more are put into `all`.
    fn of(amounts: &Amounts, all: &mut Vec<Amounts>) -> Self {
        Self::few(amounts).unwrap_or_else(|| {
            all.push(*amounts);
            Self::All(short(all.len() - 1))
        })
    }

    fn few(amounts: &Amounts) -> Option<Self> {
        let of = &amounts.quantities;
        let more = (of.egress_bytes | of.ingress_bytes, of.storage_byte_ms);
        Some(Self::Few {
            executions: of.executions,
            cpu_us: of.cpu_us,
            wall_us: of.wall_us,
            memory_byte_ms: u64::try_from(of.memory_byte_ms).ok()?,
            cost: u64::try_from(amounts.cost).ok()?,
        })
        .filter(|_| more == (0, 0))
    }

    fn amounts(&self, all: &[Amounts]) -> Option<Amounts> {
        match *self {
            Self::All(place) => all.get(long(place)).copied(),
            Self::Few {
                executions,
                cpu_us,
                wall_us,
                memory_byte_ms,
                cost,
            } => Some(Amounts {
                quantities: Quantities {
                    executions,
                    cpu_us,
                    wall_us,
                    memory_byte_ms: memory_byte_ms.into(),
                    ..Quantities::default()
                },
                cost: cost.into(),
            }),
        }
    }

    /// A word of each of its cache lines.
    fn near(&self) -> u64 {
        match self {
            Self::Few {
                executions, cost, ..
            } => executions ^ cost,
            Self::All(place) => u64::from(*place),
        }
    }
}

/// A record of a hold or its end: one cache line, as these go from thread to thread.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Put {
    /// Where it is counted, once that is known.
    pub(super) located: Located,
    /// The hold's number among those that are open at the same time.
    pub(super) slot: u32,
    /// What has become of it.
    pub(super) what: What,
    /// When.
    pub(super) at: Micros,
    /// Where the window has the hold.
    hold: u32,
    bytes: (u32, u32),
    offset: u32,
    seq: u64,
}

impl Put {
    /// Whether it is a hold.
    pub(super) fn is_hold(&self) -> bool {
        matches!(self.what, What::Opened(_))
    }

    /// The key that a hold with these bytes was opened through.
    pub(super) fn key<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let What::Opened(key) = self.what else {
            return None;
        };
        let from = bytes.len().checked_sub(long(key))?;
        bytes.get(from..)
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
    /// Which window it is.
    pub(super) number: u64,
    puts: Vec<Put>,
    /// The command of the first record; the others' follow on it.
    first_lsn: u64,
    holds: Vec<KeptHold>,
    bytes: Vec<u8>,
    charged: Vec<Kept>,
    /// Amounts that have more than is kept beside their records.
    all: Vec<Amounts>,
    /// What it ends with.
    pub(super) entered: Option<Entered>,
}

impl Window {
    /// Whether it must end before a frame of that segment.
    pub(super) fn ends(&self, segment: u32) -> bool {
        let full = self.puts.len() >= RECORDS || self.bytes.len() >= BYTES;
        segment != self.segment || full
    }

    /// Keeps a hold; says where.
    pub(super) fn book(&mut self, hold: &Booked) -> Place {
        self.holds.push(KeptHold {
            held: Kept::of(&hold.held, &mut self.all),
            rate_card: hold.rate_card,
            at: hold.at,
        });
        Place {
            window: self.number,
            hold: short(self.holds.len() - 1),
        }
    }

    /// Adds a record of the hold at a place. One that lies in an earlier window is kept again.
    pub(super) fn put(
        &mut self,
        read: &Read<'_>,
        (hold, place, slot): (&Booked, Place, u32),
        (what, at): (What, Micros),
        bytes: &[u8],
    ) {
        let place = if place.window == self.number {
            place
        } else {
            self.book(hold)
        };
        if self.puts.is_empty() {
            self.first_lsn = read.lsn;
        }
        let from = short(self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        self.puts.push(Put {
            located: Located::default(),
            slot,
            what,
            at,
            hold: place.hold,
            bytes: (from, short(self.bytes.len())),
            offset: read.offset,
            seq: read.seq,
        });
    }

    /// The hold of a record.
    pub(super) fn hold(&self, put: &Put) -> Option<Booked> {
        let hold = self.holds.get(long(put.hold))?;
        Some(Booked {
            held: hold.held.amounts(&self.all)?,
            rate_card: hold.rate_card,
            at: hold.at,
        })
    }

    /// A word of each cache line that belongs to a record, beside its own.
    pub(super) fn near(&self, put: &Put) -> u64 {
        let hold = self.holds.get(long(put.hold)).map(|hold| hold.rate_card);
        let posted = match put.what {
            What::Charged(place) => self.charged.get(long(place)).map(Kept::near),
            What::Opened(_) | What::Released | What::Settled => None,
        };
        let lines = self.bytes(put).chunks(64).filter_map(<[u8]>::first);
        let bytes = lines.fold(0, |all, byte| all ^ byte);
        hold.unwrap_or(0) ^ posted.unwrap_or(0) ^ u64::from(bytes)
    }

    /// Keeps what a settlement posts; says where.
    pub(super) fn charge(&mut self, posted: &Amounts) -> u32 {
        self.charged.push(Kept::of(posted, &mut self.all));
        short(self.charged.len() - 1)
    }

    /// What a settlement posts, where that was kept.
    pub(super) fn charged(&self, put: &Put) -> Option<Amounts> {
        match put.what {
            What::Charged(place) => self.charged.get(long(place))?.amounts(&self.all),
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

    /// A fault of the record at a place.
    pub(super) fn fault(&self, place: usize, what: String) -> Fault {
        let (offset, seq) = self.get(place).map_or((0, 0), |put| (put.offset, put.seq));
        Fault {
            segment: self.segment,
            offset: offset.into(),
            lsn: self.first_lsn + u64::try_from(place).unwrap_or(0),
            seq,
            what,
        }
    }

    /// Empties it, to be the window of that number, for records of that segment.
    pub(super) fn begin(&mut self, number: u64, segment: u32) {
        self.number = number;
        self.segment = segment;
        self.puts.clear();
        self.holds.clear();
        self.all.clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_every_kind_are_given_back_and_a_record_takes_a_cache_line() {
        let few = Amounts {
            quantities: Quantities {
                executions: 1,
                cpu_us: 2,
                wall_us: 3,
                memory_byte_ms: u64::MAX.into(),
                ..Quantities::default()
            },
            cost: 4,
        };
        let with = |change: fn(&mut Amounts)| {
            let mut amounts = few;
            change(&mut amounts);
            amounts
        };
        let more = [
            with(|one| one.quantities.egress_bytes = 5),
            with(|one| one.quantities.ingress_bytes = 5),
            with(|one| one.quantities.storage_byte_ms = 5),
            with(|one| one.quantities.memory_byte_ms += 1),
            with(|one| one.cost = -1),
            with(|one| one.cost = i128::MAX),
        ];
        let mut all = Vec::new();
        for amounts in [few, Amounts::default()].iter().chain(&more) {
            let kept = Kept::of(amounts, &mut all);
            assert_eq!(kept.amounts(&all), Some(*amounts));
        }
        assert_eq!(all, more);
        assert_eq!((size_of::<Put>(), size_of::<KeptHold>()), (64, 64));
    }
}
