//! Kept files: asked for, read, listed, dropped, crowded out; and every way in which they are
//! refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use runtime::fake::FakeOptions;
use serde_json::{Value, json};

use crate::client::Client;
use crate::server::{TestServer, until};

/// A failed run that leaves `out.txt`, and `keep` seconds to read it.
fn fail(client: &Client, keep: u64) -> Value {
    let file = json!({"path": "data/in.txt", "content": "0123456789"});
    let body = json!({
        "code": "write out.txt result\nexit 3", "files": [file], "keep_on_failure_s": keep,
    });
    client.post("/v1/executions", &body).expect(200)
}

fn path(record: &Value, rest: &str) -> String {
    format!("/v1/executions/{}{rest}", record["id"].as_str().unwrap())
}

#[test]
fn kept_files_are_read_whole_and_in_ranges() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let record = fail(&owner, 600);
    assert!(record["kept_until"].as_str().unwrap() > record["finished_at"].as_str().unwrap());
    let again = owner.get(&path(&record, "")).expect(200);
    assert_eq!(again["kept_until"], record["kept_until"]);

    let read = |query: &str| owner.get(&path(&record, &format!("/files?path={query}")));
    for query in [
        "out.txt",
        "/workspace/out.txt",
        "L3dvcmtzcGFjZS9vdXQudHh0&path_encoding=base64",
    ] {
        let answer = read(query);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "result\n"),
            "{query}"
        );
        assert_eq!(
            answer.header("content-type"),
            Some("application/octet-stream")
        );
        assert_eq!(answer.header("content-disposition"), Some("attachment"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("content-length"), Some("7"));
    }
    let ranged = |range: &str| {
        let url = path(&record, "/files?path=data/in.txt");
        owner.request("GET", &url).header("Range", range).send()
    };
    let part = ranged("bytes=2-4");
    assert_eq!((part.status, part.text().as_str()), (206, "234"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    assert_eq!(ranged("bytes=-3").text(), "789");
    assert_eq!(ranged("lines=1-2").text(), "0123456789");
    let none = ranged("bytes=10-");
    none.problem(416, "range_not_satisfiable");
    assert_eq!(none.header("content-range"), Some("bytes */10"));
}

#[test]
fn large_files_come_whole() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let content: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let file = json!({
        "path": "big", "content": STANDARD.encode(&content), "encoding": "base64",
    });
    let body = json!({"code": "exit 1", "files": [file], "keep_on_failure_s": 600});
    let record = owner.post("/v1/executions", &body).expect(200);
    let answer = owner.get(&path(&record, "/files?path=big"));
    assert_eq!(answer.status, 200);
    assert!(answer.body == content, "{} bytes", answer.body.len());
}

#[test]
fn directories_are_listed_in_pages() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let record = fail(&owner, 600);
    let list = |query: &str| owner.get(&path(&record, &format!("/files/list?{query}")));
    let all = list("path=/workspace").expect(200);
    let file = json!({"name": "out.txt", "name_encoding": "utf8", "kind": "file", "size_bytes": 7,
        "mode": "0644"});
    let items = all["items"].as_array().unwrap();
    assert!(items.contains(&file), "{all}");
    assert!(
        items
            .iter()
            .any(|item| item["name"] == "data" && item["kind"] == "dir"),
        "{all}"
    );
    assert!(all["next_cursor"].is_null(), "{all}");
    let mut paged = Vec::new();
    let mut query = "path=/workspace&limit=1".to_owned();
    loop {
        let page = list(&query).expect(200);
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        query = format!("path=/workspace&limit=1&cursor={cursor}");
    }
    assert_eq!(&paged, items);
    list("path=out.txt").problem(400, "invalid_argument");
    list("path=nowhere").problem(404, "not_found");
    list("path=/workspace&cursor=x").problem(400, "invalid_argument");
    list("path=/workspace&limit=0").problem(400, "invalid_argument");
}

#[test]
fn bad_paths_are_refused_and_nothing_of_them_is_in_a_header() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let record = fail(&owner, 600);
    let read = |query: &str| owner.get(&path(&record, &format!("/files{query}")));
    for query in [
        "",
        "?path=a%00b",
        "?path=x&path_encoding=hex",
        "?path=%25%25&path_encoding=base64",
        "?path=x&other=1",
        "?path=x&path=y",
        &format!("?path={}", "x".repeat(5_000)),
    ] {
        read(query).problem(400, "invalid_argument");
    }
    read("?path=data").problem(400, "invalid_argument");
    for query in [
        "?path=no%0d%0aX-Forged:%201",
        "?path=../etc/shadow",
        "?path=/etc/shadow",
    ] {
        let answer = read(query);
        answer.problem(404, "not_found");
        assert_eq!(answer.header("x-forged"), None);
    }
}

#[test]
fn what_was_not_kept_is_gone() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let gone = |record: &Value| {
        assert!(record.get("kept_until").is_none(), "{record}");
        for rest in ["/files?path=x", "/files/list?path=/workspace"] {
            owner.get(&path(record, rest)).problem(410, "sandbox_gone");
        }
        owner
            .delete(&path(record, "/files"))
            .problem(410, "sandbox_gone");
    };
    gone(&fail(&owner, 0));
    let good = json!({"code": "print hello", "keep_on_failure_s": 600});
    gone(&owner.post("/v1/executions", &good).expect(200));
    let never = json!({"code": "fail start", "keep_on_failure_s": 600});
    gone(&owner.post("/v1/executions", &never).expect(200));
    let unknown = format!("/v1/executions/exe_{}/files?path=x", "0".repeat(32));
    owner.get(&unknown).problem(404, "not_found");
}

#[test]
fn the_time_is_bounded_by_the_configuration() {
    let flags = [("sandbox.keep_on_failure_s_max", "60")];
    let server = TestServer::with(&flags, FakeOptions::default());
    let owner = server.tenant("acme");
    for wrong in [json!(61), json!(-1), json!("60"), json!(1.5)] {
        let body = json!({"code": "exit 1", "keep_on_failure_s": wrong});
        let problem = owner
            .post("/v1/executions", &body)
            .problem(400, "invalid_argument");
        assert_eq!(
            problem["errors"][0]["pointer"], "/keep_on_failure_s",
            "{problem}"
        );
    }
    assert!(fail(&owner, 60)["kept_until"].is_string());
}

#[test]
fn kept_files_are_the_tenants_own() {
    let server = TestServer::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let record = fail(&acme, 600);
    for rest in ["/files?path=out.txt", "/files/list?path=/workspace"] {
        other.get(&path(&record, rest)).problem(404, "not_found");
        server
            .token("acme", "billing")
            .get(&path(&record, rest))
            .problem(403, "forbidden");
    }
    other
        .delete(&path(&record, "/files"))
        .problem(404, "not_found");
    assert_eq!(acme.get(&path(&record, "/files?path=out.txt")).status, 200);
}

#[test]
fn dropped_files_are_gone_at_once() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let record = fail(&owner, 600);
    owner.delete(&path(&record, "/files")).expect(204);
    owner
        .get(&path(&record, "/files?path=out.txt"))
        .problem(410, "sandbox_gone");
    owner
        .delete(&path(&record, "/files"))
        .problem(410, "sandbox_gone");
}

#[test]
fn files_whose_time_is_over_are_gone() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let record = fail(&owner, 1);
    let url = path(&record, "/files?path=out.txt");
    assert_eq!(owner.get(&url).status, 200);
    until(|| (owner.get(&url).status == 410).then_some(()));
}

#[test]
fn a_tenants_oldest_give_way_to_its_newest_and_no_others_do() {
    let flags = [("sandbox.keep_per_tenant_max", "2")];
    let server = TestServer::with(&flags, FakeOptions::default());
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let theirs = fail(&other, 600);
    let ours: Vec<Value> = (0..3).map(|_| fail(&acme, 600)).collect();
    let status = |client: &Client, record| client.get(&path(record, "/files?path=out.txt")).status;
    let statuses: Vec<u16> = ours.iter().map(|record| status(&acme, record)).collect();
    assert_eq!(statuses, [410, 200, 200]);
    assert_eq!(status(&other, &theirs), 200);
}

#[test]
fn kept_files_give_way_to_a_run_that_needs_their_room() {
    let fake = FakeOptions {
        capacity: 2,
        ..FakeOptions::default()
    };
    let server = TestServer::with(&[], fake);
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let (first, second) = (fail(&acme, 600), fail(&acme, 600));
    let record = other
        .post("/v1/executions", &json!({"code": "print hello"}))
        .expect(200);
    assert_eq!(record["stdout"], "hello\n");
    let status = |record| acme.get(&path(record, "/files?path=out.txt")).status;
    assert_eq!((status(&first), status(&second)), (410, 200));
}

#[test]
fn kept_files_go_with_the_server() {
    let mut server = TestServer::start();
    let owner = server.tenant("acme");
    let record = fail(&owner, 600);
    server.restart();
    let owner = server.reach(&owner);
    owner
        .get(&path(&record, "/files?path=out.txt"))
        .problem(410, "sandbox_gone");
    // It says until when they were to stay, as it was told.
    assert!(owner.get(&path(&record, "")).expect(200)["kept_until"].is_string());
}

#[test]
fn files_of_what_still_runs_are_not_there_yet() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let body = json!({"code": "wait", "keep_on_failure_s": 600});
    let request = owner.request("POST", "/v1/executions").json(&body);
    let begun = request.header("Prefer", "respond-async").send().expect(202);
    let id = begun["id"].as_str().unwrap();
    server.until_running(&owner, id);
    owner
        .get(&path(&begun, "/files?path=x"))
        .problem(409, "conflict");
    owner.delete(&path(&begun, ""));
    until(|| {
        (owner
            .get(&path(&begun, "/files/list?path=/workspace"))
            .status
            == 200)
            .then_some(())
    });
}
