//! `csv` and `jsonl`: a row for each line of each charge.

use std::collections::BTreeMap;

use ledger::{Entry, Settled};
use serde::Serialize;

use super::Packages;
use crate::clock::rfc3339;
use crate::csv::Table;
use crate::handlers::usage::unit;
use crate::ids::{self, Kind};
use crate::shape;

/// Which of the two.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lines {
    Csv,
    Json,
}

const COLUMNS: [&str; 18] = [
    "entry",
    "time",
    "recorded_at",
    "execution",
    "tenant",
    "project",
    "function",
    "key",
    "image",
    "tags",
    "meter",
    "tier",
    "quantity",
    "unit",
    "unit_size",
    "rate",
    "amount",
    "currency",
];

/// A row of `jsonl`; numbers that can grow are decimal strings.
#[derive(Serialize)]
struct Row<'a> {
    entry: u64,
    /// The instant whose windows and prices count.
    time: &'a str,
    recorded_at: &'a str,
    execution: &'a str,
    tenant: &'a str,
    project: &'a str,
    function: Option<&'a str>,
    key: &'a str,
    image: &'a str,
    tags: &'a BTreeMap<&'a str, &'a str>,
    meter: &'a str,
    tier: u8,
    quantity: String,
    unit: &'a str,
    unit_size: String,
    rate: String,
    amount: String,
    currency: &'a str,
}

impl Lines {
    pub(super) fn head(self, out: &mut Vec<u8>) {
        if let Lines::Csv = self {
            Table::new(out).row(COLUMNS);
        }
    }

    pub(super) fn settlement(
        self,
        entry: &Entry,
        settled: &Settled,
        packages: &Packages,
        out: &mut Vec<u8>,
    ) {
        let hold = &settled.hold;
        let (time, recorded_at) = (rfc3339(hold.opened_at), rfc3339(entry.at));
        let execution = ids::text(Kind::Execution, &hold.execution.0);
        let tags = hold
            .tags
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let tags = tags.collect();
        for line in &settled.charge.lines {
            let row = Row {
                entry: entry.seq,
                time: &time,
                recorded_at: &recorded_at,
                execution: &execution,
                tenant: &hold.tenant,
                project: &hold.project,
                function: hold.function.as_deref(),
                key: &hold.key,
                image: &hold.image,
                tags: &tags,
                meter: line.meter.name(),
                tier: line.tier,
                quantity: line.quantity.to_string(),
                unit: match packages.contains(&(hold.rate_card, line.meter)) && line.rate.0 != 0 {
                    true => "package",
                    false => unit(line.meter),
                },
                unit_size: line.unit_size.to_string(),
                rate: shape::plain(&line.rate.to_string()).to_owned(),
                amount: line.amount.to_string(),
                currency: &settled.charge.currency,
            };
            match self {
                Lines::Csv => row.csv(out),
                Lines::Json => row.json(out),
            }
        }
    }
}

impl Row<'_> {
    fn json(&self, out: &mut Vec<u8>) {
        // Nothing in it can fail: names are strings, and memory takes all that is written.
        drop(serde_json::to_writer(&mut *out, self));
        out.push(b'\n');
    }

    fn csv(&self, out: &mut Vec<u8>) {
        let tags = serde_json::to_string(self.tags).unwrap_or_default();
        Table::new(out).row([
            self.entry.to_string().as_str(),
            self.time,
            self.recorded_at,
            self.execution,
            self.tenant,
            self.project,
            self.function.unwrap_or_default(),
            self.key,
            self.image,
            &tags,
            self.meter,
            &self.tier.to_string(),
            &self.quantity,
            self.unit,
            &self.unit_size,
            &self.rate,
            &self.amount,
            self.currency,
        ]);
    }
}
