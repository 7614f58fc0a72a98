//! What an act has done, told from what it recorded: amounts, terms, quotas, scopes, and no secret.

use ledger::{Acted, Adjustment, Effect, Grant, Proposal, RateCard};
use serde_json::{Map, Value, json};

use crate::clock::rfc3339;
use crate::handlers::statements::decimal;

/// Members of one list that are shown; how many there are beyond is told.
const LIST_MAX: usize = 100;

/// The detail of an act; `None` where its action and subject say all there is.
pub(crate) fn detail(acted: &Acted) -> Option<Value> {
    let mut told = effect(acted).or_else(|| document(acted))?;
    if let Value::Object(members) = &mut told {
        shorten(members);
    }
    Some(told)
}

fn effect(acted: &Acted) -> Option<Value> {
    match acted.effect.as_ref()? {
        Effect::Grant(given) => Some(grant(given)),
        Effect::VoidGrant { grant, .. } => Some(json!({ "grant": grant })),
        Effect::Terms {
            rate_card, prepaid, ..
        } => Some(json!({ "rate_card": rate_card, "prepaid": prepaid })),
        Effect::RateCard(added) => Some(card(added)),
        Effect::ClosePeriod(period) => Some(json!({ "period": period.to_string() })),
        Effect::Propose(proposed) => Some(proposal(proposed)),
        Effect::Reject { proposal, .. } | Effect::Approve { proposal, .. } => {
            Some(json!({ "adjustment": proposal.to_string() }))
        }
        Effect::CountScopes(bounds) => Some(json!({
            "in_all": bounds.in_all,
            "per_tenant": bounds.per_tenant,
        })),
        Effect::Tenant { .. } | Effect::Settings(_) | Effect::Counted { .. } => None,
    }
}

fn grant(given: &Grant) -> Value {
    json!({
        "name": given.name,
        "amount": decimal(given.amount),
        "currency": given.currency,
        "priority": given.priority,
        "expires_at": given.expires_at.map(rfc3339),
    })
}

fn card(added: &RateCard) -> Value {
    let meters = added.prices.iter().map(|price| price.meter.name());
    json!({
        "rate_card": added.id,
        "currency": added.currency,
        "effective_from": rfc3339(added.effective_from),
        "meters": meters.collect::<Vec<_>>(),
    })
}

fn proposal(of: &Proposal) -> Value {
    let description = match &of.what {
        Adjustment::Line { description } => Some(description),
        Adjustment::Reversal { .. } => None,
    };
    json!({
        "amount": decimal(of.amount),
        "currency": of.currency,
        "reverses": of.what.reverses(),
        "description": description,
        "subject": of.subject,
    })
}

/// What the subject has become, of the kinds that this program writes. A document has what its
/// subject needs at the next start, so members are named here one by one.
fn document(acted: &Acted) -> Option<Value> {
    let (kind, name) = acted.subject.split_once('/')?;
    if kind == "revoked" {
        return Some(json!({ "jti": name }));
    }
    let bytes = acted.document.as_deref()?;
    let read = || serde_json::from_slice::<Value>(bytes).ok();
    match kind {
        // An empty list is no document.
        "budgets" if bytes.is_empty() => Some(json!({ "budgets": [] })),
        "budgets" => Some(json!({ "budgets": read()? })),
        "quotas" => match read()? {
            list @ Value::Array(_) => Some(json!({ "quotas": list })),
            mut whole => Some(json!({ "quotas": whole.get_mut("quotas").map(Value::take) })),
        },
        "limits" => read(),
        "tenant" => only(read()?, &["display_name", "suspended"]),
        "webhook" => only(read()?, &["url", "enabled"]),
        "token" => {
            let mut told = only(read()?, &["jti", "name", "scopes", "expires_s"])?;
            let expires_s = told.as_object_mut()?.remove("expires_s")?.as_i64()?;
            told["expires_at"] = json!(rfc3339(expires_s.saturating_mul(1_000_000)));
            Some(told)
        }
        _ => None,
    }
}

fn only(document: Value, names: &[&str]) -> Option<Value> {
    let Value::Object(mut members) = document else {
        return None;
    };
    members.retain(|name, _| names.contains(&name.as_str()));
    Some(Value::Object(members))
}

/// Cuts lists that are too long, and tells how much of them.
fn shorten(members: &mut Map<String, Value>) {
    let mut left_out = 0;
    for value in members.values_mut() {
        if let Value::Array(list) = value {
            left_out += list.len().saturating_sub(LIST_MAX);
            list.truncate(LIST_MAX);
        }
    }
    if left_out > 0 {
        members.insert("left_out".to_owned(), json!(left_out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(subject: &str, document: &Value) -> Acted {
        Acted {
            actor: "key".to_owned(),
            action: "x.set".to_owned(),
            subject: subject.to_owned(),
            tenant: None,
            reason: None,
            document: Some(serde_json::to_vec(document).unwrap()),
            effect: None,
        }
    }

    #[test]
    fn a_detail_is_bounded_and_tells_no_secret() {
        let many: Vec<u32> = (0..150).collect();
        let told = detail(&act("budgets/acme", &json!(many))).unwrap();
        assert_eq!(told["budgets"].as_array().unwrap().len(), LIST_MAX);
        assert_eq!(told["left_out"], 50);
        let hook = json!({"url": "http://h/", "enabled": true, "secret": "s1", "more": 1});
        assert_eq!(
            detail(&act("webhook/acme/h", &hook)),
            Some(json!({"url": "http://h/", "enabled": true}))
        );
        assert_eq!(detail(&act("adjustments/acme/key", &json!([1, 2]))), None);
        assert_eq!(detail(&act("other/acme", &hook)), None);
    }
}
