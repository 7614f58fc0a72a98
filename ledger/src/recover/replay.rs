//! The view at an open: used where it can be, made again where not, and brought up to the journal.

use std::fs;
use std::path::Path;

use super::{Found, view_path};
use crate::commit;
use crate::entry::Body;
use crate::error::{Error, Fault};
use crate::journal::Position;
use crate::options::Options;
use crate::record::Record;
use crate::state::Known;
use crate::view::store::Store;
use crate::view::{Durable, Mark, Unwritten, View};
use crate::walk::{self, Start};

/// Settlements added to the rows between two commits while a view is made again.
const REBUILD_STEP: u64 = 200_000;

/// The view's database and its head mark. What cannot be used is dropped, to be made again.
pub(super) fn open_view(options: &Options, found: &Found) -> Result<(Store, Option<Mark>), Error> {
    let path = view_path(&options.dir);
    let stale = commit::stale_path(&options.dir);
    if !stale.exists() {
        match usable_view(options, &path, found) {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, cause = ?std::error::Error::source(&error),
                    "the view cannot be opened and is made again");
            }
        }
    }
    if path.exists() {
        let removed = fs::remove_dir_all(&path);
        removed.map_err(|source| Error::File {
            what: "remove",
            path: path.clone(),
            source,
        })?;
    }
    let store = Store::open(&path, options.view_cache_bytes)?;
    if stale.exists() {
        let removed = fs::remove_file(&stale);
        removed.map_err(|source| Error::File {
            what: "remove",
            path: stale,
            source,
        })?;
    }
    Ok((store, None))
}

fn usable_view(
    options: &Options,
    path: &Path,
    found: &Found,
) -> Result<Option<(Store, Option<Mark>)>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let store = Store::open(path, options.view_cache_bytes)?;
    let ledger = found.segments.headers.first().map(|header| header.ledger);
    let mark = store.head()?.and_then(|bytes| commit::decode(&bytes));
    let fits = |mark: &Mark| Some(mark.ledger) == ledger && mark.position <= found.end;
    match mark {
        Some(mark) if fits(&mark) => Ok(Some((store, Some(mark)))),
        _ => Ok(None),
    }
}

/// Takes in what the checkpoint and the rows lack; says up to where the rows are committed.
/// Tells `on` the end of each frame and the settlements taken in.
pub(crate) fn replay(
    view: &mut View,
    dir: &Path,
    found: &Found,
    mark: Option<Mark>,
    on: &mut dyn FnMut(Position, u64),
) -> Result<u64, Error> {
    let first = Start::first(&found.segments);
    let rows_at = mark.map_or(first.position, |mark| mark.position);
    let mut rows_lsn = mark.map_or(0, |mark| mark.lsn);
    let mut start = if rows_at < view.position {
        Start {
            position: rows_at,
            lsn: Some(rows_lsn + 1),
        }
    } else {
        Start {
            position: view.position,
            lsn: Some(view.state.lsn + 1),
        }
    };
    if start.lsn == Some(1) {
        start = first;
    }
    let (mut since, mut settlements) = (0, 0);
    let mut known = Known::default();
    walk::walk(dir, &found.segments, start, |number, frame| {
        let durable = walk::decode(number, frame, frame.header.first_lsn > view.state.lsn)?;
        let taken = replay_frame(view, &durable, rows_lsn, &mut known)?;
        (since, settlements) = (since + taken, settlements + taken);
        on(durable.position, settlements);
        if since >= REBUILD_STEP {
            (rows_lsn, since) = (commit_rows(view, &durable)?, 0);
            tracing::info!(rows_lsn, "making the view again");
        }
        Ok(())
    })?;
    Ok(rows_lsn)
}

fn replay_frame(
    view: &mut View,
    durable: &Durable,
    rows_lsn: u64,
    known: &mut Known,
) -> Result<u64, Error> {
    let mut settlements = 0;
    for (item, lsn) in durable.items.iter().zip(durable.first_lsn..) {
        let fault = |what| Error::Corrupt {
            fault: Fault {
                segment: durable.position.segment,
                offset: item.offset.into(),
                lsn,
                seq: 0,
                what,
            },
        };
        let mut located = None;
        if lsn > view.state.lsn {
            located = view.replay_item(lsn, item, known).map_err(fault)?;
            view.position = durable.position;
        }
        if lsn > rows_lsn {
            view.unwritten.add(item.record.at());
        }
        let counts = match &item.record {
            Record::Settled(_) => true,
            Record::Entered(entry) => !matches!(entry.body, Body::Acted(_)),
            Record::Hold(_) | Record::Release(_) => false,
        };
        if counts && lsn > rows_lsn {
            let tenant = located.map(|located| located.tenant);
            view.add_to_rows(lsn, &item.record, tenant);
            settlements += 1;
        }
    }
    Ok(settlements)
}

/// Writes the rows made so far; returns up to where.
fn commit_rows(view: &mut View, durable: &Durable) -> Result<u64, Error> {
    let count = u64::try_from(durable.items.len()).unwrap_or(0);
    let lsn = durable.first_lsn + count - 1;
    write_rows(
        view,
        Mark {
            ledger: view.ledger,
            lsn,
            position: durable.position,
        },
    )?;
    Ok(lsn)
}

/// Writes the dirty rows and the head mark.
pub(crate) fn write_rows(view: &mut View, mark: Mark) -> Result<(), Error> {
    let frozen = view.rows.freeze();
    let rows = frozen
        .iter()
        .map(|(key, value)| (key.as_ref(), value.as_slice()));
    view.rows.store().commit(rows, &commit::encode(&mark))?;
    view.rows.committed();
    view.unwritten = Unwritten::default();
    Ok(())
}
