//! One execution over HTTP, with a sandbox that was made ahead and without, against other ways to
//! run the same program once on the same root.
//!
//! The sides take turns, each time in another order, so that they meet the same machine and each
//! other's traces; with 100 ms of rest before each, as a caller pays who comes by now and then, and
//! back to back. Needs root and an image store (`FAREBOX_TEST_IMAGES`); leaves out what is not
//! installed. `cargo bench --bench start -- [--quick]`, or `sh scripts/bench-runtime.sh start`.

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
#[path = "support/oci.rs"]
mod oci;
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

use std::time::Duration;

use serde_json::{Value, json};

use peers::{Peer, Stage};
use server::{NONE_AHEAD, Server, data_dir};
use table::{Bars, is_quick, percentiles, short};
use traffic::{Caller, PRINT};
use world::World;

const ROUNDS: usize = 30;
const ROUNDS_QUICK: usize = 3;
const WARM_UP: usize = 3;
const RESTS: [(&str, Duration); 2] = [
    ("100 ms rest", Duration::from_millis(100)),
    ("back to back", Duration::ZERO),
];
const PROGRAMS: [&str; 2] = [PRINT, "import numpy; print(1)"];
const PEERS: [Peer; 7] = [
    Peer::Floor,
    Peer::Bwrap,
    Peer::Crun,
    Peer::CrunSeccomp,
    Peer::Runc,
    Peer::PodmanUnconfined,
    Peer::Podman,
];
const WARM: &str = "farebox, warm";
const COLD: &str = "farebox, cold";

/// What the median of one side may be of another's, for `print(1)`: with rest, and back to back.
const BARS: [(&str, Peer, [f64; 2]); 4] = [
    (WARM, Peer::Crun, [1.0 / 8.0, 1.0 / 10.0]),
    (WARM, Peer::Podman, [1.0 / 80.0, 1.0 / 80.0]),
    (COLD, Peer::Crun, [1.0, 1.0]),
    (COLD, Peer::CrunSeccomp, [0.5, 0.5]),
];

/// One way to run the program.
struct Side<'a> {
    name: &'static str,
    run: Box<dyn Fn() -> Duration + 'a>,
}

/// A side's times in milliseconds, sorted: with rest, and back to back.
struct Times {
    name: &'static str,
    times: [Vec<f64>; 2],
}

fn main() {
    let Some(world) = World::enter("start") else {
        return;
    };
    let quiet = ("FAREBOX_LOG__FILTER", "warn");
    let dirs = [data_dir(), data_dir()];
    let warm = Server::start(&world, dirs[0].path(), &[quiet]);
    let cold = Server::start(&world, dirs[1].path(), &[quiet, NONE_AHEAD]);
    let tokens = [&warm, &cold].map(|server| server.tenant("bench"));
    let callers = [(&warm, &tokens[0]), (&cold, &tokens[1])].map(|(server, token)| Caller {
        address: server.address,
        token,
    });
    let stage = Stage::enter(&world);
    let mut bars = Bars::new("start");
    let mut figures = Vec::new();
    for code in PROGRAMS {
        // The first finds nothing ready.
        callers[0].python(code);
        let sides = sides(&stage, &callers, code);
        let times = measure(&sides);
        print(code, &times);
        if code == PRINT {
            judge(&mut bars, &times);
        }
        figures.push(json!({ "program": code, "sides": figures_of(&times) }));
    }
    drop(stage);
    host::stop(warm, dirs[0].path());
    host::stop(cold, dirs[1].path());
    bars.report(&Value::Array(figures));
}

fn sides<'a>(stage: &Stage, callers: &'a [Caller<'a>; 2], code: &'static str) -> Vec<Side<'a>> {
    let ours = [(WARM, callers[0], "warm"), (COLD, callers[1], "cold")];
    let ours = ours.map(|(name, caller, start)| Side {
        name,
        run: Box::new(move || {
            let (took, record) = caller.python(code);
            assert_eq!(record["start"], start, "{record}");
            took
        }),
    });
    let peers = PEERS.into_iter().filter(|peer| peer.is_here());
    let peers = peers.map(|peer| {
        let act = stage.act(peer, code);
        Side {
            name: peer.name(),
            run: Box::new(move || act.run()),
        }
    });
    ours.into_iter().chain(peers).collect()
}

/// Every side once a round, so that what was made ahead is there again.
fn measure(sides: &[Side<'_>]) -> Vec<Times> {
    let names = sides.iter().map(|side| side.name);
    let mut all: Vec<Times> = names
        .map(|name| Times {
            name,
            times: [Vec::new(), Vec::new()],
        })
        .collect();
    let rounds = if is_quick() { ROUNDS_QUICK } else { ROUNDS };
    for (at, (_, rest)) in RESTS.iter().enumerate() {
        for round in 0..WARM_UP + rounds {
            for side in order(round, sides.len()) {
                std::thread::sleep(*rest);
                let took = (sides[side].run)();
                if round >= WARM_UP {
                    all[side].times[at].push(took.as_secs_f64() * 1000.0);
                }
            }
        }
    }
    for times in all.iter_mut().flat_map(|side| &mut side.times) {
        times.sort_by(f64::total_cmp);
    }
    all
}

/// All sides, each round from another one on and with another step, so that nobody always runs
/// after the same one.
fn order(round: usize, sides: usize) -> impl Iterator<Item = usize> {
    let divides =
        |step: usize| (2..=step).any(|by| step.is_multiple_of(by) && sides.is_multiple_of(by));
    let steps: Vec<usize> = (1..sides).filter(|step| !divides(*step)).collect();
    let step = steps[round % steps.len()];
    (0..sides).map(move |turn| (round + turn * step) % sides)
}

fn print(code: &str, times: &[Times]) {
    let runs = times[0].times[0].len();
    let rests = RESTS.map(|(rest, _)| rest);
    table::paragraph(&format!(
        "`{code}`, {runs} runs each, milliseconds: p50, p95, p99 with {}, then {}",
        rests[0], rests[1]
    ));
    let rows: Vec<Vec<String>> = times
        .iter()
        .map(|side| {
            let figures = side.times.iter().flat_map(|times| percentiles(times));
            let figures = figures.map(|figure| format!("{figure:.2}"));
            [side.name.to_owned()].into_iter().chain(figures).collect()
        })
        .collect();
    let heads = ["", "p50", "p95", "p99", "p50, b to b", "p95", "p99"];
    table::table(&heads, &rows);
}

fn judge(bars: &mut Bars, times: &[Times]) {
    let of = |name: &str| times.iter().find(|side| side.name == name);
    for (ours, peer, limits) in BARS {
        let (Some(our), Some(their)) = (of(ours), of(peer.name())) else {
            continue;
        };
        for (at, ((rest, _), limit)) in RESTS.iter().zip(limits).enumerate() {
            let [ours_ms, theirs_ms] = [our, their].map(|side| table::at(&side.times[at], 50));
            let what = format!("{ours} / {}, p50, {rest}", peer.name());
            bars.at_most(&what, ours_ms / theirs_ms, limit);
        }
    }
    if let Some(floor) = of(Peer::Floor.name()) {
        let over = |at: usize| table::at(&times[0].times[at], 50) / table::at(&floor.times[at], 50);
        table::paragraph(&format!(
            "{WARM} / {}: {} with rest, {} back to back.",
            floor.name,
            short(over(0)),
            short(over(1))
        ));
    }
}

fn figures_of(times: &[Times]) -> Vec<Value> {
    let figures = |side: &Times| {
        let ms = side.times.each_ref().map(|times| percentiles(times));
        json!({ "side": side.name, "rest_ms": ms[0], "back_to_back_ms": ms[1] })
    };
    times.iter().map(figures).collect()
}
