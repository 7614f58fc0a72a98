//! Periods, statements, adjustments and previews: who may do what, and that what is closed stays.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ledger::{Act, Ceiling, Effect, HoldRequest, Id, Ledger, OnLow, Quantities, Settlement};
use serde_json::{Value, json};

use crate::client::Client;
use crate::server::TestServer;

/// A client with an operator's token of this role, which stands for `subject`.
pub(crate) fn operator(server: &TestServer, role: api::Role, subject: &str) -> Client {
    scoped(server, role.scopes(), subject)
}

fn scoped(
    server: &TestServer,
    scopes: std::collections::BTreeSet<api::Scope>,
    subject: &str,
) -> Client {
    let keys = api::Keys::open(server.data_dir(), &api::Clock::system()).unwrap();
    let options = api::Config::with(Vec::new()).unwrap().tokens;
    let mint = api::Mint {
        subject: subject.to_owned(),
        tenant: None,
        project: None,
        scopes,
        expires_s: 600,
    };
    let (text, _) = api::mint(&keys, &options, &api::Clock::system(), mint).unwrap();
    server.admin().with_token(&text)
}

fn run(client: &Client) -> Value {
    let body = json!({"code": "cpu_us 5000"});
    client.post("/v1/executions", &body).expect(200)
}

/// Proposes; answers the id.
pub(crate) fn propose(server: &TestServer, body: &Value) -> String {
    let made = server.admin().post("/v1/adjustments", body).expect(201);
    assert_eq!(made["state"], "pending", "{made}");
    made["id"].as_str().unwrap().to_owned()
}

pub(crate) fn approve(client: &Client, id: &str) -> crate::client::Answer {
    client.post(&format!("/v1/adjustments/{id}/approve"), &json!({}))
}

fn kinds(statement: &Value) -> Vec<&str> {
    let lines = statement["items"].as_array().unwrap();
    lines
        .iter()
        .map(|line| line["kind"].as_str().unwrap())
        .collect()
}

/// A decimal as a whole number of 10^-12.
pub(crate) fn units(text: &Value) -> i128 {
    ledger::Money::parse(text.as_str().unwrap()).unwrap().0
}

fn sum(lines: &Value) -> i128 {
    let lines = lines.as_array().unwrap().iter();
    lines.map(|line| units(&line["amount"])).sum()
}

#[derive(Debug)]
struct PastClock(AtomicI64);

impl ledger::Clock for PastClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A ledger in its last month, an hour before it ends, in which nothing has happened.
pub(crate) fn last_month(dir: &Path) -> (Ledger, api::Config) {
    drop(std::fs::remove_dir_all(dir.join("ledger")));
    let flag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let config = api::Config::with(vec![
        flag("server.data_dir", dir.to_str().unwrap()),
        flag("ledger.segment_bytes", "1048576"),
    ])
    .unwrap();
    let now = jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::UTC);
    let month = now.first_of_month().unwrap().start_of_day().unwrap();
    let before = month.timestamp().as_microsecond() - 3_600_000_000;
    let clock = Arc::new(PastClock(AtomicI64::new(before)));
    let ledger = Ledger::open(config.ledger.clone(), clock).unwrap();
    let card = ledger::RateCard {
        effective_from: 0,
        ..config.rates[0].clone()
    };
    did(&ledger, "seed", Effect::RateCard(card));
    (ledger, config)
}

/// Records an act of this actor; answers its entry.
pub(crate) fn did(ledger: &Ledger, actor: &str, effect: Effect) -> u64 {
    let act = Act {
        actor: actor.to_owned(),
        action: "seed".to_owned(),
        subject: "seed".to_owned(),
        tenant: None,
        reason: Some("seed".to_owned()),
        document: None,
        effect: Some(effect),
        expect: None,
    };
    ledger.act(act).unwrap().wait().unwrap().unwrap().entry
}

/// Makes a tenant known.
pub(crate) fn known(ledger: &Ledger, tenant: &str) {
    let tenant = Effect::Tenant {
        tenant: tenant.to_owned(),
        suspended: false,
        concurrency: 4,
        quotas: Vec::new(),
    };
    did(ledger, "seed", tenant);
}

/// Runs something of 0.7 s of CPU; answers its entry.
pub(crate) fn ran(ledger: &Ledger, tenant: &str, number: u8) -> u64 {
    let request = HoldRequest {
        hold: Id([number; 16]),
        execution: Id([number + 100; 16]),
        tenant: tenant.to_owned(),
        project: "default".to_owned(),
        function: None,
        key: "key".to_owned(),
        image: "python".to_owned(),
        tags: Vec::new(),
        ceiling: Ceiling {
            cpu_ms: 1_000,
            wall_ms: 1_000,
            cpu_millis: 1_000,
            memory_bytes: 1 << 20,
        },
        on_low: OnLow::Refuse,
        max_cost: None,
        idempotency: None,
    };
    ledger.hold(request).unwrap().wait().unwrap().unwrap();
    let settlement = Settlement {
        hold: Id([number; 16]),
        measured: Quantities {
            executions: 1,
            cpu_us: 700_000,
            ..Quantities::default()
        },
        outcome: "exited".to_owned(),
        estimated: false,
    };
    let receipt = ledger.settle(settlement).unwrap().wait().unwrap();
    receipt.unwrap().entry
}

/// Writes a ledger in which `acme` ran something last month, twice.
fn past(dir: &Path) {
    let (ledger, _) = last_month(dir);
    known(&ledger, "acme");
    ran(&ledger, "acme", 1);
    ran(&ledger, "acme", 2);
    ledger.close().unwrap();
}

/// A server whose ledger has a last month, the tenant of it, and the month's name.
fn with_past() -> (TestServer, Client, String) {
    let mut server = TestServer::start();
    server.restart_after(past);
    let acme = server.tenant("acme");
    let periods = server.admin().get("/v1/periods").expect(200);
    let last = periods["items"][1]["period"].as_str().unwrap().to_owned();
    (server, acme, last)
}

#[test]
fn a_statement_is_the_sum_of_its_lines_in_whole_minor_units() {
    let server = TestServer::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let mut charged = 0;
    for _ in 0..3 {
        charged += units(&run(&acme)["charge"]["total"]);
    }
    run(&other);
    let statement = acme.get("/v1/statements").expect(200);
    assert_eq!(statement["tenant"], "acme");
    assert_eq!(statement["state"], "open");
    assert_eq!(statement["currency"], "USD");
    assert_eq!(units(&statement["total"]), sum(&statement["items"]));
    assert_eq!(units(&statement["total"]) % 10_i128.pow(10), 0);
    let mut lines = statement["items"].as_array().unwrap().clone();
    let rounding = lines.pop().unwrap();
    assert_eq!(rounding["kind"], "rounding");
    assert_eq!(sum(&json!(lines)), charged, "{statement}");
    let executions = lines.iter().find(|line| line["meter"] == "executions");
    let executions = executions.unwrap();
    assert_eq!(
        (&executions["quantity"], &executions["rate"]),
        (&json!("3"), &json!("0.0000002"))
    );
    assert_eq!(executions["amount"], "0.0000006");
}

#[test]
fn a_statement_is_the_tenants_own_and_of_a_month_that_has_begun() {
    let server = TestServer::start();
    let acme = server.tenant("acme");
    server.tenant("other");
    run(&acme);
    let billing = server.token("other", "billing");
    let own = billing.get("/v1/statements").expect(200);
    assert_eq!(
        (&own["tenant"], &own["items"]),
        (&json!("other"), &json!([]))
    );
    billing
        .get("/v1/statements?tenant=acme")
        .problem(404, "not_found");
    let runner = server.token("acme", "runner");
    runner.get("/v1/statements").problem(403, "forbidden");
    server
        .admin()
        .get("/v1/statements")
        .problem(400, "invalid_argument");
    let seen = server.admin().get("/v1/statements?tenant=acme").expect(200);
    assert_eq!(seen["tenant"], "acme");
    for query in [
        "period=2026-13",
        "period=2026",
        "period=9998-01",
        "period=x",
        "month=2026-01",
    ] {
        acme.get(&format!("/v1/statements?{query}"))
            .problem(400, "invalid_argument");
    }
    let empty = acme.get("/v1/statements?period=2001-01").expect(200);
    assert_eq!(
        (&empty["items"], &empty["total"]),
        (&json!([]), &json!("0"))
    );
}

#[test]
fn an_adjustment_needs_two_and_changes_balance_costs_and_statement() {
    let server = TestServer::start();
    let acme = server.tenant("acme");
    let finance = operator(&server, api::Role::Finance, "finance");
    let record = run(&acme);
    let charged = units(&record["charge"]["total"]);
    let entry = record["receipt"]["entry"].clone();
    let body = json!({"tenant": "acme", "reverses": entry, "reason": "our fault"});
    let id = propose(&server, &body);
    let again = server.admin().post("/v1/adjustments", &body);
    again.problem(409, "conflict");
    approve(&server.admin(), &id).problem(403, "forbidden");
    approve(&acme, &id).problem(403, "forbidden");
    let before = acme.get("/v1/statements").expect(200);
    assert!(!kinds(&before).contains(&"adjustment"), "{before}");
    let done = approve(&finance, &id).expect(200);
    assert_eq!(
        (&done["state"], &done["author"]["subject"]),
        (&json!("approved"), &json!("admin.token"))
    );
    assert_eq!(done["decided_by"]["subject"], "finance");
    approve(&finance, &id).problem(409, "conflict");
    let entries = acme.get("/v1/entries?kind=adjustment").expect(200);
    let adjusted = &entries["items"][0];
    assert_eq!(adjusted["seq"], done["entry"]);
    assert_eq!(adjusted["adjustment"]["reverses"], entry);
    assert_eq!(adjusted["adjustment"]["usage"]["executions"], "1");
    assert_eq!(units(&adjusted["adjustment"]["amount"]), -charged);
    let costs = acme.get("/v1/costs?window=month").expect(200);
    let item = &costs["items"][0];
    assert_eq!(
        (units(&item["cost"]), units(&item["adjustment"])),
        (charged, -charged)
    );
    let by_meter = acme
        .get("/v1/costs?window=month&group_by=meter")
        .expect(200);
    assert_eq!(by_meter["items"][0]["group"]["meter"], Value::Null);
    assert_eq!(units(&by_meter["items"][0]["adjustment"]), -charged);
    let usage = acme.get("/v1/usage?window=month").expect(200);
    assert_eq!(
        usage["items"][0]["usage"]["executions"], "1",
        "what was used was used"
    );
    let statement = acme.get("/v1/statements").expect(200);
    assert!(kinds(&statement).contains(&"adjustment"), "{statement}");
    assert_eq!(statement["total"], "0");
}

/// Statement, costs and exports are of one sum, to the last digit.
#[test]
fn exports_add_up_to_the_statement_with_its_adjustments() {
    let server = TestServer::start();
    let acme = server.tenant("acme");
    let finance = operator(&server, api::Role::Finance, "finance");
    run(&acme);
    let entry = run(&acme)["receipt"]["entry"].clone();
    let reversal = json!({"tenant": "acme", "reverses": entry, "reason": "our fault"});
    let line = json!({"tenant": "acme", "amount": "-1.25", "description": "goodwill",
                      "reason": "outage"});
    for body in [&reversal, &line] {
        approve(&finance, &propose(&server, body)).expect(200);
    }
    let amounts = |path: &str| -> Vec<(Value, i128)> {
        let text = acme.get(path).text();
        let rows = text
            .lines()
            .map(|row| -> Value { serde_json::from_str(row).unwrap() });
        rows.map(|row| (row["kind"].clone(), units(&row["amount"])))
            .collect()
    };
    let sum_of = |rows: &[(Value, i128)]| -> i128 { rows.iter().map(|(_, amount)| amount).sum() };
    let rows = amounts("/v1/exports/jsonl");
    assert_eq!(
        rows.iter().filter(|(kind, _)| kind == "adjustment").count(),
        2
    );
    let costs = acme.get("/v1/costs?window=month").expect(200);
    let item = &costs["items"][0];
    let mut exact = rows.clone();
    exact.retain(|(kind, _)| kind != "rounding");
    assert_eq!(
        sum_of(&exact),
        units(&item["cost"]) + units(&item["adjustment"])
    );
    let statement = acme.get("/v1/statements").expect(200);
    assert_eq!(sum_of(&rows), units(&statement["total"]));
    // What reverses a run is its project's; what reverses nothing is the tenant's alone.
    let of_project = amounts("/v1/exports/jsonl?project=default");
    let adjusted: Vec<_> = of_project
        .iter()
        .filter(|(kind, _)| kind == "adjustment")
        .collect();
    assert_eq!(adjusted.len(), 1);
    assert!(amounts("/v1/exports/jsonl?project=other").is_empty());
}

#[test]
fn who_may_do_both_cannot_do_both() {
    let server = TestServer::start();
    server.tenant("acme");
    let all: std::collections::BTreeSet<api::Scope> = api::Scope::ALL.iter().copied().collect();
    let (one, two) = (
        scoped(&server, all.clone(), "eve"),
        scoped(&server, all, "eve"),
    );
    let line = json!({"tenant": "acme", "amount": "-1.5", "description": "goodwill",
                      "reason": "outage"});
    let made = one.post("/v1/adjustments", &line).expect(201);
    let id = made["id"].as_str().unwrap();
    for same in [&one, &two] {
        let problem = approve(same, id).problem(403, "forbidden");
        assert!(problem.to_string().contains("somebody else"), "{problem}");
    }
    let path = format!("/v1/adjustments/{id}/reject");
    let reason = json!({"reason": "a mistake"});
    let gone = two.post(&path, &reason).expect(200);
    assert_eq!(
        (&gone["state"], &gone["rejected_because"]),
        (&json!("rejected"), &json!("a mistake"))
    );
    two.post(&path, &reason).problem(409, "conflict");
}

#[test]
fn adjustments_are_listed_for_operators_and_outlive_a_restart() {
    let mut server = TestServer::start();
    let acme = server.tenant("acme");
    server.tenant("other");
    let line = |tenant: &str, amount: &str| {
        let mut line = json!({"description": "x", "reason": "y", "amount": amount});
        line["tenant"] = json!(tenant);
        line
    };
    let first = propose(&server, &line("acme", "-1"));
    let second = propose(&server, &line("other", "2"));
    acme.get("/v1/adjustments").problem(403, "forbidden");
    server.restart();
    let finance = operator(&server, api::Role::Finance, "finance");
    approve(&finance, &first).expect(200);
    let ids = |query: &str| -> Vec<String> {
        let list = finance.get(&format!("/v1/adjustments{query}")).expect(200);
        let items = list["items"].as_array().unwrap();
        let id = |item: &Value| item["id"].as_str().unwrap().to_owned();
        items.iter().map(id).collect()
    };
    assert_eq!(ids(""), [first.as_str(), second.as_str()]);
    assert_eq!(ids("?state=pending"), [second.as_str()]);
    assert_eq!(ids("?state=approved"), [first.as_str()]);
    assert_eq!(ids("?tenant=other"), [second.as_str()]);
    assert_eq!(ids("?limit=1"), [first.as_str()]);
    assert_eq!(ids(&format!("?limit=1&cursor={first}")), [second]);
    finance
        .get("/v1/adjustments?state=lost")
        .problem(400, "invalid_argument");
    let statement = server.reach(&acme).get("/v1/statements").expect(200);
    assert_eq!(statement["total"], "-1", "{statement}");
}

#[test]
fn bad_adjustments_are_refused_and_only_admins_propose() {
    let server = TestServer::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let entry = run(&acme)["receipt"]["entry"].clone();
    run(&other);
    let good = json!({"tenant": "acme", "amount": "1", "description": "x", "reason": "y"});
    let change = |change: &[(&str, Value)]| {
        let mut body = good.clone();
        for (field, value) in change {
            body[*field] = value.clone();
        }
        body
    };
    for (body, says) in [
        (change(&[("amount", json!("0"))]), "zero"),
        (change(&[("amount", json!("1e3"))]), "decimal"),
        (change(&[("amount", json!(1))]), "string"),
        (change(&[("amount", json!("9000000000000000"))]), "within"),
        (change(&[("currency", json!("EUR"))]), "USD"),
        (change(&[("reason", Value::Null)]), "required"),
        (change(&[("reason", json!(" "))]), "required"),
        (change(&[("description", Value::Null)]), "reverses"),
        (change(&[("reverses", entry.clone())]), "alone"),
        (change(&[("surprise", json!(1))]), "unknown"),
        (
            json!({"tenant": "other", "reverses": entry, "reason": "y"}),
            "of this tenant",
        ),
        (
            json!({"tenant": "acme", "reverses": 1, "reason": "y"}),
            "settlement",
        ),
        (
            json!({"tenant": "acme", "reverses": 999_999, "reason": "y"}),
            "settlement",
        ),
        (
            json!({"tenant": "acme", "reverses": 0, "reason": "y"}),
            "from 1",
        ),
    ] {
        let problem = server.admin().post("/v1/adjustments", &body);
        let problem = problem.problem(400, "invalid_argument");
        assert!(problem.to_string().contains(says), "{says}: {problem}");
    }
    let nobody = change(&[("tenant", json!("nobody"))]);
    server
        .admin()
        .post("/v1/adjustments", &nobody)
        .problem(404, "not_found");
    let finance = operator(&server, api::Role::Finance, "finance");
    for client in [&finance, &acme] {
        client
            .post("/v1/adjustments", &good)
            .problem(403, "forbidden");
    }
    for id in ["999999", "x", "-1"] {
        approve(&finance, id).problem(404, "not_found");
        let path = format!("/v1/adjustments/{id}/reject");
        finance.post(&path, &json!({})).problem(404, "not_found");
    }
    let list = finance.get("/v1/adjustments").expect(200);
    assert_eq!(list["items"], json!([]));
}

#[test]
fn a_closed_month_stays_as_it_is_and_is_corrected_in_the_next() {
    let (server, acme, last) = with_past();
    let finance = operator(&server, api::Role::Finance, "finance");
    let path = format!("/v1/periods/{last}/close");
    let grace = acme
        .get(&format!("/v1/statements?period={last}"))
        .expect(200);
    assert_eq!(grace["state"], "grace");
    assert_eq!(grace["items"][0]["quantity"], "2", "{grace}");
    let dry = finance.post(&path, &json!({"dry_run": true})).expect(200);
    assert_eq!(
        (&dry["dry_run"], &dry["refused"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(dry["period"]["state"], "grace");
    assert_eq!(dry["totals"][0]["tenant"], "acme");
    assert_eq!(dry["totals"][0]["currency"], "USD");
    let mut used = grace["items"].clone();
    used.as_array_mut().unwrap().pop();
    assert_eq!(units(&dry["totals"][0]["charged"]), sum(&used));
    for client in [&acme, &server.admin()] {
        client.post(&path, &json!({})).problem(403, "forbidden");
    }
    let closed = finance
        .post(&path, &json!({"reason": "month end"}))
        .expect(200);
    assert_eq!(closed["period"]["state"], "closed");
    assert_eq!(closed["period"]["closed_by"], closed["through"]);
    let again = finance.post(&path, &json!({})).problem(409, "conflict");
    assert!(again.to_string().contains("was closed by"), "{again}");
    let before = acme
        .get(&format!("/v1/statements?period={last}"))
        .expect(200);
    assert_eq!(
        (&before["state"], &before["items"]),
        (&json!("closed"), &grace["items"])
    );

    let settled = server
        .admin()
        .get("/v1/entries?kind=settlement")
        .expect(200);
    let entry = settled["items"][0]["seq"].clone();
    let id = propose(
        &server,
        &json!({"tenant": "acme", "reverses": entry, "reason": "late"}),
    );
    approve(&finance, &id).expect(200);
    let after = acme
        .get(&format!("/v1/statements?period={last}"))
        .expect(200);
    assert_eq!(after, before);
    let now = acme.get("/v1/statements").expect(200);
    let correction = &now["items"][0];
    assert_eq!(correction["kind"], "correction", "{now}");
    assert_eq!(
        (&correction["corrects"], &correction["reverses"]),
        (&json!(last), &entry)
    );
    let listed = acme.get("/v1/periods").expect(200);
    let states: Vec<&Value> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["state"])
        .collect();
    assert_eq!(states, ["open", "closed"]);
}

#[test]
fn a_month_that_has_not_ended_or_never_was_is_not_closed() {
    let server = TestServer::start();
    server.tenant("acme");
    let finance = operator(&server, api::Role::Finance, "finance");
    let periods = finance.get("/v1/periods").expect(200);
    let this = periods["items"][0]["period"].as_str().unwrap();
    assert_eq!(periods["items"][0]["state"], "open");
    let path = format!("/v1/periods/{this}/close");
    let dry = finance.post(&path, &json!({"dry_run": true})).expect(200);
    assert_eq!(dry["refused"], "has not ended");
    let refused = finance.post(&path, &json!({"dry_run": false}));
    let problem = refused.problem(409, "conflict");
    assert!(problem.to_string().contains("has not ended"), "{problem}");
    for other in ["2001-01", "9998-12", "2026-13", "x"] {
        let path = format!("/v1/periods/{other}/close");
        finance.post(&path, &json!({})).problem(404, "not_found");
    }
    for bad in [json!({"dry_run": "yes"}), json!({"surprise": 1})] {
        finance.post(&path, &bad).problem(400, "invalid_argument");
    }
    finance
        .get("/v1/periods?cursor=x")
        .problem(400, "invalid_argument");
}

#[test]
fn a_month_by_a_drafted_card_is_shown_beside_what_it_was() {
    let server = TestServer::start();
    let acme = server.tenant("acme");
    let mut charged = 0;
    for _ in 0..2 {
        charged += units(&run(&acme)["charge"]["total"]);
    }
    let entries = server.admin().get("/v1/entries?limit=1000").expect(200);
    let count = entries["items"].as_array().unwrap().len();
    let card = json!({
        "id": "draft", "currency": "USD", "effective_from": "2020-01-01T00:00:00Z",
        "price": [{"meter": "executions", "model": "graduated",
                   "tiers": [{"up_to": "1", "amount": "0.25"}, {"amount": "0.5"}]}],
    });
    let admin = server.admin();
    let path = "/v1/rates/preview?tenant=acme";
    let preview = admin.post(path, &card).expect(200);
    assert_eq!(preview["runs"], "2");
    assert_eq!(units(&preview["was"]["total"]), charged);
    assert_eq!(preview["would_be"]["total"], "0.75", "{preview}");
    assert_eq!(preview["would_be"]["lines"][1]["tier"], 1);
    assert_eq!(
        units(&preview["difference"]),
        units(&json!("0.75")) - charged
    );
    let mut euro = card.clone();
    euro["currency"] = json!("EUR");
    assert_eq!(
        admin.post(path, &euro).expect(200)["difference"],
        Value::Null
    );
    let mut bad = card.clone();
    bad["price"][0]["meter"] = json!("colour");
    admin.post(path, &bad).problem(400, "invalid_argument");
    admin
        .post("/v1/rates/preview", &card)
        .problem(400, "invalid_argument");
    acme.post("/v1/rates/preview", &card)
        .problem(403, "forbidden");
    let after = server.admin().get("/v1/entries?limit=1000").expect(200);
    assert_eq!(
        after["items"].as_array().unwrap().len(),
        count,
        "nothing is recorded"
    );
    let rates = server.admin().get("/v1/rates").expect(200);
    assert!(!rates.to_string().contains("draft"), "{rates}");
}

#[test]
fn what_a_reversed_run_was_paid_with_is_credit_again() {
    let server = TestServer::start();
    let acme = server.tenant("acme");
    let finance = operator(&server, api::Role::Finance, "finance");
    let grant = json!({"tenant": "acme", "name": "trial", "amount": "5", "currency": "USD"});
    server.admin().post("/v1/grants", &grant).expect(201);
    let record = run(&acme);
    let entry = &record["receipt"]["entry"];
    let id = propose(
        &server,
        &json!({"tenant": "acme", "reverses": entry, "reason": "fault"}),
    );
    approve(&finance, &id).expect(200);
    let terms = server.admin().get("/v1/tenants/acme/terms").expect(200);
    assert_eq!(terms["available"], "5");
    let statement = acme.get("/v1/statements").expect(200);
    let found = kinds(&statement);
    assert_eq!(
        found[found.len() - 4..],
        ["adjustment", "refund", "credit", "rounding"]
    );
    assert_eq!(statement["total"], "0");
}
