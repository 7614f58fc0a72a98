//! The rows of FOCUS that are no use and have no price: credit, adjustments, rounding.

use std::collections::BTreeMap;

use ledger::{Adjusted, Entry, Funding, Money, Settled};

use super::{Focus, HOUR_US, when};
use crate::export::rounding::Rounding;
use crate::export::{ExportError, said};

static NO_TAGS: BTreeMap<String, String> = BTreeMap::new();

/// What a row of credit is of.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Of {
    /// Start of the hour, in microseconds.
    hour: i64,
    tenant: String,
    project: String,
    tags: BTreeMap<String, String>,
    grant: u64,
    currency: String,
}

/// What credit has paid, and of which entries, the first and the last.
pub(super) type Drawn = BTreeMap<Of, (Money, u64, u64)>;

/// A row that is neither use nor has a price.
struct Single<'a> {
    tenant: &'a str,
    project: Option<&'a str>,
    tags: &'a BTreeMap<String, String>,
    /// In which hour it counts.
    at: i64,
    category: &'static str,
    correction: bool,
    description: String,
    amount: Money,
    currency: &'a str,
    entries: Option<(u64, u64)>,
    through: u64,
}

impl Focus {
    /// Adds what credit has paid of a settlement.
    pub(super) fn credit(&mut self, seq: u64, settled: &Settled) {
        for Funding { grant, amount } in &settled.funded {
            let drawn = self.drawn.entry(of(settled, *grant));
            let (sum, _, last) = drawn.or_insert((Money::ZERO, seq, seq));
            *sum = Money(sum.0.saturating_sub(amount.0));
            *last = seq;
        }
    }

    /// Writes what credit has paid.
    pub(super) fn flush_credit(
        &mut self,
        through: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), ExportError> {
        for (of, (amount, first, last)) in std::mem::take(&mut self.drawn) {
            let single = Single {
                tenant: &of.tenant,
                project: Some(&of.project),
                tags: &of.tags,
                at: of.hour,
                category: "Credit",
                correction: false,
                description: words_of(of.grant),
                amount,
                currency: &of.currency,
                entries: Some((first, last)),
                through,
            };
            self.single(&single, out)?;
        }
        Ok(())
    }

    /// A row of its own, and one for each grant that it concerns; those before it are written
    /// first.
    pub(in crate::export) fn adjustment(
        &mut self,
        entry: &Entry,
        adjusted: &Adjusted,
        out: &mut Vec<u8>,
    ) -> Result<(), ExportError> {
        self.flush(out)?;
        let hold = adjusted.what.reversed().map(|settled| &*settled.hold);
        let tags = hold.map(|hold| hold.tags.iter().cloned().collect());
        let (_, description) = said(adjusted);
        let single = |category, description, amount| Single {
            tenant: &adjusted.tenant,
            project: hold.map(|hold| hold.project.as_str()),
            tags: tags.as_ref().unwrap_or(&NO_TAGS),
            at: entry.at,
            category,
            correction: adjusted.corrects.is_some(),
            description,
            amount,
            currency: &adjusted.currency,
            entries: Some((entry.seq, entry.seq)),
            through: entry.seq,
        };
        let amount = adjusted.amount;
        self.single(&single("Adjustment", description.to_owned(), amount), out)?;
        if adjusted.refunded != Money::ZERO {
            let words = format!("Credit given back as grant {}", entry.seq);
            self.single(&single("Credit", words, adjusted.refunded), out)?;
        }
        for Funding { grant, amount } in &adjusted.funded {
            let paid = Money(amount.0.saturating_neg());
            self.single(&single("Credit", words_of(*grant), paid), out)?;
        }
        Ok(())
    }

    /// A row of its own; those before it are written first.
    pub(in crate::export) fn rounding(
        &mut self,
        one: &Rounding,
        out: &mut Vec<u8>,
    ) -> Result<(), ExportError> {
        self.flush(out)?;
        let single = Single {
            tenant: &one.tenant,
            project: None,
            tags: &NO_TAGS,
            at: one.time(),
            category: "Adjustment",
            correction: false,
            description: one.description(),
            amount: one.amount,
            currency: &one.currency,
            entries: one.closed.map(|(entry, _)| (entry, entry)),
            through: one.through,
        };
        self.single(&single, out)
    }

    fn single(&mut self, one: &Single<'_>, out: &mut Vec<u8>) -> Result<(), ExportError> {
        let hour = one.at - one.at.rem_euclid(HOUR_US);
        let mut cells = self.whose((one.tenant, one.project), hour, one.tags);
        cells.extend(when(hour));
        if one.correction {
            cells.push(("ChargeClass", "Correction".to_owned()));
        }
        let amount = one.amount.to_string();
        let costs = ["BilledCost", "EffectiveCost", "ListCost", "ContractedCost"];
        cells.extend(costs.map(|name| (name, amount.clone())));
        if let Some((first, last)) = one.entries {
            cells.push(("x_EntryFirst", first.to_string()));
            cells.push(("x_EntryLast", last.to_string()));
        }
        cells.extend([
            ("ChargeCategory", one.category.to_owned()),
            ("ChargeDescription", one.description.clone()),
            ("ChargeFrequency", "One-Time".to_owned()),
            ("BillingCurrency", one.currency.to_owned()),
            ("PricingCurrency", one.currency.to_owned()),
            ("PricingCurrencyEffectiveCost", amount),
            ("x_Through", one.through.to_string()),
        ]);
        self.row(&cells, out)
    }
}

fn of(settled: &Settled, grant: u64) -> Of {
    let hold = &settled.hold;
    Of {
        hour: hold.opened_at - hold.opened_at.rem_euclid(HOUR_US),
        tenant: hold.tenant.clone(),
        project: hold.project.clone(),
        tags: hold.tags.iter().cloned().collect(),
        grant,
        currency: settled.charge.currency.clone(),
    }
}

fn words_of(grant: u64) -> String {
    format!("Credit of grant {grant}")
}
