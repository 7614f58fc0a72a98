//! The hashes of two leaves at once: a processor works on one's blocks while it waits for the
//! other's.

use std::slice;

use sha2::block_api::compress256;

use super::{Hash, leaf};

const BLOCK: usize = 64;
/// The state that every hash begins with: FIPS 180-4, 5.3.3.
const BEGIN: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// Leaves that are hashed in their order, as soon as there are two of them.
#[derive(Debug, Default)]
pub(crate) struct Leaves<'a> {
    waits: Option<&'a [u8]>,
}

impl<'a> Leaves<'a> {
    /// Adds a leaf; `on` gets the hashes that are made.
    pub(crate) fn add(&mut self, bytes: &'a [u8], on: impl FnMut(Hash)) {
        match self.waits.take() {
            Some(first) => two([first, bytes]).into_iter().for_each(on),
            None => self.waits = Some(bytes),
        }
    }

    /// Hashes what still waits.
    pub(crate) fn end(self, on: impl FnOnce(Hash)) {
        if let Some(bytes) = self.waits {
            on(leaf(bytes));
        }
    }
}

/// A leaf on its way.
#[derive(Debug)]
struct Lane<'a> {
    leaf: &'a [u8],
    state: [u32; 8],
    /// Blocks that are hashed, and that there are.
    done: usize,
    count: usize,
}

fn two(leaves: [&[u8]; 2]) -> [Hash; 2] {
    let mut lanes = leaves.map(Lane::begin);
    while lanes.iter().any(|lane| lane.done < lane.count) {
        lanes.iter_mut().for_each(Lane::step);
    }
    lanes.map(|lane| lane.hash())
}

impl<'a> Lane<'a> {
    fn begin(leaf: &'a [u8]) -> Self {
        Self {
            leaf,
            state: BEGIN,
            done: 0,
            // Before it lies a zero, behind it a bit that is set, and its length.
            count: (1 + leaf.len() + 8) / BLOCK + 1,
        }
    }

    /// Hashes the next block, if there is one.
    fn step(&mut self) {
        if self.done == self.count {
            return;
        }
        let from = (self.done * BLOCK).checked_sub(1);
        let rest = from.map(|from| self.leaf.get(from..).unwrap_or_default());
        let edge;
        let block = match rest.and_then(<[u8]>::first_chunk) {
            Some(block) => block,
            None => {
                edge = self.edge(rest);
                &edge
            }
        };
        compress256(&mut self.state, slice::from_ref(block));
        self.done += 1;
    }

    /// The first block, where `rest` is nothing, or one at the end that has `rest` of the leaf.
    fn edge(&self, rest: Option<&[u8]>) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let (bytes, at) = rest.map_or((self.leaf, 1), |rest| (rest, 0));
        let room = block.get_mut(at..).unwrap_or_default();
        for (place, byte) in room.iter_mut().zip(bytes) {
            *place = *byte;
        }
        // Where the leaf has ended before this block, so has the bit.
        let length = 1 + self.leaf.len();
        if let Some(place) = length.checked_sub(self.done * BLOCK)
            && let Some(bit) = block.get_mut(place)
        {
            *bit = 0x80;
        }
        if self.done + 1 == self.count {
            let bits = u64::try_from(length).unwrap_or(u64::MAX).saturating_mul(8);
            block[BLOCK - 8..].copy_from_slice(&bits.to_be_bytes());
        }
        block
    }

    fn hash(&self) -> Hash {
        let mut hash = Hash::default();
        for (place, word) in hash.as_chunks_mut().0.iter_mut().zip(self.state) {
            *place = word.to_be_bytes();
        }
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths around the ends of blocks, each beside each other.
    #[test]
    fn two_at_once_are_hashed_as_each_alone() {
        let bytes: Vec<u8> = (0..=255).cycle().take(400).collect();
        let lengths = [
            0, 1, 54, 55, 56, 62, 63, 64, 118, 119, 120, 126, 127, 128, 129, 300, 400,
        ];
        for first in lengths {
            for second in lengths {
                let leaves = [&bytes[..first], &bytes[400 - second..]];
                assert_eq!(two(leaves), leaves.map(leaf), "{first} and {second}");
            }
        }
    }

    #[test]
    fn leaves_are_hashed_in_their_order() {
        let all: Vec<[u8; 8]> = (0..7_u64).map(u64::to_be_bytes).collect();
        for count in 0..all.len() {
            let (mut leaves, mut hashes) = (Leaves::default(), Vec::new());
            let some = &all[..count];
            some.iter()
                .for_each(|bytes| leaves.add(bytes, |hash| hashes.push(hash)));
            leaves.end(|hash| hashes.push(hash));
            let wanted: Vec<Hash> = some.iter().map(|bytes| leaf(bytes)).collect();
            assert_eq!(hashes, wanted);
        }
    }
}
