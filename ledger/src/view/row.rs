//! Rows of the view: the usage of one tenant, project and function in one day or month.
//!
//! Keys sort by tenant, then days before months, then time:
//! `tenant 00 kind u8 | number u32 big-endian | project 00 function`. A value is
//! `version u8 | postcard`.

use serde::{Deserialize, Serialize};

use crate::calendar::{DAY_US, MINUTE_US, month_number};
use crate::clock::Micros;
use crate::entry::{Body, Settled};
use crate::money::Money;
use crate::quantity::{Meter, Quantities};
use crate::record::{Pen, Posting, Whose};

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

/// Meters whose costs lie in place, the first ones of [`Meter::MEASURED`].
const COMMON: usize = 4;
/// All others.
const RARE: usize = Meter::MEASURED.len() - COMMON;

/// Sums of settlements and adjustments. Hundreds of thousands may be warm at once, so what is
/// rarely anything lies apart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(into = "StoredSums", from = "StoredSums")]
pub(crate) struct Sums {
    /// What was charged for.
    pub(crate) usage: Quantities,
    costs: [Money; COMMON],
    rare: Option<Box<Rare>>,
}

/// What sums rarely have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Rare {
    /// What was measured above what was charged for.
    overrun: Quantities,
    costs: [Money; RARE],
    /// What adjustments came to: of their own instants, whatever they correct.
    adjusted: Money,
}

/// Sums as they are stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredSums {
    usage: Quantities,
    overrun: Option<Quantities>,
    costs: [Money; Meter::MEASURED.len()],
    adjusted: Money,
}

impl From<Sums> for StoredSums {
    fn from(sums: Sums) -> Self {
        let rare = sums.rare();
        let mut costs = [Money::ZERO; Meter::MEASURED.len()];
        let all = sums.costs.into_iter().chain(rare.costs);
        costs.iter_mut().zip(all).for_each(|(to, cost)| *to = cost);
        Self {
            usage: sums.usage,
            overrun: (!rare.overrun.is_zero()).then_some(rare.overrun),
            costs,
            adjusted: rare.adjusted,
        }
    }
}

impl From<StoredSums> for Sums {
    fn from(stored: StoredSums) -> Self {
        let [a, b, c, d, rest @ ..] = stored.costs;
        let rare = Rare {
            overrun: stored.overrun.unwrap_or_default(),
            costs: rest,
            adjusted: stored.adjusted,
        };
        Self {
            usage: stored.usage,
            costs: [a, b, c, d],
            rare: (rare != Rare::default()).then(|| Box::new(rare)),
        }
    }
}

#[cfg(test)]
impl Sums {
    /// Puts what the first meter costs wrong.
    pub(crate) fn misprice(&mut self, by: i128) {
        self.costs[0].0 += by;
    }
}

impl PartialEq for Sums {
    fn eq(&self, other: &Self) -> bool {
        (self.usage, self.costs, self.rare()) == (other.usage, other.costs, other.rare())
    }
}

impl Eq for Sums {}

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
    /// A word of what lies farthest from its beginning.
    pub(crate) fn near(&self) -> u64 {
        u64::from(self.rare.is_some()) ^ u64::from(self.costs[COMMON - 1] == Money::ZERO)
    }

    /// Writes them as [`StoredSums`] are.
    fn write(&self, pen: &mut Pen<'_>) {
        pen.quantities(&self.usage);
        let overrun = self.rare.as_ref().map(|rare| &rare.overrun);
        let overrun = overrun.filter(|overrun| !overrun.is_zero());
        pen.bool(overrun.is_some());
        if let Some(overrun) = overrun {
            pen.quantities(overrun);
        }
        self.costs.iter().for_each(|cost| pen.money(*cost));
        match &self.rare {
            Some(rare) => {
                rare.costs.iter().for_each(|cost| pen.money(*cost));
                pen.money(rare.adjusted);
            }
            None => pen.bytes(&[0; RARE + 1]),
        }
    }

    fn rare(&self) -> Rare {
        self.rare.as_deref().copied().unwrap_or_default()
    }

    fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Adds what a settlement posts.
    pub(crate) fn post(&mut self, posting: &Posting) {
        self.usage = self.usage.plus(&posting.posted);
        if let Some(overrun) = &posting.overrun {
            self.exceed(overrun);
        }
        self.add_costs(&posting.costs);
    }

    fn add_costs(&mut self, costs: &[Money; Meter::MEASURED.len()]) {
        for (meter, cost) in Meter::MEASURED.into_iter().zip(costs) {
            if *cost != Money::ZERO {
                self.cost_of(meter, *cost);
            }
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
        if self.overrun() != overrun {
            self.rare_mut().overrun = overrun;
        }
        for line in &settled.charge.lines {
            self.cost_of(line.meter, Money(line.amount.0.saturating_neg()));
        }
    }

    /// Whether nothing was used and nothing cost anything.
    pub(crate) fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    fn cost_of(&mut self, meter: Meter, amount: Money) {
        let Some(place) = meter.place() else { return };
        let cost = match place.checked_sub(COMMON) {
            None => self.costs.get_mut(place),
            Some(place) => self.rare_mut().costs.get_mut(place),
        };
        if let Some(cost) = cost {
            *cost = sum(*cost, amount);
        }
    }

    /// Adds an adjustment. What was used was used, so only money changes.
    pub(crate) fn adjust(&mut self, amount: Money) {
        if amount != Money::ZERO {
            let rare = self.rare_mut();
            rare.adjusted = sum(rare.adjusted, amount);
        }
    }

    /// Adds other sums.
    pub(crate) fn add(&mut self, other: &Self) {
        self.usage = self.usage.plus(&other.usage);
        let other = StoredSums::from(other.clone());
        self.exceed(&other.overrun.unwrap_or_default());
        self.add_costs(&other.costs);
        self.adjust(other.adjusted);
    }

    fn exceed(&mut self, overrun: &Quantities) {
        if !overrun.is_zero() {
            let rare = self.rare_mut();
            rare.overrun = rare.overrun.plus(overrun);
        }
    }

    /// What was measured above what was charged for.
    pub(crate) fn overrun(&self) -> Quantities {
        self.rare().overrun
    }

    /// What adjustments came to.
    pub(crate) fn adjusted(&self) -> Money {
        self.rare().adjusted
    }

    /// What one meter, or everything, cost.
    pub(crate) fn cost(&self, only: Option<Meter>) -> Money {
        let all = self.costs.into_iter().chain(self.rare().costs);
        let costs = Meter::MEASURED.into_iter().zip(all);
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
            let (count, room) = (self.slots.len(), self.slots.capacity());
            if count == room {
                // Rows of quiet functions, which most are, have one slot or two.
                self.slots.reserve_exact(count / 2 + 1);
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
        let mut pen = Pen::new(into);
        pen.byte(VERSION);
        pen.long(self.lsn);
        pen.count(self.slots.len());
        for slot in &self.slots {
            pen.byte(slot.number);
            slot.sums.write(&mut pen);
        }
        pen.end();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn sums_of_all_that_there_is_are_stored_in_their_order() {
        let all = Quantities {
            executions: 1,
            cpu_us: 2,
            wall_us: 3,
            memory_byte_ms: 4,
            egress_bytes: 5,
            ingress_bytes: 6,
            storage_byte_ms: 7,
        };
        let costs = [1, 2, 3, 4, 5, 6, 7].map(Money);
        for (overrun, adjusted) in [(None, 0), (Some(all), 0), (None, -9), (Some(all), 9)] {
            let mut sums = Sums {
                usage: all,
                ..Sums::default()
            };
            sums.add_costs(&costs);
            sums.exceed(&overrun.unwrap_or_default());
            sums.adjust(Money(adjusted));
            let (mut bytes, mut wanted) = (Vec::new(), Vec::new());
            codec::append(&mut bytes, &sums);
            codec::append(&mut wanted, &(all, overrun, costs, Money(adjusted)));
            assert_eq!(bytes, wanted);
            assert_eq!(postcard::from_bytes(&bytes), Ok(sums.clone()));
            let slots = vec![(200_u8, sums.clone()), (201, sums.clone())];
            let mut row = Row {
                lsn: 300,
                slots: Vec::new(),
            };
            for (number, sums) in &slots {
                row.slot(*number).add(sums);
            }
            let (mut bytes, mut wanted) = (vec![0], vec![0, VERSION]);
            row.append(&mut bytes);
            codec::append(&mut wanted, &(300_u64, slots));
            assert_eq!(bytes, wanted);
            let mut twice = sums.clone();
            twice.add(&sums);
            assert_eq!(twice.cost(None), Money(56));
            assert_eq!(twice.adjusted(), Money(2 * adjusted));
        }
        assert!(Sums::default().is_zero());
    }

    #[test]
    fn a_slot_takes_less_than_three_cache_lines() {
        assert!(size_of::<Slot>() <= 176, "{}", size_of::<Slot>());
    }
}
