//! Reading stored numbers and texts one after the other, without serde: several times faster, for
//! the records that nearly all are.
//!
//! Only the shortest encoding of a number is taken, which is the one that is ever written. What is
//! not taken here is read by serde, which also says what is wrong with it.

use crate::id::Id;
use crate::money::Money;
use crate::quantity::{Meter, Quantities};

/// What is left to read. A read that fails ends the reading: where it stands then means nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(&'a [u8]);

/// The bits of eight bytes that say that more follow, and all others.
const MORE: u64 = 0x8080_8080_8080_8080;

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// All that is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of at most 64 bits.
    #[inline]
    pub(super) fn long(&mut self) -> Option<u64> {
        match self.0.split_first() {
            Some((first, rest)) if *first < 0x80 => {
                self.0 = rest;
                Some(u64::from(*first))
            }
            _ => self.longer(),
        }
    }

    /// A number of two to eight bytes, of which eight lie there, all at once; else one by one.
    fn longer(&mut self) -> Option<u64> {
        let word = self
            .0
            .first_chunk::<8>()
            .map(|eight| u64::from_le_bytes(*eight));
        let word = word.unwrap_or(u64::MAX);
        let ends = !word & MORE;
        let Some(below) = ends.checked_sub(1) else {
            return u64::try_from(self.wide()?).ok();
        };
        // The highest bit of the last byte, and all bits up to it.
        let end = ends & !below;
        let word = word & (end | (end - 1));
        // The last byte of the shortest encoding has something in it.
        if word & (end - (end >> 7)) == 0 {
            return None;
        }
        let count = usize::try_from(end.trailing_zeros() / 8).ok()? + 1;
        self.0 = self.0.get(count..)?;
        // Seven bits of each byte, put together in pairs, then in fours, then all.
        let word = word & !MORE;
        let word = (word & 0x007f_007f_007f_007f) | (word & 0x7f00_7f00_7f00_7f00) >> 1;
        let word = (word & 0x0000_3fff_0000_3fff) | (word & 0x3fff_0000_3fff_0000) >> 2;
        Some((word & 0x0fff_ffff) | (word >> 32) << 28)
    }

    /// A number of at most 128 bits.
    pub(super) fn wide(&mut self) -> Option<u128> {
        let mut number = 0_u128;
        for shift in (0..u128::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            number |= bits << shift;
            if byte < 0x80 {
                let fits = bits << shift >> shift == bits;
                return (fits && (byte != 0 || shift == 0)).then_some(number);
            }
        }
        None
    }

    /// The same, quicker where it has no more than 56.
    #[inline]
    pub(super) fn mostly_long(&mut self) -> Option<u128> {
        let before = self.0;
        if let Some(number) = self.long() {
            return Some(number.into());
        }
        self.0 = before;
        self.wide()
    }

    /// A number with a sign, of at most 64 bits.
    #[inline]
    pub(super) fn signed(&mut self) -> Option<i64> {
        let number = self.long()?;
        let half = (number >> 1).cast_signed();
        Some(if number & 1 == 0 { half } else { !half })
    }

    /// An amount of money.
    #[inline]
    pub(super) fn money(&mut self) -> Option<Money> {
        let number = self.mostly_long()?;
        let half = (number >> 1).cast_signed();
        Some(Money(if number & 1 == 0 { half } else { !half }))
    }

    /// How many follow.
    pub(super) fn count(&mut self) -> Option<usize> {
        usize::try_from(self.long()?).ok()
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let count = self.count()?;
        std::str::from_utf8(self.bytes(count)?).ok()
    }

    /// Passes a text by; whether it is one is asked later: see [`Cursor::are_texts_since`].
    pub(super) fn skip_text(&mut self) -> Option<()> {
        let count = self.count()?;
        self.bytes(count).map(|_text| ())
    }

    /// Whether all texts that were passed by are texts, from `before` on, where they lay: nearly
    /// always all bytes are ASCII, even what lies between them; else `read` reads them again.
    pub(super) fn are_texts_since(
        &self,
        before: &'a [u8],
        read: impl FnOnce(&mut Self) -> Option<()>,
    ) -> bool {
        let passed = before.get(..before.len() - self.0.len());
        let passed = passed.unwrap_or_default();
        passed.is_ascii() || read(&mut Self(passed)).is_some()
    }

    pub(super) fn bool(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// Bytes of a known number, which is said before them.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let fits = self.count()? == N;
        let (taken, rest) = self.0.split_first_chunk::<N>().filter(|_| fits)?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn id(&mut self) -> Option<Id> {
        self.array().map(Id)
    }

    pub(super) fn meter(&mut self) -> Option<Meter> {
        match self.long()? {
            7 => Some(Meter::Cost),
            place => Meter::MEASURED.get(usize::try_from(place).ok()?).copied(),
        }
    }

    pub(super) fn quantities(&mut self) -> Option<Quantities> {
        Some(Quantities {
            executions: self.long()?,
            cpu_us: self.long()?,
            wall_us: self.long()?,
            memory_byte_ms: self.mostly_long()?,
            egress_bytes: self.long()?,
            ingress_bytes: self.long()?,
            storage_byte_ms: self.mostly_long()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;

    /// What is taken is what postcard takes, and no more of the bytes.
    fn agrees<T: PartialEq + Debug + DeserializeOwned>(
        bytes: &[u8],
        read: impl Fn(&mut Cursor<'_>) -> Option<T>,
    ) -> Option<T> {
        let mut cursor = Cursor::new(bytes);
        let found = read(&mut cursor)?;
        let (wanted, rest) = postcard::take_from_bytes::<T>(bytes).unwrap();
        assert_eq!((&found, cursor.rest()), (&wanted, rest), "{bytes:?}");
        Some(found)
    }

    /// What is written is taken, with eight bytes behind it and without.
    fn round<T: PartialEq + Debug + DeserializeOwned + Serialize>(
        value: &T,
        read: impl Fn(&mut Cursor<'_>) -> Option<T>,
    ) {
        let mut bytes = Vec::new();
        crate::codec::append(&mut bytes, value);
        assert_eq!(agrees(&bytes, &read).as_ref(), Some(value));
        bytes.extend_from_slice(&[0xff; 8]);
        assert_eq!(agrees(&bytes, &read).as_ref(), Some(value));
        bytes.truncate(bytes.len() - 9);
        assert_eq!(agrees(&bytes, &read), None);
    }

    #[test]
    fn numbers_of_every_length_are_read_as_they_are_written() {
        for bit in 0..128 {
            for number in [1_u128 << bit, (1 << bit) - 1, u128::MAX >> bit] {
                round(&number, |c| c.wide());
                round(&number, |c| c.mostly_long());
                round(&Money(number.cast_signed()), |c| c.money());
                if let Ok(number) = u64::try_from(number) {
                    round(&number, |c| c.long());
                    round(&number.cast_signed(), |c| c.signed());
                }
            }
        }
    }

    #[test]
    fn only_the_shortest_encoding_is_taken() {
        for bytes in [&[0x80, 0][..], &[0x81, 0x80, 0, 9, 9, 9, 9, 9, 9]] {
            assert_eq!(Cursor::new(bytes).long(), None);
            assert_eq!(Cursor::new(bytes).mostly_long(), None);
        }
        let too_long = [&[0xff; 9][..], &[2]].concat();
        assert_eq!(Cursor::new(&too_long).long(), None);
        assert_eq!(Cursor::new(&[0xff; 30]).wide(), None);
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_what_serde_takes(
            bytes in proptest::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..60)
        ) {
            agrees(&bytes, |c| c.long());
            agrees(&bytes, |c| c.wide());
            agrees(&bytes, |c| c.mostly_long());
            agrees(&bytes, |c| c.signed());
            agrees(&bytes, |c| c.money());
            agrees(&bytes, |c| c.bool());
            agrees(&bytes, |c| c.id());
            agrees(&bytes, |c| c.meter());
            agrees(&bytes, |c| c.quantities());
            agrees(&bytes, |cursor| cursor.text().map(str::to_owned));
        }
    }
}
