//! Tenants do not see, reach or pay for each other: everything of another is not found.

use serde_json::json;

use crate::server::TestServer;

#[test]
fn another_tenants_execution_is_not_found() {
    let server = TestServer::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let record = acme
        .post("/v1/executions", &json!({"code": "print secret"}))
        .expect(200);
    let path = format!("/v1/executions/{}", record["id"].as_str().unwrap());
    other.get(&path).problem(404, "not_found");
    other
        .get(&format!("{path}/events"))
        .problem(404, "not_found");
    other.delete(&path).problem(404, "not_found");
    assert_eq!(other.get("/v1/executions").expect(200)["items"], json!([]));
    assert_eq!(other.get("/v1/executions?tenant=acme").status, 404);
}

#[test]
fn another_tenants_administration_is_not_found() {
    let server = TestServer::start();
    server.tenant("acme");
    let other = server.tenant("other");
    other
        .get("/v1/tenants/acme/tokens")
        .problem(404, "not_found");
    let minted = server
        .mint(
            "acme",
            &json!({"name": "ci", "role": "runner", "expires_in_s": 60}),
        )
        .expect(201);
    let jti = minted["jti"].as_str().unwrap();
    other
        .delete(&format!("/v1/tokens/{jti}"))
        .problem(404, "not_found");
    server
        .admin()
        .with_token(minted["token"].as_str().unwrap())
        .get("/v1/executions")
        .expect(200);
}

#[test]
fn usage_and_entries_are_the_tenants_own() {
    let server = TestServer::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    acme.post("/v1/executions", &json!({"code": "cpu_us 5000"}))
        .expect(200);
    let range = server.today();
    let theirs = other
        .get(&format!("/v1/usage?{range}&window=day&group_by=tenant"))
        .expect(200);
    assert_eq!(theirs["items"], json!([]), "{theirs}");
    let entries = other.get("/v1/entries").expect(200);
    assert!(!entries.to_string().contains("acme"), "{entries}");
    other
        .get(&format!("/v1/usage?{range}&window=day&tenant=acme"))
        .problem(404, "not_found");
    let holds = other.get("/v1/holds").expect(200);
    assert!(!holds.to_string().contains("acme"), "{holds}");
    let all = server
        .admin()
        .get(&format!("/v1/usage?{range}&window=day&group_by=tenant"))
        .expect(200);
    assert_eq!(all["items"][0]["group"]["tenant"], "acme", "{all}");
}
