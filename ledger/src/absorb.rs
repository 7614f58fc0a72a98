//! The view thread: takes in batches once they are durable, and never waits for the disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use crate::merkle;
use crate::record;
use crate::shared::Shared;
use crate::view::{Durable, Item};
use crate::writer::Batch;

/// Runs until the writer has ended.
pub(crate) fn run(shared: &Arc<Shared>, batches: &Receiver<Batch>) {
    while let Ok(batch) = batches.recv() {
        shared.absorbing(batch.records.first().map(|(record, _)| record.at()));
        let durable = durable(batch);
        let absorbed = shared.view_mut().absorb(&durable);
        if let Err(fault) = absorbed {
            tracing::error!(%fault, "the view does not follow the journal; recording ends");
            shared.writable.store(false, Ordering::Release);
            return;
        }
        let count = u64::try_from(durable.items.len()).unwrap_or(0);
        shared.absorbed(durable.first_lsn + count - 1);
    }
}

/// Hashes the entries of a batch, before anything is locked.
fn durable(batch: Batch) -> Durable {
    let items = batch.records.into_iter().map(|(record, place)| {
        let offset = batch.start.offset + u64::try_from(place.start).unwrap_or(0);
        let bytes = batch.frame.get(place).unwrap_or_default();
        let leaf = record::leaf(bytes).map(merkle::leaf);
        Item {
            record,
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            leaf,
        }
    });
    Durable {
        position: batch.end,
        first_lsn: batch.first_lsn,
        items: items.collect(),
    }
}
