//! The rows that are warm in memory, over those in the database.
//!
//! ```text
//! absent -- settlement: loaded or made --> dirty -- frozen --> clean -- untouched --> absent
//!                                            ^------ settlement, or the commit failed ---'
//! ```
//! A warm row always wins over the database's: it has everything that one has, and more.

use std::sync::Arc;

use super::row::{self, Grain, Key, Row, Sums, Whose};
use super::store::Store;
use crate::clock::Micros;
use crate::entry::{Adjusted, Settled};
use crate::error::Error;
use crate::hash::Map;

#[derive(Debug)]
struct Warm {
    row: Row,
    dirty: bool,
    /// The commit cycle that last changed it.
    cycle: u64,
}

/// Why a settlement could not be added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    /// The database failed.
    #[error("cannot read a row")]
    Read(#[source] Error),
    /// The database has nonsense.
    #[error("a row cannot be decoded")]
    Decode,
}

/// The view's rows.
#[derive(Debug)]
pub(crate) struct Rows {
    store: Arc<Store>,
    /// By tenant, as that is how rows are asked for.
    warm: Map<String, Map<Key, Warm>>,
    cycle: u64,
    key: Vec<u8>,
}

/// Rows to be written, sorted by key.
pub(crate) type Frozen = Vec<(Key, Vec<u8>)>;

impl Rows {
    /// No warm rows over a database.
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            warm: Map::default(),
            cycle: 0,
            key: Vec::new(),
        }
    }

    /// The database.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Adds the settlement of command `lsn`, unless a row includes it already.
    pub(crate) fn settle(&mut self, lsn: u64, settled: &Settled) -> Result<(), RowError> {
        let (whose, at) = (Whose::settled(settled), settled.hold.opened_at);
        self.add(lsn, whose, at, |sums| sums.settle(settled))
    }

    /// Adds the adjustment of command `lsn`, recorded at `at`, unless a row includes it already.
    pub(crate) fn adjust(
        &mut self,
        lsn: u64,
        at: Micros,
        adjusted: &Adjusted,
    ) -> Result<(), RowError> {
        let whose = Whose::adjusted(adjusted);
        self.add(lsn, whose, at, |sums| sums.adjust(adjusted.amount))
    }

    fn add(
        &mut self,
        lsn: u64,
        whose: Whose<'_>,
        at: Micros,
        add: impl Fn(&mut Sums),
    ) -> Result<(), RowError> {
        for (grain, slot) in [(Grain::Day, row::slot_number(at)), (Grain::Month, 0)] {
            row::put(&mut self.key, whose, grain, row::number(grain, at));
            self.add_to_row(lsn, whose.tenant, slot, &add)?;
        }
        Ok(())
    }

    /// Adds to a slot of the row whose key stands in `key`.
    fn add_to_row(
        &mut self,
        lsn: u64,
        tenant: &str,
        slot: u8,
        add: impl Fn(&mut Sums),
    ) -> Result<(), RowError> {
        if !self.warm.contains_key(tenant) {
            self.warm.insert(tenant.to_owned(), Map::default());
        }
        let Some(rows) = self.warm.get_mut(tenant) else {
            return Ok(());
        };
        let warm = match rows.get_mut(self.key.as_slice()) {
            Some(warm) => warm,
            None => {
                let stored = self.store.get(&self.key).map_err(RowError::Read)?;
                let row = match stored {
                    None => Row::default(),
                    Some(bytes) => Row::decode(&bytes).ok_or(RowError::Decode)?,
                };
                let fresh = Warm {
                    row,
                    dirty: false,
                    cycle: self.cycle,
                };
                rows.entry(Arc::from(self.key.as_slice())).or_insert(fresh)
            }
        };
        if warm.row.lsn < lsn {
            warm.row.lsn = lsn;
            add(warm.row.slot(slot));
            warm.dirty = true;
            warm.cycle = self.cycle;
        }
        Ok(())
    }

    /// The dirty rows, which count as clean from now on.
    pub(crate) fn freeze(&mut self) -> Frozen {
        let rows = self.warm.values_mut().flatten();
        let dirty = rows.filter(|(_, warm)| warm.dirty).map(|(key, warm)| {
            warm.dirty = false;
            (Arc::clone(key), warm.row.encode())
        });
        let mut frozen: Frozen = dirty.collect();
        frozen.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        frozen
    }

    /// Frozen rows are durable: those that were not touched for a whole cycle need not be warm.
    pub(crate) fn committed(&mut self) {
        let cycle = self.cycle;
        self.warm.retain(|_, rows| {
            rows.retain(|_, warm| warm.dirty || warm.cycle >= cycle);
            !rows.is_empty()
        });
        self.cycle += 1;
    }

    /// Frozen rows could not be written.
    pub(crate) fn not_committed(&mut self, frozen: &Frozen) {
        for (key, _) in frozen {
            let mut rows = self.warm.values_mut();
            if let Some(warm) = rows.find_map(|rows| rows.get_mut(key)) {
                warm.dirty = true;
            }
        }
    }

    /// Copies of a tenant's warm rows from `from` up to but not `to`, in order.
    pub(crate) fn warm(&self, tenant: &str, from: &[u8], to: &[u8]) -> Vec<(Key, Row)> {
        let Some(rows) = self.warm.get(tenant) else {
            return Vec::new();
        };
        let inside = rows
            .iter()
            .filter(|(key, _)| from <= key.as_ref() && key.as_ref() < to);
        let mut rows: Vec<(Key, Row)> = inside
            .map(|(key, warm)| (Arc::clone(key), warm.row.clone()))
            .collect();
        rows.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        rows
    }
}
