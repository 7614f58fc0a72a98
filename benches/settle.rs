//! The ledger's promise: settlements a second, and how long a caller waits.
//!
//! Closed loop: every caller holds, waits until the hold is durable, settles, waits until the
//! settlement is durable, and begins again. 1,000 tenants with 3 projects, 15 functions and 2 keys
//! each, 16 hard quotas a tenant, four of them on each of a run's tenant and project; ledger time
//! runs through a month, so that nearly every settlement opens a new slot of the rollups.
//!
//! `cargo bench --bench settle -- [--seconds N] [--dir DIR] [--callers N]` prints a table, and the
//! same as one line of JSON a row.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock that it measures by"
)]
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot run has nothing to say"
)]

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use ledger::{
    Act, Ceiling, Clock, Effect, Failed, Held, HoldRequest, Id, Ledger, Meter, Micros, Mode, Model,
    Money, OnLow, Options, Price, Quantities, Quota, RateCard, Receipt, Rejection, Scope,
    Settlement, Ticket, Window,
};

const TENANTS: u64 = 1_000;
const PROJECTS: u64 = 3;
const FUNCTIONS: u64 = 15;
const KEYS: u64 = 2;

/// 2026-11-01T00:00:00Z.
const START: Micros = 1_793_491_200_000_000;
/// Ledger time from one settlement to the next: five million of them make thirty days.
const STEP_US: i64 = 518_400;

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

const LATENCIES: &str = " hold p50  hold p99  set. p50  set. p99  bar";

#[derive(Debug, Default)]
struct MonthClock(AtomicU64);

impl Clock for MonthClock {
    fn now_us(&self) -> Micros {
        START + i64::try_from(self.0.load(Ordering::Relaxed)).unwrap() * STEP_US
    }
}

fn main() {
    let read = arguments();
    let (seconds, dir, callers) = (read.seconds, read.dir, read.callers);
    println!(
        "callers settlements   seconds     settle/s  sustained/s {}",
        LATENCIES
    );
    let mut lines = Vec::new();
    let wanted = |case: &&Case| callers.is_none_or(|only| only == case.callers);
    for case in CASES.iter().filter(wanted) {
        let dir = tempfile::tempdir_in(&dir).unwrap();
        let time = Duration::from_secs(seconds);
        lines.push(run(case, dir.path().to_owned(), time));
    }
    lines.iter().for_each(|line| println!("{line}"));
}

struct Arguments {
    seconds: u64,
    dir: PathBuf,
    callers: Option<usize>,
}

fn arguments() -> Arguments {
    let mut read = Arguments {
        seconds: 8,
        dir: std::env::temp_dir(),
        callers: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--seconds" => read.seconds = arguments.next().unwrap().parse().unwrap(),
            "--dir" => read.dir = PathBuf::from(arguments.next().unwrap()),
            "--callers" => read.callers = Some(arguments.next().unwrap().parse().unwrap()),
            _ => {}
        }
    }
    read
}

fn run(case: &Case, dir: PathBuf, time: Duration) -> String {
    let clock = Arc::new(MonthClock::default());
    let ledger = Ledger::open(options(dir), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    prepare(&ledger);
    let begun = Instant::now();
    let done = Driver::new(ledger.clone(), clock, case.callers).drive(begun + time);
    let took = begun.elapsed();
    ledger.close().unwrap();
    let sustained = begun.elapsed();
    let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64();
    let (mut holds, mut settles) = (done.holds, done.settles);
    let percentile = |times: &mut Vec<u32>, percent: usize| {
        times.sort_unstable();
        times[(times.len() - 1) * percent / 100]
    };
    let hold = [percentile(&mut holds, 50), percentile(&mut holds, 99)];
    let settle = [percentile(&mut settles, 50), percentile(&mut settles, 99)];
    let (per_s, sustained_per_s) = (rate(settles.len(), took), rate(settles.len(), sustained));
    let met = per_s >= case.settlements_per_s_min && u128::from(hold[0]) <= case.hold_p50_us_max;
    println!(
        "{:>7} {:>11} {:>9.2} {:>12.0} {:>12.0} {:>6} us {:>6} us {:>6} us {:>6} us  {}",
        case.callers,
        settles.len(),
        took.as_secs_f64(),
        per_s,
        sustained_per_s,
        hold[0],
        hold[1],
        settle[0],
        settle[1],
        if met { "met" } else { "MISSED" }
    );
    format!(
        concat!(
            r#"{{"bench":"settle","callers":{},"settlements":{},"seconds":{:.3},"#,
            r#""settlements_per_s":{:.0},"sustained_per_s":{:.0},"hold_p50_us":{},"#,
            r#""hold_p99_us":{},"settle_p50_us":{},"settle_p99_us":{},"bar_met":{}}}"#
        ),
        case.callers,
        settles.len(),
        took.as_secs_f64(),
        per_s,
        sustained_per_s,
        hold[0],
        hold[1],
        settle[0],
        settle[1],
        met
    )
}

fn options(dir: PathBuf) -> Options {
    Options {
        dir,
        segment_bytes: 64 << 20,
        queue: 4_096,
        batch_max: 1_024,
        view_flush_ms: 2_000,
        view_cache_bytes: 64 << 20,
        tail_max: 500_000,
        tenants_max: 100_000,
        scopes_max: 200_000,
        scopes_per_tenant_max: 10_000,
        quotas_per_tenant_max: 256,
        holds_max: 100_000,
        idempotency_ttl_s: 86_400,
        idempotency_per_tenant_max: 250_000,
        subjects_max: 1_000_000,
        document_bytes_max: 65_536,
        documents_bytes_max: 256 << 20,
        tags_max: 32,
        text_bytes_max: 512,
        fold_entries_max: 500_000,
        detail_months: 0,
        denials_ring: 1_000,
        denial_counters_max: 10_000,
    }
}

fn prepare(ledger: &Ledger) {
    let unit = |meter, amount| {
        let amount = Money(amount);
        Price::plain(meter, Model::Unit { amount })
    };
    let card = RateCard {
        id: "standard".to_owned(),
        currency: "USD".to_owned(),
        effective_from: 0,
        prices: vec![
            unit(Meter::Executions, 200_000),
            unit(Meter::CpuUs, 14_000_000),
            unit(Meter::MemoryByteMs, 4_500_000),
        ],
    };
    let mut tickets = vec![act(ledger, Effect::RateCard(card))];
    for number in 0..TENANTS {
        let scopes = (0..PROJECTS)
            .map(|p| Scope::Project(project(p)))
            .chain([Scope::Tenant]);
        let quotas = scopes.flat_map(|scope| quotas(&scope)).collect();
        let effect = Effect::Tenant {
            tenant: tenant(number),
            suspended: false,
            concurrency: 1_000,
            quotas,
        };
        tickets.push(act(ledger, effect));
    }
    tickets
        .into_iter()
        .for_each(|ticket| assert!(ticket.wait().unwrap().is_ok()));
}

fn act(ledger: &Ledger, effect: Effect) -> Ticket<Result<ledger::Recorded, Rejection>> {
    let act = Act {
        actor: "bench".to_owned(),
        action: "prepare".to_owned(),
        subject: "bench".to_owned(),
        tenant: None,
        reason: None,
        document: None,
        effect: Some(effect),
        expect: None,
    };
    ledger.act(act).unwrap()
}

fn quotas(scope: &Scope) -> Vec<Quota> {
    let quota = |meter, window| Quota {
        scope: scope.clone(),
        meter,
        window,
        timezone: "UTC".to_owned(),
        limit: 1 << 60,
        mode: Mode::Hard,
        overdraft: 0,
    };
    let windows = [Window::Day, Window::Month];
    let both = |window| {
        [
            quota(Meter::Executions, window),
            quota(Meter::CpuUs, window),
        ]
    };
    windows.into_iter().flat_map(both).collect()
}

fn tenant(number: u64) -> String {
    format!("tenant-{number:04}")
}

fn project(number: u64) -> String {
    format!("project-{number}")
}

/// All names, made once: a caller has its own at hand.
struct Names {
    tenants: Vec<String>,
    projects: Vec<String>,
    functions: Vec<String>,
    keys: Vec<String>,
}

impl Names {
    fn new() -> Self {
        Self {
            tenants: (0..TENANTS).map(tenant).collect(),
            projects: (0..PROJECTS).map(project).collect(),
            functions: (0..FUNCTIONS)
                .map(|number| format!("function-{number:02}"))
                .collect(),
            keys: (0..KEYS).map(|number| format!("key-{number}")).collect(),
        }
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn hold(names: &Names, number: u64) -> HoldRequest {
    // A step that is prime to everything spreads the runs over all names.
    let pick = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let function = pick / TENANTS % FUNCTIONS;
    HoldRequest {
        hold: id(number, 1),
        execution: id(number, 2),
        tenant: names.tenants[index(pick % TENANTS)].clone(),
        project: names.projects[index(function % PROJECTS)].clone(),
        function: Some(names.functions[index(function)].clone()),
        key: names.keys[index(pick % KEYS)].clone(),
        image: "sha256:9f86d081884c".to_owned(),
        tags: vec![("cost_center".to_owned(), "42".to_owned())],
        ceiling: Ceiling {
            cpu_ms: 500,
            wall_ms: 1_000,
            cpu_millis: 1_000,
            memory_bytes: 256 << 20,
        },
        on_low: OnLow::Refuse,
        max_cost: None,
        idempotency: None,
    }
}

fn settlement(number: u64) -> Settlement {
    let measured = Quantities {
        executions: 1,
        cpu_us: 123_456 + number % 1_000,
        wall_us: 200_000,
        memory_byte_ms: (256 << 20) * 200,
        ..Quantities::default()
    };
    Settlement {
        hold: id(number, 1),
        measured,
        outcome: "exited".to_owned(),
        estimated: false,
    }
}

fn id(number: u64, kind: u8) -> Id {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[15] = kind;
    Id(bytes)
}

/// What a caller waits for.
enum Waits {
    Hold(Ticket<Result<Held, Rejection>>),
    Settle(Ticket<Result<Receipt, Rejection>>),
}

struct Caller {
    number: u64,
    waits: Waits,
    since: Instant,
    waker: Waker,
}

/// Callers whose answer is there.
#[derive(Default)]
struct Ready {
    callers: Mutex<Vec<usize>>,
    some: Condvar,
}

struct CallerWaker {
    caller: usize,
    ready: Arc<Ready>,
}

impl Wake for CallerWaker {
    fn wake(self: Arc<Self>) {
        let mut callers = self.ready.callers.lock().unwrap();
        callers.push(self.caller);
        if callers.len() == 1 {
            self.ready.some.notify_one();
        }
    }
}

/// Waiting times in microseconds.
struct Done {
    holds: Vec<u32>,
    settles: Vec<u32>,
}

/// One thread that plays all callers.
struct Driver {
    ledger: Ledger,
    names: Names,
    clock: Arc<MonthClock>,
    ready: Arc<Ready>,
    callers: Vec<Caller>,
    next: u64,
    done: Done,
}

impl Driver {
    fn new(ledger: Ledger, clock: Arc<MonthClock>, callers: usize) -> Self {
        let ready = Arc::new(Ready::default());
        let done = Done {
            holds: Vec::new(),
            settles: Vec::new(),
        };
        let mut driver = Self {
            ledger,
            names: Names::new(),
            clock,
            ready,
            callers: Vec::new(),
            next: 0,
            done,
        };
        for caller in 0..callers {
            let ready = Arc::clone(&driver.ready);
            let waker = Waker::from(Arc::new(CallerWaker { caller, ready }));
            driver.next += 1;
            let ticket = driver
                .ledger
                .hold(hold(&driver.names, driver.next))
                .unwrap();
            let waits = Waits::Hold(ticket);
            driver.callers.push(Caller {
                number: driver.next,
                waits,
                since: Instant::now(),
                waker,
            });
            driver.turn(caller, true);
        }
        driver
    }

    fn drive(mut self, until: Instant) -> Done {
        let mut open = self.callers.len();
        let mut turns = Vec::new();
        while open > 0 {
            let mut ready = self.ready.callers.lock().unwrap();
            while ready.is_empty() {
                ready = self.ready.some.wait(ready).unwrap();
            }
            std::mem::swap(&mut *ready, &mut turns);
            drop(ready);
            let go_on = Instant::now() < until;
            for caller in turns.drain(..) {
                open -= usize::from(!self.turn(caller, go_on));
            }
        }
        self.done
    }

    /// Takes a caller as far as it goes without waiting; false once it has ended.
    fn turn(&mut self, index: usize, go_on: bool) -> bool {
        loop {
            let caller = &mut self.callers[index];
            let mut cx = Context::from_waker(&caller.waker);
            let next = match &mut caller.waits {
                Waits::Hold(ticket) => {
                    let Some(_held) = poll(ticket, &mut cx) else {
                        return true;
                    };
                    self.done.holds.push(micros(caller.since));
                    Waits::Settle(self.ledger.settle(settlement(caller.number)).unwrap())
                }
                Waits::Settle(ticket) => {
                    let Some(_receipt) = poll(ticket, &mut cx) else {
                        return true;
                    };
                    self.done.settles.push(micros(caller.since));
                    self.clock.0.fetch_add(1, Ordering::Relaxed);
                    if !go_on {
                        return false;
                    }
                    self.next += 1;
                    caller.number = self.next;
                    Waits::Hold(self.ledger.hold(hold(&self.names, self.next)).unwrap())
                }
            };
            caller.waits = next;
            caller.since = Instant::now();
        }
    }
}

fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

fn poll<T>(ticket: &mut Ticket<Result<T, Rejection>>, cx: &mut Context<'_>) -> Option<T> {
    let answer: Poll<Result<Result<T, Rejection>, Failed>> = Pin::new(ticket).poll(cx);
    match answer {
        Poll::Pending => None,
        Poll::Ready(answer) => Some(answer.unwrap().unwrap()),
    }
}
