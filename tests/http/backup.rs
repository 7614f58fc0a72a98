//! Backups beside a running server: taken under load, verified, put back, and served from.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use runtime::fake::FakeOptions;
use serde_json::json;

use crate::client::Client;
use crate::offline::{farebox, told};
use crate::server::{TestServer, until};

/// Runs once; the execution and its entry.
fn run(client: &Client) -> (String, u64) {
    let body = json!({"code": "cpu_us 1000"});
    let record = client.post("/v1/executions", &body).expect(200);
    let id = record["id"].as_str().unwrap().to_owned();
    (id, record["receipt"]["entry"].as_u64().unwrap())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Backs the server up while `callers` are busy; what they were answered before it began, and what
/// the command says.
fn backed_up(server: &TestServer, acme: &Client, to: &Path) -> (BTreeMap<String, u64>, u64) {
    let (stop, answered) = (AtomicBool::new(false), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    let (id, entry) = run(acme);
                    answered.lock().unwrap().insert(id, entry);
                }
            });
        }
        until(|| (server.settlements("acme") >= 40).then_some(()));
        server
            .admin()
            .request("POST", "/v1/ledger/checkpoint")
            .send()
            .text();
        let before = answered.lock().unwrap().clone();
        let (dir, to) = (server.data_dir().to_str().unwrap(), to.to_str().unwrap());
        let args = ["--json", "ledger", "backup", "--data-dir", dir, "--to", to];
        let output = farebox(&args);
        // Whatever comes now, the callers end.
        stop.store(true, Ordering::Release);
        let said = told(&output);
        assert!(said["checkpoints"].as_u64().unwrap() >= 1, "{said}");
        assert_eq!(said["segments"], 1, "{said}");
        (before, said["entries"].as_u64().unwrap())
    })
}

#[test]
fn a_backup_under_load_is_restored_and_has_all_that_was_answered_before_it() {
    let mut server = TestServer::start();
    let acme = server.tenant("acme");
    acme.put("/v1/webhooks/hook", &json!({"url": "http://example.com/"}))
        .expect(201);
    let top = tempfile::tempdir().unwrap();
    let backup = top.path().join("backup");
    let (before, entries) = backed_up(&server, &acme, &backup);
    server.stop();
    assert_eq!(names(&backup), ["keys", "ledger", "outbox"]);
    let secrets = |dir: &Path| names(&dir.join("outbox/secrets"));
    assert_eq!(secrets(&backup), secrets(server.data_dir()));
    let place = backup.to_str().unwrap();
    let verified = told(&farebox(&["--json", "ledger", "verify", place]));
    assert_eq!(verified["entries"], entries);
    assert_eq!(verified["torn_bytes"], 0);

    let data = tempfile::tempdir().unwrap();
    let dir = data.path().to_str().unwrap();
    let args = ["--json", "ledger", "restore", place, "--data-dir", dir];
    let restored = told(&farebox(&args));
    assert_eq!(restored["entries"], entries);
    assert_eq!(restored["root"], verified["root"]);
    // What is there is never written over, be it by a second restore or by a backup.
    assert_eq!(farebox(&args).status.code(), Some(3));
    let again = ["ledger", "backup", "--data-dir", dir, "--to", place];
    let again = farebox(&again);
    assert_eq!(again.status.code(), Some(3));
    let words = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(words.contains("is not empty"), "{words}");

    let mut server = TestServer::on(data, &[], FakeOptions::default());
    let acme = server.reach(&acme);
    for (id, entry) in &before {
        let record = acme.get(&format!("/v1/executions/{id}")).expect(200);
        assert_eq!(record["receipt"]["entry"], *entry, "{record}");
    }
    assert_eq!(secrets(server.data_dir()), secrets(&backup));
    let (_, next) = run(&acme);
    assert!(next > entries, "{next} after {entries}");
    let admin = server.admin();
    let signed = admin.request("POST", "/v1/ledger/checkpoint").send();
    assert_eq!(signed.status, 200, "{}", signed.text());
    server.assert_nothing_held("acme");
    server.stop();
}

#[test]
fn a_backup_that_does_not_verify_is_not_restored() {
    let mut server = TestServer::start();
    let acme = server.tenant("acme");
    run(&acme);
    server.stop();
    let top = tempfile::tempdir().unwrap();
    let (backup, dir) = (top.path().join("backup"), top.path().join("data"));
    let source = server.data_dir().to_str().unwrap();
    let place = backup.to_str().unwrap();
    told(&farebox(&[
        "--json",
        "ledger",
        "backup",
        "--data-dir",
        source,
        "--to",
        place,
    ]));
    // A checkpoint over what the journal has no more: the last frame is zeros again.
    let segment = backup.join("ledger/journal/00000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let frame = bytes.windows(4).rposition(|four| four == b"FBXF").unwrap();
    bytes[frame..].fill(0);
    std::fs::write(&segment, bytes).unwrap();
    let data = dir.to_str().unwrap();
    let output = farebox(&["ledger", "restore", place, "--data-dir", data]);
    assert_eq!(output.status.code(), Some(5));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("was signed"), "{words}");
    assert_eq!(names(&dir), [""; 0]);
}
