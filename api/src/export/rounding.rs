//! Rounding: the rows that make a tenant's month add up to its statement, to the last digit.
//!
//! A month that was closed is rounded where its closing entry stands, one that is still open at the
//! end and only so far. Only an export of whole tenants has them, of months that it has whole.

use std::collections::BTreeMap;

use ledger::{Body, ChargeQuery, Entry, Funding, Money, Only, Period, Settled};

/// What is added to the exact sum of a tenant's month.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rounding {
    pub(super) period: Period,
    pub(super) tenant: String,
    pub(super) currency: String,
    pub(super) amount: Money,
    /// The entry that closed the month, and when; `None` while it is open.
    pub(super) closed: Option<(u64, i64)>,
    /// The last entry that counts.
    pub(super) through: u64,
}

impl Rounding {
    /// The last instant of the month: where the row counts.
    pub(super) fn time(&self) -> i64 {
        self.period.end().saturating_sub(1)
    }

    pub(super) fn description(&self) -> String {
        match self.closed {
            Some(_) => format!("rounding of {} to whole minor units", self.period),
            None => format!(
                "rounding of {}, which is open, as it now stands",
                self.period
            ),
        }
    }
}

/// The exact sums of months that are not rounded yet, one for each tenant.
#[derive(Debug)]
pub(super) struct Months {
    after: u64,
    from: i64,
    to: i64,
    /// Closing entries to come, and when they were recorded.
    closings: BTreeMap<u64, (i64, Period)>,
    sums: BTreeMap<(Period, String), (String, Money)>,
}

impl Months {
    /// Those of a query; `None` if what it asks for is a part of tenants.
    pub(super) fn new(query: &ChargeQuery) -> Option<Months> {
        let tenants = Only {
            tenant: query.only.tenant.clone(),
            ..Only::default()
        };
        (query.only == tenants).then(|| Months {
            after: query.after,
            from: query.from.unwrap_or(i64::MIN),
            to: query.to.unwrap_or(i64::MAX),
            closings: BTreeMap::new(),
            sums: BTreeMap::new(),
        })
    }

    /// Makes a closing known.
    pub(super) fn closed(&mut self, entry: u64, at: i64, period: Period) {
        self.closings.insert(entry, (at, period));
    }

    /// Adds what counts.
    pub(super) fn add(&mut self, entry: &Entry) {
        let period = Period::of(entry.counts_at());
        if period.start() < self.from || self.to < period.end() {
            return;
        }
        let (tenant, currency, amount) = match &entry.body {
            Body::Settled(settled) => {
                let currency = &settled.charge.currency;
                (&settled.hold.tenant, currency, payable(settled))
            }
            Body::Adjusted(adjusted) => {
                let amount = plus(adjusted.amount, adjusted.refunded);
                let amount = minus(amount, &adjusted.funded);
                (&adjusted.tenant, &adjusted.currency, amount)
            }
            Body::Acted(_) => return,
        };
        let sum = self.sums.entry((period, tenant.clone()));
        let (_, sum) = sum.or_insert_with(|| (currency.clone(), Money::ZERO));
        *sum = plus(*sum, amount);
    }

    /// Rounds what was closed before an entry.
    pub(super) fn before(&mut self, seq: u64) -> Vec<Rounding> {
        let mut rounded = Vec::new();
        while let Some(closing) = self.closings.first_entry().filter(|one| *one.key() < seq) {
            let (entry, (at, period)) = closing.remove_entry();
            let (first, end) = ((period, String::new()), (period.next(), String::new()));
            let mut later = self.sums.split_off(&first);
            let mut rest = later.split_off(&end);
            self.sums.append(&mut rest);
            if entry > self.after {
                rounded.extend(round(later, Some((entry, at)), entry));
            }
        }
        rounded
    }

    /// Rounds all that is left, as it stands at an entry.
    pub(super) fn end(&mut self, through: u64) -> Vec<Rounding> {
        let mut rounded = self.before(through.saturating_add(1));
        rounded.extend(round(std::mem::take(&mut self.sums), None, through));
        rounded
    }
}

fn round(
    sums: BTreeMap<(Period, String), (String, Money)>,
    closed: Option<(u64, i64)>,
    through: u64,
) -> impl Iterator<Item = Rounding> {
    let rounded = sums
        .into_iter()
        .map(move |((period, tenant), (currency, sum))| {
            let amount = Money(sum.to_minor(&currency).0.saturating_sub(sum.0));
            Rounding {
                period,
                tenant,
                currency,
                amount,
                closed,
                through,
            }
        });
    rounded.filter(|one| one.amount != Money::ZERO)
}

fn payable(settled: &Settled) -> Money {
    let lines = settled.charge.lines.iter();
    let charged = lines.fold(Money::ZERO, |sum, line| plus(sum, line.amount));
    minus(charged, &settled.funded)
}

fn minus(amount: Money, funded: &[Funding]) -> Money {
    let left = funded.iter();
    left.fold(amount, |left, one| {
        Money(left.0.saturating_sub(one.amount.0))
    })
}

fn plus(one: Money, other: Money) -> Money {
    Money(one.0.saturating_add(other.0))
}
