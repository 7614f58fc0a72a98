//! Opening a ledger: checkpoint plus journal tail, and whatever a crash has left is put right.
//!
//! In order: drop a half-made segment; make missing indexes; find the journal's end and drop a
//! frame torn there; load the checkpoint; open or drop the view; replay what each of the two lacks.

mod replay;

use std::collections::VecDeque;
use std::fs::{self, File, TryLockError};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::replay::open_view;
pub(crate) use self::replay::{Replay, write_rows};
use crate::error::{Error, Fault, OpenError};
use crate::file;
use crate::index::{Index, Sealed};
use crate::journal::disk::Disk;
use crate::journal::reader::{Reader, Rest, Step};
use crate::journal::room::{Maker, Room, Segment};
use crate::journal::{Journal, Position, segment};
use crate::merkle::Frontier;
use crate::options::Options;
use crate::record::Slate;
use crate::shared::Committed;
use crate::state::{Bounds, State};
use crate::view::rows::Rows;
use crate::view::{CHECKPOINT, Checkpoint, View, checkpoint_path};
use crate::walk::{self, Segments, Start};

/// Settlements whose rows an open keeps in memory at once: by default more than a tail has, as it
/// is bounded ([`Options::tail_max`]), so that its rows are written while commands are taken.
const OPEN_STEP: u64 = 300_000;

/// An opened ledger, before its threads.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Keeps other processes out while it lives.
    pub(crate) lock: File,
    /// What reads are answered from.
    pub(crate) view: View,
    /// Where the writer goes on.
    pub(crate) journal: Journal,
    /// How far view and checkpoint on disk are.
    pub(crate) committed: Committed,
    /// Bytes of the journal in use.
    pub(crate) journal_bytes: u64,
}

/// What the journal's files say by themselves.
#[derive(Debug)]
struct Found {
    segments: Segments,
    /// The index of the last segment that has a frame, or of the first.
    tail: Index,
    /// The indexes of the segments before.
    sealed: Vec<Sealed>,
    /// The place behind the last frame.
    end: Position,
}

/// The database of the view.
pub(crate) fn view_path(dir: &Path) -> PathBuf {
    dir.join("view")
}

/// Takes the ledger's directory for this process.
pub(crate) fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let failed = |source| Error::File {
        what: "lock",
        path: path.clone(),
        source,
    };
    let options = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = options.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source).into()),
    }
}

/// Opens the ledger.
pub(crate) fn recover(options: &Options, disk: &Arc<dyn Disk>) -> Result<Recovered, OpenError> {
    let dir = &options.dir;
    let journal_dir = segment::dir(dir);
    let made = fs::create_dir_all(&journal_dir);
    made.map_err(|source| Error::File {
        what: "make",
        path: journal_dir,
        source,
    })?;
    let lock = lock(dir)?;
    if segment::list(dir)?.is_empty() {
        maker(options, disk, None).make(1)?;
    }
    drop_blank(dir)?;
    let mut found = find(dir)?;
    cut(dir, &found, disk)?;
    let base = checkpoint(dir, &found)?;
    let (store, mark) = open_view(options, &found)?;
    let checkpoint_lsn = base.state.lsn;
    let bounds = Bounds::of(options);
    let rows = match mark {
        Some(_) => Rows::new(Arc::new(store)),
        None => Rows::anew(Arc::new(store)),
    };
    let mut view = View::new(base, rows, mem::take(&mut found.tail), bounds);
    view.sealed = mem::take(&mut found.sealed);
    let replay = Replay {
        dir,
        segments: &found.segments,
        mark,
        step: OPEN_STEP,
        anew: false,
    };
    let view_lsn = replay.run(&mut view, &mut |_, _| {})?;
    let journal_bytes = used_bytes(&found);
    let journal = journal(options, &found, disk)?;
    let committed = Committed {
        view_lsn,
        checkpoint_lsn,
        ..Committed::default()
    };
    Ok(Recovered {
        lock,
        view,
        journal,
        committed,
        journal_bytes,
    })
}

/// Drops a last segment that was being made when the machine stopped.
fn drop_blank(dir: &Path) -> Result<(), Error> {
    let Some(blank) = walk::segments(dir)?.blank else {
        return Ok(());
    };
    let path = segment::path(dir, blank);
    let removed = fs::remove_file(&path);
    removed.map_err(|source| Error::File {
        what: "remove",
        path,
        source,
    })
}

/// Looks through the journal's files, and makes missing indexes.
fn find(dir: &Path) -> Result<Found, Error> {
    let segments = walk::segments(dir)?;
    let last = last_used(dir, &segments)?;
    let mut sealed = Vec::new();
    let mut next_seq = 1;
    for header in segments
        .headers
        .iter()
        .filter(|header| header.number < last)
    {
        let index = sealed_index(dir, &segments, header.number, next_seq)?;
        next_seq = index.first_seq + index.entries;
        sealed.push(index);
    }
    let (tail, end) = index_of(dir, &segments, last, next_seq)?;
    Ok(Found {
        segments,
        tail,
        sealed,
        end,
    })
}

fn maker(options: &Options, disk: &Arc<dyn Disk>, ledger: Option<u64>) -> Maker {
    let (disk, dir) = (Arc::clone(disk), options.dir.clone());
    Maker {
        disk,
        dir,
        bytes: options.segment_bytes,
        ledger,
    }
}

/// The last segment that has a frame, or the first.
fn last_used(dir: &Path, segments: &Segments) -> Result<u32, Error> {
    for header in segments.headers.iter().rev() {
        let mut reader = Reader::open(&segment::path(dir, header.number))?;
        if let Step::Frame(_) = reader.step()? {
            return Ok(header.number);
        }
    }
    Ok(segments.headers.first().map_or(1, |first| first.number))
}

fn sealed_index(
    dir: &Path,
    segments: &Segments,
    number: u32,
    next_seq: u64,
) -> Result<Sealed, Error> {
    let path = segment::index_path(dir, number);
    let fits = |index: &Index| index.segment == number && index.first_seq == next_seq;
    if let Some(index) = Index::read(&path)?.filter(fits) {
        return Ok(index.sealed());
    }
    tracing::info!(segment = number, "making the index of a segment again");
    let (mut index, _) = index_of(dir, segments, number, next_seq)?;
    index.seal();
    index.write(&path)?;
    Ok(index.sealed())
}

/// The index of one segment, made from its frames, and the place behind these.
fn index_of(
    dir: &Path,
    segments: &Segments,
    number: u32,
    next_seq: u64,
) -> Result<(Index, Position), Error> {
    let only = Segments {
        headers: segments
            .headers
            .iter()
            .filter(|h| h.number == number)
            .copied()
            .collect(),
        blank: None,
        bytes: 0,
    };
    let mut index = Index::new(number, next_seq);
    let start = Start {
        position: Position {
            segment: number,
            offset: segment::HEADER,
        },
        lsn: None,
    };
    let mut slate = Slate::default();
    let finish = walk::walk(dir, &only, start, |number, frame| {
        walk::records(number, frame, |read| {
            let stored = read.stored(&mut slate, |_hold| None)?;
            let head = stored.head();
            if let Some(head) = &head {
                index.push_head(head, read.offset);
            }
            let is_entry = head.is_some();
            if let Some(hold) = stored.into_hold() {
                slate.keep(hold);
            }
            Ok(is_entry)
        })
    })?;
    Ok((index, finish.position))
}

/// Makes everything behind the last whole frame zero again: an old frame behind a torn one could
/// be taken for a live one later.
fn cut(dir: &Path, found: &Found, disk: &Arc<dyn Disk>) -> Result<(), Error> {
    let start = Start {
        position: found.end,
        lsn: None,
    };
    let finish = walk::walk(dir, &found.segments, start, |_, _| Ok(()))?;
    let bytes = match finish.rest {
        Rest::Zeros | Rest::FramesFollow { .. } => return Ok(()),
        Rest::Torn { bytes } | Rest::Damaged { bytes } => bytes,
    };
    let Position {
        segment: number,
        offset,
    } = finish.rest_in;
    tracing::warn!(
        segment = number,
        offset,
        bytes,
        "dropping an unfinished frame"
    );
    let path = segment::path(dir, number);
    let headers = &found.segments.headers;
    let header = headers.iter().find(|header| header.number == number);
    let room = header.map_or(0, |header| header.bytes);
    let opened = disk.open(&path, room);
    let cleared = opened.and_then(|file| file.clear_from(offset));
    cleared.map_err(|source| Error::File {
        what: "clear the end of",
        path,
        source,
    })
}

/// Where a journal without a checkpoint begins.
pub(crate) fn beginning(segments: &Segments) -> Checkpoint {
    let first = segments.headers.first();
    Checkpoint {
        ledger: first.map_or(0, |header| header.ledger),
        position: Start::first(segments).position,
        frontier: Frontier::default(),
        state: State::default(),
    }
}

/// The checkpoint, or the beginning.
fn checkpoint(dir: &Path, found: &Found) -> Result<Checkpoint, Error> {
    let beginning = beginning(&found.segments);
    let read: Option<Checkpoint> = file::read(&checkpoint_path(dir), CHECKPOINT)?;
    let Some(checkpoint) = read.filter(|checkpoint| checkpoint.ledger == beginning.ledger) else {
        return Ok(beginning);
    };
    if checkpoint.position > found.end {
        return Err(Error::Corrupt {
            fault: Fault {
                segment: found.end.segment,
                offset: found.end.offset,
                lsn: checkpoint.state.lsn,
                seq: checkpoint.state.seq,
                what: "the journal ends before the checkpoint: durable commands are missing"
                    .to_owned(),
            },
        });
    }
    Ok(checkpoint)
}

/// The journal's end for the writer: the last used segment, and the spare ones behind it.
fn journal(options: &Options, found: &Found, disk: &Arc<dyn Disk>) -> Result<Journal, Error> {
    let mut spares = VecDeque::new();
    let mut current = None;
    for header in &found.segments.headers {
        if header.number < found.end.segment {
            continue;
        }
        let path = segment::path(&options.dir, header.number);
        let opened = disk.open(&path, header.bytes);
        let file = opened.map_err(|source| Error::File {
            what: "open",
            path,
            source,
        })?;
        let is_current = header.number == found.end.segment;
        let used = if is_current {
            found.end.offset
        } else {
            segment::HEADER
        };
        let opened = Segment {
            header: *header,
            file: Arc::from(file),
            used,
        };
        if is_current {
            current = Some(opened);
        } else {
            spares.push_back(opened);
        }
    }
    let last = found
        .segments
        .headers
        .last()
        .map_or(1, |header| header.number);
    let ledger = found.segments.headers.first().map(|header| header.ledger);
    let room = Room::start(maker(options, disk, ledger), spares, last + 1);
    let room = room.map_err(|_spawn| Error::Thread { thread: "room" })?;
    current
        .map(|current| Journal::new(current, room))
        .ok_or(Error::Thread { thread: "room" })
}

fn used_bytes(found: &Found) -> u64 {
    let full = found
        .segments
        .headers
        .iter()
        .filter(|header| header.number < found.end.segment);
    full.map(|header| header.bytes).sum::<u64>() + found.end.offset
}

#[cfg(test)]
mod tests;
