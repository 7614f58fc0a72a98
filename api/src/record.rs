//! The execution record: what the API shows of an execution, and what is kept of it.
//!
//! Code, files, standard input and environment are never part of it.

use std::collections::BTreeMap;

use ledger::{Charge, Entry, Quantities, Settled};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::rfc3339;
use crate::evidence::Evidence;
use crate::ids::{self, Kind};
use crate::limits::Limits;

/// One execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// `exe_` and 32 hex digits; later ones sort later.
    pub id: String,
    /// Whose.
    pub tenant: String,
    /// Booked on which project.
    pub project: String,
    /// Where it ran.
    pub node: String,
    /// `queued`, `running` or `finished`.
    pub state: State,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why it failed, and what proves it; absent where it ended with exit code 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Head of standard output.
    #[serde(default)]
    pub stdout: String,
    /// `utf8`, or `base64` where the bytes are no UTF-8 or mostly control characters.
    #[serde(default)]
    pub stdout_encoding: Encoding,
    /// Whether output past the limit was dropped.
    #[serde(default)]
    pub stdout_truncated: bool,
    /// Head of standard error.
    #[serde(default)]
    pub stderr: String,
    /// As for standard output.
    #[serde(default)]
    pub stderr_encoding: Encoding,
    /// As for standard output.
    #[serde(default)]
    pub stderr_truncated: bool,
    /// Why the output is not here: `lost` with the machine, or `expired` by age or space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Missing>,
    /// In which image.
    pub image: ImageRef,
    /// How the sandbox came: `cold`, `warm` or `reused`; absent before it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// The limits in force; absent where only the ledger remembers the execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// The caller's tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// The kernel's counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// What is charged for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What was measured above the worst case held: shown, never charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrun: Option<Usage>,
    /// What it costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<ChargeView>,
    /// Where the ledger has it; absent for what was never charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// When it was asked for; RFC 3339.
    pub created_at: String,
    /// When it began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Until when its files can be read, if it failed and they were to be kept: they may go
    /// earlier, when they are dropped, crowded out, or the server ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_until: Option<String>,
    /// W3C trace id: the caller's, or a new one.
    pub trace_id: String,
}

/// Where an execution is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for the tenant's concurrency or for the machine.
    Queued,
    /// It has its sandbox, or is getting it.
    Running,
    /// It has ended and is settled.
    Finished,
}

/// How bytes are written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// As they are.
    #[default]
    Utf8,
    /// RFC 4648 with padding.
    Base64,
}

/// Why output is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// It was never written down.
    Lost,
    /// It was dropped by age or space.
    Expired,
}

/// How a sandbox came to an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// Made ahead and waiting.
    Warm,
    /// Made for it.
    Cold,
    /// The tenant's own, used again.
    Reused,
}

impl Start {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Start::Warm => "warm",
            Start::Cold => "cold",
            Start::Reused => "reused",
        }
    }
}

/// An image by name and digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageRef {
    /// As the caller or the configuration named it.
    pub name: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// `exited`, `signalled`, `timed_out`, `out_of_memory`, `disk_full`, `process_limit`,
    /// `output_limit`, `cancelled`, `quota_exhausted`, `start_failed` or `lost`.
    pub kind: String,
    /// Exit code, if exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Signal, if signalled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// `wall` or `cpu`, if timed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<String>,
    /// Why it could not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The kernel's counters of one execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Measured {
    pub cpu_us: u64,
    pub cpu_user_us: u64,
    pub cpu_system_us: u64,
    pub wall_us: u64,
    pub memory_peak_bytes: u64,
    pub throttled_us: u64,
    pub oom_kills: u64,
    pub pids_peak: u64,
    pub io_read_bytes: u64,
    pub io_write_bytes: u64,
    pub egress_bytes: u64,
}

/// Billable quantities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Runs.
    pub executions: u64,
    /// CPU time.
    pub cpu_us: u64,
    /// Wall time.
    pub wall_us: u64,
    /// Memory limit times wall time in ms, rounded up; decimal.
    pub memory_byte_ms: String,
    /// Bytes sent out.
    pub egress_bytes: u64,
}

/// What an execution costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChargeView {
    /// ISO 4217 code.
    pub currency: String,
    /// Sum of the lines; decimal.
    pub total: String,
    /// One for each meter used and priced.
    pub lines: Vec<Line>,
}

/// One line of a charge: amount = quantity x rate / unit size, rounded once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    /// What.
    pub meter: String,
    /// Which tier of its price, from 0.
    #[serde(default)]
    pub tier: u8,
    /// How much, in the meter's unit, or of packages; decimal.
    pub quantity: String,
    /// How much the rate is for; decimal.
    pub unit_size: String,
    /// Price of a unit; decimal.
    pub rate: String,
    /// The line's amount; decimal.
    pub amount: String,
}

/// Where the ledger has an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// The hold that paid.
    pub hold: String,
    /// Number of the entry.
    pub entry: u64,
    /// Whether the quantities are an estimate, after a crash.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

impl Outcome {
    fn plain(kind: &str) -> Outcome {
        Outcome {
            kind: kind.to_owned(),
            code: None,
            signal: None,
            clock: None,
            reason: None,
        }
    }

    /// Nothing could be started, for this reason.
    pub(crate) fn start_failed(reason: impl Into<String>) -> Outcome {
        Outcome {
            reason: Some(bounded(&reason.into())),
            ..Outcome::plain("start_failed")
        }
    }

    /// It was cancelled before it ran.
    pub(crate) fn cancelled() -> Outcome {
        Outcome::plain("cancelled")
    }

    /// Its end is not known.
    pub(crate) fn lost() -> Outcome {
        Outcome::plain("lost")
    }

    /// The form in which the ledger's entry carries it: `kind` or `kind:detail`.
    pub(crate) fn to_entry(&self) -> String {
        let number = self.code.or(self.signal).map(|number| number.to_string());
        match number.as_ref().or(self.clock.as_ref()) {
            Some(detail) => format!("{}:{detail}", self.kind),
            None => self.kind.clone(),
        }
    }

    /// The outcome that an entry carries.
    pub(crate) fn from_entry(text: &str) -> Outcome {
        let (kind, detail) = text.split_once(':').unwrap_or((text, ""));
        let mut outcome = Outcome::plain(kind);
        match kind {
            "exited" => outcome.code = detail.parse().ok(),
            "signalled" => outcome.signal = detail.parse().ok(),
            "timed_out" => outcome.clock = Some(detail.to_owned()),
            _ => {}
        }
        outcome
    }
}

/// A reason, cut to what a record may carry and free of control characters.
fn bounded(reason: &str) -> String {
    reason
        .chars()
        .filter(|c| !c.is_control())
        .take(500)
        .collect()
}

impl From<&runtime::Outcome> for Outcome {
    fn from(outcome: &runtime::Outcome) -> Outcome {
        use runtime::Outcome as Of;
        match outcome {
            Of::Exited { code } => Outcome {
                code: Some(*code),
                ..Outcome::plain("exited")
            },
            Of::Signalled { signal } => Outcome {
                signal: Some(*signal),
                ..Outcome::plain("signalled")
            },
            Of::TimedOut { clock } => {
                let clock = match clock {
                    runtime::Clock::Wall => "wall",
                    runtime::Clock::Cpu => "cpu",
                };
                Outcome {
                    clock: Some(clock.to_owned()),
                    ..Outcome::plain("timed_out")
                }
            }
            Of::OutOfMemory => Outcome::plain("out_of_memory"),
            Of::DiskFull => Outcome::plain("disk_full"),
            Of::ProcessLimit => Outcome::plain("process_limit"),
            Of::OutputLimit => Outcome::plain("output_limit"),
            Of::Cancelled => Outcome::cancelled(),
            Of::QuotaExhausted => Outcome::plain("quota_exhausted"),
            Of::StartFailed { reason } => Outcome::start_failed(reason),
            Of::Lost => Outcome::lost(),
        }
    }
}

impl From<&runtime::Measured> for Measured {
    fn from(of: &runtime::Measured) -> Measured {
        Measured {
            cpu_us: of.cpu_us,
            cpu_user_us: of.cpu_user_us,
            cpu_system_us: of.cpu_system_us,
            wall_us: of.wall_us,
            memory_peak_bytes: of.memory_peak_bytes,
            throttled_us: of.throttled_us,
            oom_kills: of.oom_kills,
            pids_peak: of.pids_peak,
            io_read_bytes: of.io_read_bytes,
            io_write_bytes: of.io_write_bytes,
            egress_bytes: of.egress_bytes,
        }
    }
}

impl From<&Quantities> for Usage {
    fn from(of: &Quantities) -> Usage {
        Usage {
            executions: of.executions,
            cpu_us: of.cpu_us,
            wall_us: of.wall_us,
            memory_byte_ms: of.memory_byte_ms.to_string(),
            egress_bytes: of.egress_bytes,
        }
    }
}

impl From<&Charge> for ChargeView {
    fn from(of: &Charge) -> ChargeView {
        let lines = of.lines.iter().map(|line| Line {
            meter: line.meter.name().to_owned(),
            tier: line.tier,
            quantity: line.quantity.to_string(),
            unit_size: line.unit_size.to_string(),
            rate: crate::shape::plain(&line.rate.to_string()).to_owned(),
            amount: line.amount.to_string(),
        });
        ChargeView {
            currency: of.currency.clone(),
            total: of.total.to_string(),
            lines: lines.collect(),
        }
    }
}

/// The form in which a hold names the image, so that an entry alone can tell name and digest.
pub(crate) fn image_to_entry(image: &ImageRef) -> String {
    format!("{}@{}", image.name, image.digest)
}

fn image_from_entry(text: &str) -> ImageRef {
    let (name, digest) = text.rsplit_once('@').unwrap_or((text, ""));
    ImageRef {
        name: name.to_owned(),
        digest: digest.to_owned(),
    }
}

impl Record {
    /// What the ledger's entry alone can tell of an execution whose record is gone.
    pub(crate) fn from_entry(
        entry: &Entry,
        settled: &Settled,
        node: &str,
        output: Missing,
    ) -> Record {
        let hold = &settled.hold;
        let outcome = Outcome::from_entry(&settled.outcome);
        Record {
            id: ids::text(Kind::Execution, &hold.execution.0),
            tenant: hold.tenant.clone(),
            project: hold.project.clone(),
            node: node.to_owned(),
            state: State::Finished,
            evidence: Evidence::of_outcome(&outcome),
            outcome: Some(outcome),
            stdout: String::new(),
            stdout_encoding: Encoding::Utf8,
            stdout_truncated: false,
            stderr: String::new(),
            stderr_encoding: Encoding::Utf8,
            stderr_truncated: false,
            output: Some(output),
            image: image_from_entry(&hold.image),
            start: None,
            limits: None,
            tags: hold.tags.iter().cloned().collect(),
            measured: None,
            usage: Some(Usage::from(&settled.posted)),
            overrun: over(&settled.overrun),
            charge: Some(ChargeView::from(&settled.charge)),
            receipt: Some(Receipt {
                hold: ids::text(Kind::Hold, &hold.id.0),
                entry: entry.seq,
                estimated: settled.estimated,
            }),
            created_at: rfc3339(ids::made_us(&hold.execution.0)),
            started_at: None,
            finished_at: Some(rfc3339(entry.at)),
            kept_until: None,
            trace_id: "0".repeat(32),
        }
    }
}

/// Overrun, where there is any.
pub(crate) fn over(overrun: &Quantities) -> Option<Usage> {
    (!overrun.is_zero()).then(|| Usage::from(overrun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_survive_the_ledger() {
        use runtime::Outcome as Of;
        for outcome in [
            Of::Exited { code: 3 },
            Of::Signalled { signal: 9 },
            Of::TimedOut {
                clock: runtime::Clock::Cpu,
            },
            Of::OutOfMemory,
            Of::Cancelled,
            Of::Lost,
        ] {
            let outcome = Outcome::from(&outcome);
            assert_eq!(Outcome::from_entry(&outcome.to_entry()), outcome);
        }
    }

    #[test]
    fn images_survive_the_ledger() {
        let image = ImageRef {
            name: "py:3@x".to_owned(),
            digest: "sha256:ab".to_owned(),
        };
        assert_eq!(image_from_entry(&image_to_entry(&image)), image);
    }

    #[test]
    fn reasons_are_bounded_and_printable() {
        let outcome = Outcome::start_failed(format!("a\u{1b}[31m{}", "x".repeat(9_000)));
        let reason = outcome.reason.unwrap();
        assert!(reason.len() == 500 && !reason.contains('\u{1b}'));
    }
}
