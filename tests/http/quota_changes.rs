//! Quotas that change at an instant to come: shown beside the current ones, in force from that
//! instant on whatever happens around it, cancelled, and told by the audit.

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::offline::{farebox, told};
use crate::server::{TestServer, until};
use runtime::fake::FakeOptions;

const PATH: &str = "/v1/tenants/acme/quotas/changes";

fn runs(limit: &str) -> Value {
    json!([{"meter": "executions", "window": "lifetime", "limit": limit}])
}

/// An instant that many milliseconds from now.
fn after_ms(ms: i64) -> String {
    api::rfc3339(api::Clock::system().wall_us() + ms * 1_000)
}

fn change(server: &TestServer, at: &str, limit: &str) -> Answer {
    let body = json!({"effective_at": at, "quotas": runs(limit), "reason": "ticket 7"});
    server.admin().post(PATH, &body)
}

fn run(owner: &Client) -> Answer {
    owner.post("/v1/executions", &json!({"code": "print 1"}))
}

fn limit(owner: &Client) -> Value {
    let quotas = owner.get("/v1/quotas").expect(200);
    let mut items = quotas["items"].as_array().unwrap().iter();
    let runs = items.find(|quota| quota["meter"] == "executions");
    runs.unwrap()["limit"].clone()
}

fn in_force(owner: &Client, wanted: &str) {
    until(|| (limit(owner) == wanted).then_some(()));
}

/// The acts on the tenant's quotas, oldest first: action and reason.
fn audited(server: &TestServer) -> Vec<(String, Value)> {
    let path = "/v1/audit?subject=quotas/acme";
    let acts = server.admin().get(path).expect(200);
    let acts = acts["items"].as_array().unwrap().iter();
    acts.map(|act| {
        let action = act["action"].as_str().unwrap().to_owned();
        (action, act["reason"].clone())
    })
    .collect()
}

#[test]
fn a_change_is_shown_in_advance_and_in_force_from_its_instant_on() {
    let mut server = TestServer::start();
    let owner = server.tenant("acme");
    server.quota("acme", &runs("1"));
    let at = after_ms(1_500);
    let made = change(&server, &at, "3").expect(201);
    assert_eq!(made["effective_at"], at);
    assert_eq!(made["quotas"][0]["limit"], "3", "{made}");
    let shown = owner.get("/v1/quotas").expect(200);
    assert_eq!(shown["changes"], json!([made]));
    assert_eq!(made["reason"], "ticket 7");
    assert!(
        made["author"].as_str().unwrap().starts_with("key_"),
        "{made}"
    );
    run(&owner).expect(200);
    assert_eq!(limit(&owner), "1");
    // It outlives a restart before it has come, and one after.
    server.restart();
    let owner = server.reach(&owner);
    let list = server.admin().get(PATH).expect(200);
    assert!(
        list["items"] == json!([made]) || limit(&owner) == "3",
        "{list}"
    );
    in_force(&owner, "3");
    assert_eq!(server.admin().get(PATH).expect(200)["items"], json!([]));
    run(&owner).expect(200);
    server.restart();
    let owner = server.reach(&owner);
    assert_eq!(limit(&owner), "3");
    run(&owner).expect(200);
    let problem = run(&owner).problem(429, "quota_exceeded");
    assert_eq!(problem["violated"][0]["limit"], "3", "{problem}");
    let acts = [
        ("quotas.set".to_owned(), Value::Null),
        ("quotas.change".to_owned(), json!("ticket 7")),
    ];
    assert_eq!(audited(&server), acts);
    let path = "/v1/audit?subject=quotas/acme&action=quotas.change";
    let act = server.admin().get(path).expect(200)["items"][0].clone();
    assert_eq!(act["quota_changes"][0]["effective_at"], at, "{act}");
    assert_eq!(act["quota_changes"][0]["quotas"][0]["limit"], "3", "{act}");
}

/// Other acts on the tenant carry all its settings: none of them may bring the old limit back.
#[test]
fn no_act_after_the_instant_brings_the_old_limit_back() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    server.quota("acme", &runs("5"));
    change(&server, &after_ms(300), "0").expect(201);
    in_force(&owner, "0");
    let admin = server.admin();
    for action in ["suspend", "resume"] {
        let path = format!("/v1/tenants/acme/{action}");
        admin.post(&path, &json!({})).expect(200);
    }
    let limits = json!({"concurrency": 3});
    admin.put("/v1/tenants/acme/limits", &limits).expect(200);
    let budget = json!({"name": "b", "meter": "executions", "window": "day", "amount": "9"});
    let budgets = json!({"budgets": [budget]});
    admin.put("/v1/tenants/acme/budgets", &budgets).expect(200);
    assert_eq!(limit(&owner), "0");
    run(&owner).problem(429, "quota_exceeded");
    // A change to come is made from what is in force, not from what was before.
    change(&server, &after_ms(3_600_000), "7").expect(201);
    assert_eq!(limit(&owner), "0");
    server.quota("acme", &runs("1"));
    run(&owner).expect(200);
    let list = admin.get(PATH).expect(200);
    assert_eq!(list["items"][0]["quotas"][0]["limit"], "7", "{list}");
}

#[test]
fn a_change_is_cancelled_until_it_has_come() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let admin = server.admin();
    server.quota("acme", &runs("5"));
    let made = change(&server, &after_ms(3_600_000), "6").expect(201);
    let path = format!("{PATH}/{}", made["id"].as_str().unwrap());
    owner.delete(&path).problem(403, "forbidden");
    let stale = admin.request("DELETE", &path).header("If-Match", "\"1\"");
    stale.send().problem(409, "conflict");
    let left = admin.delete(&format!("{path}?reason=mistake")).expect(200);
    assert_eq!(left["items"], json!([]));
    admin.delete(&path).problem(404, "not_found");
    let soon = change(&server, &after_ms(200), "2").expect(201);
    in_force(&owner, "2");
    let path = format!("{PATH}/{}", soon["id"].as_str().unwrap());
    admin.delete(&path).problem(409, "conflict");
    let acts = audited(&server);
    let cancelled = ("quotas.cancel".to_owned(), json!("mistake"));
    assert_eq!(acts[2], cancelled, "{acts:?}");
    assert_eq!(acts.len(), 4, "what was refused is no act: {acts:?}");
}

#[test]
fn changes_that_cannot_be_are_refused() {
    let flags = [("ledger.quota_changes_per_tenant_max", "2")];
    let server = TestServer::with(&flags, FakeOptions::default());
    let owner = server.tenant("acme");
    let good = json!({"effective_at": after_ms(3_600_000), "quotas": runs("1"), "reason": "r"});
    for (member, value, pointer) in [
        ("effective_at", json!(after_ms(-1)), "/effective_at"),
        ("effective_at", json!("tomorrow"), "/effective_at"),
        ("effective_at", Value::Null, "/effective_at"),
        ("reason", Value::Null, "/reason"),
        ("reason", json!(" "), "/reason"),
        ("reason", json!("x".repeat(201)), "/reason"),
        ("quotas", Value::Null, "/quotas"),
        ("odd", json!(1), "/odd"),
    ] {
        let mut bad = good.clone();
        bad[member] = value;
        let problem = server.admin().post(PATH, &bad);
        let problem = problem.problem(400, "invalid_argument");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    owner.post(PATH, &good).problem(403, "forbidden");
    server.admin().post(PATH, &good).expect(201);
    server.admin().post(PATH, &good).problem(409, "conflict");
    change(&server, &after_ms(7_200_000), "2").expect(201);
    // A bound on what is kept: waiting does not help, so it is no 429.
    let problem = change(&server, &after_ms(9_000_000), "3").problem(409, "conflict");
    assert_eq!(problem["retry"], "no");
    let list = server.admin().get(PATH).expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 2, "{list}");
}

#[test]
fn the_command_asks_for_changes_lists_and_cancels_them() {
    let server = TestServer::start();
    server.tenant("acme");
    server.quota("acme", &runs("5"));
    let Client { address, token } = server.admin();
    let (url, token) = (format!("http://{address}"), token.unwrap());
    let quota = |args: &[&str]| {
        let mut all = vec!["--json", "quota"];
        all.extend(args);
        all.extend(["--tenant", "acme", "--url", &url, "--token", &token]);
        farebox(&all)
    };
    let at = after_ms(3_600_000);
    let reason = ["--reason", "ticket 7"];
    let mut args = vec!["change", "--at", &at];
    args.extend(reason.iter().chain(&["executions=9/day", "cost=1.5/month"]));
    let made = told(&quota(&args));
    assert_eq!(made["effective_at"], at, "{made}");
    assert_eq!(made["quotas"][0]["limit"], "9", "{made}");
    assert_eq!(made["quotas"][1]["meter"], "cost", "{made}");
    assert_eq!(server.admin().get(PATH).expect(200)["items"], json!([made]));
    let twice = quota(&args);
    let words = String::from_utf8_lossy(&twice.stderr).into_owned();
    assert!(
        twice.status.code() != Some(0) && words.contains("conflict"),
        "{words}"
    );
    let id = made["id"].as_str().unwrap();
    let table = farebox(&[
        "quota", "changes", "--tenant", "acme", "--url", &url, "--token", &token,
    ]);
    let table = String::from_utf8(table.stdout).unwrap();
    for part in [id, &at, "executions=9/day cost=1.5/month", "ticket 7"] {
        assert!(table.contains(part), "{part} in {table}");
    }
    let left = told(&quota(&["cancel", id, "--reason", "too early & late"]));
    assert_eq!(left["items"], json!([]));
    assert_eq!(told(&quota(&["changes"]))["items"], json!([]));
    let last = audited(&server).pop().unwrap();
    assert_eq!(last.1, json!("too early & late"));
}
