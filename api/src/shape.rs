//! How the ledger's values look in JSON: quotas, quantities, charges; numbers that can grow are
//! decimal strings.

use ledger::{Cause, Meter, Mode, Money, Quantities, Quota, QuotaState, Scope, Violation, Window};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::rfc3339;
use crate::error::Violated;
use crate::json::Object;

/// Whose use a quota counts, where it is not the whole tenant's; exactly one field is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaScope {
    /// One project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// One function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// One key, by its `jti`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A quota as it is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct QuotaBody {
    /// Whose use counts; absent for the whole tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<QuotaScope>,
    /// What counts.
    #[schema(example = "cpu_us")]
    pub meter: String,
    /// `minute`, `hour`, `day`, `month` or `lifetime`.
    pub window: String,
    /// IANA name of the zone whose calendar cuts the windows; `UTC` if absent.
    pub timezone: String,
    /// The most that may be posted and held, in the meter's unit (`cost`: in the currency);
    /// decimal.
    #[schema(example = "1000")]
    pub limit: String,
    /// `hard` refuses; `soft` only tells. `hard` if absent.
    pub mode: String,
    /// What may be used past the limit before a hard quota refuses; decimal, `0` if absent.
    pub overdraft: String,
}

/// A quota and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct QuotaView {
    /// Whose use counts; absent for the whole tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<QuotaScope>,
    /// What counts.
    pub meter: String,
    /// Over which time.
    pub window: String,
    /// The zone whose calendar cuts the windows.
    pub timezone: String,
    /// The most that may be posted and held; decimal.
    pub limit: String,
    /// `hard` or `soft`.
    pub mode: String,
    /// What may be used past the limit; decimal.
    pub overdraft: String,
    /// The quota's name in refusals.
    #[schema(example = "tenant/cpu_us/day")]
    pub quota: String,
    /// `tenant`: from the tenant's own list. `tier`: from the configuration.
    pub source: &'static str,
    /// Used in the current window; decimal.
    pub posted: String,
    /// Held in the current window; decimal.
    pub held: String,
    /// What a hold may still take; decimal.
    pub free: String,
    /// What is posted and held beyond limit and overdraft: by runs that a soft quota let pass, or
    /// where a limit was lowered; decimal.
    pub over: String,
    /// From when on the current window, or the lifetime, is counted, where that is not from its
    /// start; else null.
    pub counted_since: Option<String>,
    /// When the window ends; null for a lifetime.
    pub resets_at: Option<String>,
}

/// A number of `meter` as JSON has it: money in the currency, everything else in its unit.
pub(crate) fn quantity(meter: Meter, value: u128) -> String {
    match meter {
        Meter::Cost => i128::try_from(value).map_or_else(
            |_| value.to_string(),
            |units| plain(&Money(units).to_string()).to_owned(),
        ),
        _ => value.to_string(),
    }
}

/// A decimal without zeros that say nothing.
pub(crate) fn plain(text: &str) -> &str {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}

/// The value that `text` writes in the unit of `meter`.
fn parse_quantity(meter: Meter, text: &str) -> Option<u128> {
    match meter {
        Meter::Cost => u128::try_from(Money::parse(text).ok()?.0).ok(),
        _ if text.starts_with('+') => None,
        _ => text.parse().ok(),
    }
}

pub(crate) fn scope(scope: &Scope) -> Option<QuotaScope> {
    let mut shown = QuotaScope {
        project: None,
        function: None,
        key: None,
    };
    match scope {
        Scope::Tenant => return None,
        Scope::Project(name) => shown.project = Some(name.clone()),
        Scope::Function(name) => shown.function = Some(name.clone()),
        Scope::Key(name) => shown.key = Some(name.clone()),
    }
    Some(shown)
}

pub(crate) fn violated(one: &Violation) -> Violated {
    Violated {
        quota: one.quota.clone(),
        scope: scope(&one.scope),
        meter: one.meter.name().to_owned(),
        window: one.window.name().to_owned(),
        limit: quantity(one.meter, one.limit),
        posted: quantity(one.meter, one.posted),
        held: quantity(one.meter, one.held),
        requested: quantity(one.meter, one.requested),
        resets_at: one.resets_at.map(rfc3339),
        cause: cause(one.cause),
    }
}

/// What stands in the way, by name.
pub(crate) fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Posted => "posted",
        Cause::Held => "held",
    }
}

pub(crate) fn quota_view(state: &QuotaState, source: &'static str) -> QuotaView {
    let quota = &state.quota;
    let used = state.posted.saturating_add(state.held);
    let over = used.saturating_sub(quota.limit.saturating_add(quota.overdraft));
    QuotaView {
        scope: scope(&quota.scope),
        meter: quota.meter.name().to_owned(),
        window: quota.window.name().to_owned(),
        timezone: quota.timezone.clone(),
        limit: quantity(quota.meter, quota.limit),
        mode: mode_name(quota.mode).to_owned(),
        overdraft: quantity(quota.meter, quota.overdraft),
        quota: quota.name(),
        source,
        posted: quantity(quota.meter, state.posted),
        held: quantity(quota.meter, state.held),
        free: quantity(quota.meter, state.free),
        over: quantity(quota.meter, over),
        counted_since: state.counted_since.map(rfc3339),
        resets_at: state.resets_at.map(rfc3339),
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Hard => "hard",
        Mode::Soft => "soft",
    }
}

/// What is counted: whose use, of what, over which time, by which zone's calendar.
pub(crate) type Counted = (Scope, Meter, Window, String);

/// Reads what a quota or a budget counts; `None` after a fault.
pub(crate) fn read_counted(object: &mut Object<'_>) -> Option<Counted> {
    let scope = object
        .object("scope", read_scope)
        .unwrap_or(Some(Scope::Tenant));
    let meter = object.required_text("meter", 32).and_then(|name| {
        let meter = Meter::from_name(&name);
        if meter.is_none() {
            object.fault("meter", "is not a meter");
        }
        meter
    });
    let window = object.required_text("window", 16).and_then(|name| {
        let window = Window::ALL.into_iter().find(|window| window.name() == name);
        if window.is_none() {
            object.fault("window", "must be minute, hour, day, month or lifetime");
        }
        window
    });
    let timezone = object
        .text("timezone", 64)
        .unwrap_or_else(|| "UTC".to_owned());
    if jiff::tz::TimeZone::get(&timezone).is_err() {
        object.fault("timezone", "is not an IANA time zone");
    }
    Some((scope?, meter?, window?, timezone))
}

/// The number that `text` writes in the unit of `meter`, or a fault at `name`.
pub(crate) fn read_number(
    object: &mut Object<'_>,
    name: &str,
    meter: Option<Meter>,
    text: Option<String>,
) -> Option<u128> {
    let value = parse_quantity(meter?, &text?);
    if value.is_none() {
        object.fault(name, "must be a decimal string, not negative");
    }
    value
}

/// Reads one quota of a list; `None` after a fault.
pub(crate) fn read_quota(object: &mut Object<'_>) -> Option<Quota> {
    let counted = read_counted(object);
    let meter = counted.as_ref().map(|(_, meter, _, _)| *meter);
    let mode = match object.text("mode", 8).as_deref() {
        None | Some("hard") => Mode::Hard,
        Some("soft") => Mode::Soft,
        Some(_) => {
            object.fault("mode", "must be hard or soft");
            Mode::Hard
        }
    };
    let limit = object.required_text("limit", 48);
    let overdraft = object
        .text("overdraft", 48)
        .unwrap_or_else(|| "0".to_owned());
    let limit = read_number(object, "limit", meter, limit);
    let overdraft = read_number(object, "overdraft", meter, Some(overdraft));
    let (scope, meter, window, timezone) = counted?;
    Some(Quota {
        scope,
        meter,
        window,
        timezone,
        limit: limit?,
        mode,
        overdraft: overdraft?,
    })
}

fn read_scope(object: &mut Object<'_>) -> Option<Scope> {
    let project = object.text("project", 64).map(Scope::Project);
    let function = object.text("function", 64).map(Scope::Function);
    let key = object.text("key", 64).map(Scope::Key);
    let mut named = [project, function, key].into_iter().flatten();
    match (named.next(), named.next()) {
        (Some(scope), None) => Some(scope),
        _ => {
            object.fault("", "must name exactly one of project, function and key");
            None
        }
    }
}

/// A quota as it is set: the form that [`read_quota`] reads.
pub(crate) fn quota_body(quota: &Quota) -> QuotaBody {
    QuotaBody {
        scope: scope(&quota.scope),
        meter: quota.meter.name().to_owned(),
        window: quota.window.name().to_owned(),
        timezone: quota.timezone.clone(),
        limit: quantity(quota.meter, quota.limit),
        mode: mode_name(quota.mode).to_owned(),
        overdraft: quantity(quota.meter, quota.overdraft),
    }
}

/// Billable quantities: every meter that is not zero, as decimal strings by name.
pub(crate) fn quantities(of: &Quantities) -> std::collections::BTreeMap<String, String> {
    let each = Meter::MEASURED
        .into_iter()
        .map(|meter| (meter, of.get(meter)));
    let used = each.filter(|(_, value)| *value > 0);
    used.map(|(meter, value)| (meter.name().to_owned(), value.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Faults;
    use serde_json::{Value, json};

    fn read(value: Value) -> (Option<Quota>, Vec<String>) {
        let Value::Object(map) = value else {
            unreachable!()
        };
        let mut faults = Faults::default();
        let mut object = Object::new(map, &mut faults);
        let quota = read_quota(&mut object);
        object.finish();
        (
            quota,
            faults
                .into_vec()
                .into_iter()
                .map(|fault| fault.pointer)
                .collect(),
        )
    }

    #[test]
    fn quotas_read_back_as_written() {
        for value in [
            json!({"meter": "cpu_us", "window": "day", "limit": "1000"}),
            json!({"meter": "cost", "window": "month", "limit": "12.5", "mode": "soft",
                   "overdraft": "0.000000000001", "timezone": "Europe/Berlin",
                   "scope": {"project": "web"}}),
        ] {
            let quota = read(value).0.unwrap();
            let again = serde_json::to_value(quota_body(&quota)).unwrap();
            assert_eq!(read(again).0.unwrap(), quota);
        }
    }

    #[test]
    fn money_is_shown_in_the_currency() {
        assert_eq!(quantity(Meter::Cost, 12_500_000_000_000), "12.5");
        assert_eq!(quantity(Meter::Cost, 1_000_000_000_000_000), "1000");
        assert_eq!(quantity(Meter::CpuUs, 1_000), "1000");
    }

    #[test]
    fn every_bad_part_of_a_quota_is_named() {
        let (quota, faults) = read(json!({
            "meter": "cpu", "window": "week", "limit": "1", "mode": "firm", "timezone": "Mars",
            "scope": {"project": "a", "key": "b"}, "odd": 1
        }));
        assert_eq!(quota, None);
        assert_eq!(
            faults,
            ["/scope/", "/meter", "/window", "/timezone", "/mode", "/odd"]
        );
        let (_, faults) = read(json!({"meter": "cpu_us", "window": "day", "limit": "-1"}));
        assert_eq!(faults, ["/limit"]);
        let (_, faults) = read(json!({"meter": "cpu_us", "window": "day", "limit": 5}));
        assert_eq!(faults, ["/limit"]);
    }
}
