//! Which entry a damaged frame has damaged.
//!
//! A checksum covers a whole frame. What its header and its neighbours still say narrows that down
//! to a range of entries; the hashes of the stored tree, if they are there, name the very one.

use std::path::Path;

use crate::error::Fault;
use crate::journal::frame::{self, FrameHeader};
use crate::journal::reader::{Reader, Rest, Step};
use crate::journal::segment;
use crate::merkle;
use crate::record;
use crate::tree;

/// The most of a damaged frame that is looked at; the longest frame is shorter.
const LOOK: usize = 4 << 20;

/// Says more of a fault that may be a damaged frame; `next_seq` is the first entry behind the last
/// good frame.
pub(super) fn damage(dir: &Path, fault: Fault, next_seq: u64) -> Fault {
    let Some(found) = look(dir, &fault) else {
        return fault;
    };
    let fault = Fault {
        seq: next_seq,
        ..fault
    };
    let Some(header) = found.header else {
        return without_header(fault, found.next_after);
    };
    let payload = found.bytes.get(frame::HEADER..).unwrap_or_default();
    let payload = payload
        .get(..payload_len(&header, payload.len()))
        .unwrap_or_default();
    let records: Vec<&[u8]> = frame::records(payload)
        .map_while(|found| found.map(|(_, record)| record))
        .collect();
    let leaves: Vec<&[u8]> = records
        .iter()
        .filter_map(|record| record::leaf(record))
        .collect();
    let parsed = u64::try_from(leaves.len()).unwrap_or(0);
    let end = found.next_after.unwrap_or(next_seq + parsed);
    let named = by_hashes(dir, next_seq, found.next_after, &leaves)
        .or_else(|| by_decoding(next_seq, &records))
        .or_else(|| (end == next_seq + 1).then_some(next_seq));
    let holds = match end.saturating_sub(next_seq) {
        0 => "it holds no entry".to_owned(),
        1 => format!("it holds entry {next_seq}"),
        _ => format!("it holds entries {next_seq} to {}", end - 1),
    };
    let what = match named {
        Some(seq) => format!("the frame is damaged; {holds}; entry {seq} is not as it was written"),
        None => format!("the frame is damaged; {holds}"),
    };
    Fault {
        seq: named.unwrap_or(next_seq),
        what,
        ..fault
    }
}

fn payload_len(header: &FrameHeader, most: usize) -> usize {
    usize::try_from(header.bytes)
        .unwrap_or(usize::MAX)
        .min(most)
}

fn without_header(fault: Fault, next_after: Option<u64>) -> Fault {
    let seq = fault.seq;
    let holds = match next_after {
        Some(end) if end > seq + 1 => format!("; it held entries {seq} to {}", end - 1),
        Some(end) if end == seq + 1 => format!("; it held entry {seq}"),
        Some(_) => "; it held no entry".to_owned(),
        None => String::new(),
    };
    let what = format!("{}; the header of the frame is damaged{holds}", fault.what);
    Fault { what, ..fault }
}

/// What is left of a damaged frame.
struct Found {
    bytes: Vec<u8>,
    header: Option<FrameHeader>,
    /// The first entry of the next whole frame, if one follows.
    next_after: Option<u64>,
}

/// The damaged frame at a fault's place; `None` if the frame there is whole.
fn look(dir: &Path, fault: &Fault) -> Option<Found> {
    let mut reader = Reader::open(&segment::path(dir, fault.segment)).ok()?;
    let salt = reader.header?.salt;
    reader.seek(fault.offset);
    let next = match reader.step().ok()? {
        Step::Frame(_) => return None,
        Step::End(end) => match end.rest {
            Rest::FramesFollow { at } => Some(at),
            Rest::Zeros | Rest::Torn { .. } | Rest::Damaged { .. } => None,
        },
    };
    let length = next.and_then(|at| usize::try_from(at - fault.offset).ok());
    let bytes = reader
        .read(fault.offset, length.unwrap_or(LOOK).min(LOOK))
        .ok()?
        .to_vec();
    let header = FrameHeader::decode(&bytes, salt);
    let next_after = match next {
        Some(at) => {
            let bytes = reader.read(at, frame::HEADER).ok()?;
            FrameHeader::decode(bytes, salt).map(|header| header.next_seq)
        }
        None => None,
    };
    Some(Found {
        bytes,
        header,
        next_after,
    })
}

/// The first entry whose bytes are not those that were hashed into the stored tree.
fn by_hashes(dir: &Path, first: u64, end: Option<u64>, leaves: &[&[u8]]) -> Option<u64> {
    let mut leaves = leaves.iter();
    for seq in first.. {
        let leaf = leaves.next().map(|bytes| merkle::leaf(bytes));
        let hint = tree::leaf_hint(dir, seq - 1)?;
        // The tree may know of an entry that the frame does not look to have any more.
        if leaf.is_none() && end.is_some_and(|end| seq >= end) {
            return None;
        }
        if leaf != Some(hint) {
            return Some(seq);
        }
    }
    None
}

/// The first entry that cannot be one.
fn by_decoding(first: u64, records: &[&[u8]]) -> Option<u64> {
    let mut seq = first;
    for bytes in records {
        match record::whole(bytes) {
            Ok(Some(entry)) if entry.seq == seq => seq += 1,
            Ok(None) => {}
            Ok(Some(_)) => return Some(seq),
            Err(_) => return record::leaf(bytes).map(|_| seq),
        }
    }
    None
}
