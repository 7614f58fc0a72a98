//! Whether a period can be closed, and an adjustment proposed, approved or rejected.

use super::check::wide;
use super::effect::{grants_room, invalid, known};
use super::{Desk, check};
use crate::adjust::{AMOUNT_MAX, Adjustment, PENDING_MAX, Party, Proposal, Proposed, REVERSED_MAX};
use crate::clock::Micros;
use crate::entry::Adjusted;
use crate::money::Money;
use crate::options::Options;
use crate::period::{self, Period};
use crate::rejection::Rejection;
use crate::state::State;

/// Whether a period can be closed at an instant.
pub(crate) fn close(state: &State, period: Period, at: Micros) -> Result<(), Rejection> {
    match period::refused(state, period, at) {
        None => Ok(()),
        Some(fault) => Err(Rejection::NotClosable { period, fault }),
    }
}

/// Whether the clock lets a period be closed at an instant.
pub(super) fn in_time(period: Period, at: Micros, now: Micros) -> Result<(), Rejection> {
    match period::untimely(period, at, now) {
        None => Ok(()),
        Some(fault) => Err(Rejection::NotClosable { period, fault }),
    }
}

/// What the texts of a proposal may hold at all.
pub(super) fn texts(
    options: &Options,
    proposal: &Proposal,
    reason: Option<&str>,
) -> Result<(), Rejection> {
    if reason.is_none_or(|reason| reason.trim().is_empty()) {
        return Err(invalid("reason", "is required"));
    }
    check::text(options, "subject", &proposal.subject)?;
    match &proposal.what {
        Adjustment::Reversal { .. } => Ok(()),
        Adjustment::Line { description } if description.trim().is_empty() => {
            Err(invalid("description", "is required"))
        }
        Adjustment::Line { description } => check::text(options, "description", description),
    }
}

/// Whether an adjustment can be proposed.
pub(super) fn propose(desk: Desk<'_>, proposal: &Proposal) -> Result<(), Rejection> {
    let adjustments = &desk.state.adjustments;
    if adjustments.pending().len() >= PENDING_MAX {
        return Err(Rejection::TooMany {
            what: "pending adjustments",
            limit: wide(PENDING_MAX),
        });
    }
    fits(desk.state, proposal, desk.at)?;
    match &proposal.what {
        Adjustment::Line { .. } if proposal.amount == Money::ZERO => {
            Err(invalid("amount", "must not be zero"))
        }
        Adjustment::Line { .. } => Ok(()),
        Adjustment::Reversal { entry, settled } => {
            if adjustments.takes_back(*entry) {
                return Err(Rejection::Reversed { entry: *entry });
            }
            if adjustments.reversed_len() >= REVERSED_MAX {
                return Err(Rejection::TooMany {
                    what: "reversed entries",
                    limit: wide(REVERSED_MAX),
                });
            }
            let meant = Proposal::reversal(*entry, (**settled).clone(), proposal.subject.clone());
            if *entry <= desk.state.seq && meant == *proposal {
                return Ok(());
            }
            Err(invalid("amount", "is not what the settlement was charged"))
        }
    }
}

/// Tenant, currency and size of an adjustment.
fn fits(state: &State, proposal: &Proposal, at: Micros) -> Result<(), Rejection> {
    let tenant = known(state, &proposal.tenant)?;
    let card = state.card_for(tenant, at).ok_or(Rejection::NoRateCard)?;
    let currency = card.card.currency.as_str();
    if proposal.currency != currency {
        let fault = format!("must be {currency}, as on the tenant's rate card");
        return Err(invalid("currency", fault));
    }
    if proposal.amount.0.unsigned_abs() > AMOUNT_MAX.0.unsigned_abs() {
        return Err(invalid("amount", format!("must be within {AMOUNT_MAX}")));
    }
    Ok(())
}

/// The adjustment that a pending proposal becomes when `approver` approves it at an instant.
pub(crate) fn approve(
    state: &State,
    id: u64,
    approver: Party,
    at: Micros,
) -> Result<Adjusted, Rejection> {
    let Proposed {
        author,
        reason,
        proposal,
        ..
    } = waiting(state, id)?;
    if !approver.differs(author) {
        return Err(Rejection::OwnProposal { proposal: id });
    }
    fits(state, proposal, at)?;
    let credit = &known(state, &proposal.tenant)?.credit;
    let refunded = proposal.what.refund();
    if refunded > Money::ZERO {
        grants_room(credit)?;
    }
    let reversed = proposal.what.reversed();
    let period = reversed.map(|settled| Period::of(settled.hold.opened_at));
    Ok(Adjusted {
        proposal: id,
        author: author.clone(),
        approver,
        reason: reason.clone(),
        tenant: proposal.tenant.clone(),
        currency: proposal.currency.clone(),
        amount: proposal.amount,
        what: proposal.what.clone(),
        funded: credit.draw(at, proposal.amount),
        refunded,
        corrects: period.filter(|period| state.closed(*period).is_some()),
    })
}

/// The pending proposal of that number.
pub(super) fn waiting(state: &State, id: u64) -> Result<&Proposed, Rejection> {
    let waiting = state.adjustments.waiting(id);
    waiting.ok_or(Rejection::NotPending { proposal: id })
}
