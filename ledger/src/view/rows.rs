//! The rows that are warm in memory, over those in the database.
//!
//! ```text
//! absent -- settlement: loaded or made --> dirty -- frozen --> clean -- untouched --> absent
//!                                            ^------ settlement, or the commit failed ---'
//! ```
//! A warm row always wins over the database's: it has everything that one has, and more.

use std::borrow::Borrow;
use std::hint::black_box;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use super::row::{self, Grain, Key, Row, Sums};
use super::store::Store;
use crate::calendar::{self, Span};
use crate::clock::Micros;
use crate::codec;
use crate::entry::Adjusted;
use crate::error::Error;
use crate::hash::{Key as Names, Map};
use crate::record::{OpenHold, Posting, Whose};
use crate::state::AHEAD;

/// Whether the database has what a warm row has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Care {
    /// It has.
    Clean,
    /// It has once the commit under way succeeds.
    Frozen,
    /// It has not.
    Dirty,
}

#[derive(Debug)]
struct Warm {
    grain: Grain,
    number: u32,
    row: Row,
    care: Care,
    /// The commit cycle that last changed it.
    cycle: u64,
}

/// The warm rows of one tenant, by the stored names of whose they are. There are few of each: its
/// month and its last days.
type Groups = Map<Names, Vec<Warm>>;

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
    /// By the place of the tenant, as that is how rows are asked for.
    warm: Vec<Groups>,
    cycle: u64,
    /// The month of the last settlement, and its number.
    month: (Span, u32),
    /// The last day and the last month of which the database may have rows; later ones are not
    /// looked for in it. `None` where it had rows before.
    stored: Option<[u32; 2]>,
}

/// Rows to be written, sorted by key: many, so that they lie in one piece.
#[derive(Debug, Default)]
pub(crate) struct Frozen {
    bytes: Vec<u8>,
    /// Where each one's key begins and ends, and where its value ends.
    places: Vec<[usize; 3]>,
}

impl Frozen {
    fn push(&mut self, whose: &Whose<'_>, warm: &Warm) {
        let start = self.bytes.len();
        row::append_key(&mut self.bytes, whose, warm.grain, warm.number);
        let key = self.bytes.len();
        warm.row.append(&mut self.bytes);
        self.places.push([start, key, self.bytes.len()]);
    }

    fn key(&self, [start, end, _]: &[usize; 3]) -> &[u8] {
        self.bytes.get(*start..*end).unwrap_or_default()
    }

    /// Sorts, given where each tenant's rows are: no other tenant's lie between them in the end.
    fn sort(&mut self, mut tenants: Vec<Range<usize>>) {
        let mut places = mem::take(&mut self.places);
        for tenant in &tenants {
            let theirs = places.get_mut(tenant.clone()).unwrap_or_default();
            theirs.sort_unstable_by(|one, other| self.key(one).cmp(self.key(other)));
        }
        let first = |tenant: &Range<usize>| places.get(tenant.start).map(|place| self.key(place));
        tenants.sort_unstable_by(|one, other| first(one).cmp(&first(other)));
        let theirs = |tenant| places.get::<Range<usize>>(tenant).unwrap_or_default();
        self.places = tenants.into_iter().flat_map(theirs).copied().collect();
    }

    /// The rows' keys and values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let part = |from, to| self.bytes.get(from..to).unwrap_or_default();
        let places = self.places.iter();
        places.map(move |[start, key, end]| (part(*start, *key), part(*key, *end)))
    }
}

impl Rows {
    /// No warm rows over a database.
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            warm: Vec::new(),
            cycle: 0,
            month: (Span { start: 0, end: 0 }, 0),
            stored: None,
        }
    }

    /// No warm rows over a database that is empty.
    pub(crate) fn anew(store: Arc<Store>) -> Self {
        Self {
            stored: Some([0, 0]),
            ..Self::new(store)
        }
    }

    /// The database.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Reads words of the rows that settlements of these holds, with the places of their tenants,
    /// mostly change: at most [`AHEAD`] of them; see [`crate::state::State::bring_near`].
    pub(crate) fn bring_near<'a>(&self, settled: impl Iterator<Item = (u32, &'a OpenHold)>) {
        let mut groups = [const { None }; AHEAD];
        let group = |(tenant, hold): (u32, &OpenHold)| {
            let groups = self.warm.get(usize::try_from(tenant).ok()?)?;
            groups.get(hold.names())
        };
        for (place, hold) in groups.iter_mut().zip(settled) {
            *place = group(hold);
        }
        let groups = || groups.iter().flatten();
        let rows = || {
            groups().flat_map(|group: &&Vec<Warm>| group.first().into_iter().chain(group.last()))
        };
        let first = rows().fold(0, |all, warm| {
            all ^ warm.row.slots.len() ^ usize::from(warm.care == Care::Dirty)
        });
        let slots = rows().filter_map(|warm| warm.row.slots.last());
        let words = slots.fold(0, |all, slot| {
            all ^ slot.sums.usage.executions ^ u64::from(slot.number) ^ slot.sums.near()
        });
        black_box((first, words));
    }

    /// Adds the settlement of command `lsn` by the tenant at a place, unless a row includes it
    /// already.
    pub(crate) fn settle(
        &mut self,
        lsn: u64,
        tenant: u32,
        posting: &Posting,
    ) -> Result<(), RowError> {
        let (names, at) = (posting.hold.names(), posting.hold.opened_at);
        self.add(lsn, (tenant, names), at, |sums| sums.post(posting))
    }

    /// Adds the adjustment of command `lsn`, recorded at `at`, of the tenant at a place, unless a
    /// row includes it already.
    pub(crate) fn adjust(
        &mut self,
        lsn: u64,
        tenant: u32,
        at: Micros,
        adjusted: &Adjusted,
    ) -> Result<(), RowError> {
        let mut names = Vec::new();
        codec::append(&mut names, &Whose::adjusted(adjusted));
        self.add(lsn, (tenant, &names), at, |sums| {
            sums.adjust(adjusted.amount);
        })
    }

    /// Adds to the rows of an instant of the tenant at a place, under its stored names.
    fn add(
        &mut self,
        lsn: u64,
        (tenant, names): (u32, &[u8]),
        at: Micros,
        add: impl Fn(&mut Sums),
    ) -> Result<(), RowError> {
        let places = self.places(at);
        let tenant = usize::try_from(tenant).unwrap_or(usize::MAX);
        if self.warm.len() <= tenant {
            self.warm.resize_with(tenant + 1, Groups::default);
        }
        let Some(groups) = self.warm.get_mut(tenant) else {
            return Ok(());
        };
        let group = match groups.get_mut(names) {
            Some(group) => group,
            None => groups.entry(Names::from(names)).or_default(),
        };
        for (grain, number, slot) in places {
            let last = self.stored.map(|last| number_of(last, grain));
            let store = Some(&*self.store).filter(|_| last.is_none_or(|last| number <= last));
            let warm = warm(group, store, names, (grain, number))?;
            if warm.row.lsn < lsn {
                warm.row.lsn = lsn;
                add(warm.row.slot(slot));
                warm.care = Care::Dirty;
                warm.cycle = self.cycle;
            }
        }
        Ok(())
    }

    /// The rows of an instant: grain, number and slot.
    fn places(&mut self, at: Micros) -> [(Grain, u32, u8); 2] {
        if !self.month.0.contains(at) {
            self.month = (calendar::month(at), row::number(Grain::Month, at));
        }
        let day = row::number(Grain::Day, at);
        [
            (Grain::Day, day, row::slot_number(at)),
            (Grain::Month, self.month.1, 0),
        ]
    }

    /// The dirty rows, which count as committed if [`Rows::committed`] follows.
    pub(crate) fn freeze(&mut self) -> Frozen {
        self.freeze_those(|_warm| true)
    }

    /// The dirty rows of days and months before those at `at`, which are unlikely to be touched
    /// once more.
    pub(crate) fn freeze_before(&mut self, at: Micros) -> Frozen {
        let current = self.current(at);
        self.freeze_those(|warm| warm.number < number_of(current, warm.grain))
    }

    fn freeze_those(&mut self, those: impl Fn(&Warm) -> bool) -> Frozen {
        let mut frozen = Frozen::default();
        let mut tenants = Vec::new();
        for groups in &mut self.warm {
            let from = frozen.places.len();
            for (names, group) in groups {
                let Some(whose) = Whose::read(names.borrow()) else {
                    continue;
                };
                let dirty = |warm: &&mut Warm| warm.care == Care::Dirty && those(warm);
                for warm in group.iter_mut().filter(dirty) {
                    warm.care = Care::Frozen;
                    frozen.push(&whose, warm);
                    if let Some(last) = self.stored.as_mut().map(|last| last_of(last, warm.grain)) {
                        *last = warm.number.max(*last);
                    }
                }
            }
            tenants.push(from..frozen.places.len());
        }
        frozen.sort(tenants);
        frozen
    }

    /// Frozen rows are durable: those that were not touched for a whole cycle need not be warm.
    pub(crate) fn committed(&mut self) {
        let cycle = self.cycle;
        self.thaw(|warm| warm.cycle >= cycle);
    }

    /// All rows are durable: of those made again from the journal, only the last month's and the
    /// day's at `at` are likely to be touched once more.
    pub(crate) fn committed_up_to(&mut self, at: Micros) {
        let current = self.current(at);
        self.thaw(|warm| warm.number >= number_of(current, warm.grain));
    }

    /// The day and the month of an instant.
    fn current(&mut self, at: Micros) -> [u32; 2] {
        self.places(at).map(|(_, number, _)| number)
    }

    /// What was frozen is in the database. Dirty rows stay warm, and those that `keep` says.
    fn thaw(&mut self, keep: impl Fn(&Warm) -> bool) {
        let keep = |warm: &mut Warm| {
            if warm.care == Care::Frozen {
                warm.care = Care::Clean;
            }
            warm.care == Care::Dirty || keep(warm)
        };
        for groups in &mut self.warm {
            groups.retain(|_, group| {
                group.retain_mut(keep);
                !group.is_empty()
            });
        }
        self.cycle += 1;
    }

    /// Frozen rows could not be written.
    pub(crate) fn not_committed(&mut self) {
        for warm in self.warm.iter_mut().flatten().flat_map(|(_, group)| group) {
            if warm.care == Care::Frozen {
                warm.care = Care::Dirty;
            }
        }
    }

    /// Copies of the warm rows of the tenant at a place, from `from` up to but not `to`, in order.
    pub(crate) fn warm(&self, tenant: u32, from: &[u8], to: &[u8]) -> Vec<(Key, Row)> {
        let tenant = usize::try_from(tenant).unwrap_or(usize::MAX);
        let groups = self.warm.get(tenant).into_iter().flatten();
        let mut rows = Vec::new();
        for (names, group) in groups {
            let Some(whose) = Whose::read(names.borrow()) else {
                continue;
            };
            for warm in group {
                let key = row::key(&whose, warm.grain, warm.number);
                if from <= &*key && &*key < to {
                    rows.push((key, warm.row.clone()));
                }
            }
        }
        rows.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        rows
    }
}

fn number_of([day, month]: [u32; 2], grain: Grain) -> u32 {
    match grain {
        Grain::Day => day,
        Grain::Month => month,
    }
}

fn last_of([day, month]: &mut [u32; 2], grain: Grain) -> &mut u32 {
    match grain {
        Grain::Day => day,
        Grain::Month => month,
    }
}

/// A row, from the group or the database, if that can have it, or a new one.
fn warm<'a>(
    group: &'a mut Vec<Warm>,
    store: Option<&Store>,
    names: &[u8],
    (grain, number): (Grain, u32),
) -> Result<&'a mut Warm, RowError> {
    let same = |warm: &Warm| warm.number == number && warm.grain == grain;
    let place = match group.iter().position(same) {
        Some(place) => place,
        None => {
            let row = match store {
                Some(store) => stored(store, names, (grain, number))?,
                None => Row::default(),
            };
            group.push(Warm {
                grain,
                number,
                row,
                care: Care::Clean,
                cycle: 0,
            });
            group.len() - 1
        }
    };
    group.get_mut(place).ok_or(RowError::Decode)
}

/// A row of the database, or a new one.
fn stored(store: &Store, names: &[u8], (grain, number): (Grain, u32)) -> Result<Row, RowError> {
    let whose = Whose::read(names).ok_or(RowError::Decode)?;
    let bytes = store.get(&row::key(&whose, grain, number));
    match bytes.map_err(RowError::Read)? {
        None => Ok(Row::default()),
        Some(bytes) => Row::decode(&bytes).ok_or(RowError::Decode),
    }
}
