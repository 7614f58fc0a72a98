//! Proofs by RFC 6962: that an entry is in the tree, and that one tree is the beginning of another.
//!
//! They are put together from the roots of complete subtrees, so that none of them needs more than
//! some dozens of hashes, however many entries there are.

use super::{Hash, node};

/// Where the roots of complete subtrees are looked up.
pub(crate) trait Nodes {
    /// What a failed look-up is.
    type Error;

    /// The root over the 2^`level` leaves from leaf `index` x 2^`level` on, all of which are there.
    fn node(&self, level: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// The root over the first `size` leaves; `size` is at least 1.
pub(crate) fn root<N: Nodes>(nodes: &N, size: u64) -> Result<Hash, N::Error> {
    range(nodes, 0, size)
}

/// The path of leaf `index` in the tree over the first `size` leaves, from the leaf upwards;
/// `index` is less than `size`.
pub(crate) fn inclusion<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let mut path = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(range(nodes, middle, end)?);
            end = middle;
        } else {
            path.push(range(nodes, start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// What shows that the tree over the first `from` leaves is the beginning of the one over the
/// first `to`; 1 <= `from` <= `to`.
pub(crate) fn consistency<N: Nodes>(nodes: &N, from: u64, to: u64) -> Result<Vec<Hash>, N::Error> {
    let mut path = Vec::new();
    let (mut start, mut end) = (0, to);
    // Down to the subtree that ends where the older tree ends.
    while from < end {
        let middle = start + split(end - start);
        if from <= middle {
            path.push(range(nodes, middle, end)?);
            end = middle;
        } else {
            path.push(range(nodes, start, middle)?);
            start = middle;
        }
    }
    // The verifier has it already where it is the older tree itself.
    if start > 0 {
        path.push(range(nodes, start, end)?);
    }
    path.reverse();
    Ok(path)
}

/// The root over the leaves from `start` up to `end`. `start` is a multiple of the least power of
/// two that is no less than their number, as every subtree's is.
fn range<N: Nodes>(nodes: &N, start: u64, end: u64) -> Result<Hash, N::Error> {
    let mut peaks = Vec::new();
    let mut at = start;
    while at < end {
        let level = (end - at).ilog2();
        peaks.push(nodes.node(level, at >> level)?);
        at += 1 << level;
    }
    let mut root = peaks.pop().unwrap_or_default();
    while let Some(left) = peaks.pop() {
        root = node(&left, &root);
    }
    Ok(root)
}

/// The greatest power of two that is less than `length`, which is at least 2.
fn split(length: u64) -> u64 {
    1 << (length - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::merkle::check;
    use crate::merkle::leaf;
    use crate::merkle::tests::{LEAVES, bytes, naive};

    /// All leaves in memory; every look-up hashes what it must.
    struct Naive(Vec<Hash>);

    impl Nodes for Naive {
        type Error = Infallible;

        fn node(&self, level: u32, index: u64) -> Result<Hash, Infallible> {
            let (start, length) = (place(index << level), place(1 << level));
            Ok(naive(&self.0[start..start + length]))
        }
    }

    fn place(number: u64) -> usize {
        usize::try_from(number).unwrap()
    }

    fn vectors() -> Naive {
        Naive(LEAVES.iter().map(|hex| leaf(&bytes(hex))).collect())
    }

    fn hashes(hex: &[&str]) -> Vec<Hash> {
        let hash = |hex: &&str| Hash::try_from(bytes(hex)).unwrap();
        hex.iter().map(hash).collect()
    }

    const N1: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
    const N23: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
    const N4567: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
    const N4: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
    const N67: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
    const N0123: &str = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7";
    const N45: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
    const N01: &str = "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125";
    const N0: &str = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";

    /// From the reference implementation of RFC 6962; there leaves count from 1.
    #[test]
    fn paths_are_those_of_the_rfcs_test_vectors() {
        let cases: [(u64, u64, &[&str]); 5] = [
            (0, 1, &[]),
            (0, 8, &[N1, N23, N4567]),
            (5, 8, &[N4, N67, N0123]),
            (2, 3, &[N01]),
            (1, 5, &[N0, N23, N4]),
        ];
        for (index, size, path) in cases {
            let Ok(found) = inclusion(&vectors(), index, size);
            assert_eq!(found, hashes(path), "{index} in {size}");
        }
    }

    #[test]
    fn consistency_is_that_of_the_rfcs_test_vectors() {
        let cases: [(u64, u64, &[&str]); 4] = [
            (1, 1, &[]),
            (1, 8, &[N1, N23, N4567]),
            (6, 8, &[N45, N67, N0123]),
            (2, 5, &[N23, N4]),
        ];
        for (from, to, path) in cases {
            let Ok(found) = consistency(&vectors(), from, to);
            assert_eq!(found, hashes(path), "{from} to {to}");
        }
    }

    /// Everything in one small tree of every size, and nothing else.
    #[test]
    fn every_proof_of_small_trees_verifies_and_no_altered_one_does() {
        let all: Vec<Hash> = (0_u32..24).map(|n| leaf(&n.to_be_bytes())).collect();
        let nodes = Naive(all.clone());
        for size in 1..=24_u64 {
            let root_now = naive(&all[..place(size)]);
            let Ok(same) = root(&nodes, size);
            assert_eq!(same, root_now);
            for index in 0..size {
                let Ok(path) = inclusion(&nodes, index, size);
                let good = |hash: &Hash, at, in_size, path: &[Hash]| {
                    check::inclusion(hash, at, in_size, path, &root_now)
                };
                assert!(
                    good(&all[place(index)], index, size, &path),
                    "{index}/{size}"
                );
                assert!(!good(&leaf(b"other"), index, size, &path));
                assert!(!good(&all[place(index)], index + size, size, &path));
                let longer = [&path[..], &[[0; 32]]].concat();
                assert!(!good(&all[place(index)], index, size, &longer));
                for spoilt in 0..path.len() {
                    let mut bad = path.clone();
                    bad[spoilt][7] ^= 1;
                    assert!(!good(&all[place(index)], index, size, &bad));
                }
            }
            for from in 1..=size {
                let Ok(path) = consistency(&nodes, from, size);
                let before = naive(&all[..place(from)]);
                let good = |before: &Hash, path: &[Hash]| {
                    check::consistency((from, before), (size, &root_now), path)
                };
                assert!(good(&before, &path), "{from} to {size}");
                assert!(!good(&leaf(b"other"), &path));
                assert!(!good(&before, &[&path[..], &[[0; 32]]].concat()));
                for spoilt in 0..path.len() {
                    let mut bad = path.clone();
                    bad[spoilt][31] ^= 128;
                    assert!(!good(&before, &bad), "{from} to {size}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn proofs_of_any_size_verify(size in 1_u64..3_000, a in any::<u64>(), b in any::<u64>()) {
            let all: Vec<Hash> = (0..size).map(|n| leaf(&n.to_be_bytes())).collect();
            let nodes = Naive(all.clone());
            let (index, from) = (a % size, b % size + 1);
            let root_now = naive(&all);
            let Ok(path) = inclusion(&nodes, index, size);
            prop_assert!(check::inclusion(&all[place(index)], index, size, &path, &root_now));
            let Ok(path) = consistency(&nodes, from, size);
            let before = naive(&all[..place(from)]);
            prop_assert!(check::consistency((from, &before), (size, &root_now), &path));
        }
    }
}
