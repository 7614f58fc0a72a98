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
#[path = "support/threads.rs"]
mod threads;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ledger::{Clock, GroupBy, Ledger, Only, Options, UsageQuery, Window};

use self::load::MonthClock;

const CALLERS: usize = 512;
/// Settlements before the first look at their cost, the most settlements of a look, and in how many
/// turns a young ledger and an old one settle them.
const EARLY: u64 = 10_000;
const LOOK: u64 = 300_000;
const TURNS: u64 = 6;
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
    for (look, after) in [(&early, EARLY), (&late, entries)] {
        println!("cpu us of a settlement after {after}: {}", look.line());
    }
    let apart = |operation| apart(operation, dir, entries);
    let open = apart("open");
    let month = apart("month");
    let verify = apart("verify");
    let tail = apart("tail");
    println!("{TAIL} settlements, then killed: {:.1} s", tail.seconds);
    let reopen = apart("open");
    let rebuild = apart("rebuild");
    let growth = ((late.cpu_us / early.cpu_us - 1.0) * 100.0, filling);
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

/// CPU time of a settlement: of the process, and of each thread that lives as long.
struct Look {
    cpu_us: f64,
    threads: String,
}

impl Look {
    fn line(&self) -> String {
        format!("{:.2}  {}", self.cpu_us, self.threads)
    }

    /// Reads a line.
    fn read(line: &str) -> Self {
        let (cpu_us, threads) = line.trim().split_once("  ").unwrap();
        Self {
            cpu_us: cpu_us.parse().unwrap(),
            threads: threads.to_owned(),
        }
    }
}

/// A ledger that settles.
struct Life {
    ledger: Ledger,
    clock: Arc<MonthClock>,
    next: u64,
    /// CPU time of process and threads when the look at it began, and settlements since then.
    since: (u64, BTreeMap<String, u64>),
    settled: usize,
}

impl Life {
    fn begin(dir: &Path, spread: u64) -> Self {
        let clock = Arc::new(MonthClock::after(0, spread));
        let ledger = open(load::options(dir.to_owned()), &clock);
        load::prepare(&ledger);
        Self {
            ledger,
            clock,
            next: 0,
            since: (0, BTreeMap::new()),
            settled: 0,
        }
    }

    fn settle(&mut self, count: u64) {
        let go_on = |done| u64::try_from(done).unwrap() < count;
        let done = callers::drive(&self.ledger, &self.clock, CALLERS, self.next, go_on);
        self.next = done.next;
        self.settled += done.settles.len();
    }

    /// Waits until all that was settled is in the view on disk too, so that a look has what its own
    /// settlements cost.
    fn rest(&self) {
        let behind = || {
            let health = self.ledger.health();
            health.view_lsn < health.durable_lsn
        };
        while behind() {
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What is settled from now on is looked at.
    fn look(&mut self) {
        self.rest();
        self.since = (cpu::process_us(), threads::all_us());
        self.settled = 0;
    }

    fn looked(&self) -> Look {
        self.rest();
        let (cpu_us, threads) = &self.since;
        let threads = threads::by_thread(threads, &threads::all_us(), self.settled);
        Look {
            cpu_us: (cpu::process_us() - cpu_us) as f64 / self.settled as f64,
            threads: threads::line(&threads),
        }
    }
}

/// Fills a ledger; gives the CPU time of a settlement early on and at the end.
///
/// What a machine makes of the same work changes by the minute, by more than is looked for. So the
/// early ones are those of another ledger, in a process of its own, in turn with the last ones.
fn fill(dir: &Path, entries: u64) -> [Look; 2] {
    let look = LOOK.min(entries / 5);
    let mut old = Life::begin(dir, entries);
    old.settle(entries.saturating_sub(look));
    let place = tempfile::tempdir_in(dir.parent().unwrap()).unwrap();
    let mut command = operation("young", place.path(), entries);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut ask, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut answers = BufReader::new(answers).lines();
    let mut answer = || answers.next().unwrap().unwrap();
    let mut young = |count: u64| {
        writeln!(ask, "{count}").unwrap();
        answer();
    };
    young(EARLY);
    old.look();
    for _ in 0..TURNS {
        young(look / TURNS);
        old.settle(look / TURNS);
    }
    let late = old.looked();
    drop(ask);
    let early = Look::read(&answer());
    assert!(child.wait().unwrap().success());
    old.ledger.close().unwrap();
    [early, late]
}

/// Settles as many as each line says, and answers it; at the end, says what all but the first ones
/// cost.
fn young(dir: &Path, spread: u64) {
    let mut young = Life::begin(dir, spread);
    for (line, number) in std::io::stdin().lines().zip(0..) {
        young.settle(line.unwrap().trim().parse().unwrap());
        if number == 0 {
            young.look();
        }
        println!("settled");
    }
    println!("{}", young.looked().line());
    young.ledger.close().unwrap();
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

/// An operation in a process of its own.
fn operation(operation: &str, dir: &Path, entries: u64) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--do", operation, "--dir"]).arg(dir);
    command.args(["--entries", &entries.to_string()]);
    command
}

fn apart(operation: &str, dir: &Path, entries: u64) -> Took {
    let mut command = self::operation(operation, dir, entries);
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
        "young" => return young(dir, spread),
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
