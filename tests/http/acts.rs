//! Tenants, tokens and their life, as an operator and as a tenant's owner.

use serde_json::json;

use crate::server::TestServer;

#[test]
fn a_tenant_is_made_listed_changed_suspended_and_resumed() {
    let server = TestServer::start();
    let admin = server.admin();
    let made = admin.post(
        "/v1/tenants",
        &json!({"name": "acme", "display_name": "Acme"}),
    );
    assert_eq!(made.expect(201)["name"], "acme");
    admin
        .post("/v1/tenants", &json!({"name": "acme"}))
        .problem(409, "conflict");
    let list = admin.get("/v1/tenants").expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    let changed = admin
        .request("PATCH", "/v1/tenants/acme")
        .json(&json!({"display_name": "Acme Ltd"}));
    assert_eq!(changed.send().expect(200)["display_name"], "Acme Ltd");
    let owner = server.token("acme", "owner");
    admin
        .post("/v1/tenants/acme/suspend", &json!({}))
        .expect(200);
    owner
        .post("/v1/executions", &json!({"code": "print 1"}))
        .problem(403, "tenant_suspended");
    admin
        .post("/v1/tenants/acme/resume", &json!({}))
        .expect(200);
    owner
        .post("/v1/executions", &json!({"code": "print 1"}))
        .expect(200);
}

#[test]
fn a_tenant_name_is_checked() {
    let server = TestServer::start();
    let long = "x".repeat(200);
    for name in ["", "A B", "../x", "a/b", "\u{e4}", "-a", &long] {
        server
            .admin()
            .post("/v1/tenants", &json!({"name": name}))
            .problem(400, "invalid_argument");
    }
    assert_eq!(
        server.admin().get("/v1/tenants").expect(200)["items"],
        json!([])
    );
}

#[test]
fn a_minted_token_works_until_it_is_revoked() {
    let server = TestServer::start();
    server.tenant("acme");
    let minted = server.mint(
        "acme",
        &json!({"name": "ci", "role": "runner", "expires_in_s": 3600}),
    );
    let minted = minted.expect(201);
    let runner = server.admin().with_token(minted["token"].as_str().unwrap());
    runner
        .post("/v1/executions", &json!({"code": "print 1"}))
        .expect(200);
    let listed = server.admin().get("/v1/tenants/acme/tokens").expect(200);
    let items = listed["items"].as_array().unwrap();
    assert!(
        items.iter().any(|item| item["jti"] == minted["jti"]),
        "{listed}"
    );
    assert!(
        !listed
            .to_string()
            .contains(minted["token"].as_str().unwrap()),
        "a secret is listed"
    );
    let path = format!("/v1/tokens/{}", minted["jti"].as_str().unwrap());
    assert!(server.admin().delete(&path).status < 300);
    runner.get("/v1/executions").problem(401, "unauthenticated");
}

#[test]
fn a_revocation_outlives_a_restart() {
    let mut server = TestServer::start();
    let owner = server.tenant("acme");
    let minted = server.mint(
        "acme",
        &json!({"name": "ci", "role": "runner", "expires_in_s": 3600}),
    );
    let minted = minted.expect(201);
    let path = format!("/v1/tokens/{}", minted["jti"].as_str().unwrap());
    assert!(server.admin().delete(&path).status < 300);
    server.restart();
    let runner = server.admin().with_token(minted["token"].as_str().unwrap());
    runner.get("/v1/executions").problem(401, "unauthenticated");
    server.reach(&owner).get("/v1/executions").expect(200);
}

#[test]
fn a_minted_token_stays_within_its_minter() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    server.tenant("other");
    let wide = json!({"name": "n", "scopes": ["quota:write"], "expires_in_s": 60});
    owner
        .post("/v1/tenants/acme/tokens", &wide)
        .problem(403, "forbidden");
    server
        .admin()
        .post("/v1/tenants/acme/tokens", &wide)
        .problem(403, "forbidden");
    let foreign = json!({"name": "n", "role": "runner", "expires_in_s": 60});
    owner
        .post("/v1/tenants/other/tokens", &foreign)
        .problem(404, "not_found");
    let long = json!({"name": "n", "role": "runner", "expires_in_s": 400 * 86400});
    owner
        .post("/v1/tenants/acme/tokens", &long)
        .problem(403, "forbidden");
    let runner = server.token("acme", "runner");
    runner
        .post("/v1/tenants/acme/tokens", &foreign)
        .problem(403, "forbidden");
    let inner = json!({"name": "n", "role": "developer", "expires_in_s": 60});
    owner.post("/v1/tenants/acme/tokens", &inner).expect(201);
}

#[test]
fn limits_and_quotas_are_replaced_under_if_match() {
    let server = TestServer::start();
    server.tenant("acme");
    let admin = server.admin();
    let before = admin.get("/v1/tenants/acme/limits");
    before.expect(200);
    let tag = before
        .header("etag")
        .expect("limits have an ETag")
        .to_owned();
    let body = json!({"concurrency": 3, "maximum": {"cpu_ms": 2000}, "default": {"cpu_ms": 500}});
    let put = admin
        .request("PUT", "/v1/tenants/acme/limits")
        .header("If-Match", &tag)
        .json(&body)
        .send();
    assert_eq!(put.expect(200)["concurrency"], 3);
    let again = admin
        .request("PUT", "/v1/tenants/acme/limits")
        .header("If-Match", &tag)
        .json(&body)
        .send();
    again.problem(409, "conflict");
    let owner = server.token("acme", "owner");
    let above = json!({"code": "print 1", "limits": {"cpu_ms": 2001}});
    owner
        .post("/v1/executions", &above)
        .problem(400, "invalid_argument");
    let run = owner
        .post("/v1/executions", &json!({"code": "print 1"}))
        .expect(200);
    assert_eq!(run["limits"]["cpu_ms"], 500, "{run}");
}

#[test]
fn every_administrative_act_is_an_entry() {
    let server = TestServer::start();
    server.tenant("acme");
    let entries = server.admin().get("/v1/entries?limit=1000").expect(200);
    let acts = entries["items"].as_array().unwrap();
    assert!(
        acts.iter()
            .any(|entry| entry["kind"] == "act" && entry.to_string().contains("acme")),
        "{entries}"
    );
}

#[test]
fn limits_above_what_the_launcher_gives_are_refused() {
    let server = TestServer::start();
    server.tenant("acme");
    let admin = server.admin();
    for limit in [
        "memory_bytes",
        "pids",
        "disk_bytes",
        "cpu_millis",
        "wall_ms",
    ] {
        let body = json!({"maximum": {limit: 1_u64 << 60}});
        let refused = admin.put("/v1/tenants/acme/limits", &body);
        let problem = refused.problem(400, "invalid_argument");
        assert_eq!(problem["errors"][0]["pointer"], format!("/maximum/{limit}"));
    }
}

#[test]
fn a_token_made_offline_is_listed_from_its_first_use_and_can_be_revoked() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let keys = api::Keys::open(server.data_dir(), &api::Clock::system()).unwrap();
    let options = api::Config::with(Vec::new()).unwrap().tokens;
    let mint = api::Mint {
        subject: "offline".to_owned(),
        tenant: Some("acme".to_owned()),
        project: Some("batch".to_owned()),
        scopes: api::Role::Runner.scopes(),
        expires_s: 600,
    };
    let (text, claims) = api::mint(&keys, &options, &api::Clock::system(), mint).unwrap();
    let listed = |jti: &str| {
        let list = owner.get("/v1/tenants/acme/tokens").expect(200);
        let items = list["items"].as_array().unwrap().clone();
        items.into_iter().find(|item| item["jti"] == jti)
    };
    assert!(listed(&claims.jti).is_none());
    let offline = owner.with_token(&text);
    let body = json!({"code": "print 1", "project": "other"});
    let record = offline.post("/v1/executions", &body).expect(200);
    assert_eq!(record["project"], "batch", "a token's project wins");
    let token = listed(&claims.jti).unwrap();
    assert_eq!(
        (&token["name"], &token["state"]),
        (&json!("offline"), &json!("active"))
    );
    let path = format!("/v1/tokens/{}", claims.jti);
    assert_eq!(owner.delete(&path).status, 204);
    offline
        .get("/v1/executions")
        .problem(401, "unauthenticated");
    assert_eq!(listed(&claims.jti).unwrap()["state"], "revoked");
}

#[test]
fn an_operator_revokes_a_key_that_was_never_seen() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let path = "/v1/tokens/key_00000000000000000000000000000001";
    owner.delete(path).problem(404, "not_found");
    assert_eq!(server.admin().delete(path).status, 204);
    assert_eq!(
        server.admin().delete(path).status,
        204,
        "again changes nothing"
    );
}
