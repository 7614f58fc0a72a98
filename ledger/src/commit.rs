//! The commit thread: every few seconds it writes the view's rows, the indexes of full segments and
//! the checkpoint. Absorbing goes on meanwhile.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Micros;
use crate::error::Error;
use crate::journal::segment;
use crate::shared::{Committed, Shared, Stop};
use crate::view::row::{self, Grain};
use crate::view::{Freeze, Mark, checkpoint_path};

/// Days removed in one cycle: a fraction of a second.
const SWEEP_MAX: usize = 20_000;

/// Cycles with changes after which a checkpoint is written even if few commands came.
const CHECKPOINT_CYCLES: u32 = 8;

/// The file that says that the view's rows must be made again.
pub(crate) fn stale_path(dir: &Path) -> PathBuf {
    dir.join("view.stale")
}

/// Runs until it is told to stop.
pub(crate) fn run(shared: &Arc<Shared>) {
    let interval = Duration::from_millis(shared.options.view_flush_ms);
    let mut cycles = 0;
    let mut swept = Micros::MIN;
    loop {
        let wanted = shared.wait_commit(interval);
        if wanted.stop == Some(Stop::Abandon) {
            return;
        }
        let last = wanted.stop.is_some();
        let checkpoint = last || checkpoint_is_due(shared, &wanted, cycles);
        match guarded_cycle(shared, checkpoint, &mut swept) {
            Ok(changed) => {
                cycles = if checkpoint {
                    0
                } else {
                    cycles + u32::from(changed)
                }
            }
            Err(error) => {
                tracing::error!(%error, cause = ?std::error::Error::source(&error),
                    "view and checkpoint could not be written");
                shared.set_committed(|committed| committed.failed = true);
            }
        }
        if last {
            return;
        }
    }
}

fn checkpoint_is_due(shared: &Shared, done: &Committed, cycles: u32) -> bool {
    let behind = shared.absorbed_lsn().saturating_sub(done.checkpoint_lsn);
    behind >= shared.options.tail_max / 4 || (behind > 0 && cycles + 1 >= CHECKPOINT_CYCLES)
}

/// A cycle whose panic, the database's way to tell of damage, is a failure like others: a commit
/// thread that was gone would leave the writer waiting for it.
fn guarded_cycle(shared: &Shared, checkpoint: bool, swept: &mut Micros) -> Result<bool, Error> {
    let guarded = catch_unwind(AssertUnwindSafe(|| {
        let changed = cycle(shared, checkpoint)?;
        sweep(shared, swept)?;
        Ok(changed)
    }));
    guarded.unwrap_or(Err(Error::Thread { thread: "commit" }))
}

/// Writes what has changed; says whether anything had.
fn cycle(shared: &Shared, checkpoint: bool) -> Result<bool, Error> {
    let done = *shared.committed();
    let upto = if checkpoint {
        done.view_lsn.min(done.checkpoint_lsn)
    } else {
        done.view_lsn
    };
    let view = shared.view();
    let nothing_new = view.state.lsn == upto && view.sealing.is_empty();
    let store = Arc::clone(view.rows.store());
    drop(view);
    if nothing_new && !done.failed {
        return Ok(false);
    }
    let freeze = shared
        .view_mut()
        .freeze(checkpoint, shared.options.detail_months);
    let dir = &shared.options.dir;
    write_indexes(shared, &freeze)?;
    match &freeze.rows {
        Some((frozen, mark)) => {
            if let Err(error) = store.commit(frozen.iter(), &encode(mark)) {
                shared.view_mut().rows.not_committed();
                return Err(error);
            }
            shared.view_mut().rows.committed();
        }
        None => mark_stale(dir)?,
    }
    if let Some(bytes) = &freeze.checkpoint {
        crate::file::replace_bytes(&checkpoint_path(dir), bytes)?;
    }
    shared.view_mut().unwritten.written();
    // Only now: what closed these months is in the mark, so that no replay adds to them.
    let detail_from = freeze.detail_from.filter(|_| freeze.rows.is_some());
    if let Some(at) = detail_from.filter(|at| *at > store.detail_from()) {
        store.set_detail_from(at)?;
    }
    shared.set_committed(|committed| {
        committed.view_lsn = freeze.lsn;
        committed.failed = false;
        if freeze.checkpoint.is_some() {
            committed.checkpoint_lsn = freeze.lsn;
        }
    });
    Ok(true)
}

/// Removes days that need not be kept, a bounded number each time; `swept` says up to where all of
/// them have been looked for.
fn sweep(shared: &Shared, swept: &mut Micros) -> Result<(), Error> {
    let view = shared.view();
    let store = Arc::clone(view.rows.store());
    let until = store.detail_from();
    if until <= *swept {
        return Ok(());
    }
    let tenants = view.state.tenant_names();
    drop(view);
    let mut left = SWEEP_MAX;
    for tenant in tenants {
        let key = |number| row::start(&tenant, Grain::Day, number);
        left -= store.remove(key(0), key(row::day_number(until)), left)?;
        if left == 0 {
            return Ok(());
        }
    }
    *swept = until;
    Ok(())
}

fn write_indexes(shared: &Shared, freeze: &Freeze) -> Result<(), Error> {
    for index in &freeze.indexes {
        index.write(&segment::index_path(&shared.options.dir, index.segment))?;
        shared.view_mut().index_written(index);
    }
    Ok(())
}

fn mark_stale(dir: &Path) -> Result<(), Error> {
    let path = stale_path(dir);
    let made = File::create(&path).and_then(|file| file.sync_all());
    made.map_err(|source| Error::File {
        what: "make",
        path,
        source,
    })
}

/// The bytes of a head mark.
pub(crate) fn encode(mark: &Mark) -> Vec<u8> {
    crate::file::encode(*b"FBXMARK2", mark)
}

/// Reads a head mark.
pub(crate) fn decode(bytes: &[u8]) -> Option<Mark> {
    crate::file::decode(bytes, *b"FBXMARK2")
}
