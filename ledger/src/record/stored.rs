//! The stored forms of holds and settlements: they borrow their texts, and a settlement takes the
//! bytes of its hold over as they are.
//!
//! [`crate::Hold`] and [`crate::Settled`] are the same bytes for those who keep them.

use serde::{Deserialize, Serialize};

use super::OpenHold;
use super::pen::Pen;
use crate::clock::Micros;
use crate::command::{HoldRequest, Idempotency};
use crate::entry::{Adjusted, Funding};
use crate::id::Id;
use crate::money::Money;
use crate::quantity::{Ceiling, Quantities};
use crate::rate::Charge;
use crate::state::Amounts;

/// Which kind of entry a settlement is, as its place in [`crate::Body`].
pub(super) const SETTLED: u32 = 0;

/// Whose a charge is: the names that usage is grouped by. What belongs to no project, as an
/// adjustment may, has an empty one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Whose<'a> {
    /// The tenant.
    pub(crate) tenant: &'a str,
    /// The project.
    pub(crate) project: &'a str,
    /// The function, if one was invoked.
    pub(crate) function: Option<&'a str>,
}

/// All names of a run: where it is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Run<'a> {
    /// Who pays, and for what.
    #[serde(borrow)]
    pub(crate) whose: Whose<'a>,
    /// Through which key.
    pub(crate) key: &'a str,
}

/// The stored form of [`crate::Hold`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct HoldRef<'a> {
    pub(crate) id: Id,
    pub(crate) execution: Id,
    #[serde(borrow)]
    pub(crate) run: Run<'a>,
    pub(crate) image: &'a str,
    pub(crate) tags: Vec<(&'a str, &'a str)>,
    pub(crate) granted: Ceiling,
    pub(crate) reduced: bool,
    pub(crate) quantities: Quantities,
    pub(crate) amount: Money,
    pub(crate) rate_card: u64,
    pub(crate) opened_at: Micros,
    pub(crate) idempotency: Option<Idempotency>,
}

/// The stored form of [`crate::Settled`], behind its hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct SettledRef<'a> {
    pub(crate) posted: &'a Quantities,
    pub(crate) overrun: &'a Quantities,
    pub(crate) charge: &'a Charge,
    pub(crate) funded: &'a [Funding],
    pub(crate) outcome: &'a str,
    pub(crate) estimated: bool,
}

/// A settlement's entry as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SettlementRef<'a> {
    /// Number of the entry.
    pub(crate) seq: u64,
    /// When it was recorded.
    pub(crate) at: Micros,
    /// The stored bytes of the hold that it ends.
    pub(crate) hold: &'a [u8],
    /// The rest of it.
    pub(crate) settled: SettledRef<'a>,
}

impl<'a> Whose<'a> {
    /// Whose an adjustment is: as the settlement that it reverses, or nobody's below the tenant.
    pub(crate) fn adjusted(adjusted: &'a Adjusted) -> Self {
        let reversed = adjusted.what.reversed().map(|settled| &settled.hold);
        Self {
            tenant: reversed.map_or(&adjusted.tenant, |hold| &hold.tenant),
            project: reversed.map_or("", |hold| &hold.project),
            function: reversed.and_then(|hold| hold.function.as_deref()),
        }
    }

    /// Reads stored names.
    pub(crate) fn read(names: &'a [u8]) -> Option<Self> {
        postcard::from_bytes(names).ok()
    }

    /// How many bytes are stored.
    fn stored_len(&self) -> usize {
        let function = self.function.map_or(0, stored_len);
        stored_len(self.tenant) + stored_len(self.project) + 1 + function
    }
}

/// How many bytes are stored of a text. A length below 128 takes one byte; seven bits of it fit
/// into each.
fn stored_len(text: &str) -> usize {
    let bits = usize::BITS - text.len().leading_zeros();
    usize::try_from(bits.div_ceil(7).max(1)).unwrap_or(1) + text.len()
}

impl<'a> Run<'a> {
    /// The names of a request.
    pub(crate) fn of(request: &'a HoldRequest) -> Self {
        Self {
            whose: Whose {
                tenant: &request.tenant,
                project: &request.project,
                function: request.function.as_deref(),
            },
            key: &request.key,
        }
    }

    /// Reads stored names.
    pub(crate) fn read(names: &'a [u8]) -> Option<Self> {
        postcard::from_bytes(names).ok()
    }

    /// Appends the stored names.
    pub(crate) fn append(&self, into: &mut Vec<u8>) {
        let mut pen = Pen::new(into);
        self.write(&mut pen);
        pen.end();
    }

    fn write(&self, pen: &mut Pen<'_>) {
        pen.text(self.whose.tenant);
        pen.text(self.whose.project);
        pen.bool(self.whose.function.is_some());
        if let Some(function) = self.whose.function {
            pen.text(function);
        }
        pen.text(self.key);
    }
}

impl HoldRef<'_> {
    /// Appends the record's bytes.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        let mut pen = Pen::new(into);
        pen.bytes(&[super::KIND_HOLD, super::VERSION]);
        self.write(&mut pen);
        pen.end();
    }

    fn write(&self, pen: &mut Pen<'_>) {
        pen.id(&self.id);
        pen.id(&self.execution);
        self.run.write(pen);
        pen.text(self.image);
        pen.count(self.tags.len());
        for (key, value) in &self.tags {
            pen.text(key);
            pen.text(value);
        }
        pen.long(self.granted.cpu_ms);
        pen.long(self.granted.wall_ms);
        pen.long(self.granted.cpu_millis.into());
        pen.long(self.granted.memory_bytes);
        pen.bool(self.reduced);
        pen.quantities(&self.quantities);
        pen.money(self.amount);
        pen.long(self.rate_card);
        pen.signed(self.opened_at);
        pen.bool(self.idempotency.is_some());
        if let Some(Idempotency { key, fingerprint }) = &self.idempotency {
            pen.array(key);
            pen.array(fingerprint);
        }
    }

    /// The open hold with these stored `bytes`.
    pub(crate) fn open(&self, bytes: &[u8]) -> OpenHold {
        let mut open = OpenHold::default();
        self.open_in(&mut open, bytes);
        open
    }

    /// Makes `open` the open hold with these stored `bytes`.
    pub(crate) fn open_in(&self, open: &mut OpenHold, bytes: &[u8]) {
        open.id = self.id;
        open.execution = self.execution;
        open.quantities = self.quantities;
        open.amount = self.amount;
        open.rate_card = self.rate_card;
        open.opened_at = self.opened_at;
        open.idempotency = self.idempotency;
        open.bytes.clear();
        open.bytes.extend_from_slice(bytes);
        let whose = super::IDS + self.run.whose.stored_len();
        open.names_end = [whose, whose + stored_len(self.run.key)];
    }
}

impl SettlementRef<'_> {
    /// Appends the record's bytes.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        let mut pen = Pen::new(into);
        pen.bytes(&[super::KIND_ENTRY, super::VERSION]);
        pen.long(self.seq);
        pen.signed(self.at);
        pen.long(SETTLED.into());
        pen.bytes(self.hold);
        self.settled.write(&mut pen);
        pen.end();
    }
}

impl SettledRef<'_> {
    /// What it posts.
    pub(crate) fn posts(&self) -> Amounts {
        Amounts {
            quantities: *self.posted,
            cost: self.charge.total.0,
        }
    }

    /// Appends the stored bytes.
    pub(crate) fn append(&self, into: &mut Vec<u8>) {
        let mut pen = Pen::new(into);
        self.write(&mut pen);
        pen.end();
    }

    fn write(&self, pen: &mut Pen<'_>) {
        pen.quantities(self.posted);
        pen.quantities(self.overrun);
        pen.text(&self.charge.currency);
        pen.money(self.charge.total);
        pen.count(self.charge.lines.len());
        for line in &self.charge.lines {
            pen.meter(line.meter);
            pen.byte(line.tier);
            pen.wide(line.quantity);
            pen.long(line.unit_size);
            pen.money(line.rate);
            pen.money(line.amount);
        }
        pen.count(self.funded.len());
        for Funding { grant, amount } in self.funded {
            pen.long(*grant);
            pen.money(*amount);
        }
        pen.text(self.outcome);
        pen.bool(self.estimated);
    }
}
