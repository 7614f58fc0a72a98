//! Hostile programs: each names its threat, is judged from inside and from outside, and has a
//! control which shows that the judges can object.
//!
//! A program prints what it could observe or do as lines of a name and a result. From inside it is
//! judged by these lines, from outside by how the run ended, how long that took as a part of its
//! limit, and by what is left of it. The control is either the very same program outside of any
//! sandbox, in namespaces that only keep it from this machine, or a tame or differently limited one
//! inside.

mod admin;
mod control;
mod devices;
mod disk;
mod files;
mod host;
mod identity;
mod init;
mod kept;
mod kernel;
mod lifetime;
mod memory;
mod network;
mod output;
mod processes;
mod special;
mod verdict;

use std::path::Path;

use runtime::{Clock, Limits, Outcome};

use self::control::Share;
use self::verdict::faults_of;
use crate::bed::{Bed, LIMITS, Language, Order, Ran};
use crate::harness::Test;
use crate::world::say;

/// What every Python program finds defined: raw system calls, and telling their results.
const PRELUDE: &str = include_str!("hostile/prelude.py");

/// One hostile program.
pub(crate) struct Program {
    /// Names the test.
    name: &'static str,
    /// What would be lost if it were not contained.
    threat: &'static str,
    language: Language,
    code: &'static str,
    /// Changes the limits that every program has.
    limits: fn(&mut Limits),
    /// How it must end, alternatives parted by `|`: see [`told`].
    ends: &'static str,
    /// What it must print: see [`verdict`].
    prints: &'static str,
    /// Longest it may take, in percent of its wall limit.
    within: u32,
    control: Control,
}

/// What shows that the judges of a program can object.
enum Control {
    /// The same code outside, as root without a filter, shares this and prints at least these
    /// lines.
    Outside(Share, &'static str),
    /// Another code inside, or the same if it is empty, with its own limits, end and lines.
    Inside {
        code: &'static str,
        limits: fn(&mut Limits),
        ends: &'static str,
        prints: &'static str,
    },
}

/// A program of which only the rest is to be said.
const PLAIN: Program = Program {
    name: "",
    threat: "",
    language: Language::Python,
    code: "",
    limits: |_| {},
    ends: "exited 0",
    prints: "",
    within: 100,
    control: Control::Outside(Share::Nothing, ""),
};

/// A tame variant inside, which ends well.
const fn tame(code: &'static str, prints: &'static str) -> Control {
    Control::Inside {
        code,
        // What bounds the program's time would only make a tame one fail.
        limits: |limits| {
            limits.wall_ms = LIMITS.wall_ms;
            limits.cpu_ms = LIMITS.cpu_ms;
            limits.cpu_millis = LIMITS.cpu_millis;
        },
        ends: "exited 0",
        prints,
    }
}

/// The same code with other limits.
const fn raised(limits: fn(&mut Limits), ends: &'static str, prints: &'static str) -> Control {
    Control::Inside {
        code: "",
        limits,
        ends,
        prints,
    }
}

const TABLES: [(&str, &[Program]); 13] = [
    ("admin", admin::PROGRAMS),
    ("devices", devices::PROGRAMS),
    ("disk", disk::PROGRAMS),
    ("files", files::PROGRAMS),
    ("host", host::PROGRAMS),
    ("identity", identity::PROGRAMS),
    ("init", init::PROGRAMS),
    ("kernel", kernel::PROGRAMS),
    ("lifetime", lifetime::PROGRAMS),
    ("memory", memory::PROGRAMS),
    ("network", network::PROGRAMS),
    ("output", output::PROGRAMS),
    ("processes", processes::PROGRAMS),
];

/// Every program as a test of its own, and what needs more than a table.
pub(crate) fn tests() -> Vec<Test> {
    let mut tests = special::tests();
    for (table, programs) in TABLES {
        for program in programs {
            assert!(
                !program.threat.is_empty(),
                "{} names no threat",
                program.name
            );
            let name = format!("hostile::{table}::{}", program.name);
            let run = Box::new(move || check(program));
            tests.push(Test { name, run });
        }
    }
    tests
}

/// Runs a program and its control, and fails with everything that the judges have to say.
fn check(program: &'static Program) {
    let Some(bed) = Bed::enter(program.name) else {
        return;
    };
    let before = bed.baseline(&order(program.language, "", |_| {}));
    let order = order(program.language, program.code, program.limits);
    let ran = bed.run(&order);
    let (left, gone) = bed.left_since(&before);
    say(&format!(
        "{}; gone {} ms later",
        summary(program, &order, &ran),
        gone.as_millis()
    ));

    let mut faults = judge(program, &order, &ran);
    if let Some(left) = left {
        faults.push(format!("left behind: before {before:#?}, now {left:#?}"));
    }
    faults.extend(control_faults(&bed, program));
    assert!(
        faults.is_empty(),
        "{}: {}\n{}",
        program.name,
        program.threat,
        faults.join("\n")
    );
}

/// What is wrong with how a program ended and what it printed.
fn judge(program: &Program, order: &Order, ran: &Ran) -> Vec<String> {
    let mut faults = faults_of(program.ends, program.prints, &seen(ran));
    let most_ms = u128::from(order.limits.wall_ms) * u128::from(program.within) / 100;
    if ran.took.as_millis() > most_ms {
        faults.push(format!(
            "took {:?}, at most {most_ms} ms are allowed",
            ran.took
        ));
    }
    let (measured, limits) = (&ran.report.measured, &order.limits);
    // On v2, and there alone, the network stack may pass the limit for a moment.
    let passing = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        limits.memory_bytes / 2
    } else {
        0
    };
    if measured.memory_peak_bytes > limits.memory_bytes + passing {
        faults.push(format!("took more memory than its limit: {measured:?}"));
    }
    // What is used before the shim can look is the platform's loss: it must stay small.
    if measured.cpu_us / 1000 > limits.cpu_ms * 3 / 2 {
        faults.push(format!(
            "used much more CPU time than its limit: {measured:?}"
        ));
    }
    faults
}

/// What is wrong with the control: it does not do what it must, or the judges find no fault with
/// it.
fn control_faults(bed: &Bed, program: &Program) -> Vec<String> {
    let (seen, mut faults) = match &program.control {
        Control::Outside(share, shows) => {
            let seen = control::outside(bed, program.language, program.code, *share);
            let faults = verdict::missing_lines(shows, &seen.1);
            (seen, faults)
        }
        Control::Inside {
            code,
            limits,
            ends,
            prints,
        } => {
            let code = if code.is_empty() { program.code } else { code };
            let changed = order(program.language, code, |all| {
                (program.limits)(all);
                limits(all);
            });
            let seen = seen(&bed.run(&changed));
            let faults = faults_of(ends, prints, &seen);
            (seen, faults)
        }
    };
    if faults_of(program.ends, program.prints, &seen).is_empty() {
        faults.push("the judges find nothing wrong with it".to_owned());
    }
    faults
        .into_iter()
        .map(|fault| format!("control: {fault}"))
        .collect()
}

fn order(language: Language, code: &str, change: impl Fn(&mut Limits)) -> Order {
    let mut limits = LIMITS;
    change(&mut limits);
    Order {
        language,
        code: source(language, code),
        limits,
        env: Vec::new(),
        stdin: Vec::new(),
        kill_on_output_limit: false,
        keep_s: 0,
        argv: None,
    }
}

/// The whole file of a program: without the table's indentation, after what every program has.
fn source(language: Language, code: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines = || code.lines().filter(|line| !line.trim().is_empty());
    let common = lines().map(indent).min().unwrap_or(0);
    let body: Vec<&str> = code
        .lines()
        .map(|line| line.get(common..).unwrap_or(""))
        .collect();
    let head = if language == Language::Python {
        PRELUDE
    } else {
        ""
    };
    format!("{head}{}\n", body.join("\n"))
}

/// How a run ended, and what it printed: what the judges look at.
fn seen(ran: &Ran) -> (String, String) {
    let mut text = String::from_utf8_lossy(&ran.report.stdout.bytes).into_owned();
    let errors = String::from_utf8_lossy(&ran.report.stderr.bytes);
    for line in errors.lines().rev().take(3) {
        text.push_str(&format!("stderr: {}\n", line.escape_debug()));
    }
    (told(&ran.report.outcome), text)
}

/// An outcome as it is written in the tables.
fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Exited { code } => format!("exited {code}"),
        Outcome::Signalled { signal } => format!("signalled {signal}"),
        Outcome::TimedOut { clock: Clock::Wall } => "timed_out wall".to_owned(),
        Outcome::TimedOut { clock: Clock::Cpu } => "timed_out cpu".to_owned(),
        Outcome::OutOfMemory => "out_of_memory".to_owned(),
        Outcome::DiskFull => "disk_full".to_owned(),
        Outcome::ProcessLimit => "process_limit".to_owned(),
        Outcome::OutputLimit => "output_limit".to_owned(),
        Outcome::Cancelled => "cancelled".to_owned(),
        Outcome::QuotaExhausted => "quota_exhausted".to_owned(),
        Outcome::StartFailed { reason } => format!("start_failed {reason}"),
        Outcome::Lost => "lost".to_owned(),
    }
}

/// One line of figures, for whoever reads the log.
fn summary(program: &Program, order: &Order, ran: &Ran) -> String {
    let measured = &ran.report.measured;
    format!(
        "{}: {}; took {} ms of {} (shim: {}), cpu {} ms of {}, peak {} of {} MiB ({} kills), {} \
            processes",
        program.name,
        told(&ran.report.outcome),
        ran.took.as_millis(),
        order.limits.wall_ms,
        measured.wall_us / 1000,
        measured.cpu_us / 1000,
        order.limits.cpu_ms,
        measured.memory_peak_bytes >> 20,
        order.limits.memory_bytes >> 20,
        measured.oom_kills,
        measured.pids_peak,
    )
}
