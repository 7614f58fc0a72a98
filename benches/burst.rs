//! A hundred requests at once to an idle server as it is by default, against a hundred `crun run`
//! at once.
//!
//! Ten tenants, ten requests each, since one alone may run sixteen. The sides take turns, with two
//! seconds of rest before each. Needs root, crun and an image store (`FAREBOX_TEST_IMAGES`).
//! `cargo bench --bench burst -- [--quick]`, or `sh scripts/bench-runtime.sh burst`.

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

use std::sync::Barrier;
use std::time::Duration;

use serde_json::json;

use peers::{Act, Peer, Stage};
use server::{Server, data_dir};
use table::{Bars, at, is_quick};
use traffic::{Caller, PRINT, Tally, burst, python};
use world::World;

const AT_ONCE: usize = 100;
const TENANTS: usize = 10;
const ROUNDS: usize = 5;
const REST: Duration = Duration::from_secs(2);
/// What the 95th percentile may be of crun's.
const BAR: f64 = 0.5;

fn main() {
    let Some(world) = World::enter("burst") else {
        return;
    };
    assert!(Peer::Crun.is_here(), "crun is not installed");
    let (at_once, rounds) = if is_quick() {
        (20, 1)
    } else {
        (AT_ONCE, ROUNDS)
    };
    let dir = data_dir();
    let server = Server::start(&world, dir.path(), &[("FAREBOX_LOG__FILTER", "warn")]);
    let tokens: Vec<String> = (0..TENANTS)
        .map(|tenant| server.tenant(&format!("bench-{tenant}")))
        .collect();
    let callers: Vec<Caller<'_>> = (0..at_once)
        .map(|number| Caller {
            address: server.address,
            token: &tokens[number % TENANTS],
        })
        .collect();
    let stage = Stage::enter(&world);
    let act = stage.act(Peer::Crun, PRINT);
    callers[0].python(PRINT);
    let mut ours = Tally::default();
    let mut theirs = Vec::new();
    let mut firsts = Vec::new();
    for _ in 0..rounds {
        std::thread::sleep(REST);
        let tally = burst(&callers, &python(PRINT));
        firsts.push(at(&tally.sorted(), 95));
        ours.add(tally);
        std::thread::sleep(REST);
        theirs.extend(crun(&act, at_once));
    }
    theirs.sort_by(f64::total_cmp);
    drop(stage);
    report((at_once, rounds), &ours, (&firsts, &theirs));
    assert!(ours.wrong.is_none(), "{:?}\n{}", ours.wrong, server.log());
    host::stop(server, dir.path());
}

/// As many as that at once, each from the moment at which all begin; in milliseconds.
fn crun(act: &Act, at_once: usize) -> Vec<f64> {
    let gate = Barrier::new(at_once);
    std::thread::scope(|scope| {
        let one = || {
            gate.wait();
            act.run().as_secs_f64() * 1000.0
        };
        let all: Vec<_> = (0..at_once).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

fn report((at_once, rounds): (usize, usize), ours: &Tally, (firsts, theirs): (&[f64], &[f64])) {
    table::paragraph(&format!(
        "{at_once} at once, {rounds} times, milliseconds from the start of all to each end"
    ));
    let sorted = ours.sorted();
    let row = |name: &str, times: &[f64]| -> Vec<String> {
        let figures = [50, 95, 99, 100].map(|percent| format!("{:.0}", at(times, percent)));
        [name.to_owned()].into_iter().chain(figures).collect()
    };
    let rows = [row("farebox over HTTP", &sorted), row("crun run", theirs)];
    table::table(&["", "p50", "p95", "p99", "max"], &rows);
    table::paragraph(&format!(
        "Answers: {}. p95 of the first burst {:.0} ms.",
        ours.words(),
        firsts[0]
    ));
    let mut bars = Bars::new("burst");
    let all = at_once * rounds;
    let failed = f64::from(u32::try_from(all - sorted.len()).unwrap());
    bars.at_most("requests without a right answer", failed, 0.0);
    bars.at_most(
        "farebox / crun run, p95",
        at(&sorted, 95) / at(theirs, 95),
        BAR,
    );
    bars.report(&json!({
        "at_once": at_once, "rounds": rounds, "answers": ours.kinds,
        "farebox_ms": table::percentiles(&sorted), "crun_ms": table::percentiles(theirs),
        "farebox_p95_ms_by_round": firsts,
    }));
}
