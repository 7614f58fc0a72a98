//! Quotas: never passed, by nobody, at no instant; and the refusal says what stands in the way.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::server::TestServer;

#[test]
fn sixty_four_clients_get_exactly_the_quota() {
    const QUOTA: usize = 20;
    let server = TestServer::start();
    let owner = server.tenant("acme");
    server
        .admin()
        .put("/v1/tenants/acme/limits", &json!({"concurrency": 64}))
        .expect(200);
    let limit = QUOTA.to_string();
    let quota =
        json!([{"meter": "executions", "window": "lifetime", "limit": limit, "mode": "hard"}]);
    server.quota("acme", &quota);
    let threads: Vec<_> = (0..64)
        .map(|_| {
            let owner = owner.clone();
            std::thread::spawn(move || owner.post("/v1/executions", &json!({"code": "print 1"})))
        })
        .collect();
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for thread in threads {
        let answer = thread.join().unwrap();
        *counts.entry(answer.status).or_default() += 1;
        if answer.status != 200 {
            let problem = answer.problem(429, "quota_exceeded");
            let violated = &problem["violated"][0];
            assert_eq!(violated["meter"], "executions", "{problem}");
            assert_eq!(violated["limit"], QUOTA.to_string());
            assert!(
                ["posted", "held"].contains(&violated["cause"].as_str().unwrap()),
                "{problem}"
            );
        }
    }
    assert_eq!(counts, BTreeMap::from([(200, QUOTA), (429, 64 - QUOTA)]));
    server.assert_nothing_held("acme");
    assert_eq!(server.settlements("acme"), QUOTA);
}

#[test]
fn a_worst_case_that_does_not_fit_is_refused_and_a_smaller_one_runs() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    server.quota(
        "acme",
        &json!([{"meter": "cpu_us", "window": "day", "limit": "1000000", "mode": "hard"}]),
    );
    let run = |cpu_ms: u64, on_low: &str| {
        let limits = json!({"cpu_ms": cpu_ms, "wall_ms": 10_000});
        owner.post(
            "/v1/executions",
            &json!({"code": "print 1", "limits": limits, "on_low_quota": on_low}),
        )
    };
    run(1000, "refuse").expect(200);
    let refused = run(1001, "refuse");
    let problem = refused.problem(429, "quota_exceeded");
    assert_eq!(problem["violated"][0]["requested"], "1001000", "{problem}");
    assert_eq!(problem["violated"][0]["window"], "day");
    assert!(problem["violated"][0]["resets_at"].is_string());
    let reduced = run(2000, "reduce").expect(200);
    let granted = reduced["limits"]["cpu_ms"].as_u64().unwrap();
    assert!(granted < 1001 && granted > 900, "{reduced}");
}

#[test]
fn a_reduced_run_that_uses_up_what_was_left_ends_as_quota_exhausted() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    server.quota(
        "acme",
        &json!([{"meter": "cpu_us", "window": "day", "limit": "1000000", "mode": "hard"}]),
    );
    let limits = json!({"cpu_ms": 2000, "wall_ms": 10_000});
    let body = json!({"code": "cpu_us 9999999", "limits": limits, "on_low_quota": "reduce"});
    let record = owner.post("/v1/executions", &body).expect(200);
    assert_eq!(record["outcome"]["kind"], "quota_exhausted", "{record}");
    let quotas = owner.get("/v1/quotas").expect(200);
    let quota = quotas["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|quota| quota["meter"] == "cpu_us")
        .unwrap();
    let number = |name: &str| quota[name].as_str().unwrap().parse::<u128>().unwrap();
    assert!(number("posted") <= 1_000_000, "{quota}");
    assert_eq!(number("held"), 0);
    assert_eq!(number("posted") + number("free"), 1_000_000);
}

#[test]
fn a_refusal_because_of_holds_alone_is_safe_to_retry_soon() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    server.quota(
        "acme",
        &json!([{"meter": "executions", "window": "lifetime", "limit": "1", "mode": "hard"}]),
    );
    let record = owner.post_async(&json!({"code": "fail start"})).expect(202);
    crate::server::finished(&owner, record["id"].as_str().unwrap());
    let id = server.running(&owner, &json!({"code": "wait"}));
    let refused = owner.post("/v1/executions", &json!({"code": "print 1"}));
    let problem = refused.problem(429, "quota_exceeded");
    assert_eq!(problem["violated"][0]["cause"], "held", "{problem}");
    assert_eq!(problem["retry"], "safe");
    assert_eq!(refused.header("retry-after"), Some("1"));
    owner.delete(&format!("/v1/executions/{id}"));
    crate::server::finished(&owner, &id);
}

#[test]
fn the_tenants_own_list_lies_over_its_tier() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let tier = owner.get("/v1/quotas").expect(200);
    let meters = |list: &serde_json::Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|quota| quota["meter"].as_str().unwrap().to_owned())
            .collect()
    };
    for meter in ["executions", "cpu_us", "cost"] {
        assert!(
            meters(&tier).contains(&meter.to_owned()),
            "{meter} is not in {tier}"
        );
    }
    server.quota(
        "acme",
        &json!([{"meter": "executions", "window": "hour", "limit": "7", "mode": "hard"}]),
    );
    let own = owner.get("/v1/quotas").expect(200);
    let executions = own["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|quota| quota["meter"] == "executions")
        .unwrap();
    assert_eq!(
        (&executions["limit"], &executions["window"]),
        (&json!("7"), &json!("hour")),
        "{own}"
    );
    assert!(meters(&own).contains(&"cpu_us".to_owned()), "{own}");
}

/// What was used before a quota was there counts in its window, also in a zone of its own.
#[test]
fn a_quota_counts_its_window_from_the_beginning() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    for _ in 0..2 {
        let ran = owner.post("/v1/executions", &json!({"code": "print(1)"}));
        ran.expect(200);
    }
    let quota = json!({"meter": "executions", "window": "month", "limit": "3",
        "timezone": "Asia/Kathmandu"});
    for _ in 0..2 {
        server.quota("acme", &json!([quota]));
        let quotas = owner.get("/v1/quotas").expect(200);
        let mut items = quotas["items"].as_array().unwrap().iter();
        let found = items.find(|one| one["quota"].as_str().unwrap().contains("month@"));
        let found = found.unwrap();
        assert_eq!(found["posted"], "2", "{quotas}");
        assert_eq!(found["counted_since"], Value::Null, "{quotas}");
        // Dropped in between.
        server.quota("acme", &json!([]));
    }
    server.quota("acme", &json!([quota]));
    let run = || owner.post("/v1/executions", &json!({"code": "print(1)"}));
    run().expect(200);
    run().problem(429, "quota_exceeded");
}

#[test]
fn a_soft_quota_refuses_nothing_and_tells_how_far_it_was_passed() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let soft = json!({"meter": "executions", "window": "day", "limit": "1", "mode": "soft"});
    server.quota("acme", &json!([soft]));
    for over in ["0", "1", "2"] {
        let ran = owner.post("/v1/executions", &json!({"code": "print(1)"}));
        ran.expect(200);
        let quotas = owner.get("/v1/quotas").expect(200);
        let mut items = quotas["items"].as_array().unwrap().iter();
        let found = items.find(|one| one["mode"] == "soft").unwrap();
        assert_eq!(
            (&found["over"], &found["free"]),
            (&json!(over), &json!("0"))
        );
    }
}

#[test]
fn malformed_quotas_are_refused_whole() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let before = owner.get("/v1/quotas").expect(200);
    let good = json!({"meter": "executions", "window": "hour", "limit": "7", "mode": "hard"});
    for (member, value) in [
        ("meter", json!("colour")),
        ("window", json!("fortnight")),
        ("limit", json!("-1")),
        ("limit", json!("1.5")),
        ("mode", json!("medium")),
        ("timezone", json!("Mars/Olympus")),
        ("surprise", json!(1)),
    ] {
        let mut bad = good.clone();
        bad[member] = value;
        let answer = server.put_quotas("acme", &json!([good, bad]));
        answer.problem(400, "invalid_argument");
    }
    assert_eq!(owner.get("/v1/quotas").expect(200), before);
}
