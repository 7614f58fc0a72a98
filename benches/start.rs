//! One execution over HTTP, with a sandbox that was made ahead and without, against `crun run` of
//! the same program on the same root.
//!
//! The sides take turns, so that they meet the same machine; with 100 ms of rest before each, as a
//! caller pays who comes by now and then, and back to back. Needs root, crun and an image store
//! (`FAREBOX_TEST_IMAGES`). Prints a table and one line of JSON.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement, with clocks and an environment of its own"
)]

#[path = "../tests/support/http.rs"]
mod http;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/server.rs"]
mod server;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/world.rs"]
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use http::Request;
use server::{NONE_AHEAD, Server, data_dir};
use world::World;

const ROUNDS: usize = 30;
const WARM_UP: usize = 3;
const REST: Duration = Duration::from_millis(100);
/// What our median may be of crun's: with rest before each, and back to back.
const BARS: [(&str, [f64; 2]); 2] = [("warm", [1.0 / 8.0, 1.0 / 10.0]), ("cold", [1.0, 1.0])];

fn main() {
    let Some(world) = World::enter("start") else {
        return;
    };
    let root = image_root(&world.images, "python");
    let bundle = tempfile::tempdir().unwrap();
    fs::write(bundle.path().join("config.json"), spec(&root).to_string()).unwrap();
    let quiet = ("FAREBOX_LOG__FILTER", "warn");
    let dirs = [data_dir(), data_dir()];
    let mut warm = Server::start(&world, dirs[0].path(), &[quiet]);
    let mut cold = Server::start(&world, dirs[1].path(), &[quiet, NONE_AHEAD]);
    let tokens = [&warm, &cold].map(|server| server.tenant("bench"));
    let crun = Crun::start(bundle.path().to_owned());
    let sides: [(&str, &dyn Fn() -> Duration); 3] = [
        ("warm", &|| one_request(&warm, &tokens[0], "warm")),
        ("cold", &|| one_request(&cold, &tokens[1], "cold")),
        ("crun run", &|| crun.run()),
    ];
    // The first finds nothing ready.
    one_request(&warm, &tokens[0], "cold");
    let times = [REST, Duration::ZERO].map(|rest| rounds(rest, &sides));
    drop(crun);
    assert_eq!((warm.stop(), cold.stop()), (Some(0), Some(0)));
    report(&times);
}

/// Times of one side in milliseconds, sorted.
type Times = Vec<f64>;

/// Every side once a round, so that each side's pool has been filled again meanwhile.
fn rounds<const N: usize>(
    rest: Duration,
    sides: &[(&str, &dyn Fn() -> Duration); N],
) -> [Times; N] {
    let mut times = [const { Vec::new() }; N];
    for round in 0..WARM_UP + ROUNDS {
        for ((_, run), times) in sides.iter().zip(&mut times) {
            std::thread::sleep(rest);
            let took = run();
            if round >= WARM_UP {
                times.push(took.as_secs_f64() * 1000.0);
            }
        }
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    times
}

/// From before the connection is made to the whole answer.
fn one_request(server: &Server, token: &str, start: &str) -> Duration {
    let body = json!({ "language": "python", "code": "print(1)" });
    let (method, path) = ("POST", "/v1/executions");
    let begin = Instant::now();
    let request = Request {
        method,
        path,
        token,
        body: Some(&body),
        ..Request::default()
    };
    let answer = server.ask(&request).unwrap();
    let took = begin.elapsed();
    assert_eq!(
        answer.body["stdout"], "1\n",
        "{} {}",
        answer.head, answer.body
    );
    assert_eq!(answer.body["start"], start, "{}", answer.body);
    took
}

/// A thread in a mount namespace of its own that runs crun when asked: Debian's crun fails where a
/// cgroup v2 tree is mounted beside v1, so it must not see that one.
struct Crun {
    ask: Sender<()>,
    took: Receiver<Duration>,
}

impl Crun {
    fn start(bundle: PathBuf) -> Self {
        let (ask, asked) = channel();
        let (told, took) = channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            if Path::new("/sys/fs/cgroup/unified").exists() {
                umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH).unwrap();
            }
            let mut number = 0;
            while asked.recv() == Ok(()) {
                number += 1;
                told.send(crun_run(&bundle, number)).unwrap();
            }
        });
        Self { ask, took }
    }

    fn run(&self) -> Duration {
        self.ask.send(()).unwrap();
        self.took.recv().unwrap()
    }
}

fn crun_run(bundle: &Path, number: u32) -> Duration {
    let state = bundle.join("state");
    let name = format!("farebox-bench-{}-{number}", std::process::id());
    let begin = Instant::now();
    let mut command = Command::new("crun");
    command
        .arg("--root")
        .arg(&state)
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(&name);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    let took = begin.elapsed();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1\n",
        "crun: {words}"
    );
    took
}

/// What crun is asked for: the same root and program, limits, namespaces; no user namespace, no
/// seccomp, no disk of its own, which is less than a sandbox of Farebox has.
fn spec(root: &Path) -> Value {
    let namespaces: Vec<Value> = ["pid", "mount", "network", "ipc", "uts", "cgroup"]
        .iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 1000, "gid": 1000 }, "cwd": "/tmp",
            "args": ["python3", "-c", "print(1)"],
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/home/user", "LANG=C.UTF-8"],
            "noNewPrivileges": true,
        },
        "root": { "path": root, "readonly": true },
        "hostname": "bench",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"] },
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": {
                "memory": { "limit": 268_435_456 },
                "cpu": { "quota": 100_000, "period": 100_000 },
                "pids": { "limit": 64 },
            },
        },
    })
}

/// The tree of an image in the store.
fn image_root(store: &Path, name: &str) -> PathBuf {
    let names = fs::read_to_string(store.join("names.json")).unwrap();
    let names: Value = serde_json::from_str(&names).unwrap();
    let digest = names[format!("{name}:latest")].as_str();
    let hex = digest.unwrap_or_else(|| panic!("no image {name} in {}", store.display()));
    store
        .join("sha256")
        .join(hex.trim_start_matches("sha256:"))
        .join("rootfs")
}

fn at(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn report(times: &[[Times; 3]; 2]) {
    println!("print(1), {ROUNDS} runs each, milliseconds");
    let names = ["farebox, warm", "farebox, cold", "crun run"];
    println!("{:<14} {:^26}   {:^26}", "", "100 ms rest", "back to back");
    let heads = ["p50", "p95", "p99"]
        .map(|head| format!("{head:>8}"))
        .join(" ");
    println!("{:<14} {heads}   {heads}", "");
    for (side, name) in names.iter().enumerate() {
        let each = times.each_ref().map(|times| {
            let figures = [50, 95, 99].map(|percent| format!("{:>8.2}", at(&times[side], percent)));
            figures.join(" ")
        });
        println!("{name:<14} {}", each.join("   "));
    }
    let mut lines = Vec::new();
    for (side, (name, bars)) in BARS.iter().enumerate() {
        for ((gap, bar), times) in ["100 ms rest", "back to back"].iter().zip(bars).zip(times) {
            let ratio = at(&times[side], 50) / at(&times[2], 50);
            let verdict = if ratio <= *bar { "met" } else { "missed" };
            println!("{name} / crun run, {gap}: {ratio:.3} (bar {bar:.3}: {verdict})");
            lines.push(json!({ "side": name, "gap": gap, "ratio": ratio, "bar": bar }));
        }
    }
    let p50 = times
        .each_ref()
        .map(|times| times.each_ref().map(|side| at(side, 50)));
    println!(
        "{}",
        json!({ "bench": "start", "runs": ROUNDS, "sides": names, "p50_ms": p50, "ratios": lines })
    );
}
