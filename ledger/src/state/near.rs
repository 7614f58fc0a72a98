//! Bringing near what coming records will change.
//!
//! Counters lie all over a memory that no processor's cache holds, and one record after the other
//! waits for its own. Who knows some records ahead lets the processor wait for all of theirs at
//! once: a word of each cache line is read, and nothing is done with it.

use std::hint::black_box;

use super::{Known, Located, State};
use crate::journal::frame;
use crate::record::{self, Glance};

/// Records that are brought near at once.
const AHEAD: usize = 16;

/// The records of a frame that are still to come.
#[derive(Debug)]
pub(crate) struct Coming<I> {
    records: I,
    /// How many of them are near.
    near: usize,
}

/// The records of a frame with this payload.
pub(crate) fn coming(payload: &[u8]) -> Coming<impl Iterator<Item = &[u8]>> {
    let records = frame::records(payload);
    Coming {
        records: records.map_while(|found| found.map(|(_, bytes)| bytes)),
        near: 0,
    }
}

impl<'a, I: Iterator<Item = &'a [u8]>> Coming<I> {
    /// To be called before each record of the frame: every few, the next ones are brought near.
    pub(crate) fn next(&mut self, state: &State, known: &Known) {
        if let Some(near) = self.near.checked_sub(1) {
            self.near = near;
            return;
        }
        self.near = AHEAD - 1;
        let coming = self.records.by_ref().take(AHEAD);
        black_box(coming.fold(0, |sum, bytes| sum ^ state.near(bytes, known)));
    }
}

impl State {
    fn near(&self, record: &[u8], known: &Known) -> u64 {
        let (located, key) = match record::glance(record) {
            Some(Glance::Hold(names, key)) => (known.find(names), Some(key)),
            Some(Glance::Settled(hold)) => (self.located(&hold), None),
            None => (None, None),
        };
        let tenant = located.and_then(|located: Located| {
            let tenant = self.placed(located.tenant)?;
            Some(tenant.near(located.scopes, key))
        });
        tenant.unwrap_or_default()
    }
}
