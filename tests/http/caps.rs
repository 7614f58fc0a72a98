//! Caps on how many executions begin in a minute, and the fields that tell what is left of them
//! all.

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::server::{TestServer, finished};

fn run(client: &Client) -> Answer {
    client.post("/v1/executions", &json!({"code": "print 1"}))
}

fn caps(server: &TestServer, caps: &Value) -> Value {
    let path = "/v1/tenants/acme/limits";
    server.admin().put(path, caps).expect(200)
}

fn retry_after(refused: &Answer) -> u64 {
    refused.header("retry-after").unwrap().parse().unwrap()
}

#[test]
fn a_tenant_begins_no_more_in_a_minute_than_its_cap() {
    let mut server = TestServer::start();
    let owner = server.tenant("acme");
    // What began before the cap counts too, and so does what never got to run.
    run(&owner).expect(200);
    let record = owner.post_async(&json!({"code": "fail start"})).expect(202);
    crate::server::finished(&owner, record["id"].as_str().unwrap());
    let limits = caps(
        &server,
        &json!({"starts_per_minute": 3, "isolation": "fresh"}),
    );
    assert_eq!(limits["starts_per_minute"], 3, "{limits}");
    assert_eq!(limits["isolation"], "fresh", "{limits}");
    assert_eq!(limits["key_starts_per_minute"], Value::Null);
    let third = run(&owner);
    third.expect(200);
    let left = third.header("ratelimit").unwrap();
    assert!(left.contains("\"tenant/starts\";r=0;t="), "{left}");
    let refused = run(&owner);
    let problem = refused.problem(429, "rate_exceeded");
    assert_eq!(problem["retry"], "safe", "{problem}");
    assert!((1..=61).contains(&retry_after(&refused)), "{problem}");
    assert_eq!(
        refused.header("ratelimit-policy"),
        Some("\"tenant/starts\";q=3;w=60")
    );
    let another = server.token("acme", "runner");
    run(&another).problem(429, "rate_exceeded");
    let estimate = owner.get("/v1/estimate").expect(200);
    assert_eq!(estimate["code"], "rate_exceeded", "{estimate}");
    server.restart();
    let owner = server.reach(&owner);
    run(&owner).problem(429, "rate_exceeded");
    caps(&server, &json!({"starts_per_minute": 4}));
    run(&owner).expect(200);
    server.assert_nothing_held("acme");
}

#[test]
fn a_key_begins_no_more_in_a_minute_than_its_cap() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let (one, other) = (
        server.token("acme", "runner"),
        server.token("acme", "runner"),
    );
    caps(&server, &json!({"key_starts_per_minute": 1}));
    run(&one).expect(200);
    let refused = run(&one);
    let problem = refused.problem(429, "rate_exceeded");
    assert!((1..=61).contains(&retry_after(&refused)), "{problem}");
    let left = refused.header("ratelimit").unwrap();
    assert!(left.starts_with("\"key/starts\";r=0;t="), "{left}");
    run(&other).expect(200);
    run(&one).problem(429, "rate_exceeded");
    let denials = owner.get("/v1/denials?by=rate").expect(200);
    let items = denials["items"].as_array().unwrap();
    let counts = items
        .iter()
        .map(|item| item["count"].as_str().unwrap().parse::<u64>().unwrap());
    assert_eq!(counts.sum::<u64>(), 2, "{denials}");
    assert!(items[0]["scope"]["key"].is_string(), "{denials}");
    let bad = json!({"starts_per_minute": 0});
    let path = "/v1/tenants/acme/limits";
    let problem = server
        .admin()
        .put(path, &bad)
        .problem(400, "invalid_argument");
    assert_eq!(problem["errors"][0]["pointer"], "/starts_per_minute");
}

#[test]
fn answers_tell_what_is_left_of_every_cap_on_executions() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    server.quota(
        "acme",
        &json!([{"meter": "executions", "window": "day", "limit": "2"},
            {"meter": "executions", "window": "lifetime", "limit": "9", "mode": "soft"},
            {"meter": "cpu_us", "window": "day", "limit": "99000000"}]),
    );
    let first = run(&owner);
    first.expect(200);
    assert_eq!(
        first.header("ratelimit-policy"),
        Some(
            "\"tenant/executions/day\";q=2;w=86400, \
             \"concurrency\";q=16;qu=\"concurrent-requests\""
        )
    );
    let left = first.header("ratelimit").unwrap();
    let (day, at_once) = left.split_once(", ").unwrap();
    let seconds = day
        .strip_prefix("\"tenant/executions/day\";r=1;t=")
        .unwrap();
    assert!(
        (1..=86_400).contains(&seconds.parse::<u64>().unwrap()),
        "{left}"
    );
    assert_eq!(at_once, "\"concurrency\";r=15");
    let second = owner.post_async(&json!({"code": "wait"}));
    let id = second.expect(202)["id"].as_str().unwrap().to_owned();
    let left = second.header("ratelimit").unwrap();
    assert!(
        left.starts_with("\"tenant/executions/day\";r=0;t="),
        "{left}"
    );
    let refused = run(&owner);
    refused.problem(429, "quota_exceeded");
    let left = refused.header("ratelimit").unwrap();
    assert!(
        left.starts_with("\"tenant/executions/day\";r=0;t="),
        "{left}"
    );
    owner.delete(&format!("/v1/executions/{id}"));
    crate::server::finished(&owner, &id);
    assert_eq!(owner.get("/v1/quotas").header("ratelimit"), None);
}

#[test]
fn a_refusal_at_the_cap_on_concurrency_tells_the_cap() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    caps(&server, &json!({"concurrency": 1}));
    let id = server.running(&owner, &json!({"code": "wait"}));
    let refused = run(&owner);
    refused.problem(429, "concurrency_exceeded");
    assert_eq!(refused.header("ratelimit"), Some("\"concurrency\";r=0"));
    let recent = owner.get("/v1/denials/recent?cause=held").expect(200);
    let last = &recent["items"][0];
    assert_eq!(
        (&last["by"], &last["cause"], &last["project"]),
        (&json!("concurrency"), &json!("held"), &json!("default"))
    );
    let posted = owner.get("/v1/denials/recent?cause=posted").expect(200);
    assert_eq!(posted["items"], json!([]));
    owner
        .get("/v1/denials?cause=both")
        .problem(400, "invalid_argument");
    owner.delete(&format!("/v1/executions/{id}"));
    crate::server::finished(&owner, &id);
}

/// What stands in the queue was told that it waits: it does so for the cap on starts too, and
/// begins once there is room, while what comes without waiting is refused.
#[test]
fn what_is_in_the_queue_waits_for_the_cap_on_starts() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    caps(&server, &json!({"concurrency": 1}));
    let first = server.running(&owner, &json!({"code": "wait"}));
    let queued = |code: &str| {
        let record = owner.post_async(&json!({"code": code})).expect(202);
        assert_eq!(record["state"], "queued", "{record}");
        record["id"].as_str().unwrap().to_owned()
    };
    let (second, third) = (queued("print second"), queued("print third"));
    // The one that runs is all that may begin in this minute.
    caps(&server, &json!({"concurrency": 1, "starts_per_minute": 1}));
    owner.delete(&format!("/v1/executions/{first}"));
    finished(&owner, &first);
    run(&owner).problem(429, "rate_exceeded");
    // Its turn has come, and the cap has been in its way.
    let denied = || {
        let denials = owner.get("/v1/denials/recent?by=rate").expect(200);
        let count = denials["items"].as_array().unwrap().len();
        (count >= 2).then_some(())
    };
    crate::server::until(denied);
    let state = |id: &str| owner.get(&format!("/v1/executions/{id}")).expect(200)["state"].clone();
    assert_eq!(
        (state(&second), state(&third)),
        (json!("queued"), json!("queued"))
    );
    // Who has no patience goes; nothing of it was held.
    owner.delete(&format!("/v1/executions/{third}"));
    let cancelled = finished(&owner, &third);
    assert_eq!(cancelled["outcome"]["kind"], "cancelled", "{cancelled}");
    // A cap that is raised is looked at at once.
    caps(&server, &json!({"concurrency": 1, "starts_per_minute": 2}));
    let ran = finished(&owner, &second);
    assert_eq!(
        (&ran["outcome"]["kind"], &ran["stdout"]),
        (&json!("exited"), &json!("second\n"))
    );
    run(&owner).problem(429, "rate_exceeded");
    // What finds the cap before any queue is refused at once.
    owner
        .post_async(&json!({"code": "print fourth"}))
        .problem(429, "rate_exceeded");
    assert_eq!(server.settlements("acme"), 2);
    server.assert_nothing_held("acme");
}
