//! What one tenant waits while another sends a hundred times as much; what a full queue answers.
//!
//! The small one asks every 250 ms, first alone, then beside the big one, which asks 100 times as
//! often whether or not it gets its answers: once held to sixteen runs at a time like every
//! tenant, once with as many as it likes, so that the machine's queue is its own. Then a server
//! with two slots and room for four that wait is asked for sixteen runs at once. Needs root and an
//! image store (`FAREBOX_TEST_IMAGES`). `cargo bench --bench fairness -- [--quick]`, or
//! `sh scripts/bench-runtime.sh fairness`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement, with clocks and an environment of its own"
)]

#[expect(dead_code, reason = "other benches use more of it")]
#[path = "support/host.rs"]
mod host;
#[path = "../tests/support/http.rs"]
mod http;
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

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use server::{Server, data_dir};
use table::{Bars, at, is_quick};
use traffic::{Caller, PRINT, Rate, Tally, open, python};
use world::World;

const SAMPLES: usize = 200;
const SAMPLES_QUICK: usize = 12;
const SMALL_PER_S: f64 = 4.0;
/// Requests of the small one that may be open: an answer that is late delays no other request.
const SMALL_OPEN_MAX: usize = 8;
const TIMES_AS_MUCH: f64 = 100.0;
/// Requests of the big one that may be open: more than slots and queue of the default machine take
/// from sixteen at a time, and enough to fill its slots where it may have as many as it likes.
const OPEN_MAX: usize = 160;
/// What the small one's 95th percentile beside the other may be of the same alone.
const RATIO_MAX: f64 = 3.0;

const SLOTS: usize = 2;
const QUEUE: usize = 4;
const AT_ONCE: usize = 16;

/// The small one alone, and beside the big one.
struct Row {
    name: &'static str,
    alone: Vec<f64>,
    beside: Tally,
    big: Tally,
}

fn main() {
    let Some(world) = World::enter("fairness") else {
        return;
    };
    let rows = neighbours(&world);
    let full = full_queue(&world);
    report(&rows, &full);
}

fn neighbours(world: &World) -> Vec<Row> {
    let dir = data_dir();
    let server = Server::start(world, dir.path(), &[("FAREBOX_LOG__FILTER", "warn")]);
    let tokens = ["small", "big"].map(|name| server.tenant(name));
    let callers = tokens.each_ref().map(|token| Caller {
        address: server.address,
        token,
    });
    callers[0].python(PRINT);
    let mut rows = vec![row("big one may run 16 at once", callers)];
    let path = "/v1/tenants/big/limits";
    let free = json!({ "concurrency": 10_000 });
    server.admin("PUT", path, Some(&free));
    rows.push(row("big one may run any number", callers));
    let tallies = rows.iter().flat_map(|row| [&row.beside, &row.big]);
    let wrong = tallies.filter_map(|tally| tally.wrong.as_ref()).next();
    assert!(wrong.is_none(), "{wrong:?}\n{}", server.log());
    host::stop(server, dir.path());
    rows
}

fn row(name: &'static str, [small, big]: [Caller<'_>; 2]) -> Row {
    let samples = if is_quick() { SAMPLES_QUICK } else { SAMPLES };
    let body = python(PRINT);
    let rate = Rate {
        per_s: SMALL_PER_S,
        open_max: SMALL_OPEN_MAX,
    };
    let crowd = Rate {
        per_s: SMALL_PER_S * TIMES_AS_MUCH,
        open_max: OPEN_MAX,
    };
    let alone = open(small, &body, rate, (samples, &AtomicBool::new(false)));
    let stop = AtomicBool::new(false);
    let (beside, big) = std::thread::scope(|scope| {
        let big = scope.spawn(|| open(big, &body, crowd, (usize::MAX, &stop)));
        let beside = open(small, &body, rate, (samples, &AtomicBool::new(false)));
        stop.store(true, Ordering::Relaxed);
        (beside, big.join().unwrap())
    });
    Row {
        name,
        alone: alone.sorted(),
        beside,
        big,
    }
}

/// What requests beyond slots and queue are told: how many of each kind, and how many refusals say
/// when to come again.
#[derive(Default)]
struct Full {
    kinds: BTreeMap<String, usize>,
    refused: usize,
    say_when: usize,
}

fn full_queue(world: &World) -> Full {
    let dir = data_dir();
    let (slots, queue) = (SLOTS.to_string(), QUEUE.to_string());
    let settings = [
        ("FAREBOX_LOG__FILTER", "warn"),
        ("FAREBOX_MACHINE__SLOTS", slots.as_str()),
        ("FAREBOX_MACHINE__QUEUE_MAX", queue.as_str()),
    ];
    let server = Server::start(world, dir.path(), &settings);
    let token = server.tenant("bench");
    let caller = Caller {
        address: server.address,
        token: &token,
    };
    let gate = Barrier::new(AT_ONCE);
    let body = python("import time; time.sleep(1); print(1)");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let one = || {
            gate.wait();
            caller.run(&body).unwrap()
        };
        let all: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut full = Full::default();
    for answer in answers {
        let words = answer.body["detail"].as_str().unwrap_or("ran");
        let kind = format!("{} {words}", answer.status);
        *full.kinds.entry(kind).or_default() += 1;
        if answer.status == 503 {
            full.refused += 1;
            let head = answer.head.to_ascii_lowercase();
            full.say_when += usize::from(head.contains("\r\nretry-after: "));
        }
    }
    host::stop(server, dir.path());
    full
}

fn report(rows: &[Row], full: &Full) {
    table::paragraph(&format!(
        "`{PRINT}` of a small tenant {SMALL_PER_S} times a second, milliseconds, alone and beside \
         one that asks {TIMES_AS_MUCH} times as often"
    ));
    let mut bars = Bars::new("fairness");
    let (mut cells, mut figures) = (Vec::new(), Vec::<Value>::new());
    for row in rows {
        let beside = row.beside.sorted();
        let times = [
            (&row.alone, 50),
            (&row.alone, 95),
            (&beside, 50),
            (&beside, 95),
            (&beside, 100),
        ];
        let times = times.map(|(times, percent)| format!("{:.1}", at(times, percent)));
        let mut cell = vec![row.name.to_owned()];
        cell.extend(times);
        cell.extend([row.beside.words(), row.big.words()]);
        cells.push(cell);
        let ratio = at(&beside, 95) / at(&row.alone, 95);
        let sent =
            |tally: &Tally| f64::from(u32::try_from(tally.kinds.values().sum::<usize>()).unwrap());
        let times_as_much = sent(&row.big) / row.big.took.as_secs_f64() / SMALL_PER_S;
        bars.at_most(
            &format!("beside / alone, p95, {}", row.name),
            ratio,
            RATIO_MAX,
        );
        figures.push(json!({
            "case": row.name, "alone_ms": table::percentiles(&row.alone),
            "beside_ms": table::percentiles(&beside), "small": row.beside.kinds,
            "big": row.big.kinds, "big_sent_times_as_much": times_as_much,
        }));
    }
    let heads = [
        "",
        "alone p50",
        "p95",
        "beside p50",
        "p95",
        "max",
        "small",
        "big",
    ];
    table::table(&heads, &cells);
    let words: Vec<String> = full
        .kinds
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    table::paragraph(&format!(
        "{AT_ONCE} at once where {SLOTS} run and {QUEUE} wait: {}.",
        words.join(", ")
    ));
    let count = |count: usize| f64::from(u32::try_from(count).unwrap());
    bars.at_most(
        "full queue: refused, of those that had room to run or wait",
        count(full.refused.saturating_sub(AT_ONCE - SLOTS - QUEUE)),
        0.0,
    );
    bars.at_least(
        "full queue: 503, of those that had none",
        count(full.refused),
        count(AT_ONCE - SLOTS - QUEUE),
    );
    let silent = count(full.refused - full.say_when);
    bars.at_most("full queue: 503 without Retry-After", silent, 0.0);
    bars.report(&json!({ "rows": figures, "full_queue": full.kinds }));
}
