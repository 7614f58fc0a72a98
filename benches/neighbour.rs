//! How much slower one tenant becomes while another lets off bombs, eight at a time.
//!
//! For each bomb: samples of `print(1)` over HTTP, one every 100 ms, first alone and then beside
//! the bombs. Needs root and an image store (`FAREBOX_TEST_IMAGES`). Prints a table and one line of
//! JSON. `cargo bench --bench neighbour -- [--samples N] [--bomb NAME]`
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement, with clocks and an environment of its own"
)]

#[path = "../tests/support/bombs.rs"]
mod bombs;
#[path = "../tests/support/http.rs"]
mod http;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/server.rs"]
mod server;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/world.rs"]
mod world;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use bombs::{BOMBS, Bomb};
use http::Request;
use server::{Server, data_dir};
use world::World;

const SAMPLES: usize = 200;
const AT_ONCE: usize = 8;
const BOMB_WALL_MS: u64 = 2_000;
const REST: Duration = Duration::from_millis(100);

/// Highest ratio of the 95th percentiles, beside bombs to alone.
const RATIO_MAX: f64 = 3.0;
/// Most that the server's memory may grow, in bytes.
const GROWTH_MAX: u64 = 64 << 20;

fn main() {
    let Some(world) = World::enter("neighbour") else {
        return;
    };
    let samples = argument("--samples").map_or(SAMPLES, |count| count.parse().unwrap());
    let dir = data_dir();
    let mut server = Server::start(&world, dir.path(), &[("FAREBOX_LOG__FILTER", "warn")]);
    let (hostile, tame) = (server.tenant("hostile"), server.tenant("tame"));
    sample(server.address, &tame, 20);
    let memory_before = server.memory_bytes();
    println!("print(1) every 100 ms, {samples} samples each, milliseconds; {AT_ONCE} bombs beside");
    println!(
        "{:<12} {:>9} {:>9}  {:>9} {:>9} {:>9}  {:>6} {:>6}",
        "bomb", "alone p50", "p95", "beside", "p95", "max", "ratio", "bombs"
    );
    let only = argument("--bomb");
    let wanted = |bomb: &&Bomb| only.as_ref().is_none_or(|name| name == bomb.0);
    let rows: Vec<Value> = BOMBS
        .iter()
        .filter(wanted)
        .map(|bomb| row(&server, bomb, [&hostile, &tame], samples))
        .collect();
    let growth = server.memory_bytes().saturating_sub(memory_before);
    let met = growth <= GROWTH_MAX
        && rows
            .iter()
            .all(|row| row["ratio"].as_f64().unwrap() < RATIO_MAX);
    println!(
        "memory of the server grew by {} KiB; bar (ratio < {RATIO_MAX}, < 64 MiB): {}",
        growth >> 10,
        if met { "met" } else { "missed" }
    );
    println!(
        "{}",
        json!({ "bench": "neighbour", "samples": samples, "at_once": AT_ONCE, "rows": rows,
                "server_growth_bytes": growth, "bar_met": met })
    );
    assert_eq!(server.stop(), Some(0));
}

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|word| word != name).nth(1)
}

fn row(server: &Server, bomb: &Bomb, [hostile, tame]: [&String; 2], samples: usize) -> Value {
    let alone = sample(server.address, tame, samples);
    let (stop, bombs) = (AtomicBool::new(false), AtomicUsize::new(0));
    let beside = std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let record = ask(server.address, hostile, &bombs::body(bomb, BOMB_WALL_MS));
                    assert!(bombs::ended_rightly(bomb, &record), "{}: {record}", bomb.0);
                    bombs.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let beside = sample(server.address, tame, samples);
        stop.store(true, Ordering::Relaxed);
        beside
    });
    let ratio = at(&beside, 95) / at(&alone, 95);
    let bombs = bombs.into_inner();
    println!(
        "{:<12} {:>9.1} {:>9.1}  {:>9.1} {:>9.1} {:>9.1}  {ratio:>6.2} {bombs:>6}",
        bomb.0,
        at(&alone, 50),
        at(&alone, 95),
        at(&beside, 50),
        at(&beside, 95),
        at(&beside, 100),
    );
    json!({ "bomb": bomb.0, "ratio": ratio, "bombs": bombs,
            "alone_ms": { "p50": at(&alone, 50), "p95": at(&alone, 95) },
            "beside_ms": { "p50": at(&beside, 50), "p95": at(&beside, 95) } })
}

/// Times of `count` right answers in milliseconds, sorted.
fn sample(address: SocketAddr, token: &str, count: usize) -> Vec<f64> {
    let body = json!({ "language": "python", "code": "print(1)" });
    let mut times: Vec<f64> = (0..count)
        .map(|_| {
            std::thread::sleep(REST);
            let begin = Instant::now();
            let record = ask(address, token, &body);
            let took = begin.elapsed();
            assert_eq!(record["stdout"], "1\n", "{record}");
            took.as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

fn ask(address: SocketAddr, token: &str, body: &Value) -> Value {
    let request = Request {
        method: "POST",
        path: "/v1/executions",
        token,
        body: Some(body),
        ..Request::default()
    };
    let answer = http::send(address, &request).unwrap();
    assert_eq!(answer.status, 200, "{} {}", answer.head, answer.body);
    answer.body
}

fn at(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}
