//! How many runs have begun in the last minute: of a tenant, and through each of its keys.
//!
//! Counted by whole seconds: a run that began counts for the rest of its second and the 60 after
//! it, so that no stretch of 60 seconds, wherever it begins, has more than a cap allows.

use std::collections::VecDeque;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Micros;
use crate::hash::{Key, Map};

const SECOND_US: i64 = 1_000_000;
/// Seconds after its own in which a run still counts.
const SPAN_S: i64 = 60;
/// Keys that are kept before the first look for those that have not been used for a minute.
const SWEEP_MIN: u64 = 64;

/// Runs by the second in which they began, oldest first: at most 61 seconds, none of them empty. It
/// is stored as a sequence of these.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Recent {
    older: VecDeque<(i64, u32)>,
    /// The last one, in place: nearly always this is all. No runs, if there is none.
    last: (i64, u32),
}

impl Serialize for Recent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.all())
    }
}

impl<'de> Deserialize<'de> for Recent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut older: VecDeque<(i64, u32)> = VecDeque::deserialize(deserializer)?;
        let last = older.pop_back().unwrap_or_default();
        Ok(Self { older, last })
    }
}

/// What has begun in the last minute. It is counted whether there is a cap or not, so that a new
/// cap knows it at once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Starts {
    all: Recent,
    keys: Map<Key, Recent>,
    /// At how many keys those are dropped that have not been used for a minute.
    sweep_at: u64,
}

/// How a cap on starts stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Begun {
    /// Runs that count.
    pub(crate) count: u32,
    /// When there is room for another one, if there is none now.
    pub(crate) free_at: Option<Micros>,
}

fn second(at: Micros) -> i64 {
    at.div_euclid(SECOND_US)
}

impl Recent {
    /// Seconds and the runs in each.
    fn all(&self) -> impl Iterator<Item = &(i64, u32)> + Clone {
        let last = std::slice::from_ref(&self.last);
        let last = last.get(usize::from(self.last.1 == 0)..);
        self.older.iter().chain(last.unwrap_or_default())
    }

    fn add(&mut self, at: Micros) {
        let now = second(at);
        let ended = |began: &(i64, u32)| !counts(began.0, now);
        while self.older.front().is_some_and(ended) {
            self.older.pop_front();
        }
        let (began, count) = &mut self.last;
        if *began == now && *count > 0 {
            *count = count.saturating_add(1);
            return;
        }
        if *count > 0 && counts(*began, now) {
            self.older.push_back(self.last);
        }
        self.last = (now, 1);
    }

    fn near(&self) -> u64 {
        u64::from(self.last.1)
    }

    fn is_idle(&self, at: Micros) -> bool {
        let (began, count) = self.last;
        count == 0 || !counts(began, second(at))
    }

    fn standing(&self, at: Micros, cap: u32) -> Begun {
        let now = second(at);
        let live = self.all().filter(|(began, _)| counts(*began, now));
        let count = live.clone().map(|(_, count)| *count);
        let count = count.fold(0_u32, u32::saturating_add);
        let mut left = count;
        let mut free_at = None;
        for (began, ended) in live {
            if left < cap {
                break;
            }
            left = left.saturating_sub(*ended);
            free_at = Some((began + SPAN_S + 1).saturating_mul(SECOND_US));
        }
        Begun { count, free_at }
    }
}

/// Whether a run that began in one second counts in another.
fn counts(began: i64, now: i64) -> bool {
    now.saturating_sub(began) <= SPAN_S
}

impl Starts {
    /// Counts a run that begins through a key.
    pub(crate) fn add(&mut self, key: &[u8], at: Micros) {
        self.all.add(at);
        if let Some(recent) = self.keys.get_mut(key) {
            return recent.add(at);
        }
        let kept = |keys: &Map<Key, Recent>| u64::try_from(keys.len()).unwrap_or(u64::MAX);
        if kept(&self.keys) >= self.sweep_at.max(SWEEP_MIN) {
            self.keys.retain(|_, recent| !recent.is_idle(at));
            self.sweep_at = kept(&self.keys).saturating_mul(2);
        }
        self.keys.entry(Key::from(key)).or_default().add(at);
    }

    /// A word of what counts a tenant's runs.
    pub(crate) fn near(&self) -> u64 {
        self.all.near()
    }

    /// A word of what counts a key's runs.
    pub(crate) fn near_key(&self, key: &[u8]) -> u64 {
        self.keys.get(key).map_or(0, Recent::near)
    }

    /// How the whole tenant stands with a cap.
    pub(crate) fn of_tenant(&self, at: Micros, cap: u32) -> Begun {
        self.all.standing(at, cap)
    }

    /// How a key stands with a cap.
    pub(crate) fn of_key(&self, key: &str, at: Micros, cap: u32) -> Begun {
        let recent = self.keys.get(key.as_bytes());
        recent.map_or_else(Begun::default, |recent| recent.standing(at, cap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn room_comes_back_when_the_oldest_second_has_passed() {
        let mut starts = Starts::default();
        for at in [0, 999_999, 2_000_000] {
            starts.add(b"k", at);
        }
        let standing = |at, cap| starts.of_tenant(at, cap);
        assert_eq!(standing(2_000_000, 4).free_at, None);
        let full = |free_at| Begun {
            count: 3,
            free_at: Some(free_at),
        };
        assert_eq!(standing(2_000_000, 3), full(61_000_000));
        assert_eq!(standing(2_000_000, 1), full(63_000_000));
        assert_eq!(standing(60_999_999, 3), full(61_000_000));
        let later = Begun {
            count: 1,
            free_at: None,
        };
        assert_eq!(standing(61_000_000, 3), later);
        assert_eq!(starts.of_key("k", 61_000_000, 3), later);
        assert_eq!(starts.of_key("other", 61_000_000, 3), Begun::default());
    }

    #[test]
    fn starts_are_stored_as_seconds_by_name() {
        let mut starts = Starts::default();
        let long = "k".repeat(100);
        for (key, at) in [
            ("k", 0),
            ("k", 1),
            ("k", 2 * SECOND_US),
            (&long, 3 * SECOND_US),
        ] {
            starts.add(key.as_bytes(), at);
        }
        let all = vec![(0_i64, 2_u32), (2, 1), (3, 1)];
        for (key, seconds) in [("k", vec![(0_i64, 2_u32), (2, 1)]), (&long, vec![(3, 1)])] {
            let mut one = starts.clone();
            one.keys
                .retain(|kept, _| *kept == Key::from(key.as_bytes()));
            let (mut stored, mut wanted) = (Vec::new(), Vec::new());
            crate::codec::append(&mut stored, &one);
            crate::codec::append(&mut wanted, &(&all, vec![(key, seconds)], 0_u64));
            assert_eq!(stored, wanted);
            assert_eq!(postcard::from_bytes(&stored), Ok(one));
        }
        assert_eq!(postcard::from_bytes(&[0, 0, 0]), Ok(Starts::default()));
    }

    #[test]
    fn keys_that_rest_are_forgotten() {
        let mut starts = Starts::default();
        for number in 0..10_000 {
            starts.add(format!("k{number}").as_bytes(), number * SECOND_US);
        }
        assert!(starts.keys.len() <= 256, "{}", starts.keys.len());
        assert_eq!(starts.of_tenant(9_999 * SECOND_US, 9_999).count, 61);
    }

    proptest! {
        /// Whoever begins whenever there is room never begins more than the cap in 60 seconds.
        #[test]
        fn no_minute_has_more_than_the_cap(
            steps in proptest::collection::vec(0..9_000_000_i64, 1..300), cap in 1..9_u32,
        ) {
            let mut starts = Starts::default();
            let (mut at, mut began) = (1_764_000_000_123_456, Vec::new());
            for step in steps {
                at += step;
                let standing = starts.of_tenant(at, cap);
                if standing.count < cap {
                    starts.add(b"k", at);
                    began.push(at);
                    let minute = began.iter().filter(|one| at - **one < 60 * SECOND_US).count();
                    prop_assert!(minute <= usize::try_from(cap).unwrap());
                } else {
                    let free_at = standing.free_at.unwrap();
                    prop_assert!(starts.of_tenant(free_at - 1, cap).count >= cap);
                    prop_assert!(starts.of_tenant(free_at, cap).count < cap);
                }
            }
        }
    }
}
