//! What must hold of all records in their order: numbers, times, and which holds are open.

use std::sync::Arc;

use crate::clock::Micros;
use crate::hash::{Map, Set};
use crate::id::Id;
use crate::record::OpenHold;
use crate::state::Numbers;
use crate::verify::window::Place;

/// An open hold.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    /// The hold.
    pub(super) hold: Arc<OpenHold>,
    /// Its number among the open ones.
    pub(super) slot: u32,
    /// Where it is kept.
    pub(super) place: Place,
}

/// The records so far.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Of the last one.
    pub(super) last: Numbers,
    open: Map<Id, Opened>,
    executions: Set<Id>,
    /// Numbers that are free again.
    free: Vec<u32>,
}

impl Order {
    /// A hold is opened, which is kept at a place; answers its number among the open ones.
    pub(super) fn open(&mut self, hold: Arc<OpenHold>, place: Place) -> Result<u32, String> {
        let slots = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        let slot = self.free.pop().unwrap_or(slots);
        let is_new = self.executions.insert(hold.execution);
        let id = hold.id;
        let opened = Opened { hold, slot, place };
        if self.open.insert(id, opened).is_some() || !is_new {
            return Err("the hold or its execution is open already".to_owned());
        }
        Ok(slot)
    }

    /// An open hold ends, and its number is free.
    pub(super) fn end(&mut self, id: &Id) -> Result<Opened, String> {
        let open = self.open.remove(id);
        let open = open.ok_or_else(|| format!("hold {id} is not open"))?;
        self.executions.remove(&open.hold.execution);
        self.free.push(open.slot);
        Ok(open)
    }

    /// The open holds and their numbers.
    pub(super) fn all_open(&self) -> Vec<(Arc<OpenHold>, u32)> {
        let open = self.open.values();
        open.map(|open| (Arc::clone(&open.hold), open.slot))
            .collect()
    }

    /// How many holds are open.
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// Takes in the numbers of a record.
    pub(super) fn number(&mut self, lsn: u64, at: Micros, seq: Option<u64>) -> Result<(), String> {
        self.last = self.last.next(lsn, at, seq)?;
        Ok(())
    }
}
