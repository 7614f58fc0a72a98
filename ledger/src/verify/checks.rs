//! What must hold of a record, given the state before it.

use crate::clock::Micros;
use crate::command::Effect;
use crate::decide;
use crate::entry::{Acted, Adjusted, Funding};
use crate::money::Money;
use crate::period::Period;
use crate::quantity::Meter;
use crate::rate::{Charge, Price, RateCard, Standing};
use crate::record::SettledRef;
use crate::state::{Amounts, Booked, Card, Located, State, Tenant};

/// A hold must have been allowed: priced by the card in force, within every hard quota and the cap.
pub(super) fn hold(
    state: &State,
    hold: &Booked,
    located: Located,
    key: &[u8],
    worst_case: &mut WorstCase,
) -> Result<(), String> {
    let tenant = state
        .placed(located.tenant)
        .ok_or("its tenant is not known")?;
    let card = state
        .card_for(tenant, hold.at)
        .filter(|card| card.seq == hold.rate_card);
    let card = card.ok_or("the hold is not priced by the card in force")?;
    let month = |price: &Price| tenant.standing_of(price, hold.at);
    if !worst_case.is(card, &hold.held, month) {
        return Err("the hold's amount is not what its card says".to_owned());
    }
    if tenant.suspended || tenant.open >= tenant.concurrency {
        return Err("the hold passes its tenant's concurrency, or the tenant is suspended".into());
    }
    if tenant.is_capped()
        && let Some(too_fast) = tenant.too_fast(&String::from_utf8_lossy(key), hold.at)
    {
        return Err(format!("the hold passes its cap on starts: {too_fast}"));
    }
    let (need, at) = (&hold.held, hold.at);
    if decide::lacking_credit(tenant, need, at).is_some() {
        return Err("the hold passes its tenant's credit".to_owned());
    }
    let places = located.scopes;
    if !decide::within_limits(tenant, places, need, at)
        && let Some(violation) = decide::violations(tenant, places, need, at).first()
    {
        return Err(format!("the hold passes quota `{}`", violation.quota));
    }
    Ok(())
}

/// The last worst case that a card priced, where that depends on nothing else: hold after hold has
/// the same limits.
#[derive(Debug, Default)]
pub(super) struct WorstCase {
    last: Option<(u64, Amounts)>,
}

impl WorstCase {
    /// Whether these quantities cost so much at most.
    fn is(&mut self, card: &Card, held: &Amounts, month: impl Fn(&Price) -> Standing) -> bool {
        if self.last == Some((card.seq, *held)) {
            return true;
        }
        let is_it = card.card.worst_case(&held.quantities, month) == Some(Money(held.cost));
        if is_it && card.card.is_flat() {
            self.last = Some((card.seq, *held));
        }
        is_it
    }
}

/// A settlement must post the lesser of measured and held.
pub(super) fn measured(settled: &SettledRef<'_>, hold: &Booked) -> Result<(), String> {
    let most = &hold.held.quantities;
    // Nearly always nothing was measured above what is posted, and that is not above the hold.
    let plain = settled.overrun.is_zero() && settled.posted.above(most).is_zero();
    let meters = Meter::MEASURED.into_iter().filter(|_| !plain);
    for meter in meters {
        let held = most.get(meter);
        let (posted, overrun) = (settled.posted.get(meter), settled.overrun.get(meter));
        if posted > held || (overrun > 0 && posted != held) {
            return Err(format!("{meter} is not the lesser of measured and held"));
        }
    }
    Ok(())
}

/// A settlement must charge what the card of its hold says, made in `room`, and not above the hold.
pub(super) fn charged(
    card: &RateCard,
    settled: &SettledRef<'_>,
    hold: &Booked,
    month: impl Fn(&Price) -> Standing,
    room: &mut Charge,
) -> Result<(), String> {
    let charge = card.charge_in(std::mem::take(room), settled.posted, month);
    if charge.as_ref() != Some(settled.charge) || settled.charge.total.0 > hold.held.cost {
        return Err("the charge is not what the rate card says".to_owned());
    }
    *room = charge.unwrap_or_default();
    Ok(())
}

/// A charge must count in a month that is not closed, and be paid from the credit that there is.
pub(super) fn paid(
    state: &State,
    hold: &Booked,
    tenant: &Tenant,
    total: Money,
    funded: &[Funding],
) -> Result<(), String> {
    if state.is_closed(hold.at) {
        let period = Period::of(hold.at);
        return Err(format!("it counts in period {period}, which is closed"));
    }
    if funded != tenant.credit.draw(hold.at, total) {
        return Err("the charge is not paid from the credit that there was".to_owned());
    }
    Ok(())
}

/// A period must have been ready to be closed, and what is said of windows must fit.
pub(super) fn acted(state: &State, at: Micros, acted: &Acted) -> Result<(), String> {
    match &acted.effect {
        Some(Effect::ClosePeriod(period)) => {
            decide::books::close(state, *period, at).map_err(|no| no.to_string())
        }
        Some(Effect::Counted { settings, before }) if !state.still_before(settings, before, at) => {
            Err("what its windows have seen is not what they can have".to_owned())
        }
        _ => Ok(()),
    }
}

/// An adjustment must be what was proposed, approved by somebody else, and reverse what was not
/// reversed before; that the settlement is the one in the journal is checked at the end.
pub(super) fn adjusted(state: &State, at: Micros, adjusted: &Adjusted) -> Result<(), String> {
    let approver = adjusted.approver.clone();
    let approved = decide::books::approve(state, adjusted.proposal, approver, at);
    if approved.map_err(|no| no.to_string())? != *adjusted {
        return Err("the adjustment is not what was proposed".to_owned());
    }
    Ok(())
}
