//! `csv`, `jsonl` and `parquet`: a row for each line of each charge, for each adjustment, for what
//! each grant has paid of either, and for the rounding of each month.

use std::collections::BTreeMap;

use ledger::{Adjusted, Entry, Funding, Hold, Money, Settled};
use serde::Serialize;

use super::ExportError;
use super::cards::Cards;
use super::rounding::Rounding;
use super::rows::{Cell, Columns, Rows};
use crate::clock::rfc3339;
use crate::handlers::usage::unit;
use crate::ids::{self, Kind};
use crate::shape;

/// What the rows are written as.
#[derive(Debug)]
pub(super) enum Lines {
    Table(Rows),
    Json,
}

pub(super) const COLUMNS: Columns = &[
    ("entry", Cell::Whole),
    ("kind", Cell::Text),
    ("time", Cell::Time),
    ("recorded_at", Cell::Time),
    ("execution", Cell::Text),
    ("tenant", Cell::Text),
    ("project", Cell::Text),
    ("function", Cell::Text),
    ("key", Cell::Text),
    ("image", Cell::Text),
    ("tags", Cell::Text),
    ("meter", Cell::Text),
    ("tier", Cell::Whole),
    ("quantity", Cell::Decimal),
    ("unit", Cell::Text),
    ("unit_size", Cell::Decimal),
    ("rate", Cell::Decimal),
    ("amount", Cell::Decimal),
    ("currency", Cell::Text),
    ("reverses", Cell::Whole),
    ("description", Cell::Text),
    ("grant", Cell::Whole),
];

/// A row of `jsonl`; numbers that can grow are decimal strings. What it does not have is null.
#[derive(Default, Serialize)]
struct Row<'a> {
    /// Null for what no entry says yet: the rounding of a month that is open.
    entry: Option<u64>,
    /// `usage`, `adjustment`, `correction`, `credit`, `refund` or `rounding`.
    kind: &'a str,
    /// The instant whose windows and prices count.
    time: &'a str,
    recorded_at: Option<&'a str>,
    execution: Option<&'a str>,
    tenant: &'a str,
    project: Option<&'a str>,
    function: Option<&'a str>,
    key: Option<&'a str>,
    image: Option<&'a str>,
    tags: BTreeMap<&'a str, &'a str>,
    meter: Option<&'a str>,
    tier: Option<u8>,
    quantity: Option<String>,
    unit: Option<&'a str>,
    unit_size: Option<String>,
    rate: Option<String>,
    amount: String,
    currency: &'a str,
    reverses: Option<u64>,
    description: Option<&'a str>,
    /// The grant that has paid, or to which it was given back.
    grant: Option<u64>,
}

impl Lines {
    pub(super) fn head(&self, out: &mut Vec<u8>) {
        if let Lines::Table(rows) = self {
            rows.head(out);
        }
    }

    pub(super) fn settlement(
        &mut self,
        entry: &Entry,
        settled: &Settled,
        cards: &Cards,
        out: &mut Vec<u8>,
    ) -> Result<(), ExportError> {
        let hold = &settled.hold;
        let (time, recorded_at) = (rfc3339(hold.opened_at), rfc3339(entry.at));
        let execution = ids::text(Kind::Execution, &hold.execution.0);
        let currency = &settled.charge.currency;
        let base = || Row {
            entry: Some(entry.seq),
            time: &time,
            recorded_at: Some(&recorded_at),
            execution: Some(&execution),
            tenant: &hold.tenant,
            currency,
            ..Row::of(hold)
        };
        for line in &settled.charge.lines {
            let row = Row {
                kind: "usage",
                meter: Some(line.meter.name()),
                tier: Some(line.tier),
                quantity: Some(line.quantity.to_string()),
                unit: Some(match cards.sells_packages(hold, line) {
                    true => "package",
                    false => unit(line.meter),
                }),
                unit_size: Some(line.unit_size.to_string()),
                rate: Some(shape::plain(&line.rate.to_string()).to_owned()),
                amount: line.amount.to_string(),
                ..base()
            };
            self.row(&row, out)?;
        }
        self.credit(&settled.funded, base, out)
    }

    pub(super) fn adjustment(
        &mut self,
        entry: &Entry,
        adjusted: &Adjusted,
        out: &mut Vec<u8>,
    ) -> Result<(), ExportError> {
        let hold = adjusted.what.reversed().map(|settled| &*settled.hold);
        let at = rfc3339(entry.at);
        let execution = hold.map(|hold| ids::text(Kind::Execution, &hold.execution.0));
        let (kind, description) = super::said(adjusted);
        let base = || Row {
            entry: Some(entry.seq),
            time: &at,
            recorded_at: Some(&at),
            execution: execution.as_deref(),
            tenant: &adjusted.tenant,
            currency: &adjusted.currency,
            reverses: adjusted.what.reverses(),
            ..hold.map(Row::of).unwrap_or_default()
        };
        let row = Row {
            kind,
            amount: adjusted.amount.to_string(),
            description: Some(description),
            ..base()
        };
        self.row(&row, out)?;
        if adjusted.refunded != Money::ZERO {
            let row = Row {
                kind: "refund",
                amount: adjusted.refunded.to_string(),
                grant: Some(entry.seq),
                ..base()
            };
            self.row(&row, out)?;
        }
        self.credit(&adjusted.funded, base, out)
    }

    /// What grants have paid.
    fn credit<'a>(
        &mut self,
        funded: &[Funding],
        base: impl Fn() -> Row<'a>,
        out: &mut Vec<u8>,
    ) -> Result<(), ExportError> {
        for Funding { grant, amount } in funded {
            let row = Row {
                kind: "credit",
                amount: Money(amount.0.saturating_neg()).to_string(),
                grant: Some(*grant),
                ..base()
            };
            self.row(&row, out)?;
        }
        Ok(())
    }

    pub(super) fn rounding(
        &mut self,
        one: &Rounding,
        out: &mut Vec<u8>,
    ) -> Result<(), ExportError> {
        let (time, closed) = (rfc3339(one.time()), one.closed.map(|(_, at)| rfc3339(at)));
        let row = Row {
            entry: one.closed.map(|(entry, _)| entry),
            kind: "rounding",
            time: &time,
            recorded_at: closed.as_deref(),
            tenant: &one.tenant,
            amount: one.amount.to_string(),
            currency: &one.currency,
            description: Some(&one.description()),
            ..Row::default()
        };
        self.row(&row, out)
    }

    /// Writes what is still held, and the end.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), ExportError> {
        match self {
            Lines::Table(rows) => rows.end(out),
            Lines::Json => Ok(()),
        }
    }

    fn row(&mut self, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), ExportError> {
        match self {
            Lines::Table(rows) => row.cells(rows, out),
            Lines::Json => {
                row.json(out);
                Ok(())
            }
        }
    }
}

fn tags(hold: &Hold) -> BTreeMap<&str, &str> {
    let tags = hold.tags.iter();
    tags.map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

impl<'a> Row<'a> {
    /// What every row of a hold says.
    fn of(hold: &'a Hold) -> Row<'a> {
        Row {
            project: Some(&hold.project),
            function: hold.function.as_deref(),
            key: Some(&hold.key),
            image: Some(&hold.image),
            tags: tags(hold),
            ..Row::default()
        }
    }

    fn json(&self, out: &mut Vec<u8>) {
        // Nothing in it can fail: names are strings, and memory takes all that is written.
        drop(serde_json::to_writer(&mut *out, self));
        out.push(b'\n');
    }

    fn cells(&self, rows: &mut Rows, out: &mut Vec<u8>) -> Result<(), ExportError> {
        let tags = serde_json::to_string(&self.tags).unwrap_or_default();
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let (entry, grant) = (number(self.entry), number(self.grant));
        let (tier, reverses) = (number(self.tier.map(u64::from)), number(self.reverses));
        let cells = [
            entry.as_deref().unwrap_or_default(),
            self.kind,
            self.time,
            self.recorded_at.unwrap_or_default(),
            self.execution.unwrap_or_default(),
            self.tenant,
            self.project.unwrap_or_default(),
            self.function.unwrap_or_default(),
            self.key.unwrap_or_default(),
            self.image.unwrap_or_default(),
            &tags,
            self.meter.unwrap_or_default(),
            tier.as_deref().unwrap_or_default(),
            self.quantity.as_deref().unwrap_or_default(),
            self.unit.unwrap_or_default(),
            self.unit_size.as_deref().unwrap_or_default(),
            self.rate.as_deref().unwrap_or_default(),
            &self.amount,
            self.currency,
            reverses.as_deref().unwrap_or_default(),
            self.description.unwrap_or_default(),
            grant.as_deref().unwrap_or_default(),
        ];
        rows.row(cells, out)
    }
}
