//! Where runs of the same names were counted before: one look-up instead of one a name.
//!
//! Places are given for good, so nothing here ever becomes wrong; only runs whose scopes are all
//! counted are kept.

use super::Located;
use crate::hash::{Key, Map};

/// Bytes of names kept, with what keeping one costs beside them. Beyond them all are forgotten.
const BYTES_MAX: usize = 8 << 20;
const BYTES_EACH: usize = 128;

/// See the module. Names are in their stored form; see [`crate::record::Run`].
#[derive(Debug, Default)]
pub(crate) struct Known {
    located: Map<Key, Located>,
    bytes: usize,
}

impl Known {
    /// Where a run of these names was counted.
    pub(crate) fn find(&self, names: &[u8]) -> Option<Located> {
        self.located.get(names).copied()
    }

    /// Keeps where a run of these names is counted.
    pub(crate) fn keep(&mut self, names: &[u8], located: Located) {
        let bytes = names.len() + BYTES_EACH;
        if self.bytes + bytes > BYTES_MAX {
            self.located.clear();
            self.bytes = 0;
        }
        if self.located.insert(Key::from(names), located).is_none() {
            self.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
