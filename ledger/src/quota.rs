//! Quotas: what may be used, by whom, in which window; and how a hold runs into one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::quantity::Meter;

/// Whose use is counted, within one tenant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Scope {
    /// The whole tenant.
    Tenant,
    /// One project.
    Project(String),
    /// One function.
    Function(String),
    /// One key (a token's `jti`).
    Key(String),
}

/// What a scope is, without its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScopeKind {
    /// The whole tenant.
    Tenant,
    /// A project.
    Project,
    /// A function.
    Function,
    /// A key.
    Key,
}

impl Scope {
    /// What it is.
    pub fn kind(&self) -> ScopeKind {
        match self {
            Self::Tenant => ScopeKind::Tenant,
            Self::Project(_) => ScopeKind::Project,
            Self::Function(_) => ScopeKind::Function,
            Self::Key(_) => ScopeKind::Key,
        }
    }
}

impl ScopeKind {
    /// The name in JSON and in fields of answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Project => "project",
            Self::Function => "function",
            Self::Key => "key",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant => f.write_str("tenant"),
            Self::Project(name) => write!(f, "project:{name}"),
            Self::Function(name) => write!(f, "function:{name}"),
            Self::Key(name) => write!(f, "key:{name}"),
        }
    }
}

/// The stretch of calendar time over which use is summed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// A clock minute.
    Minute,
    /// A clock hour.
    Hour,
    /// A calendar day.
    Day,
    /// A calendar month.
    Month,
    /// Everything, for ever.
    Lifetime,
}

impl Window {
    /// All windows, shortest first.
    pub const ALL: [Self; 5] = [
        Self::Minute,
        Self::Hour,
        Self::Day,
        Self::Month,
        Self::Lifetime,
    ];

    /// The name in JSON and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Lifetime => "lifetime",
        }
    }
}

/// Whether a quota refuses or only tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Holds that do not fit are refused.
    Hard,
    /// Nothing is refused; the state shows what is over.
    Soft,
}

/// A cap on one meter in one scope per window. At most one per scope, meter, window and zone.
///
/// A new quota counts what its window has seen already; see [`crate::Ledger::counted`].
/// [`QuotaState::counted_since`] tells where that is not known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Quota {
    /// Whose use counts.
    pub scope: Scope,
    /// What counts.
    pub meter: Meter,
    /// Over which time.
    pub window: Window,
    /// IANA name of the zone whose calendar cuts the windows, such as `UTC`.
    pub timezone: String,
    /// The most that may be posted and held together, in the meter's unit.
    pub limit: u128,
    /// Whether it refuses.
    pub mode: Mode,
    /// What may be used past the limit before a hard quota refuses.
    pub overdraft: u128,
}

impl Quota {
    /// The name that refusals and reports carry, such as `project:web/cpu_us/month`.
    pub fn name(&self) -> String {
        let name = format!("{}/{}/{}", self.scope, self.meter, self.window.name());
        if self.timezone == "UTC" {
            name
        } else {
            format!("{name}@{}", self.timezone)
        }
    }
}

/// Quotas that are in force from an instant on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuotaChange {
    /// From when on, inclusive.
    pub effective_at: Micros,
    /// All quotas that are in force then, instead of those before.
    pub quotas: Vec<Quota>,
}

/// How many runs may begin in any 60 seconds; what has begun counts, however it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StartCaps {
    /// Of the whole tenant; above zero, `None` for as many as there are.
    pub per_minute: Option<u32>,
    /// Through each key; above zero, `None` for as many as there are.
    pub key_per_minute: Option<u32>,
}

/// Which cap on the number of runs something is left of. The names of a quota's scope are the run's
/// own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CapOf {
    /// A hard quota on executions.
    Quota {
        /// Whose.
        scope: ScopeKind,
        /// Over which time.
        window: Window,
    },
    /// Starts in 60 seconds, of the tenant or of a key.
    Starts(ScopeKind),
    /// Runs at once.
    Concurrency,
}

/// What is left of a cap on the number of runs once a hold is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Left {
    /// Which cap.
    pub of: CapOf,
    /// The most there may be; of a quota with its overdraft.
    pub limit: u128,
    /// How many more there may be now.
    pub left: u128,
    /// Start and end of the time that is counted over; `None` where it has none.
    pub window: Option<(Micros, Micros)>,
}

/// What stands in the way of a hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Cause {
    /// What was used already: only the next window or a higher limit helps.
    Posted,
    /// Only open holds: trying again soon may succeed.
    Held,
}

/// One hard quota that a hold would have passed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The quota's name.
    pub quota: String,
    /// Whose use counts.
    pub scope: Scope,
    /// What counts.
    pub meter: Meter,
    /// Over which time.
    pub window: Window,
    /// Limit and overdraft together.
    pub limit: u128,
    /// Used in the window.
    pub posted: u128,
    /// Held in the window.
    pub held: u128,
    /// What the refused hold needed.
    pub requested: u128,
    /// When the window ends; `None` for a lifetime.
    pub resets_at: Option<Micros>,
    /// What stands in the way.
    pub cause: Cause,
}

/// A quota and how it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuotaState {
    /// The quota.
    pub quota: Quota,
    /// Used in the current window.
    pub posted: u128,
    /// Held in the current window.
    pub held: u128,
    /// What a hold may still take; zero when it is over.
    pub free: u128,
    /// From when on the current window, or the lifetime, is counted, where that is not from its
    /// start.
    pub counted_since: Option<Micros>,
    /// When the window began; `None` for a lifetime.
    pub starts_at: Option<Micros>,
    /// When the window ends; `None` for a lifetime.
    pub resets_at: Option<Micros>,
}
