//! Who did what, and whether the books agree: for operators alone.

use serde_json::{Value, json};

use crate::client::Client;
use crate::periods::{approve, operator, propose};
use crate::server::TestServer;

fn items(client: &Client, query: &str) -> Vec<Value> {
    let list = client
        .get(&format!("/v1/audit?limit=1000&{query}"))
        .expect(200);
    assert!(list["as_of"]["seq"].is_u64(), "{list}");
    list["items"].as_array().unwrap().clone()
}

/// The hours around now, as parameters.
fn around_now() -> String {
    let now = jiff::Timestamp::now().as_second();
    let hour = |hours: i64| {
        let start = now - now.rem_euclid(3_600) + hours * 3_600;
        jiff::Timestamp::from_second(start).unwrap()
    };
    format!("from={}&to={}", hour(-1), hour(2))
}

fn run(client: &Client, cpu_us: u64) {
    let body = json!({"code": format!("cpu_us {cpu_us}")});
    client.post("/v1/executions", &body).expect(200);
}

#[test]
fn acts_are_listed_by_actor_action_subject_and_tenant() {
    let server = TestServer::start();
    let acme = server.tenant("acme");
    server.tenant("other");
    run(&acme, 5);
    let admin = server.admin();
    let suspended = admin.post("/v1/tenants/acme/suspend", &json!({"reason": "unpaid"}));
    suspended.expect(200);
    let all = items(&admin, "");
    assert!(all.iter().all(|act| act["kind"] == "act"), "{all:?}");
    let numbers: Vec<u64> = all.iter().map(|act| act["seq"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted());
    let entries = admin.get("/v1/entries?limit=1000&kind=act").expect(200);
    assert_eq!(
        entries["items"].as_array().unwrap(),
        &all,
        "audit and entries differ"
    );
    // Each filter gives exactly those that a look through all of them finds.
    let last = all.last().unwrap();
    assert_eq!(
        (&last["tenant"], &last["reason"]),
        (&json!("acme"), &json!("unpaid"))
    );
    for name in ["actor", "action", "subject", "tenant"] {
        let value = last[name].as_str().unwrap();
        let same = |act: &&Value| act[name] == value;
        let expected: Vec<Value> = all.iter().filter(same).cloned().collect();
        assert_eq!(
            items(&admin, &format!("{name}={value}")),
            expected,
            "{name}"
        );
        assert!(
            expected.len() < all.len() || name == "actor",
            "{name} filters nothing"
        );
    }
    assert_eq!(items(&admin, "actor=nobody"), Vec::<Value>::new());
    let at = last["at"].as_str().unwrap();
    assert_eq!(&items(&admin, &format!("from={at}"))[0], last);
    assert_eq!(items(&admin, &format!("to={at}")).len(), all.len() - 1);
    assert_eq!(admin.get("/v1/audit?tenant=nobody").status, 404);
}

/// The last act of an action.
fn last(server: &TestServer, action: &str) -> Value {
    let acts = items(&server.admin(), &format!("action={action}"));
    let last = acts.last();
    last.unwrap_or_else(|| panic!("no {action}")).clone()
}

/// Each act says what it has done, not only that it was.
#[test]
fn acts_tell_what_was_done() {
    let server = TestServer::start();
    server.tenant("acme");
    let admin = server.admin();
    let grant = json!({"tenant": "acme", "name": "trial", "amount": "5", "currency": "USD",
                       "expires_at": "2999-01-01T00:00:00Z", "reason": "asked"});
    let grant = admin.post("/v1/grants", &grant).expect(201)["entry"].clone();
    let path = format!("/v1/tenants/acme/grants/{grant}");
    assert_eq!(admin.delete(&path).status, 204);
    let quotas = json!([{"meter": "executions", "window": "day", "limit": "10"}]);
    server.quota("acme", &quotas);
    let budgets = json!([{"name": "b", "meter": "cost", "window": "month", "amount": "5",
                          "thresholds": [50]}]);
    for (of, body) in [
        ("terms", json!({"prepaid": true})),
        ("limits", json!({"concurrency": 3})),
        ("budgets", budgets),
    ] {
        let path = format!("/v1/tenants/acme/{of}");
        admin.put(&path, &body).expect(200);
    }
    let token = json!({"name": "ci", "role": "runner", "expires_in_s": 60});
    let token = server.mint("acme", &token).expect(201);
    let path = format!("/v1/tokens/{}", token["jti"].as_str().unwrap());
    assert!(admin.delete(&path).status < 300);
    let end = json!("2999-01-01T00:00:00.000000Z");
    for (action, member, value) in [
        ("grant.add", "name", json!("trial")),
        ("grant.add", "amount", json!("5")),
        ("grant.add", "currency", json!("USD")),
        ("grant.add", "expires_at", end),
        ("grant.void", "grant", grant),
        ("terms.set", "prepaid", json!(true)),
        ("terms.set", "rate_card", Value::Null),
        ("limits.set", "concurrency", json!(3)),
        ("token.create", "jti", token["jti"].clone()),
        ("token.create", "name", json!("ci")),
        ("token.create", "scopes", token["scopes"].clone()),
        ("token.revoke", "jti", token["jti"].clone()),
        ("rate.set", "currency", json!("USD")),
        ("tenant.create", "suspended", json!(false)),
    ] {
        let act = last(&server, action);
        assert_eq!(act["detail"][member], value, "{action}: {act}");
    }
    let of = |action: &str, list: &str| last(&server, action)["detail"][list][0].clone();
    assert_eq!(of("quotas.set", "quotas")["limit"], "10");
    assert_eq!(of("budgets.set", "budgets")["name"], "b");
}

#[test]
fn approvals_and_rejections_are_acts() {
    let server = TestServer::start();
    let acme = server.tenant("acme");
    run(&acme, 5);
    let settled = acme.get("/v1/entries?kind=settlement").expect(200);
    let entry = settled["items"][0]["seq"].clone();
    let finance = operator(&server, api::Role::Finance, "finance");
    let reversal = json!({"tenant": "acme", "reverses": entry, "reason": "our fault"});
    approve(&finance, &propose(&server, &reversal)).expect(200);
    let line = json!({"tenant": "acme", "amount": "-1", "description": "x", "reason": "asked"});
    let id = propose(&server, &line);
    let path = format!("/v1/adjustments/{id}/reject");
    finance.post(&path, &json!({"reason": "never"})).expect(200);

    let approved = last(&server, "adjustment.approve");
    assert_eq!(
        (&approved["kind"], &approved["subject"]),
        (&json!("adjustment"), &json!("adjustments/acme"))
    );
    assert_eq!(approved["adjustment"]["reverses"], entry);
    assert_eq!(approved["actor"], approved["adjustment"]["approver"]["key"]);
    let rejected = last(&server, "adjustment.reject");
    assert_eq!(rejected["reason"], "never");
    assert_eq!(rejected["detail"]["adjustment"], json!(id));
    let proposed = last(&server, "adjustment.propose");
    assert_eq!(
        (
            &proposed["detail"]["amount"],
            &proposed["detail"]["description"]
        ),
        (&json!("-1"), &json!("x"))
    );
    // One after the other, in pages of one, and each once.
    let (admin, mut seen, mut cursor) = (server.admin(), Vec::new(), 0);
    while let Some(next) = admin
        .get(&format!("/v1/audit?tenant=acme&limit=1&cursor={cursor}"))
        .expect(200)["items"]
        .get(0)
        .and_then(|act| act["seq"].as_u64())
    {
        seen.push(next);
        cursor = next;
    }
    let all = items(&admin, "tenant=acme");
    let all: Vec<u64> = all.iter().map(|act| act["seq"].as_u64().unwrap()).collect();
    assert_eq!(seen, all);
}

#[test]
fn pages_of_acts_join_without_gap_or_overlap() {
    let server = TestServer::start();
    for name in ["a1", "a2", "a3", "a4"] {
        server.tenant(name);
    }
    let admin = server.admin();
    let all = items(&admin, "");
    for filter in ["", "&actor=server", "&action=tenant.create"] {
        let expected = items(&admin, &filter.replace('&', ""));
        let (mut found, mut cursor) = (Vec::new(), String::new());
        for _ in 0..=all.len() {
            let page = admin
                .get(&format!("/v1/audit?limit=2{filter}{cursor}"))
                .expect(200);
            found.extend(page["items"].as_array().unwrap().clone());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(found, expected, "{filter}");
    }
}

#[test]
fn entries_rows_balances_and_the_kernel_agree() {
    let mut server = TestServer::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    for cpu_us in [1_000, 2_500, 70] {
        run(&acme, cpu_us);
        run(&other, 3 * cpu_us);
    }
    let path = format!("/v1/reconciliation?{}", around_now());
    let found = server.admin().get(&path).expect(200);
    assert_eq!(found["agrees"], true, "{found}");
    assert_eq!(found["range"]["settlements"], 6);
    let totals = found["range"]["totals"].as_array().unwrap();
    let of = |meter: &str| totals.iter().find(|pair| pair["meter"] == meter).unwrap();
    for (meter, sum) in [("executions", "6"), ("cpu_us", "14280")] {
        assert_eq!(
            of(meter)["found"],
            json!({"entries": sum, "rows": sum}),
            "{found}"
        );
    }
    assert!(
        of("cost")["found"]["entries"]
            .as_str()
            .unwrap()
            .starts_with("0."),
        "{found}"
    );
    for part in ["range", "balances"] {
        assert_eq!(found[part]["differences"], json!([]));
    }
    let balances = found["balances"]["totals"].as_array().unwrap();
    assert!(
        balances
            .iter()
            .any(|pair| pair["found"] == json!({"rows": "6", "balances": "6"}))
    );
    let month = &found["statements"][0];
    assert_eq!(
        (&month["state"], &month["differences"]),
        (&json!("open"), &json!([])),
        "{found}"
    );
    let costs = &month["totals"][0]["found"];
    assert_eq!(costs["statements"], costs["rows"]);
    assert_eq!(found["limits"]["differences"], json!([]));
    assert!(found["limits"]["checked"].as_u64().unwrap() >= 6, "{found}");
    let cpu = &found["cpu"];
    assert_eq!(
        (&cpu["agrees"], &cpu["unexplained_us"]),
        (&json!(true), &json!(0)),
        "{cpu}"
    );
    assert_eq!(
        (&cpu["kernel_us"], &cpu["charged_us"]),
        (&json!(14280), &json!(14280)),
        "{cpu}"
    );
    assert_eq!(
        (&cpu["residual_us"], &cpu["executions"]),
        (&json!(0), &json!(6))
    );
    // What ran before a restart is in the books, and not in this server's count.
    server.restart();
    let found = server.admin().get(&path).expect(200);
    assert_eq!(
        (&found["agrees"], &found["range"]["settlements"]),
        (&json!(true), &json!(6))
    );
    assert_eq!(
        (&found["cpu"]["kernel_us"], &found["cpu"]["executions"]),
        (&json!(0), &json!(0))
    );
}

#[test]
fn audit_and_reconciliation_are_for_operators_and_good_ranges() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let reconcile = format!("/v1/reconciliation?{}", around_now());
    for path in ["/v1/audit", reconcile.as_str()] {
        owner.get(path).problem(403, "forbidden");
        server
            .token("acme", "billing")
            .get(path)
            .problem(403, "forbidden");
        owner
            .without_token()
            .get(path)
            .problem(401, "unauthenticated");
    }
    let admin = server.admin();
    for query in [
        "",
        "from=2026-01-01T00:00:00Z",
        "from=x&to=y",
        "from=2026-01-01T00:30:00Z&to=2026-01-02T00:00:00Z",
        "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "from=2026-01-01T00:00:00Z&to=2026-02-02T00:00:00Z",
        "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&odd=1",
    ] {
        let refused = admin.get(&format!("/v1/reconciliation?{query}"));
        refused.problem(400, "invalid_argument");
    }
    for query in ["odd=1", "from=x", "cursor=x", "limit=0"] {
        admin
            .get(&format!("/v1/audit?{query}"))
            .problem(400, "invalid_argument");
    }
}
