//! The ledger against PostgreSQL on the same disk, in turn: what 64 callers get done in a second.
//!
//! `benches/postgres/simple.sql` is one charge as a service begins with it: a row and two sums.
//! `equal.sql` is what the ledger does for a run: a hold in four scopes that are checked against
//! their limits, and its settlement with rollups, each a durable transaction of one round trip.
//! Both are run by pgbench with prepared statements, at PostgreSQL's default durability; the ledger
//! is loaded as by `settle`, hold and settlement durable each before its answer.
//!
//! CPU time of a settlement says what a busy machine hides: the ledger's is that of its process,
//! callers included, PostgreSQL's that of its sessions alone, without pgbench.
//!
//! `cargo bench --bench postgres -- [--rounds N] [--seconds N] [--dir DIR]` lets all three have
//! some seconds (10) in each of some rounds (3), every second round in the other order, and prints
//! the rates, the ratios within each round and their median, and one line of JSON a script.
//! `sh scripts/bench-postgres.sh` installs PostgreSQL first.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock that it measures by, and starts what it measures against"
)]
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that cannot run has nothing to say"
)]

#[path = "support/callers.rs"]
mod callers;
#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/load.rs"]
mod load;
#[path = "support/postgres.rs"]
mod postgres;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger::{Clock, Ledger};

use self::load::MonthClock;
use self::postgres::Postgres;

const CALLERS: usize = 64;
/// Settlements that make thirty days of ledger time, here and in `equal.sql`.
const MONTH: u64 = 5_000_000;

const SCHEMA: &str = include_str!("postgres/schema.sql");

/// A script, and how many times as much the ledger is to do in the same time.
struct Script {
    name: &'static str,
    text: &'static str,
    bar: f64,
}

const SCRIPTS: [Script; 2] = [
    Script {
        name: "simple",
        text: include_str!("postgres/simple.sql"),
        bar: 5.0,
    },
    Script {
        name: "equal",
        text: include_str!("postgres/equal.sql"),
        bar: 15.0,
    },
];

fn main() {
    let (rounds, seconds, dir) = arguments();
    let postgres = Postgres::start(&dir);
    postgres.load(SCHEMA);
    let farebox = Farebox::start(&dir);
    println!(
        "{CALLERS} callers, {seconds} s each, settlements a second; PostgreSQL {}",
        postgres.version()
    );
    println!(
        "{:>10}{:>12}{:>12}{:>12}",
        "round", "farebox", "simple", "equal"
    );
    // The ledger's, then one of each script.
    let mut rates: [Vec<f64>; 3] = Default::default();
    let mut costs = [Cost::default(); 3];
    let (mut next, mut settled) = (0, 0);
    for round in 0..rounds {
        let mut order = [0, 1, 2];
        if round % 2 == 1 {
            order.reverse();
        }
        for side in order {
            let (rate, cost) = match side {
                0 => farebox.run(seconds, &mut next),
                _ => {
                    let script = &SCRIPTS[side - 1];
                    let told = postgres.bench(script.text, CALLERS, seconds, round);
                    settled += if script.name == "equal" {
                        told.transactions
                    } else {
                        0
                    };
                    (
                        told.per_s,
                        Cost {
                            us: told.cpu_us,
                            settlements: told.transactions,
                        },
                    )
                }
            };
            rates[side].push(rate);
            costs[side].us += cost.us;
            costs[side].settlements += cost.settlements;
        }
        let row = rates
            .each_ref()
            .map(|side| format!("{:>12.0}", side[round]));
        println!("{:>10}{}", round + 1, row.concat());
    }
    check(&postgres, settled);
    farebox.ledger.close().unwrap();
    report(
        &rates,
        costs.map(|cost| cost.us as f64 / cost.settlements as f64),
    );
}

fn arguments() -> (usize, u64, PathBuf) {
    let (mut rounds, mut seconds, mut dir) = (3, 10, std::env::temp_dir());
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--rounds" => rounds = arguments.next().unwrap().parse().unwrap(),
            "--seconds" => seconds = arguments.next().unwrap().parse().unwrap(),
            "--dir" => dir = PathBuf::from(arguments.next().unwrap()),
            _ => {}
        }
    }
    (rounds, seconds, dir)
}

/// CPU time, and what was done in it.
#[derive(Clone, Copy, Default)]
struct Cost {
    us: u64,
    settlements: u64,
}

/// The ledger, which keeps from round to round what it has, as PostgreSQL does.
struct Farebox {
    ledger: Ledger,
    clock: Arc<MonthClock>,
    _dir: tempfile::TempDir,
}

impl Farebox {
    fn start(dir: &Path) -> Self {
        let dir = tempfile::tempdir_in(dir).unwrap();
        let clock = Arc::new(MonthClock::after(0, MONTH));
        let options = load::options(dir.path().to_owned());
        let ledger = Ledger::open(options, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        load::prepare(&ledger);
        Self {
            ledger,
            clock,
            _dir: dir,
        }
    }

    /// Settlements a second, and what they cost.
    fn run(&self, seconds: u64, next: &mut u64) -> (f64, Cost) {
        let (begun, cpu) = (Instant::now(), cpu::process_us());
        let time = Duration::from_secs(seconds);
        let go_on = |_| begun.elapsed() < time;
        let done = callers::drive(&self.ledger, &self.clock, CALLERS, *next, go_on);
        let took = begun.elapsed();
        *next = done.next;
        // Every hold was one that was settled.
        assert_eq!(done.holds.len(), done.settles.len());
        let cost = Cost {
            us: cpu::process_us() - cpu,
            settlements: u64::try_from(done.settles.len()).unwrap(),
        };
        (done.settles.len() as f64 / took.as_secs_f64(), cost)
    }
}

/// That PostgreSQL has done the work: each run is an entry and in the rollups, nothing is held.
fn check(postgres: &Postgres, settled: u64) {
    let count = |what: &str| postgres.sql(&format!("SELECT {what}"));
    assert_eq!(count("count(*) FROM entry"), settled.to_string());
    for sum in [
        "sum(runs) FROM usage_slot",
        "sum(runs) FROM usage_month",
        "sum(month_runs) FROM scope WHERE kind = 0",
        "sum(month_runs) FROM scope WHERE kind = 2",
    ] {
        assert_eq!(count(sum), settled.to_string(), "{sum}");
    }
    assert_eq!(count("count(*) FROM hold"), "0");
    assert_eq!(count("sum(held_runs) + sum(held_us) FROM scope"), "0");
}

/// The ledger's speed against each script's in the same round; noise of the machine that lasts
/// longer than a round meets both.
fn report(rates: &[Vec<f64>; 3], cpu_us: [f64; 3]) {
    let [farebox, scripts @ ..] = rates;
    let medians = rates.each_ref().map(|side| median(side.clone()));
    let row = medians.map(|rate| format!("{rate:>12.0}"));
    println!("{:>10}{}", "median", row.concat());
    let row = cpu_us.map(|us| format!("{us:>12.1}"));
    println!("{:>10}{}", "cpu us", row.concat());
    let mut json = Vec::new();
    for (at, (script, postgres)) in SCRIPTS.iter().zip(scripts).enumerate() {
        let pairs = farebox.iter().zip(postgres);
        let ratios: Vec<f64> = pairs.map(|(ours, theirs)| ours / theirs).collect();
        let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.1}")).collect();
        let ratio = median(ratios);
        let met = if ratio >= script.bar { "met" } else { "MISSED" };
        println!(
            "{:>10}{ratio:>11.1}x   ({})   bar >= {}x: {met}",
            script.name,
            each.join(", "),
            script.bar
        );
        json.push(format!(
            concat!(
                r#"{{"bench":"postgres","script":"{}","callers":{},"ratios":[{}],"#,
                r#""farebox_per_s":{:.0},"postgres_per_s":{:.0},"ratio":{:.2},"#,
                r#""farebox_cpu_us":{:.1},"postgres_cpu_us":{:.1},"#,
                r#""bar":{},"bar_met":{}}}"#
            ),
            script.name,
            CALLERS,
            each.join(","),
            medians[0],
            medians[at + 1],
            ratio,
            cpu_us[0],
            cpu_us[at + 1],
            script.bar,
            ratio >= script.bar
        ));
    }
    json.iter().for_each(|row| println!("{row}"));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
