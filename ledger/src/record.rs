//! What the journal stores: one record a command, as bytes behind a version.
//!
//! A record is `kind u8 | version u8 | postcard`. An entry's stored bytes, from the version on, are
//! what the Merkle tree hashes; they are never encoded again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::codec;
use crate::command::Effect;
use crate::entry::{Body, Entry, Hold};
use crate::id::Id;

/// The versions of records. A change of a stored type is a new version, read beside the old ones;
/// each record says the first one that knows it.
const VERSION: u8 = 1;
/// Since adjustments and closed periods.
const VERSION_BOOKS: u8 = 2;

const KIND_HOLD: u8 = 1;
const KIND_RELEASE: u8 = 2;
const KIND_ENTRY: u8 = 3;

/// A hold that ended without a charge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Release {
    /// The hold.
    pub(crate) hold: Id,
    /// When.
    pub(crate) at: Micros,
    /// Why.
    pub(crate) reason: String,
}

/// The outcome of one command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    /// A hold was opened.
    Hold(Arc<Hold>),
    /// A hold was released.
    Release(Arc<Release>),
    /// An entry was made.
    Entry(Arc<Entry>),
}

impl Record {
    /// When the command was decided.
    pub(crate) fn at(&self) -> Micros {
        match self {
            Self::Hold(hold) => hold.opened_at,
            Self::Release(release) => release.at,
            Self::Entry(entry) => entry.at,
        }
    }

    fn version(&self) -> u8 {
        let Self::Entry(entry) = self else {
            return VERSION;
        };
        let effect = match &entry.body {
            Body::Settled(_) => return VERSION,
            Body::Adjusted(_) => return VERSION_BOOKS,
            Body::Acted(acted) => acted.effect.as_ref(),
        };
        match effect {
            Some(
                Effect::ClosePeriod(_)
                | Effect::Propose(_)
                | Effect::Approve { .. }
                | Effect::Reject { .. },
            ) => VERSION_BOOKS,
            _ => VERSION,
        }
    }

    /// Appends the record's bytes.
    pub(crate) fn encode(&self, mut into: Vec<u8>) -> Vec<u8> {
        let kind = match self {
            Self::Hold(_) => KIND_HOLD,
            Self::Release(_) => KIND_RELEASE,
            Self::Entry(_) => KIND_ENTRY,
        };
        into.extend_from_slice(&[kind, self.version()]);
        match self {
            Self::Hold(hold) => codec::append(&mut into, hold.as_ref()),
            Self::Release(release) => codec::append(&mut into, release.as_ref()),
            Self::Entry(entry) => codec::append(&mut into, entry.as_ref()),
        }
        into
    }

    /// Reads a record; the message says what is wrong with the bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let [kind, version, body @ ..] = bytes else {
            return Err("a record has no kind and version".to_owned());
        };
        if !(VERSION..=VERSION_BOOKS).contains(version) {
            return Err(format!(
                "record version {version} is not known; this reads {VERSION} to {VERSION_BOOKS}"
            ));
        }
        match *kind {
            KIND_HOLD => body_of(body).map(|hold| Self::Hold(Arc::new(hold))),
            KIND_RELEASE => body_of(body).map(|release| Self::Release(Arc::new(release))),
            KIND_ENTRY => body_of(body).map(|entry| Self::Entry(Arc::new(entry))),
            other => Err(format!("record kind {other} is not known")),
        }
    }
}

/// The bytes of an entry's record that the Merkle tree hashes; `None` for other records.
pub(crate) fn leaf(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [KIND_ENTRY, leaf @ ..] => Some(leaf),
        _ => None,
    }
}

/// Reads what [`leaf`] gives.
pub(crate) fn entry(leaf: &[u8]) -> Result<Entry, String> {
    match Record::decode(&[&[KIND_ENTRY], leaf].concat())? {
        Record::Entry(entry) => Ok(Arc::unwrap_or_clone(entry)),
        Record::Hold(_) | Record::Release(_) => Err("a record is no entry".to_owned()),
    }
}

fn body_of<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(format!("a record has {} bytes too many", rest.len())),
        Err(error) => Err(format!("a record cannot be decoded: {error}")),
    }
}

#[cfg(test)]
mod old;
#[cfg(test)]
mod upgrade;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_reject_what_is_not_theirs() {
        let release = Release {
            hold: Id([7; 16]),
            at: -5,
            reason: "start failed".to_owned(),
        };
        let record = Record::Release(Arc::new(release));
        let bytes = record.encode(Vec::new());
        assert_eq!(Record::decode(&bytes).unwrap(), record);
        assert_eq!(leaf(&bytes), None);
        for (place, value, says) in [(0, 9, "kind 9"), (1, 3, "version 3")] {
            let mut bad = bytes.clone();
            bad[place] = value;
            assert!(Record::decode(&bad).unwrap_err().contains(says));
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Record::decode(&longer).unwrap_err().contains("too many"));
        assert!(Record::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(Record::decode(&[]).is_err());
    }
}
