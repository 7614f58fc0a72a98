//! Why an execution failed, and what proves it: kept with its record.

use runtime::{Autopsy, Captured, EndedBy, Report};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::Limits;
use crate::record::{Encoding, Outcome};
use crate::text::text_of;

/// Why an execution failed, and what proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// The cause in words, on one line.
    pub cause: String,
    /// The limit that was hit; absent where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitHit>,
    /// What the kernel had counted; absent where nothing had run, or nobody could look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
    /// The last 4,096 bytes of standard output, also of what was dropped at the limit.
    #[serde(default)]
    pub stdout_tail: String,
    /// `utf8`, or `base64` where the bytes are no UTF-8.
    #[serde(default)]
    pub stdout_tail_encoding: Encoding,
    /// The last 4,096 bytes of standard error.
    #[serde(default)]
    pub stderr_tail: String,
    /// As for standard output.
    #[serde(default)]
    pub stderr_tail_encoding: Encoding,
    /// The processes that were there when the end was decided, at most 32, the oldest first.
    #[serde(default)]
    pub processes: Vec<ProcessView>,
    /// How many more there were.
    #[serde(default)]
    pub processes_more: u64,
}

/// A limit that an execution ran into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitHit {
    /// As in `limits`, whose unit it has.
    pub name: String,
    /// What it was.
    pub value: u64,
    /// The most that was reached; absent where the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
    /// The counter that shows it.
    pub counter: String,
    /// What that counter said.
    pub count: u64,
}

/// What the kernel had counted when the end was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// CPU time used, before anything was killed.
    pub cpu_us: u64,
    /// Time for which the CPU share held processes back.
    pub cpu_throttled_us: u64,
    /// Processes that the kernel killed for want of memory.
    pub memory_oom_kill: u64,
    /// Highest memory charge, page cache included.
    pub memory_peak_bytes: u64,
    /// Processes and threads that the kernel refused at the limit.
    pub pids_max: u64,
    /// Bytes left on the disk; absent where nobody could look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    /// Inodes left on the disk; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_free_inodes: Option<u64>,
}

/// One process of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProcessView {
    /// Its id, as inside the sandbox.
    pub pid: u32,
    /// Its parent's, where that is known; 1 is the sandbox's init, which is not listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// What it called itself; what does not print is escaped.
    pub name: String,
    /// `running`, `sleeping`, `blocked`, `stopped`, `traced`, `zombie`, `dead`, `idle`, `unknown`.
    pub state: String,
    /// CPU time that it had used itself, in whole ticks of the kernel.
    pub cpu_us: u64,
}

impl Evidence {
    /// What is known of a failure in which nothing has run, or of which only the outcome is left;
    /// none of a success.
    pub(crate) fn of_outcome(outcome: &Outcome) -> Option<Evidence> {
        (!is_success(outcome)).then(|| Evidence {
            cause: cause(outcome, None),
            limit: None,
            counters: None,
            stdout_tail: String::new(),
            stdout_tail_encoding: Encoding::Utf8,
            stderr_tail: String::new(),
            stderr_tail_encoding: Encoding::Utf8,
            processes: Vec::new(),
            processes_more: 0,
        })
    }

    /// What is known of a failure that ran; none of a success.
    pub(crate) fn of_report(
        outcome: &Outcome,
        report: &Report,
        limits: &Limits,
    ) -> Option<Evidence> {
        let mut evidence = Evidence::of_outcome(outcome)?;
        (evidence.stdout_tail, evidence.stdout_tail_encoding) = tail(&report.stdout);
        (evidence.stderr_tail, evidence.stderr_tail_encoding) = tail(&report.stderr);
        let Some(autopsy) = &report.autopsy else {
            return Some(evidence);
        };
        // Without a word of the shim or the launcher there is no counter either.
        evidence.counters = autopsy.ended_by.map(|_| counters(report, autopsy));
        evidence.limit = limit(outcome, report, limits);
        evidence.cause = cause(outcome, evidence.limit.as_ref());
        evidence.processes = autopsy.processes.iter().map(ProcessView::from).collect();
        evidence.processes_more = autopsy.processes_more;
        Some(evidence)
    }
}

impl From<&runtime::ProcessSeen> for ProcessView {
    fn from(seen: &runtime::ProcessSeen) -> ProcessView {
        ProcessView {
            pid: seen.pid,
            parent: seen.parent,
            name: seen.name.clone(),
            state: seen.state.to_owned(),
            cpu_us: seen.cpu_us,
        }
    }
}

/// Whether an execution ended as it should.
pub(crate) fn is_success(outcome: &Outcome) -> bool {
    outcome.kind == "exited" && outcome.code == Some(0)
}

fn counters(report: &Report, autopsy: &Autopsy) -> Counters {
    let measured = &report.measured;
    Counters {
        cpu_us: autopsy.cpu_us,
        cpu_throttled_us: measured.throttled_us,
        memory_oom_kill: measured.oom_kills,
        memory_peak_bytes: measured.memory_peak_bytes,
        pids_max: autopsy.pids_refused,
        disk_free_bytes: autopsy.disk_free.map(|free| free.bytes),
        disk_free_inodes: autopsy.disk_free.map(|free| free.inodes),
    }
}

/// The limit that an outcome stands for, and the counter that proves it.
fn limit(outcome: &Outcome, report: &Report, limits: &Limits) -> Option<LimitHit> {
    let autopsy = report.autopsy.as_ref()?;
    let measured = &report.measured;
    let hit = |name: &str, peak: Option<u64>, counter: &str, count: u64| {
        Some(LimitHit {
            name: name.to_owned(),
            value: limits.get(name),
            peak,
            counter: counter.to_owned(),
            count,
        })
    };
    match (outcome.kind.as_str(), autopsy.ended_by) {
        ("timed_out" | "quota_exhausted", Some(EndedBy::Wall)) => {
            let peak = Some(measured.wall_us / 1_000);
            hit("wall_ms", peak, "wall_us", measured.wall_us)
        }
        ("timed_out" | "quota_exhausted", Some(EndedBy::Cpu)) => {
            let peak = Some(autopsy.cpu_us / 1_000);
            hit("cpu_ms", peak, "cpu_us", autopsy.cpu_us)
        }
        ("out_of_memory", _) => {
            let peak = measured.memory_peak_bytes;
            let (counter, count) = match measured.oom_kills {
                // What the network stack charges is let past the limit, and nothing is killed.
                0 => ("memory_peak_bytes", peak),
                kills => ("memory_oom_kill", kills),
            };
            hit("memory_bytes", Some(peak), counter, count)
        }
        ("process_limit", _) => {
            let peak = Some(measured.pids_peak).filter(|peak| *peak > 0);
            hit("pids", peak, "pids_max", autopsy.pids_refused)
        }
        ("disk_full", _) => {
            let free = autopsy.disk_free?;
            if free.inodes == 0 {
                hit("inodes", Some(limits.inodes), "disk_free_inodes", 0)
            } else {
                let used = limits.disk_bytes.saturating_sub(free.bytes);
                hit("disk_bytes", Some(used), "disk_free_bytes", free.bytes)
            }
        }
        ("output_limit", _) => {
            let (counter, most) = [
                ("stdout_bytes", report.stdout.total),
                ("stderr_bytes", report.stderr.total),
            ]
            .into_iter()
            .max_by_key(|(_, total)| *total)?;
            hit("output_bytes", Some(most), counter, most)
        }
        _ => None,
    }
}

/// The end of a stream as text: a character that is cut at its beginning is left out.
fn tail(captured: &Captured) -> (String, Encoding) {
    let bytes = captured.tail();
    let cut = bytes
        .iter()
        .take(3)
        .take_while(|byte| **byte & 0xc0 == 0x80);
    let rest = bytes.get(cut.count()..).unwrap_or_default();
    match text_of(rest, false) {
        (text, Encoding::Utf8) => (text, Encoding::Utf8),
        (_, Encoding::Base64) => text_of(&bytes, false),
    }
}

/// What happened, for somebody who has not read the documentation.
fn cause(outcome: &Outcome, limit: Option<&LimitHit>) -> String {
    let value = limit.map(|limit| limit.value);
    let count = limit.map_or(0, |limit| limit.count);
    let of = |unit: &str| value.map_or_else(String::new, |value| format!(" of {value} {unit}"));
    let bytes = || value.map_or_else(String::new, |value| format!(" of {}", amount(value)));
    let clock = || match limit.map(|limit| limit.name.as_str()) {
        Some("cpu_ms") => "CPU time",
        Some("wall_ms") => "wall time",
        Some(_) | None => match outcome.clock.as_deref() {
            Some("cpu") => "CPU time",
            Some("wall") => "wall time",
            _ => "time",
        },
    };
    match outcome.kind.as_str() {
        "exited" => exited(outcome.code),
        "signalled" => signalled(outcome.signal),
        "timed_out" => format!("the limit on {}{} was used up", clock(), of("ms")),
        "quota_exhausted" => {
            format!(
                "the {}{} that a quota had left was used up",
                clock(),
                of("ms")
            )
        }
        "out_of_memory" => match limit.map(|limit| limit.counter.as_str()) {
            Some("memory_oom_kill") => format!(
                "the memory limit{} was reached, and the kernel killed {count} of its processes",
                bytes()
            ),
            _ => format!("the memory limit{} was passed", bytes()),
        },
        "disk_full" => match limit.map(|limit| limit.name.as_str()) {
            Some("inodes") => format!("the disk's limit{} was reached", of("files")),
            _ => format!("the disk{} was full", bytes()),
        },
        "process_limit" => format!(
            "the limit{} was reached: the kernel refused {count} more",
            of("processes and threads")
        ),
        "output_limit" => format!("a stream passed the output limit{}", bytes()),
        "cancelled" => "it was cancelled".to_owned(),
        "start_failed" => {
            let reason = outcome.reason.as_deref().unwrap_or("no reason is known");
            format!("it could not be started: {reason}")
        }
        "lost" => "its sandbox went away without saying how it ended".to_owned(),
        other => format!("it ended as {other}"),
    }
}

fn exited(code: Option<i32>) -> String {
    let code = code.unwrap_or(1);
    match code {
        127 => "the program ended with exit code 127: command not found".to_owned(),
        126 => "the program ended with exit code 126: not executable".to_owned(),
        _ => format!("the program ended with exit code {code}"),
    }
}

fn signalled(signal: Option<i32>) -> String {
    let name = match signal {
        Some(4) => "SIGILL, an illegal instruction",
        Some(5) => "SIGTRAP",
        Some(6) => "SIGABRT, it aborted itself",
        Some(7) => "SIGBUS, a bad memory access",
        Some(8) => "SIGFPE, a bad arithmetic operation",
        Some(9) => "SIGKILL, from a process of its own",
        Some(11) => "SIGSEGV, a bad memory access",
        Some(13) => "SIGPIPE",
        Some(14) => "SIGALRM",
        Some(15) => "SIGTERM",
        Some(24) => "SIGXCPU",
        Some(25) => "SIGXFSZ, a file too large",
        Some(31) => "SIGSYS, a forbidden system call",
        Some(other) => return format!("the program was ended by signal {other}"),
        None => return "the program was ended by a signal".to_owned(),
    };
    format!("the program was ended by {name}")
}

/// A number of bytes in the largest unit that divides it.
fn amount(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fits = |(size, _): &&(u64, &str)| bytes >= *size && bytes.is_multiple_of(*size);
    match units.iter().find(fits) {
        Some((size, unit)) => format!("{} {unit}", bytes / size),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests;
