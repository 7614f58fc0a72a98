//! The files of failed runs, kept by the real server: read over HTTP, bounded, gone.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{Answer, Request};
use crate::server::{self, RUNS_ALONE, Server, sandbox_groups};
use crate::world::{World, wait_until};

/// Longest that anything which must happen may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn ask(server: &Server, token: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let request = Request {
        method,
        path,
        token,
        body,
        ..Request::default()
    };
    server.ask(&request).unwrap()
}

/// Runs a program that writes `word` and fails; answers its record.
fn fail(server: &Server, token: &str, word: &str, keep_s: u64) -> Value {
    let code = format!(
        "import os\n\
         open('out.txt', 'w').write('{word}')\n\
         os.symlink('/etc/shadow', 'shadow')\n\
         if os.fork() == 0:\n    \
             while True: pass\n\
         raise SystemExit(3)"
    );
    let body = json!({ "language": "python", "code": code, "keep_on_failure_s": keep_s });
    let answer = ask(server, token, "POST", "/v1/executions", Some(&body));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let outcome = json!({ "kind": "exited", "code": 3 });
    assert_eq!(answer.body["outcome"], outcome, "{}", answer.body);
    answer.body
}

fn files(record: &Value, rest: &str) -> String {
    format!(
        "/v1/executions/{}/files{rest}",
        record["id"].as_str().unwrap()
    )
}

fn read(server: &Server, token: &str, record: &Value) -> Answer {
    let path = files(record, "?path=/workspace/out.txt");
    ask(server, token, "GET", &path, None)
}

/// Waits until so many sandboxes of this server are left.
fn until_left(dir: &Path, count: usize) {
    let names = || {
        let groups = sandbox_groups(dir).into_iter();
        let names = groups.filter_map(|group| Some(group.file_name()?.to_owned()));
        names.collect::<BTreeSet<_>>().len()
    };
    let left = wait_until(PATIENCE, || (names() == count).then_some(()));
    assert!(
        left.is_some(),
        "{:?}, {count} expected",
        sandbox_groups(dir)
    );
}

/// No process of what is left of sandboxes is anything but a reader.
fn only_readers(dir: &Path) {
    for group in sandbox_groups(dir) {
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in text.lines() {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            assert_eq!(name, "farebox-reader\n", "{pid} in {}", group.display());
        }
    }
}

#[test]
fn what_a_failed_run_left_is_read_by_its_tenant_until_it_is_dropped() {
    let Some(world) = World::enter("kept files") else {
        return;
    };
    let dir = server::data_dir();
    let mut server = Server::start(&world, dir.path(), &RUNS_ALONE);
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let record = fail(&server, &acme, "result", 600);
    assert!(record["kept_until"].is_string(), "{record}");
    assert_eq!(
        record["evidence"]["processes"][0]["name"], "python3",
        "{record}"
    );
    assert_eq!(read(&server, &acme, &record).body, json!("result"));
    let list = ask(
        &server,
        &acme,
        "GET",
        &files(&record, "/list?path=/workspace"),
        None,
    )
    .body;
    let names: BTreeSet<&str> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        BTreeSet::from(["main.py", "out.txt", "shadow"]),
        "{list}"
    );
    let shadow = ask(&server, &acme, "GET", &files(&record, "?path=shadow"), None);
    assert!([403, 404].contains(&shadow.status), "{}", shadow.body);
    only_readers(dir.path());

    let foreign = read(&server, &other, &record);
    assert_eq!(
        (foreign.status, &foreign.body["code"]),
        (404, &json!("not_found"))
    );
    let foreign = ask(&server, &other, "DELETE", &files(&record, ""), None);
    assert_eq!(foreign.status, 404, "{}", foreign.body);

    let dropped = ask(&server, &acme, "DELETE", &files(&record, ""), None);
    assert_eq!(dropped.status, 204, "{}", dropped.body);
    let gone = read(&server, &acme, &record);
    assert_eq!(
        (gone.status, &gone.body["code"]),
        (410, &json!("sandbox_gone"))
    );
    until_left(dir.path(), 0);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn kept_files_go_with_time_with_number_and_with_the_server() {
    let Some(world) = World::enter("bounds of kept files") else {
        return;
    };
    let dir = server::data_dir();
    let mut server = Server::start(&world, dir.path(), &RUNS_ALONE);
    let token = server.tenant("acme");
    let short = fail(&server, &token, "short", 1);
    let gone = wait_until(PATIENCE, || {
        (read(&server, &token, &short).status == 410).then_some(())
    });
    assert!(gone.is_some(), "its time does not end");
    until_left(dir.path(), 0);

    // Four of one tenant, as the default configuration has it.
    let records: Vec<Value> = (0..6)
        .map(|n| fail(&server, &token, &n.to_string(), 600))
        .collect();
    until_left(dir.path(), 4);
    let statuses: Vec<u16> = records
        .iter()
        .map(|record| read(&server, &token, record).status)
        .collect();
    assert_eq!(statuses, [410, 410, 200, 200, 200, 200]);
    assert_eq!(server.stop(), Some(0));
    until_left(dir.path(), 0);
}

#[test]
fn a_killed_server_leaves_nothing_of_kept_files() {
    let Some(world) = World::enter("kept files and SIGKILL") else {
        return;
    };
    let dir = server::data_dir();
    let server = Server::start(&world, dir.path(), &RUNS_ALONE);
    let token = server.tenant("acme");
    let record = fail(&server, &token, "result", 600);
    assert_eq!(read(&server, &token, &record).status, 200);
    let family = server.kill();
    assert!(
        family.len() >= 4,
        "server, launcher, shim and reader: {family:?}"
    );
    let gone = wait_until(PATIENCE, || {
        let lives = family.iter().any(|one| server::lives(*one));
        (!lives && sandbox_groups(dir.path()).is_empty()).then_some(())
    });
    assert!(
        gone.is_some(),
        "{family:?} {:?}",
        sandbox_groups(dir.path())
    );
    let finals = fs::read_dir(dir.path().join("run/final")).unwrap();
    assert_eq!(finals.count(), 0, "what was settled is written down again");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");

    let mut server = Server::start(&world, dir.path(), &RUNS_ALONE);
    let gone = read(&server, &token, &record);
    assert_eq!(
        (gone.status, &gone.body["code"]),
        (410, &json!("sandbox_gone"))
    );
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn kept_files_give_way_to_runs_when_slots_are_short() {
    let Some(world) = World::enter("kept files and full slots") else {
        return;
    };
    let dir = server::data_dir();
    let settings = [("FAREBOX_MACHINE__SLOTS", "2")];
    let mut server = Server::start(&world, dir.path(), &settings);
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let records: Vec<Value> = (0..2).map(|_| fail(&server, &acme, "x", 600)).collect();
    let body = json!({ "language": "python", "code": "print(42)" });
    let run = ask(&server, &other, "POST", "/v1/executions", Some(&body));
    assert_eq!(
        (run.status, &run.body["stdout"]),
        (200, &json!("42\n")),
        "{}",
        run.body
    );
    let statuses = records
        .iter()
        .map(|record| read(&server, &acme, record).status);
    assert_eq!(statuses.collect::<Vec<_>>(), [410, 200]);
    assert_eq!(server.stop(), Some(0));
}
