//! Bad input gets its typed error, and changes nothing: no hold, no charge, no start.

use serde_json::{Value, json};

use crate::client::Client;
use crate::server::TestServer;

/// Asserts that the request is refused, and that nothing was held, charged, started or recorded.
#[track_caller]
fn refused(server: &TestServer, client: &Client, body: &Value, status: u16, code: &str) -> Value {
    let problem = client.post("/v1/executions", body).problem(status, code);
    server.assert_untouched("acme");
    problem
}

#[test]
fn unknown_fields_are_named() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let body = json!({"code": "print 1", "colour": "red", "limits": {"wall_sm": 1}});
    let problem = refused(&server, &owner, &body, 400, "invalid_argument");
    assert!(problem.to_string().contains("colour"), "{problem}");
}

#[test]
fn all_faults_of_one_request_are_told_at_once() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let body = json!({
        "code": "print 1", "limits": {"wall_ms": 0, "memory_bytes": 1},
        "files": [
            {"path": "../x", "content": ""},
            {"path": "ok", "content": "%%%", "encoding": "base64"},
        ],
    });
    let problem = refused(&server, &owner, &body, 400, "invalid_argument");
    let errors = problem["errors"].as_array().expect("errors are listed");
    let pointers: Vec<&str> = errors
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    for pointer in [
        "/limits/wall_ms",
        "/limits/memory_bytes",
        "/files/0/path",
        "/files/1/content",
    ] {
        assert!(
            pointers.contains(&pointer),
            "{pointer} is not among {pointers:?}"
        );
    }
}

#[test]
fn code_and_command_exclude_each_other() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let both = json!({"code": "print 1", "command": ["true"]});
    refused(&server, &owner, &both, 400, "invalid_argument");
    refused(&server, &owner, &json!({}), 400, "invalid_argument");
    refused(
        &server,
        &owner,
        &json!({"command": []}),
        400,
        "invalid_argument",
    );
}

#[test]
fn limits_of_zero_below_zero_and_above_the_maximum_are_refused() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let names = [
        "wall_ms",
        "cpu_ms",
        "cpu_millis",
        "memory_bytes",
        "pids",
        "disk_bytes",
        "inodes",
        "open_files",
        "output_bytes",
    ];
    for name in names {
        for value in [
            json!(0),
            json!(-1),
            json!(u64::MAX),
            json!(1.5),
            json!("many"),
        ] {
            let body = json!({"code": "print 1", "limits": {name: value}});
            refused(&server, &owner, &body, 400, "invalid_argument");
        }
    }
}

#[test]
fn file_paths_that_leave_the_workspace_are_refused() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    for path in [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a\u{0}b",
        "",
        ".",
        "a/./..",
        "a//b/..",
    ] {
        let body = json!({"code": "print 1", "files": [{"path": path, "content": "x"}]});
        refused(&server, &owner, &body, 400, "invalid_argument");
    }
}

#[test]
fn nul_bytes_in_what_becomes_argv_or_environment_are_refused() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    for body in [
        json!({"command": ["print", "a\u{0}b"]}),
        json!({"code": "print 1", "env": {"A\u{0}": "v"}}),
        json!({"code": "print 1", "env": {"A": "v\u{0}"}}),
        json!({"code": "print 1", "env": {"A=B": "v"}}),
        json!({"code": "print 1", "env": {"": "v"}}),
    ] {
        refused(&server, &owner, &body, 400, "invalid_argument");
    }
}

#[test]
fn invalid_base64_and_unknown_encodings_are_refused() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    for file in [
        json!({"path": "a", "content": "not base64!", "encoding": "base64"}),
        json!({"path": "a", "content": "x", "encoding": "utf16"}),
    ] {
        let body = json!({"code": "print 1", "files": [file]});
        refused(&server, &owner, &body, 400, "invalid_argument");
    }
}

#[test]
fn images_and_languages_that_are_not_there_are_refused() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let missing = json!({"image": "no-such-image", "code": "print 1"});
    refused(&server, &owner, &missing, 404, "not_found");
    let digest = format!("sha256:{}", "0".repeat(64));
    refused(
        &server,
        &owner,
        &json!({"image": digest, "code": "print 1"}),
        404,
        "not_found",
    );
    let language = json!({"language": "cobol", "code": "print 1"});
    refused(&server, &owner, &language, 400, "invalid_argument");
    let not_labelled = json!({"image": "python", "language": "node", "code": "print 1"});
    refused(&server, &owner, &not_labelled, 400, "invalid_argument");
}

#[test]
fn an_image_outside_the_tenants_list_is_forbidden() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let body = json!({"concurrency": 4, "images": ["node"]});
    server
        .admin()
        .put("/v1/tenants/acme/limits", &body)
        .expect(200);
    refused(
        &server,
        &owner,
        &json!({"image": "python", "code": "print 1"}),
        403,
        "forbidden",
    );
}

#[test]
fn networks_other_than_none_are_refused() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let body = json!({"code": "print 1", "network": {"mode": "full"}});
    refused(&server, &owner, &body, 400, "invalid_argument");
}

#[test]
fn a_body_over_the_bound_is_refused_whether_announced_or_not() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let token = owner.token.clone().unwrap();
    let announced = format!(
        "POST /v1/executions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{{",
        100 << 20
    );
    owner
        .raw(announced.as_bytes())
        .problem(413, "payload_too_large");
    let mut body = b"{\"code\": \"".to_vec();
    body.resize(100 << 20, b'x');
    let sent = owner
        .request("POST", "/v1/executions")
        .bytes("application/json", body)
        .send();
    sent.problem(413, "payload_too_large");
    server.assert_untouched("acme");
}

#[test]
fn malformed_json_and_wrong_content_types_are_refused() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    for text in [
        "",
        "{",
        "[]",
        "null",
        "{\"code\": 1}",
        "{\"code\": \"print 1\"} x",
    ] {
        let sent = owner
            .request("POST", "/v1/executions")
            .bytes("application/json", text.into());
        sent.send().problem(400, "invalid_argument");
    }
    let deep = format!("{{\"tags\": {}{}}}", "[".repeat(5000), "]".repeat(5000));
    let sent = owner
        .request("POST", "/v1/executions")
        .bytes("application/json", deep.into_bytes());
    sent.send().problem(400, "invalid_argument");
    let form = owner
        .request("POST", "/v1/executions")
        .bytes("text/plain", b"{}".to_vec());
    form.send().problem(415, "unsupported_media_type");
    server.assert_untouched("acme");
}

#[test]
fn tags_project_and_stdin_are_bounded() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let many: serde_json::Map<String, Value> =
        (0..1000).map(|n| (format!("k{n}"), json!("v"))).collect();
    refused(
        &server,
        &owner,
        &json!({"code": "print 1", "tags": many}),
        400,
        "invalid_argument",
    );
    let long = "x".repeat(65);
    refused(
        &server,
        &owner,
        &json!({"code": "print 1", "project": long}),
        400,
        "invalid_argument",
    );
    refused(
        &server,
        &owner,
        &json!({"code": "print 1", "project": ""}),
        400,
        "invalid_argument",
    );
}

#[test]
fn a_refused_key_can_be_used_again() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let keyed = |body: &Value| {
        let request = owner
            .request("POST", "/v1/executions")
            .header("Idempotency-Key", "\"k\"");
        request.json(body).send()
    };
    keyed(&json!({"code": "print 1", "limits": {"wall_ms": 0}})).problem(400, "invalid_argument");
    keyed(&json!({"code": "print 1"})).expect(200);
}
