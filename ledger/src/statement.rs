//! Statements: what one tenant's period comes to, line by line, from the entries that count in it.
//!
//! A run counts in the period in which it was held, an adjustment in the one in which it was
//! recorded, and in a closed period nothing counts that came after the closing entry. So the
//! statement of a closed period is the same for ever, whenever it is made.

mod totals;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::adjust::Adjustment;
use crate::charges::Charges;
use crate::command::Effect;
use crate::entries;
use crate::entry::{Adjusted, Body, Entry, Funding};
use crate::error::QueryError;
use crate::money::Money;
use crate::period::{self, Period, PeriodState, Phase};
use crate::quantity::Meter;
use crate::query::{ChargeQuery, Only};
use crate::rate::{Charge, RateCard};
use crate::shared::Shared;

pub(crate) use self::totals::totals;
pub use self::totals::{StatementTotal, StatementTotals};

/// Entries that are in memory at once while a period is added up.
const PAGE: usize = 1_000;
/// Adjustments with a line of their own; those beyond share the last line.
const ADJUSTMENTS_MAX: usize = 1_000;
/// Statements of closed periods that are kept in memory.
const KEPT: usize = 64;

/// What a line of a statement is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LineKind {
    /// What an allowance covers, at no price.
    Included,
    /// What was used, in one tier at one rate.
    Usage,
    /// An adjustment.
    Adjustment,
    /// An adjustment that corrects a period which was closed already.
    Correction,
    /// Credit that paid for something which was reversed, and is the tenant's again.
    Refund,
    /// What one grant has paid.
    Credit,
    /// From the exact sum to whole minor units of the currency.
    Rounding,
}

/// A line of a statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatementLine {
    /// What it is.
    pub kind: LineKind,
    /// What was used.
    pub meter: Option<Meter>,
    /// In which tier of its price, from 0.
    pub tier: Option<u8>,
    /// How much, in base units, or packages.
    pub quantity: Option<u128>,
    /// Base units in one priced unit.
    pub unit_size: Option<u64>,
    /// The price of one unit. Where prices look at the month, the amount is the sum of what each
    /// run has added to the month.
    pub rate: Option<Money>,
    /// What it adds to the total.
    pub amount: Money,
    /// The adjustment, or the grant that has paid.
    pub entry: Option<u64>,
    /// The settlement that is reversed.
    pub reverses: Option<u64>,
    /// The closed period that is corrected.
    pub corrects: Option<Period>,
    /// Why; of credit, the name of the grant.
    pub description: Option<String>,
}

/// What one tenant's period comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// The tenant.
    pub tenant: String,
    /// The period, and how it stands.
    pub state: PeriodState,
    /// ISO 4217 code; `None` where nothing counts in the period.
    pub currency: Option<String>,
    /// The last entry that can count.
    pub through: u64,
    /// The lines: what was used by meter and tier, adjustments by entry, credit by grant, rounding.
    pub lines: Vec<StatementLine>,
    /// What is payable: the exact sum of the lines, whole minor units.
    pub total: Money,
}

/// What makes lines one: meter, whether it is charged rather than included, tier, rate, unit size.
type Key = (Meter, bool, u8, Money, u64);

/// What is charged, added up by meter, tier and rate.
#[derive(Debug, Default)]
pub(crate) struct Charged {
    currency: Option<String>,
    lines: BTreeMap<Key, (u128, Money)>,
    /// The exact sum.
    pub(crate) total: Money,
}

/// Everything that counts in a period, added up.
#[derive(Debug, Default)]
struct Sums {
    charged: Charged,
    adjusted: Vec<StatementLine>,
    refunds: Vec<StatementLine>,
    /// By grant.
    drawn: BTreeMap<u64, Money>,
}

/// Statements of closed periods, those asked for last first.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<VecDeque<Arc<Statement>>>);

/// Which entries count: what a statement needs to know of the state.
pub(crate) struct Scope {
    /// The period and how it stands.
    pub(crate) state: PeriodState,
    /// The last entry that can count.
    pub(crate) through: u64,
    cards: Vec<(u64, Arc<RateCard>)>,
}

impl StatementLine {
    fn new(kind: LineKind, amount: Money) -> Self {
        Self {
            kind,
            meter: None,
            tier: None,
            quantity: None,
            unit_size: None,
            rate: None,
            amount,
            entry: None,
            reverses: None,
            corrects: None,
            description: None,
        }
    }
}

/// The statement of a tenant's period.
pub(crate) fn statement(
    shared: &Arc<Shared>,
    tenant: &str,
    period: Period,
) -> Result<Arc<Statement>, QueryError> {
    let scope = scope(shared, period);
    let closed = matches!(scope.state.phase, Phase::Closed(_));
    if let Some(kept) = shared.statements.find(tenant, period).filter(|_| closed) {
        return Ok(kept);
    }
    let mut sums = Sums::default();
    each(shared, Some(tenant), &scope, |entry| {
        sums.take(entry, &scope)
    })?;
    let mut made = sums.finish(tenant, &scope);
    for line in made
        .lines
        .iter_mut()
        .filter(|line| line.kind == LineKind::Credit)
    {
        line.description = grant_name(shared, line.entry)?;
    }
    let made = Arc::new(made);
    if closed {
        shared.statements.keep(Arc::clone(&made));
    }
    Ok(made)
}

/// What a grant is called: by its act, or by the reversal that gave it back.
fn grant_name(shared: &Shared, entry: Option<u64>) -> Result<Option<String>, QueryError> {
    let stored = entry
        .map(|entry| entries::stored(shared, entry))
        .transpose()?;
    let grant = match stored.flatten().map(|(_, entry)| entry.body) {
        Some(Body::Acted(acted)) => match acted.effect {
            Some(Effect::Grant(grant)) => Some(grant),
            _ => None,
        },
        Some(Body::Adjusted(adjusted)) => adjusted.refund(),
        Some(Body::Settled(_)) | None => None,
    };
    Ok(grant.map(|grant| grant.name))
}

/// How a period stands, and what the lines of use and adjustments come to in the statements of all
/// tenants, up to an entry and reading at most so many.
pub(crate) fn sums(
    shared: &Arc<Shared>,
    period: Period,
    until: u64,
    most: u64,
) -> Result<(Phase, BTreeMap<String, Money>), QueryError> {
    let mut scope = scope(shared, period);
    scope.through = scope.through.min(until);
    let mut tenants: BTreeMap<String, Sums> = BTreeMap::new();
    let (mut read, mut entries) = (0, entries(shared, None, &scope));
    while let Some(page) = entries.page(PAGE)? {
        read += u64::try_from(page.len()).unwrap_or(u64::MAX);
        if read > most {
            let fault = format!("is too far: {period} has more than {most} entries");
            return Err(QueryError::Invalid { field: "to", fault });
        }
        for entry in page {
            let tenant = entry.tenant().unwrap_or_default();
            let sums = match tenants.get_mut(tenant) {
                Some(sums) => sums,
                None => tenants.entry(tenant.to_owned()).or_default(),
            };
            sums.take(&entry, &scope);
        }
    }
    let used = |line: &&StatementLine| {
        !matches!(
            line.kind,
            LineKind::Refund | LineKind::Credit | LineKind::Rounding
        )
    };
    let sum = |(tenant, sums): (String, Sums)| {
        let lines = sums.finish(&tenant, &scope).lines;
        let sum = lines.iter().filter(used);
        let sum = sum.fold(Money::ZERO, |sum, line| plus(sum, line.amount));
        (tenant, sum)
    };
    Ok((scope.state.phase, tenants.into_iter().map(sum).collect()))
}

/// What counts in a period as it now stands.
pub(crate) fn scope(shared: &Shared, period: Period) -> Scope {
    let now = shared.clock.now_us();
    let view = shared.fresh_view();
    let state = &view.state;
    let phase = period::phase(state, period, now.max(state.at));
    let cards = state.cards().iter();
    Scope {
        state: PeriodState { period, phase },
        through: match phase {
            Phase::Closed(closed) => closed.entry,
            Phase::Open | Phase::Grace => state.seq,
        },
        cards: cards
            .map(|card| (card.seq, Arc::clone(&card.card)))
            .collect(),
    }
}

/// Calls `on` with every entry of a tenant, or of all, that counts in a period, in order.
pub(crate) fn each(
    shared: &Arc<Shared>,
    tenant: Option<&str>,
    scope: &Scope,
    mut on: impl FnMut(&Entry),
) -> Result<(), QueryError> {
    let mut entries = entries(shared, tenant, scope);
    while let Some(page) = entries.page(PAGE)? {
        page.iter().for_each(|entry| on(entry));
    }
    Ok(())
}

/// What counts in a period, of a tenant or of all.
fn entries(shared: &Arc<Shared>, tenant: Option<&str>, scope: &Scope) -> Charges {
    let period = scope.state.period;
    let query = ChargeQuery {
        after: 0,
        until: Some(scope.through),
        from: Some(period.start()),
        to: Some(period.end()),
        only: Only {
            tenant: tenant.map(str::to_owned),
            ..Only::default()
        },
    };
    Charges::new(Arc::clone(shared), query)
}

impl Scope {
    /// The card that an entry recorded.
    pub(crate) fn card(&self, seq: u64) -> Option<&RateCard> {
        let found = self.cards.iter().find(|(card, _)| *card == seq);
        found.map(|(_, card)| card.as_ref())
    }
}

impl Charged {
    /// Adds what was charged by `card`.
    pub(crate) fn add(&mut self, charge: &Charge, card: Option<&RateCard>) {
        let allows = |meter: Meter| {
            let prices = card.iter().flat_map(|card| &card.prices);
            let mut own = prices.filter(|price| price.meter == meter);
            own.any(|price| price.allowance.included > 0)
        };
        self.currency.get_or_insert_with(|| charge.currency.clone());
        for line in &charge.lines {
            let free = line.tier == 0 && line.rate == Money::ZERO && allows(line.meter);
            let key = (line.meter, !free, line.tier, line.rate, line.unit_size);
            let (quantity, amount) = self.lines.entry(key).or_default();
            *quantity = quantity.saturating_add(line.quantity);
            *amount = plus(*amount, line.amount);
        }
        self.total = plus(self.total, charge.total);
    }

    /// The lines, and their currency.
    pub(crate) fn finish(self) -> (Option<String>, Vec<StatementLine>) {
        let line = |((meter, charged, tier, rate, unit_size), (quantity, amount))| {
            let kind = if charged {
                LineKind::Usage
            } else {
                LineKind::Included
            };
            StatementLine {
                meter: Some(meter),
                tier: Some(tier),
                quantity: Some(quantity),
                unit_size: Some(unit_size),
                rate: Some(rate),
                ..StatementLine::new(kind, amount)
            }
        };
        (self.currency, self.lines.into_iter().map(line).collect())
    }
}

impl Sums {
    fn take(&mut self, entry: &Entry, scope: &Scope) {
        match &entry.body {
            Body::Settled(settled) => {
                let card = scope.card(settled.hold.rate_card);
                self.charged.add(&settled.charge, card);
                self.draw(&settled.funded);
            }
            Body::Adjusted(adjusted) => self.adjust(entry.seq, adjusted),
            Body::Acted(_) => {}
        }
    }

    fn draw(&mut self, funded: &[Funding]) {
        for Funding { grant, amount } in funded {
            let drawn = self.drawn.entry(*grant).or_default();
            *drawn = Money(drawn.0.saturating_sub(amount.0));
        }
    }

    fn adjust(&mut self, seq: u64, adjusted: &Adjusted) {
        let currency = &mut self.charged.currency;
        currency.get_or_insert_with(|| adjusted.currency.clone());
        let kind = match adjusted.corrects {
            Some(_) => LineKind::Correction,
            None => LineKind::Adjustment,
        };
        let description = match &adjusted.what {
            Adjustment::Line { description } => description,
            Adjustment::Reversal { .. } => &adjusted.reason,
        };
        let line = StatementLine {
            entry: Some(seq),
            reverses: adjusted.what.reverses(),
            corrects: adjusted.corrects,
            description: Some(description.clone()),
            ..StatementLine::new(kind, adjusted.amount)
        };
        push(&mut self.adjusted, line);
        self.draw(&adjusted.funded);
        if adjusted.refunded != Money::ZERO {
            let line = StatementLine {
                entry: Some(seq),
                reverses: adjusted.what.reverses(),
                ..StatementLine::new(LineKind::Refund, adjusted.refunded)
            };
            push(&mut self.refunds, line);
        }
    }

    fn finish(self, tenant: &str, scope: &Scope) -> Statement {
        let (currency, mut lines) = self.charged.finish();
        lines.extend(self.adjusted);
        lines.extend(self.refunds);
        lines.extend(self.drawn.into_iter().map(|(grant, amount)| StatementLine {
            entry: Some(grant),
            ..StatementLine::new(LineKind::Credit, amount)
        }));
        let exact = lines
            .iter()
            .fold(Money::ZERO, |sum, line| plus(sum, line.amount));
        let total = currency
            .as_deref()
            .map_or(exact, |code| exact.to_minor(code));
        if currency.is_some() {
            let rounding = Money(total.0.saturating_sub(exact.0));
            lines.push(StatementLine::new(LineKind::Rounding, rounding));
        }
        Statement {
            tenant: tenant.to_owned(),
            state: scope.state,
            currency,
            through: scope.through,
            lines,
            total,
        }
    }
}

/// Adds a line; where there are too many, to the last one, which then stands for several.
fn push(lines: &mut Vec<StatementLine>, line: StatementLine) {
    if lines.len() < ADJUSTMENTS_MAX {
        lines.push(line);
    } else if let Some(last) = lines.last_mut() {
        *last = StatementLine {
            description: Some("this and all later ones".to_owned()),
            ..StatementLine::new(LineKind::Adjustment, plus(last.amount, line.amount))
        };
    }
}

fn plus(one: Money, other: Money) -> Money {
    Money(one.0.saturating_add(other.0))
}

impl Kept {
    fn find(&self, tenant: &str, period: Period) -> Option<Arc<Statement>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |one: &&Arc<Statement>| one.tenant == tenant && one.state.period == period;
        kept.iter().find(is).map(Arc::clone)
    }

    fn keep(&self, statement: Arc<Statement>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front(statement);
        kept.truncate(KEPT);
    }
}
