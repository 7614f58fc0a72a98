//! Writing stored numbers and texts one after the other, without serde: several times faster, for
//! the records that nearly all are.

use super::number;
use crate::id::Id;
use crate::money::Money;
use crate::quantity::{Meter, Quantities};

/// Bytes gathered before they are appended: most of a record's numbers, or a text.
const GATHERED: usize = 256;
/// The most bytes that a number takes.
const NUMBER_MAX: usize = 19;

/// Writes into the end of a buffer; what is gathered goes there with [`Pen::end`].
#[derive(Debug)]
pub(crate) struct Pen<'a> {
    into: &'a mut Vec<u8>,
    gathered: [u8; GATHERED],
    count: usize,
}

impl<'a> Pen<'a> {
    /// Begins to write at the end of a buffer.
    pub(crate) fn new(into: &'a mut Vec<u8>) -> Self {
        Self {
            into,
            gathered: [0; GATHERED],
            count: 0,
        }
    }

    /// Ends the writing.
    pub(crate) fn end(mut self) {
        self.flush();
    }

    fn flush(&mut self) {
        let gathered = self.gathered.get(..self.count).unwrap_or_default();
        self.into.extend_from_slice(gathered);
        self.count = 0;
    }

    /// Makes room for so many bytes, of which there are few.
    #[inline]
    fn reserve(&mut self, count: usize) {
        if self.count + count > GATHERED {
            self.flush();
        }
    }

    #[inline]
    fn put(&mut self, byte: u8) {
        if let Some(place) = self.gathered.get_mut(self.count) {
            *place = byte;
            self.count += 1;
        }
    }

    /// A byte.
    pub(crate) fn byte(&mut self, byte: u8) {
        self.reserve(1);
        self.put(byte);
    }

    /// Yes or no.
    pub(crate) fn bool(&mut self, yes: bool) {
        self.byte(u8::from(yes));
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        match self.gathered.get_mut(self.count..self.count + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.count += bytes.len();
            }
            // More than is ever gathered: what was before it is appended.
            None => self.into.extend_from_slice(bytes),
        }
    }

    /// A number of at most 64 bits.
    #[inline]
    pub(crate) fn long(&mut self, number: u64) {
        self.reserve(NUMBER_MAX);
        self.low(number);
    }

    #[inline]
    fn low(&mut self, mut number: u64) {
        if number < 0x80 {
            return self.put(number.to_le_bytes()[0]);
        }
        if let Some((bytes, count)) = number::stored(number)
            && let Some(place) = self.gathered.get_mut(self.count..self.count + 8)
        {
            place.copy_from_slice(&bytes.to_le_bytes());
            self.count += usize::try_from(count).unwrap_or(0);
            return;
        }
        while number >= 0x80 {
            self.put(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.put(number.to_le_bytes()[0]);
    }

    /// A number of at most 128 bits.
    pub(crate) fn wide(&mut self, mut number: u128) {
        self.reserve(NUMBER_MAX);
        loop {
            if let Ok(low) = u64::try_from(number) {
                return self.low(low);
            }
            self.put(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
    }

    /// A number with a sign, of at most 64 bits.
    pub(crate) fn signed(&mut self, number: i64) {
        self.long((number << 1 ^ number >> 63).cast_unsigned());
    }

    /// An amount of money.
    pub(crate) fn money(&mut self, Money(number): Money) {
        self.wide((number << 1 ^ number >> 127).cast_unsigned());
    }

    /// How many follow.
    pub(crate) fn count(&mut self, count: usize) {
        self.long(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// A text, with its length before it.
    pub(crate) fn text(&mut self, text: &str) {
        self.array(text.as_bytes());
    }

    /// Bytes, with their number before them.
    pub(crate) fn array(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes(bytes);
    }

    /// An id.
    pub(crate) fn id(&mut self, Id(id): &Id) {
        self.array(id);
    }

    /// A meter.
    pub(crate) fn meter(&mut self, meter: Meter) {
        self.count(meter.place().unwrap_or(Meter::MEASURED.len()));
    }

    /// An amount of every meter.
    pub(crate) fn quantities(&mut self, quantities: &Quantities) {
        self.long(quantities.executions);
        self.long(quantities.cpu_us);
        self.long(quantities.wall_us);
        self.wide(quantities.memory_byte_ms);
        self.long(quantities.egress_bytes);
        self.long(quantities.ingress_bytes);
        self.wide(quantities.storage_byte_ms);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    /// What is written is what serde writes, wherever it is flushed between.
    fn same(value: &(impl Serialize + ?Sized), write: impl Fn(&mut Pen<'_>)) {
        let mut wanted = Vec::new();
        crate::codec::append(&mut wanted, value);
        for before in [0, GATHERED - 20, GATHERED - 1, GATHERED] {
            let mut written = vec![1, 2];
            let mut pen = Pen::new(&mut written);
            (0..before).for_each(|_| pen.byte(7));
            write(&mut pen);
            pen.end();
            assert_eq!(written[2 + before..], wanted);
        }
    }

    #[test]
    fn texts_of_every_length_are_written_whole() {
        for length in [0, 1, 127, 128, GATHERED - 2, GATHERED, GATHERED + 1, 5_000] {
            let text = "x".repeat(length);
            same(&text, |pen| pen.text(&text));
        }
        for (place, meter) in Meter::MEASURED.into_iter().chain([Meter::Cost]).enumerate() {
            same(&meter, |pen| pen.meter(meter));
            assert_eq!(place, meter.place().unwrap_or(7));
        }
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_serde_writes_them(
            number: u128, shift in 0..128_u32, id: [u8; 16],
        ) {
            let number = number >> shift;
            same(&number, |pen| pen.wide(number));
            let money = Money(number.cast_signed());
            same(&money, |pen| pen.money(money));
            same(&Id(id), |pen| pen.id(&Id(id)));
            same(&(shift % 2 == 0), |pen| pen.bool(shift % 2 == 0));
            if let Ok(small) = u64::try_from(number) {
                same(&small, |pen| pen.long(small));
                same(&small.cast_signed(), |pen| pen.signed(small.cast_signed()));
                let quantities = Quantities {
                    cpu_us: small,
                    memory_byte_ms: number,
                    storage_byte_ms: number << 1,
                    ..Quantities::default()
                };
                same(&quantities, |pen| pen.quantities(&quantities));
            }
        }
    }
}
