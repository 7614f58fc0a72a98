//! Rows of the view: the usage of one tenant, project and function in one day or month.
//!
//! Keys sort by tenant, then days before months, then time:
//! `tenant 00 kind u8 | number u32 big-endian | project 00 function`. A value is
//! `version u8 | postcard`.

use serde::{Deserialize, Serialize};

use crate::calendar::{DAY_US, MINUTE_US, month_number};
use crate::clock::Micros;
use crate::codec;
use crate::entry::{Body, Settled};
use crate::money::Money;
use crate::quantity::{Meter, Quantities};
use crate::record::{Posting, Whose};

/// Length of a slot. Every zone's offset today is a multiple of it.
pub(crate) const SLOT_US: i64 = 15 * MINUTE_US;

const VERSION: u8 = 2;

/// What a row covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Grain {
    /// A day in UTC, in slots of 15 minutes.
    Day,
    /// A month in UTC, in one slot.
    Month,
}

/// A row's key.
pub(crate) type Key = Box<[u8]>;

/// Sums of settlements and adjustments.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sums {
    /// What was charged for.
    pub(crate) usage: Quantities,
    /// What was measured above that; rarely anything.
    overrun: Option<Box<Quantities>>,
    /// What each meter cost, in the order of [`Meter::MEASURED`].
    costs: [Money; Meter::MEASURED.len()],
    /// What adjustments came to: of their own instants, whatever they correct.
    pub(crate) adjusted: Money,
}

/// Sums of one slot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Slot {
    /// Which of the day's; 0 in a month.
    pub(crate) number: u8,
    /// The sums.
    pub(crate) sums: Sums,
}

/// A row's value.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The last command that it includes.
    pub(crate) lsn: u64,
    /// The slots with use, in order.
    pub(crate) slots: Vec<Slot>,
}

impl Sums {
    /// Adds what a settlement posts.
    pub(crate) fn post(&mut self, posting: &Posting) {
        self.usage = self.usage.plus(&posting.posted);
        if let Some(overrun) = &posting.overrun {
            self.exceed(overrun);
        }
        for (cost, more) in self.costs.iter_mut().zip(posting.costs) {
            *cost = sum(*cost, more);
        }
    }

    fn settle(&mut self, settled: &Settled) {
        self.usage = self.usage.plus(&settled.posted);
        self.exceed(&settled.overrun);
        for line in &settled.charge.lines {
            self.cost_of(line.meter, line.amount);
        }
    }

    /// Adds what an entry counts for.
    pub(crate) fn count(&mut self, body: &Body) {
        match body {
            Body::Settled(settled) => self.settle(settled),
            Body::Adjusted(adjusted) => self.adjust(adjusted.amount),
            Body::Acted(_) => {}
        }
    }

    /// Takes an entry away that was added before.
    pub(crate) fn take_away(&mut self, body: &Body) {
        match body {
            Body::Settled(settled) => self.unsettle(settled),
            Body::Adjusted(adjusted) => self.adjust(Money(adjusted.amount.0.saturating_neg())),
            Body::Acted(_) => {}
        }
    }

    fn unsettle(&mut self, settled: &Settled) {
        self.usage = self.usage.above(&settled.posted);
        let overrun = self.overrun().above(&settled.overrun);
        self.overrun = (!overrun.is_zero()).then(|| Box::new(overrun));
        for line in &settled.charge.lines {
            self.cost_of(line.meter, Money(line.amount.0.saturating_neg()));
        }
    }

    /// Whether nothing was used and nothing cost anything.
    pub(crate) fn is_zero(&self) -> bool {
        let nothing = Self::default();
        self.usage.is_zero()
            && self.overrun.is_none()
            && (self.costs, self.adjusted) == (nothing.costs, nothing.adjusted)
    }

    fn cost_of(&mut self, meter: Meter, amount: Money) {
        if let Some(cost) = meter.place().and_then(|place| self.costs.get_mut(place)) {
            *cost = sum(*cost, amount);
        }
    }

    /// Adds an adjustment. What was used was used, so only money changes.
    pub(crate) fn adjust(&mut self, amount: Money) {
        self.adjusted = sum(self.adjusted, amount);
    }

    /// Adds other sums.
    pub(crate) fn add(&mut self, other: &Self) {
        self.usage = self.usage.plus(&other.usage);
        self.exceed(&other.overrun());
        for (cost, more) in self.costs.iter_mut().zip(other.costs) {
            *cost = sum(*cost, more);
        }
        self.adjust(other.adjusted);
    }

    fn exceed(&mut self, overrun: &Quantities) {
        if !overrun.is_zero() {
            self.overrun = Some(Box::new(self.overrun().plus(overrun)));
        }
    }

    /// What was measured above what was charged for.
    pub(crate) fn overrun(&self) -> Quantities {
        self.overrun.as_deref().copied().unwrap_or_default()
    }

    /// What one meter, or everything, cost.
    pub(crate) fn cost(&self, only: Option<Meter>) -> Money {
        let costs = Meter::MEASURED.into_iter().zip(self.costs);
        let wanted = costs.filter(|(meter, _)| only.is_none_or(|only| only == *meter));
        wanted.fold(Money::ZERO, |total, (_, cost)| sum(total, cost))
    }
}

fn sum(one: Money, other: Money) -> Money {
    Money(one.0.saturating_add(other.0))
}

impl Row {
    /// The sums of a slot, which is made if it is not there.
    pub(crate) fn slot(&mut self, number: u8) -> &mut Sums {
        // Nearly always the last slot, or one after it.
        let place = match self.slots.last() {
            Some(last) if last.number == number => Ok(self.slots.len() - 1),
            Some(last) if last.number > number => {
                self.slots.binary_search_by_key(&number, |slot| slot.number)
            }
            _ => Err(self.slots.len()),
        };
        let place = place.unwrap_or_else(|place| {
            if self.slots.is_empty() {
                // Most rows of a quiet function never have another one.
                self.slots.reserve_exact(1);
            }
            self.slots.insert(
                place,
                Slot {
                    number,
                    sums: Sums::default(),
                },
            );
            place
        });
        &mut self.slots[place].sums
    }

    /// Appends the value's bytes.
    pub(crate) fn append(&self, into: &mut Vec<u8>) {
        into.push(VERSION);
        codec::append(into, self);
    }

    /// Reads a value; `None` if it is none of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, body) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        postcard::from_bytes(body).ok()
    }
}

/// The day of an instant, counted so that it sorts as an unsigned number.
pub(crate) fn day_number(at: Micros) -> u32 {
    let days = at.div_euclid(DAY_US).saturating_add(1 << 30);
    u32::try_from(days).unwrap_or(0)
}

/// When a slot of a day begins.
pub(crate) fn slot_start(day: u32, slot: u8) -> Micros {
    (i64::from(day) - (1 << 30)) * DAY_US + i64::from(slot) * SLOT_US
}

/// The slot of an instant within its day.
pub(crate) fn slot_number(at: Micros) -> u8 {
    u8::try_from(at.rem_euclid(DAY_US) / SLOT_US).unwrap_or(0)
}

/// The number of an instant's row.
pub(crate) fn number(grain: Grain, at: Micros) -> u32 {
    match grain {
        Grain::Day => day_number(at),
        Grain::Month => month_number(at),
    }
}

/// The first bytes of the keys of a tenant's rows from `number` on.
pub(crate) fn start(tenant: &str, grain: Grain, number: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    append_start(&mut key, tenant, grain, number);
    key
}

fn append_start(key: &mut Vec<u8>, tenant: &str, grain: Grain, number: u32) {
    key.extend_from_slice(tenant.as_bytes());
    key.extend_from_slice(&[0, u8::from(grain == Grain::Month)]);
    key.extend_from_slice(&number.to_be_bytes());
}

/// The key of a row.
pub(crate) fn key(whose: &Whose<'_>, grain: Grain, number: u32) -> Key {
    let mut key = Vec::with_capacity(64);
    append_key(&mut key, whose, grain, number);
    key.into_boxed_slice()
}

/// Appends the key of a row.
pub(crate) fn append_key(key: &mut Vec<u8>, whose: &Whose<'_>, grain: Grain, number: u32) {
    append_start(key, whose.tenant, grain, number);
    key.extend_from_slice(whose.project.as_bytes());
    key.push(0);
    key.extend_from_slice(whose.function.unwrap_or("").as_bytes());
}

/// Number, project and function out of the key of a row of `tenant`.
pub(crate) fn parse<'a>(tenant: &str, key: &'a [u8]) -> Option<(u32, &'a str, Option<&'a str>)> {
    let rest = key.get(tenant.len() + 2..)?;
    let (number, names) = rest.split_at_checked(4)?;
    let number = u32::from_be_bytes(number.try_into().ok()?);
    let end = names.iter().position(|byte| *byte == 0)?;
    let project = std::str::from_utf8(names.get(..end)?).ok()?;
    let function = std::str::from_utf8(names.get(end + 1..)?).ok()?;
    Some((
        number,
        project,
        Some(function).filter(|function| !function.is_empty()),
    ))
}
