//! Sandboxes made ahead: what stands ready of each kind, and how many are wanted. No I/O.
//!
//! As many are wanted of a kind as were asked for within its busiest second, and one more: to make
//! one may take that long on a busy machine. The memory of that halves with every minute. Of the
//! kind that was asked for last, never fewer than a least number are wanted. Each is used once.

use std::collections::{HashMap, VecDeque};

use crate::launcher::cpus;
use crate::runner::Interpreter;
use crate::wire::{Make, WireImage, WireLimits};

/// Most kinds that are known at a time; more are made when they are asked for.
const KINDS_MAX: usize = 64;
/// How long a burst is, in us.
const WINDOW_US: u64 = 1_000_000;
/// After how long half of the busiest window is forgotten, in us.
const HALF_LIFE_US: u64 = 60_000_000;
/// Most that a crowd leaves to those who have nothing live: they are replaced while it waits.
const LEFT_MAX: usize = 8;
/// How long no sandbox of a kind is made ahead after one could not be, in us.
const BACK_OFF_US: u64 = 5_000_000;
/// How long none is made ahead when there was no room for one that was asked for, in us.
const REST_US: u64 = 250_000;

/// What may be made ahead; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolOptions {
    /// Most sandboxes that stand ready or are being made ahead; 0: none.
    pub max: usize,
    /// How many of the kind that was asked for last are kept, however long ago that was; as many as
    /// `max` at most.
    pub min: usize,
    /// How old one may become before it is replaced, in ms.
    pub age_ms: u64,
    /// Memory that must be available on the host, in bytes: with less, what stands ready is ended.
    pub free_memory_bytes: u64,
}

impl PoolOptions {
    /// How many are wanted of a kind.
    fn wanted(&self, kind: Kind, demand: &Demand, is_last: bool, now_us: u64) -> usize {
        let weight = kind.waits.weight();
        let least = if is_last { self.min / weight } else { 0 };
        let most = self.max.div_ceil(weight);
        demand.wanted(now_us).max(least).min(most)
    }
}

/// What cannot be changed once a sandbox is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    /// Digest of its image.
    pub(super) image: [u8; 32],
    /// Its class of disks.
    pub(super) disk_class: u8,
    /// How many CPUs its share rounds up to.
    pub(super) cpus: usize,
    /// What waits in it.
    pub(super) waits: Waits,
}

/// What waits in a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Waits {
    Nothing,
    Python,
    /// Python that may be a fork of the image's template.
    Fork,
    /// Node, which has made its heap by the memory that it found, and cannot change its limit on
    /// open files.
    Node {
        memory_bytes: u64,
        open_files: u32,
    },
}

impl Waits {
    fn of(interpreter: Option<&Interpreter>, limits: &WireLimits) -> Waits {
        match interpreter {
            None => Waits::Nothing,
            Some(Interpreter::Python { fork: false, .. }) => Waits::Python,
            Some(Interpreter::Python { fork: true, .. }) => Waits::Fork,
            Some(Interpreter::Node { .. }) => Waits::Node {
                memory_bytes: limits.memory_bytes,
                open_files: limits.open_files,
            },
        }
    }

    /// For how many of the others one counts where it is bounded how many are made ahead: by the
    /// memory that it takes.
    fn weight(self) -> usize {
        match self {
            Waits::Nothing | Waits::Python | Waits::Fork => 1,
            Waits::Node { .. } => 16,
        }
    }
}

impl Kind {
    /// The kind of a sandbox; none of one that is never made ahead.
    pub(super) fn of(make: &Make, interpreter: Option<&Interpreter>) -> Option<Kind> {
        match make.image {
            WireImage::Digest(image) => Some(Kind {
                image,
                disk_class: make.disk_class,
                cpus: cpus::count(make.limits.cpu_millis),
                waits: Waits::of(interpreter, &make.limits),
            }),
            WireImage::Empty => None,
        }
    }
}

/// What one is made with that may differ between two of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    pub(super) limits: WireLimits,
    pub(super) interpreter: Option<Interpreter>,
}

/// One that was taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken<T> {
    pub(super) sandbox: T,
    /// What it is held to.
    pub(super) limits: WireLimits,
    /// None of its kind stands ready any more.
    pub(super) is_last: bool,
}

/// What stands ready, `T` being a sandbox.
#[derive(Debug)]
pub(super) struct Pool<T> {
    options: PoolOptions,
    shelves: HashMap<Kind, Shelf<T>>,
    /// The kind that was asked for last.
    last: Option<Kind>,
}

#[derive(Debug)]
struct Shelf<T> {
    /// The oldest first, with the time since when and the limits that it was made with.
    ready: VecDeque<(u64, WireLimits, T)>,
    making: usize,
    /// What the next ones are made with.
    recipe: Recipe,
    demand: Demand,
    not_before_us: u64,
}

#[derive(Debug, Default)]
struct Demand {
    window: u64,
    count: usize,
    peak: usize,
    peak_us: u64,
}

impl Demand {
    fn note(&mut self, now_us: u64) {
        let window = now_us / WINDOW_US;
        if window != self.window {
            (self.window, self.count) = (window, 0);
        }
        self.count += 1;
        if self.count >= self.left(now_us) {
            (self.peak, self.peak_us) = (self.count, now_us);
        }
    }

    /// What is left of the peak.
    fn left(&self, now_us: u64) -> usize {
        let halvings = now_us.saturating_sub(self.peak_us) / HALF_LIFE_US;
        let halvings = u32::try_from(halvings).unwrap_or(u32::MAX);
        self.peak.checked_shr(halvings).unwrap_or(0)
    }

    fn wanted(&self, now_us: u64) -> usize {
        match self.left(now_us) {
            0 => 0,
            left => left + 1,
        }
    }
}

impl<T> Pool<T> {
    pub(super) fn new(options: PoolOptions) -> Pool<T> {
        Pool {
            options,
            shelves: HashMap::new(),
            last: None,
        }
    }

    /// Notes that a sandbox of this kind is asked for. The interpreter's environment is its
    /// image's, and so the same for all of a kind.
    pub(super) fn note(
        &mut self,
        kind: Kind,
        limits: &WireLimits,
        interpreter: Option<&Interpreter>,
        now_us: u64,
    ) {
        let known = self.shelves.contains_key(&kind);
        if self.options.max == 0 || (!known && self.shelves.len() >= KINDS_MAX) {
            return;
        }
        let shelf = self.shelves.entry(kind).or_insert_with(|| Shelf {
            ready: VecDeque::new(),
            making: 0,
            recipe: Recipe {
                limits: *limits,
                interpreter: interpreter.cloned(),
            },
            demand: Demand::default(),
            not_before_us: 0,
        });
        shelf.demand.note(now_us);
        self.last = Some(kind);
        // One that was made with fewer open files does for nobody who asks for more.
        let open_files = shelf.recipe.limits.open_files.max(limits.open_files);
        shelf.recipe.limits = WireLimits {
            open_files,
            ..*limits
        };
    }

    /// The oldest that does for these limits, with those that it was made with; and whether it was
    /// the last. A quarter of those that are wanted is for those who have nothing live yet: a crowd
    /// does not empty the pool.
    pub(super) fn take(
        &mut self,
        kind: Kind,
        limits: &WireLimits,
        has_live: bool,
        now_us: u64,
    ) -> Option<Taken<T>> {
        let is_last = self.last == Some(kind);
        let shelf = self.shelves.get_mut(&kind)?;
        let wanted = self.options.wanted(kind, &shelf.demand, is_last, now_us);
        let ready = &mut shelf.ready;
        if has_live && ready.len() <= left_to_others(wanted) {
            return None;
        }
        let fits = |(_, made, _): &(u64, WireLimits, T)| made.open_files >= limits.open_files;
        let at = ready.iter().position(fits)?;
        let (_since, limits, sandbox) = ready.remove(at)?;
        Some(Taken {
            sandbox,
            limits,
            is_last: ready.is_empty(),
        })
    }

    /// The kind with the fewest of those that too few are ready of, so that none takes the room of
    /// all, with what to make it with; it counts as being made until [`Pool::put`] or
    /// [`Pool::failed`]. While a crowd waits for sandboxes of its own, only what it leaves to
    /// others is made: the rest would make it wait longer.
    pub(super) fn next(&mut self, now_us: u64, is_crowded: bool) -> Option<(Kind, Recipe)> {
        let all: usize = self.shelves.values().map(Shelf::len).sum();
        if all >= self.options.max {
            return None;
        }
        let (options, last) = (self.options, self.last);
        let lacks = |kind: Kind, shelf: &Shelf<T>| {
            let wanted = options.wanted(kind, &shelf.demand, last == Some(kind), now_us);
            let wanted = if is_crowded {
                left_to_others(wanted)
            } else {
                wanted
            };
            shelf.not_before_us <= now_us && shelf.len() < wanted
        };
        let (kind, shelf) = self
            .shelves
            .iter_mut()
            .filter(|(kind, shelf)| lacks(**kind, shelf))
            .min_by_key(|(_, shelf)| shelf.len())?;
        shelf.making += 1;
        Some((*kind, shelf.recipe.clone()))
    }

    /// One is made.
    pub(super) fn put(&mut self, kind: Kind, limits: WireLimits, sandbox: T, now_us: u64) {
        if let Some(shelf) = self.shelves.get_mut(&kind) {
            shelf.making = shelf.making.saturating_sub(1);
            shelf.ready.push_back((now_us, limits, sandbox));
        }
    }

    /// One could not be made: for want of room, or for a reason that may stay.
    pub(super) fn failed(&mut self, kind: Kind, is_full: bool, now_us: u64) {
        if let Some(shelf) = self.shelves.get_mut(&kind) {
            shelf.making = shelf.making.saturating_sub(1);
            shelf.not_before_us = now_us + if is_full { REST_US } else { BACK_OFF_US };
        }
    }

    /// There is no room for what is asked for: none is begun for a while.
    pub(super) fn rest(&mut self, now_us: u64) {
        for shelf in self.shelves.values_mut() {
            shelf.not_before_us = shelf.not_before_us.max(now_us + REST_US);
        }
    }

    /// Whether none of a kind is begun for a while.
    pub(super) fn is_resting(&self, kind: Kind, now_us: u64) -> bool {
        let shelf = self.shelves.get(&kind);
        shelf.is_some_and(|shelf| shelf.not_before_us > now_us)
    }

    /// How many are being made.
    pub(super) fn making(&self) -> usize {
        self.shelves.values().map(|shelf| shelf.making).sum()
    }

    /// Takes out what is too old or no more wanted.
    pub(super) fn surplus(&mut self, now_us: u64) -> Vec<T> {
        let age_us = self.options.age_ms.saturating_mul(1000);
        let mut out = Vec::new();
        let (options, last) = (self.options, self.last);
        self.shelves.retain(|kind, shelf| {
            let wanted = options.wanted(*kind, &shelf.demand, last == Some(*kind), now_us);
            while let Some((since_us, ..)) = shelf.ready.front()
                && (shelf.ready.len() > wanted || now_us.saturating_sub(*since_us) > age_us)
            {
                out.extend(shelf.ready.pop_front().map(|(.., sandbox)| sandbox));
            }
            wanted > 0 || shelf.len() > 0
        });
        out
    }

    /// Takes one out to make room: the oldest of the kind that most are ready of.
    pub(super) fn spare(&mut self) -> Option<T> {
        let most = self
            .shelves
            .values_mut()
            .max_by_key(|shelf| shelf.ready.len());
        most?.ready.pop_front().map(|(.., sandbox)| sandbox)
    }

    /// How many stand ready.
    pub(super) fn ready(&self) -> usize {
        self.all_ready().count()
    }

    /// All that stand ready.
    pub(super) fn all_ready(&self) -> impl Iterator<Item = &T> {
        let shelves = self.shelves.values();
        shelves.flat_map(|shelf| shelf.ready.iter().map(|(.., sandbox)| sandbox))
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> Vec<T> {
        let shelves = self.shelves.drain();
        let ready = shelves.flat_map(|(_, shelf)| shelf.ready);
        ready.map(|(.., sandbox)| sandbox).collect()
    }
}

/// How many of those that are wanted a crowd does not get.
fn left_to_others(wanted: usize) -> usize {
    (wanted / 4).min(LEFT_MAX)
}

impl<T> Shelf<T> {
    fn len(&self) -> usize {
        self.ready.len() + self.making
    }
}

#[cfg(test)]
mod tests;
