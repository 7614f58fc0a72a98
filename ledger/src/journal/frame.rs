//! One batch of records on disk: checksummed, and told apart from a half-written one.
//!
//! ```text
//! header  40  magic "FBXF" | payload bytes u32 | first lsn u64 | next seq u64 | records u32
//!             | payload crc u32 | header crc u32 | zero u32
//! payload     records, each: bytes u32 | record
//! padding     zeros up to a multiple of 8
//! trailer  8  payload crc u32 | "FBXE"
//! ```
//! Numbers are little-endian. Both checksums begin with the segment's salt, so that nothing a
//! tenant writes can look like a frame. The last byte is never zero, nor one flipped bit away from
//! it: a frame without it was not written to its end.

use std::ops::Range;

use crc32fast::Hasher;

/// Bytes of a frame's header.
pub(crate) const HEADER: usize = 40;
/// Bytes of a frame's trailer.
pub(crate) const TRAILER: usize = 8;
/// What a frame begins with.
pub(crate) const MAGIC: [u8; 4] = *b"FBXF";
/// What its trailer ends with.
const END: [u8; 4] = *b"FBXE";

/// What the header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    /// Bytes of the payload.
    pub(crate) bytes: u32,
    /// Number of the first record.
    pub(crate) first_lsn: u64,
    /// Number that the next entry gets, within this frame or after.
    pub(crate) next_seq: u64,
    /// How many records there are.
    pub(crate) records: u32,
    payload_crc: u32,
}

impl FrameHeader {
    /// Reads a header; `None` if it is none, or damaged.
    pub(crate) fn decode(bytes: &[u8], salt: u64) -> Option<Self> {
        if bytes.get(..4)? != MAGIC || number(bytes, 32)? != checksum(salt, bytes.get(..32)?) {
            return None;
        }
        (number(bytes, 36)? == 0).then_some(())?;
        Some(Self {
            bytes: number(bytes, 4)?,
            first_lsn: long(bytes, 8)?,
            next_seq: long(bytes, 16)?,
            records: number(bytes, 24)?,
            payload_crc: number(bytes, 28)?,
        })
    }

    /// Bytes of payload, padding and trailer.
    pub(crate) fn rest(&self) -> usize {
        let payload = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        payload
            .saturating_add(padding(payload))
            .saturating_add(TRAILER)
    }

    /// The payload out of everything after the header, if it is whole and undamaged.
    pub(crate) fn payload<'a>(&self, rest: &'a [u8], salt: u64) -> Option<&'a [u8]> {
        let payload = rest.get(..usize::try_from(self.bytes).ok()?)?;
        let trailer = rest.get(self.rest().checked_sub(TRAILER)?..self.rest())?;
        let whole = trailer.get(4..)? == END && number(trailer, 0)? == self.payload_crc;
        let padded = rest
            .get(payload.len()..self.rest() - TRAILER)?
            .iter()
            .all(|byte| *byte == 0);
        (whole && padded && checksum(salt, payload) == self.payload_crc).then_some(payload)
    }
}

/// A frame being filled.
#[derive(Debug)]
pub(crate) struct FrameBuilder {
    bytes: Vec<u8>,
    first_lsn: u64,
    next_seq: u64,
    records: u32,
}

impl FrameBuilder {
    /// An empty frame for records from `first_lsn` on, in the room of an emptied one.
    pub(crate) fn new(first_lsn: u64, next_seq: u64, mut bytes: Vec<u8>) -> Self {
        bytes.resize(HEADER, 0);
        Self {
            bytes,
            first_lsn,
            next_seq,
            records: 0,
        }
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a record with `encode`; says where in the frame its bytes lie. A record of more
    /// than `most` bytes leaves the frame as it was.
    pub(crate) fn push(
        &mut self,
        most: usize,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Range<usize>> {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        encode(&mut self.bytes);
        let length = self.bytes.len() - before - 4;
        if length > most {
            self.bytes.truncate(before);
            return None;
        }
        let prefix = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        self.bytes[before..before + 4].copy_from_slice(&prefix);
        self.records += 1;
        Some(before + 4..before + 4 + length)
    }

    /// The bytes of a record in it.
    pub(crate) fn record(&self, place: &Range<usize>) -> &[u8] {
        self.bytes.get(place.clone()).unwrap_or_default()
    }

    /// The finished frame.
    pub(crate) fn finish(self, salt: u64) -> Vec<u8> {
        let mut bytes = self.bytes;
        let payload = bytes.len() - HEADER;
        let crc = checksum(salt, &bytes[HEADER..]);
        bytes.resize(bytes.len() + padding(payload), 0);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&END);
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&u32::try_from(payload).unwrap_or(u32::MAX).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.first_lsn.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.next_seq.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.records.to_le_bytes());
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        let header_crc = checksum(salt, &bytes[..32]);
        bytes[32..36].copy_from_slice(&header_crc.to_le_bytes());
        bytes
    }
}

/// The records of a payload, each with its offset in the payload; stops at nonsense with `None`.
pub(crate) fn records(payload: &[u8]) -> impl Iterator<Item = Option<(usize, &[u8])>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = payload.get(at..).filter(|rest| !rest.is_empty())?;
        let record = number(rest, 0)
            .and_then(|length| rest.get(4..4 + usize::try_from(length).ok()?))
            .map(|record| (at + 4, record));
        at = record.map_or(payload.len(), |(offset, record)| offset + record.len());
        Some(record)
    })
}

/// The checksum of `bytes` in a segment.
pub(crate) fn checksum(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// The little-endian number at a place.
pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes))
}

/// The long little-endian number at a place.
pub(crate) fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes: [u8; 8] = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(bytes))
}

fn padding(payload: usize) -> usize {
    payload.wrapping_neg() % 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(records: &[&[u8]]) -> Vec<u8> {
        let mut builder = FrameBuilder::new(7, 3, Vec::new());
        for record in records {
            let put = |bytes: &mut Vec<u8>| bytes.extend_from_slice(record);
            builder.push(100, put).unwrap();
        }
        builder.finish(42)
    }

    #[test]
    fn a_frame_gives_back_its_records() {
        let bytes = frame(&[b"one", b"", b"three"]);
        assert_eq!(bytes.len() % 8, 0);
        let header = FrameHeader::decode(&bytes, 42).unwrap();
        assert_eq!(
            (header.first_lsn, header.next_seq, header.records),
            (7, 3, 3)
        );
        let payload = header.payload(&bytes[HEADER..], 42).unwrap();
        let found: Vec<&[u8]> = records(payload).map(|record| record.unwrap().1).collect();
        assert_eq!(found, [&b"one"[..], b"", b"three"]);
    }

    #[test]
    fn any_flipped_bit_and_any_other_salt_is_noticed() {
        let bytes = frame(&[b"one", b"three"]);
        let reads = |bytes: &[u8], salt| {
            FrameHeader::decode(bytes, salt)
                .is_some_and(|h| h.payload(&bytes[HEADER..], salt).is_some())
        };
        assert!(reads(&bytes, 42) && !reads(&bytes, 43));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!reads(&bad, 42), "{bit}");
        }
    }

    #[test]
    fn a_record_that_is_too_long_leaves_no_trace() {
        let mut builder = FrameBuilder::new(1, 1, Vec::new());
        let put = |bytes: &mut Vec<u8>| bytes.extend_from_slice(&[1; 9]);
        assert_eq!(builder.push(8, put), None);
        assert_eq!((builder.records, builder.len()), (0, HEADER));
        assert_eq!(builder.push(9, put), Some(HEADER + 4..HEADER + 13));
    }
}
