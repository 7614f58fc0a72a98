//! Entries by number and by execution, read from the journal through its indexes.

use std::fs::File;
use std::path::Path;

use crate::entry::Entry;
use crate::error::{Error, Fault, QueryError};
use crate::id::Id;
use crate::index::{Filter, Index, Sealed};
use crate::journal::{reader, segment};
use crate::query::{AsOf, EntryPage, EntryQuery};
use crate::record;
use crate::shared::Shared;

/// Entries a page.
const LIMIT_MAX: usize = 1_000;
/// Sealed segments that one question looks into; the page may then be short, but tells where to
/// go on.
const SEGMENTS_MAX: usize = 16;

/// Where an entry lies.
#[derive(Clone, Copy)]
struct Place {
    segment: u32,
    seq: u64,
    offset: u32,
}

/// A page of entries.
pub(crate) fn entries(shared: &Shared, query: &EntryQuery) -> Result<EntryPage, QueryError> {
    if query.limit == 0 || query.limit > LIMIT_MAX {
        let fault = format!("must be from 1 to {LIMIT_MAX}");
        return Err(QueryError::Invalid {
            field: "limit",
            fault,
        });
    }
    let filter = Filter {
        tenant: query.tenant.as_deref(),
        kind: query.kind,
        from: query.from.unwrap_or(i64::MIN),
        to: query.to.unwrap_or(i64::MAX),
    };
    let (as_of, places, next) = select(shared, query, &filter)?;
    let entries = read(&shared.options.dir, &places)?;
    let full = entries.len() == query.limit;
    let last = entries
        .last()
        .map(|entry| entry.seq)
        .filter(|last| full && *last < as_of.seq);
    Ok(EntryPage {
        as_of,
        entries,
        next: last.or(next),
    })
}

/// The places of the entries, and where to go on if not every segment was looked into.
fn select(
    shared: &Shared,
    query: &EntryQuery,
    filter: &Filter<'_>,
) -> Result<(AsOf, Vec<Place>, Option<u64>), QueryError> {
    let view = shared.fresh_view();
    let as_of = view.as_of();
    let later = |sealed: &&Sealed| sealed.first_seq + sealed.entries > query.after + 1;
    let sealed: Vec<Sealed> = view.sealed.iter().filter(later).copied().collect();
    // In memory: a selection costs no more than what it finds and skips.
    let here = |index: &Index| found(index, query, filter, query.limit);
    let mut memory: Vec<Place> = view.sealing.iter().flat_map(|index| here(index)).collect();
    memory.extend(here(&view.tail));
    drop(view);
    let mut places = Vec::new();
    let mut looked = None;
    for sealed in sealed {
        if places.len() >= query.limit {
            break;
        }
        if looked.is_some_and(|(segments, _)| segments == SEGMENTS_MAX) {
            return Ok((as_of, places, looked.map(|(_, seq)| seq)));
        }
        let index = shared.index(sealed.segment)?;
        places.extend(found(&index, query, filter, query.limit - places.len()));
        let segments = looked.map_or(0, |(segments, _)| segments);
        looked = Some((segments + 1, sealed.first_seq + sealed.entries - 1));
    }
    places.extend(memory);
    places.truncate(query.limit);
    Ok((as_of, places, None))
}

/// An entry by its number, with its bytes as they are stored: what the Merkle tree hashes.
pub(crate) fn stored(shared: &Shared, seq: u64) -> Result<Option<(Vec<u8>, Entry)>, QueryError> {
    let Some(after) = seq.checked_sub(1) else {
        return Ok(None);
    };
    let query = EntryQuery {
        after,
        limit: 1,
        ..EntryQuery::default()
    };
    let every = Filter {
        tenant: None,
        kind: None,
        from: i64::MIN,
        to: i64::MAX,
    };
    let (_, places, _) = select(shared, &query, &every)?;
    let Some(place) = places.first().filter(|place| place.seq == seq) else {
        return Ok(None);
    };
    let (dir, place) = (&shared.options.dir, (place.segment, place.offset));
    let file = open(dir, place.0)?;
    let bytes = stored_bytes(dir, &file, place)?;
    let entry = decode(place, &bytes)?;
    Ok(record::leaf(&bytes).map(|leaf| (leaf.to_vec(), entry)))
}

fn found(index: &Index, query: &EntryQuery, filter: &Filter<'_>, limit: usize) -> Vec<Place> {
    let segment = index.segment;
    let places = index.select(query.after, filter, limit);
    places
        .into_iter()
        .map(|(seq, offset)| Place {
            segment,
            seq,
            offset,
        })
        .collect()
}

/// The settlement of an execution.
pub(crate) fn settlement_of(shared: &Shared, execution: &Id) -> Result<Option<Entry>, QueryError> {
    let view = shared.fresh_view();
    let here = |index: &Index| {
        index
            .settlement(execution)
            .map(|offset| (index.segment, offset))
    };
    let memory = here(&view.tail).or_else(|| view.sealing.iter().find_map(|index| here(index)));
    let within = |sealed: &&Sealed| {
        sealed
            .executions
            .is_some_and(|(first, last)| first <= *execution && *execution <= last)
    };
    let sealed: Vec<Sealed> = view.sealed.iter().rev().filter(within).copied().collect();
    drop(view);
    let mut place = memory;
    for sealed in sealed {
        if place.is_some() {
            break;
        }
        place = here(shared.index(sealed.segment)?.as_ref());
    }
    let Some((segment, offset)) = place else {
        return Ok(None);
    };
    let file = open(&shared.options.dir, segment)?;
    Ok(Some(entry(&shared.options.dir, &file, (segment, offset))?))
}

fn read(dir: &Path, places: &[Place]) -> Result<Vec<Entry>, QueryError> {
    let mut entries = Vec::with_capacity(places.len());
    let mut current: Option<(u32, File)> = None;
    for place in places {
        if current
            .as_ref()
            .is_none_or(|(segment, _)| *segment != place.segment)
        {
            current = Some((place.segment, open(dir, place.segment)?));
        }
        let Some((_, file)) = &current else { continue };
        let entry = entry(dir, file, (place.segment, place.offset))?;
        if entry.seq != place.seq {
            let what = format!("the index expects entry {}, not {}", place.seq, entry.seq);
            return Err(damaged((place.segment, place.offset), place.seq, what).into());
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// Opens a segment to read from it.
pub(crate) fn open(dir: &Path, number: u32) -> Result<File, Error> {
    let path = segment::path(dir, number);
    File::open(&path).map_err(|source| Error::File {
        what: "open",
        path,
        source,
    })
}

fn entry(dir: &Path, file: &File, place: (u32, u32)) -> Result<Entry, Error> {
    decode(place, &stored_bytes(dir, file, place)?)
}

fn decode(place: (u32, u32), bytes: &[u8]) -> Result<Entry, Error> {
    let entry = record::whole(bytes).map_err(|what| damaged(place, 0, what))?;
    entry.ok_or_else(|| {
        let what = "the index names a record that is no entry".to_owned();
        damaged(place, 0, what)
    })
}

fn stored_bytes(dir: &Path, file: &File, place: (u32, u32)) -> Result<Vec<u8>, Error> {
    reader::read_record(file, place.1).map_err(|source| Error::File {
        what: "read an entry of",
        path: segment::path(dir, place.0),
        source,
    })
}

/// Damage at a place that an index names.
pub(crate) fn damaged(place: (u32, u32), seq: u64, what: String) -> Error {
    let (segment, offset) = (place.0, place.1.into());
    Error::Corrupt {
        fault: Fault {
            segment,
            offset,
            lsn: 0,
            seq,
            what,
        },
    }
}
