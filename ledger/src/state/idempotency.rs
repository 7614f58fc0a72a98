//! Retry keys of the last hours, by tenant.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::command::Idempotency;
use crate::hash::Map;
use crate::id::Id;

/// What a key opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// Hash of the request.
    #[serde(with = "crate::codec::array")]
    pub(crate) fingerprint: [u8; 32],
    /// The execution.
    pub(crate) execution: Id,
    /// When.
    pub(crate) at: Micros,
}

/// The keys of one tenant. A key is kept for the ledger's time to live; older ones are dropped as
/// later ones come.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Keys {
    by_key: Map<[u8; 32], Opened>,
    order: VecDeque<(Micros, [u8; 32])>,
}

impl Keys {
    /// What the key opened, if it is still kept at `at`.
    pub(crate) fn get(&self, key: &[u8; 32], at: Micros, ttl_us: i64) -> Option<&Opened> {
        self.by_key
            .get(key)
            .filter(|opened| at < opened.at.saturating_add(ttl_us))
    }

    /// How many keys are still kept at `at`; exact only up to the next insert.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The oldest key's end.
    pub(crate) fn oldest_ends(&self, ttl_us: i64) -> Option<Micros> {
        self.order.front().map(|(at, _)| at.saturating_add(ttl_us))
    }

    /// Keeps a key, and drops those whose time is over.
    pub(crate) fn insert(&mut self, key: Idempotency, execution: Id, at: Micros, ttl_us: i64) {
        while let Some((opened_at, old)) = self.order.front().copied() {
            if at < opened_at.saturating_add(ttl_us) {
                break;
            }
            self.order.pop_front();
            // The key may have been opened again since; then the later one stays.
            if self
                .by_key
                .get(&old)
                .is_some_and(|opened| opened.at == opened_at)
            {
                self.by_key.remove(&old);
            }
        }
        self.by_key.insert(
            key.key,
            Opened {
                fingerprint: key.fingerprint,
                execution,
                at,
            },
        );
        self.order.push_back((at, key.key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Idempotency {
        Idempotency {
            key: [byte; 32],
            fingerprint: [9; 32],
        }
    }

    #[test]
    fn keys_end_with_their_time_and_may_be_used_again() {
        let mut keys = Keys::default();
        keys.insert(key(1), Id([1; 16]), 0, 10);
        assert_eq!(keys.get(&[1; 32], 9, 10).unwrap().execution, Id([1; 16]));
        assert!(keys.get(&[1; 32], 10, 10).is_none());
        keys.insert(key(1), Id([2; 16]), 10, 10);
        keys.insert(key(2), Id([3; 16]), 19, 10);
        assert_eq!(keys.get(&[1; 32], 19, 10).unwrap().execution, Id([2; 16]));
        keys.insert(key(3), Id([4; 16]), 25, 10);
        assert_eq!(keys.len(), 2);
        assert!(keys.get(&[1; 32], 19, 10).is_none());
    }
}
