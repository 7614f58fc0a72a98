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
    /// Where the last ones that were brought near are counted, as far as that was known.
    located: [Option<Located>; AHEAD],
    /// How many of them have come.
    come: usize,
}

/// The records of a frame with this payload.
pub(crate) fn coming(payload: &[u8]) -> Coming<impl Iterator<Item = &[u8]>> {
    let records = frame::records(payload);
    Coming {
        records: records.map_while(|found| found.map(|(_, bytes)| bytes)),
        located: [None; AHEAD],
        come: AHEAD,
    }
}

impl<'a, I: Iterator<Item = &'a [u8]>> Coming<I> {
    /// To be called before each record of the frame: every few, the next ones are brought near.
    /// Says where the record is counted, if that is known already.
    pub(crate) fn next(&mut self, state: &State, known: &Known) -> Option<Located> {
        if self.come == AHEAD {
            self.come = 0;
            let mut words = 0;
            for located in &mut self.located {
                let record = self.records.next().unwrap_or_default();
                let (found, word) = state.near(record, known);
                *located = found;
                words ^= word;
            }
            black_box(words);
        }
        let located = self.located.get(self.come).copied().flatten();
        self.come += 1;
        located
    }
}

impl State {
    fn near(&self, record: &[u8], known: &Known) -> (Option<Located>, u64) {
        let (located, key) = match record::glance(record) {
            Some(Glance::Hold(names, key)) => (known.find(names), Some(key)),
            Some(Glance::Settled(hold)) => (self.located(&hold), None),
            None => (None, None),
        };
        let tenant = located.and_then(|located: Located| {
            let tenant = self.placed(located.tenant)?;
            Some(tenant.near(located.scopes, key))
        });
        (located, tenant.unwrap_or_default())
    }
}
