//! The index of a segment's entries: where each lies, when it was recorded, whose it is, which
//! execution it settled, and in which instant's windows that counts.
//!
//! The current segment's index is in memory; a sealed segment's is an immutable file beside it,
//! `NNNNNNNN.idx`: `magic "FBXIDX02" | crc u32 | postcard`. It can always be made again.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::entry::EntryKind;
use crate::error::Error;
use crate::file;
use crate::hash::Map;
use crate::id::Id;
use crate::record::{Head, OpenHold, Record};

const MAGIC: [u8; 8] = *b"FBXIDX02";

/// Executions that are sorted together while their segment grows: looking for one takes a short
/// search in each run, and adding one less than a map would.
const RUN: usize = 1_024;
/// No tenant.
const NOBODY: u32 = u32::MAX;

/// The entries of one segment, as columns in the order of their numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    /// The segment's number.
    pub(crate) segment: u32,
    /// Number of the first entry; of the next one while there is none.
    pub(crate) first_seq: u64,
    offsets: Vec<u32>,
    ats: Vec<Micros>,
    /// How long before its entry a settlement's hold was opened; zero for other entries.
    ages: Vec<u64>,
    kinds: Vec<EntryKind>,
    tenants: Vec<u32>,
    names: Vec<String>,
    /// Settled executions and the place of their entries; sorted once sealed, before that in runs.
    executions: Vec<(Id, u32)>,
    #[serde(skip)]
    names_by: Map<String, u32>,
    /// The numbers of names by the place of their tenant, where it was told.
    #[serde(skip)]
    by_place: Vec<u32>,
    /// How many executions lie in sorted runs; `None` once all of them are sorted.
    #[serde(skip)]
    in_runs: Option<usize>,
}

/// What is kept in memory of a sealed index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sealed {
    /// The segment's number.
    pub(crate) segment: u32,
    /// Number of its first entry.
    pub(crate) first_seq: u64,
    /// How many entries it has.
    pub(crate) entries: u64,
    /// The least and the greatest execution settled in it.
    pub(crate) executions: Option<(Id, Id)>,
    /// The first and the last instant whose windows anything in it counts in.
    pub(crate) opened: Option<(Micros, Micros)>,
}

/// A settlement or an adjustment as the index knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Charged {
    /// Its number.
    pub(crate) seq: u64,
    /// Where it lies in the segment.
    pub(crate) offset: u32,
    /// The instant whose windows it counts in: when its hold was opened, or its own.
    pub(crate) opened_at: Micros,
}

/// Which settlements and adjustments are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wanted<'a> {
    /// Whose.
    pub(crate) tenant: Option<&'a str>,
    /// After this number.
    pub(crate) after: u64,
    /// Up to this number.
    pub(crate) until: u64,
    /// Their holds opened then or later; an adjustment counts in its own instant.
    pub(crate) from: Micros,
    /// Their holds opened before.
    pub(crate) to: Micros,
}

/// What an entry must be to be listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Filter<'a> {
    /// Whose.
    pub(crate) tenant: Option<&'a str>,
    /// Of what kind.
    pub(crate) kind: Option<EntryKind>,
    /// Recorded then or later.
    pub(crate) from: Micros,
    /// Recorded before.
    pub(crate) to: Micros,
}

impl Index {
    /// The index of a segment whose first entry will be `first_seq`.
    pub(crate) fn new(segment: u32, first_seq: u64) -> Self {
        Self {
            segment,
            first_seq,
            in_runs: Some(0),
            ..Self::default()
        }
    }

    /// Takes in the next entry, which lies at `offset`; other records are left out. `tenant` is
    /// the place of a settlement's tenant, where it is known.
    pub(crate) fn push(&mut self, record: &Record, tenant: Option<u32>, offset: u32) {
        match record {
            Record::Hold(_) | Record::Release(_) => {}
            Record::Settled(posting) => {
                let hold = &posting.hold;
                let tenant = self.tenant(tenant, hold);
                let head = Head {
                    at: posting.at,
                    kind: EntryKind::Settled,
                    tenant: None,
                    settles: Some((hold.execution, hold.opened_at)),
                };
                self.add(&head, tenant, offset);
            }
            Record::Entered(entry) => {
                let head = Head {
                    at: entry.at,
                    kind: entry.kind(),
                    tenant: entry.tenant(),
                    settles: None,
                };
                self.push_head(&head, offset);
            }
        }
    }

    /// The same of an entry of which only the head was read.
    pub(crate) fn push_head(&mut self, head: &Head<'_>, offset: u32) {
        let tenant = head.tenant.map_or(NOBODY, |name| self.name(name));
        self.add(head, tenant, offset);
    }

    /// Adds an entry of the tenant whose name has that number.
    fn add(&mut self, head: &Head<'_>, tenant: u32, offset: u32) {
        let mut age = 0;
        if let Some((execution, opened_at)) = head.settles {
            age = u64::try_from(head.at.saturating_sub(opened_at)).unwrap_or(0);
            let place = u32::try_from(self.offsets.len()).unwrap_or(u32::MAX);
            self.executions.push((execution, place));
            self.sort_run();
        }
        self.offsets.push(offset);
        self.ats.push(head.at);
        self.ages.push(age);
        self.kinds.push(head.kind);
        self.tenants.push(tenant);
    }

    /// Sorts the last run, once it is whole.
    fn sort_run(&mut self) {
        let Some(in_runs) = &mut self.in_runs else {
            return;
        };
        let last = self.executions.get_mut(*in_runs..).unwrap_or_default();
        if last.len() >= RUN {
            last.sort_unstable();
            *in_runs += last.len();
        }
    }

    fn tenant(&mut self, place: Option<u32>, hold: &OpenHold) -> u32 {
        let place = place.and_then(|place| usize::try_from(place).ok());
        let known = place.and_then(|place| self.by_place.get(place).copied());
        if let Some(number) = known.filter(|number| *number != NOBODY) {
            return number;
        }
        let whose = hold.whose();
        let number = whose.map_or(NOBODY, |whose| self.name(whose.tenant));
        if let Some(place) = place {
            if self.by_place.len() <= place {
                self.by_place.resize(place + 1, NOBODY);
            }
            self.by_place[place] = number;
        }
        number
    }

    fn name(&mut self, name: &str) -> u32 {
        if let Some(number) = self.names_by.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(NOBODY);
        self.names.push(name.to_owned());
        self.names_by.insert(name.to_owned(), number);
        number
    }

    /// How many entries there are.
    pub(crate) fn entries(&self) -> u64 {
        u64::try_from(self.offsets.len()).unwrap_or(u64::MAX)
    }

    /// Where the settlement of an execution lies.
    pub(crate) fn settlement(&self, execution: &Id) -> Option<u32> {
        let all = &self.executions;
        let within = |run: &[(Id, u32)]| {
            let end = run.partition_point(|pair| pair.0 <= *execution);
            let last = run.get(end.checked_sub(1)?);
            last.filter(|pair| pair.0 == *execution).map(|pair| pair.1)
        };
        let place = match self.in_runs {
            None => within(all)?,
            Some(in_runs) => {
                let (runs, rest) = all.split_at_checked(in_runs)?;
                let last = rest.iter().rfind(|pair| pair.0 == *execution);
                let in_rest = last.map(|pair| pair.1);
                in_rest.or_else(|| runs.rchunks(RUN).find_map(within))?
            }
        };
        self.offsets.get(usize::try_from(place).ok()?).copied()
    }

    /// Numbers and offsets of the entries after `after` that pass the filter, at most `limit`.
    pub(crate) fn select(&self, after: u64, filter: &Filter<'_>, limit: usize) -> Vec<(u64, u32)> {
        let Ok(tenant) = self.numbered(filter.tenant) else {
            return Vec::new();
        };
        let skip =
            usize::try_from((after + 1).saturating_sub(self.first_seq)).unwrap_or(usize::MAX);
        let start = self.ats.partition_point(|at| *at < filter.from).max(skip);
        let end = self.ats.partition_point(|at| *at < filter.to);
        let passes = |place: &usize| {
            let kind = filter.kind.is_none_or(|kind| kind == self.kinds[*place]);
            kind && tenant.is_none_or(|tenant| self.tenants[*place] == tenant)
        };
        let seq = |place: usize| self.first_seq + u64::try_from(place).unwrap_or(u64::MAX);
        let places = (start..end.max(start)).filter(passes).take(limit);
        places
            .map(|place| (seq(place), self.offsets[place]))
            .collect()
    }

    /// The number of a tenant's name; an error if it has no entry here.
    fn numbered(&self, tenant: Option<&str>) -> Result<Option<u32>, ()> {
        let Some(name) = tenant else { return Ok(None) };
        let place = self.names.iter().position(|known| known == name);
        match place.and_then(|place| u32::try_from(place).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(()),
        }
    }

    /// What is wanted, in the order of their numbers.
    pub(crate) fn charged(&self, wanted: &Wanted<'_>) -> impl Iterator<Item = Charged> {
        let (tenant, nobody) = match self.numbered(wanted.tenant) {
            Ok(tenant) => (tenant, false),
            Err(()) => (None, true),
        };
        let place = |seq: u64| {
            let place = seq.saturating_add(1).saturating_sub(self.first_seq);
            usize::try_from(place).unwrap_or(usize::MAX)
        };
        // Nothing is settled before it was opened.
        let early = self.ats.partition_point(|at| *at < wanted.from);
        let start = early.max(place(wanted.after));
        let end = if nobody { 0 } else { place(wanted.until) };
        let (from, to) = (wanted.from, wanted.to);
        let places = start..end.min(self.offsets.len()).max(start);
        places.filter_map(move |place| {
            let theirs = tenant.is_none_or(|tenant| self.tenants[place] == tenant);
            let age = i64::try_from(self.ages[place]).unwrap_or(i64::MAX);
            let opened_at = self.ats[place].saturating_sub(age);
            let inside = from <= opened_at && opened_at < to;
            let counts = self.kinds[place] != EntryKind::Acted;
            let passes = theirs && inside && counts;
            passes.then(|| Charged {
                seq: self.first_seq + u64::try_from(place).unwrap_or(u64::MAX),
                offset: self.offsets[place],
                opened_at,
            })
        })
    }

    /// The first and the last instant whose windows anything here counts in.
    fn opened(&self) -> Option<(Micros, Micros)> {
        let all = Wanted {
            tenant: None,
            after: 0,
            until: u64::MAX,
            from: i64::MIN,
            to: i64::MAX,
        };
        let opened = || self.charged(&all).map(|charged| charged.opened_at);
        opened().min().zip(opened().max())
    }

    /// What is to be kept in memory once this is a file.
    pub(crate) fn sealed(&self) -> Sealed {
        let ids = || self.executions.iter().map(|pair| pair.0);
        Sealed {
            segment: self.segment,
            first_seq: self.first_seq,
            entries: self.entries(),
            executions: ids().min().zip(ids().max()),
            opened: self.opened(),
        }
    }

    /// Sorts what a file has sorted.
    pub(crate) fn seal(&mut self) {
        self.executions.sort_unstable();
        self.in_runs = None;
        self.names_by.clear();
        self.by_place.clear();
    }

    /// Writes a sealed index, durably.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        file::replace(path, MAGIC, self)
    }

    /// Reads a sealed index; `None` if there is no whole one.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Error> {
        file::read(path, MAGIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_settlement_of_an_execution_is_found_in_runs_and_sealed() {
        let id = |number: u32| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
            Id(id)
        };
        let mut index = Index::new(1, 1);
        let count = u32::try_from(RUN).unwrap() * 5 / 2;
        let numbers = || (0..count).map(|number| number % 2_000);
        for (number, offset) in numbers().zip(0..) {
            let head = Head {
                at: 0,
                kind: EntryKind::Settled,
                tenant: None,
                settles: Some((id(number), 0)),
            };
            index.push_head(&head, offset);
        }
        let last = |number| numbers().zip(0..).filter(|one| one.0 == number).last();
        for _ in 0..2 {
            for number in 0..2_000 {
                let wanted = last(number).map(|(_, offset)| offset);
                assert_eq!(index.settlement(&id(number)), wanted);
                assert_eq!(index.settlement(&id(number + 5_000)), None);
            }
            index.seal();
        }
        assert_eq!(Index::new(1, 1).settlement(&id(1)), None);
    }
}
