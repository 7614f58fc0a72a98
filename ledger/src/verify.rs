//! The audit of a journal, and the rebuilding of everything that is made from it.

mod audit;
mod checks;
mod locate;
mod order;
mod reversals;
mod tenants;
mod window;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use self::audit::Audit;
use crate::error::{Error, Fault, OpenError, VerifyError};
use crate::file;
use crate::index::Index;
use crate::journal::reader::Rest;
use crate::journal::{Position, segment};
use crate::recover::{self, Replay};
use crate::state::Bounds;
use crate::tree::Tree;
use crate::view::rows::Rows;
use crate::view::store::Store;
use crate::view::{CHECKPOINT, Checkpoint, Mark, View, checkpoint_path};
use crate::walk::{self, Segments, Start};

/// The database's cache while a view is made.
const CACHE_BYTES: u64 = 64 << 20;
/// Settlements whose rows a rebuild makes while those of as many before are written.
const STEP: u64 = 100_000;
/// Progress is told once for so many bytes.
const TELL_BYTES: u64 = 1 << 20;
/// A rebuilt checkpoint keeps retry keys of a week; the ledger looks only at those it wants.
const KEYS_KEPT_US: i64 = 7 * 86_400 * 1_000_000;

/// How far a long operation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Bytes of the journal done.
    pub bytes_done: u64,
    /// Bytes of the journal in all.
    pub bytes_total: u64,
    /// Entries seen.
    pub entries: u64,
}

/// What a verification has established.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// Commands.
    pub commands: u64,
    /// Entries.
    pub entries: u64,
    /// RFC 6962 root over the entries.
    pub root: [u8; 32],
    /// Holds that are neither settled nor released.
    pub holds_open: u64,
    /// Bytes of an unacknowledged frame behind the last good one, left by a crash; the next open
    /// drops them.
    pub torn_bytes: u64,
    /// Sizes and roots of the trees that were asked for, ascending; those beyond `entries` are left
    /// out.
    pub roots: Vec<(u64, [u8; 32])>,
}

/// What a rebuild has made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rebuilt {
    /// Entries read.
    pub entries: u64,
    /// Rows of the view written.
    pub rows: u64,
    /// Sidecar indexes written.
    pub indexes: u64,
}

/// Tells progress, but not too often.
struct Teller<'a> {
    on: &'a mut dyn FnMut(Progress),
    segments: &'a Segments,
    told: u64,
}

impl Teller<'_> {
    fn tell(&mut self, position: Position, entries: u64, always: bool) {
        let before = self
            .segments
            .headers
            .iter()
            .filter(|h| h.number < position.segment);
        let bytes_done = before.map(|header| header.bytes).sum::<u64>() + position.offset;
        if always || bytes_done >= self.told + TELL_BYTES {
            self.told = bytes_done;
            let bytes_total = self.segments.bytes;
            (self.on)(Progress {
                bytes_done,
                bytes_total,
                entries,
            });
        }
    }
}

/// Checks a stopped ledger's journal, or a copy of it, by itself: checksums, numbering, hashes,
/// balances and limits.
///
/// The directory is the ledger's, the one with `journal/` in it. A frame that a crash has cut off
/// is no fault, as nobody was told of it; it is reported in `torn_bytes`.
pub fn verify(dir: &Path, on: &mut dyn FnMut(Progress)) -> Result<Verified, VerifyError> {
    verify_at(dir, &[], on)
}

/// As [`verify`], and tells the roots of the trees over the first entries, as many as `sizes` say:
/// what checkpoints that were signed then must have.
pub fn verify_at(
    dir: &Path,
    sizes: &[u64],
    on: &mut dyn FnMut(Progress),
) -> Result<Verified, VerifyError> {
    let segments = walk::segments(dir)?;
    let mut teller = Teller {
        on,
        segments: &segments,
        told: 0,
    };
    let mut audit = Audit::new(file::read(&checkpoint_path(dir), CHECKPOINT)?, sizes)?;
    let start = Start {
        lsn: Some(1),
        ..Start::first(&segments)
    };
    let walked = walk::walk(dir, &segments, start, |number, frame| {
        audit.take(number, frame)?;
        teller.tell(walk::end(number, frame), audit.entries(), false);
        Ok(())
    });
    // What the audit has found comes before whatever else has ended the walk.
    audit.wait()?;
    let finish = walked.map_err(|error| match error.into() {
        VerifyError::Fault(fault) => {
            VerifyError::Fault(locate::damage(dir, fault, audit.entries() + 1))
        }
        other => other,
    })?;
    let torn_bytes = match finish.rest {
        Rest::Zeros | Rest::FramesFollow { .. } => 0,
        Rest::Torn { bytes } => bytes,
        Rest::Damaged { .. } => {
            let (segment, offset) = (finish.rest_in.segment, finish.rest_in.offset);
            let what = "the last frame is damaged, or stray bytes lie behind it".to_owned();
            let (lsn, seq) = (finish.lsn + 1, audit.entries() + 1);
            let fault = Fault {
                segment,
                offset,
                lsn,
                seq,
                what,
            };
            return Err(VerifyError::Fault(locate::damage(dir, fault, seq)));
        }
    };
    teller.tell(finish.position, audit.entries(), true);
    Ok(Verified {
        torn_bytes,
        ..audit.finish(dir, &segments, finish.position)?
    })
}

/// Makes view, sidecar indexes and checkpoint anew from the journal of a stopped ledger. The
/// journal itself is not touched. If it is interrupted, the next open makes them.
pub fn rebuild(dir: &Path, on: &mut dyn FnMut(Progress)) -> Result<Rebuilt, Error> {
    rebuild_by(dir, STEP, on)
}

/// The same, of so many settlements at once.
fn rebuild_by(dir: &Path, step: u64, on: &mut dyn FnMut(Progress)) -> Result<Rebuilt, Error> {
    let _lock = recover::lock(dir).map_err(|error| match error {
        OpenError::Ledger(error) => error,
        OpenError::InUse { .. } | OpenError::Options { .. } => {
            let source = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
            Error::File {
                what: "lock",
                path: dir.to_owned(),
                source,
            }
        }
    })?;
    wipe(dir)?;
    Tree::remove(dir)?;
    let segments = walk::segments(dir)?;
    let bounds = Bounds {
        idempotency_ttl_us: KEYS_KEPT_US,
    };
    let store = Arc::new(Store::open(&recover::view_path(dir), CACHE_BYTES)?);
    let base = recover::beginning(&segments);
    let rows = Rows::anew(Arc::clone(&store));
    let tail = Index::new(base.position.segment, 1);
    let mut view = View::new(base, rows, tail, bounds);
    let mut teller = Teller {
        on,
        segments: &segments,
        told: 0,
    };
    let replay = Replay {
        dir,
        segments: &segments,
        mark: None,
        step,
        anew: true,
    };
    replay.run(&mut view, &mut |position, settlements| {
        teller.tell(position, settlements, false);
    })?;
    teller.tell(view.position, view.state.seq, true);
    let mark = Mark {
        ledger: view.ledger,
        lsn: view.state.lsn,
        position: view.position,
    };
    recover::write_rows(&mut view, mark)?;
    let indexes = u64::try_from(view.sealed.len()).unwrap_or(u64::MAX);
    let checkpoint = Checkpoint {
        ledger: view.ledger,
        position: view.position,
        frontier: view.frontier,
        state: view.state,
    };
    file::replace(&checkpoint_path(dir), CHECKPOINT, &checkpoint)?;
    Ok(Rebuilt {
        entries: checkpoint.state.seq,
        rows: u64::try_from(store.rows()).unwrap_or(u64::MAX),
        indexes,
    })
}

/// Removes everything that is made from the journal.
fn wipe(dir: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File {
            what: "remove",
            path,
            source,
        }
    };
    let view = recover::view_path(dir);
    if view.exists() {
        fs::remove_dir_all(&view).map_err(failed(&view))?;
    }
    let mut files = vec![checkpoint_path(dir), crate::commit::stale_path(dir)];
    files.extend(
        segment::list(dir)?
            .into_iter()
            .map(|number| segment::index_path(dir, number)),
    );
    for file in files.iter().filter(|file| file.exists()) {
        fs::remove_file(file).map_err(failed(file))?;
    }
    Ok(())
}

#[cfg(test)]
mod forged;
#[cfg(test)]
mod tests;
