//! The files of the journal: their names, and the header that each begins with.
//!
//! ```text
//! 0 magic "FBXSEG01" | 8 number u32 | 12 zero u32 | 16 ledger u64 | 24 salt u64 | 32 bytes u64
//! | 40 zeros | 60 crc u32
//! ```
//! A segment is made whole, with its header durable, before its first frame is written. A file that
//! is all zeros was being made when the machine stopped, and is made again.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use super::frame::{checksum, long, number};
use crate::error::{Error, Fault};

/// Bytes of a segment's header: where its first frame begins.
pub(crate) const HEADER: u64 = 64;

const MAGIC: [u8; 8] = *b"FBXSEG01";

/// What a segment says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    /// Its number; the first is 1.
    pub(crate) number: u32,
    /// The ledger that it belongs to.
    pub(crate) ledger: u64,
    /// What its checksums begin with.
    pub(crate) salt: u64,
    /// Its size.
    pub(crate) bytes: u64,
}

impl SegmentHeader {
    /// A header with a new salt. The first segment's salt names the ledger.
    pub(crate) fn new(number: u32, ledger: Option<u64>, bytes: u64) -> Self {
        // The standard library's hasher is keyed at random; no more is needed here.
        let salt = RandomState::new().hash_one(number) | 1;
        Self {
            number,
            ledger: ledger.unwrap_or(salt),
            salt,
            bytes,
        }
    }

    /// Its bytes.
    pub(crate) fn encode(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.ledger.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.bytes.to_le_bytes());
        let crc = checksum(0, &bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; `None` if it is none, or damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let whole = bytes.get(..8)? == MAGIC && number(bytes, 60)? == checksum(0, bytes.get(..60)?);
        whole.then_some(())?;
        Some(Self {
            number: number(bytes, 8)?,
            ledger: long(bytes, 16)?,
            salt: long(bytes, 24)?,
            bytes: long(bytes, 32)?,
        })
    }
}

/// The directory of the journal.
pub(crate) fn dir(ledger_dir: &Path) -> PathBuf {
    ledger_dir.join("journal")
}

/// The file of a segment.
pub(crate) fn path(ledger_dir: &Path, number: u32) -> PathBuf {
    dir(ledger_dir).join(format!("{number:08}.seg"))
}

/// The sidecar index of a segment.
pub(crate) fn index_path(ledger_dir: &Path, number: u32) -> PathBuf {
    dir(ledger_dir).join(format!("{number:08}.idx"))
}

/// The numbers of all segments, in order; a gap is a fault.
pub(crate) fn list(ledger_dir: &Path) -> Result<Vec<u32>, Error> {
    let dir = dir(ledger_dir);
    let listing = |source| Error::File {
        what: "list",
        path: dir.clone(),
        source,
    };
    let mut numbers = Vec::new();
    for file in fs::read_dir(&dir).map_err(listing)? {
        let name = file.map_err(listing)?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".seg"));
        if let Some(number) = stem
            .filter(|stem| stem.len() == 8)
            .and_then(|s| s.parse().ok())
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    let gap = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
    match gap {
        None => Ok(numbers),
        Some(pair) => Err(Error::Corrupt {
            fault: Fault {
                segment: pair[0] + 1,
                offset: 0,
                lsn: 0,
                seq: 0,
                what: "the segment is missing".to_owned(),
            },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_and_notice_every_flipped_bit() {
        let header = SegmentHeader::new(7, None, 1 << 20);
        assert_eq!(header.ledger, header.salt);
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Some(header));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad), None, "{bit}");
        }
    }
}
