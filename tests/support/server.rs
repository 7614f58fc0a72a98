//! The real binary, serving a data directory: started, asked, killed or stopped, and looked after.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::http::{self, Answer, Request};
use crate::world::{World, wait_until};

/// Longest that the server may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of the server's log that are kept for the message of a failed test.
const LOG_MAX: usize = 64 << 10;

/// A process by its id and the instant it was started: ids come again, the pair does not.
pub(crate) type Process = (u32, u64);

/// A running server. Dropping it ends it, its launcher and its sandboxes.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The operator's token.
    pub(crate) admin: String,
}

/// Without sandboxes made ahead: where the next start is looked at.
pub(crate) const NONE_AHEAD: (&str, &str) = ("FAREBOX_POOL__MAX", "0");

/// Without a sandbox in which a template is tried, either: where groups are counted or looked into,
/// each is one of a run.
pub(crate) const RUNS_ALONE: [(&str, &str); 2] = [NONE_AHEAD, ("FAREBOX_POOL__TEMPLATES", "false")];

impl Server {
    /// Starts `farebox serve` on `dir` with `settings` in its environment; waits until it is ready.
    pub(crate) fn start(world: &World, dir: &Path, settings: &[(&str, &str)]) -> Self {
        let address = dir.join("address");
        drop(fs::remove_file(&address));
        let mut command = command(world, settings);
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(dir)
            .args(["--listen", "127.0.0.1:0"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let reader = follow(&mut child, &log);
        let bound = wait_until(PATIENCE, || {
            if child.try_wait().unwrap().is_some() {
                return Some(None);
            }
            let text = fs::read_to_string(&address).ok()?;
            text.trim().parse::<SocketAddr>().ok().map(Some)
        });
        let Some(Some(bound)) = bound else {
            drop(child.kill());
            drop(child.wait());
            let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
            panic!("the server did not come up:\n{log}");
        };
        let admin = fs::read_to_string(dir.join("admin.token"))
            .unwrap()
            .trim()
            .to_owned();
        let server = Self {
            child,
            log,
            reader: Some(reader),
            address: bound,
            admin,
        };
        let ready = wait_until(PATIENCE, || {
            let answer = server.ask(&Request {
                method: "GET",
                path: "/readyz",
                ..Request::default()
            });
            answer.ok().filter(|answer| answer.status == 200)
        });
        assert!(
            ready.is_some(),
            "the server is not ready:\n{}",
            server.log()
        );
        server
    }

    /// One request.
    pub(crate) fn ask(&self, request: &Request<'_>) -> std::io::Result<Answer> {
        http::send(self.address, request)
    }

    /// One request of the operator's, which must succeed.
    pub(crate) fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let token = self.admin.as_str();
        let request = Request {
            method,
            path,
            token,
            body,
            ..Request::default()
        };
        let answer = self.ask(&request).unwrap();
        assert!(
            answer.status < 300,
            "{method} {path}: {} {}",
            answer.status,
            answer.body
        );
        answer.body
    }

    /// Makes a tenant and a developer's token for it.
    pub(crate) fn tenant(&self, name: &str) -> String {
        self.admin(
            "POST",
            "/v1/tenants",
            Some(&serde_json::json!({ "name": name })),
        );
        let path = format!("/v1/tenants/{name}/tokens");
        let wanted = serde_json::json!({
            "name": "test", "role": "developer", "expires_in_s": 3600,
        });
        let made = self.admin("POST", &path, Some(&wanted));
        made["token"].as_str().unwrap().to_owned()
    }

    /// The process of the server itself.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Anonymous memory of the server's process.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap() << 10
    }

    /// The server and all that descends from it.
    pub(crate) fn family(&self) -> BTreeSet<Process> {
        descendants(self.child.id())
    }

    /// SIGKILL of the server alone; launcher and shims find out by themselves. Answers who lived.
    pub(crate) fn kill(mut self) -> BTreeSet<Process> {
        let family = self.family();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        family
    }

    /// SIGTERM, and the end of the process; its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        kill(
            Pid::from_raw(self.child.id().try_into().unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        self.ended()
    }

    /// The end of the process, which must come by itself; its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let ended = wait_until(PATIENCE, || self.child.try_wait().unwrap());
        assert!(ended.is_some(), "the server did not end:\n{}", self.log());
        ended.unwrap().code()
    }

    /// The last of what it wrote.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let family = self.family();
        drop(self.child.kill());
        drop(self.child.wait());
        let gone = wait_until(PATIENCE, || {
            family.iter().all(|one| !lives(*one)).then_some(())
        });
        if let Some(reader) = self.reader.take().filter(|_| gone.is_some()) {
            drop(reader.join());
        }
        if gone.is_none() && !std::thread::panicking() {
            panic!("the server's processes outlive it:\n{}", self.log());
        }
    }
}

/// The binary with nothing in its environment but `settings` and what it needs to run.
pub(crate) fn command(world: &World, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farebox"));
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("FAREBOX_IMAGES__DIR", &world.images);
    command.envs(settings.iter().copied());
    command
}

/// Runs a command of the binary to its end.
pub(crate) fn farebox(world: &World, args: &[&str]) -> Output {
    let mut command = command(world, &[]);
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

/// A data directory that a server which is no longer root can reach.
pub(crate) fn data_dir() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("farebox-test-")
        .tempdir()
        .unwrap()
}

/// Lets `pause` pass: an instant of a kill, never a synchronisation.
pub(crate) fn pass(pause: Duration) {
    std::thread::sleep(pause);
}

/// Whether `process` is still there and is no zombie.
pub(crate) fn lives((pid, started): Process) -> bool {
    stat(pid).is_some_and(|stat| stat.started == started && stat.state != 'Z')
}

/// The groups of the live sandboxes of the server on `dir`, in every hierarchy.
pub(crate) fn sandbox_groups(dir: &Path) -> Vec<PathBuf> {
    let mut groups = Vec::new();
    for sandboxes in sandboxes_of(dir) {
        let Ok(found) = fs::read_dir(sandboxes) else {
            continue;
        };
        groups.extend(
            found
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_dir()),
        );
    }
    groups
}

/// The groups that the groups of its sandboxes lie in: one in every hierarchy that is used.
pub(crate) fn sandboxes_of(dir: &Path) -> Vec<PathBuf> {
    let instance = fs::read_to_string(dir.join("run/instance")).unwrap_or_default();
    let below = Path::new("farebox").join(instance.trim()).join("sandboxes");
    let hierarchies = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    let tops = hierarchies.map(|entry| entry.path());
    tops.chain([PathBuf::from("/sys/fs/cgroup")])
        .map(|top| top.join(&below))
        .filter(|path| path.is_dir())
        .collect()
}

struct Stat {
    parent: u32,
    state: char,
    started: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, so count from behind it.
    let rest: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: rest.first()?.chars().next()?,
        parent: rest.get(1)?.parse().ok()?,
        started: rest.get(19)?.parse().ok()?,
    })
}

fn descendants(top: u32) -> BTreeSet<Process> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if let Some(stat) = stat(pid) {
            all.push((pid, stat));
        }
    }
    let mut family = BTreeSet::new();
    let mut parents = vec![top];
    while let Some(parent) = parents.pop() {
        for (pid, stat) in &all {
            if (*pid == top || stat.parent == parent) && family.insert((*pid, stat.started)) {
                parents.push(*pid);
            }
        }
    }
    family
}

fn follow(child: &mut Child, log: &Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        let other = Arc::clone(&log);
        let second = std::thread::spawn(move || keep(&mut out, &other));
        keep(&mut err, &log);
        drop(second.join());
    })
}

fn keep(from: &mut dyn std::io::Read, log: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 {
            return;
        }
        let mut log = log.lock().unwrap();
        log.extend_from_slice(&buffer[..read]);
        let over = log.len().saturating_sub(LOG_MAX);
        log.drain(..over);
    }
}
