//! The quick way to read holds and settlements: without serde, in room that is there, and what a
//! settlement carries of its hold is compared with the open one instead of being read again.
//!
//! `None` is no verdict: such bytes go the long way.

use std::sync::Arc;

use super::cursor::Cursor;
use super::stored::SETTLED;
use super::{
    IDS, KIND_ENTRY, KIND_HOLD, OpenHold, Rest, SettledRef, SettlementRef, Slate, Stored, body_of,
    known,
};
use crate::clock::Micros;
use crate::command::Idempotency;
use crate::entry::Funding;
use crate::id::Id;
use crate::quantity::{Ceiling, Meter, Quantities};
use crate::rate::{Charge, ChargeLine};
use crate::state::Amounts;

/// Quantities that are all zero, as they are stored.
const NOTHING: [u8; Meter::MEASURED.len()] = [0; Meter::MEASURED.len()];

/// What a record is about, as far as its first bytes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Glance<'a> {
    /// A hold: all names of its run as they are stored, and its key.
    Hold(&'a [u8], &'a [u8]),
    /// A settlement of this hold.
    Settled(Id),
}

/// Looks at a record's first bytes.
pub(crate) fn glance(bytes: &[u8]) -> Option<Glance<'_>> {
    let (kind, body) = split(bytes)?;
    if kind == KIND_ENTRY {
        let (_, _, mut cursor) = settlement(body)?;
        return cursor.id().map(Glance::Settled);
    }
    let mut cursor = Cursor::new(body.get(IDS..).filter(|_| kind == KIND_HOLD)?);
    let before = cursor.rest();
    cursor.skip_text()?;
    cursor.skip_text()?;
    if cursor.bool()? {
        cursor.skip_text()?;
    }
    let key = cursor.count()?;
    let key = cursor.bytes(key)?;
    let names = before.get(..before.len() - cursor.rest().len())?;
    Some(Glance::Hold(names, key))
}

/// A settlement, as far as it says what it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ending<'a> {
    /// Number of the entry.
    pub(crate) seq: u64,
    /// When it was recorded.
    pub(crate) at: Micros,
    /// The hold's id.
    pub(crate) id: Id,
    /// The hold's stored bytes, and behind them all others: see [`Slate::settled`].
    pub(crate) hold: &'a [u8],
}

/// Reads the beginning of a settlement; `None` is no verdict.
pub(crate) fn ending(bytes: &[u8]) -> Option<Ending<'_>> {
    let (kind, body) = split(bytes)?;
    let (seq, at, mut cursor) = settlement((kind == KIND_ENTRY).then_some(body)?)?;
    let hold = cursor.rest();
    let id = cursor.id()?;
    Some(Ending { seq, at, id, hold })
}

/// Reads a hold, and the limits that it was granted; `None` is no verdict.
pub(crate) fn hold(bytes: &[u8], slate: &mut Slate) -> Option<(Arc<OpenHold>, Ceiling)> {
    let (kind, body) = split(bytes)?;
    let mut cursor = Cursor::new((kind == KIND_HOLD).then_some(body)?);
    let found = hold_in(&mut cursor, slate)?;
    cursor.rest().is_empty().then_some(found)
}

impl Rest {
    /// Reads it with serde; gives what is behind.
    pub(super) fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<(&'a str, bool), String> {
        let (outcome, estimated);
        (
            self.posted,
            self.overrun,
            self.charge,
            self.funded,
            outcome,
            estimated,
        ) = body_of(bytes)?;
        Ok((outcome, estimated))
    }

    pub(super) fn settled<'a>(&'a self, outcome: &'a str, estimated: bool) -> SettledRef<'a> {
        SettledRef {
            posted: &self.posted,
            overrun: &self.overrun,
            charge: &self.charge,
            funded: &self.funded,
            outcome,
            estimated,
        }
    }
}

impl Slate {
    /// Reads what a settlement says behind its hold.
    pub(crate) fn settled<'a>(&'a mut self, bytes: &'a [u8]) -> Result<SettledRef<'a>, String> {
        let mut cursor = Cursor::new(bytes);
        let texts = rest(&mut cursor, &mut self.rest)
            .and_then(|()| Some((cursor.text()?, cursor.bool()?)))
            .filter(|_| cursor.rest().is_empty());
        let (outcome, estimated) = match texts {
            Some(texts) => texts,
            None => self.rest.read(bytes)?,
        };
        Ok(self.rest.settled(outcome, estimated))
    }

    /// What a settlement posts and charges, if it says nothing else behind its hold: it is charged
    /// as `charge` does in the room that it gets, nothing was measured above what is posted, and no
    /// credit is drawn. `None` is no verdict.
    ///
    /// What it should say is known by then: comparing takes less than reading it.
    pub(crate) fn posts(
        &mut self,
        bytes: &[u8],
        charge: impl FnOnce(Charge, &Quantities) -> Option<Charge>,
    ) -> Option<Amounts> {
        let mut cursor = Cursor::new(bytes);
        let posted = cursor.quantities()?;
        let charge = charge(std::mem::take(&mut self.rest.charge), &posted)?;
        let posts = Amounts {
            quantities: posted,
            cost: charge.total.0,
        };
        let is_charged = has_rest(&mut cursor, &charge);
        self.rest.charge = charge;
        is_charged?;
        cursor.check_text()?;
        cursor.bool()?;
        cursor.rest().is_empty().then_some(posts)
    }
}

/// What was read; a settlement's numbers are on the slate.
pub(super) enum Found<'a> {
    Hold(Arc<OpenHold>, Ceiling),
    Settled(Settled<'a>, Arc<OpenHold>),
}

/// A settlement without what is on the slate.
pub(super) struct Settled<'a> {
    seq: u64,
    at: Micros,
    hold: &'a [u8],
    outcome: &'a str,
    estimated: bool,
}

impl<'a> Found<'a> {
    /// The record, with the rest of a settlement from the slate.
    pub(super) fn stored(self, rest: &'a Rest) -> Stored<'a> {
        match self {
            Self::Hold(hold, granted) => Stored::Hold(hold, granted),
            Self::Settled(settled, hold) => {
                let settlement = SettlementRef {
                    seq: settled.seq,
                    at: settled.at,
                    hold: settled.hold,
                    settled: rest.settled(settled.outcome, settled.estimated),
                };
                Stored::Settled(settlement, hold)
            }
        }
    }
}

/// Reads a hold, or a settlement whose hold is looked for with `open_of`.
pub(super) fn read<'a>(
    bytes: &'a [u8],
    slate: &mut Slate,
    open_of: impl FnOnce(&Id) -> Option<Arc<OpenHold>>,
) -> Option<Found<'a>> {
    let (kind, body) = split(bytes)?;
    if kind == KIND_HOLD {
        return hold(bytes, slate).map(|(hold, granted)| Found::Hold(hold, granted));
    }
    let (seq, at, mut cursor) = settlement(body).filter(|_| kind == KIND_ENTRY)?;
    let before = cursor.rest();
    let open = open_of(&Cursor::new(before).id()?);
    let same = open.and_then(|open| {
        cursor = Cursor::new(before.strip_prefix(open.bytes())?);
        Some(open)
    });
    let hold = match same {
        Some(open) => open,
        None => hold_in(&mut cursor, slate)?.0,
    };
    let hold_bytes = before.get(..before.len() - cursor.rest().len())?;
    rest(&mut cursor, &mut slate.rest)?;
    let settled = Settled {
        seq,
        at,
        hold: hold_bytes,
        outcome: cursor.text()?,
        estimated: cursor.bool()?,
    };
    let whole = cursor.rest().is_empty();
    whole.then_some(Found::Settled(settled, hold))
}

fn split(bytes: &[u8]) -> Option<(u8, &[u8])> {
    match bytes {
        [kind, version, body @ ..] => known(*version).ok().map(|()| (*kind, body)),
        _ => None,
    }
}

/// The number and time of a settlement's entry; its hold comes next.
fn settlement(body: &[u8]) -> Option<(u64, Micros, Cursor<'_>)> {
    let mut cursor = Cursor::new(body);
    let (seq, at, what) = (cursor.long()?, cursor.signed()?, cursor.long()?);
    (what == u64::from(SETTLED)).then_some((seq, at, cursor))
}

/// A hold, and the limits that it was granted.
fn hold_in(cursor: &mut Cursor<'_>, slate: &mut Slate) -> Option<(Arc<OpenHold>, Ceiling)> {
    let mut hold = slate.holds.pop().unwrap_or_default();
    // Nobody else has what lies on a slate.
    let granted = open(cursor, Arc::get_mut(&mut hold)?)?;
    Some((hold, granted))
}

fn open(cursor: &mut Cursor<'_>, open: &mut OpenHold) -> Option<Ceiling> {
    let before = cursor.rest();
    let at = |cursor: &Cursor<'_>| before.len() - cursor.rest().len();
    (open.id, open.execution) = (cursor.id()?, cursor.id()?);
    let texts = cursor.rest();
    open.names_end = texts_of(cursor, |cursor| {
        cursor.skip_text()?;
        Some(at(cursor))
    })?;
    let all_texts = cursor.are_texts_since(texts, |cursor| {
        let read = |cursor: &mut Cursor<'_>| cursor.text().map(|_text| 0);
        texts_of(cursor, read).map(|_ends| ())
    });
    if !all_texts {
        return None;
    }
    let granted = Ceiling {
        cpu_ms: cursor.long()?,
        wall_ms: cursor.long()?,
        cpu_millis: u32::try_from(cursor.long()?).ok()?,
        memory_bytes: cursor.long()?,
    };
    cursor.bool()?;
    open.quantities = cursor.quantities()?;
    open.amount = cursor.money()?;
    open.rate_card = cursor.long()?;
    open.opened_at = cursor.signed()?;
    open.idempotency = None;
    if cursor.bool()? {
        let (key, fingerprint) = (cursor.array()?, cursor.array()?);
        open.idempotency = Some(Idempotency { key, fingerprint });
    }
    open.bytes.clear();
    open.bytes.extend_from_slice(before.get(..at(cursor))?);
    Some(granted)
}

/// Passes all texts of a hold by, each with `pass`, which says where it ends; gives that of the
/// last name that usage is grouped by, and of the last name.
fn texts_of(
    cursor: &mut Cursor<'_>,
    pass: impl Fn(&mut Cursor<'_>) -> Option<usize>,
) -> Option<[usize; 2]> {
    pass(cursor)?;
    let project = pass(cursor)?;
    let whose = if cursor.bool()? {
        pass(cursor)?
    } else {
        project + 1
    };
    let all = pass(cursor)?;
    pass(cursor)?;
    for _ in 0..cursor.count()? {
        pass(cursor)?;
        pass(cursor)?;
    }
    Some([whose, all])
}

/// The numbers of a settlement, behind its hold.
fn rest(cursor: &mut Cursor<'_>, slate: &mut Rest) -> Option<()> {
    slate.posted = cursor.quantities()?;
    slate.overrun = cursor.quantities()?;
    charge(cursor, &mut slate.charge)?;
    slate.funded.clear();
    for _ in 0..cursor.count()? {
        let (grant, amount) = (cursor.long()?, cursor.money()?);
        slate.funded.push(Funding { grant, amount });
    }
    Some(())
}

/// Passes by the numbers of a settlement behind what it posts, if they are that charge alone.
fn has_rest(cursor: &mut Cursor<'_>, charge: &Charge) -> Option<()> {
    cursor.has_bytes(&NOTHING)?;
    cursor.has_text(&charge.currency)?;
    cursor.has_money(charge.total)?;
    cursor.has_count(charge.lines.len())?;
    for line in &charge.lines {
        cursor.has_count(line.meter.place()?)?;
        cursor.has(line.tier.into())?;
        cursor.has(u64::try_from(line.quantity).ok()?)?;
        cursor.has(line.unit_size)?;
        cursor.has_money(line.rate)?;
        cursor.has_money(line.amount)?;
    }
    cursor.has(0)
}

fn charge(cursor: &mut Cursor<'_>, room: &mut Charge) -> Option<()> {
    room.currency.clear();
    room.currency.push_str(cursor.text()?);
    room.total = cursor.money()?;
    room.lines.clear();
    for _ in 0..cursor.count()? {
        room.lines.push(ChargeLine {
            meter: cursor.meter()?,
            tier: cursor.byte()?,
            quantity: cursor.mostly_long()?,
            unit_size: cursor.long()?,
            rate: cursor.money()?,
            amount: cursor.money()?,
        });
    }
    Some(())
}
