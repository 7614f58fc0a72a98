//! The view thread: takes in batches once they are durable, and never waits for the disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};

use crate::shared::Shared;
use crate::view::{Durable, Spent};

/// Runs until the writer has ended. Taken in, batches go back through `spent`.
pub(crate) fn run(shared: &Arc<Shared>, batches: &Receiver<Durable>, spent: &SyncSender<Spent>) {
    while let Ok(mut durable) = batches.recv() {
        let first = durable.items.first().map(|item| item.record.at());
        shared.absorbing(first);
        // Before anything is locked.
        durable.hash();
        let absorbed = shared.view_mut().absorb(&durable);
        if let Err(fault) = absorbed {
            tracing::error!(%fault, "the view does not follow the journal; recording ends");
            shared.writable.store(false, Ordering::Release);
            return;
        }
        shared.absorbed(durable.last_lsn());
        // Where enough wait already, or the writer has ended, this one is dropped.
        drop(spent.try_send(durable.spend()));
    }
}
