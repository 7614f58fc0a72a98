//! What the journal stores: one record a command, as bytes behind a version.
//!
//! A record is `kind u8 | version u8 | postcard`. An entry's stored bytes, from the version on, are
//! what the Merkle tree hashes; they are never encoded again. A settlement carries the stored bytes
//! of its hold, which are encoded once, when the hold is opened.
//!
//! What state and view take in is a [`Record`]: numbers, and the hold's bytes behind one pointer
//! that all of them share.

mod cursor;
mod number;
mod pen;
mod quick;
mod stored;

use std::sync::Arc;

use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use self::pen::Pen;
pub(crate) use self::quick::{Ending, Glance, ending, glance, hold};
pub(crate) use self::stored::{HoldRef, Run, SettledRef, SettlementRef, Whose};
use crate::clock::Micros;
use crate::codec;
use crate::command::{Effect, Idempotency};
use crate::entry::{Body, Entry, EntryKind, Funding, Hold};
use crate::id::Id;
use crate::money::Money;
use crate::quantity::{Ceiling, Meter, Quantities};
use crate::rate::Charge;

/// The versions of records. A change of a stored type is a new version, read beside the old ones;
/// each record says the first one that knows it.
const VERSION: u8 = 1;
/// Since adjustments and closed periods.
const VERSION_BOOKS: u8 = 2;
/// Since quotas to come and caps on starts.
const VERSION_SETTINGS: u8 = 3;
/// Since bounds of the scopes that are counted, and windows counted from before.
const VERSION_SCOPES: u8 = 4;
/// The last version.
const VERSION_LAST: u8 = VERSION_SCOPES;

const KIND_HOLD: u8 = 1;
const KIND_RELEASE: u8 = 2;
const KIND_ENTRY: u8 = 3;

/// Bytes of kind and version.
const PREFIX: usize = 2;
/// Bytes of a hold's two ids, before the names.
const IDS: usize = 34;

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

/// An open hold: what deciding needs of it, and its stored bytes for its settlement. It is stored
/// as these bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct OpenHold {
    /// The hold's id.
    pub(crate) id: Id,
    /// The execution that it pays for.
    pub(crate) execution: Id,
    /// The worst case held.
    pub(crate) quantities: Quantities,
    /// What the worst case costs.
    pub(crate) amount: Money,
    /// Entry of the rate card that prices it.
    pub(crate) rate_card: u64,
    /// When it was opened.
    pub(crate) opened_at: Micros,
    /// The caller's retry key.
    pub(crate) idempotency: Option<Idempotency>,
    bytes: Vec<u8>,
    /// Where the names that usage is grouped by end in the bytes, and where all names do.
    names_end: [usize; 2],
}

/// What a settlement changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Posting {
    /// Number of the entry.
    pub(crate) seq: u64,
    /// When it was recorded.
    pub(crate) at: Micros,
    /// The hold that it ends.
    pub(crate) hold: Arc<OpenHold>,
    /// What is charged for.
    pub(crate) posted: Quantities,
    /// What was measured above that; rarely anything.
    pub(crate) overrun: Option<Box<Quantities>>,
    /// What it costs.
    pub(crate) total: Money,
    /// What each meter costs, in the order of [`Meter::MEASURED`].
    pub(crate) costs: [Money; Meter::MEASURED.len()],
    /// What of it is paid from credit.
    pub(crate) funded: Vec<Funding>,
}

/// The outcome of one command, as state and view take it in.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "half of all records are settlements: a box would be an allocation for each"
)]
pub(crate) enum Record {
    /// A hold was opened.
    Hold(Arc<OpenHold>),
    /// A hold was released.
    Release(Arc<Release>),
    /// A hold was settled.
    Settled(Posting),
    /// An act or an adjustment was entered.
    Entered(Arc<Entry>),
}

/// A stored record, as it is read.
#[derive(Debug)]
pub(crate) enum Stored<'a> {
    /// A hold, and the limits that it was granted.
    Hold(Arc<OpenHold>, Ceiling),
    /// A release.
    Release(Arc<Release>),
    /// A settlement, and the hold that it carries.
    Settled(SettlementRef<'a>, Arc<OpenHold>),
    /// An act or an adjustment.
    Entered(Arc<Entry>),
}

/// Holds kept to be used again.
const SPARE_HOLDS: usize = 1_024;

/// What records are read into: room that is used again for one after the other.
#[derive(Debug, Default)]
pub(crate) struct Slate {
    /// Nobody else has these.
    holds: Vec<Arc<OpenHold>>,
    rest: Rest,
}

/// What a settlement says behind its hold, but for texts and flags.
#[derive(Debug, Default)]
struct Rest {
    posted: Quantities,
    overrun: Quantities,
    charge: Charge,
    funded: Vec<Funding>,
}

impl Slate {
    /// Keeps the room of a hold that has ended, if nobody else has it.
    pub(crate) fn keep(&mut self, hold: Arc<OpenHold>) {
        if Arc::strong_count(&hold) == 1 && self.holds.len() < SPARE_HOLDS {
            self.holds.push(hold);
        }
    }
}

/// What lists of entries need of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head<'a> {
    /// When it was recorded.
    pub(crate) at: Micros,
    /// What it records.
    pub(crate) kind: EntryKind,
    /// The tenant that it concerns.
    pub(crate) tenant: Option<&'a str>,
    /// The execution that it settles and when that one's hold was opened, if it settles one.
    pub(crate) settles: Option<(Id, Micros)>,
}

impl OpenHold {
    /// Its stored bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The stored bytes of the names that usage is grouped by, from which [`Whose::read`] reads
    /// them: different for different names.
    pub(crate) fn names(&self) -> &[u8] {
        self.bytes.get(IDS..self.names_end[0]).unwrap_or_default()
    }

    /// Whose it is.
    pub(crate) fn whose(&self) -> Option<Whose<'_>> {
        Whose::read(self.names())
    }

    /// All names of its run.
    pub(crate) fn run(&self) -> Option<Run<'_>> {
        Run::read(self.all_names())
    }

    /// The key that it was opened through.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        let [from, to] = self.names_end;
        match self.bytes.get(from..to)? {
            // Its length, below 128, and itself.
            [length @ 0..0x80, key @ ..] if usize::from(*length) == key.len() => Some(key),
            long => postcard::from_bytes(long).ok(),
        }
    }

    /// The stored bytes of all names, from which [`Run::read`] reads them: different for different
    /// names.
    pub(crate) fn all_names(&self) -> &[u8] {
        self.bytes.get(IDS..self.names_end[1]).unwrap_or_default()
    }

    /// The hold, for those who read it.
    pub(crate) fn whole(&self) -> Option<Hold> {
        postcard::from_bytes(&self.bytes).ok()
    }
}

impl Serialize for OpenHold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A tuple of bytes has no length of its own, just as the fields of a hold have none.
        let mut tuple = serializer.serialize_tuple(self.bytes.len())?;
        let mut bytes = self.bytes.iter();
        bytes.try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for OpenHold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hold = HoldRef::deserialize(deserializer)?;
        let mut bytes = Vec::new();
        codec::append(&mut bytes, &hold);
        Ok(hold.open(&bytes))
    }
}

impl Release {
    /// Appends the record's bytes.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&[KIND_RELEASE, VERSION]);
        codec::append(into, self);
    }
}

impl SettlementRef<'_> {
    /// What the settlement changes by ending `hold`.
    pub(crate) fn posting(&self, hold: Arc<OpenHold>) -> Posting {
        let settled = &self.settled;
        let mut costs = [Money::ZERO; Meter::MEASURED.len()];
        for line in &settled.charge.lines {
            if let Some(cost) = line.meter.place().and_then(|place| costs.get_mut(place)) {
                *cost = Money(cost.0.saturating_add(line.amount.0));
            }
        }
        Posting {
            seq: self.seq,
            at: self.at,
            hold,
            posted: *settled.posted,
            overrun: (!settled.overrun.is_zero()).then(|| Box::new(*settled.overrun)),
            total: settled.charge.total,
            costs,
            funded: settled.funded.to_vec(),
        }
    }
}

impl<'a> Stored<'a> {
    /// Reads a record with serde; the message says what is wrong with the bytes.
    fn read(bytes: &'a [u8], slate: &'a mut Slate) -> Result<Self, String> {
        let (kind, body) = split(bytes)?;
        match kind {
            KIND_HOLD => body_of(body).map(|hold: HoldRef<'_>| {
                let open = Arc::new(hold.open(body));
                Self::Hold(open, hold.granted)
            }),
            KIND_RELEASE => body_of(body).map(Self::Release),
            KIND_ENTRY => Self::read_entry(body, &mut slate.rest),
            other => Err(format!("record kind {other} is not known")),
        }
    }

    /// Reads a record; the message says what is wrong with the bytes. A settlement of a hold that
    /// `open` finds shares that one, if it carries just its bytes.
    pub(crate) fn read_in(
        bytes: &'a [u8],
        slate: &'a mut Slate,
        open: impl FnOnce(&Id) -> Option<Arc<OpenHold>>,
    ) -> Result<Self, String> {
        match quick::read(bytes, slate, open) {
            Some(found) => Ok(found.stored(&slate.rest)),
            None => Self::read(bytes, slate),
        }
    }

    fn read_entry(body: &'a [u8], slate: &'a mut Rest) -> Result<Self, String> {
        let ((seq, at, what), rest): ((u64, Micros, u32), _) = part_of(body)?;
        if what != stored::SETTLED {
            return body_of(body).map(Self::Entered);
        }
        let (hold, behind): (HoldRef<'a>, _) = part_of(rest)?;
        let bytes = rest.get(..rest.len() - behind.len()).unwrap_or_default();
        let (outcome, estimated) = slate.read(behind)?;
        let settlement = SettlementRef {
            seq,
            at,
            hold: bytes,
            settled: slate.settled(outcome, estimated),
        };
        Ok(Self::Settled(settlement, Arc::new(hold.open(bytes))))
    }

    /// The number of the entry, where it is one.
    pub(crate) fn seq(&self) -> Option<u64> {
        match self {
            Self::Hold(..) | Self::Release(_) => None,
            Self::Settled(settlement, _) => Some(settlement.seq),
            Self::Entered(entry) => Some(entry.seq),
        }
    }

    /// The hold that it opens or ends, where it carries that.
    pub(crate) fn into_hold(self) -> Option<Arc<OpenHold>> {
        match self {
            Self::Hold(hold, _) | Self::Settled(_, hold) => Some(hold),
            Self::Release(_) | Self::Entered(_) => None,
        }
    }

    /// What lists need of it; `None` if it is no entry.
    pub(crate) fn head(&self) -> Option<Head<'_>> {
        match self {
            Self::Hold(..) | Self::Release(_) => None,
            Self::Settled(settlement, hold) => Some(Head {
                at: settlement.at,
                kind: EntryKind::Settled,
                tenant: hold.whose().map(|whose| whose.tenant),
                settles: Some((hold.execution, hold.opened_at)),
            }),
            Self::Entered(entry) => Some(Head {
                at: entry.at,
                kind: entry.kind(),
                tenant: entry.tenant(),
                settles: None,
            }),
        }
    }

    /// What state and view take in.
    pub(crate) fn record(&self) -> Record {
        match self {
            Self::Hold(hold, _) => Record::Hold(Arc::clone(hold)),
            Self::Release(release) => Record::Release(Arc::clone(release)),
            Self::Settled(settlement, hold) => {
                Record::Settled(settlement.posting(Arc::clone(hold)))
            }
            Self::Entered(entry) => Record::Entered(Arc::clone(entry)),
        }
    }
}

impl Record {
    /// When the command was decided.
    pub(crate) fn at(&self) -> Micros {
        match self {
            Self::Hold(hold) => hold.opened_at,
            Self::Release(release) => release.at,
            Self::Settled(posting) => posting.at,
            Self::Entered(entry) => entry.at,
        }
    }

    /// The number of the entry, where it is one.
    pub(crate) fn seq(&self) -> Option<u64> {
        match self {
            Self::Hold(_) | Self::Release(_) => None,
            Self::Settled(posting) => Some(posting.seq),
            Self::Entered(entry) => Some(entry.seq),
        }
    }
}

fn version(entry: &Entry) -> u8 {
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
        Some(Effect::Settings(_)) => VERSION_SETTINGS,
        Some(Effect::CountScopes(_) | Effect::Counted { .. }) => VERSION_SCOPES,
        _ => VERSION,
    }
}

/// Appends the bytes of an entry's record.
pub(crate) fn encode(entry: &Entry, into: &mut Vec<u8>) {
    into.extend_from_slice(&[KIND_ENTRY, version(entry)]);
    codec::append(into, entry);
}

/// The bytes of a record behind kind and version.
pub(crate) fn body(bytes: &[u8]) -> &[u8] {
    bytes.get(PREFIX..).unwrap_or_default()
}

/// The whole entry in a record's bytes; `None` for other records, if they can be read.
pub(crate) fn whole(bytes: &[u8]) -> Result<Option<Entry>, String> {
    match split(bytes)? {
        (KIND_ENTRY, body) => body_of(body).map(Some),
        _ => Stored::read(bytes, &mut Slate::default()).map(|_other| None),
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
    match leaf {
        [version, body @ ..] => known(*version).and_then(|()| body_of(body)),
        [] => Err("a record has no kind and version".to_owned()),
    }
}

fn split(bytes: &[u8]) -> Result<(u8, &[u8]), String> {
    match bytes {
        [kind, version, body @ ..] => known(*version).map(|()| (*kind, body)),
        _ => Err("a record has no kind and version".to_owned()),
    }
}

fn known(version: u8) -> Result<(), String> {
    if (VERSION..=VERSION_LAST).contains(&version) {
        return Ok(());
    }
    Err(format!(
        "record version {version} is not known; this reads {VERSION} to {VERSION_LAST}"
    ))
}

fn part_of<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<(T, &'a [u8]), String> {
    postcard::take_from_bytes(body).map_err(|error| format!("a record cannot be decoded: {error}"))
}

fn body_of<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    match part_of(body)? {
        (value, []) => Ok(value),
        (_, rest) => Err(format!("a record has {} bytes too many", rest.len())),
    }
}

#[cfg(test)]
mod old;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod upgrade;
