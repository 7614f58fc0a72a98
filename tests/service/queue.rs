//! Runs that wait for a slot, and runs that are refused: none of those that fit, and nothing is
//! used up by the others.

use serde_json::json;

use crate::http::{self, Request};
use crate::server::{self, Server};
use crate::world::{World, wait_until};

/// Rounds of a full queue over two slots.
const ROUNDS: usize = 5;
const AT_ONCE: usize = 8;
/// Longest that it may take until a sandbox was made ahead.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

#[test]
fn who_has_waited_for_a_slot_gets_a_sandbox_though_the_last_is_still_being_cleared_away() {
    let Some(world) = World::enter("a queue over few slots") else {
        return;
    };
    let dir = server::data_dir();
    let settings = [
        ("FAREBOX_MACHINE__SLOTS", "2"),
        ("FAREBOX_MACHINE__QUEUE_MS", "60000"),
    ];
    let mut server = Server::start(&world, dir.path(), &settings);
    let token = server.tenant("acme");
    let address = server.address;
    let body = json!({ "language": "python", "code": "print(42)" });
    for _ in 0..ROUNDS {
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    let request = Request {
                        method: "POST",
                        path: "/v1/executions",
                        token: &token,
                        body: Some(&body),
                        ..Request::default()
                    };
                    let answer = http::send(address, &request).unwrap();
                    assert_eq!(answer.status, 200, "{}\n{}", answer.body, server.log());
                    assert_eq!(answer.body["stdout"], "42\n");
                });
            }
        });
    }
    assert_eq!(server.stop(), Some(0));
}

/// While a hold becomes durable, a sandbox that stands ready is taken for it already.
#[test]
fn who_is_refused_uses_up_nothing_that_stands_ready() {
    let Some(world) = World::enter("refusals beside what stands ready") else {
        return;
    };
    let dir = server::data_dir();
    let mut server = Server::start(&world, dir.path(), &[("FAREBOX_POOL__MIN", "4")]);
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let body = json!({ "language": "python", "code": "print(42)" });
    let ask = |token: &str| {
        let request = Request {
            method: "POST",
            path: "/v1/executions",
            token,
            body: Some(&body),
            ..Request::default()
        };
        server.ask(&request).unwrap()
    };
    assert_eq!(ask(&acme).status, 200);
    let warm = wait_until(PATIENCE, || {
        let answer = ask(&acme);
        (answer.body["start"] == "warm").then_some(answer)
    });
    assert_eq!(warm.unwrap().body["stdout"], "42\n");
    let quota =
        json!({ "quotas": [{ "meter": "executions", "window": "lifetime", "limit": "1" }] });
    server.admin("PUT", "/v1/tenants/acme/quotas", Some(&quota));
    let ready = wait_until(PATIENCE, || {
        let metrics = server.admin("GET", "/metrics", None);
        metrics.as_str().unwrap().lines().find_map(|line| {
            let count = line.strip_prefix("farebox_sandboxes_ready ")?;
            (count.parse::<u64>().ok()? >= 4).then_some(())
        })
    });
    assert!(ready.is_some(), "too few stand ready");
    // Of those that stand ready the refusals take one at most.
    for _ in 0..20 {
        assert_eq!(ask(&acme).status, 429);
    }
    let answer = ask(&other);
    assert_eq!(answer.body["start"], "warm", "{}", answer.body);
    assert_eq!(server.stop(), Some(0));
}
