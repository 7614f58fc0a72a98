//! One cold execution over HTTP against `crun run` of the same program on the same root.
//!
//! Both sides take turns, so that they meet the same machine; with 100 ms of rest before each, as a
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
use server::{Server, data_dir};
use world::World;

const ROUNDS: usize = 30;
const WARM_UP: usize = 3;
const REST: Duration = Duration::from_millis(100);
const BAR: f64 = 1.5;

fn main() {
    let Some(world) = World::enter("cold") else {
        return;
    };
    let root = image_root(&world.images, "python");
    let bundle = tempfile::tempdir().unwrap();
    fs::write(bundle.path().join("config.json"), spec(&root).to_string()).unwrap();
    let dir = data_dir();
    let mut server = Server::start(&world, dir.path(), &[("FAREBOX_LOG__FILTER", "warn")]);
    let token = server.tenant("bench");
    let crun = Crun::start(bundle.path().to_owned());
    let farebox = || one_request(&server, &token);
    let rested = rounds(REST, &farebox, &crun);
    let close = rounds(Duration::ZERO, &farebox, &crun);
    drop(crun);
    assert_eq!(server.stop(), Some(0));
    report(&rested, &close);
}

/// Times of both sides in milliseconds, sorted.
struct Times {
    farebox: Vec<f64>,
    crun: Vec<f64>,
}

impl Times {
    fn ratio(&self) -> f64 {
        at(&self.farebox, 50) / at(&self.crun, 50)
    }
}

fn rounds(rest: Duration, farebox: &dyn Fn() -> Duration, crun: &Crun) -> Times {
    let mut times = Times {
        farebox: Vec::new(),
        crun: Vec::new(),
    };
    for round in 0..WARM_UP + ROUNDS {
        std::thread::sleep(rest);
        let ours = farebox();
        std::thread::sleep(rest);
        let theirs = crun.run();
        if round >= WARM_UP {
            times.farebox.push(ours.as_secs_f64() * 1000.0);
            times.crun.push(theirs.as_secs_f64() * 1000.0);
        }
    }
    times.farebox.sort_by(f64::total_cmp);
    times.crun.sort_by(f64::total_cmp);
    times
}

/// From before the connection is made to the whole answer.
fn one_request(server: &Server, token: &str) -> Duration {
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

fn report(rested: &Times, close: &Times) {
    println!("cold print(1), {ROUNDS} runs each, milliseconds");
    println!(
        "{:<22} {:>8} {:>8}   {:>8} {:>8}",
        "", "p50", "p95", "p50", "p95"
    );
    println!("{:<22} {:^17}   {:^17}", "", "100 ms rest", "back to back");
    let row = |name: &str, rested: &[f64], close: &[f64]| {
        let (a, b, c, d) = (at(rested, 50), at(rested, 95), at(close, 50), at(close, 95));
        println!("{name:<22} {a:>8.2} {b:>8.2}   {c:>8.2} {d:>8.2}");
    };
    row("farebox over HTTP", &rested.farebox, &close.farebox);
    row("crun run", &rested.crun, &close.crun);
    println!(
        "{:<22} {:>8.2} {:>8}   {:>8.2}",
        "ratio",
        rested.ratio(),
        "",
        close.ratio()
    );
    let verdict = if rested.ratio() <= BAR {
        "met"
    } else {
        "missed"
    };
    println!("bar: ratio with rest <= {BAR}: {verdict}");
    let figures = |times: &Times| {
        json!({
            "farebox_ms": { "p50": at(&times.farebox, 50), "p95": at(&times.farebox, 95) },
            "crun_ms": { "p50": at(&times.crun, 50), "p95": at(&times.crun, 95) },
            "ratio": times.ratio(),
        })
    };
    println!(
        "{}",
        json!({ "bench": "cold", "runs": ROUNDS, "rest_100ms": figures(rested),
                "back_to_back": figures(close), "bar": BAR })
    );
}
