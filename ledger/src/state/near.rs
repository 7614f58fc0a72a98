//! Bringing near what coming records will change.
//!
//! Counters lie all over a memory that no processor's cache holds, and one record after the other
//! waits for its own. Who knows some records ahead lets the processor wait for all of theirs at
//! once: a word of each cache line is read, and nothing is done with it.

use std::hint::black_box;
use std::sync::Arc;

use super::{Known, Located, State, Tenant};
use crate::id::Id;
use crate::journal::frame;
use crate::record::{self, Glance, OpenHold};

/// Records that are brought near at once.
pub(crate) const AHEAD: usize = 16;

/// A record, or a command: where it is counted, and what it is.
pub(crate) type Near<'a> = (Located, Kind<'a>);

/// What is near of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind<'a> {
    /// A hold through a key.
    Hold(&'a str),
    /// A settlement of a hold.
    Settled(Id),
}

impl<'a> Kind<'a> {
    fn key(self) -> Option<&'a str> {
        match self {
            Self::Hold(key) => Some(key),
            Self::Settled(_) => None,
        }
    }

    fn settled(self, state: &State) -> Option<&Arc<OpenHold>> {
        match self {
            Self::Hold(_) => None,
            Self::Settled(id) => state.hold(&id),
        }
    }
}

/// The records of a frame that are still to come.
#[derive(Debug)]
pub(crate) struct Coming<'a, I> {
    records: I,
    /// The last ones that were brought near.
    near: [Option<Near<'a>>; AHEAD],
    /// How many of them have come.
    come: usize,
}

/// The records of a frame with this payload.
pub(crate) fn coming(payload: &[u8]) -> Coming<'_, impl Iterator<Item = &[u8]>> {
    let records = frame::records(payload);
    Coming {
        records: records.map_while(|found| found.map(|(_, bytes)| bytes)),
        near: [None; AHEAD],
        come: AHEAD,
    }
}

impl<'a, I: Iterator<Item = &'a [u8]>> Coming<'a, I> {
    /// To be called before each record of the frame: every few, the next ones are brought near, and
    /// with them what `also` reads of a tenant's place and the hold that is settled. Says where the
    /// record is counted, if that is known already.
    pub(crate) fn next(
        &mut self,
        state: &State,
        known: &Known,
        also: impl Fn(u32, Option<&OpenHold>) -> u64,
    ) -> Option<Located> {
        if self.come == AHEAD {
            self.come = 0;
            for near in &mut self.near {
                let record = self.records.next().unwrap_or_default();
                *near = state.locate_near(record, known);
            }
            state.bring_near(self.near.iter().flatten().copied(), also);
        }
        let near = self.near.get(self.come).copied().flatten();
        self.come += 1;
        near.map(|(located, _)| located)
    }
}

impl State {
    /// Reads a word of each cache line that these need, and what `also` reads of a tenant's place
    /// and the hold that is settled.
    ///
    /// In rounds, each of which finds what it goes out from near already: no round waits for one
    /// record before it turns to the next.
    pub(crate) fn bring_near<'a>(
        &self,
        near: impl Iterator<Item = Near<'a>> + Clone,
        also: impl Fn(u32, Option<&OpenHold>) -> u64,
    ) {
        let tenant = |located: Located| self.placed(located.tenant);
        let mut words = 0;
        for (located, kind) in near.clone() {
            words ^= also(located.tenant, kind.settled(self).map(AsRef::as_ref));
            words ^= tenant(located).map_or(0, Tenant::near);
        }
        for (located, kind) in near.clone() {
            let hold = kind.key().is_some();
            let counters = |tenant: &Tenant| tenant.near_counters(located.scopes, hold);
            words ^= tenant(located).map_or(0, counters);
        }
        for (located, kind) in near {
            let rest = |tenant: &Tenant| tenant.near_rest(located.scopes, kind.key());
            words ^= tenant(located).map_or(0, rest);
        }
        black_box(words);
    }

    fn locate_near<'a>(&self, record: &'a [u8], known: &Known) -> Option<Near<'a>> {
        match record::glance(record)? {
            Glance::Hold(names, key) => Some((known.find(names)?, Kind::Hold(key))),
            Glance::Settled(hold) => Some((self.located(&hold)?, Kind::Settled(hold))),
        }
    }
}
