//! What closed periods and adjustments change in the state.

use std::sync::Arc;

use super::{Amounts, Open, State};
use crate::adjust::{self, Party, Proposed, Verdict};
use crate::clock::Micros;
use crate::command::Effect;
use crate::entry::{Acted, Adjusted, Entry};
use crate::period::{Closed, Period};
use crate::quantity::Quantities;
use crate::record::OpenHold;

impl State {
    /// When the first command was decided.
    pub(crate) fn since(&self) -> Option<Micros> {
        self.since
    }

    /// What closed a period, if it is closed.
    pub(crate) fn closed(&self, period: Period) -> Option<Closed> {
        self.closed.get(&period).copied()
    }

    /// Whether an instant lies in a closed period.
    pub(crate) fn is_closed(&self, at: Micros) -> bool {
        !self.closed.is_empty() && self.closed(Period::of(at)).is_some()
    }

    /// The open holds that were opened in a period, in no order.
    pub(crate) fn holds_of(&self, period: Period) -> impl Iterator<Item = &Arc<OpenHold>> {
        let (start, end) = (period.start(), period.end());
        let holds = self.holds.values().map(|Open { hold, .. }| hold);
        holds.filter(move |hold| start <= hold.opened_at && hold.opened_at < end)
    }

    /// Carries out an effect on periods and adjustments.
    pub(super) fn keep_books(
        &mut self,
        entry: &Entry,
        acted: &Acted,
        effect: &Effect,
    ) -> Result<(), String> {
        let party = |subject: &str| Party {
            key: acted.actor.clone(),
            subject: subject.to_owned(),
        };
        match effect {
            Effect::ClosePeriod(period) => {
                let (entry, at) = (entry.seq, entry.at);
                match self.closed.insert(*period, Closed { entry, at }) {
                    None => Ok(()),
                    Some(_) => Err(format!("period {period} is closed already")),
                }
            }
            Effect::Propose(proposal) => {
                self.adjustments.propose(Proposed {
                    id: entry.seq,
                    at: entry.at,
                    author: party(&proposal.subject),
                    reason: acted.reason.clone().unwrap_or_default(),
                    proposal: proposal.clone(),
                    verdict: None,
                });
                Ok(())
            }
            Effect::Reject { proposal, subject } => {
                let verdict = Verdict {
                    approved: false,
                    by: party(subject),
                    at: entry.at,
                    entry: entry.seq,
                    reason: acted.reason.clone(),
                };
                self.adjustments.decide(*proposal, verdict)
            }
            Effect::Approve { proposal, .. } => Err(format!("{proposal} is approved by an act")),
            Effect::Tenant { .. }
            | Effect::Settings(_)
            | Effect::CountScopes(_)
            | Effect::Counted { .. }
            | Effect::RateCard(_)
            | Effect::Terms { .. }
            | Effect::Grant(_)
            | Effect::VoidGrant { .. } => Err("the effect is none on the books".to_owned()),
        }
    }

    /// Takes in an approved adjustment.
    pub(super) fn adjust(&mut self, entry: &Entry, adjusted: &Adjusted) -> Result<(), String> {
        let verdict = adjust::approval(entry.seq, entry.at, adjusted);
        self.adjustments.decide(adjusted.proposal, verdict)?;
        let tenant = self.known(&adjusted.tenant)?;
        tenant.adjust(entry.at, &amounts(adjusted));
        tenant.credit.take(&adjusted.funded)?;
        if let Some(refund) = adjusted.refund() {
            tenant.credit.add(entry.seq, &refund);
        }
        Ok(())
    }
}

/// What an adjustment adds to what its tenant has posted: money only, as what was used was used.
pub(crate) fn amounts(adjusted: &Adjusted) -> Amounts {
    Amounts {
        quantities: Quantities::default(),
        cost: adjusted.amount.0,
    }
}
