//! `focus` and `focus-parquet`: FOCUS 1.2, the open specification of cost and usage data.
//!
//! A row is what one resource used in one hour at one price. Billed and effective cost are the sums
//! of the charges, which are rounded line by line to 10^-12; list and contracted cost are unit
//! price times quantity, which the specification wants exactly, digit by digit. What credit has
//! paid in an hour, each adjustment and the rounding of a month are rows of their own.

mod single;

use std::collections::BTreeMap;

use jiff::Unit;
use jiff::civil::DateTime;
use ledger::{ChargeLine, Entry, Meter, Money, Settled};

use self::single::Drawn;
use super::cards::Cards;
use super::rows::{Cell, Columns, Rows};
use super::{ExportError, Issuer, Piles, SUMS_MAX, around, exact};

const HOUR_US: i64 = 3_600_000_000;

/// Every column; those that are ours begin with `x_`.
pub(super) const COLUMNS: Columns = &[
    ("BillingAccountId", Cell::Text),
    ("BillingAccountName", Cell::Text),
    ("BillingAccountType", Cell::Text),
    ("SubAccountId", Cell::Text),
    ("SubAccountName", Cell::Text),
    ("SubAccountType", Cell::Text),
    ("BillingCurrency", Cell::Text),
    ("BillingPeriodStart", Cell::Time),
    ("BillingPeriodEnd", Cell::Time),
    ("ChargeCategory", Cell::Text),
    ("ChargeClass", Cell::Text),
    ("ChargeDescription", Cell::Text),
    ("ChargeFrequency", Cell::Text),
    ("ChargePeriodStart", Cell::Time),
    ("ChargePeriodEnd", Cell::Time),
    ("BilledCost", Cell::Decimal),
    ("EffectiveCost", Cell::Decimal),
    ("ListCost", Cell::Decimal),
    ("ContractedCost", Cell::Decimal),
    ("ListUnitPrice", Cell::Decimal),
    ("ContractedUnitPrice", Cell::Decimal),
    ("PricingCurrency", Cell::Text),
    ("PricingCurrencyListUnitPrice", Cell::Decimal),
    ("PricingCurrencyContractedUnitPrice", Cell::Decimal),
    ("PricingCurrencyEffectiveCost", Cell::Decimal),
    ("PricingCategory", Cell::Text),
    ("PricingQuantity", Cell::Decimal),
    ("PricingUnit", Cell::Text),
    ("ConsumedQuantity", Cell::Decimal),
    ("ConsumedUnit", Cell::Text),
    ("InvoiceId", Cell::Text),
    ("InvoiceIssuerName", Cell::Text),
    ("ProviderName", Cell::Text),
    ("PublisherName", Cell::Text),
    ("ServiceCategory", Cell::Text),
    ("ServiceSubcategory", Cell::Text),
    ("ServiceName", Cell::Text),
    ("SkuId", Cell::Text),
    ("SkuPriceId", Cell::Text),
    ("SkuMeter", Cell::Text),
    ("SkuPriceDetails", Cell::Text),
    ("ResourceId", Cell::Text),
    ("ResourceName", Cell::Text),
    ("ResourceType", Cell::Text),
    ("RegionId", Cell::Text),
    ("RegionName", Cell::Text),
    ("Tags", Cell::Text),
    ("CommitmentDiscountStatus", Cell::Text),
    ("x_EntryFirst", Cell::Whole),
    ("x_EntryLast", Cell::Whole),
    ("x_Through", Cell::Whole),
];

/// What a row is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Start of the hour, in microseconds.
    hour: i64,
    tenant: String,
    project: String,
    function: Option<String>,
    image: String,
    tags: BTreeMap<String, String>,
    meter: Meter,
    rate_card: u64,
    tier: u8,
    /// Whether packages are counted, not the meter's unit.
    package: bool,
    rate: Money,
    /// The same on the operator's list.
    list: Money,
    currency: String,
}

#[derive(Debug, Default)]
struct Sum {
    /// What is priced.
    quantity: u128,
    /// What was used, in the meter's base unit.
    consumed: u128,
    billed: Money,
    entries: Option<(u64, u64)>,
}

/// The rows that are being added up.
#[derive(Debug)]
pub(super) struct Focus {
    issuer: Issuer,
    rows: Rows,
    piles: Piles<Key, Sum>,
    /// What credit has paid, and of which entries.
    drawn: Drawn,
}

impl Focus {
    pub(super) fn new(issuer: Issuer, rows: Rows) -> Focus {
        Focus {
            issuer,
            rows,
            piles: Piles::new(),
            drawn: Drawn::new(),
        }
    }

    pub(super) fn head(&self, out: &mut Vec<u8>) {
        self.rows.head(out);
    }

    pub(super) fn settlement(
        &mut self,
        entry: &Entry,
        settled: &Settled,
        cards: &Cards,
        out: &mut Vec<u8>,
    ) -> Result<(), ExportError> {
        for (place, line) in settled.charge.lines.iter().enumerate() {
            let key = key(entry.seq, settled, line, cards);
            let consumed = consumed(settled, place);
            let sum = self.piles.sum(key);
            sum.quantity = sum.quantity.saturating_add(line.quantity);
            sum.consumed = sum.consumed.saturating_add(consumed);
            sum.billed = sum.billed.checked_add(line.amount).unwrap_or(sum.billed);
            let first = sum.entries.map_or(entry.seq, |(first, _)| first);
            sum.entries = Some((first, entry.seq));
        }
        self.credit(entry.seq, settled);
        if self.piles.added(entry.seq) || self.drawn.len() >= SUMS_MAX {
            self.flush(out)?;
        }
        Ok(())
    }

    /// Writes what is still held, and the end.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), ExportError> {
        self.flush(out)?;
        self.rows.end(out)
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), ExportError> {
        let through = self.piles.through;
        for (key, sum) in self.piles.take() {
            let cells = self.cells(&key, &sum, through);
            self.row(&cells, out)?;
        }
        self.flush_credit(through, out)?;
        Ok(())
    }

    /// Writes the cells in the order of the columns; what is missing is null.
    fn row(&mut self, cells: &[(&str, String)], out: &mut Vec<u8>) -> Result<(), ExportError> {
        let cell = |name: &str| cells.iter().find(|(known, _)| *known == name);
        let row = COLUMNS.iter();
        let row = row.map(|(name, _)| cell(name).map_or("", |(_, cell)| cell));
        self.rows.row(row, out)
    }

    /// The cells of a row that are not null, by column.
    fn cells(&self, key: &Key, sum: &Sum, through: u64) -> Vec<(&'static str, String)> {
        let whose = (key.tenant.as_str(), Some(key.project.as_str()));
        let mut cells = self.whose(whose, key.hour, &key.tags);
        cells.extend(when(key.hour));
        cells.extend(what(key));
        cells.extend(costs(key, sum));
        let (first, last) = sum.entries.unwrap_or_default();
        cells.extend([
            ("x_EntryFirst", first.to_string()),
            ("x_EntryLast", last.to_string()),
            ("x_Through", through.to_string()),
        ]);
        cells
    }

    /// What every row says: whose it is (tenant, and project if it has one), from whom, and for
    /// what service.
    fn whose(
        &self,
        (tenant, project): (&str, Option<&str>),
        hour: i64,
        tags: &BTreeMap<String, String>,
    ) -> Vec<(&'static str, String)> {
        let month = around(hour, Unit::Month).0.strftime("%Y-%m");
        let invoice = format!("{tenant}/{month}");
        let project = project.into_iter().flat_map(|project| {
            [
                ("SubAccountId", format!("project/{tenant}/{project}")),
                ("SubAccountName", project.to_owned()),
                ("SubAccountType", "Project".to_owned()),
            ]
        });
        let mut cells = vec![
            ("BillingAccountId", format!("tenant/{tenant}")),
            ("BillingAccountName", tenant.to_owned()),
            ("BillingAccountType", "Tenant".to_owned()),
            ("InvoiceId", invoice),
            ("InvoiceIssuerName", self.issuer.provider.clone()),
            ("ProviderName", self.issuer.provider.clone()),
            ("PublisherName", self.issuer.provider.clone()),
            ("RegionId", self.issuer.region.clone()),
            ("RegionName", self.issuer.region.clone()),
            ("ServiceCategory", "Compute".to_owned()),
            ("ServiceSubcategory", "Serverless Compute".to_owned()),
            ("ServiceName", "Sandbox Executions".to_owned()),
        ];
        cells.extend(project);
        if !tags.is_empty() {
            let tags = serde_json::to_string(tags).unwrap_or_default();
            cells.push(("Tags", tags));
        }
        cells
    }
}

/// What a line is of, out of what was used of its meter: the last one has what the others leave,
/// as prices may count more than was used (increments) or something else (packages).
fn consumed(settled: &Settled, place: usize) -> u128 {
    let lines = &settled.charge.lines;
    let Some(line) = lines.get(place) else {
        return 0;
    };
    let of_meter = |lines: &[ChargeLine]| {
        let alike = lines.iter().filter(|other| other.meter == line.meter);
        alike.fold(0_u128, |sum, other| sum.saturating_add(other.quantity))
    };
    let (before, after) = lines.split_at(place);
    let left = settled
        .posted
        .get(line.meter)
        .saturating_sub(of_meter(before));
    let last = !after.iter().skip(1).any(|other| other.meter == line.meter);
    if last { left } else { left.min(line.quantity) }
}

fn key(seq: u64, settled: &Settled, line: &ChargeLine, cards: &Cards) -> Key {
    let hold = &settled.hold;
    Key {
        hour: hold.opened_at - hold.opened_at.rem_euclid(HOUR_US),
        tenant: hold.tenant.clone(),
        project: hold.project.clone(),
        function: hold.function.clone(),
        image: hold.image.clone(),
        tags: hold.tags.iter().cloned().collect(),
        meter: line.meter,
        rate_card: hold.rate_card,
        tier: line.tier,
        package: cards.sells_packages(hold, line),
        rate: line.rate,
        list: cards.list(hold, line, seq),
        currency: settled.charge.currency.clone(),
    }
}

fn when(hour: i64) -> Vec<(&'static str, String)> {
    let text = |at: DateTime| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (hour, month) = (around(hour, Unit::Hour), around(hour, Unit::Month));
    vec![
        ("BillingPeriodStart", text(month.0)),
        ("BillingPeriodEnd", text(month.1)),
        ("ChargePeriodStart", text(hour.0)),
        ("ChargePeriodEnd", text(hour.1)),
    ]
}

fn what(key: &Key) -> Vec<(&'static str, String)> {
    let (name, _) = meter(key.meter);
    let (id, resource, kind) = match &key.function {
        Some(function) => {
            let id = format!("function/{}/{}/{function}", key.tenant, key.project);
            (id, function.as_str(), "Function")
        }
        None => {
            let image = key.image.split('@').next().unwrap_or_default();
            (format!("image/{}", key.image), image, "Image")
        }
    };
    vec![
        ("ChargeCategory", "Usage".to_owned()),
        (
            "ChargeDescription",
            format!("{name} of {} {resource}", kind.to_lowercase()),
        ),
        ("ChargeFrequency", "Usage-Based".to_owned()),
        ("SkuId", key.meter.name().to_owned()),
        (
            "SkuPriceId",
            format!("rate/{}/{}/{}", key.rate_card, key.meter.name(), key.tier),
        ),
        ("SkuMeter", name.to_owned()),
        (
            "SkuPriceDetails",
            format!("{{\"x_RateCardEntry\":{}}}", key.rate_card),
        ),
        ("ResourceId", id),
        ("ResourceName", resource.to_owned()),
        ("ResourceType", kind.to_owned()),
    ]
}

fn costs(key: &Key, sum: &Sum) -> Vec<(&'static str, String)> {
    let (_, unit) = meter(key.meter);
    let size = if key.package {
        1
    } else {
        key.meter.unit_size()
    };
    let billed = sum.billed.to_string();
    // A unit price, and what all of it comes to at that.
    let at = |rate: Money| {
        let rate = u128::try_from(rate.0).unwrap_or(0);
        let product = sum.quantity.checked_mul(rate);
        let cost = product.map(|product| exact(product, size, PLACES));
        let price = exact(rate, 1, PLACES);
        (price, cost.unwrap_or_else(|| billed.clone()))
    };
    let ((list, list_cost), (own, own_cost)) = (at(key.list), at(key.rate));
    let quantity = exact(sum.quantity, size, 0);
    vec![
        ("BillingCurrency", key.currency.clone()),
        ("BilledCost", billed.clone()),
        ("EffectiveCost", billed.clone()),
        ("ListCost", list_cost),
        ("ContractedCost", own_cost),
        ("ListUnitPrice", list.clone()),
        ("ContractedUnitPrice", own.clone()),
        ("PricingCurrency", key.currency.clone()),
        ("PricingCurrencyListUnitPrice", list),
        ("PricingCurrencyContractedUnitPrice", own),
        ("PricingCurrencyEffectiveCost", billed),
        ("PricingCategory", "Standard".to_owned()),
        ("PricingQuantity", quantity),
        (
            "PricingUnit",
            if key.package { "Packages" } else { unit }.to_owned(),
        ),
        (
            "ConsumedQuantity",
            exact(sum.consumed, key.meter.unit_size(), 0),
        ),
        ("ConsumedUnit", unit.to_owned()),
    ]
}

/// Decimal places of money.
const PLACES: usize = 12;

/// What a meter is called, and its priced unit in the specification's form.
fn meter(meter: Meter) -> (&'static str, &'static str) {
    match meter {
        Meter::Executions => ("Executions", "Requests"),
        Meter::CpuUs => ("CPU Time", "Seconds"),
        Meter::WallUs => ("Wall Time", "Seconds"),
        Meter::MemoryByteMs => ("Memory", "GiB-Seconds"),
        Meter::EgressBytes => ("Egress", "GiB"),
        Meter::IngressBytes => ("Ingress", "GiB"),
        Meter::StorageByteMs => ("Storage", "GiB-Seconds"),
        Meter::Cost => ("Cost", "Units"),
    }
}
