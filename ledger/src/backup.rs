//! A copy of a journal that may be growing meanwhile: every whole frame that was durable when it
//! began, and nothing behind a frame that is still being written.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::error::{Error, Fault, failed};
use crate::journal::reader::{End, Reader, Rest, Step};
use crate::journal::segment::{self, SegmentHeader};
use crate::verify::Progress;

/// How often the end of the journal is looked at again when it is not the end of a whole frame: it
/// may be one that is being written.
const LOOKS: u32 = 10;
/// How long is waited between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Copied {
    /// Segments.
    pub segments: u32,
    /// Bytes of the journal, without the room behind its end.
    pub bytes: u64,
}

/// Copies the journal of the ledger in `from` to the ledger's directory `to`, durably, and beside a
/// server that writes it. `to` must have no journal yet.
///
/// The copy begins with the first command, ends with a whole frame, and has every command that was
/// answered before this was called. Whether it is sound is for [`crate::verify`] to say.
///
/// # Errors
/// A file could not be read or written; or the journal is damaged where no crash damages it, and no
/// writer that is under way.
pub fn copy_journal(from: &Path, to: &Path, on: &mut dyn FnMut(Progress)) -> Result<Copied, Error> {
    let numbers = segment::list(from)?;
    let last = last_used(from, &numbers)?;
    let dir = segment::dir(to);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.map_err(failed("make", &dir))?;
    let mut copied = Copied::default();
    let mut ledger = None;
    let mut progress = Progress {
        bytes_done: 0,
        bytes_total: 0,
        entries: 0,
    };
    for number in numbers.into_iter().filter(|number| *number <= last) {
        let header = header(from, number, ledger)?;
        ledger = Some(header.ledger);
        // Where the writer has gone on to another segment, nothing moves any more.
        let looks = if number < last { 0 } else { LOOKS };
        let end = end_of(from, number, looks, &mut progress.entries)?;
        copy(from, to, &header, end)?;
        copied.segments += 1;
        copied.bytes += end;
        progress.bytes_done += header.bytes;
        progress.bytes_total = header.bytes * u64::from(last - number) + progress.bytes_done;
        on(progress);
    }
    let synced = File::open(&dir).and_then(|dir| dir.sync_all());
    synced.map_err(failed("sync", &dir))?;
    Ok(copied)
}

/// The last segment that has a whole frame, or the first.
fn last_used(dir: &Path, numbers: &[u32]) -> Result<u32, Error> {
    for number in numbers.iter().rev() {
        let mut reader = Reader::open(&segment::path(dir, *number))?;
        if reader.header.is_some() && matches!(reader.step()?, Step::Frame(_)) {
            return Ok(*number);
        }
    }
    let none = || {
        let source = io::Error::from(io::ErrorKind::NotFound);
        failed("find a segment in", &segment::dir(dir))(source)
    };
    numbers.first().copied().ok_or_else(none)
}

fn header(dir: &Path, number: u32, ledger: Option<u64>) -> Result<SegmentHeader, Error> {
    let found = Reader::open(&segment::path(dir, number))?.header;
    let fits = |header: &SegmentHeader| {
        header.number == number && ledger.is_none_or(|ledger| ledger == header.ledger)
    };
    let what = "the segment's header is damaged, or another ledger's";
    found
        .filter(fits)
        .ok_or_else(|| corrupt(number, 0, 0, what.to_owned()))
}

/// The offset behind the last whole frame of a segment, which is looked for again `looks` times
/// while something else lies behind it.
fn end_of(dir: &Path, number: u32, looks: u32, entries: &mut u64) -> Result<u64, Error> {
    let mut at = segment::HEADER;
    let mut looked = 0;
    loop {
        let End { offset, rest } = walk(dir, number, at, entries)?;
        if rest == Rest::Zeros {
            return Ok(offset);
        }
        if offset > at && looks > 0 {
            (at, looked) = (offset, 0);
        } else if looked < looks {
            looked += 1;
            pause();
        } else if looks > 0 && matches!(rest, Rest::Torn { .. }) {
            return Ok(offset);
        } else {
            let what = "a frame is damaged".to_owned();
            return Err(corrupt(number, offset, *entries, what));
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the writer is another process, which wakes nobody here; at most LOOKS times"
)]
fn pause() {
    thread::sleep(PAUSE);
}

/// Reads whole frames from `at` on; a new reader each time, which has nothing old in its buffer.
fn walk(dir: &Path, number: u32, at: u64, entries: &mut u64) -> Result<End, Error> {
    let mut reader = Reader::open(&segment::path(dir, number))?;
    reader.seek(at);
    loop {
        match reader.step()? {
            Step::Frame(frame) => *entries = frame.header.next_seq - 1,
            Step::End(end) => return Ok(end),
        }
    }
}

/// Copies a segment up to `end`. What lies behind stays a hole: an open takes its room.
fn copy(from: &Path, to: &Path, header: &SegmentHeader, end: u64) -> Result<(), Error> {
    let (source, target) = (
        segment::path(from, header.number),
        segment::path(to, header.number),
    );
    let whole = File::open(&source).map_err(failed("read", &source))?;
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&target)?;
        if io::copy(&mut whole.take(end), &mut file)? != end {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        file.set_len(header.bytes)?;
        file.sync_all()
    };
    write().map_err(failed("write", &target))
}

fn corrupt(segment: u32, offset: u64, seq: u64, what: String) -> Error {
    let lsn = 0;
    Error::Corrupt {
        fault: Fault {
            segment,
            offset,
            lsn,
            seq,
            what,
        },
    }
}

#[cfg(test)]
mod tests;
