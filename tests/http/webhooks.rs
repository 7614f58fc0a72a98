//! Webhooks: signed, sent where they may be, tried again, given up; and nobody's business but their
//! owner's.

use std::path::Path;

use runtime::fake::FakeOptions;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::client::Client;
use crate::receiver::Receiver;
use crate::server::{TestServer, until};

const LOOPBACK: (&str, &str) = ("webhooks.allow_addresses", "[\"127.0.0.1/32\"]");
const SOON: [(&str, &str); 2] = [("webhooks.backoff_ms", "1"), ("budgets.look_ms", "1")];

fn start(flags: &[(&str, &str)]) -> TestServer {
    let flags: Vec<_> = SOON.iter().chain(flags).copied().collect();
    TestServer::with(&flags, FakeOptions::default())
}

#[track_caller]
fn hook(client: &Client, url: &str) -> Value {
    client
        .put("/v1/webhooks/hook", &json!({"url": url}))
        .expect(201)
}

/// Has one event fire for acme, to the webhook of that name.
fn fire(server: &TestServer, owner: &Client, webhook: &str) {
    let budgets = json!([{"name": "runs", "meter": "executions", "window": "lifetime",
                          "amount": "1", "thresholds": [100], "webhook": webhook}]);
    let path = "/v1/tenants/acme/budgets";
    server
        .admin()
        .put(path, &json!({"budgets": budgets}))
        .expect(200);
    owner
        .post("/v1/executions", &json!({"code": "print 1"}))
        .expect(200);
}

/// Waits until the webhook's only delivery is in that state, and answers it.
fn only_delivery(client: &Client, state: &str) -> Value {
    until(|| {
        let list = client.get("/v1/webhooks/hook/deliveries").expect(200);
        let items = list["items"].as_array().unwrap();
        assert!(items.len() <= 1, "{list}");
        items.first().filter(|one| one["state"] == state).cloned()
    })
}

/// RFC 2104, by hand.
fn hmac(key: &[u8], message: &[u8]) -> String {
    assert!(key.len() <= 64);
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::digest([&pad(0x36)[..], message].concat());
    let outer = Sha256::digest([&pad(0x5c)[..], &inner[..]].concat());
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn deliveries_are_signed_with_the_secret_that_was_shown_once() {
    let (server, receiver) = (start(&[LOOPBACK]), Receiver::start());
    let owner = server.tenant("acme");
    let made = hook(&owner, &receiver.url());
    let secret = made["secret"].as_str().unwrap().to_owned();
    fire(&server, &owner, "hook");
    let delivery = only_delivery(&owner, "delivered");
    assert_eq!(
        (&delivery["attempts"], &delivery["last_status"]),
        (&json!(1), &json!(204))
    );
    let request = receiver.received().remove(0);
    assert_eq!(request.line, "POST /hooks/1?a=b HTTP/1.1");
    let kind = request.header("content-type");
    assert!(kind.starts_with("application/cloudevents+json"), "{kind}");
    assert_eq!(
        request.header("farebox-delivery"),
        delivery["id"].as_str().unwrap()
    );
    assert!(request.header("user-agent").starts_with("farebox/"));
    let timestamp = request.header("farebox-timestamp");
    assert!(timestamp.parse::<u64>().unwrap() > 1_700_000_000);
    let signed = format!("{timestamp}.{}", request.body);
    let expected = format!("v1={}", hmac(secret.as_bytes(), signed.as_bytes()));
    assert_eq!(request.header("farebox-signature"), expected);
    let again = owner
        .put("/v1/webhooks/hook", &json!({"url": receiver.url()}))
        .expect(200);
    let shown = [
        again.to_string(),
        owner.get("/v1/webhooks/hook").text(),
        owner.get("/v1/webhooks").text(),
        owner.get("/v1/webhooks/hook/deliveries").text(),
        server.admin().get("/v1/entries?limit=1000").text(),
    ];
    for text in shown {
        assert!(
            !text.contains(&secret) && !text.contains("secret"),
            "{text}"
        );
    }
    assert_eq!(
        holding(server.data_dir(), secret.as_bytes()),
        ["outbox/secrets"]
    );
}

/// The directories below `dir` that have a file with `needle` in it.
fn holding(dir: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            if bytes.windows(needle.len()).any(|window| window == needle) {
                let parent = path.parent().unwrap().strip_prefix(dir).unwrap();
                found.push(parent.to_str().unwrap().to_owned());
            }
        }
    }
    found
}

#[test]
fn a_secret_of_ones_own_signs_and_replaces_the_old_one() {
    let (server, receiver) = (start(&[LOOPBACK]), Receiver::start());
    let owner = server.tenant("acme");
    hook(&owner, &receiver.url());
    let own = "an-own-secret-of-mine";
    let body = json!({"url": receiver.url(), "secret": own});
    let set = owner.put("/v1/webhooks/hook", &body).expect(200);
    assert!(set["secret"].is_null(), "{set}");
    let files = std::fs::read_dir(server.data_dir().join("outbox/secrets")).unwrap();
    assert_eq!(files.count(), 1);
    fire(&server, &owner, "hook");
    only_delivery(&owner, "delivered");
    let request = receiver.received().remove(0);
    let signed = format!("{}.{}", request.header("farebox-timestamp"), request.body);
    let expected = format!("v1={}", hmac(own.as_bytes(), signed.as_bytes()));
    assert_eq!(request.header("farebox-signature"), expected);
    let short = json!({"url": receiver.url(), "secret": "short"});
    owner
        .put("/v1/webhooks/hook", &short)
        .problem(400, "invalid_argument");
    owner.delete("/v1/webhooks/hook").expect(204);
    let files = std::fs::read_dir(server.data_dir().join("outbox/secrets")).unwrap();
    assert_eq!(files.count(), 0);
    owner
        .get("/v1/webhooks/hook/deliveries")
        .problem(404, "not_found");
}

#[test]
fn a_failed_delivery_is_tried_again_with_the_same_event() {
    let server = start(&[LOOPBACK]);
    let receiver = Receiver::answering(&["500 No", "429 Later", "200 OK"]);
    let owner = server.tenant("acme");
    hook(&owner, &receiver.url());
    fire(&server, &owner, "hook");
    let delivery = only_delivery(&owner, "delivered");
    assert_eq!(
        (&delivery["attempts"], &delivery["last_status"]),
        (&json!(3), &json!(200))
    );
    let requests = receiver.received();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        assert_eq!(request.event(), delivery["event"]);
        assert_eq!(
            request.header("farebox-delivery"),
            delivery["id"].as_str().unwrap()
        );
    }
    let metrics = server.admin().without_token().get("/metrics").text();
    for line in [
        "farebox_webhook_deliveries_total{result=\"failed\"} 2",
        "farebox_webhook_deliveries_total{result=\"delivered\"} 1",
        "farebox_budget_alerts_total 1",
        "farebox_outbox_pending 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[test]
fn a_delivery_is_given_up_after_its_attempts_and_sent_again_when_asked_for() {
    let server = start(&[LOOPBACK, ("webhooks.attempts_max", "2")]);
    let receiver = Receiver::answering(&["500 No", "500 No", "204 Yes"]);
    let owner = server.tenant("acme");
    hook(&owner, &receiver.url());
    fire(&server, &owner, "hook");
    let dead = only_delivery(&owner, "dead");
    assert_eq!(
        (&dead["attempts"], &dead["last_status"]),
        (&json!(2), &json!(500))
    );
    assert_eq!(dead["next_attempt_at"], Value::Null);
    assert_eq!(receiver.received().len(), 2);
    let id = dead["id"].as_str().unwrap();
    let path = format!("/v1/webhooks/hook/deliveries/{id}/retry");
    assert_eq!(owner.post(&path, &json!({})).expect(202)["id"], id);
    let done = only_delivery(&owner, "delivered");
    assert_eq!(
        (&done["attempts"], &done["event"]),
        (&json!(3), &dead["event"])
    );
    let unknown = format!("/v1/webhooks/hook/deliveries/dlv_{}/retry", "0".repeat(32));
    owner.post(&unknown, &json!({})).problem(404, "not_found");
}

/// An hour lies between two attempts: only the restart brings the second one.
#[test]
fn a_restart_sends_what_was_pending() {
    let receiver = Receiver::answering(&["500 No", "204 Yes"]);
    let flags = [LOOPBACK, SOON[1], ("webhooks.backoff_ms", "3600000")];
    let mut server = TestServer::with(&flags, FakeOptions::default());
    let owner = server.tenant("acme");
    hook(&owner, &receiver.url());
    fire(&server, &owner, "hook");
    let pending = until(|| {
        let pending = only_delivery(&owner, "pending");
        (pending["attempts"] == 1).then_some(pending)
    });
    assert!(pending["next_attempt_at"].is_string(), "{pending}");
    server.restart();
    let owner = server.reach(&owner);
    let done = only_delivery(&owner, "delivered");
    assert_eq!(
        (&done["id"], &done["event"]),
        (&pending["id"], &pending["event"])
    );
    assert_eq!(done["attempts"], 2);
}

#[test]
fn redirects_are_not_followed() {
    let server = start(&[LOOPBACK, ("webhooks.attempts_max", "1")]);
    let elsewhere = Receiver::start();
    let owner = server.tenant("acme");
    for status in ["301", "302", "303", "307", "308"] {
        let answer = format!("{status} Elsewhere\r\nLocation: {}", elsewhere.url());
        let receiver = Receiver::answering(&[&answer]);
        hook(&owner, &receiver.url());
        if status == "301" {
            fire(&server, &owner, "hook");
        } else {
            let path = "/v1/tenants/acme/budgets";
            let budgets = json!([{"name": format!("b{status}"), "meter": "executions",
                "window": "lifetime", "amount": "1", "thresholds": [100], "webhook": "hook"}]);
            server
                .admin()
                .put(path, &json!({"budgets": budgets}))
                .expect(200);
        }
        let dead = only_delivery(&owner, "dead");
        assert_eq!(dead["last_status"].to_string(), status);
        assert_eq!(receiver.received().len(), 1);
        owner.delete("/v1/webhooks/hook").expect(204);
    }
    assert!(elsewhere.received().is_empty());
}

/// What nobody listens to, what says nothing, and what does not speak HTTP.
#[test]
fn receivers_that_do_not_answer_are_told_apart_and_given_up() {
    let limits = [
        ("webhooks.attempts_max", "1"),
        ("webhooks.timeout_ms", "300"),
    ];
    let server = start(&[LOOPBACK, limits[0], limits[1]]);
    let owner = server.tenant("acme");
    let gone = Receiver::start().port();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let quiet = silent.local_addr().unwrap().port();
    let odd = Receiver::answering(&["\r\nHello"]);
    for (n, (port, error)) in [
        (gone, "the connection failed"),
        (quiet, "it took too long"),
        (odd.port(), "the answer is not HTTP"),
    ]
    .into_iter()
    .enumerate()
    {
        hook(&owner, &format!("http://127.0.0.1:{port}/"));
        if n == 0 {
            fire(&server, &owner, "hook");
        } else {
            let budgets = json!([{"name": format!("b{n}"), "meter": "executions",
                "window": "lifetime", "amount": "1", "thresholds": [100], "webhook": "hook"}]);
            let path = "/v1/tenants/acme/budgets";
            server
                .admin()
                .put(path, &json!({"budgets": budgets}))
                .expect(200);
        }
        let dead = only_delivery(&owner, "dead");
        assert_eq!(dead["last_error"], error, "{dead}");
        assert_eq!(dead["last_status"], Value::Null);
        owner.delete("/v1/webhooks/hook").expect(204);
    }
}

#[test]
fn urls_with_private_addresses_are_refused_however_they_are_written() {
    let server = start(&[]);
    let owner = server.tenant("acme");
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::7f00:1]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "169.254.169.254",
        "2852039166",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        let body = json!({"url": format!("http://{host}/hook")});
        let answer = owner.put("/v1/webhooks/hook", &body);
        let problem = answer.problem(400, "invalid_argument");
        assert_eq!(problem["errors"][0]["pointer"], "/url", "{problem}");
        assert!(
            problem.to_string().contains("not a public address"),
            "{problem}"
        );
    }
    for (url, reason) in [
        ("https://example.com/", "no TLS"),
        ("gopher://example.com/", "http://"),
        ("http://u:p@example.com/", "password"),
    ] {
        let answer = owner.put("/v1/webhooks/hook", &json!({"url": url}));
        let problem = answer.problem(400, "invalid_argument");
        assert!(problem.to_string().contains(reason), "{problem}");
    }
    assert_eq!(owner.get("/v1/webhooks").expect(200)["items"], json!([]));
}

/// A name is judged by what it leads to, at every attempt.
#[test]
fn a_name_that_leads_to_a_private_address_is_never_connected_to() {
    let server = start(&[("webhooks.attempts_max", "2")]);
    let receiver = Receiver::start();
    let owner = server.tenant("acme");
    hook(&owner, &format!("http://localhost:{}/", receiver.port()));
    fire(&server, &owner, "hook");
    let dead = only_delivery(&owner, "dead");
    assert_eq!(
        (&dead["attempts"], &dead["last_error"]),
        (&json!(2), &json!("the address is not public"))
    );
    assert!(receiver.received().is_empty());
}

#[test]
fn what_was_allowed_once_is_judged_again_by_the_next_configuration() {
    let receiver = Receiver::answering(&["500 No"]);
    let mut server = start(&[LOOPBACK, ("webhooks.attempts_max", "1")]);
    let owner = server.tenant("acme");
    hook(&owner, &receiver.url());
    fire(&server, &owner, "hook");
    let dead = only_delivery(&owner, "dead");
    server.flag("webhooks.allow_addresses", "[]");
    server.restart();
    let owner = server.reach(&owner);
    let path = format!(
        "/v1/webhooks/hook/deliveries/{}/retry",
        dead["id"].as_str().unwrap()
    );
    owner.post(&path, &json!({})).expect(202);
    let dead = until(|| {
        let dead = only_delivery(&owner, "dead");
        (dead["attempts"] == 2).then_some(dead)
    });
    assert_eq!(dead["last_error"], "the address is not public");
    assert_eq!(receiver.received().len(), 1);
}

#[test]
fn a_disabled_webhook_is_sent_nothing_until_it_is_asked_for() {
    let (server, receiver) = (start(&[LOOPBACK]), Receiver::start());
    let owner = server.tenant("acme");
    let set = |enabled: bool| {
        let body = json!({"url": receiver.url(), "enabled": enabled});
        owner.put("/v1/webhooks/hook", &body)
    };
    set(false).expect(201);
    fire(&server, &owner, "hook");
    let dead = only_delivery(&owner, "dead");
    assert_eq!(dead["last_error"], "the webhook is disabled");
    assert!(receiver.received().is_empty());
    set(true).expect(200);
    let path = format!(
        "/v1/webhooks/hook/deliveries/{}/retry",
        dead["id"].as_str().unwrap()
    );
    owner.post(&path, &json!({})).expect(202);
    only_delivery(&owner, "delivered");
    assert_eq!(receiver.received().len(), 1);
}

#[test]
fn webhooks_are_their_owners_alone() {
    let (server, receiver) = (start(&[LOOPBACK]), Receiver::start());
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    hook(&acme, &receiver.url());
    fire(&server, &acme, "hook");
    let delivery = only_delivery(&acme, "delivered");
    let id = delivery["id"].as_str().unwrap();
    let retry = format!("/v1/webhooks/hook/deliveries/{id}/retry");
    assert_eq!(other.get("/v1/webhooks").expect(200)["items"], json!([]));
    for answer in [
        other.get("/v1/webhooks/hook"),
        other.get("/v1/webhooks/hook?tenant=acme"),
        other.delete("/v1/webhooks/hook"),
        other.delete("/v1/webhooks/hook?tenant=acme"),
        other.get("/v1/webhooks/hook/deliveries"),
        other.get("/v1/webhooks?tenant=acme"),
        other.post(&retry, &json!({})),
        other.put(
            "/v1/webhooks/hook?tenant=acme",
            &json!({"url": receiver.url()}),
        ),
    ] {
        answer.problem(404, "not_found");
    }
    // With a webhook of the same name, another's deliveries are still not there.
    hook(&other, &receiver.url());
    other.post(&retry, &json!({})).problem(404, "not_found");
    assert_eq!(
        other.get("/v1/webhooks/hook/deliveries").expect(200)["items"],
        json!([])
    );
    for role in ["developer", "runner", "billing"] {
        let token = server.token("acme", role);
        token.get("/v1/webhooks").problem(403, "forbidden");
        token
            .get("/v1/webhooks/hook/deliveries")
            .problem(403, "forbidden");
        let body = json!({"url": receiver.url()});
        token
            .put("/v1/webhooks/hook", &body)
            .problem(403, "forbidden");
        token.post(&retry, &json!({})).problem(403, "forbidden");
    }
    let admin = server.admin();
    assert_eq!(
        admin.get("/v1/webhooks/hook?tenant=acme").expect(200)["tenant"],
        "acme"
    );
    admin.get("/v1/webhooks/hook").problem(404, "not_found");
}

/// The operator has webhooks of its own; a tenant that names its own alike does not get what is
/// meant for the operator.
#[test]
fn the_operators_webhooks_are_told_of_tenants_that_cannot_see_them() {
    let server = start(&[LOOPBACK]);
    let (desk, decoy) = (Receiver::start(), Receiver::start());
    let owner = server.tenant("acme");
    let admin = server.admin();
    hook(&admin, &desk.url());
    hook(&owner, &decoy.url());
    fire(&server, &owner, "operator:hook");
    let delivery = only_delivery(&admin, "delivered");
    assert_eq!(delivery["event"]["subject"], "acme");
    assert_eq!(desk.received().len(), 1);
    assert!(decoy.received().is_empty());
    let own = owner.get("/v1/webhooks").expect(200);
    assert_eq!(own["items"].as_array().unwrap().len(), 1, "{own}");
    assert_eq!(own["items"][0]["tenant"], "acme");
    assert_eq!(
        owner.get("/v1/webhooks/hook/deliveries").expect(200)["items"],
        json!([])
    );
}

#[test]
fn webhooks_are_few_plainly_named_and_changed_only_as_they_were_seen() {
    let server = start(&[LOOPBACK, ("webhooks.per_tenant_max", "2")]);
    let owner = server.tenant("acme");
    let url = json!({"url": "http://hooks.example.com/a"});
    for name in ["a", "b"] {
        owner.put(&format!("/v1/webhooks/{name}"), &url).expect(201);
    }
    owner.put("/v1/webhooks/c", &url).problem(409, "conflict");
    server.admin().put("/v1/webhooks/c", &url).expect(201);
    for name in ["-", "A", "a%2Fb", "a%20b", &"x".repeat(65)] {
        let answer = owner.put(&format!("/v1/webhooks/{name}"), &url);
        answer.problem(400, "invalid_argument");
    }
    let tag = owner
        .get("/v1/webhooks/a")
        .header("etag")
        .unwrap()
        .to_owned();
    let put = |tag: &str| {
        let request = owner
            .request("PUT", "/v1/webhooks/a")
            .header("If-Match", tag);
        request.json(&url).send()
    };
    put("\"1\"").problem(409, "conflict");
    put(&tag).expect(200);
    put(&tag).problem(409, "conflict");
    let stale = owner
        .request("DELETE", "/v1/webhooks/a")
        .header("If-Match", &tag);
    stale.send().problem(409, "conflict");
    owner.delete("/v1/webhooks/a").expect(204);
    owner.put("/v1/webhooks/c", &url).expect(201);
}
