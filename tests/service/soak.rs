//! Many executions in a row, one in ten hostile: what there was before is what there is after.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::ahead;
use crate::bombs::{self, BOMBS};
use crate::http::Request;
use crate::server::{self, NONE_AHEAD, Server, sandbox_groups};
use crate::templates::is_template;
use crate::world::{World, say, wait_until};

/// Longest that the last sandbox may take to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs before the first look: caches, pools and arenas have their size then.
const WARM_UP: usize = 600;
const AT_ONCE: usize = 8;
/// A tenth is too little of a server as small as this: its allocator and caches fill up over the
/// first thousands of runs by about as much, and stay there.
const GROWTH_MIN: u64 = 4 << 20;

/// What must not grow with the number of executions.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    processes: usize,
    groups: usize,
    /// Mounts of the server and of the launcher.
    mounts: [usize; 2],
    /// Descriptors of both, by what they lead to.
    files: [BTreeMap<String, usize>; 2],
    loops: usize,
}

#[test]
fn thousands_of_executions_leave_nothing_and_cost_no_memory() {
    let Some(world) = World::enter("thousands of executions") else {
        return;
    };
    let runs = if world.full { 10_000 } else { 1_000 };
    let dir = server::data_dir();
    // What is kept of runs in memory (the cache of the view, the indexes of the current segments of
    // journal and records) fills up to its bound, by default after far more runs than there are
    // here: with bounds that the warm-up reaches, growth is growth.
    let settings = [
        ("FAREBOX_LOG__FILTER", "warn"),
        ("FAREBOX_LEDGER__VIEW_CACHE_BYTES", "1048576"),
        ("FAREBOX_LEDGER__SEGMENT_BYTES", "131072"),
        ("FAREBOX_RECORDS__SEGMENT_BYTES", "131072"),
        ("FAREBOX_RECORDS__INDEX_MAX", "100"),
        NONE_AHEAD,
        // It is taken by each run, and there again when nothing is under way.
        ("FAREBOX_DISK__AHEAD", "1"),
        // With a template goes what the launcher keeps of its slots.
        ("FAREBOX_POOL__TEMPLATE_FORKS", "1000000"),
    ];
    let mut server = Server::start(&world, dir.path(), &settings);
    let token = server.tenant("acme");
    warm_up(&server, &token);
    let (before, memory_before) = (settled(&server, dir.path()), server.memory_bytes());
    let mut ends = BTreeMap::new();
    (0..runs).for_each(|number| run(&server, &token, number, &mut ends));
    let (after, memory_after) = (settled(&server, dir.path()), server.memory_bytes());
    let kib = |bytes: u64| bytes >> 10;
    let (from, to) = (kib(memory_before), kib(memory_after));
    say(&format!(
        "{runs} runs, ends {ends:?}; {after:?}; memory of the server {from} -> {to} KiB"
    ));
    assert_eq!(before, after);
    assert!(
        memory_after <= memory_before + GROWTH_MIN.max(memory_before / 10),
        "the server's memory grew from {from} to {to} KiB"
    );
    world.assert_host_dev();
    assert_eq!(server.stop(), Some(0));
}

/// Each after some forks, while others still wait for a fork of it.
#[test]
fn templates_are_replaced_while_they_are_asked_for_forks() {
    let Some(world) = World::enter("templates are replaced") else {
        return;
    };
    let dir = server::data_dir();
    let settings = [
        ("FAREBOX_LOG__FILTER", "warn"),
        ("FAREBOX_POOL__TEMPLATE_FORKS", "10"),
    ];
    let mut server = Server::start(&world, dir.path(), &settings);
    let token = server.tenant("acme");
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            let (server, token) = (&server, &token);
            scope.spawn(move || {
                (0..12).for_each(|number| run(server, token, number % 9, &mut BTreeMap::new()));
            });
        }
    });
    let tops = server::sandboxes_of(dir.path());
    // Before the end: sandboxes that are being made ahead then have no template any more.
    let log = server.log();
    assert!(!log.contains("template"), "{log}");
    assert_eq!(server.stop(), Some(0));
    let left: Vec<_> = tops.iter().filter(|top| top.exists()).collect();
    assert!(left.is_empty(), "{left:?}\n{log}");
}

/// Several at once: the launcher keeps what it makes for each of its slots' first sandboxes.
fn warm_up(server: &Server, token: &str) {
    std::thread::scope(|scope| {
        for first in 0..AT_ONCE {
            scope.spawn(move || {
                let numbers = (first..WARM_UP).step_by(AT_ONCE);
                numbers.for_each(|number| run(server, token, number, &mut BTreeMap::new()));
            });
        }
    });
}

fn run(server: &Server, token: &str, number: usize, ends: &mut BTreeMap<String, usize>) {
    let bomb = (number % 10 == 9).then(|| &BOMBS[number / 10 % BOMBS.len()]);
    let tame = json!({ "language": "python", "code": format!("print({number})") });
    let body = bomb.map_or(tame, |bomb| bombs::body(bomb, 300));
    let (method, path, body) = ("POST", "/v1/executions", Some(&body));
    let request = Request {
        method,
        path,
        token,
        body,
        ..Request::default()
    };
    let record = server.ask(&request).unwrap().body;
    match bomb {
        // At 300 ms any of them may run out of time first.
        Some(bomb) => assert!(
            bombs::ended_rightly(bomb, &record) || record["outcome"]["kind"] == "timed_out",
            "{}: {record}",
            bomb.0
        ),
        None => assert_eq!(record["stdout"], format!("{number}\n"), "{record}"),
    }
    let kind = record["outcome"]["kind"].as_str().unwrap_or_default();
    *ends.entry(kind.to_owned()).or_default() += 1;
}

/// What there is once the last sandbox is gone and the next disk is made.
fn settled(server: &Server, dir: &Path) -> Traces {
    let quiet = wait_until(PATIENCE, || {
        // Server, launcher, disk maker: every shim is a child of the launcher.
        let family = server.family();
        let others = family.iter().filter(|(pid, _)| !is_template(pid));
        let is_quiet = others.count() == 3 && sandbox_groups(dir).is_empty();
        let has_disk = |launcher| !ahead::disks(launcher).is_empty();
        (is_quiet && launcher_of(server).is_some_and(has_disk)).then_some(())
    });
    assert!(
        quiet.is_some(),
        "something is under way: {:?}",
        server.family()
    );
    let pids = [server.pid(), launcher_of(server).unwrap()];
    let lines = |path: String| fs::read_to_string(path).unwrap().lines().count();
    Traces {
        processes: server.family().len(),
        groups: sandbox_groups(dir).len(),
        mounts: pids.map(|pid| lines(format!("/proc/{pid}/mountinfo"))),
        files: pids.map(files),
        loops: bound_loops(),
    }
}

/// The launcher is the server's only child.
fn launcher_of(server: &Server) -> Option<u32> {
    let pid = server.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// How many descriptors of a process lead to what; numbers are left out of names.
fn files(pid: u32) -> BTreeMap<String, usize> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let name: String = target
            .to_string_lossy()
            .chars()
            .filter(|character| !character.is_ascii_digit())
            .collect();
        // One file for each level of the tree, opened when it is first signed; and records are in
        // as many as the writer has come to.
        let grows = name.contains("/ledger/tree/") || name.contains("/records/");
        // Networks stand ready or not, no more than there is a bound for.
        if !grows && !name.starts_with("net:") {
            *files.entry(name).or_default() += 1;
        }
    }
    files
}

/// Loop devices of this machine that have a file.
fn bound_loops() -> usize {
    let devices = fs::read_dir("/sys/block").unwrap().flatten();
    devices
        .filter(|device| device.path().join("loop/backing_file").exists())
        .count()
}
