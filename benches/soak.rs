//! Half an hour of runs without a break: memory, descriptors, loop devices and groups stay what
//! they are.
//!
//! Four callers in a closed loop over HTTP, a new connection each time; eight of nine ask for
//! `print(1)`, one for a program that ends badly. Once a minute they rest until nothing is under
//! way, the kernel drops what it keeps of files and groups that are gone, and it is looked at what
//! server, launcher and kernel hold. The first sixth fills caches, pools and arenas and judges
//! nothing; what is kept of runs in memory is bounded so that it is full by then. Needs root and an
//! image store (`FAREBOX_TEST_IMAGES`); nothing else may run.
//! `cargo bench --bench soak -- [--quick | --minutes N]`, or `sh scripts/bench-runtime.sh soak`.

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

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use server::{Server, data_dir};
use table::{Bars, argument, is_quick};
use traffic::{Caller, PRINT, Tally, closed, python};
use world::World;

const MINUTES: usize = 30;
const MINUTES_QUICK: usize = 3;
const CALLERS: usize = 4;
/// How long a minute is, and how much of it a program that ends badly is asked for.
const LONG: Duration = Duration::from_secs(54);
const LONG_BAD: Duration = Duration::from_secs(6);
const BAD: &str = "import os; os.abort()";
/// Longest that what is under way may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// What server and launcher, and what the kernel may hold at the end, against after a sixth.
const GROWTH_MAX: f64 = 1.1;

/// What there is once nothing is under way.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Memory in bytes.
    server: u64,
    launcher: u64,
    kernel: u64,
    /// Descriptors of both.
    files: usize,
    loops: usize,
    groups: usize,
}

fn main() {
    let Some(world) = World::enter("soak") else {
        return;
    };
    let minutes = match argument("--minutes") {
        Some(minutes) => minutes.parse().unwrap(),
        None if is_quick() => MINUTES_QUICK,
        None => MINUTES,
    };
    let dir = data_dir();
    let settings = [
        ("FAREBOX_LOG__FILTER", "warn"),
        ("FAREBOX_LEDGER__VIEW_CACHE_BYTES", "1048576"),
        ("FAREBOX_LEDGER__SEGMENT_BYTES", "131072"),
        ("FAREBOX_RECORDS__SEGMENT_BYTES", "131072"),
        ("FAREBOX_RECORDS__INDEX_MAX", "100"),
    ];
    let server = Server::start(&world, dir.path(), &settings);
    let token = server.tenant("bench");
    let caller = Caller {
        address: server.address,
        token: &token,
    };
    let (mut right, mut bad) = (Tally::default(), Tally::default());
    let mut looks = Vec::new();
    for _ in 0..minutes {
        right.add(closed(&[caller; CALLERS], &python(PRINT), LONG));
        bad.add(closed(&[caller; CALLERS], &python(BAD), LONG_BAD));
        looks.push(look(&server, dir.path()));
    }
    report(&looks, &right, &bad);
    assert!(right.wrong.is_none(), "{:?}\n{}", right.wrong, server.log());
    host::stop(server, dir.path());
}

fn look(server: &Server, dir: &Path) -> Look {
    let begin = Instant::now();
    // A sandbox that was answered for may still be ending, and others are made in its place.
    let mut last = host::live(dir);
    let mut same = 0;
    while same < 20 && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
        let now = host::live(dir);
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    // Caches of files and groups that are gone stay until somebody else wants the memory.
    std::fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    let launcher = host::launcher(server);
    let pids = [server.pid(), launcher];
    Look {
        server: host::share_of(server.pid()),
        launcher: host::share_of(launcher),
        kernel: host::memory().kernel,
        files: pids.map(host::descriptors).into_iter().sum(),
        loops: host::loop_devices(),
        groups: last,
    }
}

fn report(looks: &[Look], right: &Tally, bad: &Tally) {
    let runs = right.times.len() + bad.kinds.values().sum::<usize>();
    table::paragraph(&format!(
        "{runs} runs in {} minutes; memory in MiB once nothing is under way",
        looks.len()
    ));
    let mib = |bytes: u64| format!("{:.1}", mebibytes(bytes));
    let step = looks.len().div_ceil(10);
    let rows: Vec<Vec<String>> = looks
        .iter()
        .enumerate()
        .filter(|(at, _)| (at + 1) % step == 0 || *at == 0)
        .map(|(at, look)| {
            let memory = [look.server, look.launcher, look.kernel].map(mib);
            let counts = [look.files, look.loops, look.groups].map(|count| count.to_string());
            let row = [(at + 1).to_string()].into_iter();
            row.chain(memory).chain(counts).collect()
        })
        .collect();
    let heads = [
        "minute",
        "server",
        "launcher",
        "kernel",
        "descriptors",
        "loop devices",
        "sandboxes ready",
    ];
    table::table(&heads, &rows);
    let first = looks[looks.len() / 6];
    let last = looks[looks.len() - 1];
    let mut bars = Bars::new("soak");
    let own = |look: Look| mebibytes(look.server + look.launcher);
    bars.at_most(
        "memory of server and launcher, end / a sixth",
        own(last) / own(first),
        GROWTH_MAX,
    );
    bars.at_most(
        "memory of the kernel, end / a sixth",
        mebibytes(last.kernel) / mebibytes(first.kernel),
        GROWTH_MAX,
    );
    bars.at_most(
        "descriptors, end / a sixth",
        count(last.files) / count(first.files),
        GROWTH_MAX,
    );
    let most = looks.iter().skip(looks.len() / 6).map(|look| look.loops);
    let more = most.max().unwrap_or(0).saturating_sub(first.loops);
    bars.at_most("loop devices that were added", count(more), 0.0);
    let failed = right.kinds.values().sum::<usize>() - right.times.len();
    bars.at_most("requests without a right answer", count(failed), 0.0);
    let each = |pick: fn(&Look) -> u64| looks.iter().map(pick).collect::<Vec<_>>();
    bars.report(&json!({
        "runs": runs, "right": right.kinds, "bad": bad.kinds,
        "server_bytes": each(|look| look.server),
        "launcher_bytes": each(|look| look.launcher),
        "kernel_bytes": each(|look| look.kernel),
    }));
}

fn mebibytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes >> 10).unwrap()) / 1024.0
}

fn count(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}
