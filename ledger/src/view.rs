//! What reads are answered from: a replica of the state, warm rows, the index of the current
//! segment and the Merkle tree, all up to the same command.
//!
//! It takes in batches only once they are durable.

pub(crate) mod row;
pub(crate) mod rows;
pub(crate) mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::rows::{Frozen, RowError, Rows};
use crate::clock::Micros;
use crate::entry::Body;
use crate::index::{Index, Sealed};
use crate::journal::Position;
use crate::merkle::{Frontier, Hash, Leaves};
use crate::period;
use crate::query::AsOf;
use crate::record::{self, Record};
use crate::state::{AHEAD, Bounds, Kind, Located, Near, State};

/// The magic of the checkpoint file.
pub(crate) const CHECKPOINT: [u8; 8] = *b"FBXCKP04";

/// The checkpoint file.
pub(crate) fn checkpoint_path(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

/// Everything needed to go on deciding, up to a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// The ledger that it belongs to.
    pub(crate) ledger: u64,
    /// The place behind the last frame included.
    pub(crate) position: Position,
    /// The tree.
    pub(crate) frontier: Frontier,
    /// The state.
    pub(crate) state: State,
}

/// A checkpoint that is only read.
#[derive(Serialize)]
struct CheckpointRef<'a> {
    ledger: u64,
    position: Position,
    frontier: &'a Frontier,
    state: &'a State,
}

/// The head mark of the database: what its rows include.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// The ledger that it belongs to.
    pub(crate) ledger: u64,
    /// The last command included.
    pub(crate) lsn: u64,
    /// The place behind its frame.
    pub(crate) position: Position,
}

/// One record of a durable batch.
#[derive(Debug)]
pub(crate) struct Item {
    /// The record.
    pub(crate) record: Record,
    /// Where its hold is counted, if the writer has told.
    pub(crate) located: Option<Located>,
    /// Where its bytes lie in the segment.
    pub(crate) offset: u32,
    /// How many there are.
    pub(crate) bytes: u32,
    /// The hash of an entry's bytes.
    pub(crate) leaf: Option<Hash>,
}

/// A durable frame.
#[derive(Debug)]
pub(crate) struct Durable {
    /// Where it begins in its segment.
    pub(crate) start: u64,
    /// The place behind it.
    pub(crate) position: Position,
    /// Number of the first record.
    pub(crate) first_lsn: u64,
    /// Its bytes, as long as entries are to be hashed.
    pub(crate) frame: Vec<u8>,
    /// The records.
    pub(crate) items: Vec<Item>,
}

/// Since when the view in memory has more than the one on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Unwritten {
    /// Of what came after the last freeze, the first command's time.
    since: Option<Micros>,
    /// Of what is frozen and not yet on disk, the first command's time.
    frozen: Option<Micros>,
}

impl Unwritten {
    /// A command of that time has come.
    pub(crate) fn add(&mut self, at: Micros) {
        self.since.get_or_insert(at);
    }

    /// All of it is on its way to the disk.
    pub(crate) fn freeze(&mut self) {
        self.frozen = self.frozen.or(self.since);
        self.since = None;
    }

    /// What was frozen is on disk.
    pub(crate) fn written(&mut self) {
        self.frozen = None;
    }

    /// How old the oldest of it is.
    pub(crate) fn age_us(&self, now: Micros) -> u64 {
        let oldest = self.frozen.or(self.since);
        oldest.map_or(0, |since| {
            u64::try_from(now.saturating_sub(since)).unwrap_or(0)
        })
    }
}

/// The room that a frame has taken in memory, for another one.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    /// For its bytes.
    pub(crate) frame: Vec<u8>,
    /// For its records. The writer empties it, who has made what is in it.
    pub(crate) items: Vec<Item>,
}

impl Durable {
    /// Hashes the entries.
    pub(crate) fn hash(&mut self) {
        let (frame, start) = (&self.frame, self.start);
        let leaf = |item: &Item| {
            let place = |at: u64| usize::try_from(at.saturating_sub(start)).ok();
            let (from, length) = (u64::from(item.offset), u64::from(item.bytes));
            record::leaf(frame.get(place(from)?..place(from + length)?)?)
        };
        let mut hashes = Vec::with_capacity(self.items.len());
        let mut leaves = Leaves::default();
        for bytes in self.items.iter().filter_map(leaf) {
            leaves.add(bytes, |hash| hashes.push(hash));
        }
        leaves.end(|hash| hashes.push(hash));
        let mut hashes = hashes.into_iter();
        for item in &mut self.items {
            item.leaf = leaf(item).and_then(|_bytes| hashes.next());
        }
    }

    /// Number of the last record.
    pub(crate) fn last_lsn(&self) -> u64 {
        let count = u64::try_from(self.items.len()).unwrap_or(u64::MAX);
        self.first_lsn + count - 1
    }

    /// Its room.
    pub(crate) fn spend(self) -> Spent {
        Spent {
            frame: self.frame,
            items: self.items,
        }
    }
}

/// The state of all reads.
#[derive(Debug)]
pub(crate) struct View {
    /// The ledger's name for itself.
    pub(crate) ledger: u64,
    bounds: Bounds,
    /// The replica.
    pub(crate) state: State,
    /// The tree.
    pub(crate) frontier: Frontier,
    /// The place behind the last frame taken in.
    pub(crate) position: Position,
    /// The rows.
    pub(crate) rows: Rows,
    /// The index of the current segment.
    pub(crate) tail: Index,
    /// Indexes that are being written.
    pub(crate) sealing: Vec<Arc<Index>>,
    /// Indexes that are files, in the order of their segments.
    pub(crate) sealed: Vec<Sealed>,
    /// Why the rows cannot be used any more; they are made again at the next start.
    pub(crate) rows_fault: Option<String>,
    /// How far the disk is behind.
    pub(crate) unwritten: Unwritten,
}

/// What one commit writes.
#[derive(Debug)]
pub(crate) struct Freeze {
    /// The rows and their head mark, if the rows can be used.
    pub(crate) rows: Option<(Frozen, Mark)>,
    /// The checkpoint file's bytes, if one is due.
    pub(crate) checkpoint: Option<Vec<u8>>,
    /// The indexes to write.
    pub(crate) indexes: Vec<Arc<Index>>,
    /// The last command included.
    pub(crate) lsn: u64,
    /// From when on days are to be kept, if not all.
    pub(crate) detail_from: Option<Micros>,
}

impl View {
    /// The view that a checkpoint, or nothing, leads to.
    pub(crate) fn new(base: Checkpoint, rows: Rows, tail: Index, bounds: Bounds) -> Self {
        Self {
            ledger: base.ledger,
            bounds,
            state: base.state,
            frontier: base.frontier,
            position: base.position,
            rows,
            tail,
            sealing: Vec::new(),
            sealed: Vec::new(),
            rows_fault: None,
            unwritten: Unwritten::default(),
        }
    }

    /// Takes in a durable frame. The message says why it cannot follow on this view.
    pub(crate) fn absorb(&mut self, durable: &Durable) -> Result<(), String> {
        self.turn(durable.position.segment);
        let mut lsn = durable.first_lsn;
        for items in durable.items.chunks(AHEAD) {
            self.bring_near(items);
            for item in items {
                let located = self.apply(lsn, item)?;
                self.take_entry(lsn, item, located);
                self.unwritten.add(item.record.at());
                lsn += 1;
            }
        }
        self.position = durable.position;
        Ok(())
    }

    /// Takes a record of the journal's tail into the state; tree, index and rows are made apart.
    /// `known` is where runs of a hold's names were counted before. Says where its hold is counted.
    pub(crate) fn replay(
        &mut self,
        lsn: u64,
        record: &Record,
        known: Option<Located>,
    ) -> Result<Option<Located>, String> {
        self.state.apply(lsn, record, known, &self.bounds)
    }

    /// See [`State::bring_near`]; at most [`AHEAD`] of them.
    fn bring_near(&self, items: &[Item]) {
        let mut near: [Option<Near<'_>>; AHEAD] = [None; AHEAD];
        for (near, item) in near.iter_mut().zip(items) {
            let kind = match &item.record {
                Record::Hold(hold) => hold.key().map(Kind::Hold),
                Record::Settled(posting) => Some(Kind::Settled(posting.hold.id)),
                Record::Release(_) | Record::Entered(_) => None,
            };
            *near = item.located.zip(kind);
        }
        self.state.bring_near(&near);
        self.rows.bring_near(self.state.settled_near(&near));
    }

    fn apply(&mut self, lsn: u64, item: &Item) -> Result<Option<Located>, String> {
        self.state
            .apply(lsn, &item.record, item.located, &self.bounds)
    }

    /// Begins the index of another segment, if the frame lies in one.
    pub(crate) fn turn(&mut self, segment: u32) {
        if segment != self.tail.segment {
            let next = Index::new(segment, self.tail.first_seq + self.tail.entries());
            let mut full = std::mem::replace(&mut self.tail, next);
            full.seal();
            self.sealing.push(Arc::new(full));
        }
    }

    fn take_entry(&mut self, lsn: u64, item: &Item, located: Option<Located>) {
        let Some(leaf) = item.leaf else { return };
        self.frontier.push(leaf);
        let tenant = located.map(|located| located.tenant);
        self.tail.push(&item.record, tenant, item.offset);
        self.add_to_rows(lsn, &item.record, tenant);
    }

    /// Adds a settlement or an adjustment to the rows; a failure ends the rows, not the ledger.
    /// `tenant` is the place of its tenant, where it is known.
    pub(crate) fn add_to_rows(&mut self, lsn: u64, record: &Record, tenant: Option<u32>) {
        if self.rows_fault.is_some() {
            return;
        }
        if let Err(error) = self.try_to_add(lsn, record, tenant) {
            tracing::error!(%error, "the view cannot be used any more");
            self.rows_fault = Some(error.to_string());
        }
    }

    fn try_to_add(
        &mut self,
        lsn: u64,
        record: &Record,
        tenant: Option<u32>,
    ) -> Result<(), RowError> {
        let state = &self.state;
        let find = |name: &str| state.find(name).map(|(place, _)| place);
        match record {
            Record::Settled(posting) => {
                let of_hold = || find(posting.hold.whose()?.tenant);
                let tenant = tenant.or_else(of_hold).ok_or(RowError::Decode)?;
                self.rows.settle(lsn, tenant, posting)
            }
            Record::Entered(entry) => match &entry.body {
                Body::Adjusted(adjusted) => {
                    let tenant = find(&adjusted.tenant).ok_or(RowError::Decode)?;
                    self.rows.adjust(lsn, tenant, entry.at, adjusted)
                }
                Body::Acted(_) | Body::Settled(_) => Ok(()),
            },
            Record::Hold(_) | Record::Release(_) => Ok(()),
        }
    }

    /// Up to where reads include everything.
    pub(crate) fn as_of(&self) -> AsOf {
        AsOf {
            seq: self.state.seq,
            lsn: self.state.lsn,
            at: self.state.at,
        }
    }

    /// Takes out what a commit is to write.
    pub(crate) fn freeze(&mut self, checkpoint: bool, detail_months: u32) -> Freeze {
        let lsn = self.state.lsn;
        let mark = Mark {
            ledger: self.ledger,
            lsn,
            position: self.position,
        };
        self.unwritten.freeze();
        let usable = self.rows_fault.is_none();
        let rows = usable.then(|| (self.rows.freeze(), mark));
        Freeze {
            rows,
            checkpoint: checkpoint.then(|| self.checkpoint()),
            indexes: self.sealing.clone(),
            lsn,
            detail_from: period::detail_from(&self.state, detail_months),
        }
    }

    fn checkpoint(&self) -> Vec<u8> {
        let checkpoint = CheckpointRef {
            ledger: self.ledger,
            position: self.position,
            frontier: &self.frontier,
            state: &self.state,
        };
        crate::file::encode(CHECKPOINT, &checkpoint)
    }

    /// An index is a file now.
    pub(crate) fn index_written(&mut self, index: &Index) {
        self.sealing
            .retain(|sealing| sealing.segment != index.segment);
        self.sealed.push(index.sealed());
    }
}
