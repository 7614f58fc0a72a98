//! The verifier's side of proofs, by the algorithms of RFC 9162, sections 2.1.3.2 and 2.1.4.2.
//!
//! It shares nothing with the side that makes them but the hash of a node.

use super::{Hash, node};

/// Whether `path` shows that `leaf` is leaf `index` (from 0) of the tree over `size` leaves with
/// this root.
pub(crate) fn inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for step in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node(step, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `path` shows that the tree of the first size and root is the beginning of the second.
pub(crate) fn consistency(first: (u64, &Hash), second: (u64, &Hash), path: &[Hash]) -> bool {
    let ((from, before), (to, after)) = (first, second);
    if from == 0 || from > to {
        return false;
    }
    if from == to {
        return path.is_empty() && before == after;
    }
    let (mut at, mut last) = (from - 1, to - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (start, steps) = if from.is_power_of_two() {
        (Some(before), path)
    } else {
        (path.first(), path.get(1..).unwrap_or_default())
    };
    let Some(start) = start else {
        return false;
    };
    let (mut old, mut new) = (*start, *start);
    for step in steps {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old = node(step, &old);
            new = node(step, &new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new = node(&new, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old == *before && new == *after
}
