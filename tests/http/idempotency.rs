//! Idempotency keys: one key, one hold, one charge, whatever is retried and whenever.

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::periods::operator;
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

fn proposed(client: &Client, key: &str, body: &Value) -> Answer {
    let request = client.request("POST", "/v1/adjustments");
    request.header("Idempotency-Key", key).json(body).send()
}

fn credit(tenant: &str, amount: &str) -> Value {
    json!({"tenant": tenant, "amount": amount, "description": "goodwill", "reason": "outage"})
}

#[test]
fn an_adjustment_is_proposed_once_under_a_key() {
    let mut server = TestServer::start();
    server.tenant("acme");
    server.tenant("other");
    let admin = server.admin();
    // A refusal takes no key.
    let nothing = json!({"tenant": "acme", "reverses": 1, "reason": "-"});
    proposed(&admin, "\"k\"", &nothing).problem(400, "invalid_argument");
    let body = credit("acme", "-1.5");
    let first = proposed(&admin, "\"k\"", &body);
    assert_eq!(first.header("idempotent-replayed"), None);
    let first = first.expect(201);
    let again = proposed(&admin, "k", &body);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.expect(200), first);
    let dearer = proposed(&admin, "\"k\"", &credit("acme", "-2"));
    dearer.problem(422, "idempotency_mismatch");
    // The key is the tenant's, and another key is another adjustment.
    proposed(&admin, "\"k\"", &credit("other", "-1.5")).expect(201);
    proposed(&admin, "\"l\"", &body).expect(201);
    proposed(&admin, "\"\"", &body).problem(400, "invalid_argument");

    // As it now is, also after a restart.
    let path = format!("/v1/adjustments/{}/reject", first["id"].as_str().unwrap());
    let finance = operator(&server, api::Role::Finance, "finance");
    let rejected = finance.post(&path, &json!({"reason": "no"})).expect(200);
    assert_eq!(proposed(&admin, "\"k\"", &body).expect(200), rejected);
    server.restart();
    let admin = server.admin();
    assert_eq!(proposed(&admin, "\"k\"", &body).expect(200), rejected);
    let list = admin.get("/v1/adjustments?tenant=acme").expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 2, "{list}");
}

#[test]
fn many_at_once_propose_one_adjustment() {
    let server = TestServer::start();
    server.tenant("acme");
    let body = credit("acme", "-1");
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (admin, body) = (server.admin(), body.clone());
            std::thread::spawn(move || proposed(&admin, "\"race\"", &body))
        })
        .collect();
    let answers = threads.into_iter().map(|thread| thread.join().unwrap());
    let mut made = 0;
    let mut ids = std::collections::BTreeSet::new();
    for answer in answers {
        made += usize::from(answer.status == 201);
        assert!([200, 201].contains(&answer.status), "{}", answer.text());
        ids.insert(answer.json()["id"].as_str().unwrap().to_owned());
    }
    assert_eq!((made, ids.len()), (1, 1));
}
