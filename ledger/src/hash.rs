//! The hasher of the ledger's maps: keyed at random, and several times cheaper than the standard
//! one on the short names and ids that the writer looks up for every command.
//!
//! Names come from tenants, so that an unkeyed hash would let them aim for one bucket.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::OnceLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A map with this hasher.
pub(crate) type Map<K, V> = HashMap<K, V, Keyed>;
/// A set with this hasher.
pub(crate) type Set<K> = HashSet<K, Keyed>;

/// Most bytes of a key in place.
const FEW: usize = 62;

/// Bytes as a map's key: in place where they are few, as names nearly always are, so that comparing
/// them reads no other memory.
#[derive(Clone, Debug)]
pub(crate) enum Key {
    /// How many, and the bytes.
    Few(u8, [u8; FEW]),
    /// More than that.
    Many(Box<[u8]>),
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        let mut few = [0; FEW];
        match (few.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(place), Ok(count)) => {
                place.copy_from_slice(bytes);
                Self::Few(count, few)
            }
            _ => Self::Many(Box::from(bytes)),
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        match self {
            Self::Few(count, bytes) => bytes.get(..usize::from(*count)).unwrap_or_default(),
            Self::Many(bytes) => bytes,
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        Borrow::<[u8]>::borrow(self).hash(hasher);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        Borrow::<[u8]>::borrow(self) == Borrow::<[u8]>::borrow(other)
    }
}

impl Eq for Key {}

/// As the bytes that it is, and so as a text of the same bytes.
impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.borrow())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Self::from)
    }
}

/// Builds hashers with this process's keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Keyed {
    start: u64,
    multiplier: u64,
}

impl Default for Keyed {
    fn default() -> Self {
        static KEYS: OnceLock<Keyed> = OnceLock::new();
        *KEYS.get_or_init(|| {
            let random = RandomState::new();
            Self {
                start: random.hash_one(1),
                multiplier: random.hash_one(2) | 1,
            }
        })
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded {
            state: self.start,
            multiplier: self.multiplier,
        }
    }
}

/// Folds eight bytes at a time by a wide multiplication.
#[derive(Debug)]
pub(crate) struct Folded {
    state: u64,
    multiplier: u64,
}

impl Folded {
    fn fold(&mut self, word: u64) {
        let wide = u128::from(self.state ^ word).wrapping_mul(u128::from(self.multiplier));
        let [low, high] = [wide, wide >> 64].map(|half| half & u128::from(u64::MAX));
        self.state = u64::try_from(low ^ high).unwrap_or(0);
        // A state of zero would forget the multiplier.
        self.state = self.state.rotate_left(23).wrapping_add(self.multiplier);
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        // The length of the rest, which is less than eight, tells it from one with more zeros.
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        last[7] = u8::try_from(rest.len()).unwrap_or(u8::MAX);
        self.fold(u64::from_le_bytes(last));
    }

    fn write_u8(&mut self, byte: u8) {
        self.fold(u64::from(byte) | 1 << 32);
    }

    fn write_u32(&mut self, word: u32) {
        self.fold(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.fold(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.fold(u64::try_from(word).unwrap_or(u64::MAX));
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_spread_over_all_buckets() {
        let keyed = Keyed::default();
        let mut low = vec![0_u32; 256];
        let mut high = vec![0_u32; 128];
        for number in 0..25_600 {
            let hash = keyed.hash_one(format!("tenant-{number}"));
            low[usize::try_from(hash & 255).unwrap()] += 1;
            high[usize::try_from(hash >> 57).unwrap()] += 1;
        }
        assert!(low.iter().all(|count| (40..200).contains(count)), "{low:?}");
        assert!(
            high.iter().all(|count| (100..320).contains(count)),
            "{high:?}"
        );
    }

    #[test]
    fn keys_are_their_bytes_wherever_these_lie() {
        let mut map = Map::<Key, usize>::default();
        let bytes = [7; 2 * FEW];
        for count in 0..=bytes.len() {
            map.insert(Key::from(&bytes[..count]), count);
        }
        for count in 0..=bytes.len() {
            assert_eq!(map.get(&bytes[..count]), Some(&count));
            let key = Key::from(&bytes[..count]);
            assert_eq!(Borrow::<[u8]>::borrow(&key), &bytes[..count]);
        }
        assert_eq!(map.get([8].as_slice()), None);
    }

    #[test]
    fn names_that_differ_in_length_only_differ() {
        let keyed = Keyed::default();
        let hashes: HashSet<u64> = (0..40).map(|n| keyed.hash_one("\0".repeat(n))).collect();
        assert_eq!(hashes.len(), 40);
    }
}
