//! Single-use runs a second that two cores keep up with, against `crun run` in two loops; and what
//! a run takes at half of that rate.
//!
//! Two, four and eight callers in a closed loop over HTTP, a new connection each time; crun with a
//! user namespace and the same limits. All take turns, round by round. Then requests come at half
//! of the best rate, whether or not earlier ones are answered, and each one's time counts from when
//! it was due. CPU time of a run is that of server, launcher and all that they have ended, and of
//! crun and all that it has started. Needs root, crun and an image store (`FAREBOX_TEST_IMAGES`).
//! `cargo bench --bench sustained -- [--quick]`, or `sh scripts/bench-runtime.sh sustained`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement, with clocks and an environment of its own"
)]

#[path = "support/cpu.rs"]
mod cpu;
#[expect(dead_code, reason = "other benches use more of it")]
#[path = "support/host.rs"]
mod host;
#[path = "../tests/support/http.rs"]
mod http;
#[path = "support/oci.rs"]
mod oci;
#[expect(dead_code, reason = "other benches use more of it")]
#[path = "support/peers.rs"]
mod peers;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/server.rs"]
mod server;
#[expect(dead_code, reason = "other benches use more of it")]
#[path = "support/table.rs"]
mod table;
#[expect(dead_code, reason = "other benches use more of it")]
#[path = "support/traffic.rs"]
mod traffic;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/world.rs"]
mod world;

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde_json::json;

use peers::{Act, Peer, Stage};
use server::{Server, data_dir};
use table::{Bars, at, is_quick, percentiles};
use traffic::{Caller, PRINT, Rate, Tally, closed, open, python};
use world::World;

const CALLERS: [usize; 3] = [2, 4, 8];
const LOOPS: usize = 2;
const ROUNDS: u32 = 3;
const LONG: Duration = Duration::from_secs(8);
const LONG_QUICK: Duration = Duration::from_secs(2);
/// Requests that may be open at half of the rate.
const OPEN_MAX: usize = 16;

/// How many times as many runs as crun, and how many a second are aimed at.
const RATIO_MIN: f64 = 2.0;
const AIM_PER_S: f64 = 250.0;
/// The 99th percentile at half of the rate, against the median.
const TAIL_MAX: f64 = 5.0;

fn main() {
    let Some(world) = World::enter("sustained") else {
        return;
    };
    assert!(Peer::CrunUsers.is_here(), "crun is not installed");
    let (rounds, long) = if is_quick() {
        (1, LONG_QUICK)
    } else {
        (ROUNDS, LONG)
    };
    let dir = data_dir();
    let server = Server::start(&world, dir.path(), &[("FAREBOX_LOG__FILTER", "warn")]);
    let token = server.tenant("bench");
    let caller = Caller {
        address: server.address,
        token: &token,
    };
    let stage = Stage::enter(&world);
    let act = stage.act(Peer::CrunUsers, PRINT);
    caller.python(PRINT);
    let mut ours = CALLERS.map(|_| Tally::default());
    let (mut theirs, mut theirs_took) = (0, Duration::ZERO);
    let mut cpu_us = [0; 2];
    let launcher = host::launcher(&server);
    let used = || whole_us(server.pid()) + whole_us(launcher);
    for _ in 0..rounds {
        for (tally, callers) in ours.iter_mut().zip(CALLERS) {
            let before = used();
            tally.add(closed(&vec![caller; callers], &python(PRINT), long));
            cpu_us[0] += used() - before;
        }
        let (begin, before) = (Instant::now(), children_us());
        theirs += crun(&act, long);
        theirs_took += begin.elapsed();
        cpu_us[1] += children_us() - before;
    }
    let runs = ours.iter().map(|tally| tally.times.len()).sum();
    let runs = [count(runs), f64::from(theirs)];
    let cpu_ms =
        [0, 1].map(|side| Duration::from_micros(cpu_us[side]).as_secs_f64() * 1000.0 / runs[side]);
    let theirs = f64::from(theirs) / theirs_took.as_secs_f64();
    let best = ours.iter().map(Tally::rate).fold(0.0, f64::max);
    let rate = Rate {
        per_s: (best / 2.0).max(1.0),
        open_max: OPEN_MAX,
    };
    let seconds = (long * rounds).as_secs_f64();
    let due = usize::try_from(whole(rate.per_s * seconds)).unwrap();
    let half = open(caller, &python(PRINT), rate, (due, &AtomicBool::new(false)));
    drop(stage);
    report(&ours, (theirs, cpu_ms), (rate, &half));
    let wrong = ours
        .iter()
        .chain([&half])
        .find_map(|tally| tally.wrong.as_ref());
    assert!(wrong.is_none(), "{wrong:?}\n{}", server.log());
    host::stop(server, dir.path());
}

/// Loops that run the program again and again for so long; how many times in all.
fn crun(act: &Act, long: Duration) -> u32 {
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let again = || {
            let mut runs = 0;
            while begin.elapsed() < long {
                act.run();
                runs += 1;
            }
            runs
        };
        let loops: Vec<_> = (0..LOOPS).map(|_| scope.spawn(again)).collect();
        loops.into_iter().map(|one| one.join().unwrap()).sum()
    })
}

/// A positive number without its fraction.
fn whole(value: f64) -> u64 {
    Duration::from_secs_f64(value).as_secs()
}

fn count(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

/// CPU time of a process and of its children that have ended, in microseconds.
fn whole_us(pid: u32) -> u64 {
    cpu::stat_us(&pid.to_string(), 4)
}

/// CPU time of the children of this process that have ended, in microseconds.
fn children_us() -> u64 {
    cpu::stat_us("self", 4) - cpu::process_us()
}

fn report(ours: &[Tally; 3], (theirs, cpu_ms): (f64, [f64; 2]), (rate, half): (Rate, &Tally)) {
    table::paragraph("Runs a second in a closed loop, and what each took in milliseconds");
    let row = |name: String, per_s: f64, tally: &Tally| -> Vec<String> {
        let figures = percentiles(&tally.sorted()).map(|figure| format!("{figure:.2}"));
        let start = [name, format!("{per_s:.1}")];
        start
            .into_iter()
            .chain(figures)
            .chain([tally.words()])
            .collect()
    };
    let mut rows: Vec<Vec<String>> = ours
        .iter()
        .zip(CALLERS)
        .map(|(tally, callers)| row(format!("farebox, {callers} callers"), tally.rate(), tally))
        .collect();
    let name = format!("{}, {LOOPS} loops", Peer::CrunUsers.name());
    rows.push(vec![name, format!("{theirs:.1}")]);
    rows.push(row(
        "farebox, at half of its rate".to_owned(),
        rate.per_s,
        half,
    ));
    table::table(&["", "a second", "p50", "p95", "p99", "answers"], &rows);
    table::paragraph(&format!(
        "CPU time of a run, milliseconds: farebox {:.1}, crun {:.1}.",
        cpu_ms[0], cpu_ms[1]
    ));
    let mut bars = Bars::new("sustained");
    let best = ours.iter().map(Tally::rate).fold(0.0, f64::max);
    let sorted = half.sorted();
    let tail = at(&sorted, 99) / at(&sorted, 50);
    bars.at_least(
        "farebox / two loops of crun, runs a second",
        best / theirs,
        RATIO_MIN,
    );
    bars.at_least("farebox, runs a second (an aim)", best, AIM_PER_S);
    bars.at_most("at half of the rate, p99 / p50", tail, TAIL_MAX);
    let failed = |tally: &Tally| tally.kinds.values().sum::<usize>() - tally.times.len();
    let failed: usize = ours.iter().chain([half]).map(failed).sum();
    bars.at_most("requests without a right answer", count(failed), 0.0);
    bars.report(&json!({
        "callers": CALLERS, "per_s": ours.each_ref().map(Tally::rate), "crun_per_s": theirs,
        "cpu_ms": cpu_ms,
        "answers": ours.each_ref().map(|tally| &tally.kinds),
        "half": { "per_s": rate.per_s, "ms": percentiles(&sorted), "answers": half.kinds },
    }));
}
