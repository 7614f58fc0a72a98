//! Evidence: what a failed run's record says of its cause, and that a success has none.

use serde_json::{Value, json};

use crate::client::Client;
use crate::server::{TestServer, finished};

fn run(client: &Client, body: &Value) -> Value {
    client.post("/v1/executions", body).expect(200)
}

#[test]
fn every_failure_says_why_and_a_success_says_nothing() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let good = run(&owner, &json!({"code": "print hello"}));
    assert!(good.get("evidence").is_none(), "{good}");
    for (code, limit, counter) in [
        ("memory 99999999999999", "memory_bytes", "memory_oom_kill"),
        ("disk 99999999999999", "disk_bytes", "disk_free_bytes"),
        ("fork 999999", "pids", "pids_max"),
        ("cpu_us 999999999999", "cpu_ms", "cpu_us"),
        ("sleep_ms 99999999", "wall_ms", "wall_us"),
    ] {
        let record = run(&owner, &json!({"code": code}));
        let evidence = &record["evidence"];
        let hit = &evidence["limit"];
        assert_eq!(hit["name"], limit, "{record}");
        assert_eq!(hit["value"], record["limits"][limit], "{record}");
        assert_eq!(hit["peak"], hit["value"], "{record}");
        assert_eq!(hit["counter"], counter, "{record}");
        if let Some(count) = evidence["counters"].get(counter) {
            assert_eq!(hit["count"], *count, "{record}");
        }
        let value = hit["value"].as_u64().unwrap();
        let cause = evidence["cause"].as_str().unwrap();
        let said = [value, value >> 20, value >> 10].map(|number| number.to_string());
        assert!(said.iter().any(|number| cause.contains(number)), "{cause}");
    }
    let record = run(&owner, &json!({"code": "exit 3"}));
    let cause = "the program ended with exit code 3";
    assert_eq!(record["evidence"]["cause"], cause, "{record}");
    assert!(record["evidence"].get("limit").is_none(), "{record}");
    assert!(
        record["evidence"]["counters"]["cpu_us"].is_u64(),
        "{record}"
    );
}

#[test]
fn the_last_4096_bytes_of_each_stream_outlive_the_cut() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let code = "print first\nflood 100000\nprint last words\neprint oh\nexit 1";
    let body = json!({"code": code, "limits": {"output_bytes": 64}});
    let record = run(&owner, &body);
    assert_eq!(record["stdout"].as_str().unwrap().len(), 64);
    let tail = record["evidence"]["stdout_tail"].as_str().unwrap();
    assert_eq!(tail.len(), 4096);
    assert!(tail.ends_with("xxlast words\n"), "{tail}");
    assert_eq!(record["evidence"]["stdout_tail_encoding"], "utf8");
    assert_eq!(record["evidence"]["stderr_tail"], "oh\n");
}

#[test]
fn processes_are_listed_bounded_and_escaped() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let mut code: String = (0..40)
        .map(|n| format!("process {} 1 R {n}000 a\u{1b}[31mb\n", n + 7))
        .collect();
    code.push_str("signal 11");
    let record = run(&owner, &json!({"code": code}));
    let evidence = &record["evidence"];
    let listed = evidence["processes"].as_array().unwrap();
    assert_eq!((listed.len(), &evidence["processes_more"]), (32, &json!(8)));
    let first = json!({"pid": 7, "parent": 1, "name": "a\\u{1b}[31mb", "state": "running",
        "cpu_us": 0});
    assert_eq!(listed[0], first);
    let cause = evidence["cause"].as_str().unwrap();
    assert!(cause.contains("SIGSEGV"), "{cause}");
}

#[test]
fn what_never_ran_has_a_cause_too() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let record = run(&owner, &json!({"code": "fail start"}));
    let cause = "it could not be started: the script said so";
    assert_eq!(record["evidence"]["cause"], cause, "{record}");
    assert!(record["evidence"].get("counters").is_none(), "{record}");
}

#[test]
fn evidence_is_kept_with_the_record_and_its_cause_with_the_entry() {
    let mut server = TestServer::start();
    let owner = server.tenant("acme");
    let body = json!({"code": "eprint oh\nmemory 99999999999999"});
    let record = run(&owner, &body);
    let id = record["id"].as_str().unwrap();
    assert_eq!(finished(&owner, id)["evidence"], record["evidence"]);
    server.restart();
    let path = format!("/v1/executions/{id}");
    let again = server.reach(&owner).get(&path).expect(200);
    assert_eq!(again["evidence"], record["evidence"]);
    // Without the record there is only what the ledger's entry says.
    server.restart_after(|dir| std::fs::remove_dir_all(dir.join("records")).unwrap());
    let bare = server.reach(&owner).get(&path).expect(200);
    let cause = "the memory limit was passed";
    assert_eq!(bare["evidence"]["cause"], cause, "{bare}");
    assert_eq!(bare["evidence"]["stderr_tail"], "", "{bare}");
}
