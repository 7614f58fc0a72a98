//! Rate cards, a tenant's own terms, prepaid credit, and what a run would cost.

use runtime::fake::FakeOptions;
use serde_json::{Value, json};

use crate::client::Client;
use crate::server::{TestServer, until};

/// A card that charges the same for every execution, from now on.
fn per_execution(id: &str, currency: &str, amount: &str) -> Value {
    json!({
        "id": id, "currency": currency, "effective_from": "2999-01-01T00:00:00Z",
        "price": [{"meter": "executions", "model": "unit", "amount": amount}],
    })
}

/// Adds a card that is in force at once: the server takes only dates to come, so a moment is waited
/// for.
fn card_in_force(server: &TestServer, mut card: Value) {
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(300);
    card["effective_from"] = json!(soon.to_string());
    server.admin().post("/v1/rates", &card).expect(201);
    let id = card["id"].as_str().unwrap().to_owned();
    let body = json!({ "rate_card": id });
    server
        .admin()
        .post("/v1/tenants", &json!({"name": "probe"}));
    until(|| {
        let answer = server.admin().put("/v1/tenants/probe/terms", &body);
        (answer.status == 200).then_some(())
    });
}

fn run(client: &Client) -> Value {
    client
        .post("/v1/executions", &json!({"code": "print 1"}))
        .expect(200)
}

#[test]
fn a_tenant_is_charged_by_its_own_cards() {
    let server = TestServer::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    card_in_force(&server, per_execution("special", "EUR", "0.25"));
    let terms = server
        .admin()
        .put("/v1/tenants/acme/terms", &json!({"rate_card": "special"}))
        .expect(200);
    assert_eq!(terms["currency"], "EUR");
    let charge = &run(&acme)["charge"];
    assert_eq!(charge["currency"], "EUR");
    assert_eq!(charge["total"], "0.250000000000");
    assert_eq!(charge["lines"].as_array().unwrap().len(), 1, "{charge}");
    assert_eq!(run(&other)["charge"]["currency"], "USD");
    // What it has used stays in the currency that it was used in.
    let back = server
        .admin()
        .put("/v1/tenants/acme/terms", &json!({"rate_card": null}));
    let problem = back.problem(400, "invalid_argument");
    assert!(problem.to_string().contains("EUR"), "{problem}");
}

#[test]
fn cards_are_listed_with_every_model_and_bad_ones_refused() {
    let server = TestServer::start();
    let card = json!({
        "id": "tiered", "currency": "USD", "effective_from": "2999-01-01T00:00:00Z",
        "price": [
            {"meter": "executions", "model": "package", "size": "1000", "amount": "0.5"},
            {"meter": "cpu_us", "model": "graduated", "increment": 1000, "included": "5000000",
             "tiers": [{"up_to": "10000000", "amount": "0.2"}, {"amount": "0.1"}]},
        ],
    });
    let made = server.admin().post("/v1/rates", &card).expect(201);
    let list = server.admin().get("/v1/rates").expect(200);
    let listed = list["items"].as_array().unwrap().last().unwrap();
    assert_eq!(*listed, made);
    assert_eq!(listed["prices"][1]["tiers"][0]["up_to"], "10000000");
    assert_eq!(listed["prices"][1]["included"], "5000000");
    assert_eq!(listed["prices"][0]["size"], "1000");
    for (field, value, says) in [
        (
            "effective_from",
            json!("2020-01-01T00:00:00Z"),
            "has passed",
        ),
        ("currency", json!("usd"), "ISO 4217"),
        (
            "price",
            json!([{"meter": "executions", "model": "volume", "amount": "1"}]),
            "tiers",
        ),
        ("surprise", json!(1), "surprise"),
    ] {
        let mut bad = card.clone();
        bad[field] = value;
        let problem = server
            .admin()
            .post("/v1/rates", &bad)
            .problem(400, "invalid_argument");
        assert!(problem.to_string().contains(says), "{problem}");
    }
    let owner = server.tenant("acme");
    owner.post("/v1/rates", &card).problem(403, "forbidden");
}

#[test]
fn a_prepaid_tenant_runs_as_long_as_its_credit_lasts() {
    let server = TestServer::start();
    let acme = server.tenant("acme");
    card_in_force(&server, per_execution("flat", "USD", "1"));
    let terms = json!({"rate_card": "flat", "prepaid": true, "reason": "trial"});
    server
        .admin()
        .put("/v1/tenants/acme/terms", &terms)
        .expect(200);
    let none = acme.get("/v1/forecast").expect(200);
    assert_eq!(none["credit"]["free"], "0", "{none}");
    let code = json!({"code": "print 1"});
    let refused = acme.post("/v1/executions", &code);
    refused.problem(402, "insufficient_funds");
    let grant = json!({"tenant": "acme", "name": "trial", "amount": "2.5", "currency": "USD"});
    let made = server.admin().post("/v1/grants", &grant).expect(201);
    run(&acme);
    run(&acme);
    acme.post("/v1/executions", &code)
        .problem(402, "insufficient_funds");
    // Two in at most 25 hours, and a quarter of that is left.
    let forecast = acme.get("/v1/forecast").expect(200);
    let credit = &forecast["credit"];
    assert_eq!(
        (&credit["free"], &credit["prepaid"]),
        (&json!("0.5"), &json!(true))
    );
    let days = credit["last_24h"]["days_left"].as_str().unwrap();
    assert!(["0.25", "0.26"].contains(&days), "{credit}");
    assert_eq!(credit["last_24h"]["used"], "2");
    let left = acme.get("/v1/grants").expect(200);
    assert_eq!(left["items"][0]["left"], "0.5", "{left}");
    assert_eq!(left["items"][0]["entry"], made["entry"]);
    let entries = acme.get("/v1/entries?kind=settlement").expect(200);
    let funded = &entries["items"][0]["funded"];
    assert_eq!(
        *funded,
        json!([{"grant": made["entry"], "amount": "1"}]),
        "{entries}"
    );
    let path = format!("/v1/tenants/acme/grants/{}", made["entry"]);
    assert_eq!(server.admin().delete(&path).status, 204);
    server.admin().delete(&path).problem(404, "not_found");
    let terms = server.admin().get("/v1/tenants/acme/terms").expect(200);
    assert_eq!(terms["available"], "0");
}

#[test]
fn grants_are_checked_and_only_an_operator_makes_them() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let good = json!({"tenant": "acme", "name": "x", "amount": "1", "currency": "USD"});
    for (field, value, says) in [
        ("amount", json!("0"), "above zero"),
        ("amount", json!("1e3"), "decimal"),
        ("currency", json!("EUR"), "USD"),
        ("expires_at", json!("2020-01-01T00:00:00Z"), "has passed"),
        ("priority", json!(256), "255"),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        let problem = server
            .admin()
            .post("/v1/grants", &bad)
            .problem(400, "invalid_argument");
        assert!(problem.to_string().contains(says), "{problem}");
    }
    let mut foreign = good.clone();
    foreign["tenant"] = json!("nobody");
    server
        .admin()
        .post("/v1/grants", &foreign)
        .problem(404, "not_found");
    owner.post("/v1/grants", &good).problem(403, "forbidden");
    assert_eq!(owner.get("/v1/grants").expect(200)["items"], json!([]));
}

#[test]
fn an_estimate_is_what_a_hold_takes_and_says_what_stands_in_the_way() {
    let server = TestServer::with(&[], FakeOptions::default());
    let owner = server.tenant("acme");
    let query = "/v1/estimate?wall_ms=2000&cpu_ms=1000&cpu_millis=1000&memory_bytes=268435456";
    let estimate = owner.get(query).expect(200);
    assert_eq!(estimate["room"], true);
    // 0.0000002 + 1 s x 0.000014 + 0.5 GiB s x 0.0000045
    assert_eq!(estimate["amount"], "0.00001645", "{estimate}");
    assert_eq!(estimate["quantities"]["cpu_us"], "1000000");
    let limits =
        json!({"wall_ms": 2000, "cpu_ms": 1000, "cpu_millis": 1000, "memory_bytes": 268_435_456});
    let body = json!({"code": "wait", "limits": limits});
    server.running(&owner, &body);
    let holds = owner.get("/v1/holds").expect(200);
    let held = holds["items"][0]["amount"].as_str().unwrap();
    assert!(held.starts_with("0.00001645"), "{holds}");
    server.quota(
        "acme",
        &json!([{"meter": "executions", "window": "lifetime", "limit": "1"}]),
    );
    let full = owner.get(query).expect(200);
    assert_eq!(full["room"], false);
    assert_eq!(full["code"], "quota_exceeded");
    assert_eq!(full["violated"][0]["cause"], "held", "{full}");
    let denials = owner.get("/v1/denials").expect(200);
    assert_eq!(denials["items"], json!([]), "asking is no denial");
    owner
        .get("/v1/estimate?wall_ms=0&cpu_ms=x")
        .problem(400, "invalid_argument");
}

#[test]
fn grants_stay_readable_with_what_became_of_them() {
    let server = TestServer::start();
    let acme = server.tenant("acme");
    card_in_force(&server, per_execution("flat", "USD", "1"));
    let terms = json!({"rate_card": "flat"});
    let admin = server.admin();
    admin.put("/v1/tenants/acme/terms", &terms).expect(200);
    let give = |name: &str, amount: &str, priority: u8| {
        let grant = json!({"tenant": "acme", "name": name, "amount": amount, "currency": "USD",
                           "priority": priority});
        admin.post("/v1/grants", &grant).expect(201)
    };
    let spent = give("spent", "0.5", 0);
    let voided = give("voided", "2", 1);
    let live = give("live", "3", 2);
    run(&acme);
    let path = format!("/v1/tenants/acme/grants/{}", voided["entry"]);
    assert_eq!(admin.delete(&path).status, 204);
    run(&acme);
    let all = acme.get("/v1/grants?state=all").expect(200);
    let brief = |grant: &Value| {
        let part = |name: &str| grant[name].as_str().unwrap().to_owned();
        let parts = ["name", "state", "amount", "used", "left"];
        parts.map(part).join(" ")
    };
    let items = all["items"].as_array().unwrap();
    let found: Vec<String> = items.iter().map(brief).collect();
    let expected = [
        "spent spent 0.5 0.5 0",
        "voided voided 2 0.5 0",
        "live live 3 1 2",
    ];
    assert_eq!(found, expected);
    let gone = &items[1]["voided"];
    assert_eq!(gone["left"], "1.5", "{gone}");
    assert!(gone["by"].is_string() && gone["entry"].as_u64() > voided["entry"].as_u64());
    for (state, entry) in [("spent", &spent), ("voided", &voided), ("live", &live)] {
        let list = acme.get(&format!("/v1/grants?state={state}")).expect(200);
        assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
        assert_eq!(list["items"][0]["entry"], entry["entry"]);
    }
    let first = acme.get("/v1/grants?state=all&limit=2").expect(200);
    let next = first["next_cursor"].as_str().unwrap();
    let path = format!("/v1/grants?state=all&limit=2&cursor={next}");
    let rest = acme.get(&path).expect(200);
    assert_eq!(rest["items"], json!([items[2]]));
    assert_eq!(rest["next_cursor"], Value::Null);
    acme.get("/v1/grants?state=gone")
        .problem(400, "invalid_argument");
    let left = acme.get("/v1/grants").expect(200);
    assert_eq!(left["items"], json!([items[2]]));
    let statement = acme.get("/v1/statements").expect(200);
    let lines = statement["items"].as_array().unwrap().iter();
    let credit = lines.filter(|line| line["kind"] == "credit");
    let names: Vec<&str> = credit
        .map(|line| line["description"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["spent", "voided", "live"]);
}

#[test]
fn a_grant_is_made_once_under_a_key() {
    let server = TestServer::start();
    let acme = server.tenant("acme");
    let grant = json!({"tenant": "acme", "name": "trial", "amount": "5", "currency": "USD"});
    let send = |body: &Value| {
        server
            .admin()
            .request("POST", "/v1/grants")
            .header("Idempotency-Key", "\"invoice-7\"")
            .json(body)
            .send()
    };
    let first = send(&grant).expect(201);
    run(&acme);
    let again = send(&grant);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let again = again.expect(200);
    assert_eq!(again["entry"], first["entry"]);
    assert_ne!(again["left"], first["left"], "as it now is");
    let mut other = grant;
    other["amount"] = json!("6");
    send(&other).problem(422, "idempotency_mismatch");
    let list = acme.get("/v1/grants?state=all").expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
}
