//! Bringing near what coming records will change.
//!
//! Counters lie all over a memory that no processor's cache holds, and one record after the other
//! waits for its own. Who knows some records ahead lets the processor wait for all of theirs at
//! once: a word of each cache line is read, and nothing is done with it.

use std::hint::black_box;
use std::sync::Arc;

use super::known::Sought;
use super::{Known, Located, Places, State};
use crate::id::Id;
use crate::journal::frame;
use crate::record::{self, Glance, OpenHold};

/// Records that are brought near at once.
pub(crate) const AHEAD: usize = 32;

/// A record, or a command: where it is counted, and what it is.
pub(crate) type Near<'a> = (Located, Kind<'a>);

/// What is near of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind<'a> {
    /// A hold through a key.
    Hold(&'a [u8]),
    /// A settlement of a hold.
    Settled(Id),
}

impl<'a> Kind<'a> {
    fn key(self) -> Option<&'a [u8]> {
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
    /// `also` what else belongs to them. Says where the record is counted, if that is known.
    pub(crate) fn next(
        &mut self,
        state: &State,
        known: &Known,
        also: impl Fn(&[Option<Near<'a>>]),
    ) -> Option<Located> {
        if self.come == AHEAD {
            self.come = 0;
            let mut glances: [Option<(Glance<'a>, Option<Sought<'a>>)>; AHEAD] = [None; AHEAD];
            for glance in &mut glances {
                let record = self.records.next().unwrap_or_default();
                *glance = record::glance(record).map(|glance| match glance {
                    Glance::Hold(names, _) => (glance, Some(known.seek(names))),
                    Glance::Settled(_) => (glance, None),
                });
            }
            let sought = glances.iter().flatten().filter_map(|(_, sought)| *sought);
            black_box(sought.fold(0, |words, sought| words ^ known.near(sought.hash)));
            for (near, glance) in self.near.iter_mut().zip(glances) {
                *near = glance.and_then(|(glance, sought)| match glance {
                    Glance::Hold(_, key) => Some((known.found(sought?)?, Kind::Hold(key))),
                    Glance::Settled(hold) => Some((state.located(&hold)?, Kind::Settled(hold))),
                });
            }
            state.bring_near(&self.near);
            also(&self.near);
        }
        let near = self.near.get(self.come).copied().flatten();
        self.come += 1;
        near.map(|(located, _)| located)
    }
}

impl State {
    /// Reads a word of each cache line that these need.
    ///
    /// In rounds, each of which finds what it goes out from near already: no round waits for one
    /// record before it turns to the next.
    pub(crate) fn bring_near(&self, near: &[Option<Near<'_>>]) {
        let all = || near.iter().flatten().copied();
        let tenants = || all().filter_map(|(at, kind)| Some((self.placed(at.tenant)?, at, kind)));
        let mut words = 0;
        for (tenant, _, kind) in tenants() {
            words ^= kind.settled(self).map_or(0, |hold| near_hold(hold));
            words ^= tenant.near();
        }
        for (tenant, located, kind) in tenants() {
            words ^= tenant.near_counters(located.scopes, kind.key().is_some());
        }
        for (tenant, located, kind) in tenants() {
            words ^= tenant.near_rest(located.scopes, kind.key());
        }
        black_box(words);
    }

    /// The same for runs of one tenant, counted at these places, and the keys of holds.
    pub(crate) fn bring_tenant_near<'a>(
        &self,
        tenant: u32,
        runs: impl Iterator<Item = (Places, Option<&'a [u8]>)> + Clone,
    ) {
        let Some(tenant) = self.placed(tenant) else {
            return;
        };
        let counters = runs.clone();
        let counters = counters.map(|(places, key)| tenant.near_counters(places, key.is_some()));
        let words = counters.fold(tenant.near(), |words, word| words ^ word);
        let rest = runs.map(|(places, key)| tenant.near_rest(places, key));
        black_box(rest.fold(words, |words, word| words ^ word));
    }

    /// The holds that are settled among these, with the places of their tenants.
    pub(crate) fn settled_near<'a>(
        &'a self,
        near: &'a [Option<Near<'_>>],
    ) -> impl Iterator<Item = (u32, &'a OpenHold)> {
        let hold = |(located, kind): &Near<'_>| Some((located.tenant, &**kind.settled(self)?));
        near.iter().flatten().filter_map(hold)
    }
}

/// A word of each cache line of a hold that its settlement needs.
fn near_hold(hold: &OpenHold) -> u64 {
    let lines = hold.bytes().chunks(64).filter_map(<[u8]>::first);
    hold.quantities.cpu_us
        ^ hold.rate_card
        ^ u64::from(hold.id.0[0])
        ^ u64::from(hold.idempotency.is_some())
        ^ lines.fold(0, |all, byte| all ^ u64::from(*byte))
}
