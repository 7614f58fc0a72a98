//! Idempotency keys: one key, one hold, one charge, whatever is retried and whenever.

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::server::{TestServer, finished};

fn keyed(client: &Client, key: &str, body: &Value) -> Answer {
    let request = client
        .request("POST", "/v1/executions")
        .header("Idempotency-Key", key);
    request.json(body).send()
}

#[test]
fn a_repeat_answers_the_same_record_and_charges_once() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let body = json!({"code": "print 1", "tags": {"a": "1", "b": "2"}});
    let first = keyed(&owner, "\"k-1\"", &body);
    assert_eq!(first.header("idempotent-replayed"), None);
    let second = keyed(
        &owner,
        "\"k-1\"",
        &json!({"tags": {"b": "2", "a": "1"}, "code": "print 1"}),
    );
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.expect(200), second.expect(200));
    assert_eq!(
        keyed(&owner, "k-1", &body).header("idempotent-replayed"),
        Some("true"),
        "bare form"
    );
    assert_eq!(server.settlements("acme"), 1);
}

#[test]
fn another_body_under_the_same_key_is_a_mismatch() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    keyed(&owner, "\"k\"", &json!({"code": "print 1"})).expect(200);
    keyed(&owner, "\"k\"", &json!({"code": "print 2"})).problem(422, "idempotency_mismatch");
    assert_eq!(server.settlements("acme"), 1);
}

#[test]
fn a_key_belongs_to_its_tenant() {
    let server = TestServer::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    keyed(&acme, "\"k\"", &json!({"code": "print 1"})).expect(200);
    let theirs = keyed(&other, "\"k\"", &json!({"code": "print 2"}));
    assert_eq!(theirs.header("idempotent-replayed"), None);
    assert_eq!(theirs.expect(200)["tenant"], "other");
}

#[test]
fn many_at_once_under_one_key_run_once() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let body = json!({"code": "print once"});
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let (owner, body) = (owner.clone(), body.clone());
            std::thread::spawn(move || keyed(&owner, "\"race\"", &body))
        })
        .collect();
    let answers: Vec<Answer> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    for answer in &answers {
        match answer.status {
            200 => drop(ids.insert(answer.json()["id"].as_str().unwrap().to_owned())),
            409 => drop(answer.problem(409, "idempotency_in_flight")),
            status => panic!("{status}: {}", answer.text()),
        }
    }
    assert_eq!(ids.len(), 1);
    let id = ids.first().unwrap();
    finished(&owner, id);
    assert_eq!(server.settlements("acme"), 1);
    assert_eq!(
        keyed(&owner, "\"race\"", &body).expect(200)["id"],
        id.as_str()
    );
}

#[test]
fn a_key_outlives_a_restart() {
    let mut server = TestServer::start();
    let owner = server.tenant("acme");
    let body = json!({"code": "print 1"});
    let first = keyed(&owner, "\"k\"", &body).expect(200);
    server.restart();
    let owner = server.reach(&owner);
    let second = keyed(&owner, "\"k\"", &body);
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    assert_eq!(second.expect(200)["id"], first["id"]);
}

#[test]
fn a_quota_refusal_consumes_no_key() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    server.quota(
        "acme",
        &json!([{"meter": "executions", "window": "lifetime", "limit": "0", "mode": "hard"}]),
    );
    keyed(&owner, "\"k\"", &json!({"code": "print 1"})).problem(429, "quota_exceeded");
    server.quota(
        "acme",
        &json!([{"meter": "executions", "window": "lifetime", "limit": "5", "mode": "hard"}]),
    );
    let run = keyed(&owner, "\"k\"", &json!({"code": "print 2"}));
    assert_eq!(run.header("idempotent-replayed"), None);
    run.expect(200);
}

#[test]
fn malformed_keys_are_refused() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let long = format!("\"{}\"", "x".repeat(1000));
    for key in ["\"", "\"a", "\"\"", "", &long] {
        keyed(&owner, key, &json!({"code": "print 1"})).problem(400, "invalid_argument");
    }
}
