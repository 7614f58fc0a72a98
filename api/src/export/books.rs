//! `beancount` and `hledger`: plain-text accounting, one transaction for each day, tenant and
//! project.
//!
//! Booked as the provider sees it: what the tenant owes against what was earned on each meter.
//! Account names are the tenant's and project's own: letters and digits as they are, `-` doubled,
//! every other byte as `-` and two hex digits, so that two names never become one account.

use std::collections::BTreeMap;

use jiff::Unit;
use jiff::civil::Date;
use ledger::{Adjusted, Entry, Meter, Money, Settled};

use super::{Piles, around};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Beancount,
    Hledger,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    day: Date,
    tenant: String,
    project: String,
    currency: String,
}

#[derive(Debug, Default)]
struct Sum {
    earned: BTreeMap<Meter, Money>,
    runs: u64,
    entries: Option<(u64, u64)>,
}

/// The transactions that are being added up.
#[derive(Debug)]
pub(super) struct Books {
    style: Style,
    piles: Piles<Key, Sum>,
}

impl Books {
    pub(super) fn new(style: Style) -> Books {
        Books {
            style,
            piles: Piles::new(),
        }
    }

    pub(super) fn head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"; Charges of runs, by day in UTC, tenant and project; adjustments one by one.\n",
        );
        if self.style == Style::Beancount {
            out.extend_from_slice(b"plugin \"beancount.plugins.auto_accounts\"\n");
        }
    }

    pub(super) fn settlement(&mut self, entry: &Entry, settled: &Settled, out: &mut Vec<u8>) {
        let hold = &settled.hold;
        if settled.charge.lines.is_empty() {
            return;
        }
        let sum = self.piles.sum(Key {
            day: around(hold.opened_at, Unit::Day).0.date(),
            tenant: hold.tenant.clone(),
            project: hold.project.clone(),
            currency: settled.charge.currency.clone(),
        });
        for line in &settled.charge.lines {
            let earned = sum.earned.entry(line.meter).or_default();
            *earned = earned.checked_add(line.amount).unwrap_or(*earned);
        }
        sum.runs += 1;
        let first = sum.entries.map_or(entry.seq, |(first, _)| first);
        sum.entries = Some((first, entry.seq));
        if self.piles.added(entry.seq) {
            self.flush(out);
        }
    }

    /// A transaction of its own; those before it are written first.
    pub(super) fn adjustment(&mut self, entry: &Entry, adjusted: &Adjusted, out: &mut Vec<u8>) {
        self.flush(out);
        let (kind, description) = super::said(adjusted);
        let (seq, day) = (entry.seq, around(entry.at, Unit::Day).0.date());
        let head = match self.style {
            Style::Beancount => format!(
                "{day} * \"{}\" \"{kind}: {}\"\n  entry_first: {seq}\n  entry_last: {seq}\n  \
                 through: {seq}\n",
                quoted(&adjusted.tenant),
                quoted(description),
            ),
            Style::Hledger => format!(
                "{day} * {} | {kind}: {}  ; entry_first:{seq}, entry_last:{seq}, through:{seq}\n",
                bare(&adjusted.tenant),
                bare(description),
            ),
        };
        let mut receivable = account("T", &adjusted.tenant);
        if let Some(settled) = adjusted.what.reversed() {
            receivable = format!("{receivable}:{}", account("P", &settled.hold.project));
        }
        let (amount, currency) = (adjusted.amount, &adjusted.currency);
        let minus = Money(amount.0.saturating_neg());
        out.extend_from_slice(
            format!(
                "\n{head}  Assets:Receivable:{receivable}  {amount} {currency}\n  \
                 Income:Adjustments  {minus} {currency}\n"
            )
            .as_bytes(),
        );
    }

    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        let through = self.piles.through;
        for (key, sum) in self.piles.take() {
            out.extend_from_slice(self.transaction(&key, &sum, through).as_bytes());
        }
    }

    fn transaction(&self, key: &Key, sum: &Sum, through: u64) -> String {
        let (first, last) = sum.entries.unwrap_or_default();
        let (tenant, project) = (account("T", &key.tenant), account("P", &key.project));
        let words = format!(
            "{} {}",
            sum.runs,
            if sum.runs == 1 { "run" } else { "runs" }
        );
        let day = key.day;
        let head = match self.style {
            Style::Beancount => format!(
                "{day} * \"{}\" \"{}: {words}\"\n  entry_first: {first}\n  entry_last: {last}\n  \
                 through: {through}\n",
                quoted(&key.tenant),
                quoted(&key.project),
            ),
            Style::Hledger => format!(
                "{day} * {} | {}: {words}  ; entry_first:{first}, entry_last:{last}, \
                 through:{through}\n",
                bare(&key.tenant),
                bare(&key.project),
            ),
        };
        let mut total = Money::ZERO;
        let mut postings = String::new();
        for (meter, earned) in &sum.earned {
            total = total.checked_add(*earned).unwrap_or(total);
            let minus = Money(earned.0.saturating_neg());
            postings.push_str(&format!(
                "  Income:Usage:{}  {minus} {}\n",
                name(*meter),
                key.currency
            ));
        }
        let currency = &key.currency;
        format!("\n{head}  Assets:Receivable:{tenant}:{project}  {total} {currency}\n{postings}")
    }
}

/// One part of an account's name.
fn account(kind: &str, name: &str) -> String {
    let mut part = format!("{kind}-");
    for byte in name.bytes() {
        match byte {
            b'-' => part.push_str("--"),
            _ if byte.is_ascii_alphanumeric() => part.push(byte.into()),
            _ => part.push_str(&format!("-{byte:02X}")),
        }
    }
    part
}

/// Inside a string of Beancount.
fn quoted(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { '?' } else { c });
    let plain: String = plain.collect();
    plain.replace('\\', "\\\\").replace('"', "\\\"")
}

/// In the description of a transaction of hledger, where a few characters mean something.
fn bare(text: &str) -> String {
    let special = |c: char| c.is_control() || matches!(c, ';' | '|');
    text.chars()
        .map(|c| if special(c) { '?' } else { c })
        .collect()
}

fn name(meter: Meter) -> &'static str {
    match meter {
        Meter::Executions => "Executions",
        Meter::CpuUs => "Cpu",
        Meter::WallUs => "Wall",
        Meter::MemoryByteMs => "Memory",
        Meter::EgressBytes => "Egress",
        Meter::IngressBytes => "Ingress",
        Meter::StorageByteMs => "Storage",
        Meter::Cost => "Other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_names_are_one_account() {
        let names = [
            "a-b", "a--b", "a_b", "a-5Fb", "a.b", "aB", "ab", "a\u{e9}", "a b", "5", "",
        ];
        let mut accounts: Vec<String> = names.iter().map(|name| account("T", name)).collect();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        assert!(
            accounts.iter().all(|name| name.chars().all(plain)),
            "{accounts:?}"
        );
        accounts.sort_unstable();
        accounts.dedup();
        assert_eq!(accounts.len(), names.len());
        assert_eq!(account("P", "my-web_2"), "P-my--web-5F2");
    }

    #[test]
    fn words_of_tenants_end_no_string_and_begin_no_comment() {
        assert_eq!(quoted("a\"b\\c\nd"), "a\\\"b\\\\c?d");
        assert_eq!(bare("a;b|c\nd"), "a?b?c?d");
    }
}
