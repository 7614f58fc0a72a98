//! Executions: the record's shape, outcomes, output, lists, cancel, asynchronous runs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::client::Client;
use crate::server::{TestServer, finished};

fn run(client: &Client, body: &Value) -> Value {
    client.post("/v1/executions", body).expect(200)
}

#[test]
fn a_run_answers_output_usage_cost_and_receipt() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let record = run(
        &owner,
        &json!({"code": "print hello\ncpu_us 1234", "tags": {"cost_center": "42"}}),
    );
    assert!(record["id"].as_str().unwrap().starts_with("exe_"));
    assert_eq!(record["tenant"], "acme");
    assert_eq!(record["state"], "finished");
    assert_eq!(record["outcome"], json!({"kind": "exited", "code": 0}));
    assert_eq!(record["stdout"], "hello\n");
    assert_eq!(record["stdout_encoding"], "utf8");
    assert_eq!(record["stdout_truncated"], false);
    assert_eq!(record["stderr"], "");
    assert_eq!(record["image"]["name"], "python");
    assert!(
        record["image"]["digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    assert_eq!(record["start"], "cold");
    assert_eq!(record["tags"], json!({"cost_center": "42"}));
    assert!(
        record["measured"]["cpu_us"].as_u64().unwrap() >= 1234,
        "{record}"
    );
    assert_eq!(record["usage"]["executions"], 1);
    assert_eq!(record["usage"]["cpu_us"], record["measured"]["cpu_us"]);
    assert!(record["usage"]["memory_byte_ms"].is_string());
    assert_eq!(record["charge"]["currency"], "USD");
    assert!(
        record["receipt"]["hold"]
            .as_str()
            .unwrap()
            .starts_with("hld_")
    );
    assert!(record["receipt"]["entry"].is_u64());
    for time in ["created_at", "started_at", "finished_at"] {
        assert!(
            record[time]
                .as_str()
                .is_some_and(|text| text.ends_with('Z')),
            "{time} in {record}"
        );
    }
    assert!(record["trace_id"].is_string());
    assert!(record["node"].is_string());
    for limit in [
        "wall_ms",
        "cpu_ms",
        "cpu_millis",
        "memory_bytes",
        "pids",
        "disk_bytes",
        "inodes",
        "open_files",
        "output_bytes",
    ] {
        assert!(record["limits"][limit].is_u64(), "{limit} in {record}");
    }
}

#[test]
fn the_charge_is_the_sum_of_its_lines() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let record = run(&owner, &json!({"code": "cpu_us 1234567"}));
    let pico = |amount: &Value| {
        let text = amount.as_str().unwrap();
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        format!("{whole}{part:0<12}").parse::<i128>().unwrap()
    };
    let lines = record["charge"]["lines"].as_array().unwrap();
    let sum: i128 = lines.iter().map(|line| pico(&line["amount"])).sum();
    assert_eq!(sum, pico(&record["charge"]["total"]), "{record}");
    assert!(sum > 0, "{record}");
    let cpu = lines.iter().find(|line| line["meter"] == "cpu_us").unwrap();
    assert_eq!(
        cpu["quantity"].as_str().unwrap(),
        record["usage"]["cpu_us"].to_string()
    );
    assert_eq!(cpu["unit_size"], "1000000");
}

#[test]
fn a_failing_program_is_a_success_of_the_service() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let outcome = |code: &str| run(&owner, &json!({"code": code}))["outcome"].clone();
    assert_eq!(outcome("exit 3"), json!({"kind": "exited", "code": 3}));
    assert_eq!(
        outcome("signal 9"),
        json!({"kind": "signalled", "signal": 9})
    );
    assert_eq!(
        outcome("no-such-word"),
        json!({"kind": "exited", "code": 127})
    );
    assert_eq!(
        outcome("cpu_us 999999999999"),
        json!({"kind": "timed_out", "clock": "cpu"})
    );
    assert_eq!(
        outcome("sleep_ms 99999999"),
        json!({"kind": "timed_out", "clock": "wall"})
    );
    assert_eq!(outcome("memory 99999999999999")["kind"], "out_of_memory");
}

#[test]
fn a_start_that_fails_by_our_fault_charges_nothing() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let answer = owner.post("/v1/executions", &json!({"code": "fail start"}));
    let record = answer.expect(200);
    assert_eq!(record["outcome"]["kind"], "start_failed");
    assert!(
        record["charge"].is_null() || record["charge"]["lines"] == json!([]),
        "{record}"
    );
    server.assert_nothing_held("acme");
    assert_eq!(server.settlements("acme"), 0);
}

#[test]
fn binary_output_is_exact_and_long_output_is_cut_and_flagged() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let bytes = [0u8, 255, 254, 10, 13, 0];
    let file = json!({"path": "a.bin", "content": STANDARD.encode(bytes), "encoding": "base64"});
    let record = run(&owner, &json!({"code": "read a.bin", "files": [file]}));
    assert_eq!(record["stdout_encoding"], "base64");
    assert_eq!(
        STANDARD.decode(record["stdout"].as_str().unwrap()).unwrap(),
        bytes
    );
    let flood = json!({"code": "flood 5000", "limits": {"output_bytes": 1024}});
    let record = run(&owner, &flood);
    assert_eq!(record["outcome"], json!({"kind": "exited", "code": 0}));
    assert_eq!(record["stdout"].as_str().unwrap().len(), 1024);
    assert_eq!(record["stdout_truncated"], true);
    let kill =
        json!({"code": "flood 5000", "limits": {"output_bytes": 1024}, "on_output_limit": "kill"});
    assert_eq!(run(&owner, &kill)["outcome"]["kind"], "output_limit");
}

#[test]
fn files_environment_and_stdin_reach_the_program() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let body = json!({
        "code": "read data/a.txt\nenv GREETING\ncat", "stdin": "typed",
        "files": [{"path": "data/a.txt", "content": "ZmlsZQ==", "encoding": "base64"}],
        "env": {"GREETING": "hello"},
    });
    let output = run(&owner, &body)["stdout"].as_str().unwrap().to_owned();
    for part in ["file", "hello", "typed"] {
        assert!(output.contains(part), "{part} is not in {output:?}");
    }
}

#[test]
fn a_record_can_be_read_again_and_listed_by_filter() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let first = run(&owner, &json!({"code": "print 1", "tags": {"team": "a"}}));
    let second = run(&owner, &json!({"code": "exit 2", "tags": {"team": "b"}}));
    let again = owner
        .get(&format!("/v1/executions/{}", first["id"].as_str().unwrap()))
        .expect(200);
    assert_eq!(again, first);
    let ids = |path: &str| -> Vec<String> {
        let list = owner.get(path).expect(200);
        let items = list["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let both = ids("/v1/executions");
    assert_eq!(both.len(), 2);
    assert_eq!(
        ids("/v1/executions?tag=team:b"),
        [second["id"].as_str().unwrap()]
    );
    assert_eq!(ids("/v1/executions?state=running"), Vec::<String>::new());
    assert_eq!(ids("/v1/executions?state=finished").len(), 2);
    owner
        .get("/v1/executions?state=asleep")
        .problem(400, "invalid_argument");
    owner
        .get("/v1/executions?colour=red")
        .problem(400, "invalid_argument");
    let page = owner.get("/v1/executions?limit=1").expect(200);
    let cursor = page["next_cursor"]
        .as_str()
        .expect("a cursor to the second page");
    let rest = owner
        .get(&format!("/v1/executions?limit=1&cursor={cursor}"))
        .expect(200);
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert_ne!(rest["items"][0]["id"], page["items"][0]["id"]);
    owner
        .get("/v1/executions?cursor=%00junk")
        .problem(400, "invalid_argument");
    owner
        .get("/v1/executions?limit=0")
        .problem(400, "invalid_argument");
}

#[test]
fn records_outlive_a_restart() {
    let mut server = TestServer::start();
    let owner = server.tenant("acme");
    let record = run(&owner, &json!({"code": "print 1"}));
    server.restart();
    let path = format!("/v1/executions/{}", record["id"].as_str().unwrap());
    let again = server.reach(&owner).get(&path).expect(200);
    assert_eq!(again, record);
}

#[test]
fn a_lost_record_is_rebuilt_from_the_ledger_and_says_so() {
    let mut server = TestServer::start();
    let owner = server.tenant("acme");
    let record = run(&owner, &json!({"code": "print 1"}));
    server.restart_after(|data_dir| std::fs::remove_dir_all(data_dir.join("records")).unwrap());
    let path = format!("/v1/executions/{}", record["id"].as_str().unwrap());
    let again = server.reach(&owner).get(&path).expect(200);
    assert_eq!(again["output"], "lost", "{again}");
    assert_eq!(again["charge"]["total"], record["charge"]["total"]);
    assert_eq!(again["receipt"]["entry"], record["receipt"]["entry"]);
    assert_eq!(again["outcome"]["kind"], "exited");
}

#[test]
fn an_asynchronous_run_is_accepted_and_finishes() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let accepted = owner.post_async(&json!({"code": "print later"}));
    let record = accepted.expect(202);
    let id = record["id"].as_str().unwrap();
    assert!(["queued", "running", "finished"].contains(&record["state"].as_str().unwrap()));
    let done = finished(&owner, id);
    assert_eq!(done["stdout"], "later\n");
}

#[test]
fn a_running_execution_can_be_cancelled_once() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let id = server.running(&owner, &json!({"code": "wait"}));
    assert!(owner.delete(&format!("/v1/executions/{id}")).status < 300);
    let done = finished(&owner, &id);
    assert_eq!(done["outcome"]["kind"], "cancelled");
    assert_eq!(
        done["usage"]["executions"], 1,
        "who cancels pays for what ran: {done}"
    );
    server.assert_nothing_held("acme");
    owner
        .delete("/v1/executions/exe_00000000000000000000000000000000")
        .problem(404, "not_found");
}

#[test]
fn a_ceiling_on_cost_refuses_what_could_cost_more() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let body = json!({"code": "print 1", "max_cost": "0.000000000001"});
    owner
        .post("/v1/executions", &body)
        .problem(402, "budget_exceeded");
    owner
        .post(
            "/v1/executions",
            &json!({"code": "print 1", "max_cost": "-1"}),
        )
        .problem(400, "invalid_argument");
    run(&owner, &json!({"code": "print 1", "max_cost": "1"}));
}

#[test]
fn a_disk_is_rounded_up_to_its_class_and_told() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let record = run(
        &owner,
        &json!({"code": "print 1", "limits": {"disk_bytes": 1}}),
    );
    let disk = record["limits"]["disk_bytes"].as_u64().unwrap();
    assert!(disk > 1, "{record}");
}
