//! Budgets: told once at each threshold, in whatever scope and zone, across restarts.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::client::Client;
use crate::periods::{approve, did, operator, propose};
use crate::receiver::Receiver;
use crate::server::{TestServer, until};
use runtime::fake::FakeOptions;

/// Loopback may be sent to, looks are frequent, and failures are tried again at once.
const FLAGS: [(&str, &str); 3] = [
    ("webhooks.allow_addresses", "[\"127.0.0.1/32\"]"),
    ("webhooks.backoff_ms", "1"),
    ("budgets.look_ms", "1"),
];

fn start() -> TestServer {
    TestServer::with(&FLAGS, FakeOptions::default())
}

fn hook(client: &Client, receiver: &Receiver) {
    client
        .put("/v1/webhooks/hook", &json!({"url": receiver.url()}))
        .expect(201);
}

/// A budget of `amount` runs for ever.
fn runs(name: &str, amount: &str, thresholds: &Value) -> Value {
    json!({"name": name, "meter": "executions", "window": "lifetime", "amount": amount,
           "thresholds": thresholds, "webhook": "hook"})
}

#[track_caller]
fn put(server: &TestServer, budgets: &Value) -> Value {
    let path = "/v1/tenants/acme/budgets";
    server
        .admin()
        .put(path, &json!({"budgets": budgets}))
        .expect(200)
}

fn run(owner: &Client) -> Value {
    owner
        .post("/v1/executions", &json!({"code": "cpu_us 5000"}))
        .expect(200)
}

/// Waits until the webhook has that many deliveries that were received; answers their events,
/// oldest first.
fn delivered(owner: &Client, count: usize) -> Vec<Value> {
    let mut items = until(|| {
        let list = owner.get("/v1/webhooks/hook/deliveries").expect(200);
        let items = list["items"].as_array().unwrap().clone();
        let done = items
            .iter()
            .filter(|one| one["state"] == "delivered")
            .count();
        (done >= count).then_some(items)
    });
    assert_eq!(items.len(), count, "{items:?}");
    items.reverse();
    items.into_iter().map(|one| one["event"].clone()).collect()
}

fn percents(events: &[Value]) -> Vec<u64> {
    let each = events
        .iter()
        .map(|event| &event["data"]["threshold_percent"]);
    each.map(|percent| percent.as_u64().unwrap()).collect()
}

#[test]
fn each_threshold_is_told_once_with_its_figures() {
    let (server, receiver) = (start(), Receiver::start());
    let owner = server.tenant("acme");
    hook(&owner, &receiver);
    put(&server, &json!([runs("runs", "4", &json!([25, 50, 100]))]));
    run(&owner);
    assert_eq!(percents(&delivered(&owner, 1)), [25]);
    run(&owner);
    assert_eq!(percents(&delivered(&owner, 2)), [25, 50]);
    run(&owner);
    run(&owner);
    let events = delivered(&owner, 3);
    assert_eq!(percents(&events), [25, 50, 100]);
    let last = &events[2];
    assert_eq!(last["specversion"], "1.0");
    assert_eq!(last["type"], "dev.farebox.budget.threshold.v1");
    assert_eq!(
        (&last["source"], &last["subject"]),
        (&json!("/farebox/node-1"), &json!("acme"))
    );
    let data = &last["data"];
    assert_eq!(
        (&data["tenant"], &data["budget"]),
        (&json!("acme"), &json!("runs"))
    );
    assert_eq!(
        (&data["posted"], &data["amount"]),
        (&json!("4"), &json!("4"))
    );
    assert_eq!(
        (&data["resets_at"], &data["scope"]),
        (&Value::Null, &Value::Null)
    );
    assert!(data["as_of"]["seq"].as_u64().unwrap() >= 4, "{last}");
    let sent: Vec<Value> = receiver.received().iter().map(|one| one.event()).collect();
    assert_eq!(sent, events);
    let budgets = owner.get("/v1/budgets").expect(200);
    let budget = &budgets["items"][0];
    assert_eq!(
        (&budget["posted"], &budget["used_percent"]),
        (&json!("4"), &json!("100"))
    );
    assert_eq!(budget["fired"], json!([25, 50, 100]));
}

#[test]
fn a_restart_neither_fires_again_nor_misses_a_firing() {
    let receiver = Receiver::start();
    let mut server = start();
    let owner = server.tenant("acme");
    hook(&owner, &receiver);
    put(&server, &json!([runs("runs", "2", &json!([50, 100]))]));
    run(&owner);
    let first = delivered(&owner, 1);
    server.restart();
    let owner = server.reach(&owner);
    run(&owner);
    let events = delivered(&owner, 2);
    assert_eq!(percents(&events), [50, 100]);
    assert_eq!(events[0], first[0]);
    server.restart();
    let owner = server.reach(&owner);
    assert_eq!(delivered(&owner, 2), events);
    assert_eq!(receiver.received().len(), 2);
}

/// The server looks once, at its start, and then not for an hour: what is used meanwhile is found
/// by the next one.
#[test]
fn what_a_server_did_not_look_at_any_more_is_found_by_the_next() {
    let receiver = Receiver::start();
    let flags = [FLAGS[0], FLAGS[1], ("budgets.look_ms", "3600000")];
    let mut server = TestServer::with(&flags, FakeOptions::default());
    let owner = server.tenant("acme");
    hook(&owner, &receiver);
    put(&server, &json!([runs("runs", "2", &json!([100]))]));
    run(&owner);
    run(&owner);
    server.restart();
    let owner = server.reach(&owner);
    assert_eq!(percents(&delivered(&owner, 1)), [100]);
}

/// The same event, known by its id, is all that is sent when memory of it is lost altogether.
#[test]
fn without_its_outbox_a_server_fires_the_same_events_again() {
    let receiver = Receiver::start();
    let mut server = start();
    let owner = server.tenant("acme");
    hook(&owner, &receiver);
    put(&server, &json!([runs("runs", "1", &json!([100]))]));
    run(&owner);
    let first = delivered(&owner, 1);
    server.restart_after(|dir| std::fs::remove_file(dir.join("outbox/log")).unwrap());
    let owner = server.reach(&owner);
    assert_eq!(delivered(&owner, 1)[0]["id"], first[0]["id"]);
}

#[test]
fn a_changed_amount_begins_anew_and_the_same_one_does_not() {
    let (server, receiver) = (start(), Receiver::start());
    let owner = server.tenant("acme");
    hook(&owner, &receiver);
    put(&server, &json!([runs("runs", "1", &json!([100]))]));
    run(&owner);
    delivered(&owner, 1);
    put(&server, &json!([runs("runs", "1", &json!([50, 100]))]));
    assert_eq!(percents(&delivered(&owner, 2)), [100, 50]);
    put(&server, &json!([runs("runs", "2", &json!([50, 100]))]));
    let events = delivered(&owner, 3);
    assert_eq!(percents(&events), [100, 50, 50]);
    assert_eq!(events[2]["data"]["amount"], "2");
}

/// Money, CPU time, a project, a key, and a zone whose month the ledger has not counted from its
/// beginning: each counts what was used before the budget was there.
#[test]
fn every_scope_and_zone_is_counted() {
    let (server, receiver) = (start(), Receiver::start());
    let owner = server.tenant("acme");
    hook(&owner, &receiver);
    let web = owner.post(
        "/v1/executions",
        &json!({"code": "cpu_us 5000", "project": "web"}),
    );
    web.expect(200);
    run(&owner);
    let entries = owner.get("/v1/entries?kind=settlement").expect(200);
    let key = &entries["items"][0]["key"];
    let budget = |name: &str, more: Value| {
        let mut budget = json!({"name": name, "meter": "executions", "window": "month",
                                "amount": "2", "thresholds": [100], "webhook": "hook"});
        budget
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        budget
    };
    let shown = put(
        &server,
        &json!([
            budget("all", json!({})),
            budget("web", json!({"scope": {"project": "web"}, "amount": "1"})),
            budget("key", json!({"scope": {"key": key}})),
            budget("tokyo", json!({"timezone": "Asia/Tokyo"})),
            budget("money", json!({"meter": "cost", "amount": "0.0000001"})),
            budget(
                "cpu",
                json!({"meter": "cpu_us", "window": "day", "amount": "9000"})
            ),
            budget(
                "other",
                json!({"scope": {"project": "other"}, "amount": "1"})
            ),
        ]),
    );
    let events = delivered(&owner, 6);
    let mut names: Vec<&str> = events
        .iter()
        .map(|event| event["data"]["budget"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["all", "cpu", "key", "money", "tokyo", "web"]);
    let posted = |at: usize| shown["items"][at]["posted"].clone();
    assert_eq!(
        [posted(0), posted(1), posted(3), posted(6)],
        ["2", "1", "2", "0"]
    );
    // What a budget counts is no quota.
    let quotas = owner.get("/v1/quotas").expect(200);
    assert!(!quotas.to_string().contains("Tokyo"), "{quotas}");
}

#[test]
fn a_budget_refuses_nothing_and_leaves_quotas_as_they_are() {
    let server = start();
    let owner = server.tenant("acme");
    let quotas = json!([{"meter": "executions", "window": "lifetime", "limit": "2"}]);
    server.quota("acme", &quotas);
    let before = owner.get("/v1/quotas").expect(200);
    let mut budget = runs("runs", "1", &json!([100]));
    budget["webhook"] = Value::Null;
    put(&server, &json!([budget]));
    let seen: Value = owner.get("/v1/quotas").expect(200);
    assert_eq!(seen["items"], before["items"]);
    run(&owner);
    run(&owner);
    owner
        .post("/v1/executions", &json!({"code": "print 1"}))
        .problem(429, "quota_exceeded");
    until(|| {
        let budgets = owner.get("/v1/budgets").expect(200);
        (budgets["items"][0]["fired"] == json!([100])).then_some(())
    });
    server
        .admin()
        .delete("/v1/tenants/acme/budgets")
        .expect(204);
    assert_eq!(owner.get("/v1/budgets").expect(200)["items"], json!([]));
    server
        .admin()
        .delete("/v1/tenants/acme/budgets")
        .expect(204);
}

#[test]
fn budgets_are_replaced_whole_and_only_as_they_were_seen() {
    let server = start();
    server.tenant("acme");
    let admin = server.admin();
    let path = "/v1/tenants/acme/budgets";
    let mut budget = runs("runs", "1", &json!([100]));
    budget["webhook"] = Value::Null;
    let put = |tag: &str, budgets: &Value| {
        let request = admin.request("PUT", path).header("If-Match", tag);
        request.json(&json!({"budgets": budgets})).send()
    };
    let first = put("\"0\"", &json!([budget]));
    first.expect(200);
    let tag = first.header("etag").unwrap().to_owned();
    put("\"0\"", &json!([])).problem(409, "conflict");
    let emptied = put(&tag, &json!([]));
    emptied.expect(200);
    assert_eq!(emptied.header("etag"), Some("\"0\""));
    put("\"0\"", &json!([budget])).expect(200);
}

#[test]
fn malformed_budgets_are_refused_whole() {
    let server = start();
    server.tenant("acme");
    let admin = server.admin();
    let mut good = runs("runs", "1", &json!([100]));
    good["webhook"] = Value::Null;
    let path = "/v1/tenants/acme/budgets";
    for (member, value, pointer) in [
        ("name", json!("runs"), "/budgets/1"),
        ("name", json!("../x"), "/budgets/1/name"),
        ("window", json!("hour"), "/budgets/1/window"),
        ("amount", json!("0"), "/budgets/1/amount"),
        ("thresholds", json!([100, 50]), "/budgets/1/thresholds/1"),
        ("webhook", json!("nowhere"), "/budgets/1/webhook"),
        ("webhook", json!("operator:nowhere"), "/budgets/1/webhook"),
        ("limit", json!("1"), "/budgets/1/limit"),
    ] {
        let mut bad = good.clone();
        bad["name"] = json!("other");
        bad[member] = value;
        let answer = admin.put(path, &json!({"budgets": [good, bad]}));
        let problem = answer.problem(400, "invalid_argument");
        let found = problem["errors"][0]["pointer"].as_str().unwrap();
        assert_eq!(found.replace("~1", "/"), pointer, "{problem}");
    }
    let many: Vec<Value> = (0..17)
        .map(|n| {
            let mut one = good.clone();
            one["name"] = json!(format!("b{n}"));
            one
        })
        .collect();
    admin
        .put(path, &json!({"budgets": many}))
        .problem(400, "invalid_argument");
    assert_eq!(admin.get(path).expect(200)["items"], json!([]));
}

#[test]
fn operators_set_budgets_and_tenants_see_their_own() {
    let server = start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let mut budget = runs("secretplan", "1", &json!([100]));
    budget["webhook"] = Value::Null;
    put(&server, &json!([budget]));
    let path = "/v1/tenants/acme/budgets";
    acme.put(path, &json!({"budgets": []}))
        .problem(403, "forbidden");
    acme.delete(path).problem(403, "forbidden");
    acme.get(path).problem(403, "forbidden");
    other.get(path).problem(404, "not_found");
    other
        .get("/v1/budgets?tenant=acme")
        .problem(404, "not_found");
    let theirs = other.get("/v1/budgets").expect(200);
    assert_eq!(theirs["items"], json!([]));
    let runner = server.token("acme", "runner");
    runner.get("/v1/budgets").problem(403, "forbidden");
    let billing = server.token("acme", "billing");
    assert_eq!(
        billing.get("/v1/budgets").expect(200)["items"][0]["name"],
        "secretplan"
    );
    let all = server.admin().get("/v1/budgets?tenant=acme").expect(200);
    assert_eq!(all["items"][0]["name"], "secretplan");
}

/// A clock that stands still.
#[derive(Debug)]
struct At(i64);

impl ledger::Clock for At {
    fn now_us(&self) -> i64 {
        self.0
    }
}

/// Writes a ledger into `dir` in which acme has a budget for a day, has run once yesterday, and
/// what `then` does; that is all.
fn yesterdays_ledger(dir: &Path, budget: &Value, then: impl FnOnce(&ledger::Ledger)) {
    let yesterday = jiff::Timestamp::now().as_microsecond() - 24 * 3_600 * 1_000_000;
    let flags = vec![
        (
            "server.data_dir".to_owned(),
            dir.to_str().unwrap().to_owned(),
        ),
        ("ledger.segment_bytes".to_owned(), "1048576".to_owned()),
    ];
    let config = api::Config::with(flags).unwrap();
    let ledger = ledger::Ledger::open(config.ledger.clone(), Arc::new(At(yesterday))).unwrap();
    let act = |subject: &str, document: Option<Value>, effect: Option<ledger::Effect>| {
        let act = ledger::Act {
            actor: "server".to_owned(),
            action: "set".to_owned(),
            subject: subject.to_owned(),
            tenant: None,
            reason: None,
            document: document.map(|document| document.to_string().into_bytes()),
            effect,
            expect: None,
        };
        ledger.act(act).unwrap().wait().unwrap().unwrap();
    };
    act(
        "rate/standard",
        None,
        Some(ledger::Effect::RateCard(config.rates[0].clone())),
    );
    let profile = json!({"name": "acme", "display_name": null, "created_us": 0,
                         "suspended": false});
    let known = ledger::Effect::Tenant {
        tenant: "acme".to_owned(),
        suspended: false,
        concurrency: 1,
        quotas: Vec::new(),
    };
    act("tenant/acme", Some(profile), Some(known));
    act("budgets/acme", Some(json!([budget])), None);
    let hold = ledger::HoldRequest {
        hold: ledger::Id([1; 16]),
        execution: ledger::Id([2; 16]),
        tenant: "acme".to_owned(),
        project: "default".to_owned(),
        function: None,
        key: "key".to_owned(),
        image: "python".to_owned(),
        tags: Vec::new(),
        ceiling: ledger::Ceiling {
            cpu_ms: 1,
            wall_ms: 1,
            cpu_millis: 1_000,
            memory_bytes: 1,
        },
        on_low: ledger::OnLow::Refuse,
        max_cost: None,
        idempotency: None,
    };
    ledger.hold(hold).unwrap().wait().unwrap().unwrap();
    let settlement = ledger::Settlement {
        hold: ledger::Id([1; 16]),
        measured: ledger::Quantities {
            executions: 1,
            ..ledger::Quantities::default()
        },
        outcome: "exited:0".to_owned(),
        estimated: false,
    };
    ledger.settle(settlement).unwrap().wait().unwrap().unwrap();
    then(&ledger);
    ledger.close().unwrap();
}

/// What ran before midnight, and was not looked at any more, is told of by the next server: with
/// the figures and the window of the day on which it ran.
#[test]
fn a_window_that_ended_without_a_look_is_told_of_by_the_next_server() {
    let receiver = Receiver::start();
    let mut server = start();
    let admin = server.admin();
    hook(&admin, &receiver);
    let budget = json!({"name": "daily", "meter": "executions", "window": "day",
        "timezone": "UTC", "amount": "1", "thresholds": [100], "webhook": null});
    server.restart_after(|dir| {
        std::fs::remove_dir_all(dir.join("ledger")).unwrap();
        yesterdays_ledger(dir, &budget, |_| ());
    });
    let admin = server.reach(&admin);
    until(|| {
        let metrics = admin.without_token().get("/metrics").text();
        metrics
            .contains("farebox_budget_alerts_total 1")
            .then_some(())
    });
    let budgets = admin.get("/v1/budgets?tenant=acme").expect(200);
    let daily = &budgets["items"][0];
    assert_eq!(
        (&daily["posted"], &daily["fired"]),
        (&json!("0"), &json!([]))
    );
    server.restart();
    let log = std::fs::read_to_string(server.data_dir().join("outbox/log")).unwrap();
    assert_eq!(log.matches("evt_").count(), 1, "{log}");
}

/// Charges acme $2.5 by an adjustment.
fn charge_more(ledger: &ledger::Ledger) {
    let proposal = ledger::Proposal {
        tenant: "acme".to_owned(),
        currency: "USD".to_owned(),
        amount: ledger::Money::parse("2.5").unwrap(),
        subject: "ann".to_owned(),
        what: ledger::Adjustment::Line {
            description: "support".to_owned(),
        },
    };
    let proposal = did(ledger, "ann", ledger::Effect::Propose(proposal));
    let subject = "bob".to_owned();
    did(ledger, "bob", ledger::Effect::Approve { proposal, subject });
}

/// What was charged by an adjustment counts in the window that has ended, as it did while it ran.
#[test]
fn an_adjustment_counts_in_the_window_that_has_ended() {
    let receiver = Receiver::start();
    let mut server = start();
    let admin = server.admin();
    hook(&admin, &receiver);
    let budget = json!({"name": "daily", "meter": "cost", "window": "day",
        "timezone": "UTC", "amount": "2", "thresholds": [100], "webhook": null});
    server.restart_after(|dir| {
        std::fs::remove_dir_all(dir.join("ledger")).unwrap();
        yesterdays_ledger(dir, &budget, charge_more);
    });
    let admin = server.reach(&admin);
    until(|| {
        let metrics = admin.without_token().get("/metrics").text();
        metrics
            .contains("farebox_budget_alerts_total 1")
            .then_some(())
    });
}

/// A threshold that an adjustment has reached fires though nothing runs.
#[test]
fn an_approved_adjustment_is_looked_at() {
    let server = start();
    server.tenant("acme");
    let admin = server.admin();
    let budgets = json!([{"name": "monthly", "meter": "cost", "window": "month",
        "timezone": "UTC", "amount": "2", "thresholds": [100]}]);
    let path = "/v1/tenants/acme/budgets";
    admin.put(path, &budgets).expect(200);
    let line = json!({"tenant": "acme", "amount": "2.5", "description": "support",
        "reason": "asked"});
    let finance = operator(&server, api::Role::Finance, "finance");
    approve(&finance, &propose(&server, &line)).expect(200);
    until(|| {
        let budgets = admin.get("/v1/budgets?tenant=acme").expect(200);
        (budgets["items"][0]["fired"] == json!([100])).then_some(())
    });
}
