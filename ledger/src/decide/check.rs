//! What a command's fields may hold at all, whatever the state.

use super::books;
use crate::calendar;
use crate::command::{Act, Effect, HoldRequest, Settings};
use crate::options::Options;
use crate::quantity::OnLow;
use crate::quota::{Quota, Scope};
use crate::rejection::Rejection;

/// A length as a number.
pub(super) fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn invalid(field: &'static str, fault: impl Into<String>) -> Rejection {
    Rejection::Invalid {
        field,
        fault: fault.into(),
    }
}

/// A short text: bounded.
pub(super) fn text(options: &Options, field: &'static str, text: &str) -> Result<(), Rejection> {
    let most = options.text_bytes_max;
    if wide(text.len()) > most {
        return Err(invalid(field, format!("has more than {most} bytes")));
    }
    Ok(())
}

/// A name that becomes part of a key of the view: bounded, not empty, without NUL.
fn name(options: &Options, field: &'static str, name: &str) -> Result<(), Rejection> {
    text(options, field, name)?;
    if name.is_empty() || name.contains('\0') {
        return Err(invalid(field, "is empty or contains NUL"));
    }
    Ok(())
}

/// The names of a hold.
pub(super) fn names(options: &Options, request: &HoldRequest) -> Result<(), Rejection> {
    name(options, "tenant", &request.tenant)?;
    name(options, "project", &request.project)?;
    name(options, "key", &request.key)?;
    match &request.function {
        Some(function) => name(options, "function", function),
        None => Ok(()),
    }
}

/// The other fields of a hold.
pub(super) fn hold(options: &Options, request: &HoldRequest) -> Result<(), Rejection> {
    text(options, "image", &request.image)?;
    if wide(request.tags.len()) > options.tags_max {
        return Err(invalid(
            "tags",
            format!("are more than {}", options.tags_max),
        ));
    }
    for (key, value) in &request.tags {
        text(options, "tags", key)?;
        text(options, "tags", value)?;
    }
    let ceiling = &request.ceiling;
    match request.on_low {
        OnLow::Reduce {
            min_cpu_ms,
            min_wall_ms,
        } if min_cpu_ms > ceiling.cpu_ms || min_wall_ms > ceiling.wall_ms => {
            return Err(invalid("limits", "are below the least to reduce to"));
        }
        OnLow::Reduce { .. } | OnLow::Refuse => {}
    }
    Ok(())
}

/// The fields of an act.
pub(super) fn act(options: &Options, act: &Act) -> Result<(), Rejection> {
    text(options, "actor", &act.actor)?;
    text(options, "action", &act.action)?;
    name(options, "subject", &act.subject)?;
    text(options, "tenant", act.tenant.as_deref().unwrap_or(""))?;
    text(options, "reason", act.reason.as_deref().unwrap_or(""))?;
    let most = options.document_bytes_max;
    if act
        .document
        .as_deref()
        .is_some_and(|document| wide(document.len()) > most)
    {
        return Err(invalid("document", format!("has more than {most} bytes")));
    }
    match &act.effect {
        None => Ok(()),
        Some(Effect::RateCard(card)) => match card.fault() {
            Some(fault) => Err(invalid("rate card", fault)),
            None => Ok(()),
        },
        Some(Effect::Tenant {
            tenant,
            quotas: list,
            ..
        }) => {
            name(options, "tenant", tenant)?;
            quotas(options, list)
        }
        Some(
            Effect::Settings(wanted)
            | Effect::Counted {
                settings: wanted, ..
            },
        ) => settings(options, wanted),
        Some(Effect::Terms { rate_card, .. }) => {
            text(options, "rate_card", rate_card.as_deref().unwrap_or(""))
        }
        Some(Effect::Grant(grant)) => text(options, "name", &grant.name),
        Some(Effect::VoidGrant { .. } | Effect::ClosePeriod(_) | Effect::CountScopes(_)) => Ok(()),
        Some(Effect::Propose(proposal)) => books::texts(options, proposal, act.reason.as_deref()),
        Some(Effect::Approve { subject, .. } | Effect::Reject { subject, .. }) => {
            text(options, "subject", subject)
        }
    }
}

fn settings(options: &Options, settings: &Settings) -> Result<(), Rejection> {
    name(options, "tenant", &settings.tenant)?;
    let caps = settings.starts;
    if caps.per_minute == Some(0) || caps.key_per_minute == Some(0) {
        return Err(invalid("starts", "must be above zero"));
    }
    quotas(options, &settings.quotas)?;
    let limit = options.quota_changes_per_tenant_max;
    if wide(settings.changes.len()) > limit {
        return Err(Rejection::TooMany {
            what: "changes of quotas",
            limit,
        });
    }
    let mut last = i64::MIN;
    for change in &settings.changes {
        if change.effective_at <= last {
            return Err(invalid("changes", "are not each after the one before"));
        }
        last = change.effective_at;
        quotas(options, &change.quotas)?;
    }
    Ok(())
}

fn quotas(options: &Options, quotas: &[Quota]) -> Result<(), Rejection> {
    let limit = options.quotas_per_tenant_max;
    if wide(quotas.len()) > limit {
        return Err(Rejection::TooMany {
            what: "quotas",
            limit,
        });
    }
    for (i, quota) in quotas.iter().enumerate() {
        match &quota.scope {
            Scope::Tenant => {}
            Scope::Project(scope) | Scope::Function(scope) | Scope::Key(scope) => {
                name(options, "scope", scope)?;
            }
        }
        text(options, "timezone", &quota.timezone)?;
        if calendar::zone(&quota.timezone).is_none() {
            let fault = format!("`{}` is not a known IANA time zone", quota.timezone);
            return Err(invalid("timezone", fault));
        }
        let same = |other: &Quota| {
            other.meter == quota.meter
                && other.window == quota.window
                && other.scope == quota.scope
                && other.timezone == quota.timezone
        };
        if quotas.iter().take(i).any(same) {
            return Err(invalid("quotas", format!("name `{}` twice", quota.name())));
        }
    }
    Ok(())
}
