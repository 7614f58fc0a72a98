//! `beancount` and `hledger`: plain-text accounting, one transaction for each day, tenant and
//! project.
//!
//! Booked as the provider sees it: what the tenant owes against what was earned on each meter, and
//! what credit has paid of it against what is owed to the tenant for each grant.
//! Account names are the tenant's and project's own: letters and digits as they are, `-` doubled,
//! every other byte as `-` and two hex digits, so that two names never become one account.

use std::collections::BTreeMap;

use jiff::Unit;
use jiff::civil::Date;
use ledger::{Adjusted, Entry, Funding, Meter, Money, Settled};

use super::rounding::Rounding;
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
    /// What credit has paid, by grant.
    drawn: BTreeMap<u64, Money>,
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
            b"; Charges of runs and what credit has paid, by day in UTC, tenant and project;\n\
              ; adjustments one by one; the rounding of each month.\n",
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
        for Funding { grant, amount } in &settled.funded {
            let drawn = sum.drawn.entry(*grant).or_default();
            *drawn = drawn.checked_add(*amount).unwrap_or(*drawn);
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
        let (seq, currency) = (entry.seq, &adjusted.currency);
        let head = self.head_of(
            around(entry.at, Unit::Day).0.date(),
            (&adjusted.tenant, &format!("{kind}: {description}")),
            (Some((seq, seq)), seq),
        );
        let mut receivable = account("T", &adjusted.tenant);
        if let Some(settled) = adjusted.what.reversed() {
            receivable = format!("{receivable}:{}", account("P", &settled.hold.project));
        }
        let mut drawn: BTreeMap<u64, Money> = BTreeMap::new();
        for Funding { grant, amount } in &adjusted.funded {
            drawn.insert(*grant, *amount);
        }
        if adjusted.refunded != Money::ZERO {
            drawn.insert(seq, negative(adjusted.refunded));
        }
        let owed = less(adjusted.amount, &drawn);
        let credit = credit(&adjusted.tenant, &drawn, currency);
        let income = negative(adjusted.amount);
        let text = format!(
            "\n{head}  Assets:Receivable:{receivable}  {owed} {currency}\n{credit}  \
             Income:Adjustments  {income} {currency}\n"
        );
        out.extend_from_slice(text.as_bytes());
    }

    /// A transaction of its own on the last day of the month; those before it are written first.
    pub(super) fn rounding(&mut self, one: &Rounding, out: &mut Vec<u8>) {
        self.flush(out);
        let entry = one.closed.map(|(entry, _)| (entry, entry));
        let head = self.head_of(
            around(one.time(), Unit::Day).0.date(),
            (&one.tenant, &one.description()),
            (entry, one.through),
        );
        let (tenant, currency) = (account("T", &one.tenant), &one.currency);
        let (amount, income) = (one.amount, negative(one.amount));
        let text = format!(
            "\n{head}  Assets:Receivable:{tenant}  {amount} {currency}\n  \
             Income:Rounding  {income} {currency}\n"
        );
        out.extend_from_slice(text.as_bytes());
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
        let words = format!("{}: {words}", key.project);
        let head = self.head_of(
            key.day,
            (&key.tenant, &words),
            (Some((first, last)), through),
        );
        let mut total = Money::ZERO;
        let mut postings = String::new();
        for (meter, earned) in &sum.earned {
            total = total.checked_add(*earned).unwrap_or(total);
            let minus = negative(*earned);
            postings.push_str(&format!(
                "  Income:Usage:{}  {minus} {}\n",
                name(*meter),
                key.currency
            ));
        }
        let currency = &key.currency;
        let total = less(total, &sum.drawn);
        let credit = credit(&key.tenant, &sum.drawn, currency);
        format!(
            "\n{head}  Assets:Receivable:{tenant}:{project}  {total} {currency}\n{credit}{postings}"
        )
    }

    /// The first lines of a transaction: when, with whom, what for, and of which entries it is.
    fn head_of(
        &self,
        day: Date,
        (tenant, words): (&str, &str),
        (entries, through): (Option<(u64, u64)>, u64),
    ) -> String {
        match self.style {
            Style::Beancount => {
                let of = entries
                    .map(|(first, last)| format!("  entry_first: {first}\n  entry_last: {last}\n"));
                format!(
                    "{day} * \"{}\" \"{}\"\n{}  through: {through}\n",
                    quoted(tenant),
                    quoted(words),
                    of.unwrap_or_default(),
                )
            }
            Style::Hledger => {
                let of = entries
                    .map(|(first, last)| format!("entry_first:{first}, entry_last:{last}, "));
                format!(
                    "{day} * {} | {}  ; {}through:{through}\n",
                    bare(tenant),
                    bare(words),
                    of.unwrap_or_default(),
                )
            }
        }
    }
}

/// Postings for what grants have paid: what is owed to the tenant for them becomes less.
fn credit(tenant: &str, drawn: &BTreeMap<u64, Money>, currency: &str) -> String {
    let tenant = account("T", tenant);
    let posting = |(grant, amount): (&u64, &Money)| {
        format!("  Liabilities:Credit:{tenant}:G-{grant}  {amount} {currency}\n")
    };
    drawn.iter().map(posting).collect()
}

fn less(amount: Money, drawn: &BTreeMap<u64, Money>) -> Money {
    let left = drawn.values();
    left.fold(amount, |left, drawn| Money(left.0.saturating_sub(drawn.0)))
}

fn negative(amount: Money) -> Money {
    Money(amount.0.saturating_neg())
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
