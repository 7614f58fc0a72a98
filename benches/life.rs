//! A ledger's life: whether a settlement's cost grows with what came before, and how long it takes
//! to open, ask, verify and rebuild millions of entries.
//!
//! `cargo bench --bench life -- [--entries N] [--dir DIR]` settles N runs (five million) that are
//! spread over a month of ledger time, then does each operation in a process of its own, so that
//! its memory is its own. Prints a table with the bar of each line, and the same as one line of
//! JSON a row. It needs 800 bytes of disk an entry.
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

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger::{Clock, GroupBy, Ledger, Only, Options, UsageQuery, Window};

use self::load::MonthClock;

const CALLERS: usize = 512;
/// Settlements before the first look at their cost, and the most settlements of a look.
const EARLY: u64 = 10_000;
const LOOK: u64 = 300_000;
/// Settlements, of two commands each, that a killed ledger has in its journal only.
const TAIL: u64 = 250_000;
/// Tenants whose month is asked for, each once.
const ASKED: u64 = 500;

/// One line of the table: what was measured, and the bar that it is held to.
struct Row {
    what: &'static str,
    value: f64,
    unit: &'static str,
    bar: f64,
    /// Whether more is better.
    at_least: bool,
    /// CPU time that it took, in seconds.
    cpu: f64,
}

impl Row {
    fn met(&self) -> bool {
        if self.at_least {
            self.value >= self.bar
        } else {
            self.value <= self.bar
        }
    }

    fn line(&self) -> String {
        let than = if self.at_least { ">=" } else { "<=" };
        let bar = format!("{than} {}", self.bar);
        let met = if self.met() { "met" } else { "MISSED" };
        format!(
            "{:<36}{:>12.2} {:<10}{bar:>12}  {met:<7}{:>8.2} s cpu",
            self.what, self.value, self.unit, self.cpu
        )
    }

    fn json(&self) -> String {
        format!(
            concat!(
                r#"{{"bench":"life","what":"{}","value":{:.3},"unit":"{}","bar":{},"#,
                r#""bar_met":{},"cpu_seconds":{:.2}}}"#
            ),
            self.what,
            self.value,
            self.unit,
            self.bar,
            self.met(),
            self.cpu
        )
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| words.iter().skip_while(|word| *word != name).nth(1);
    let entries = after("--entries").map_or(5_000_000, |text| text.parse().unwrap());
    if let Some(operation) = after("--do") {
        child(operation, Path::new(after("--dir").unwrap()), entries);
        return;
    }
    let place = after("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(place).unwrap();
    let rows = live(dir.path(), entries);
    rows.iter().for_each(|row| println!("{}", row.line()));
    rows.iter().for_each(|row| println!("{}", row.json()));
}

fn live(dir: &Path, entries: u64) -> Vec<Row> {
    let at_least = |what, (value, cpu), unit, bar| Row {
        what,
        value,
        unit,
        bar,
        at_least: true,
        cpu,
    };
    let at_most = |what, measured, unit, bar| Row {
        at_least: false,
        ..at_least(what, measured, unit, bar)
    };
    let begun = cpu::process_us();
    let [early, late] = fill(dir, entries);
    let filling = (cpu::process_us() - begun) as f64 / 1e6;
    println!("cpu us of a settlement: {early:.2} after {EARLY}, {late:.2} after {entries}");
    let apart = |operation| apart(operation, dir, entries);
    let open = apart("open");
    let month = apart("month");
    let verify = apart("verify");
    let tail = apart("tail");
    println!("{TAIL} settlements, then killed: {:.1} s", tail.seconds);
    let reopen = apart("open");
    let rebuild = apart("rebuild");
    let growth = ((late / early - 1.0) * 100.0, filling);
    vec![
        at_most("growth of a settlement's cpu time", growth, "%", 15.0),
        at_most("open", open.time(), "s", 1.0),
        at_most("open: memory", open.memory(), "MiB", 150.0),
        at_most("a tenant's month, p95", month.millis(), "ms", 50.0),
        at_least("verify", verify.rate(), "entries/s", 1_000_000.0),
        at_most("open, 500,000 commands behind", reopen.time(), "s", 2.0),
        at_least("rebuild", rebuild.rate(), "entries/s", 300_000.0),
    ]
}

/// Fills a ledger; gives the CPU time of a settlement early on and at the end.
fn fill(dir: &Path, entries: u64) -> [f64; 2] {
    let clock = Arc::new(MonthClock::after(0, entries));
    let ledger = open(load::options(dir.to_owned()), &clock);
    load::prepare(&ledger);
    let look = LOOK.min(entries / 5);
    let mut next = 0;
    let mut settle = |count: u64| {
        let before = cpu::process_us();
        let go_on = |done| u64::try_from(done).unwrap() < count;
        let done = callers::drive(&ledger, &clock, CALLERS, next, go_on);
        next = done.next;
        (cpu::process_us() - before) as f64 / done.settles.len() as f64
    };
    settle(EARLY);
    let early = settle(look);
    settle(entries.saturating_sub(EARLY + 2 * look));
    let late = settle(look);
    ledger.close().unwrap();
    [early, late]
}

fn open(options: Options, clock: &Arc<MonthClock>) -> Ledger {
    Ledger::open(options, Arc::clone(clock) as Arc<dyn Clock>).unwrap()
}

/// What an operation in a process of its own took.
struct Took {
    seconds: f64,
    cpu: f64,
    mib: f64,
    entries: f64,
}

impl Took {
    fn time(&self) -> (f64, f64) {
        (self.seconds, self.cpu)
    }

    fn millis(&self) -> (f64, f64) {
        (self.seconds * 1_000.0, self.cpu)
    }

    fn memory(&self) -> (f64, f64) {
        (self.mib, self.cpu)
    }

    fn rate(&self) -> (f64, f64) {
        (self.entries / self.seconds, self.cpu)
    }
}

fn apart(operation: &str, dir: &Path, entries: u64) -> Took {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    let command = command.args(["--do", operation, "--dir"]).arg(dir);
    let command = command.args(["--entries", &entries.to_string()]);
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let numbers = text
        .split_whitespace()
        .map(|number| number.parse().unwrap());
    let [seconds, cpu, mib, entries] = numbers.collect::<Vec<f64>>().try_into().unwrap();
    Took {
        seconds,
        cpu,
        mib,
        entries,
    }
}

/// Does one operation, and prints what it took: seconds, CPU seconds, peak memory in MiB, entries.
fn child(operation: &str, dir: &Path, spread: u64) {
    let begun = Instant::now();
    let entries = match operation {
        "open" => {
            let clock = Arc::new(MonthClock::after(0, spread));
            let ledger = open(load::options(dir.to_owned()), &clock);
            let size = ledger.head().size;
            tell(begun.elapsed(), size);
            // What was replayed is not written, so that the next one finds the same.
            drop(ledger);
            return;
        }
        "month" => {
            let clock = Arc::new(MonthClock::after(spread, spread));
            let ledger = open(load::options(dir.to_owned()), &clock);
            tell(months(&ledger), ASKED);
            return;
        }
        "verify" => ledger::verify(dir, &mut |_| {}).unwrap().entries,
        "rebuild" => ledger::rebuild(dir, &mut |_| {}).unwrap().entries,
        "tail" => {
            tail(dir, spread);
            tell(begun.elapsed(), TAIL);
            std::process::abort();
        }
        other => unreachable!("no operation `{other}`"),
    };
    tell(begun.elapsed(), entries);
}

/// The 95th percentile of what a tenant's month takes, by day and function.
fn months(ledger: &Ledger) -> Duration {
    let month = |number: u64| {
        // Tenants all over the database, none of them twice.
        let tenant = load::tenant(number * 7 % load::TENANTS);
        let query = UsageQuery {
            from: load::START,
            to: load::END,
            window: Window::Day,
            timezone: "UTC".to_owned(),
            group_by: vec![GroupBy::Function],
            only: Only {
                tenant: Some(tenant),
                ..Only::default()
            },
            by_currency: false,
            cursor: None,
            limit: 10_000,
        };
        let begun = Instant::now();
        let items = ledger.usage(&query).unwrap().items;
        assert!(!items.is_empty());
        begun.elapsed()
    };
    let mut took: Vec<Duration> = (0..ASKED).map(month).collect();
    took.sort_unstable();
    took[(took.len() - 1) * 95 / 100]
}

fn tell(took: Duration, entries: u64) {
    let seconds = took.as_secs_f64();
    let cpu = cpu::process_us() as f64 / 1e6;
    println!("{seconds:.6} {cpu:.2} {:.1} {entries}", peak_mib());
}

/// Settles runs that are in the journal only when this returns.
fn tail(dir: &Path, spread: u64) {
    let mut options = load::options(dir.to_owned());
    options.view_flush_ms = 60_000;
    options.tail_max = 100_000_000;
    let settled = Ledger::open(options.clone(), Arc::new(MonthClock::after(0, spread)));
    let settled = settled.unwrap();
    let first = settled.head().size * 2;
    drop(settled);
    let clock = Arc::new(MonthClock::after(first / 2, spread));
    let ledger = open(options, &clock);
    let go_on = |done| u64::try_from(done).unwrap() < TAIL;
    callers::drive(&ledger, &clock, CALLERS, first, go_on);
}

/// The most memory that this process has had at once.
fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib: f64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib / 1_024.0
}
