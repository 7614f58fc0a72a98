//! Usage and costs per window and group, as the ledger has them.

use std::collections::BTreeMap;

use ledger::{GroupBy, Meter, Only, QueryError, UsageItem, UsageQuery, UsageReport, Window};
use serde::Serialize;
use utoipa::ToSchema;

use crate::call::{Answer, Call, Query, ok};
use crate::clock::rfc3339;
use crate::error::{ApiError, Problem, Retry};
use crate::shape;

/// Up to where an answer includes everything.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AsOfView {
    /// The last entry included.
    pub seq: u64,
    /// The time of the last command included.
    pub time: String,
}

impl From<ledger::AsOf> for AsOfView {
    fn from(of: ledger::AsOf) -> AsOfView {
        AsOfView {
            seq: of.seq,
            time: rfc3339(of.at),
        }
    }
}

/// Usage per window and group; empty windows are left out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageView {
    /// Start, inclusive.
    pub from: String,
    /// End, exclusive.
    pub to: String,
    /// `hour`, `day` or `month`.
    pub window: String,
    /// The zone whose calendar cuts the windows.
    pub tz: String,
    /// Up to where this includes everything.
    pub as_of: AsOfView,
    /// By window, then group.
    pub items: Vec<UsageItemView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// Usage of one group in one window.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageItemView {
    /// Start of the window.
    pub start: String,
    /// End of the window.
    pub end: String,
    /// What it is the usage of, by the names of `group_by`.
    pub group: BTreeMap<String, Option<String>>,
    /// What was charged for, by meter; decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<BTreeMap<String, String>>,
    /// What was measured above that and not charged, by meter; decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrun: Option<BTreeMap<String, String>>,
    /// The meter, if grouped by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meter: Option<String>,
    /// How much of it; decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<String>,
    /// Its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<&'static str>,
}

/// Costs per window and group; empty windows are left out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CostView {
    /// Start, inclusive.
    pub from: String,
    /// End, exclusive.
    pub to: String,
    /// `hour`, `day` or `month`.
    pub window: String,
    /// The zone whose calendar cuts the windows.
    pub tz: String,
    /// ISO 4217 code; null where tenants have different ones.
    pub currency: Option<String>,
    /// Up to where this includes everything.
    pub as_of: AsOfView,
    /// By window, then group.
    pub items: Vec<CostItemView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// Costs of one group in one window and one currency.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CostItemView {
    /// Start of the window.
    pub start: String,
    /// End of the window.
    pub end: String,
    /// What they are the costs of, by the names of `group_by`.
    pub group: BTreeMap<String, Option<String>>,
    /// The sum of the charges; decimal.
    pub cost: String,
    /// The sum of the adjustments recorded in the window; decimal, below zero for credits. By meter
    /// they have an item of their own, without a meter.
    pub adjustment: String,
    /// ISO 4217 code.
    pub currency: Option<String>,
}

/// Usage per window and group
#[utoipa::path(get, path = "/v1/usage", tag = "money",
    params(("from" = Option<String>, Query, description = "absent: this month's start"),
        ("to" = Option<String>, Query, description = "absent: this month's end"),
        ("window" = Option<String>, Query),
        ("tz" = Option<String>, Query),
        ("group_by" = Option<String>, Query, description = "at most three of tenant, project, \
            function, image, key, meter and tag:KEY, with commas"),
        ("tenant" = Option<String>, Query), ("project" = Option<String>, Query),
        ("function" = Option<String>, Query),
        ("image" = Option<String>, Query, description = "NAME or NAME@DIGEST"),
        ("key" = Option<String>, Query, description = "a token's jti"),
        ("tag" = Option<String>, Query, description = "KEY:VALUE; may be given more than once"),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = UsageView), (status = 400, body = Problem)))]
pub(crate) async fn usage(call: Call) -> Answer {
    let (query, report) = report(&call, false).await?;
    // What has only adjustments has no usage.
    let used = |item: &&UsageItem| !item.usage.is_zero() || !item.overrun.is_zero();
    let items = report.items.iter().filter(used);
    let items = items.map(|item| usage_item(&query, item)).collect();
    Ok(ok(&UsageView {
        from: rfc3339(query.from),
        to: rfc3339(query.to),
        window: query.window.name().to_owned(),
        tz: query.timezone,
        as_of: report.as_of.into(),
        items,
        next_cursor: report.next_cursor,
    }))
}

/// Costs per window and group
#[utoipa::path(get, path = "/v1/costs", tag = "money",
    params(("from" = Option<String>, Query, description = "absent: this month's start"),
        ("to" = Option<String>, Query, description = "absent: this month's end"),
        ("window" = Option<String>, Query),
        ("tz" = Option<String>, Query),
        ("group_by" = Option<String>, Query, description = "at most three of tenant, project, \
            function, image, key, meter and tag:KEY, with commas"),
        ("tenant" = Option<String>, Query), ("project" = Option<String>, Query),
        ("function" = Option<String>, Query),
        ("image" = Option<String>, Query, description = "NAME or NAME@DIGEST"),
        ("key" = Option<String>, Query, description = "a token's jti"),
        ("tag" = Option<String>, Query, description = "KEY:VALUE; may be given more than once"),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = CostView), (status = 400, body = Problem)))]
pub(crate) async fn costs(call: Call) -> Answer {
    let (query, report) = report(&call, true).await?;
    let items = report.items.iter().map(|item| CostItemView {
        start: rfc3339(item.start),
        end: rfc3339(item.end),
        group: group(&query, item),
        cost: item.cost.to_string(),
        adjustment: item.adjusted.to_string(),
        currency: item.currency.clone(),
    });
    Ok(ok(&CostView {
        from: rfc3339(query.from),
        to: rfc3339(query.to),
        window: query.window.name().to_owned(),
        tz: query.timezone.clone(),
        currency: report.currency.clone(),
        as_of: report.as_of.into(),
        items: items.collect(),
        next_cursor: report.next_cursor,
    }))
}

async fn report(call: &Call, by_currency: bool) -> Result<(UsageQuery, UsageReport), ApiError> {
    let query = UsageQuery {
        by_currency,
        ..read(call)?
    };
    let (ledger, asked) = (call.app.ledger.clone(), query.clone());
    let _pass = call.app.reports.enter(call.caller()?)?;
    // A read may wait for what was durable when it arrived.
    let report = call.app.blocking(move || ledger.usage(&asked)).await?;
    Ok((query, report.map_err(failed)?))
}

fn read(call: &Call) -> Result<UsageQuery, ApiError> {
    let mut query = call.query()?;
    let only = only(call, &mut query)?;
    let page = query.page(&call.app, |cursor| Some(cursor.to_owned()));
    let (from, to) = (query.time("from"), query.time("to"));
    let window = match query.take("window").as_deref() {
        None | Some("day") => Window::Day,
        Some("hour") => Window::Hour,
        Some("month") => Window::Month,
        Some(_) => {
            query.faults.add("?window", "must be hour, day or month");
            Window::Day
        }
    };
    let timezone = query.take("tz").unwrap_or_else(|| "UTC".to_owned());
    let month = month_of(call.app.clock.wall_us(), &timezone);
    let group_by = query.take("group_by").unwrap_or_default();
    let names = group_by
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let group_by = names
        .filter_map(|name| group_of(name, &mut query))
        .collect();
    query.finish()?;
    Ok(UsageQuery {
        from: from.unwrap_or(month.0),
        to: to.unwrap_or(month.1),
        window,
        timezone,
        group_by,
        only,
        by_currency: false,
        cursor: page.cursor,
        limit: page.limit,
    })
}

fn group_of(name: &str, query: &mut Query) -> Option<GroupBy> {
    Some(match name {
        "tenant" => GroupBy::Tenant,
        "project" => GroupBy::Project,
        "function" => GroupBy::Function,
        "image" => GroupBy::Image,
        "key" => GroupBy::Key,
        "meter" => GroupBy::Meter,
        _ => match name.strip_prefix("tag:").filter(|key| !key.is_empty()) {
            Some(key) => GroupBy::Tag(key.to_owned()),
            None => {
                let detail = "must be of tenant, project, function, image, key, meter and tag:KEY";
                query.faults.add("?group_by", detail);
                return None;
            }
        },
    })
}

/// The filters that usage, costs and exports share; a tenant's token reaches its own alone.
pub(super) fn only(call: &Call, query: &mut Query) -> Result<Only, ApiError> {
    let tenant = call.tenant(query)?;
    Ok(Only {
        tenant: tenant.map(|tenant| tenant.profile.name.clone()),
        project: query.take("project"),
        function: query.take("function"),
        image: query.take("image"),
        key: query.take("key"),
        tags: query.tags(),
    })
}

/// Start and end of the month that `now_us` lies in; of the epoch for a zone that is none, which
/// the ledger refuses.
fn month_of(now_us: i64, timezone: &str) -> (i64, i64) {
    let borders = || {
        let now = jiff::Timestamp::from_microsecond(now_us)
            .ok()?
            .in_tz(timezone)
            .ok()?;
        let start = now.first_of_month().ok()?.start_of_day().ok()?;
        let end = start.checked_add(jiff::Span::new().months(1)).ok()?;
        Some((
            start.timestamp().as_microsecond(),
            end.timestamp().as_microsecond(),
        ))
    };
    borders().unwrap_or_default()
}

fn group(query: &UsageQuery, item: &UsageItem) -> BTreeMap<String, Option<String>> {
    let mut values = item.group.iter();
    let each = query.group_by.iter().map(|by| {
        let value = match by {
            GroupBy::Meter => item.meter.map(|meter| meter.name().to_owned()),
            _ => values.next().cloned().flatten(),
        };
        (group_name(by), value)
    });
    each.collect()
}

fn group_name(by: &GroupBy) -> String {
    let name = match by {
        GroupBy::Tenant => "tenant",
        GroupBy::Project => "project",
        GroupBy::Function => "function",
        GroupBy::Image => "image",
        GroupBy::Key => "key",
        GroupBy::Meter => "meter",
        GroupBy::Tag(key) => return format!("tag:{key}"),
    };
    name.to_owned()
}

fn usage_item(query: &UsageQuery, item: &UsageItem) -> UsageItemView {
    let quantity = item.meter.map(|meter| match meter {
        Meter::Cost => item.cost.to_string(),
        _ => item.usage.get(meter).to_string(),
    });
    let whole = item.meter.is_none();
    UsageItemView {
        start: rfc3339(item.start),
        end: rfc3339(item.end),
        group: group(query, item),
        usage: whole.then(|| shape::quantities(&item.usage)),
        overrun: (whole || !item.overrun.is_zero()).then(|| shape::quantities(&item.overrun)),
        meter: item.meter.map(|meter| meter.name().to_owned()),
        quantity,
        unit: item.meter.map(unit),
    }
}

/// The base unit of a meter.
pub(crate) fn unit(meter: Meter) -> &'static str {
    match meter {
        Meter::Executions => "execution",
        Meter::CpuUs | Meter::WallUs => "us",
        Meter::MemoryByteMs | Meter::StorageByteMs => "byte_ms",
        Meter::EgressBytes | Meter::IngressBytes => "byte",
        Meter::Cost => "currency",
    }
}

/// A question without an answer, as the client sees it.
pub(super) fn failed(error: QueryError) -> ApiError {
    match error {
        QueryError::Border { field, nearest } => {
            let detail = format!(
                "is not on a border of the windows; the nearest is {}",
                plain(nearest)
            );
            ApiError::invalid(format!("?{field}"), detail)
        }
        QueryError::Invalid { field, fault } => {
            let name = if field == "timezone" { "tz" } else { field };
            ApiError::invalid(format!("?{name}"), fault)
        }
        other => ApiError::Unavailable {
            reason: crate::config::chain(&other),
            retry: Retry::Safe,
        },
    }
}

/// A time on a border, without a fraction that is zero.
fn plain(us: i64) -> String {
    rfc3339(us).replace(".000000Z", "Z")
}
