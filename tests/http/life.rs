//! The server's life: readiness, hang-ups, drain, restart with holds left open.

use serde_json::json;

use crate::client::read_head;
use crate::server::{TestServer, finished};

#[test]
fn health_and_readiness_need_no_token() {
    let server = TestServer::start();
    let nobody = server.admin().without_token();
    assert_eq!(nobody.get("/healthz").status, 200);
    assert_eq!(nobody.get("/readyz").status, 200);
}

#[test]
fn a_client_that_hangs_up_still_pays_for_what_ran() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let body = json!({"code": "cpu_us 1000\nwait", "limits": {"wall_ms": 400}});
    drop(owner.request("POST", "/v1/executions").json(&body).open());
    let id = server.only_execution(&owner);
    let record = finished(&owner, &id);
    assert_eq!(
        record["outcome"],
        json!({"kind": "timed_out", "clock": "wall"})
    );
    assert_eq!(server.settlements("acme"), 1);
    server.assert_nothing_held("acme");
}

#[test]
fn a_draining_server_refuses_new_runs_and_settles_the_running_ones() {
    let mut server = TestServer::start();
    let owner = server.tenant("acme");
    let id = server.running(
        &owner,
        &json!({"code": "wait", "limits": {"wall_ms": 60_000}}),
    );
    server.restart();
    let owner = server.reach(&owner);
    let done = owner.get(&format!("/v1/executions/{id}")).expect(200);
    assert_eq!(done["state"], "finished", "{done}");
    assert_eq!(done["outcome"]["kind"], "cancelled", "{done}");
    assert_eq!(server.settlements("acme"), 1);
    server.assert_nothing_held("acme");
}

#[test]
fn metrics_are_in_prometheus_form_and_name_no_tenant() {
    let server = TestServer::start();
    let owner = server.tenant("acme-secret-name");
    owner
        .post(
            "/v1/executions",
            &json!({"code": "print 1", "tags": {"t": "tag-value"}}),
        )
        .expect(200);
    let metrics = server.admin().without_token().get("/metrics");
    assert_eq!(metrics.status, 200);
    let text = metrics.text();
    assert!(
        text.contains("# TYPE") && text.contains("farebox_"),
        "{text}"
    );
    // What the sizes are and how far everything is behind, each without a label.
    for gauge in [
        "journal_segments 1",
        "journal_bytes_total ",
        "view_bytes ",
        "lag 0",
        "lag_seconds ",
        "view_lag ",
        "view_lag_seconds ",
    ] {
        let line = format!("\nfarebox_ledger_{gauge}");
        assert!(text.contains(&line), "no{line} in {text}");
    }
    let unsigned = text.lines().find_map(|line| {
        let value = line.strip_prefix("farebox_checkpoint_lag_seconds ")?;
        value.parse::<f64>().ok()
    });
    assert!(unsigned.unwrap() > 0.0, "{text}");
    for secret in ["acme-secret-name", "tag-value", "exe_"] {
        assert!(!text.contains(secret), "{secret} is in the metrics");
    }
}

#[test]
fn a_request_head_that_never_ends_is_cut_off() {
    let server = TestServer::start();
    let client = server.admin();
    let mut head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n".to_vec();
    for n in 0..20_000 {
        head.extend(format!("X-Filler-{n}: {}\r\n", "y".repeat(50)).into_bytes());
    }
    head.extend(b"\r\n");
    let answer = std::panic::catch_unwind(|| client.raw(&head).status);
    assert!(
        answer.is_err() || answer.unwrap() >= 400,
        "a head of a megabyte was taken"
    );
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn a_request_id_is_answered_and_a_bad_one_replaced() {
    let server = TestServer::start();
    let client = server.admin();
    let given = client
        .request("GET", "/healthz")
        .header("X-Request-Id", "req-42")
        .send();
    assert_eq!(given.header("x-request-id"), Some("req-42"));
    let bad = client
        .request("GET", "/healthz")
        .header("X-Request-Id", "a b<script>")
        .send();
    let id = bad.header("x-request-id").expect("an id is made");
    assert!(
        id.chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)),
        "{id}"
    );
}

#[test]
fn connections_are_kept_alive() {
    use std::io::{BufReader, Write};
    let server = TestServer::start();
    let stream = server.admin().connect();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    for _ in 0..3 {
        writer
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let (status, headers) = read_head(&mut reader);
        assert_eq!(status, 200);
        let length = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length: u64 = length.map_or(0, |(_, value)| value.parse().unwrap());
        std::io::copy(
            &mut std::io::Read::take(&mut reader, length),
            &mut std::io::sink(),
        )
        .unwrap();
    }
}
