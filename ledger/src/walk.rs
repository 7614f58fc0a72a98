//! Walking the journal's frames in order, over all segments, with every check that needs no state:
//! headers, checksums, numbering, decoding, and nothing but zeros behind the last frame.

use std::path::Path;
use std::sync::Arc;

use crate::entry::Entry;
use crate::error::{Error, Fault};
use crate::id::Id;
use crate::journal::Position;
use crate::journal::frame;
use crate::journal::reader::{Frame, Reader, Rest, Step};
use crate::journal::segment::{self, SegmentHeader};
use crate::record::{self, OpenHold, Slate, Stored};
use crate::view::{Durable, Item};

/// The segments of a journal, as found.
#[derive(Debug)]
pub(crate) struct Segments {
    /// Their headers, in order.
    pub(crate) headers: Vec<SegmentHeader>,
    /// A last file that was being made: not a segment yet.
    pub(crate) blank: Option<u32>,
    /// Bytes of all of them.
    pub(crate) bytes: u64,
}

/// Where a walk begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Start {
    /// The place of the first frame.
    pub(crate) position: Position,
    /// Number of its first record; `None` takes whatever it says.
    pub(crate) lsn: Option<u64>,
}

/// Where a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Finish {
    /// The place behind the last whole frame.
    pub(crate) position: Position,
    /// Number of the last record; zero if there was none.
    pub(crate) lsn: u64,
    /// What lies behind it.
    pub(crate) rest: Rest,
    /// The segment in which that lies: the next one, if its first frame is torn.
    pub(crate) rest_in: Position,
}

impl Start {
    /// The beginning of a journal.
    pub(crate) fn first(segments: &Segments) -> Self {
        let first = segments.headers.first().map_or(1, |header| header.number);
        Self {
            position: Position {
                segment: first,
                offset: segment::HEADER,
            },
            lsn: None,
        }
    }
}

/// Lists the segments and checks their headers.
pub(crate) fn segments(dir: &Path) -> Result<Segments, Error> {
    let numbers = segment::list(dir)?;
    let mut found = Segments {
        headers: Vec::new(),
        blank: None,
        bytes: 0,
    };
    for number in &numbers {
        let mut reader = Reader::open(&segment::path(dir, *number))?;
        let ledger = found
            .headers
            .first()
            .map(|first: &SegmentHeader| first.ledger);
        let Some(header) = reader.header else {
            if Some(number) == numbers.last() && reader.is_blank()? {
                found.blank = Some(*number);
                break;
            }
            return Err(at(*number, "the segment's header is damaged"));
        };
        if header.number != *number || ledger.is_some_and(|ledger| ledger != header.ledger) {
            return Err(at(*number, "the segment is another ledger's, or misnamed"));
        }
        found.headers.push(header);
        found.bytes += reader.bytes;
    }
    Ok(found)
}

fn at(segment: u32, what: &str) -> Error {
    let fault = Fault {
        segment,
        offset: 0,
        lsn: 0,
        seq: 0,
        what: what.to_owned(),
    };
    Error::Corrupt { fault }
}

/// Calls `on` with every whole frame from `start` on.
pub(crate) fn walk(
    dir: &Path,
    segments: &Segments,
    start: Start,
    mut on: impl FnMut(u32, &Frame<'_>) -> Result<(), Error>,
) -> Result<Finish, Error> {
    let mut finish = Finish {
        position: start.position,
        lsn: start.lsn.map_or(0, |lsn| lsn - 1),
        rest: Rest::Zeros,
        rest_in: start.position,
    };
    let mut expected = start.lsn;
    let mut seq = 0;
    let later = segments
        .headers
        .iter()
        .filter(|header| header.number >= start.position.segment);
    for header in later {
        let number = header.number;
        let mut reader = Reader::open(&segment::path(dir, number))?;
        if number == start.position.segment {
            reader.seek(start.position.offset);
        }
        loop {
            let fault = |offset, what: String| {
                let lsn = expected.unwrap_or(1);
                Error::Corrupt {
                    fault: Fault {
                        segment: number,
                        offset,
                        lsn,
                        seq,
                        what,
                    },
                }
            };
            match reader.step()? {
                Step::Frame(frame) => {
                    check(&frame, &finish, expected).map_err(|what| fault(frame.offset, what))?;
                    on(number, &frame)?;
                    let lsn = frame.header.first_lsn + u64::from(frame.header.records);
                    expected = Some(lsn);
                    seq = frame.header.next_seq;
                    finish.lsn = lsn - 1;
                    finish.position = end(number, &frame);
                }
                Step::End(end) => {
                    if let Rest::FramesFollow { at } = end.rest {
                        let what =
                            format!("a frame is damaged; the next whole one is at byte {at}");
                        return Err(fault(end.offset, what));
                    }
                    if end.rest != Rest::Zeros {
                        if finish.rest != Rest::Zeros {
                            return Err(fault(end.offset, "two segments end in damage".to_owned()));
                        }
                        finish.rest = end.rest;
                        finish.rest_in = Position {
                            segment: number,
                            offset: end.offset,
                        };
                    }
                    break;
                }
            }
        }
    }
    Ok(finish)
}

fn check(frame: &Frame<'_>, finish: &Finish, expected: Option<u64>) -> Result<(), String> {
    if finish.rest != Rest::Zeros {
        let damaged = finish.rest_in;
        return Err(format!(
            "frames follow on damage in segment {} at byte {}",
            damaged.segment, damaged.offset
        ));
    }
    if frame.header.records == 0 {
        return Err("a frame has no record".to_owned());
    }
    match expected.filter(|expected| *expected != frame.header.first_lsn) {
        None => Ok(()),
        Some(expected) => Err(format!(
            "a frame begins with command {}, not {expected}",
            frame.header.first_lsn
        )),
    }
}

/// A record of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read<'a> {
    /// The number of its command.
    pub(crate) lsn: u64,
    /// Its number, if it is an entry.
    pub(crate) seq: u64,
    /// Where its bytes lie in the segment.
    pub(crate) offset: u32,
    /// Its bytes.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Read<'a> {
    /// Reads it; see [`Stored::read_in`].
    pub(crate) fn stored<'b>(
        &self,
        slate: &'b mut Slate,
        open: impl FnOnce(&Id) -> Option<Arc<OpenHold>>,
    ) -> Result<Stored<'b>, String>
    where
        'a: 'b,
    {
        let stored = Stored::read_in(self.bytes, slate, open)?;
        self.is_numbered(stored.seq())?;
        Ok(stored)
    }

    /// Whether it is an entry, as it says; that must have its number.
    pub(crate) fn is_numbered(&self, seq: Option<u64>) -> Result<bool, String> {
        match seq.filter(|seq| *seq != self.seq) {
            Some(other) => Err(format!("the entry calls itself {other}")),
            None => Ok(seq.is_some()),
        }
    }
}

/// Calls `on` with every record of a frame, which says whether it is an entry. A fault that it
/// tells is one of that record.
pub(crate) fn records<'a>(
    number: u32,
    frame: &Frame<'a>,
    mut on: impl FnMut(Read<'a>) -> Result<bool, String>,
) -> Result<(), Error> {
    let body = frame.offset + u64::try_from(frame::HEADER).unwrap_or(0);
    let mut seq = frame.header.next_seq;
    let mut lsn = frame.header.first_lsn;
    for found in frame::records(frame.payload) {
        let place = found.map_or(0, |(place, _)| place);
        let offset = body + u64::try_from(place).unwrap_or(0);
        let taken = found
            .ok_or_else(|| "a record is cut off".to_owned())
            .and_then(|(_, bytes)| {
                let offset = u32::try_from(offset).unwrap_or(u32::MAX);
                on(Read {
                    lsn,
                    seq,
                    offset,
                    bytes,
                })
            });
        let is_entry = taken.map_err(|what| Error::Corrupt {
            fault: Fault {
                segment: number,
                offset,
                lsn,
                seq,
                what,
            },
        })?;
        seq += u64::from(is_entry);
        lsn += 1;
    }
    let count = lsn - frame.header.first_lsn;
    if count == u64::from(frame.header.records) {
        return Ok(());
    }
    let records = frame.header.records;
    Err(Error::Corrupt {
        fault: Fault {
            segment: number,
            offset: frame.offset,
            lsn: frame.header.first_lsn,
            seq,
            what: format!("a frame has {count} records, not {records}"),
        },
    })
}

/// Calls `on` with every entry of a frame.
pub(crate) fn entries(
    number: u32,
    frame: &Frame<'_>,
    mut on: impl FnMut(&Entry),
) -> Result<(), Error> {
    records(number, frame, |read| {
        let entry = record::whole(read.bytes)?;
        let is_entry = read.is_numbered(entry.as_ref().map(|entry| entry.seq))?;
        entry.iter().for_each(&mut on);
        Ok(is_entry)
    })
}

/// The place behind a frame.
pub(crate) fn end(number: u32, frame: &Frame<'_>) -> Position {
    let size = u64::try_from(frame::HEADER + frame.header.rest()).unwrap_or(u64::MAX);
    Position {
        segment: number,
        offset: frame.offset + size,
    }
}

/// Decodes a frame.
pub(crate) fn decode(number: u32, frame: &Frame<'_>) -> Result<Durable, Error> {
    let mut items = Vec::with_capacity(usize::try_from(frame.header.records).unwrap_or(0));
    let mut slate = Slate::default();
    records(number, frame, |read| {
        let stored = read.stored(&mut slate, |_hold| None)?;
        items.push(Item {
            record: stored.record(),
            located: None,
            offset: read.offset,
            bytes: u32::try_from(read.bytes.len()).unwrap_or(u32::MAX),
            leaf: None,
        });
        Ok(stored.seq().is_some())
    })?;
    Ok(Durable {
        start: frame.offset,
        position: end(number, frame),
        frame: Vec::new(),
        first_lsn: frame.header.first_lsn,
        items,
    })
}
