//! Whether what an act asks of the ledger can be done on its state.

use super::{Desk, books};
use crate::command::{Effect, Grant};
use crate::rate::RateCard;
use crate::rejection::Rejection;
use crate::state::{Amounts, Credit, State, Tenant};

/// Live grants of one tenant.
const GRANTS_MAX: u64 = 1_000;

/// Refuses an effect that does not fit the state.
pub(super) fn check(desk: Desk<'_>, effect: &Effect) -> Result<(), Rejection> {
    match effect {
        Effect::RateCard(card) => one_currency(desk.state, card),
        Effect::Tenant { .. } | Effect::Settings(_) | Effect::CountScopes(_) => Ok(()),
        Effect::Counted { settings, before } => {
            if desk.state.still_before(settings, before, desk.at) {
                Ok(())
            } else {
                Err(Rejection::Moved)
            }
        }
        Effect::Terms {
            tenant, rate_card, ..
        } => terms(desk, tenant, rate_card.as_deref()),
        Effect::Grant(wanted) => grant(desk, wanted),
        Effect::ClosePeriod(period) => {
            books::close(desk.state, *period, desk.at)?;
            books::in_time(*period, desk.at, desk.now)
        }
        Effect::Propose(proposal) => books::propose(desk, proposal),
        Effect::Approve { proposal, .. } | Effect::Reject { proposal, .. } => {
            books::waiting(desk.state, *proposal).map(|_waiting| ())
        }
        Effect::VoidGrant { tenant, grant } => {
            let live = known(desk.state, tenant)?.credit.grants();
            if live.iter().any(|one| one.seq == *grant) {
                Ok(())
            } else {
                Err(invalid(
                    "grant",
                    "is none of the tenant's, or has nothing left",
                ))
            }
        }
    }
}

/// Amounts are added up over all cards of an id, so these have one currency.
fn one_currency(state: &State, card: &RateCard) -> Result<(), Rejection> {
    let mut before = state.cards().iter().filter(|one| one.card.id == card.id);
    let currency = before.next().map(|first| first.card.currency.as_str());
    match currency.filter(|currency| *currency != card.currency) {
        None => Ok(()),
        Some(currency) => {
            let fault = format!("must be {currency}, as on the cards of this id before");
            Err(invalid("currency", fault))
        }
    }
}

/// Nothing of one currency is ever added to another: a tenant that has used anything keeps its own.
fn terms(desk: Desk<'_>, name: &str, rate_card: Option<&str>) -> Result<(), Rejection> {
    let tenant = known(desk.state, name)?;
    let cards = desk.state.cards();
    let default = cards.first().map(|first| first.card.id.as_str());
    let Some(id) = rate_card.or(default) else {
        return Ok(());
    };
    let Some(card) = desk.state.card_at(id, desk.at) else {
        return Err(invalid("rate_card", format!("`{id}` has no card in force")));
    };
    let now = desk.state.card_for(tenant, desk.at);
    let currency = now.map(|now| now.card.currency.as_str());
    let unused =
        tenant.lifetime() == (Amounts::default(), Amounts::default()) && tenant.adjustments == 0;
    if (unused && tenant.credit.grants().is_empty())
        || currency.is_none_or(|currency| currency == card.card.currency)
    {
        return Ok(());
    }
    let fault = format!(
        "is in {}, and what the tenant has used is in {}",
        card.card.currency,
        currency.unwrap_or_default()
    );
    Err(invalid("rate_card", fault))
}

fn grant(desk: Desk<'_>, grant: &Grant) -> Result<(), Rejection> {
    let tenant = known(desk.state, &grant.tenant)?;
    if grant.amount.0 <= 0 {
        return Err(invalid("amount", "must be above zero"));
    }
    if grant.expires_at.is_some_and(|end| end <= desk.at) {
        return Err(invalid("expires_at", "has passed"));
    }
    let card = desk.state.card_for(tenant, desk.at);
    let currency = card.ok_or(Rejection::NoRateCard)?.card.currency.as_str();
    if grant.currency != currency {
        let fault = format!("must be {currency}, as on the tenant's rate card");
        return Err(invalid("currency", fault));
    }
    grants_room(&tenant.credit)
}

/// Whether a tenant can have one more live grant.
pub(super) fn grants_room(credit: &Credit) -> Result<(), Rejection> {
    let live = u64::try_from(credit.grants().len()).unwrap_or(u64::MAX);
    if live >= GRANTS_MAX {
        return Err(Rejection::TooMany {
            what: "live grants",
            limit: GRANTS_MAX,
        });
    }
    Ok(())
}

/// A tenant that is known.
pub(super) fn known<'a>(state: &'a State, name: &str) -> Result<&'a Tenant, Rejection> {
    state.tenant(name).ok_or_else(|| Rejection::UnknownTenant {
        tenant: name.to_owned(),
    })
}

/// A field with a value that does not fit.
pub(super) fn invalid(field: &'static str, fault: impl Into<String>) -> Rejection {
    Rejection::Invalid {
        field,
        fault: fault.into(),
    }
}
