//! Reading stored numbers and texts one after the other, without serde: several times faster, for
//! the records that nearly all are.
//!
//! Only the shortest encoding of a number is taken, which is the one that is ever written. What is
//! not taken here is read by serde, which also says what is wrong with it.

use super::number;
use crate::id::Id;
use crate::money::Money;
use crate::quantity::{Meter, Quantities};

/// What is left to read. A read that fails ends the reading: where it stands then means nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(&'a [u8]);

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
        let Some(eight) = self.0.first_chunk::<8>() else {
            return self.byte_by_byte();
        };
        match number::read(*eight) {
            Some((number, count)) => {
                self.0 = self.0.get(usize::try_from(count).ok()?..)?;
                Some(number)
            }
            None => self.byte_by_byte(),
        }
    }

    #[cold]
    fn byte_by_byte(&mut self) -> Option<u64> {
        u64::try_from(self.wide()?).ok()
    }

    /// Passes a number by, if it is this one; `None` is no verdict.
    #[inline]
    pub(super) fn has(&mut self, number: u64) -> Option<()> {
        if number < 0x80 {
            return (u64::from(self.byte()?) == number).then_some(());
        }
        let (bytes, count) = number::stored(number)?;
        let next = u64::from_le_bytes(*self.0.first_chunk::<8>()?);
        self.0 = self.0.get(usize::try_from(count).ok()?..)?;
        let differs = (next ^ bytes) << (64 - 8 * count);
        (differs == 0).then_some(())
    }

    /// The same for an amount of money.
    #[inline]
    pub(super) fn has_money(&mut self, Money(number): Money) -> Option<()> {
        let number = (number << 1 ^ number >> 127).cast_unsigned();
        self.has(u64::try_from(number).ok()?)
    }

    /// The same for how many follow.
    pub(super) fn has_count(&mut self, count: usize) -> Option<()> {
        self.has(u64::try_from(count).ok()?)
    }

    /// The same for a text.
    pub(super) fn has_text(&mut self, text: &str) -> Option<()> {
        self.has_count(text.len())?;
        self.has_bytes(text.as_bytes())
    }

    /// The same for bytes.
    pub(super) fn has_bytes(&mut self, bytes: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(bytes)?;
        Some(())
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

    /// Passes by what must be a text.
    pub(super) fn check_text(&mut self) -> Option<()> {
        let count = self.count()?;
        let bytes = self.bytes(count)?;
        (bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()).then_some(())
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
    fn a_number_is_passed_by_if_it_is_the_one() {
        for bit in 0..56 {
            for number in [1_u64 << bit, (1 << bit) - 1] {
                let mut bytes = Vec::new();
                crate::codec::append(&mut bytes, &number);
                bytes.extend_from_slice(&[0xff; 8]);
                let mut cursor = Cursor::new(&bytes);
                assert_eq!(cursor.has(number), Some(()));
                assert_eq!(cursor.rest(), [0xff; 8]);
                for other in [number ^ 1, number ^ 1 << bit, number ^ 1 << 55] {
                    assert_eq!(Cursor::new(&bytes).has(other), None, "{number} {other}");
                }
            }
        }
        assert_eq!(Cursor::new(b"\x03abc").has_text("abd"), None);
        assert_eq!(Cursor::new(b"\x03abc").has_text("abc"), Some(()));
        assert_eq!(Cursor::new(b"\x02\xff\xff").check_text(), None);
        assert_eq!(Cursor::new("\u{2}\u{e9}".as_bytes()).check_text(), Some(()));
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
