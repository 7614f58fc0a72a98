//! Usage, entries and holds as finance reads them: every figure adds up.

use serde_json::{Value, json};

use crate::server::TestServer;

#[test]
fn usage_is_the_sum_of_the_runs_by_tenant_and_by_meter() {
    let server = TestServer::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let mut cpu = 0;
    for n in 1..=3 {
        let body = json!({"code": format!("cpu_us {}", n * 1000)});
        cpu += acme.post("/v1/executions", &body).expect(200)["usage"]["cpu_us"]
            .as_u64()
            .unwrap();
    }
    other
        .post("/v1/executions", &json!({"code": "print 1"}))
        .expect(200);
    let range = server.today();
    let by_tenant = server
        .admin()
        .get(&format!("/v1/usage?{range}&window=day&group_by=tenant"))
        .expect(200);
    let items = by_tenant["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{by_tenant}");
    let acme_item = items
        .iter()
        .find(|item| item["group"]["tenant"] == "acme")
        .unwrap();
    assert_eq!(acme_item["usage"]["executions"], "3");
    assert_eq!(acme_item["usage"]["cpu_us"], cpu.to_string());
    assert!(by_tenant["as_of"]["seq"].is_u64());
    let by_meter = acme
        .get(&format!("/v1/usage?{range}&window=day&group_by=meter"))
        .expect(200);
    let meters = by_meter["items"].as_array().unwrap();
    let of = |meter: &str| -> &Value {
        let mut found = meters.iter().filter(|item| item["meter"] == meter);
        found
            .next()
            .unwrap_or_else(|| panic!("{meter} is not in {by_meter}"))
    };
    assert_eq!(of("cpu_us")["quantity"], cpu.to_string());
    assert!(of("cpu_us")["unit"].is_string());
    assert_eq!(of("executions")["quantity"], "3");
}

#[test]
fn usage_windows_have_borders_and_a_bad_range_names_the_nearest() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let off = owner.get("/v1/usage?from=2026-01-01T00:30:00Z&to=2026-01-02T00:00:00Z&window=day");
    let problem = off.problem(400, "invalid_argument");
    assert!(
        problem.to_string().contains("2026-01-01T00:00:00Z"),
        "{problem}"
    );
    for query in [
        "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z&window=day",
        "from=x&to=2026-01-02T00:00:00Z&window=day",
        "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&window=fortnight",
        "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&window=day&group_by=colour",
        "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&window=day&tz=Mars/Olympus",
    ] {
        owner
            .get(&format!("/v1/usage?{query}"))
            .problem(400, "invalid_argument");
    }
    let zone = "from=2025-12-31T18:15:00Z&to=2026-01-31T18:15:00Z&window=month&tz=Asia/Kathmandu";
    owner.get(&format!("/v1/usage?{zone}")).expect(200);
}

#[test]
fn entries_are_dense_and_hold_the_receipt_of_each_run() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let record = owner
        .post("/v1/executions", &json!({"code": "cpu_us 777"}))
        .expect(200);
    let entries = server.admin().get("/v1/entries?limit=1000").expect(200);
    let items = entries["items"].as_array().unwrap();
    let numbers: Vec<u64> = items
        .iter()
        .map(|item| item["seq"].as_u64().unwrap())
        .collect();
    let first = numbers[0];
    assert!(
        numbers
            .iter()
            .enumerate()
            .all(|(n, seq)| *seq == first + n as u64),
        "{numbers:?}"
    );
    let receipt = record["receipt"]["entry"].as_u64().unwrap();
    let entry = items
        .iter()
        .find(|item| item["seq"].as_u64() == Some(receipt))
        .unwrap();
    assert_eq!(entry["kind"], "settlement");
    assert_eq!(entry["execution"], record["id"]);
    assert_eq!(entry["charge"]["total"], record["charge"]["total"]);
}

#[test]
fn an_open_hold_is_listed_while_its_run_lasts() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let id = server.running(&owner, &json!({"code": "wait"}));
    let holds = owner.get("/v1/holds?state=open").expect(200);
    let hold = &holds["items"][0];
    assert_eq!(hold["execution"], id.as_str(), "{holds}");
    assert_eq!(hold["state"], "open");
    assert_eq!(hold["scopes"][0], json!({"tenant": "acme"}), "{hold}");
    assert_eq!(hold["scopes"][1], json!({"project": "default"}));
    owner
        .get("/v1/holds?state=released")
        .problem(400, "invalid_argument");
    assert!(hold["quantities"]["cpu_us"].is_string() || hold["quantities"]["cpu_us"].is_u64());
    owner.delete(&format!("/v1/executions/{id}"));
    crate::server::finished(&owner, &id);
    assert_eq!(
        owner.get("/v1/holds?state=open").expect(200)["items"],
        json!([])
    );
}

#[test]
fn without_a_range_usage_is_of_this_month_and_costs_are_the_same_in_money() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let record = owner.post("/v1/executions", &json!({"code": "cpu_us 1000"}));
    let record = record.expect(200);
    let usage = owner.get("/v1/usage?window=month").expect(200);
    assert_eq!(usage["items"][0]["usage"]["executions"], "1", "{usage}");
    assert_eq!(usage["items"][0]["start"], usage["from"]);
    let costs = owner.get("/v1/costs?window=month").expect(200);
    assert_eq!(costs["items"][0]["cost"], record["charge"]["total"]);
    assert_eq!(costs["currency"], "USD");
}

#[test]
fn a_refusal_tells_how_the_limit_stood_and_pages_are_not_moved_by_others() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let few = json!([{"meter": "executions", "window": "lifetime", "limit": "1", "mode": "hard"}]);
    server.quota("acme", &few);
    let run = || owner.post("/v1/executions", &json!({"code": "print 1"}));
    run().expect(200);
    let refuse = |times: usize| {
        for _ in 0..times {
            run().problem(429, "quota_exceeded");
        }
    };
    refuse(3);
    let recent = |query: &str| {
        let path = format!("/v1/denials/recent?{query}");
        owner.get(&path).expect(200)
    };
    let page = recent("limit=2");
    let denial = &page["items"][0];
    let told = ["meter", "limit", "posted", "held", "requested"].map(|name| &denial[name]);
    let text = |text: &str| json!(text);
    let wanted = ["executions", "1", "1", "0", "1"].map(text);
    assert_eq!(told, wanted.each_ref(), "{denial}");
    assert_eq!(denial["function"], Value::Null);
    // Two more come in between: the next page goes on where this one ended.
    refuse(2);
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = recent(&format!("limit=2&cursor={cursor}"));
    assert_eq!(rest["items"].as_array().unwrap().len(), 1, "{rest}");
    assert_eq!(rest["next_cursor"], Value::Null);
    let at = |item: &Value| item["at"].as_str().unwrap().to_owned();
    let oldest = at(&rest["items"][0]);
    assert!(oldest < at(&page["items"][1]));
    let all = recent("")["items"].as_array().unwrap().len();
    let before = recent(&format!("to={oldest}"))["items"]
        .as_array()
        .unwrap()
        .len();
    let since = recent(&format!("from={oldest}"))["items"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!((all, before, since), (5, 0, 5));
    let counts = |query: &str| {
        let list = owner.get(&format!("/v1/denials?{query}")).expect(200);
        list["items"].as_array().unwrap().len()
    };
    assert!(counts("from=2020-01-01T00:00:00Z") > 0);
    assert_eq!(counts("to=2020-01-01T00:00:00Z"), 0);
}

#[test]
fn refusals_are_counted_by_what_refused() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let none = json!([{"meter": "executions", "window": "lifetime", "limit": "0", "mode": "hard"}]);
    server.quota("acme", &none);
    for _ in 0..3 {
        let refused = owner.post("/v1/executions", &json!({"code": "print 1"}));
        refused.problem(429, "quota_exceeded");
    }
    let denials = owner.get("/v1/denials").expect(200);
    let counts = denials["items"].as_array().unwrap().iter();
    let sum: u64 = counts
        .filter(|item| item["by"] == "tenant/executions/lifetime")
        .map(|item| item["count"].as_str().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(sum, 3, "{denials}");
}

#[test]
fn the_rate_card_is_shown_with_its_units() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let rates = owner.get("/v1/rates").expect(200);
    let card = &rates["items"][0];
    assert_eq!(card["currency"], "USD", "{rates}");
    let mut prices = card["prices"].as_array().unwrap().iter();
    let cpu = prices.find(|price| price["meter"] == "cpu_us").unwrap();
    assert_eq!(
        (&cpu["amount"], &cpu["unit_size"]),
        (&json!("0.000014"), &json!("1000000"))
    );
}
