//! Live events over server-sent events, and their replay.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::client::{events, read_chunk, read_head};
use crate::server::{TestServer, finished};

#[test]
fn a_live_run_streams_its_output_and_its_record() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let request = owner
        .request("POST", "/v1/executions")
        .header("Accept", "text/event-stream");
    let answer = request
        .json(&json!({"code": "print one\neprint two\nprint three"}))
        .send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let events = events(&answer.text());
    assert_eq!(events.first().unwrap().name, "started");
    assert!(events[0].data["started_at"].is_string(), "{:?}", events[0]);
    assert_eq!(events.last().unwrap().name, "finished");
    let joined = |stream: &str| {
        let mut bytes = Vec::new();
        for event in events.iter().filter(|event| event.name == stream) {
            assert_eq!(event.data["offset"], bytes.len(), "{event:?}");
            bytes.extend(
                STANDARD
                    .decode(event.data["data"].as_str().unwrap())
                    .unwrap(),
            );
        }
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(joined("stdout"), "one\nthree\n");
    assert_eq!(joined("stderr"), "two\n");
    let record = &events.last().unwrap().data;
    assert_eq!(record["outcome"], json!({"kind": "exited", "code": 0}));
    assert!(record["receipt"]["entry"].is_u64());
}

#[test]
fn events_of_a_finished_run_are_replayed() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let record = owner
        .post("/v1/executions", &json!({"code": "print again"}))
        .expect(200);
    let path = format!("/v1/executions/{}/events", record["id"].as_str().unwrap());
    let replay = events(&owner.get(&path).text());
    let names: Vec<&str> = replay.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["started", "stdout", "finished"]);
    assert_eq!(replay[2].data, record);
}

#[test]
fn a_watcher_that_leaves_does_not_stop_the_run() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let request = owner
        .request("POST", "/v1/executions")
        .header("Accept", "text/event-stream");
    let mut reader = request
        .json(&json!({"code": "print early\nwait", "limits": {"wall_ms": 300}}))
        .open();
    assert_eq!(read_head(&mut reader).0, 200);
    let mut text = String::new();
    while !text.contains("event: started") {
        text.push_str(
            &String::from_utf8(read_chunk(&mut reader).expect("the stream goes on")).unwrap(),
        );
    }
    let id = events(&text)[0].data["id"].as_str().unwrap().to_owned();
    drop(reader);
    let record = finished(&owner, &id);
    assert_eq!(
        record["outcome"],
        json!({"kind": "timed_out", "clock": "wall"})
    );
    assert_eq!(server.settlements("acme"), 1);
}

#[test]
fn a_second_watcher_follows_a_running_execution_to_its_end() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let id = server.running(&owner, &json!({"code": "print early\nwait"}));
    let mut follower = owner
        .request("GET", &format!("/v1/executions/{id}/events"))
        .open();
    assert_eq!(read_head(&mut follower).0, 200);
    assert!(owner.delete(&format!("/v1/executions/{id}")).status < 300);
    let mut rest = String::new();
    follower.read_to_string(&mut rest).unwrap();
    assert!(
        rest.contains("event: finished") && rest.contains("cancelled"),
        "{rest}"
    );
}
