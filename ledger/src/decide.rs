//! Every rule of the ledger: a command and the state give a record, or a rejection.
//!
//! Nothing here writes, waits or changes anything.

pub(crate) mod books;
mod check;
mod effect;
mod left;
mod reduce;

use std::sync::Arc;

pub(crate) use self::left::{ROOM as LEFT_ROOM, left};
use crate::adjust::Party;
use crate::clock::Micros;
use crate::command::{Act, Effect, HoldRequest, Settings, Settlement};
use crate::entry::{Acted, Body, Funding};
use crate::id::Id;
use crate::money::Money;
use crate::options::Options;
use crate::quantity::{Ceiling, OnLow, Quantities};
use crate::query::Estimate;
use crate::quota::{Cause, Quota, Violation};
use crate::rate::{Charge, Price};
use crate::record::{HoldRef, OpenHold, Release, Run, SettledRef, SettlementRef};
use crate::rejection::Rejection;
use crate::state::{Amounts, Bounds, Card, Limit, Located, Places, Stands, State, Tenant};

/// What a decision may look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Desk<'a> {
    /// All that has been decided.
    pub(crate) state: &'a State,
    /// The configured bounds.
    pub(crate) options: &'a Options,
    /// The instant of the command.
    pub(crate) at: Micros,
    /// What the clock says: behind the instant, where the ledger's time is ahead of it.
    pub(crate) now: Micros,
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
    /// Where it is counted, if all its scopes are already.
    pub(crate) located: Option<Located>,
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
                posted: &self.posted,
                overrun: &self.overrun,
                charge: &self.charge,
                funded: &self.funded,
                outcome: &settlement.outcome,
                estimated: settlement.estimated,
            },
        }
    }
}

/// The terms of a hold for the worst case that fits. `known` is where another run of the same
/// names was counted, which spares checking and looking up the names.
pub(crate) fn hold(
    desk: Desk<'_>,
    request: &HoldRequest,
    known: Option<Located>,
) -> Result<Terms, Rejection> {
    if known.is_none() {
        check::names(desk.options, request)?;
    }
    check::hold(desk.options, request)?;
    let unknown = || Rejection::UnknownTenant {
        tenant: request.tenant.clone(),
    };
    let run = Run::of(request);
    let located = known.or_else(|| desk.state.locate(&run));
    let located = located.ok_or_else(unknown)?;
    let tenant = desk.state.placed(located.tenant).ok_or_else(unknown)?;
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
    let case = Case {
        desk,
        tenant,
        places: located.scopes,
        card,
    };
    let (granted, worst) = case.grant(request.ceiling, request.on_low)?;
    let amount = Money(worst.cost);
    case.may_open(request, amount)?;
    Ok(Terms {
        located: Some(located).filter(|located| located.is_whole()),
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
        return Err(Rejection::TooManyKeys { limit });
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

    /// The limits to run with, those asked for or the largest that fit, and their worst case.
    fn grant(&self, asked: Ceiling, on_low: OnLow) -> Result<(Ceiling, Amounts), Rejection> {
        let worst = self.worst_case(&asked).ok_or_else(unbounded)?;
        if self.fits(&worst) {
            return Ok((asked, worst));
        }
        let refused = || self.refused(&worst);
        let OnLow::Reduce {
            min_cpu_ms,
            min_wall_ms,
        } = on_low
        else {
            return Err(refused());
        };
        let fits = |ceiling: &Ceiling| {
            self.worst_case(ceiling)
                .is_some_and(|worst| self.fits(&worst))
        };
        let least = (min_cpu_ms.max(1), min_wall_ms.max(1));
        let granted = reduce::largest(asked, least, fits).ok_or_else(refused)?;
        Ok((granted, self.worst_case(&granted).ok_or_else(unbounded)?))
    }

    fn fits(&self, need: &Amounts) -> bool {
        within_limits(self.tenant, self.places, need, self.desk.at)
            && lacking_credit(self.tenant, need, self.desk.at).is_none()
    }

    /// Why what does not fit is refused.
    fn refused(&self, need: &Amounts) -> Rejection {
        let at = self.desk.at;
        let violations = violations(self.tenant, self.places, need, at);
        match lacking_credit(self.tenant, need, at) {
            Some(available) if violations.is_empty() => Rejection::InsufficientFunds {
                amount: Money(need.cost),
                available,
            },
            _ => Rejection::Quota(violations),
        }
    }

    fn may_open(&self, request: &HoldRequest, amount: Money) -> Result<(), Rejection> {
        if let Some(max_cost) = request.max_cost.filter(|max_cost| amount > *max_cost) {
            return Err(Rejection::MaxCost { amount, max_cost });
        }
        if let Some(too_fast) = self.tenant.too_fast(&request.key, self.desk.at) {
            return Err(too_fast);
        }
        let (cap, open) = (self.tenant.concurrency, self.tenant.open);
        if open >= cap {
            return Err(Rejection::Concurrency { cap, open });
        }
        let limit = self.desk.options.holds_max;
        if check::wide(self.desk.state.holds_len()) >= limit {
            return Err(Rejection::TooManyHolds { limit });
        }
        Ok(())
    }
}

impl Limit {
    /// `posted + held + need <= limit + overdraft`.
    #[inline]
    pub(crate) fn fits(&self, (posted, held, _): &Stands, need: &Amounts) -> bool {
        let used = posted.checked_add(*held);
        used.is_some_and(|used| self.has_room(used, need))
    }
}

/// Whether a run counted at these places would pass no hard quota.
pub(crate) fn within_limits(tenant: &Tenant, places: Places, need: &Amounts, at: Micros) -> bool {
    tenant.has_room(places, need, at)
}

/// All hard quotas that a run counted at these places would pass, in the order in which they were
/// given.
pub(crate) fn violations(
    tenant: &Tenant,
    places: Places,
    need: &Amounts,
    at: Micros,
) -> Vec<Violation> {
    let mut passed: Vec<(&Limit, Stands)> = tenant
        .limits(places, at)
        .filter(|(limit, stands)| !limit.fits(stands, need))
        .collect();
    passed.sort_unstable_by_key(|(limit, _)| limit.rule());
    let rules = tenant.rules(at).all();
    let violation = |(limit, stands): (&Limit, Stands)| {
        let quota = &rules.get(limit.rule())?.quota;
        Some(violation(quota, limit, stands, need))
    };
    passed.into_iter().filter_map(violation).collect()
}

fn violation(
    quota: &Quota,
    limit: &Limit,
    (posted, held, window): Stands,
    need: &Amounts,
) -> Violation {
    let requested = need.get(quota.meter);
    let without_holds = posted
        .checked_add(requested)
        .is_some_and(|sum| sum <= limit.most);
    Violation {
        quota: quota.name(),
        scope: quota.scope.clone(),
        meter: quota.meter,
        window: quota.window,
        limit: limit.most,
        posted,
        held,
        requested,
        resets_at: (window.end != i64::MAX).then_some(window.end),
        cause: if without_holds {
            Cause::Held
        } else {
            Cause::Posted
        },
    }
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

/// Ends a hold with a charge, made in `room`, for the lesser of measured and held.
pub(crate) fn settle(
    desk: Desk<'_>,
    settlement: &Settlement,
    room: Charge,
) -> Result<Charged, Rejection> {
    check::text(desk.options, "outcome", &settlement.outcome)?;
    let not_open = Rejection::HoldNotOpen {
        hold: settlement.hold,
    };
    let (hold, tenant) = desk.state.hold_of(&settlement.hold).ok_or(not_open)?;
    let posted = settlement.measured.min(&hold.quantities);
    // What was held could be priced, so what is posted can be, by the same card.
    let card = desk.state.card(hold.rate_card).ok_or_else(unbounded)?;
    let month = |price: &Price| tenant.standing_of(price, hold.opened_at);
    let charge = card.card.charge_in(room, &posted, month);
    let charge = charge.ok_or_else(unbounded)?;
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
    if let Some(
        Effect::Tenant { tenant, .. }
        | Effect::Settings(Settings { tenant, .. })
        | Effect::Counted {
            settings: Settings { tenant, .. },
            ..
        },
    ) = &act.effect
    {
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
