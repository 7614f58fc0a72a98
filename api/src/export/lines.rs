//! `csv`, `jsonl` and `parquet`: a row for each line of each charge, and for each adjustment.

use std::collections::BTreeMap;

use ledger::{Adjusted, Entry, Hold, Settled};
use serde::Serialize;

use super::rows::{Cell, Columns, Rows};
use super::{ExportError, Packages};
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
];

/// A row of `jsonl`; numbers that can grow are decimal strings. What an adjustment does not have is
/// null.
#[derive(Serialize)]
struct Row<'a> {
    entry: u64,
    /// `usage`, `adjustment` or `correction`.
    kind: &'a str,
    /// The instant whose windows and prices count.
    time: &'a str,
    recorded_at: &'a str,
    execution: Option<&'a str>,
    tenant: &'a str,
    project: Option<&'a str>,
    function: Option<&'a str>,
    key: Option<&'a str>,
    image: Option<&'a str>,
    tags: &'a BTreeMap<&'a str, &'a str>,
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
        packages: &Packages,
        out: &mut Vec<u8>,
    ) -> Result<(), ExportError> {
        let hold = &settled.hold;
        let (time, recorded_at) = (rfc3339(hold.opened_at), rfc3339(entry.at));
        let execution = ids::text(Kind::Execution, &hold.execution.0);
        let tags = tags(hold);
        for line in &settled.charge.lines {
            let row = Row {
                entry: entry.seq,
                kind: "usage",
                time: &time,
                recorded_at: &recorded_at,
                execution: Some(&execution),
                tenant: &hold.tenant,
                project: Some(&hold.project),
                function: hold.function.as_deref(),
                key: Some(&hold.key),
                image: Some(&hold.image),
                tags: &tags,
                meter: Some(line.meter.name()),
                tier: Some(line.tier),
                quantity: Some(line.quantity.to_string()),
                unit: Some(
                    match packages.contains(&(hold.rate_card, line.meter)) && line.rate.0 != 0 {
                        true => "package",
                        false => unit(line.meter),
                    },
                ),
                unit_size: Some(line.unit_size.to_string()),
                rate: Some(shape::plain(&line.rate.to_string()).to_owned()),
                amount: line.amount.to_string(),
                currency: &settled.charge.currency,
                reverses: None,
                description: None,
            };
            self.row(&row, out)?;
        }
        Ok(())
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
        let row = Row {
            entry: entry.seq,
            kind,
            time: &at,
            recorded_at: &at,
            execution: execution.as_deref(),
            tenant: &adjusted.tenant,
            project: hold.map(|hold| hold.project.as_str()),
            function: hold.and_then(|hold| hold.function.as_deref()),
            key: hold.map(|hold| hold.key.as_str()),
            image: hold.map(|hold| hold.image.as_str()),
            tags: &hold.map(tags).unwrap_or_default(),
            meter: None,
            tier: None,
            quantity: None,
            unit: None,
            unit_size: None,
            rate: None,
            amount: adjusted.amount.to_string(),
            currency: &adjusted.currency,
            reverses: adjusted.what.reverses(),
            description: Some(description),
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

impl Row<'_> {
    fn json(&self, out: &mut Vec<u8>) {
        // Nothing in it can fail: names are strings, and memory takes all that is written.
        drop(serde_json::to_writer(&mut *out, self));
        out.push(b'\n');
    }

    fn cells(&self, rows: &mut Rows, out: &mut Vec<u8>) -> Result<(), ExportError> {
        let tags = serde_json::to_string(self.tags).unwrap_or_default();
        let entry = self.entry.to_string();
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let (tier, reverses) = (number(self.tier.map(u64::from)), number(self.reverses));
        let cells = [
            &entry,
            self.kind,
            self.time,
            self.recorded_at,
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
        ];
        rows.row(cells, out)
    }
}
