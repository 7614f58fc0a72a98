//! Postcard with two short cuts: into the end of a buffer, and byte arrays as one piece.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// Room taken at once; nearly every record and row fits.
const ROOM: usize = 512;

/// Appends a value's encoding.
pub(crate) fn append<T: Serialize + ?Sized>(into: &mut Vec<u8>, value: &T) {
    into.reserve(ROOM);
    let done = postcard::serialize_with_flavor(value, End(into));
    // A vector takes everything, and the lengths of all stored types are known.
    assert_eq!(done, Ok(()), "a value without a length");
}

/// The end of a buffer.
struct End<'a>(&'a mut Vec<u8>);

impl Flavor for End<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Arrays of bytes, stored as one piece instead of byte by byte.
pub(crate) mod array {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    struct Bytes<const N: usize>;

    impl<const N: usize> Visitor<'_> for Bytes<N> {
        type Value = [u8; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{N} bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
            bytes
                .try_into()
                .map_err(|_other_length| E::invalid_length(bytes.len(), &self))
        }
    }

    pub(crate) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    #[test]
    fn values_of_any_length_are_appended_whole() {
        for length in [0, 1, 500, 509, 510, 511, 5_000, 100_000] {
            let value = vec![7_u8; length];
            let mut bytes = vec![1, 2, 3];
            append(&mut bytes, &value);
            assert_eq!(bytes[..3], [1, 2, 3]);
            assert_eq!(postcard::from_bytes::<Vec<u8>>(&bytes[3..]).unwrap(), value);
        }
    }

    #[test]
    fn arrays_round_trip_and_other_lengths_are_refused() {
        let mut bytes = Vec::new();
        append(&mut bytes, &Id([9; 16]));
        assert_eq!(bytes.len(), 17);
        assert_eq!(postcard::from_bytes::<Id>(&bytes).unwrap(), Id([9; 16]));
        bytes[0] = 15;
        assert!(postcard::from_bytes::<Id>(&bytes).is_err());
    }
}
