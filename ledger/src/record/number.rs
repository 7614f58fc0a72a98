//! Numbers as they are stored: seven bits in each byte, the lowest ones first, and in all but the
//! last one a bit that says that more follow. Eight bytes are put together and taken apart at once.

/// The bits of eight bytes that say that more follow.
const MORE: u64 = 0x8080_8080_8080_8080;

/// The bytes of a number and how many they are; `None` where they are more than eight.
#[inline]
pub(super) fn stored(number: u64) -> Option<(u64, u32)> {
    if number >= 1 << 56 {
        return None;
    }
    // In two halves, then in fours, then seven bits in each byte.
    let word = (number & 0x0fff_ffff) | (number >> 28) << 32;
    let word = (word & 0x0000_3fff_0000_3fff) | (word & 0x0fff_c000_0fff_c000) << 2;
    let word = (word & 0x007f_007f_007f_007f) | (word & 0x3f80_3f80_3f80_3f80) << 1;
    // The highest byte that has something in it is the last one.
    let last = (word | 1).leading_zeros() / 8;
    let more = MORE >> 8 >> (8 * last);
    Some((word | more, 8 - last))
}

/// The number at the beginning of eight bytes, and of how many it is made; `None` where it is more
/// than eight, or there are fewer for the same number.
#[inline]
pub(super) fn read(bytes: [u8; 8]) -> Option<(u64, u32)> {
    let word = u64::from_le_bytes(bytes);
    let ends = !word & MORE;
    if ends == 0 {
        return None;
    }
    // The highest bit of the last byte, and all bits up to it.
    let end = ends.trailing_zeros();
    let word = word & (u64::MAX >> (63 - end));
    // The last byte of the shortest encoding has something in it.
    if word >> (end - 7) == 0 && end > 7 {
        return None;
    }
    // Seven bits of each byte, put together in pairs, then in fours, then all.
    let word = word & !MORE;
    let word = (word & 0x007f_007f_007f_007f) | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let word = (word & 0x0000_3fff_0000_3fff) | (word & 0x3fff_0000_3fff_0000) >> 2;
    Some(((word & 0x0fff_ffff) | (word >> 32) << 28, end / 8 + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn eight_bytes_are_the_most() {
        assert!(stored((1 << 56) - 1).is_some());
        assert_eq!((stored(1 << 56), read([0xff; 8])), (None, None));
        assert_eq!((stored(0), read([0; 8])), (Some((0, 1)), Some((0, 1))));
        assert_eq!(
            read([0x80, 0, 1, 1, 1, 1, 1, 1]),
            None,
            "one byte says as much"
        );
    }

    proptest! {
        #[test]
        fn numbers_are_read_as_they_are_stored(number: u64, shift in 8..64_u32, behind: u64) {
            let number = number >> shift;
            let (word, count) = stored(number).unwrap();
            let mut wanted = Vec::new();
            crate::codec::append(&mut wanted, &number);
            let length = usize::try_from(count).unwrap();
            prop_assert_eq!(&word.to_le_bytes()[..length], wanted.as_slice());
            let mut bytes = behind.to_le_bytes();
            bytes[..length].copy_from_slice(&wanted);
            prop_assert_eq!(read(bytes), Some((number, count)));
        }
    }
}
