//! Exports: the ledger's charges as others read them, in one pass over the settlements and in
//! bounded memory.
//!
//! `csv`, `jsonl` and `parquet` have a row for each line of each charge. `focus` adds up what is
//! alike within an hour, `beancount` and `hledger` within a day; they hold what they add up only so
//! long, and then write it: the same hour or day may come again further down. An adjustment is a
//! row of its own everywhere, and so is the rounding of a month. Money and quantities are exact
//! decimals.

mod books;
mod cards;
mod focus;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
mod rounding;
mod rows;

use std::collections::BTreeMap;

use ledger::{Adjusted, Adjustment, Body, ChargeQuery, Effect, Entry, Period, RateCard};

use self::cards::Cards;
use self::rounding::{Months, Rounding};
use self::rows::Rows;

/// Sums that are held at once.
const SUMS_MAX: usize = 2_048;
/// Settlements that are added up before the sums are written.
const SETTLEMENTS_MAX: usize = 65_536;

/// What an export is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A row for each line of a charge.
    Csv,
    /// The same, as JSON objects, one a line.
    Jsonl,
    /// The same, as typed columns.
    Parquet,
    /// FOCUS 1.2, the specification of cost and usage data.
    Focus,
    /// The same, as typed columns.
    FocusParquet,
    /// Beancount's text.
    Beancount,
    /// hledger's journal.
    Hledger,
}

impl Format {
    /// All of them, with their names in URLs and on the command line.
    pub const ALL: [(Format, &'static str); 7] = [
        (Format::Csv, "csv"),
        (Format::Jsonl, "jsonl"),
        (Format::Parquet, "parquet"),
        (Format::Focus, "focus"),
        (Format::FocusParquet, "focus-parquet"),
        (Format::Beancount, "beancount"),
        (Format::Hledger, "hledger"),
    ];

    /// The format of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Format> {
        let mut all = Format::ALL.iter();
        all.find(|(_, known)| *known == name)
            .map(|(format, _)| *format)
    }

    /// Media type and file name.
    pub(crate) fn file(self) -> (&'static str, &'static str) {
        const PARQUET: &str = "application/vnd.apache.parquet";
        match self {
            Format::Csv => ("text/csv; charset=utf-8", "charges.csv"),
            Format::Jsonl => ("application/x-ndjson", "charges.jsonl"),
            Format::Parquet => (PARQUET, "charges.parquet"),
            Format::Focus => ("text/csv; charset=utf-8", "focus.csv"),
            Format::FocusParquet => (PARQUET, "focus.parquet"),
            Format::Beancount => ("text/plain; charset=utf-8", "charges.beancount"),
            Format::Hledger => ("text/plain; charset=utf-8", "charges.journal"),
        }
    }
}

/// Who bills, as FOCUS wants to know.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// Name of the provider, publisher and issuer of invoices.
    pub provider: String,
    /// Where the service runs.
    pub region: String,
}

/// Why an export cannot begin or go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The program was built without the feature `parquet`.
    #[error(
        "Parquet is not in this build: build Farebox with `--features parquet`, or take csv or focus"
    )]
    NotBuilt,
    /// The file has as many row groups as it may have.
    #[error(
        "a Parquet file has at most {groups} row groups: ask for less at once, with from, to or \
         other filters"
    )]
    TooLong {
        /// How many it may have.
        groups: usize,
    },
    /// A number or time is beyond what a typed column holds.
    #[error("column {column} cannot hold {cell}: take the same export as CSV")]
    Unfit {
        /// The column's name.
        column: &'static str,
        /// What it was to hold.
        cell: String,
    },
    /// The Parquet writer has failed, which memory gives it no cause for.
    #[error("the Parquet writer failed: {reason}")]
    Broken {
        /// In its own words.
        reason: String,
    },
}

/// An export that is being written.
#[derive(Debug)]
pub struct Export {
    writer: Writer,
    cards: Cards,
    /// Entries up to this one are counted, not written.
    after: u64,
    /// `None` where tenants are exported in part.
    months: Option<Months>,
}

#[derive(Debug)]
enum Writer {
    Lines(lines::Lines),
    Focus(focus::Focus),
    Books(books::Books),
}

impl Export {
    /// Begins one of what a query asks for.
    ///
    /// # Errors
    ///
    /// The format is not in this build.
    pub fn new(format: Format, issuer: Issuer, query: &ChargeQuery) -> Result<Export, ExportError> {
        let writer = match format {
            Format::Csv => Writer::Lines(lines::Lines::Table(Rows::Csv(lines::COLUMNS))),
            Format::Jsonl => Writer::Lines(lines::Lines::Json),
            Format::Parquet => Writer::Lines(lines::Lines::Table(Rows::parquet(lines::COLUMNS)?)),
            Format::Focus => Writer::Focus(focus::Focus::new(issuer, Rows::Csv(focus::COLUMNS))),
            Format::FocusParquet => {
                Writer::Focus(focus::Focus::new(issuer, Rows::parquet(focus::COLUMNS)?))
            }
            Format::Beancount => Writer::Books(books::Books::new(books::Style::Beancount)),
            Format::Hledger => Writer::Books(books::Books::new(books::Style::Hledger)),
        };
        Ok(Export {
            writer,
            cards: Cards::default(),
            after: query.after,
            months: Months::new(query),
        })
    }

    /// Whether it rounds months, and needs to be given what counts in them also before the first
    /// entry that it writes.
    pub(crate) fn rounds(&self) -> bool {
        self.months.is_some()
    }

    /// Makes known which entry has closed a month, and when. To be called before the entries behind
    /// it come; those among the entries are found.
    pub fn closed(&mut self, entry: u64, at: i64, period: Period) {
        if let Some(months) = &mut self.months {
            months.closed(entry, at, period);
        }
    }

    /// Makes a rate card known, by the entry that recorded it: what its prices count, and what is
    /// on the list. To be called before a charge by that card comes; those among the entries are
    /// found.
    pub fn card(&mut self, entry: u64, card: &RateCard) {
        self.cards.add(entry, card);
    }

    /// What stands before the first row.
    pub fn head(&self, out: &mut Vec<u8>) {
        match &self.writer {
            Writer::Lines(lines) => lines.head(out),
            Writer::Focus(focus) => focus.head(out),
            Writer::Books(books) => books.head(out),
        }
    }

    /// Takes the next entries, in the order of their numbers. Those before the first one that the
    /// query asks for are only counted.
    ///
    /// # Errors
    ///
    /// The format cannot hold more, or not this; what has been written is no whole export then.
    pub fn entries<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a Entry>,
        out: &mut Vec<u8>,
    ) -> Result<(), ExportError> {
        for entry in entries {
            if let Some(months) = &mut self.months {
                let rounded = months.before(entry.seq);
                months.add(entry);
                self.writer.round(&rounded, out)?;
            }
            match &entry.body {
                Body::Acted(acted) => match &acted.effect {
                    Some(Effect::RateCard(card)) => self.card(entry.seq, card),
                    Some(Effect::ClosePeriod(period)) => self.closed(entry.seq, entry.at, *period),
                    _ => {}
                },
                _ if entry.seq <= self.after => {}
                _ => self.writer.charge(entry, &self.cards, out)?,
            }
        }
        Ok(())
    }

    /// Writes what is still held, and the end. `through` is the last entry of all, whether it
    /// charges something or not.
    ///
    /// # Errors
    ///
    /// As those of [`Export::entries`].
    pub fn end(&mut self, through: u64, out: &mut Vec<u8>) -> Result<(), ExportError> {
        if let Some(months) = &mut self.months {
            let rounded = months.end(through);
            self.writer.round(&rounded, out)?;
        }
        match &mut self.writer {
            Writer::Lines(lines) => lines.end(out),
            Writer::Focus(focus) => focus.end(out),
            Writer::Books(books) => {
                books.flush(out);
                Ok(())
            }
        }
    }
}

impl Writer {
    /// Writes a settlement or an adjustment.
    fn charge(
        &mut self,
        entry: &Entry,
        cards: &Cards,
        out: &mut Vec<u8>,
    ) -> Result<(), ExportError> {
        match (&entry.body, self) {
            (Body::Acted(_), _) => Ok(()),
            (Body::Settled(settled), Writer::Lines(lines)) => {
                lines.settlement(entry, settled, cards, out)
            }
            (Body::Settled(settled), Writer::Focus(focus)) => {
                focus.settlement(entry, settled, cards, out)
            }
            (Body::Settled(settled), Writer::Books(books)) => {
                books.settlement(entry, settled, out);
                Ok(())
            }
            (Body::Adjusted(adjusted), Writer::Lines(lines)) => {
                lines.adjustment(entry, adjusted, out)
            }
            (Body::Adjusted(adjusted), Writer::Focus(focus)) => {
                focus.adjustment(entry, adjusted, out)
            }
            (Body::Adjusted(adjusted), Writer::Books(books)) => {
                books.adjustment(entry, adjusted, out);
                Ok(())
            }
        }
    }

    /// Writes what months are rounded by; what came before it is written before it.
    fn round(&mut self, rounded: &[Rounding], out: &mut Vec<u8>) -> Result<(), ExportError> {
        for one in rounded {
            match self {
                Writer::Lines(lines) => lines.rounding(one, out)?,
                Writer::Focus(focus) => focus.rounding(one, out)?,
                Writer::Books(books) => books.rounding(one, out),
            }
        }
        Ok(())
    }
}

/// Sums by key, until there are too many of them.
#[derive(Debug)]
struct Piles<K, V> {
    sums: BTreeMap<K, V>,
    settlements: usize,
    /// The last entry added.
    through: u64,
}

impl<K: Ord, V: Default> Piles<K, V> {
    fn new() -> Piles<K, V> {
        Piles {
            sums: BTreeMap::new(),
            settlements: 0,
            through: 0,
        }
    }

    fn sum(&mut self, key: K) -> &mut V {
        self.sums.entry(key).or_default()
    }

    /// The settlement of that entry has been added; whether it is time to write.
    fn added(&mut self, seq: u64) -> bool {
        self.settlements += 1;
        self.through = seq;
        self.sums.len() >= SUMS_MAX || self.settlements >= SETTLEMENTS_MAX
    }

    fn take(&mut self) -> BTreeMap<K, V> {
        self.settlements = 0;
        std::mem::take(&mut self.sums)
    }
}

/// What an adjustment is, and what it is for, in words.
fn said(adjusted: &Adjusted) -> (&'static str, &str) {
    let kind = match adjusted.corrects {
        Some(_) => "correction",
        None => "adjustment",
    };
    match &adjusted.what {
        Adjustment::Line { description } => (kind, description),
        Adjustment::Reversal { .. } => (kind, &adjusted.reason),
    }
}

/// The start of the UTC hour, day or month around an instant, and its end.
fn around(at_us: i64, unit: jiff::Unit) -> (jiff::civil::DateTime, jiff::civil::DateTime) {
    let at = jiff::Timestamp::from_microsecond(at_us).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let at = jiff::tz::Offset::UTC.to_datetime(at);
    let (hour, day) = (at.date().at(at.hour(), 0, 0, 0), at.date().at(0, 0, 0, 0));
    let (start, length) = match unit {
        jiff::Unit::Hour => (hour, jiff::Span::new().hours(1)),
        jiff::Unit::Day => (day, jiff::Span::new().days(1)),
        _ => (
            at.date().first_of_month().at(0, 0, 0, 0),
            jiff::Span::new().months(1),
        ),
    };
    (start, start.saturating_add(length))
}

/// The exact decimal of `number / (unit x 10^places)`, with at least one digit behind the point.
/// `unit` has no prime factors but 2 and 5, as no unit of a meter has.
fn exact(number: u128, unit: u64, places: usize) -> String {
    /// More digits than any unit of a meter gives.
    const DIGITS_MAX: usize = 64;
    let unit = u128::from(unit.max(1));
    let mut whole = number.checked_div(unit).unwrap_or(0).to_string();
    let mut rest = number.checked_rem(unit).unwrap_or(0);
    let mut digits = String::new();
    while rest > 0 && digits.len() < DIGITS_MAX {
        rest *= 10;
        digits.push_str(&rest.checked_div(unit).unwrap_or(0).to_string());
        rest = rest.checked_rem(unit).unwrap_or(0);
    }
    if whole.len() <= places {
        whole = format!("{whole:0>width$}", width = places + 1);
    }
    let (left, right) = whole.split_at(whole.len() - places);
    let fraction = format!("{right}{digits}");
    let fraction = fraction.trim_end_matches('0');
    format!(
        "{left}.{}",
        if fraction.is_empty() { "0" } else { fraction }
    )
}

#[cfg(test)]
mod tests;
