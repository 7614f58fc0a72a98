//! Forecasts: how fast each quota is being used up, as an estimate and called one.
//!
//! The run rate is what was used over the last 24 hours and 7 days, divided by that time. All of it
//! is integer arithmetic; what cannot be said is null.

use ledger::{AsOf, Ledger, Meter, Only, QueryError, QuotaState, Scope, UsageQuery, Window};
use serde::Serialize;
use utoipa::ToSchema;

use super::usage::{AsOfView, failed, unit};
use crate::call::{Answer, Call, ok};
use crate::clock::rfc3339;
use crate::error::Problem;
use crate::shape::{self, QuotaScope};

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;
/// Items of one page of usage that is summed up here.
const PAGE: usize = 10_000;
/// Pages of usage that one run rate may take; a rate that takes more is not told.
const PAGES_MAX: usize = 16;

const METHOD: &str = "Use of the last 24 hours and of the last 7 days, each counted from a full \
    hour, divided by that time, whether or not the tenant was there all of it. It goes on at that \
    rate: no trend, no season, open holds not counted as used.";

/// An estimate of when quotas are used up.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ForecastView {
    /// Always `estimate`: nothing here is billed or enforced.
    pub kind: &'static str,
    /// How it is estimated, in words.
    pub method: &'static str,
    /// Whose use.
    pub tenant: String,
    /// Up to where use is known.
    pub as_of: AsOfView,
    /// Prepaid credit; null where the tenant has none and needs none.
    pub credit: Option<CreditForecast>,
    /// Each quota; and each meter that was used and has no quota of the whole tenant.
    pub items: Vec<ForecastItem>,
}

/// The estimate of when prepaid credit is used up.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreditForecast {
    /// ISO 4217 code.
    pub currency: Option<String>,
    /// Whether runs are refused (402) once it is used up.
    pub prepaid: bool,
    /// Credit that has not ended, less what open holds set aside; decimal, not below zero.
    pub free: String,
    /// When the first grant of it ends, which may be before it is used up; null for never.
    pub first_expires_at: Option<String>,
    /// By what runs cost in the last 24 hours; null where too many entries would have to be read.
    pub last_24h: Option<RateView>,
    /// By the last 7 days.
    pub last_7d: Option<RateView>,
}

/// The estimate for one quota, or for a meter without one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ForecastItem {
    /// What counts.
    pub meter: String,
    /// Its unit; for `cost` the currency.
    pub unit: String,
    /// The quota's name; null where there is none.
    pub quota: Option<String>,
    /// Whose use counts; null for the whole tenant.
    pub scope: Option<QuotaScope>,
    /// Over which time the quota counts.
    pub window: Option<String>,
    /// The most that may be posted and held; decimal.
    pub limit: Option<String>,
    /// What a hold may still take; decimal.
    pub free: Option<String>,
    /// When the quota's window ends; null for a lifetime.
    pub resets_at: Option<String>,
    /// By the last 24 hours; null where too many entries would have to be read for it.
    pub last_24h: Option<RateView>,
    /// By the last 7 days.
    pub last_7d: Option<RateView>,
}

/// A run rate and what follows from it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RateView {
    /// From when on use was counted.
    pub since: String,
    /// What was used since; decimal.
    pub used: String,
    /// What that is in a day; decimal, rounded down.
    pub per_day: String,
    /// Days until nothing is free; decimal. Null without use or without a quota or credit.
    pub days_left: Option<String>,
    /// Whether the quota is used up before it resets.
    pub exhausted_before_reset: Option<bool>,
    /// What will be posted when the quota's window ends; decimal.
    pub projected: Option<String>,
}

/// What is counted over the last days.
struct Asked<'a> {
    ledger: &'a Ledger,
    tenant: &'a str,
    now: i64,
    /// The last of all `as_of`.
    as_of: AsOf,
    currency: Option<String>,
}

/// Estimates when quotas are used up
#[utoipa::path(get, path = "/v1/forecast", tag = "money",
    params(("tenant" = Option<String>, Query),
        ("meter" = Option<String>, Query, description = "absent: all")),
    responses((status = 200, body = ForecastView), (status = 400, body = Problem)))]
pub(crate) async fn forecast(call: Call) -> Answer {
    let mut query = call.query()?;
    let tenant = call.one_tenant(&mut query)?;
    let meter = query.take("meter").and_then(|name| {
        let meter = Meter::from_name(&name);
        if meter.is_none() {
            query
                .faults
                .add("?meter", "must be a meter, such as cpu_us or cost");
        }
        meter
    });
    query.finish()?;
    let _pass = call.app.reports.enter(call.caller()?)?;
    let (ledger, now) = (call.app.ledger.clone(), call.app.clock.wall_us());
    let name = tenant.profile.name.clone();
    let work = move || view(&ledger, &name, meter, now);
    Ok(ok(&call.app.blocking(work).await?.map_err(failed)?))
}

fn view(
    ledger: &Ledger,
    tenant: &str,
    only: Option<Meter>,
    now: i64,
) -> Result<ForecastView, QueryError> {
    let mut asked = Asked {
        ledger,
        tenant,
        now,
        as_of: AsOf::default(),
        currency: None,
    };
    let quotas = ledger.quotas(tenant).unwrap_or_default();
    let wanted = |meter: Meter| only.is_none_or(|only| only == meter);
    let mut items = Vec::new();
    for state in quotas.iter().filter(|state| wanted(state.quota.meter)) {
        items.push(asked.item(state.quota.meter, Some(state))?);
    }
    for meter in Meter::MEASURED.into_iter().chain([Meter::Cost]) {
        let whole =
            |state: &QuotaState| state.quota.meter == meter && state.quota.scope == Scope::Tenant;
        if wanted(meter) && !quotas.iter().any(whole) {
            let item = asked.item(meter, None)?;
            let used = |rate: &RateView| rate.used != "0";
            if only.is_some() || item.last_7d.as_ref().is_some_and(used) {
                items.push(item);
            }
        }
    }
    let credit = asked.credit()?;
    Ok(ForecastView {
        kind: "estimate",
        credit,
        method: METHOD,
        tenant: tenant.to_owned(),
        as_of: asked.as_of.into(),
        items,
    })
}

/// What is there to be used.
#[derive(Clone, Copy)]
struct Room {
    free: u128,
    posted: u128,
    resets_at: Option<i64>,
}

impl Room {
    fn of(state: &QuotaState) -> Room {
        Room {
            free: state.free,
            posted: state.posted,
            resets_at: state.resets_at,
        }
    }
}

impl Asked<'_> {
    fn credit(&mut self) -> Result<Option<CreditForecast>, QueryError> {
        let terms = self.ledger.terms(self.tenant);
        let Some(terms) = terms.filter(|terms| terms.prepaid || terms.available.0 > 0) else {
            return Ok(None);
        };
        let free = terms.available.0.saturating_sub(terms.held.0);
        let room = Room {
            free: u128::try_from(free).unwrap_or(0),
            posted: 0,
            resets_at: None,
        };
        let ends = terms.grants.iter().filter_map(|one| one.grant.expires_at);
        let first = ends.filter(|end| self.now < *end).min();
        Ok(Some(CreditForecast {
            currency: terms.currency,
            prepaid: terms.prepaid,
            free: shape::quantity(Meter::Cost, room.free),
            first_expires_at: first.map(rfc3339),
            last_24h: self.rate(Meter::Cost, None, Some(room), 1)?,
            last_7d: self.rate(Meter::Cost, None, Some(room), 7)?,
        }))
    }

    fn item(
        &mut self,
        meter: Meter,
        quota: Option<&QuotaState>,
    ) -> Result<ForecastItem, QueryError> {
        let scope = quota.map(|state| &state.quota.scope);
        let room = quota.map(Room::of);
        let last_24h = self.rate(meter, scope, room, 1)?;
        let last_7d = self.rate(meter, scope, room, 7)?;
        let currency = self.currency.clone().unwrap_or_default();
        let number = |value: u128| shape::quantity(meter, value);
        Ok(ForecastItem {
            meter: meter.name().to_owned(),
            unit: match meter {
                Meter::Cost => currency,
                _ => unit(meter).to_owned(),
            },
            quota: quota.map(|state| state.quota.name()),
            scope: quota.and_then(|state| shape::scope(&state.quota.scope)),
            window: quota.map(|state| state.quota.window.name().to_owned()),
            limit: quota.map(|state| number(state.quota.limit)),
            free: quota.map(|state| number(state.free)),
            resets_at: quota.and_then(|state| state.resets_at).map(rfc3339),
            last_24h,
            last_7d,
        })
    }

    fn rate(
        &mut self,
        meter: Meter,
        scope: Option<&Scope>,
        room: Option<Room>,
        days: i64,
    ) -> Result<Option<RateView>, QueryError> {
        let hour = self.now - self.now.rem_euclid(HOUR_US);
        let since = hour - days * DAY_US;
        let Some(used) = self.used(meter, scope, (since, hour + HOUR_US))? else {
            return Ok(None);
        };
        let spent = u128::try_from(self.now - since).unwrap_or(1).max(1);
        let in_time = |us: i64| share(used, u128::try_from(us).unwrap_or(0), spent);
        let left = room
            .filter(|_| used > 0)
            .map(|room| share(room.free, spent, used));
        let reset = room.and_then(|room| room.resets_at).map(|at| at - self.now);
        let before = left
            .zip(reset)
            .map(|(left, reset)| u128::try_from(reset).is_ok_and(|reset| left < reset));
        let posted = room
            .zip(reset)
            .map(|(room, reset)| room.posted.saturating_add(in_time(reset)));
        Ok(Some(RateView {
            since: rfc3339(since),
            used: shape::quantity(meter, used),
            per_day: shape::quantity(meter, in_time(DAY_US)),
            days_left: left.map(in_days),
            exhausted_before_reset: before,
            projected: posted.map(|posted| shape::quantity(meter, posted)),
        }))
    }

    /// What was used within the hours from the first instant to the second.
    fn used(
        &mut self,
        meter: Meter,
        scope: Option<&Scope>,
        (from, to): (i64, i64),
    ) -> Result<Option<u128>, QueryError> {
        let mut only = Only {
            tenant: Some(self.tenant.to_owned()),
            ..Only::default()
        };
        match scope {
            None | Some(Scope::Tenant) => {}
            Some(Scope::Project(name)) => only.project = Some(name.clone()),
            Some(Scope::Function(name)) => only.function = Some(name.clone()),
            Some(Scope::Key(name)) => only.key = Some(name.clone()),
        }
        let mut query = UsageQuery {
            from,
            to,
            window: Window::Hour,
            timezone: "UTC".to_owned(),
            group_by: Vec::new(),
            only,
            by_currency: false,
            cursor: None,
            limit: PAGE,
        };
        let mut used = 0_u128;
        for _ in 0..PAGES_MAX {
            let page = match self.ledger.usage(&query) {
                Ok(page) => page,
                // An hour of more entries than a page may read.
                Err(QueryError::Invalid { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            for item in &page.items {
                let of = match meter {
                    Meter::Cost => u128::try_from(item.cost.0).unwrap_or(0),
                    _ => item.usage.get(meter),
                };
                used = used.saturating_add(of);
            }
            if page.as_of.seq >= self.as_of.seq {
                self.as_of = page.as_of;
            }
            self.currency = page.currency;
            query.cursor = page.next_cursor;
            if query.cursor.is_none() {
                return Ok(Some(used));
            }
        }
        Ok(None)
    }
}

/// `of x part / whole`, rounded down; as much as there can be where that is too much to count.
fn share(of: u128, part: u128, whole: u128) -> u128 {
    let product = of.checked_mul(part);
    product.map_or(u128::MAX, |product| {
        product.checked_div(whole).unwrap_or(u128::MAX)
    })
}

/// A time in microseconds as days with two decimals, rounded down.
fn in_days(us: u128) -> String {
    let hundredths = share(us, 100, u128::from(DAY_US.unsigned_abs()));
    let (days, rest) = (hundredths.div_euclid(100), hundredths.rem_euclid(100));
    format!("{days}.{rest:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_days_are_rounded_down() {
        assert_eq!(share(10, 3, 4), 7);
        assert_eq!(share(u128::MAX, 2, 1), u128::MAX);
        assert_eq!(share(1, 1, 0), u128::MAX);
        assert_eq!(in_days(0), "0.00");
        assert_eq!(in_days(u128::from(DAY_US.unsigned_abs()) * 3 / 2), "1.50");
        assert_eq!(in_days(u128::from(DAY_US.unsigned_abs()) - 1), "0.99");
    }
}
