//! Settlements and adjustments one after the other, read from the journal through its indexes: what
//! exports and statements are made of.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::entries::{damaged, open};
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Fault, QueryError};
use crate::index::{Charged, Index, Wanted};
use crate::journal::RECORD_MAX;
use crate::journal::reader::Rest;
use crate::journal::segment;
use crate::query::{AsOf, ChargeQuery};
use crate::record;
use crate::shared::Shared;
use crate::walk::{self, Start};

/// Bytes read from a segment at once.
const CHUNK: usize = 32 << 10;

/// Reads records at rising offsets, many of them at once.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    dir: &'a Path,
    current: Option<(u32, File)>,
    buffer: Vec<u8>,
    buffered_at: u64,
}

impl<'a> Records<'a> {
    /// Reads from the journal of the ledger in `dir`.
    pub(crate) fn new(dir: &'a Path) -> Self {
        Self {
            dir,
            current: None,
            buffer: Vec::new(),
            buffered_at: 0,
        }
    }

    /// The settlement or adjustment at an offset of a segment.
    pub(crate) fn charge(&mut self, segment: u32, offset: u32) -> Result<Arc<Entry>, Error> {
        let fault = |what: String| damaged((segment, offset), 0, what);
        let start = u64::from(offset).saturating_sub(4);
        let head = self.bytes(segment, start, 4)?;
        let length = <[u8; 4]>::try_from(head).map_or(0, u32::from_le_bytes);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > RECORD_MAX {
            return Err(fault("a record is too long".to_owned()));
        }
        let bytes = self.bytes(segment, offset.into(), length)?;
        let entry = record::whole(bytes).map_err(fault)?;
        let charge = entry.filter(|entry| entry.kind() != EntryKind::Acted);
        charge.map(Arc::new).ok_or_else(|| {
            let what = "the index names a record that charges nothing";
            fault(what.to_owned())
        })
    }

    /// The bytes at an offset of a segment; fewer at the end of the file.
    fn bytes(&mut self, segment: u32, at: u64, length: usize) -> Result<&[u8], Error> {
        let start = |buffered_at: u64| usize::try_from(at.checked_sub(buffered_at)?).ok();
        let inside = |start: &usize| start.saturating_add(length) <= self.buffer.len();
        let same = self
            .current
            .as_ref()
            .is_some_and(|(now, _)| *now == segment);
        let place = start(self.buffered_at).filter(inside).filter(|_| same);
        let place = match place {
            Some(place) => place,
            None => {
                self.fill(segment, at, length.max(CHUNK))?;
                0
            }
        };
        let end = place.saturating_add(length).min(self.buffer.len());
        Ok(self.buffer.get(place..end).unwrap_or_default())
    }

    fn fill(&mut self, segment: u32, at: u64, length: usize) -> Result<(), Error> {
        let file = match self.current.take() {
            Some((number, file)) if number == segment => file,
            _ => open(self.dir, segment)?,
        };
        self.buffer.resize(length, 0);
        let mut filled = 0;
        while let Some(rest) = self
            .buffer
            .get_mut(filled..)
            .filter(|rest| !rest.is_empty())
        {
            let offset = at.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
            match file.read_at(rest, offset) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::File {
                        what: "read an entry of",
                        path: segment::path(self.dir, segment),
                        source,
                    });
                }
            }
        }
        self.buffer.truncate(filled);
        self.buffered_at = at;
        self.current = Some((segment, file));
        Ok(())
    }
}

/// Settlements and adjustments in the order of their numbers, a bounded piece at a time. Everything
/// up to one number that is fixed at the beginning, and nothing later.
#[derive(Debug)]
pub struct Charges {
    shared: Arc<Shared>,
    query: ChargeQuery,
    as_of: AsOf,
    dir: PathBuf,
    /// The last number looked at.
    through: u64,
    /// The index of the sealed segment that is being read.
    index: Option<Arc<Index>>,
}

impl Charges {
    /// Begins after `query.after`.
    pub(crate) fn new(shared: Arc<Shared>, query: ChargeQuery) -> Self {
        let mut as_of = shared.fresh_view().as_of();
        as_of.seq = query.until.map_or(as_of.seq, |until| until.min(as_of.seq));
        let dir = shared.options.dir.clone();
        Self {
            through: query.after,
            shared,
            query,
            as_of,
            dir,
            index: None,
        }
    }

    /// Up to where it goes.
    pub fn as_of(&self) -> AsOf {
        self.as_of
    }

    /// The last number looked at: where another one can go on.
    pub fn through(&self) -> u64 {
        self.through
    }

    /// The next settlements that count, out of at most `most` that are read; `None` at the end.
    pub fn page(&mut self, most: usize) -> Result<Option<Vec<Arc<Entry>>>, QueryError> {
        let until = self.as_of.seq;
        if self.through >= until {
            return Ok(None);
        }
        let (segment, found, last) = self.places(most.max(1))?;
        let mut records = Records::new(&self.dir);
        let mut entries = Vec::new();
        for charged in &found {
            let entry = records.charge(segment, charged.offset)?;
            if self.query.only.admits(&entry.body) {
                entries.push(entry);
            }
        }
        let full = found.len() == most;
        let last = found.last().filter(|_| full).map_or(last, |at| at.seq);
        self.through = last.max(self.through + 1).min(until);
        Ok(Some(entries))
    }

    /// The next settlements of one segment, and the number of its last entry.
    fn places(&mut self, most: usize) -> Result<(u32, Vec<Charged>, u64), QueryError> {
        let wanted = Wanted {
            tenant: self.query.only.tenant.as_deref(),
            after: self.through,
            until: self.as_of.seq,
            from: self.query.from.unwrap_or(i64::MIN),
            to: self.query.to.unwrap_or(i64::MAX),
        };
        let next = self.through + 1;
        let take = |index: &Index| {
            let found = index.charged(&wanted).take(most).collect();
            let last = (index.first_seq + index.entries()).saturating_sub(1);
            (index.segment, found, last)
        };
        let holds =
            |index: &Index| index.first_seq <= next && next < index.first_seq + index.entries();
        if let Some(index) = self.index.as_ref().filter(|index| holds(index)) {
            return Ok(take(index));
        }
        self.index = None;
        let view = self.shared.view();
        let sealing = view.sealing.iter().find(|index| holds(index));
        if let Some(index) = sealing
            .map(Arc::as_ref)
            .or(Some(&view.tail))
            .filter(|i| holds(i))
        {
            return Ok(take(index));
        }
        let after = view
            .sealed
            .partition_point(|sealed| sealed.first_seq <= next);
        let sealed = after
            .checked_sub(1)
            .and_then(|at| view.sealed.get(at))
            .copied();
        drop(view);
        let Some(sealed) = sealed else {
            return Err(QueryError::ViewUnavailable);
        };
        let last = (sealed.first_seq + sealed.entries).saturating_sub(1);
        let outside = |(first, last)| last < wanted.from || wanted.to <= first;
        if sealed.opened.is_none_or(outside) {
            return Ok((sealed.segment, Vec::new(), last));
        }
        let index = self.shared.index(sealed.segment)?;
        let found = take(&index);
        self.index = Some(index);
        Ok(found)
    }
}

/// Hands every entry of a stopped ledger's journal, or of a copy of it, to `on`, in the order of
/// their numbers; answers the last number. Needs the journal alone. `on` ends it early with
/// `false`.
///
/// The directory is the ledger's, the one with `journal/` in it. A frame that a crash has cut off
/// ends the journal, as nobody was told of it; any other damage is an error.
pub fn read_entries(dir: &Path, on: &mut dyn FnMut(&Entry) -> bool) -> Result<u64, Error> {
    let segments = walk::segments(dir)?;
    let mut last = 0;
    let mut more = true;
    let start = Start {
        lsn: Some(1),
        ..Start::first(&segments)
    };
    let finish = walk::walk(dir, &segments, start, |number, frame| {
        if !more {
            return Ok(());
        }
        walk::entries(number, frame, |entry| {
            last = entry.seq;
            more = more && on(entry);
        })
    })?;
    match finish.rest {
        Rest::Damaged { .. } => {
            let (place, lsn) = (finish.rest_in, finish.lsn + 1);
            let what = "the last frame is damaged, or stray bytes lie behind it".to_owned();
            let fault = Fault {
                segment: place.segment,
                offset: place.offset,
                lsn,
                seq: last + 1,
                what,
            };
            Err(Error::Corrupt { fault })
        }
        Rest::Zeros | Rest::Torn { .. } | Rest::FramesFollow { .. } => Ok(last),
    }
}
