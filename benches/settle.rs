//! The ledger's promise: settlements a second, what one costs, and how long a caller waits.
//!
//! The load is that of `support/load.rs`, from callers in a closed loop (`support/callers.rs`).
//!
//! `cargo bench --bench settle -- [--seconds N] [--settlements N] [--dir DIR] [--callers N]` prints
//! a table, and the same as one line of JSON a row. CPU time is that of the whole process, callers
//! included, until the ledger is closed; a second table tells which thread took how much of it.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock that it measures by"
)]
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot run has nothing to say"
)]

#[path = "support/callers.rs"]
mod callers;
#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/load.rs"]
mod load;
#[path = "support/threads.rs"]
mod threads;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger::{Clock, Ledger};

use self::load::MonthClock;

/// Settlements that make thirty days of ledger time.
const MONTH: u64 = 5_000_000;

/// One line of the table, and the bar that it is held to.
struct Case {
    callers: usize,
    settlements_per_s_min: f64,
    hold_p50_us_max: u128,
}

const CASES: [Case; 3] = [
    Case {
        callers: 1,
        settlements_per_s_min: 0.0,
        hold_p50_us_max: 300,
    },
    Case {
        callers: 64,
        settlements_per_s_min: 50_000.0,
        hold_p50_us_max: u128::MAX,
    },
    Case {
        callers: 512,
        settlements_per_s_min: 150_000.0,
        hold_p50_us_max: u128::MAX,
    },
];

const HEADINGS: [&str; 10] = [
    "callers",
    "settlements",
    "settle/s",
    "sustained/s",
    "cpu us",
    "hold p50",
    "hold p99",
    "set. p50",
    "set. p99",
    "bar",
];

fn main() {
    let read = arguments();
    println!(
        "{}",
        HEADINGS.map(|heading| format!("{heading:>11}")).concat()
    );
    let wanted = |case: &&Case| read.callers.is_none_or(|only| only == case.callers);
    let mut measured = Vec::new();
    for case in CASES.iter().filter(wanted) {
        let dir = tempfile::tempdir_in(&read.dir).unwrap();
        let row = run(case, dir.path().to_owned(), &read);
        println!("{}", row.line());
        measured.push(row);
    }
    println!("cpu us of a settlement by thread");
    measured
        .iter()
        .for_each(|row| println!("{}", row.by_thread()));
    measured.iter().for_each(|row| println!("{}", row.json()));
}

struct Arguments {
    /// How long each row takes, unless so many settlements are done before.
    seconds: u64,
    settlements: usize,
    dir: PathBuf,
    callers: Option<usize>,
}

fn arguments() -> Arguments {
    let mut read = Arguments {
        seconds: 8,
        settlements: usize::MAX,
        dir: std::env::temp_dir(),
        callers: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--seconds" => read.seconds = arguments.next().unwrap().parse().unwrap(),
            "--settlements" => read.settlements = arguments.next().unwrap().parse().unwrap(),
            "--dir" => read.dir = PathBuf::from(arguments.next().unwrap()),
            "--callers" => read.callers = Some(arguments.next().unwrap().parse().unwrap()),
            _ => {}
        }
    }
    read
}

/// What one case came to; times in microseconds.
struct Row {
    callers: usize,
    settlements: usize,
    seconds: f64,
    per_s: f64,
    sustained_per_s: f64,
    cpu_us: f64,
    threads: BTreeMap<String, f64>,
    /// Hold p50 and p99, settle p50 and p99.
    waits: [u32; 4],
    met: bool,
}

fn run(case: &Case, dir: PathBuf, read: &Arguments) -> Row {
    let time = Duration::from_secs(read.seconds);
    let clock = Arc::new(MonthClock::after(0, MONTH));
    let ledger = Ledger::open(load::options(dir), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    load::prepare(&ledger);
    let (cpu, threads) = (cpu::process_us(), threads::all_us());
    let begun = Instant::now();
    let go_on = |done| done < read.settlements && begun.elapsed() < time;
    let mut done = callers::drive(&ledger, &clock, case.callers, 0, go_on);
    let seconds = begun.elapsed().as_secs_f64();
    let threads_after = threads::all_us();
    ledger.close().unwrap();
    let sustained = begun.elapsed().as_secs_f64();
    let count = done.settles.len();
    let each = |us: u64| us as f64 / count as f64;
    let by_thread = threads::by_thread(&threads, &threads_after, count);
    let waits = [
        percentile(&mut done.holds, 50),
        percentile(&mut done.holds, 99),
        percentile(&mut done.settles, 50),
        percentile(&mut done.settles, 99),
    ];
    let per_s = count as f64 / seconds;
    Row {
        callers: case.callers,
        settlements: count,
        seconds,
        per_s,
        sustained_per_s: count as f64 / sustained,
        cpu_us: each(cpu::process_us() - cpu),
        threads: by_thread,
        waits,
        met: per_s >= case.settlements_per_s_min && u128::from(waits[0]) <= case.hold_p50_us_max,
    }
}

fn percentile(times: &mut [u32], percent: usize) -> u32 {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

impl Row {
    fn line(&self) -> String {
        let start = format!(
            "{:>11}{:>11}{:>11.0}{:>11.0}{:>11.2}",
            self.callers, self.settlements, self.per_s, self.sustained_per_s, self.cpu_us
        );
        let waits = self.waits.map(|us| format!("{us:>8} us"));
        let bar = if self.met { "met" } else { "MISSED" };
        format!("{start}{}{bar:>11}", waits.concat())
    }

    fn by_thread(&self) -> String {
        format!("{:>11}  {}", self.callers, threads::line(&self.threads))
    }

    fn json(&self) -> String {
        let [hold_p50, hold_p99, settle_p50, settle_p99] = self.waits;
        format!(
            concat!(
                r#"{{"bench":"settle","callers":{},"settlements":{},"seconds":{:.3},"#,
                r#""settlements_per_s":{:.0},"sustained_per_s":{:.0},"#,
                r#""cpu_us_per_settlement":{:.2},"hold_p50_us":{},"hold_p99_us":{},"#,
                r#""settle_p50_us":{},"settle_p99_us":{},"bar_met":{}}}"#
            ),
            self.callers,
            self.settlements,
            self.seconds,
            self.per_s,
            self.sustained_per_s,
            self.cpu_us,
            hold_p50,
            hold_p99,
            settle_p50,
            settle_p99,
            self.met
        )
    }
}
