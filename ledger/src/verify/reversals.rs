//! Whether what was reversed is what was settled: looked up once the whole journal has been read,
//! in those segments only that have such settlements.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::codec;
use crate::entry::{Body, Entry, Settled};
use crate::error::{Error, Fault};
use crate::journal::{Position, segment};
use crate::walk::{self, Segments, Start};

/// A settlement as a reversal has it, and where the reversal is.
struct Expected {
    digest: [u8; 32],
    reversal: Fault,
}

/// The reversals of a journal.
#[derive(Default)]
pub(super) struct Reversals {
    /// By the number of the settlement's entry.
    expected: BTreeMap<u64, Expected>,
    /// The number of the first entry of each segment, or of the next one.
    firsts: Vec<(u32, u64)>,
}

fn digest(settled: &Settled) -> [u8; 32] {
    let mut bytes = Vec::new();
    codec::append(&mut bytes, settled);
    Sha256::digest(&bytes).into()
}

impl Reversals {
    /// Notes that a frame of `segment` begins, whose first entry would have the number `next`.
    pub(super) fn frame(&mut self, segment: u32, next: u64) {
        if self.firsts.last().is_none_or(|(last, _)| *last != segment) {
            self.firsts.push((segment, next));
        }
    }

    /// Notes what an entry reverses, if it does; `place` makes the entry's own place.
    pub(super) fn entry(&mut self, entry: &Entry, place: impl FnOnce() -> Fault) {
        let Body::Adjusted(adjusted) = &entry.body else {
            return;
        };
        let what = &adjusted.what;
        if let (Some(seq), Some(settled)) = (what.reverses(), what.reversed()) {
            let digest = digest(settled);
            let reversal = place();
            self.expected.insert(seq, Expected { digest, reversal });
        }
    }

    /// Compares every reversal with the settlement in the journal.
    pub(super) fn check(mut self, dir: &Path, segments: &Segments) -> Result<(), Error> {
        for (place, (number, first)) in self.firsts.iter().enumerate() {
            let next = self
                .firsts
                .get(place + 1)
                .map_or(u64::MAX, |(_, next)| *next);
            if self.expected.range(*first..next).next().is_some() {
                settled_in(dir, segments, *number, &mut self.expected)?;
            }
        }
        match self.expected.into_iter().next() {
            None => Ok(()),
            Some((entry, Expected { reversal, .. })) => {
                let what = format!("entry {entry}, which it reverses, is not such a settlement");
                let fault = Fault { what, ..reversal };
                Err(Error::Corrupt { fault })
            }
        }
    }
}

/// Removes what is expected and found in one segment.
fn settled_in(
    dir: &Path,
    segments: &Segments,
    number: u32,
    expected: &mut BTreeMap<u64, Expected>,
) -> Result<(), Error> {
    let headers = segments.headers.iter();
    let only = Segments {
        headers: headers
            .filter(|one| one.number == number)
            .copied()
            .collect(),
        blank: None,
        bytes: 0,
    };
    let start = Start {
        position: Position {
            segment: number,
            offset: segment::HEADER,
        },
        lsn: None,
    };
    walk::walk(dir, &only, start, |number, frame| {
        let first = frame.header.next_seq;
        let most = first.saturating_add(frame.header.records.into());
        if expected.range(first..most).next().is_none() {
            return Ok(());
        }
        walk::entries(number, frame, |entry| {
            let Body::Settled(settled) = &entry.body else {
                return;
            };
            let is = |one: &Expected| one.digest == digest(settled);
            if expected.get(&entry.seq).is_some_and(is) {
                expected.remove(&entry.seq);
            }
        })
    })?;
    Ok(())
}
