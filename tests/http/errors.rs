//! The error table where no handler is reached, or several could speak: one shape for all of them.

use serde_json::json;

use runtime::fake::FakeOptions;

use crate::server::TestServer;

#[test]
fn unknown_routes_and_methods_have_the_same_shape() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    owner.get("/v1/nothing-here").problem(404, "not_found");
    let answer = owner.request("PATCH", "/v1/executions").send();
    answer.problem(405, "method_not_allowed");
    assert!(
        answer
            .header("allow")
            .is_some_and(|allow| allow.contains("POST"))
    );
}

#[test]
fn an_unknown_id_is_not_found_and_a_malformed_one_too() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    for id in [
        "exe_00000000000000000000000000000000",
        "exe_x",
        "x",
        "..%2f..%2fetc",
        "%00",
    ] {
        owner
            .get(&format!("/v1/executions/{id}"))
            .problem(404, "not_found");
    }
}

#[test]
fn a_full_concurrency_cap_refuses_at_once() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    server
        .admin()
        .put("/v1/tenants/acme/limits", &json!({"concurrency": 1}))
        .expect(200);
    let id = server.running(&owner, &json!({"code": "wait"}));
    let refused = owner.post("/v1/executions", &json!({"code": "print 1"}));
    let problem = refused.problem(429, "concurrency_exceeded");
    assert_eq!(problem["retry"], "safe");
    assert!(refused.header("retry-after").is_some());
    owner.delete(&format!("/v1/executions/{id}"));
    crate::server::finished(&owner, &id);
    owner
        .post("/v1/executions", &json!({"code": "print 1"}))
        .expect(200);
}

#[test]
fn asynchronous_requests_wait_in_a_bounded_queue() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    server
        .admin()
        .put("/v1/tenants/acme/limits", &json!({"concurrency": 1}))
        .expect(200);
    let send = |code: &str| owner.post_async(&json!({"code": code}));
    let first = send("wait").expect(202)["id"].as_str().unwrap().to_owned();
    server.until_running(&owner, &first);
    let second = send("print 2").expect(202)["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let waiting = owner.get(&format!("/v1/executions/{second}")).expect(200);
    assert_eq!(waiting["state"], "queued", "{waiting}");
    let mut refused = None;
    for _ in 0..10_000 {
        let answer = send("print 3");
        if answer.status != 202 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the queue has a bound");
    assert!([429, 503].contains(&refused.status), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    owner.delete(&format!("/v1/executions/{first}"));
    crate::server::finished(&owner, &second);
}

#[test]
fn a_body_that_does_not_come_is_a_timeout() {
    let flags = [("server.body_timeout_ms", "50")];
    let server = TestServer::with(&flags, FakeOptions::default());
    let owner = server.tenant("acme");
    let token = owner.token.clone().unwrap();
    let head = format!(
        "POST /v1/executions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{{"
    );
    let answer = owner.raw(head.as_bytes());
    assert_eq!(answer.problem(408, "request_timeout")["retry"], "safe");
    server.assert_untouched("acme");
}

#[test]
fn a_tenants_asynchronous_queue_has_a_bound_of_its_own() {
    let flags = [("machine.async_queue_per_tenant", "2")];
    let server = TestServer::with(&flags, FakeOptions::default());
    let owner = server.tenant("acme");
    let limits = json!({"concurrency": 1});
    server
        .admin()
        .put("/v1/tenants/acme/limits", &limits)
        .expect(200);
    let send = |code: &str| owner.post_async(&json!({"code": code}));
    let id = |record: serde_json::Value| record["id"].as_str().unwrap().to_owned();
    let first = id(send("wait").expect(202));
    server.until_running(&owner, &first);
    let (second, third) = (
        id(send("print 2").expect(202)),
        id(send("print 3").expect(202)),
    );
    assert_eq!(
        send("print 4").problem(429, "rate_exceeded")["retry"],
        "safe"
    );
    owner.delete(&format!("/v1/executions/{first}"));
    for (id, output) in [(second, "2\n"), (third, "3\n")] {
        assert_eq!(crate::server::finished(&owner, &id)["stdout"], output);
    }
}

#[test]
fn event_streams_have_a_bound() {
    let flags = [("server.event_streams_max", "1")];
    let server = TestServer::with(&flags, FakeOptions::default());
    let owner = server.tenant("acme");
    let record = owner.post_async(&json!({"code": "wait"})).expect(202);
    let path = format!("/v1/executions/{}", record["id"].as_str().unwrap());
    server.until_running(&owner, record["id"].as_str().unwrap());
    let mut stream = owner.request("GET", &format!("{path}/events")).open();
    assert_eq!(crate::client::read_head(&mut stream).0, 200);
    owner
        .get(&format!("{path}/events"))
        .problem(503, "overloaded");
    owner.delete(&path).expect(200);
}
