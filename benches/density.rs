//! How many live idle sandboxes a machine holds, what each takes, and whether a claim minds them.
//!
//! A live idle sandbox is a run in Python that sleeps: the interpreter has loaded what it loads for
//! everybody and waits. More and more of them live, step by step; at each step the memory that is
//! available is held against that before the first one, the processes' shares of it and the
//! server's descriptors are read, and `print(1)` is run with sandboxes made ahead. Stops, and says
//! why, before anything of the machine gets scarce. Needs root and an image store
//! (`FAREBOX_TEST_IMAGES`), and a machine that does nothing else: others' memory counts too.
//! `cargo bench --bench density -- [--quick] [--steps 10,100,300,1000]`, or
//! `sh scripts/bench-runtime.sh density`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement, with clocks and an environment of its own"
)]

#[path = "support/host.rs"]
mod host;
#[path = "../tests/support/http.rs"]
mod http;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/server.rs"]
mod server;
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

use serde_json::{Value, json};

use host::Memory;
use http::Request;
use server::{Server, data_dir};
use table::{Bars, argument, at, is_quick, percentiles};
use traffic::{Caller, PRINT};
use world::World;

const STEPS: &str = "10,100,300,1000";
const STEPS_QUICK: &str = "5,15";
/// Sandboxes that are begun before it is looked how many live.
const BATCH: usize = 16;
/// Longest that a batch may take to live, and all to be gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the machine settles before it is looked at.
const SETTLE: Duration = Duration::from_secs(3);
/// What is taken for the need of one before the first step has shown it, in bytes.
const EACH_AT_FIRST: u64 = 16 << 20;
const CLAIMS: usize = 60;
const CLAIMS_QUICK: usize = 10;
const REST: Duration = Duration::from_millis(100);
/// Live sandboxes beside those that sleep: claims, and what is made ahead.
const OTHERS: usize = 64;

/// Bytes that each may take, forked from a template.
const EACH_MAX: f64 = 2.5 * 1024.0 * 1024.0;
/// What the median of a claim at the last step may be of that at the first.
const CLAIM_MAX: f64 = 1.2;
const LIVE_MIN: f64 = 1000.0;

/// What was seen with so many live.
struct Step {
    live: usize,
    /// Bytes of the machine that are no more available, for each.
    each: f64,
    /// Of these, the kernel's own.
    kernel_each: f64,
    /// What the kernel charges to the group of each: anonymous memory, files, its own.
    charged_each: f64,
    /// Shares of memory of the processes of each.
    processes_each: f64,
    server: u64,
    launcher: u64,
    descriptors: [usize; 2],
    claims: Vec<f64>,
    cold: usize,
}

/// Sleepers beside each other, and what it was like before them.
struct Field<'a> {
    server: &'a Server,
    dir: &'a Path,
    sleeper: &'a str,
    caller: Caller<'a>,
    before: Memory,
    others: usize,
    ids: Vec<String>,
}

fn main() {
    let Some(world) = World::enter("density") else {
        return;
    };
    let default = if is_quick() { STEPS_QUICK } else { STEPS };
    let steps = argument("--steps").unwrap_or_else(|| default.to_owned());
    let steps: Vec<usize> = steps.split(',').map(|step| step.parse().unwrap()).collect();
    let most = steps.iter().max().unwrap() + OTHERS;
    let dir = data_dir();
    let (slots, disks) = (
        most.to_string(),
        (u64::try_from(most).unwrap() << 28).to_string(),
    );
    let settings = [
        ("FAREBOX_LOG__FILTER", "warn"),
        ("FAREBOX_MACHINE__SLOTS", slots.as_str()),
        ("FAREBOX_DISK__COMMIT_BYTES", disks.as_str()),
        // Few beside those that are counted.
        ("FAREBOX_POOL__MAX", "8"),
        ("FAREBOX_POOL__MIN", "0"),
    ];
    let server = Server::start(&world, dir.path(), &settings);
    let tokens = ["sleeper", "bench"].map(|name| server.tenant(name));
    let free = json!({ "concurrency": most });
    server.admin("PUT", "/v1/tenants/sleeper/limits", Some(&free));
    let caller = Caller {
        address: server.address,
        token: &tokens[1],
    };
    claims(caller);
    std::thread::sleep(SETTLE);
    let loops = host::loop_devices();
    let mut field = Field {
        server: &server,
        dir: dir.path(),
        sleeper: &tokens[0],
        caller,
        before: host::memory(),
        others: host::live(dir.path()),
        ids: Vec::new(),
    };
    let mut seen = Vec::new();
    let why = steps
        .iter()
        .find_map(|step| match field.grow(*step, seen.last()) {
            Ok(()) => {
                seen.push(field.look());
                None
            }
            Err(why) => Some(why),
        });
    let ended = field.end();
    let loops = host::loop_devices() - loops;
    report(&seen, why.as_deref(), (ended, loops));
    host::stop(server, dir.path());
}

impl Field<'_> {
    /// Lets as many sleep; or says why not.
    fn grow(&mut self, wanted: usize, last: Option<&Step>) -> Result<(), String> {
        let each = last.map_or(EACH_AT_FIRST, |step| {
            Duration::from_secs_f64(step.each.max(step.charged_each)).as_secs()
        });
        while self.ids.len() < wanted {
            if let Some(why) = host::scarce(wanted - self.ids.len(), each) {
                return Err(why);
            }
            let open = host::descriptors(self.server.pid());
            let open_max = host::descriptors_max(self.server.pid());
            if open > open_max / 4 * 3 {
                return Err(format!("the server has {open} of {open_max} descriptors"));
            }
            let batch = BATCH.min(wanted - self.ids.len());
            for _ in 0..batch {
                let id = self.begin()?;
                self.ids.push(id);
            }
            let begin = Instant::now();
            while host::live(self.dir) < self.ids.len() {
                if begin.elapsed() > PATIENCE {
                    return Err(self.missing());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        std::thread::sleep(SETTLE);
        let running = self
            .ids
            .iter()
            .filter(|id| self.state(id)["state"] == "running");
        if running.count() < wanted {
            return Err(self.missing());
        }
        Ok(())
    }

    /// Begins one that sleeps as long as a run may take, with the smallest disk.
    fn begin(&self) -> Result<String, String> {
        let body = json!({
            "language": "python", "code": "import time; time.sleep(3600)",
            "limits": { "wall_ms": 900_000, "disk_bytes": 67_108_864, "inodes": 5000 },
        });
        let request = Request {
            method: "POST",
            path: "/v1/executions",
            token: self.sleeper,
            prefer: Some("respond-async"),
            body: Some(&body),
            ..Request::default()
        };
        let answer = self
            .server
            .ask(&request)
            .map_err(|error| error.to_string())?;
        match (answer.status, answer.body["id"].as_str()) {
            (202, Some(id)) => Ok(id.to_owned()),
            _ => Err(format!(
                "a run is refused: {} {}",
                answer.status, answer.body
            )),
        }
    }

    fn state(&self, id: &str) -> Value {
        let path = format!("/v1/executions/{id}");
        let request = Request {
            method: "GET",
            path: &path,
            token: self.sleeper,
            ..Request::default()
        };
        self.server.ask(&request).unwrap().body
    }

    /// What became of the first that should sleep and does not.
    fn missing(&self) -> String {
        let live = host::live(self.dir);
        let mut states = self.ids.iter().rev().map(|id| self.state(id));
        let lost = states.find(|record| record["state"] != "running");
        let lost = lost.unwrap_or_default();
        format!(
            "{live} live, {} were begun; the last that does not run: {} {}; log: {}",
            self.ids.len(),
            lost["state"],
            lost["outcome"],
            self.server.log()
        )
    }

    fn look(&self) -> Step {
        let now = host::memory();
        let family = self.server.family();
        let pids = family.iter().map(|(pid, _)| *pid);
        let server = self.server.pid();
        let launcher = host::launcher(self.server);
        let rest = pids.filter(|pid| ![server, launcher].contains(pid));
        let shares: u64 = rest.map(host::share_of).sum();
        let live = host::live(self.dir);
        let count = |count: usize| f64::from(u32::try_from(count).unwrap());
        let (all, more) = (count(live), count(live - self.others));
        let mut step = Step {
            live: self.ids.len(),
            each: (float(self.before.available) - float(now.available)) / more,
            kernel_each: (float(now.kernel) - float(self.before.kernel)) / more,
            charged_each: float(host::charged(self.dir)) / all,
            processes_each: float(shares) / all,
            server: host::share_of(server),
            launcher: host::share_of(launcher),
            descriptors: [server, launcher].map(host::descriptors),
            claims: Vec::new(),
            cold: 0,
        };
        (step.claims, step.cold) = claims(self.caller);
        step
    }

    /// Ends all that sleep; how long that took.
    fn end(self) -> Duration {
        let begin = Instant::now();
        for id in &self.ids {
            let path = format!("/v1/executions/{id}");
            let request = Request {
                method: "DELETE",
                path: &path,
                token: self.sleeper,
                ..Request::default()
            };
            let answer = self.server.ask(&request).unwrap();
            assert!(answer.status < 300, "{} {}", answer.status, answer.body);
        }
        while host::live(self.dir) > OTHERS && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        begin.elapsed()
    }
}

/// Times of `print(1)` in milliseconds, sorted; and how many found nothing made ahead.
fn claims(caller: Caller<'_>) -> (Vec<f64>, usize) {
    let count = if is_quick() { CLAIMS_QUICK } else { CLAIMS };
    let mut cold = 0;
    let mut times: Vec<f64> = (0..count)
        .map(|_| {
            std::thread::sleep(REST);
            let (took, record) = caller.python(PRINT);
            cold += usize::from(record["start"] != "warm");
            took.as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times, cold)
}

fn float(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) * 1024.0
}

fn report(seen: &[Step], why: Option<&str>, (ended, loops): (Duration, usize)) {
    table::paragraph(
        "Live idle Python: MiB for each (of the machine; of that the kernel's own; charged \
         to its group; shares of its processes), MiB \
         of server and launcher, their descriptors, milliseconds of a claim",
    );
    let mib = |bytes: f64| format!("{:.2}", bytes / 1024.0 / 1024.0);
    let row = |step: &Step| -> Vec<String> {
        let [p50, p95, _] = percentiles(&step.claims).map(|figure| format!("{figure:.2}"));
        let memory = [
            step.each,
            step.kernel_each,
            step.charged_each,
            step.processes_each,
        ];
        let own = [step.server, step.launcher].map(|bytes| mib(float(bytes)));
        let mut row = vec![step.live.to_string()];
        row.extend(memory.map(mib));
        row.extend(own);
        row.extend(step.descriptors.map(|count| count.to_string()));
        row.extend([p50, p95, step.cold.to_string()]);
        row
    };
    let rows: Vec<Vec<String>> = seen.iter().map(row).collect();
    let heads = [
        "live",
        "each",
        "kernel",
        "charged",
        "processes",
        "server",
        "launcher",
        "fds",
        "fds",
        "p50",
        "p95",
        "cold",
    ];
    table::table(&heads, &rows);
    table::paragraph(&format!(
        "All ended within {:.1} s. Loop devices made and kept: {loops}. {}",
        ended.as_secs_f64(),
        why.map_or_else(String::new, |why| format!("Stopped: {why}"))
    ));
    let mut bars = Bars::new("density");
    if let (Some(first), Some(last)) = (seen.first(), seen.last()) {
        let live = f64::from(u32::try_from(last.live).unwrap());
        let ratio = at(&last.claims, 50) / at(&first.claims, 50);
        bars.at_least("live at once", live, LIVE_MIN);
        bars.at_most(
            "MiB for each",
            last.each / 1_048_576.0,
            EACH_MAX / 1_048_576.0,
        );
        let what = format!("claim with {} live / with {}, p50", last.live, first.live);
        bars.at_most(&what, ratio, CLAIM_MAX);
    }
    let steps: Vec<Value> = seen
        .iter()
        .map(|step| {
            json!({
                "live": step.live, "bytes_each": step.each, "kernel_bytes_each": step.kernel_each,
                "charged_bytes_each": step.charged_each,
                "process_bytes_each": step.processes_each, "server_bytes": step.server,
                "launcher_bytes": step.launcher, "descriptors": step.descriptors,
                "claim_ms": percentiles(&step.claims), "cold": step.cold,
            })
        })
        .collect();
    bars.report(&json!({ "steps": steps, "stopped": why, "loop_devices": loops }));
}
