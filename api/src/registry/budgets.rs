//! Budgets: how much a tenant should use in a window, and at which shares of that it is told.
//!
//! The ledger counts a budget as a quota that refuses nothing: exact, per scope, zone and window,
//! and as durable as the charges themselves.

use ledger::{Mode, Quota, Window};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Actor, Registry, Subject, Tenant};
use crate::config::Budgets as Options;
use crate::error::ApiError;
use crate::json::{Faults, Object};
use crate::outbox::Target;
use crate::shape::{self, QuotaScope};

/// Longest name of a budget or webhook, in bytes.
pub(crate) const NAME_MAX: usize = 64;
/// Highest threshold, in percent of the amount.
const PERCENT_MAX: u16 = 1_000;
/// What a budget that does not say is told at.
const THRESHOLDS: [u16; 3] = [50, 80, 100];
/// How a budget names a webhook of the operator's.
const OPERATORS: &str = "operator:";

/// A budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) name: String,
    /// What is counted, over which window; the limit is the amount.
    pub(crate) quota: Quota,
    /// Percent of the amount, ascending.
    pub(crate) thresholds: Vec<u16>,
    /// The name of a webhook of the tenant's, or with `operator:` before it, of the operator's.
    pub(crate) webhook: Option<String>,
}

/// A budget as it is set.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct BudgetBody {
    /// 1 to 64 of a-z, 0-9 and `-`; no other budget of the tenant has it.
    #[schema(example = "monthly")]
    pub name: String,
    /// Whose use counts; absent for the whole tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<QuotaScope>,
    /// What counts; `cost` for money.
    #[schema(example = "cost")]
    pub meter: String,
    /// `day`, `month` or `lifetime`.
    pub window: String,
    /// IANA name of the zone whose calendar cuts the windows; `UTC` if absent.
    pub timezone: String,
    /// How much, above zero, in the meter's unit (`cost`: in the currency); decimal.
    #[schema(example = "250.00")]
    pub amount: String,
    /// Percent of the amount, ascending, 1 to 1000; 50, 80 and 100 if absent.
    pub thresholds: Vec<u16>,
    /// Who is told: a webhook of the tenant's by name, or `operator:NAME`; null: nobody.
    pub webhook: Option<String>,
}

impl Budget {
    /// Whose webhook is told.
    pub(crate) fn target(&self, tenant: &str) -> Option<Target> {
        let name = self.webhook.as_deref()?;
        Some(match name.strip_prefix(OPERATORS) {
            Some(name) => Target {
                tenant: None,
                name: name.to_owned(),
            },
            None => Target {
                tenant: Some(tenant.to_owned()),
                name: name.to_owned(),
            },
        })
    }

    /// As it is set: the form that [`read`] reads.
    pub(crate) fn body(&self) -> BudgetBody {
        let quota = &self.quota;
        BudgetBody {
            name: self.name.clone(),
            scope: shape::scope(&quota.scope),
            meter: quota.meter.name().to_owned(),
            window: quota.window.name().to_owned(),
            timezone: quota.timezone.clone(),
            amount: shape::quantity(quota.meter, quota.limit),
            thresholds: self.thresholds.clone(),
            webhook: self.webhook.clone(),
        }
    }
}

/// Whether a budget or webhook may be called so.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=NAME_MAX).contains(&name.len()) && !name.starts_with('-') && name.chars().all(plain)
}

/// Reads one budget of a list; `None` after a fault.
pub(crate) fn read(object: &mut Object<'_>, options: &Options) -> Option<Budget> {
    let name = object.required_text("name", NAME_MAX);
    if name.as_deref().is_some_and(|name| !is_name(name)) {
        object.fault(
            "name",
            "must be 1 to 64 of a-z, 0-9 and -, not beginning with -",
        );
    }
    let counted = shape::read_counted(object);
    let window = counted.as_ref().map(|(_, _, window, _)| *window);
    if matches!(window, Some(Window::Minute | Window::Hour)) {
        object.fault("window", "must be day, month or lifetime");
    }
    let amount = object.required_text("amount", 48);
    let meter = counted.as_ref().map(|(_, meter, _, _)| *meter);
    let amount = shape::read_number(object, "amount", meter, amount);
    if amount.is_some_and(|amount| !is_amount(amount)) {
        object.fault("amount", "must be above zero and below 10^35");
    }
    let thresholds = thresholds(object, options.thresholds_max);
    let webhook = object.text("webhook", OPERATORS.len() + NAME_MAX);
    let (scope, meter, window, timezone) = counted?;
    Some(Budget {
        name: name?,
        quota: Quota {
            scope,
            meter,
            window,
            timezone,
            limit: amount?,
            mode: Mode::Soft,
            overdraft: 0,
        },
        thresholds: thresholds?,
        webhook,
    })
}

/// Shares of it must be countable.
fn is_amount(amount: u128) -> bool {
    amount > 0 && amount < 10_u128.pow(35)
}

fn thresholds(object: &mut Object<'_>, most: usize) -> Option<Vec<u16>> {
    let Some(items) = object.list("thresholds", most) else {
        return Some(THRESHOLDS.to_vec());
    };
    let mut percents: Vec<u16> = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let percent = item.as_u64().and_then(|number| u16::try_from(number).ok());
        let percent = percent.filter(|percent| (1..=PERCENT_MAX).contains(percent));
        match percent {
            Some(percent) if percents.last().is_none_or(|last| *last < percent) => {
                percents.push(percent);
            }
            Some(_) => {
                object.fault_in("thresholds", &at.to_string(), "is not above the one before");
            }
            None => {
                let detail = format!("must be a whole number from 1 to {PERCENT_MAX}");
                object.fault_in("thresholds", &at.to_string(), detail);
            }
        }
    }
    if items.is_empty() {
        object.fault("thresholds", "is empty");
    }
    (percents.len() == items.len()).then_some(percents)
}

/// The bytes of a list of budgets: none for an empty one, which is the same as no document.
pub(super) fn bytes(budgets: &[Budget]) -> Vec<u8> {
    if budgets.is_empty() {
        return Vec::new();
    }
    super::documents::bytes(&budgets.iter().map(Budget::body).collect::<Vec<_>>())
}

/// The budgets of a document.
pub(super) fn parse(subject: &str, bytes: &[u8]) -> Vec<Budget> {
    let options = Options {
        thresholds_max: usize::MAX,
        ..Options::default()
    };
    let mut faults = Faults::default();
    let maps: Vec<serde_json::Map<String, serde_json::Value>> =
        super::documents::read(subject, bytes).unwrap_or_default();
    let mut budgets = Vec::with_capacity(maps.len());
    for map in maps {
        budgets.extend(read(&mut Object::new(map, &mut faults), &options));
    }
    for fault in faults.into_vec() {
        tracing::error!(subject, fault = fault.detail, "a budget cannot be read");
    }
    budgets
}

impl Registry {
    /// Replaces a tenant's budgets.
    pub(crate) async fn set_budgets(
        &self,
        actor: &Actor,
        name: &str,
        budgets: Vec<Budget>,
        expect: Option<u64>,
    ) -> Result<std::sync::Arc<Tenant>, ApiError> {
        let _acts = self.acts.lock().await;
        let mut tenant = self.known(name)?;
        tenant.budgets = budgets;
        self.put(actor, ("budgets.set", Subject::Budgets), tenant, expect)
            .await
    }
}

/// What the ledger has to count for `budgets` besides `quotas`: one soft quota for all that count
/// the same.
pub(super) fn counted<'a>(
    quotas: &'a [Quota],
    budgets: &'a [Budget],
) -> impl Iterator<Item = &'a Quota> {
    let same = |one: &Quota, other: &Quota| one.name() == other.name();
    budgets.iter().enumerate().filter_map(move |(at, budget)| {
        let quota = &budget.quota;
        let earlier = budgets.iter().take(at).map(|earlier| &earlier.quota);
        let known = quotas.iter().chain(earlier).any(|other| same(other, quota));
        (!known).then_some(quota)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read_one(value: Value) -> (Option<Budget>, Vec<String>) {
        let Value::Object(map) = value else {
            unreachable!()
        };
        let mut faults = Faults::default();
        let mut object = Object::new(map, &mut faults);
        let budget = read(
            &mut object,
            &Options {
                thresholds_max: 4,
                ..Options::default()
            },
        );
        object.finish();
        let faults = faults.into_vec().into_iter().map(|fault| fault.pointer);
        (budget, faults.collect())
    }

    #[test]
    fn budgets_read_back_as_written() {
        for value in [
            json!({"name": "a", "meter": "cost", "window": "month", "amount": "250"}),
            json!({"name": "b-2", "meter": "cpu_us", "window": "day", "amount": "1000",
                   "timezone": "Asia/Tokyo", "scope": {"key": "key_1"},
                   "thresholds": [1, 99, 1000], "webhook": "operator:desk"}),
        ] {
            let budget = read_one(value).0.unwrap();
            let again = serde_json::to_value(budget.body()).unwrap();
            assert_eq!(read_one(again).0.as_ref(), Some(&budget));
            let stored = bytes(std::slice::from_ref(&budget));
            assert_eq!(parse("budgets/acme", &stored), [budget]);
        }
    }

    #[test]
    fn every_bad_part_of_a_budget_is_named() {
        let (budget, faults) = read_one(json!({
            "name": "A b", "meter": "colour", "window": "hour", "amount": "x", "odd": 1,
            "thresholds": [50, 50, 0, 1001]
        }));
        assert_eq!(budget, None);
        let all = [
            "/name",
            "/meter",
            "/thresholds/1",
            "/thresholds/2",
            "/thresholds/3",
            "/odd",
        ];
        assert_eq!(faults, all);
        for (member, value, pointer) in [
            ("window", json!("hour"), "/window"),
            ("amount", json!("0"), "/amount"),
            ("amount", json!("-1"), "/amount"),
            ("amount", json!("9".repeat(38)), "/amount"),
            ("thresholds", json!([1, 2, 3, 4, 5]), "/thresholds"),
            ("thresholds", json!([]), "/thresholds"),
            ("thresholds", json!("50"), "/thresholds"),
        ] {
            let mut body = json!({"name": "a", "meter": "cpu_us", "window": "day", "amount": "1"});
            body[member] = value;
            assert_eq!(read_one(body).1, [pointer]);
        }
    }

    #[test]
    fn what_counts_the_same_is_counted_once() {
        let budget = |name: &str, amount: &str, meter: &str| {
            let value = json!({"name": name, "meter": meter, "window": "day", "amount": amount});
            read_one(value).0.unwrap()
        };
        let budgets = [
            budget("a", "1", "cpu_us"),
            budget("b", "2", "cpu_us"),
            budget("c", "3", "wall_us"),
            budget("d", "4", "executions"),
        ];
        let quotas = [Quota {
            mode: Mode::Hard,
            ..budgets[2].quota.clone()
        }];
        let names: Vec<_> = counted(&quotas, &budgets).map(Quota::name).collect();
        assert_eq!(names, ["tenant/cpu_us/day", "tenant/executions/day"]);
    }
}
