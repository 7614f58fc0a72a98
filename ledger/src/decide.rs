//! Every rule of the ledger: a command and the state give a record, or a rejection.
//!
//! Nothing here writes, waits or changes anything.

pub(crate) mod books;
mod check;
mod effect;
mod reduce;

use std::borrow::Cow;
use std::sync::Arc;

use crate::adjust::Party;
use crate::clock::Micros;
use crate::command::{Act, Effect, HoldRequest, Settlement};
use crate::entry::{Acted, Body, Funding};
use crate::id::Id;
use crate::money::Money;
use crate::options::Options;
use crate::quantity::{Ceiling, OnLow, Quantities};
use crate::query::Estimate;
use crate::quota::{Cause, Mode, Violation};
use crate::rate::{Charge, Price};
use crate::record::{HoldRef, OpenHold, Release, Run, SettledRef, SettlementRef};
use crate::rejection::Rejection;
use crate::state::{Amounts, Bounds, Card, Places, Rule, State, Tenant};

/// What a decision may look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Desk<'a> {
    /// All that has been decided.
    pub(crate) state: &'a State,
    /// The configured bounds.
    pub(crate) options: &'a Options,
    /// The instant of the command.
    pub(crate) at: Micros,
}

/// A run that wants a hold, with what is known about its tenant and price.
struct Case<'a> {
    desk: Desk<'a>,
    tenant: &'a Tenant,
    places: Places,
    card: &'a Card,
}

/// What a hold would be opened with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Terms {
    granted: Ceiling,
    quantities: Quantities,
    amount: Money,
    rate_card: u64,
    opened_at: Micros,
}

impl Terms {
    /// As an answer to who only asks.
    pub(crate) fn estimate(&self, state: &State) -> Estimate {
        let card = state.card(self.rate_card).map(|card| &card.card);
        Estimate {
            granted: self.granted,
            quantities: self.quantities,
            amount: self.amount,
            currency: card.map_or_else(String::new, |card| card.currency.clone()),
            rate_card: card.map_or_else(String::new, |card| card.id.clone()),
        }
    }

    /// The hold.
    pub(crate) fn open(self, request: &HoldRequest) -> HoldRef<'_> {
        let tags = request.tags.iter();
        HoldRef {
            id: request.hold,
            execution: request.execution,
            run: Run::of(request),
            image: &request.image,
            tags: tags.map(|(key, value)| (&**key, &**value)).collect(),
            granted: self.granted,
            reduced: self.granted != request.ceiling,
            quantities: self.quantities,
            amount: self.amount,
            rate_card: self.rate_card,
            opened_at: self.opened_at,
            idempotency: request.idempotency,
        }
    }
}

/// How a hold would end with a charge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Charged {
    /// The hold.
    pub(crate) hold: Arc<OpenHold>,
    /// What is charged: the lesser of measured and held.
    pub(crate) posted: Quantities,
    /// What was measured above it.
    pub(crate) overrun: Quantities,
    /// What it costs.
    pub(crate) charge: Charge,
    /// What of that is paid from credit.
    pub(crate) funded: Vec<Funding>,
}

impl Charged {
    /// The settlement with this number and time.
    pub(crate) fn enter<'a>(
        &'a self,
        seq: u64,
        at: Micros,
        settlement: &'a Settlement,
    ) -> SettlementRef<'a> {
        SettlementRef {
            seq,
            at,
            hold: self.hold.bytes(),
            settled: SettledRef {
                posted: self.posted,
                overrun: self.overrun,
                charge: Cow::Borrowed(&self.charge),
                funded: Cow::Borrowed(&self.funded),
                outcome: &settlement.outcome,
                estimated: settlement.estimated,
            },
        }
    }
}

/// The terms of a hold for the worst case that fits.
pub(crate) fn hold(desk: Desk<'_>, request: &HoldRequest) -> Result<Terms, Rejection> {
    check::hold(desk.options, request)?;
    let tenant = desk.state.tenant(&request.tenant);
    let tenant = tenant.ok_or_else(|| Rejection::UnknownTenant {
        tenant: request.tenant.clone(),
    })?;
    retry_key(desk, request)?;
    if tenant.suspended {
        return Err(Rejection::Suspended {
            tenant: request.tenant.clone(),
        });
    }
    if desk.state.hold(&request.hold).is_some() || desk.state.is_executing(&request.execution) {
        return Err(Rejection::HoldExists { hold: request.hold });
    }
    let card = desk.state.card_for(tenant, desk.at);
    let card = card.ok_or(Rejection::NoRateCard)?;
    let places = tenant.places(&Run::of(request));
    let case = Case {
        desk,
        tenant,
        places,
        card,
    };
    let granted = case.grant(request.ceiling, request.on_low)?;
    let worst = case.worst_case(&granted).ok_or_else(unbounded)?;
    let amount = Money(worst.cost);
    case.may_open(request.max_cost, amount)?;
    Ok(Terms {
        granted,
        quantities: worst.quantities,
        amount,
        rate_card: card.seq,
        opened_at: desk.at,
    })
}

/// A used retry key never opens a second hold.
fn retry_key(desk: Desk<'_>, request: &HoldRequest) -> Result<(), Rejection> {
    let Some(retry) = request.idempotency else {
        return Ok(());
    };
    let ttl = Bounds::of(desk.options).idempotency_ttl_us;
    if let Some(opened) = desk.state.opened(&request.tenant, &retry.key, desk.at, ttl) {
        let execution = opened.execution;
        return Err(if opened.fingerprint == retry.fingerprint {
            Rejection::Replay { execution }
        } else {
            Rejection::IdempotencyMismatch { execution }
        });
    }
    let (kept, oldest_ends) = desk.state.keys_kept(&request.tenant, ttl);
    let limit = desk.options.idempotency_per_tenant_max;
    // The next insert drops what has ended, so the bound is reached only while the oldest has not.
    if check::wide(kept) >= limit && oldest_ends.is_some_and(|end| desk.at < end) {
        return Err(Rejection::TooMany {
            what: "idempotency keys",
            limit,
        });
    }
    Ok(())
}

fn unbounded() -> Rejection {
    let fault = "are zero, or so large that their worst case cannot be counted".to_owned();
    Rejection::Invalid {
        field: "limits",
        fault,
    }
}

impl Case<'_> {
    /// What a run within `ceiling` can use and cost at most.
    fn worst_case(&self, ceiling: &Ceiling) -> Option<Amounts> {
        let quantities = ceiling.quantities()?;
        let month = |price: &Price| self.tenant.standing_of(price, self.desk.at);
        let Money(cost) = self.card.card.worst_case(&quantities, month)?;
        Some(Amounts { quantities, cost })
    }

    /// The limits to run with: those asked for, or the largest that fit.
    fn grant(&self, asked: Ceiling, on_low: OnLow) -> Result<Ceiling, Rejection> {
        let worst = self.worst_case(&asked).ok_or_else(unbounded)?;
        let violations = self.violations(&worst);
        let refused = if !violations.is_empty() {
            Rejection::Quota(violations)
        } else if let Some(available) = self.lacking_credit(&worst) {
            Rejection::InsufficientFunds {
                amount: Money(worst.cost),
                available,
            }
        } else {
            return Ok(asked);
        };
        let OnLow::Reduce {
            min_cpu_ms,
            min_wall_ms,
        } = on_low
        else {
            return Err(refused);
        };
        let fits = |ceiling: &Ceiling| {
            self.worst_case(ceiling)
                .is_some_and(|worst| self.fits(&worst))
        };
        let least = (min_cpu_ms.max(1), min_wall_ms.max(1));
        reduce::largest(asked, least, fits).ok_or(refused)
    }

    fn fits(&self, need: &Amounts) -> bool {
        let fits = |rule| violation(self.tenant, rule, need, self.desk.at).is_none();
        self.tenant.rules_at(self.places).all(fits) && self.lacking_credit(need).is_none()
    }

    fn lacking_credit(&self, need: &Amounts) -> Option<Money> {
        lacking_credit(self.tenant, need, self.desk.at)
    }

    fn violations(&self, need: &Amounts) -> Vec<Violation> {
        let violation = |rule| violation(self.tenant, rule, need, self.desk.at);
        self.tenant
            .rules_at(self.places)
            .filter_map(violation)
            .collect()
    }

    fn may_open(&self, max_cost: Option<Money>, amount: Money) -> Result<(), Rejection> {
        if let Some(max_cost) = max_cost.filter(|max_cost| amount > *max_cost) {
            return Err(Rejection::MaxCost { amount, max_cost });
        }
        let (cap, open) = (self.tenant.concurrency, self.tenant.open);
        if open >= cap {
            return Err(Rejection::Concurrency { cap, open });
        }
        let limit = self.desk.options.holds_max;
        if check::wide(self.desk.state.holds_len()) >= limit {
            return Err(Rejection::TooMany {
                what: "open holds",
                limit,
            });
        }
        Ok(())
    }
}

/// `posted + held + need <= limit + overdraft`, or what stands in the way.
pub(crate) fn violation(
    tenant: &Tenant,
    rule: &Rule,
    need: &Amounts,
    at: Micros,
) -> Option<Violation> {
    let quota = &rule.quota;
    if quota.mode == Mode::Soft {
        return None;
    }
    let (posted, held, window) = tenant.standing(rule, at);
    let requested = need.get(quota.meter);
    let limit = quota.limit.saturating_add(quota.overdraft);
    let without_holds = posted
        .checked_add(requested)
        .is_some_and(|sum| sum <= limit);
    let all = posted
        .checked_add(held)
        .and_then(|sum| sum.checked_add(requested));
    if all.is_some_and(|sum| sum <= limit) {
        return None;
    }
    Some(Violation {
        quota: quota.name(),
        scope: quota.scope.clone(),
        meter: quota.meter,
        window: quota.window,
        limit,
        posted,
        held,
        requested,
        resets_at: (window.end != i64::MAX).then_some(window.end),
        cause: if without_holds {
            Cause::Held
        } else {
            Cause::Posted
        },
    })
}

/// What is left of a prepaid tenant's credit, if that does not cover what is held and needed.
pub(crate) fn lacking_credit(tenant: &Tenant, need: &Amounts, at: Micros) -> Option<Money> {
    if !tenant.credit.prepaid {
        return None;
    }
    let (_, held) = tenant.lifetime();
    let free = tenant.credit.available(at).0.saturating_sub(held.cost);
    (free < need.cost).then_some(Money(free.max(0)))
}

/// Ends a hold with a charge for the lesser of measured and held.
pub(crate) fn settle(desk: Desk<'_>, settlement: &Settlement) -> Result<Charged, Rejection> {
    check::text(desk.options, "outcome", &settlement.outcome)?;
    let not_open = Rejection::HoldNotOpen {
        hold: settlement.hold,
    };
    let (hold, tenant) = desk.state.hold_of(&settlement.hold).ok_or(not_open)?;
    let posted = settlement.measured.min(&hold.quantities);
    // What was held could be priced, so what is posted can be, by the same card.
    let card = desk.state.card(hold.rate_card).ok_or_else(unbounded)?;
    let month = |price: &Price| tenant.standing_of(price, hold.opened_at);
    let charge = card.card.charge(&posted, month).ok_or_else(unbounded)?;
    Ok(Charged {
        hold: Arc::clone(hold),
        posted,
        overrun: settlement.measured.above(&hold.quantities),
        funded: tenant.credit.draw(hold.opened_at, charge.total),
        charge,
    })
}

/// Ends a hold without a charge.
pub(crate) fn release(desk: Desk<'_>, hold: Id, reason: String) -> Result<Release, Rejection> {
    check::text(desk.options, "reason", &reason)?;
    if desk.state.hold(&hold).is_none() {
        return Err(Rejection::HoldNotOpen { hold });
    }
    Ok(Release {
        hold,
        at: desk.at,
        reason,
    })
}

/// Records an act; an approval, as the adjustment that is approved.
pub(crate) fn act(desk: Desk<'_>, act: Act) -> Result<Body, Rejection> {
    check::act(desk.options, &act)?;
    let last = desk
        .state
        .subject(&act.subject)
        .map_or(0, |subject| subject.seq);
    if act.expect.is_some_and(|expect| expect != last) {
        return Err(Rejection::Conflict {
            subject: act.subject,
            seq: last,
        });
    }
    room_for(desk, &act)?;
    if let Some(effect) = &act.effect {
        effect::check(desk, effect)?;
    }
    if let Some(Effect::Approve { proposal, subject }) = act.effect {
        let key = act.actor;
        let approver = Party { key, subject };
        return books::approve(desk.state, proposal, approver, desk.at).map(Body::Adjusted);
    }
    Ok(Body::Acted(Acted {
        actor: act.actor,
        action: act.action,
        subject: act.subject,
        tenant: act.tenant,
        reason: act.reason,
        document: act.document,
        effect: act.effect,
    }))
}

fn room_for(desk: Desk<'_>, act: &Act) -> Result<(), Rejection> {
    let (subjects, bytes) = desk.state.subjects_kept();
    let limit = desk.options.subjects_max;
    let known = desk.state.subject(&act.subject);
    if known.is_none() && check::wide(subjects) >= limit {
        return Err(Rejection::TooMany {
            what: "subjects",
            limit,
        });
    }
    let old = known
        .and_then(|subject| subject.document.as_deref())
        .map_or(0, <[u8]>::len);
    let new = act.document.as_deref().map_or(old, <[u8]>::len);
    let limit = desk.options.documents_bytes_max;
    if new > old && bytes.saturating_add(check::wide(new - old)) > limit {
        return Err(Rejection::TooMany {
            what: "bytes of documents",
            limit,
        });
    }
    let limit = desk.options.tenants_max;
    if let Some(Effect::Tenant { tenant, .. }) = &act.effect {
        let known = desk.state.tenant(tenant).is_some();
        if !known && check::wide(desk.state.tenants_len()) >= limit {
            return Err(Rejection::TooMany {
                what: "tenants",
                limit,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
