//! Where runs of the same names were counted before: one look-up instead of one a name.
//!
//! Places are given for good, so nothing here ever becomes wrong; only runs whose scopes are all
//! counted are kept.

use std::borrow::Borrow;
use std::hash::BuildHasher;

use super::Located;
use crate::hash::{Key, Keyed};

/// Bytes of names kept, with what keeping one costs beside them. Beyond them all are forgotten.
const BYTES_MAX: usize = 8 << 20;
const BYTES_EACH: usize = 192;

/// See the module. Names are in their stored form; see [`crate::record::Run`].
///
/// A table of its own, so that the places of many names can be read ahead: see
/// [`crate::state::State::bring_near`].
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Two to some power of them, of which at most three quarters are used; whose place is taken
    /// has the next one that is free.
    slots: Vec<Option<Slot>>,
    used: usize,
    bytes: usize,
    hasher: Keyed,
}

#[derive(Debug)]
struct Slot {
    hash: u64,
    located: Located,
    names: Key,
}

/// Names, looked for by their hash first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sought<'a> {
    /// The names.
    pub(crate) names: &'a [u8],
    /// See [`Known::hash`].
    pub(crate) hash: u64,
}

impl Known {
    /// The hash by which names are looked for.
    pub(crate) fn hash(&self, names: &[u8]) -> u64 {
        self.hasher.hash_one(names)
    }

    /// Begins to look for names.
    pub(crate) fn seek<'a>(&self, names: &'a [u8]) -> Sought<'a> {
        let hash = self.hash(names);
        Sought { names, hash }
    }

    /// A word of each cache line where names with this hash may be.
    pub(crate) fn near(&self, hash: u64) -> u64 {
        let slot = self.slots.get(self.first(hash));
        let slot = slot.and_then(Option::as_ref);
        slot.map_or(0, |slot| slot.hash ^ u64::from(slot.located.tenant))
    }

    /// Where a run of these names was counted.
    pub(crate) fn found(&self, sought: Sought<'_>) -> Option<Located> {
        let place = self.place(sought)?;
        let slot = self.slots.get(place)?.as_ref()?;
        Some(slot.located)
    }

    /// Looks for names and says where a run of them was counted.
    pub(crate) fn find(&self, names: &[u8]) -> Option<Located> {
        self.found(self.seek(names))
    }

    /// Keeps where a run of these names is counted.
    pub(crate) fn keep(&mut self, names: &[u8], located: Located) {
        let bytes = names.len() + BYTES_EACH;
        if self.bytes + bytes > BYTES_MAX {
            self.slots.clear();
            (self.used, self.bytes) = (0, 0);
        }
        if self.slots.len() * 3 <= self.used * 4 {
            self.grow();
        }
        let sought = self.seek(names);
        let slot = Slot {
            hash: sought.hash,
            located,
            names: Key::from(names),
        };
        let place = self.place(sought).unwrap_or(usize::MAX);
        if let Some(old) = self.slots.get_mut(place)
            && old.replace(slot).is_none()
        {
            self.used += 1;
            self.bytes += bytes;
        }
    }

    fn grow(&mut self) {
        let count = (self.slots.len() * 2).max(64);
        let old = std::mem::take(&mut self.slots);
        self.slots.resize_with(count, || None);
        for slot in old.into_iter().flatten() {
            let sought = Sought {
                names: Borrow::borrow(&slot.names),
                hash: slot.hash,
            };
            if let Some(place) = self.place(sought) {
                self.slots[place] = Some(slot);
            }
        }
    }

    /// The first place of a hash.
    fn first(&self, hash: u64) -> usize {
        let mask = self.slots.len().wrapping_sub(1);
        usize::try_from(hash).unwrap_or(0) & mask
    }

    /// Where names are, or would be put; nowhere while there are no places.
    fn place(&self, Sought { names, hash }: Sought<'_>) -> Option<usize> {
        let first = self.first(hash);
        let (before, behind) = self.slots.split_at_checked(first)?;
        let places = (first..).zip(behind).chain((0..).zip(before));
        let is_it = |slot: &Slot| slot.hash == hash && Borrow::<[u8]>::borrow(&slot.names) == names;
        let mut ends = places.filter(|(_, slot)| slot.as_ref().is_none_or(is_it));
        ends.next().map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_whatever_else_has_their_place() {
        let mut known = Known::default();
        assert_eq!(known.find(b""), None);
        let located = |tenant| Located {
            tenant,
            scopes: [0; 4],
        };
        for n in 0..3_000_u32 {
            let names = n.to_le_bytes();
            known.keep(&names, located(0));
            known.keep(&names, located(n));
            assert!(known.used < known.slots.len());
        }
        for n in 0..3_000_u32 {
            assert_eq!(known.find(&n.to_le_bytes()), Some(located(n)));
            assert_eq!(known.find(&(n + 3_000).to_le_bytes()), None);
        }
        assert_eq!(known.used, 3_000);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let located = |place| Located {
            tenant: place,
            scopes: [0, place, place, place],
        };
        let mut known = Known::default();
        let names = |n: u32| [n.to_le_bytes().as_slice(), &[7; 1_000]].concat();
        for n in 0..20_000 {
            assert_eq!(known.find(&names(n)), None);
            known.keep(&names(n), located(n));
            assert!(known.bytes <= BYTES_MAX);
        }
        assert_eq!(known.find(&names(19_999)), Some(located(19_999)));
        assert_eq!(known.find(&names(0)), None);
    }
}
