//! Firings and deliveries: what they are, and how long to wait before one is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Options;

/// An alert that has fired, so that it does not fire again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Firing {
    /// The event's id, made from what fired: the same thing has the same id.
    pub(crate) id: String,
    /// Until when it has to be remembered.
    pub(crate) until_us: i64,
}

/// Whose webhook, and its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Target {
    /// The tenant; `None` for the operator.
    pub(crate) tenant: Option<String>,
    pub(crate) name: String,
}

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It will be sent, or sent again.
    Pending,
    /// The receiver has it.
    Delivered,
    /// It was given up.
    Dead,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Delivered => "delivered",
            State::Dead => "dead",
        }
    }
}

/// One event on its way to one webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) to: Target,
    /// The event as it is sent: a `CloudEvents` document.
    pub(crate) body: String,
    pub(crate) created_us: i64,
    pub(crate) state: State,
    /// Attempts in all, and since it was last asked for.
    pub(crate) attempts: u32,
    pub(crate) tries: u32,
    /// The last attempt: when, what the receiver answered, or what went wrong.
    pub(crate) last_us: Option<i64>,
    pub(crate) status: Option<u16>,
    pub(crate) fault: Option<String>,
    /// When it is tried next.
    pub(crate) next_us: Option<i64>,
}

/// Something to tell.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) firing: Firing,
    pub(crate) body: String,
    /// Nobody is told of an event without one; it has fired all the same.
    pub(crate) to: Option<Target>,
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The receiver has answered.
    Answered(u16),
    /// It has not; what went wrong, in a few fixed words.
    Failed(&'static str),
    /// It is of no use to try again.
    Hopeless(&'static str),
}

/// Why a delivery is not sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAgain {
    Unknown,
    Full,
}

/// How long to wait after that many failed tries: twice as long each time, up to a bound, of which
/// the later half is left to chance, so that many do not come back at the same instant.
pub(super) fn backoff(options: &Options, tries: u32, random: u64) -> Duration {
    let factor = 1_u64
        .checked_shl(tries.saturating_sub(1))
        .unwrap_or(u64::MAX);
    let most = options.backoff_ms.saturating_mul(factor);
    let most = most.min(options.backoff_max_ms);
    let half = most.div_ceil(2);
    let chance = random.checked_rem(most.saturating_sub(half).saturating_add(1));
    Duration::from_millis(half.saturating_add(chance.unwrap_or(0)))
}
