//! What a start finds: holds that an earlier server left open are settled or released, rate cards
//! and tiers brought up to the configuration. Nothing is served before this is done.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ledger::{Act, Body, Effect, Hold, Quantities, RateCard, Settlement};
use runtime::{EndedBy, Final};

use crate::app::App;
use crate::error::ApiError;
use crate::execute::quantities;
use crate::record::{Measured, Missing, Outcome, Record};

/// Ends every hold that is open, from what the shims wrote down; answers how many there were.
///
/// What ran is settled with the shim's last figures. Where nobody wrote anything down, one
/// execution with nothing else is settled and marked as an estimate.
pub(crate) async fn end_open_holds(app: &App) -> Result<usize, ApiError> {
    let left = app.runtime.left_behind();
    let by_execution: HashMap<[u8; 16], &Final> = left
        .iter()
        .filter_map(|one| Some((one.execution?, one)))
        .collect();
    let holds = app.ledger.open_holds();
    let mut tickets = Vec::with_capacity(holds.len());
    for hold in &holds {
        let found = by_execution.get(&hold.execution.0).copied();
        tickets.push((hold, found, app.ledger.settle(settlement(hold, found))?));
    }
    for (hold, found, ticket) in tickets {
        match ticket.await? {
            Ok(_) => keep(app, hold, found),
            Err(no) => tracing::error!(%no, hold = %hold.id, "an open hold could not be settled"),
        }
    }
    // Only now are they not needed any more.
    let kept: HashSet<_> = left.iter().map(|one| one.sandbox).collect();
    kept.into_iter()
        .for_each(|sandbox| app.runtime.forget(sandbox));
    Ok(holds.len())
}

fn settlement(hold: &Hold, found: Option<&Final>) -> Settlement {
    let measured = match found {
        Some(one) => quantities(&one.measured, hold.granted.memory_bytes),
        None => Quantities {
            executions: 1,
            ..Quantities::default()
        },
    };
    let outcome = found.map_or_else(Outcome::lost, |one| outcome(one.ended_by, hold.reduced));
    Settlement {
        hold: hold.id,
        measured,
        outcome: outcome.to_entry(),
        estimated: found.is_none(),
    }
}

/// How an execution ended that no server saw the end of.
fn outcome(ended_by: EndedBy, reduced: bool) -> Outcome {
    use runtime::{Clock, Outcome as Of};
    let outcome = match ended_by {
        EndedBy::Wall | EndedBy::Cpu if reduced => Of::QuotaExhausted,
        EndedBy::Wall => Of::TimedOut { clock: Clock::Wall },
        EndedBy::Cpu => Of::TimedOut { clock: Clock::Cpu },
        EndedBy::Oom => Of::OutOfMemory,
        EndedBy::Finish | EndedBy::InitDied | EndedBy::ShimDied | EndedBy::ServerGone => Of::Lost,
    };
    Outcome::from(&outcome)
}

/// Keeps a record of what was settled; if it cannot be read back now, it is made from the entry
/// whenever it is asked for.
fn keep(app: &App, hold: &Hold, found: Option<&Final>) {
    let Ok(Some(entry)) = app.ledger.settlement_of(hold.execution) else {
        return;
    };
    let Body::Settled(settled) = &entry.body else {
        return;
    };
    let mut record = Record::from_entry(&entry, settled, &app.config.server.node, Missing::Lost);
    record.measured = found.map(|one| Measured::from(&one.measured));
    app.records.keep(hold.execution.0, &Arc::new(record));
}

/// Records the configured rate cards that the ledger does not have yet. A card is never edited: the
/// same id and date with other prices is a fault of the configuration.
pub(crate) async fn record_rates(app: &App) -> Result<(), ApiError> {
    for card in &app.config.rates {
        let known = app.ledger.rate_cards();
        let same = known
            .iter()
            .map(|(_, known)| known)
            .find(|known| known.id == card.id && known.effective_from == card.effective_from);
        match same {
            Some(known) if known.as_ref() == card => {}
            Some(_) => {
                return Err(ApiError::Conflict {
                    detail: edited(card),
                });
            }
            None => record_rate(app, card).await?,
        }
    }
    Ok(())
}

fn edited(card: &RateCard) -> String {
    format!(
        "the rate card `{}` is in the ledger with other prices: give the new ones a later \
         effective_from",
        card.id
    )
}

async fn record_rate(app: &App, card: &RateCard) -> Result<(), ApiError> {
    let act = Act {
        actor: "server".to_owned(),
        action: "rate.set".to_owned(),
        subject: format!("rate/{}", card.id),
        tenant: None,
        reason: Some("configuration".to_owned()),
        document: None,
        effect: Some(Effect::RateCard(card.clone())),
        expect: None,
    };
    let recorded = app.ledger.act(act)?.await?;
    recorded
        .map(drop)
        .map_err(|no| crate::error::rejected(no, app.clock.wall_us()))
}
