//! What goes into the writer's queue, and the answers that it gives.

use crate::command::{Act, Held, HoldRequest, Receipt, Recorded, Released, Settlement};
use crate::decide;
use crate::error::Failed;
use crate::id::Id;
use crate::quota::Left;
use crate::rate::Charge;
use crate::rejection::Rejection;
use crate::ticket::Answer;

/// A command on its way, with where its answer goes; small, as the queue has room for thousands.
#[derive(Debug)]
pub(crate) enum Command {
    /// See [`crate::Ledger::hold`].
    Hold(Box<Holding>, Answer<Result<Held, Rejection>>),
    /// See [`crate::Ledger::settle`].
    Settle(Box<Settling>, Answer<Result<Receipt, Rejection>>),
    /// See [`crate::Ledger::release`].
    Release(Id, String, Answer<Result<Released, Rejection>>),
    /// See [`crate::Ledger::act`].
    Act(Box<Act>, Answer<Result<Recorded, Rejection>>),
    /// Only looks whether there is room again.
    Look,
    /// Ends the writer, after everything that was queued before.
    Close,
}

/// A hold with room for what it leaves of caps, which goes back to where it was made.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(super) request: HoldRequest,
    pub(super) room: Vec<Left>,
}

impl Holding {
    /// With room that is made here.
    pub(crate) fn new(request: HoldRequest) -> Self {
        Self {
            request,
            room: Vec::with_capacity(decide::LEFT_ROOM),
        }
    }
}

/// A settlement with room for its charge, which goes back to where it was made.
#[derive(Debug)]
pub(crate) struct Settling {
    pub(super) settlement: Settlement,
    pub(super) room: Charge,
}

impl Settling {
    /// With room that is made here.
    pub(crate) fn new(settlement: Settlement) -> Self {
        Self {
            settlement,
            room: Charge::room(),
        }
    }
}

/// A put answer that waits for its frame to be durable.
#[derive(Debug)]
pub(crate) enum Reply {
    Held(Answer<Result<Held, Rejection>>),
    Settled(Answer<Result<Receipt, Rejection>>),
    Released(Answer<Result<Released, Rejection>>),
    Recorded(Answer<Result<Recorded, Rejection>>),
}

impl Command {
    /// Answers that the command was not carried out.
    pub(super) fn refuse(self, failed: Failed) {
        match self {
            Self::Hold(_, answer) => answer.fail(failed),
            Self::Settle(_, answer) => answer.fail(failed),
            Self::Release(_, _, answer) => answer.fail(failed),
            Self::Act(_, answer) => answer.fail(failed),
            Self::Look | Self::Close => {}
        }
    }
}

impl Reply {
    /// Gives the answer.
    pub(crate) fn give(self) {
        match self {
            Self::Held(answer) => answer.give(),
            Self::Settled(answer) => answer.give(),
            Self::Released(answer) => answer.give(),
            Self::Recorded(answer) => answer.give(),
        }
    }
}
