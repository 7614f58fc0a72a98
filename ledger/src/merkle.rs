//! The RFC 6962 tree over the entries: leaf and node hashes, and its right edge.

pub(crate) mod check;
pub(crate) mod proof;
mod two;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(crate) use self::two::Leaves;

/// A SHA-256 hash.
pub(crate) type Hash = [u8; 32];

/// Whether `path` shows that the entry stored as `bytes` is entry `seq` of the first `size`, over
/// which the root is `root`.
pub fn check_inclusion(
    bytes: &[u8],
    seq: u64,
    size: u64,
    path: &[[u8; 32]],
    root: &[u8; 32],
) -> bool {
    seq.checked_sub(1)
        .is_some_and(|index| check::inclusion(&leaf(bytes), index, size, path, root))
}

/// Whether `path` shows that the tree of the first size and root is the beginning of the tree of
/// the second.
pub fn check_consistency(
    first: (u64, &[u8; 32]),
    second: (u64, &[u8; 32]),
    path: &[[u8; 32]],
) -> bool {
    check::consistency(first, second, path)
}

/// The hash of a leaf.
pub(crate) fn leaf(bytes: &[u8]) -> Hash {
    Sha256::new()
        .chain_update([0])
        .chain_update(bytes)
        .finalize()
        .into()
}

/// The hash of a node over its two children.
pub(crate) fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// The roots of the largest complete subtrees, left to right: all that appending needs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Leaves so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf by its hash.
    pub(crate) fn push(&mut self, leaf: Hash) {
        self.push_with(leaf, |_level, _hash| ());
    }

    /// Appends a leaf by its hash, and tells `on` the level and hash of every subtree that is
    /// complete with it, the leaf itself (level 0) first.
    pub(crate) fn push_with(&mut self, leaf: Hash, mut on: impl FnMut(u32, &Hash)) {
        let mut hash = leaf;
        on(0, &hash);
        for level in 1..=self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node(&left, &hash);
                on(level, &hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The roots of the largest complete subtrees, left to right.
    pub(crate) fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// The root over all leaves.
    pub(crate) fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else {
            return Sha256::digest([]).into();
        };
        peaks.fold(*last, |right, left| node(left, &right))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The root by the recursive definition.
    pub(crate) fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [only] => *only,
            _ => {
                let left = leaves.len().next_power_of_two() / 2;
                node(&naive(&leaves[..left]), &naive(&leaves[left..]))
            }
        }
    }

    /// The inputs of the test vectors of RFC 6962's reference implementation.
    pub(crate) const LEAVES: [&str; 8] = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];

    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    pub(crate) fn bytes(hex: &str) -> Vec<u8> {
        let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    #[test]
    fn roots_are_those_of_the_rfcs_test_vectors() {
        let mut frontier = Frontier::default();
        assert_eq!(frontier.root().to_vec(), bytes(ROOTS[0]));
        for (i, leaf_hex) in LEAVES.iter().enumerate() {
            frontier.push(leaf(&bytes(leaf_hex)));
            assert_eq!(
                frontier.root().to_vec(),
                bytes(ROOTS[i + 1]),
                "size {}",
                i + 1
            );
            assert_eq!(frontier.size(), u64::try_from(i + 1).unwrap());
        }
    }

    #[test]
    fn appending_agrees_with_the_recursive_definition() {
        let leaves: Vec<Hash> = (0_u32..200).map(|i| leaf(&i.to_be_bytes())).collect();
        let mut frontier = Frontier::default();
        for (i, hash) in leaves.iter().enumerate() {
            frontier.push(*hash);
            assert_eq!(frontier.root(), naive(&leaves[..=i]));
        }
    }
}
