//! A full machine, a draining server, and what an earlier server left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use runtime::fake::FakeOptions;
use runtime::{EndedBy, Final, Measured, SandboxId};
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::server::{TestServer, finished, until};

fn begin(client: &Client, code: &str) -> String {
    let record = client.post_async(&json!({"code": code})).expect(202);
    record["id"].as_str().unwrap().to_owned()
}

fn keyed(client: &Client, body: &Value) -> Answer {
    let request = client.request("POST", "/v1/executions");
    request.header("Idempotency-Key", "\"k\"").json(body).send()
}

fn small(slots: &str, queue_ms: &str) -> TestServer {
    let flags = [("machine.slots", slots), ("machine.queue_ms", queue_ms)];
    TestServer::with(&flags, FakeOptions::default())
}

#[test]
fn a_full_machine_answers_overloaded_and_leaves_nothing_held() {
    let server = small("1", "1");
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let id = begin(&acme, "wait");
    server.until_running(&acme, &id);
    let refused = other.post("/v1/executions", &json!({"code": "print 1"}));
    let problem = refused.problem(503, "overloaded");
    assert_eq!(problem["retry"], "safe");
    assert_eq!(refused.header("retry-after"), Some("1"));
    server.assert_untouched("other");
    acme.delete(&format!("/v1/executions/{id}"));
    finished(&acme, &id);
    other
        .post("/v1/executions", &json!({"code": "print 1"}))
        .expect(200);
}

#[test]
fn starts_are_counted_by_how_they_were_made() {
    let server = small("1", "1");
    let acme = server.tenant("acme");
    acme.post("/v1/executions", &json!({"code": "print 1"}))
        .expect(200);
    let metrics = server.admin().get("/metrics").text();
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix("farebox_starts_total{start=\"cold\"} "));
    // Other tests of this process count too.
    let count = count.and_then(|count| count.parse::<u64>().ok());
    assert!(count.is_some_and(|count| count > 0), "{metrics}");
    assert!(metrics.contains("farebox_sandboxes_ready 0\n"), "{metrics}");
}

/// The key was taken with the hold; a refusal after it must not stand for a day.
#[test]
fn a_key_whose_run_found_the_machine_full_can_be_tried_again() {
    let server = small("1", "1");
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let id = begin(&acme, "wait");
    server.until_running(&acme, &id);
    let body = json!({"code": "print 1"});
    for _ in 0..3 {
        keyed(&other, &body).problem(503, "overloaded");
    }
    acme.delete(&format!("/v1/executions/{id}"));
    finished(&acme, &id);
    let run = keyed(&other, &body);
    assert_eq!(run.header("idempotent-replayed"), None);
    let record = run.expect(200);
    let again = keyed(&other, &body);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.expect(200), record);
    keyed(&other, &json!({"code": "print 2"})).problem(422, "idempotency_mismatch");
    assert_eq!(server.settlements("other"), 1);
}

#[test]
fn one_who_waits_for_the_machine_runs_when_it_is_free() {
    let server = small("1", "60000");
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let first = begin(&acme, "wait");
    server.until_running(&acme, &first);
    let second = begin(&other, "print 2");
    let waiting = other.get(&format!("/v1/executions/{second}")).expect(200);
    assert_eq!(waiting["state"], "queued", "{waiting}");
    let list = other.get("/v1/executions?state=queued").expect(200);
    assert_eq!(list["items"][0]["id"], second.as_str(), "{list}");
    acme.delete(&format!("/v1/executions/{first}"));
    assert_eq!(finished(&other, &second)["stdout"], "2\n");
}

#[test]
fn a_waiting_execution_can_be_cancelled_and_costs_nothing() {
    let server = small("1", "60000");
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let first = begin(&acme, "wait");
    server.until_running(&acme, &first);
    let second = begin(&other, "print 2");
    let gone = other.delete(&format!("/v1/executions/{second}"));
    let record = gone.expect(200);
    assert_eq!(record["outcome"], json!({"kind": "cancelled"}), "{record}");
    assert!(record["charge"].is_null(), "{record}");
    server.assert_nothing_held("other");
    assert_eq!(server.settlements("other"), 0);
    acme.delete(&format!("/v1/executions/{first}"));
    finished(&acme, &first);
}

#[test]
fn a_runtime_without_room_answers_overloaded() {
    let fake = FakeOptions {
        capacity: 0,
        ..FakeOptions::default()
    };
    let server = TestServer::with(&[], fake);
    let owner = server.tenant("acme");
    let refused = owner.post("/v1/executions", &json!({"code": "print 1"}));
    refused.problem(503, "overloaded");
    server.assert_nothing_held("acme");
    assert_eq!(server.settlements("acme"), 0);
}

#[test]
fn without_its_launcher_a_server_is_not_ready_and_runs_nothing() {
    let healthy = Arc::new(AtomicBool::new(true));
    let fake = FakeOptions {
        healthy: Arc::clone(&healthy),
        ..FakeOptions::default()
    };
    let server = TestServer::with(&[], fake);
    let owner = server.tenant("acme");
    owner.get("/readyz").expect(200);
    healthy.store(false, Ordering::SeqCst);
    let ready = owner.get("/readyz").expect(503);
    assert_eq!(ready["launcher"], false, "{ready}");
    assert_eq!(owner.get("/healthz").status, 200);
    let refused = owner.post("/v1/executions", &json!({"code": "print 1"}));
    refused.problem(503, "unavailable");
    server.assert_nothing_held("acme");
}

#[test]
fn while_a_server_drains_new_work_is_refused_and_readers_are_served() {
    let flags = [("server.drain_grace_ms", "60000")];
    let mut server = TestServer::with(&flags, FakeOptions::default());
    let owner = server.tenant("acme");
    let id = begin(&owner, "wait");
    server.until_running(&owner, &id);
    let running = server.take();
    let stopping = std::thread::spawn(move || running.stop().unwrap());
    let refused = until(|| {
        let ready = owner.get("/readyz");
        (ready.status == 503).then(|| owner.post("/v1/executions", &json!({"code": "print 1"})))
    });
    refused.problem(503, "draining");
    let record = owner.get(&format!("/v1/executions/{id}")).expect(200);
    assert_eq!(record["state"], "running");
    let mut follower = owner
        .request("GET", &format!("/v1/executions/{id}/events"))
        .open();
    assert_eq!(crate::client::read_head(&mut follower).0, 200);
    drop(follower);
    // Cancelling brings the end nearer, so it goes on.
    let gone = owner.delete(&format!("/v1/executions/{id}"));
    assert_eq!(gone.expect(200)["outcome"]["kind"], "cancelled");
    stopping.join().unwrap();
}

/// A hold that an earlier server left open, as a SIGKILL leaves it.
fn leave_open(server: &mut TestServer, execution: [u8; 16]) {
    let dir = server.data_dir().join("ledger");
    server.restart_after(|_| {
        let options = api_ledger_options(&dir);
        let ledger = ledger::Ledger::open(options, Arc::new(At)).unwrap();
        let request = ledger::HoldRequest {
            hold: ledger::Id([7; 16]),
            execution: ledger::Id(execution),
            tenant: "acme".to_owned(),
            project: "default".to_owned(),
            function: None,
            key: "key_x".to_owned(),
            image: "python@sha256:00".to_owned(),
            tags: Vec::new(),
            ceiling: ledger::Ceiling {
                cpu_ms: 1_000,
                wall_ms: 2_000,
                cpu_millis: 1_000,
                memory_bytes: 1 << 20,
            },
            on_low: ledger::OnLow::Refuse,
            max_cost: None,
            idempotency: None,
        };
        ledger.hold(request).unwrap().wait().unwrap().unwrap();
        ledger.close().unwrap();
    });
}

fn api_ledger_options(dir: &std::path::Path) -> ledger::Options {
    let flags = vec![("ledger.segment_bytes".to_owned(), "1048576".to_owned())];
    let mut options = api::Config::with(flags).unwrap().ledger;
    options.dir = dir.to_owned();
    options
}

/// A clock for a ledger that is opened between two servers.
#[derive(Debug)]
struct At;

impl ledger::Clock for At {
    fn now_us(&self) -> ledger::Micros {
        jiff::Timestamp::now().as_microsecond()
    }
}

fn text(execution: [u8; 16]) -> String {
    let digits: String = execution.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("exe_{digits}")
}

#[test]
fn what_ran_when_the_server_died_is_settled_from_what_its_shim_wrote() {
    let mut server = TestServer::start();
    let owner = server.tenant("acme");
    server.left_behind = vec![Final {
        sandbox: SandboxId([3; 16]),
        execution: Some([9; 16]),
        measured: Measured {
            cpu_us: 4_321,
            wall_us: 10_500,
            ..Measured::default()
        },
        ended_by: EndedBy::ServerGone,
    }];
    leave_open(&mut server, [9; 16]);
    let owner = server.reach(&owner);
    let record = owner
        .get(&format!("/v1/executions/{}", text([9; 16])))
        .expect(200);
    assert_eq!(record["outcome"], json!({"kind": "lost"}), "{record}");
    assert_eq!(record["usage"]["cpu_us"], 4_321, "{record}");
    assert_eq!(record["usage"]["memory_byte_ms"], (11 << 20).to_string());
    assert!(record["receipt"]["estimated"].is_null(), "{record}");
    server.assert_nothing_held("acme");
    assert_eq!(server.settlements("acme"), 1);
}

#[test]
fn what_nobody_wrote_down_is_one_execution_and_marked_as_an_estimate() {
    let mut server = TestServer::start();
    let owner = server.tenant("acme");
    leave_open(&mut server, [8; 16]);
    let owner = server.reach(&owner);
    let record = owner
        .get(&format!("/v1/executions/{}", text([8; 16])))
        .expect(200);
    assert_eq!(record["outcome"], json!({"kind": "lost"}), "{record}");
    assert_eq!(record["usage"]["executions"], 1);
    assert_eq!(record["usage"]["cpu_us"], 0);
    assert_eq!(record["receipt"]["estimated"], true, "{record}");
    server.assert_nothing_held("acme");
    server.restart();
    assert_eq!(server.settlements("acme"), 1, "it is settled once");
}
