//! Who is let in: forged, foreign, expired and narrow tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::server::TestServer;

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a token has three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn header_of(token: &str) -> Value {
    let header = token.split('.').next().expect("a token has three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

#[test]
fn no_token_and_garbage_are_unauthenticated() {
    let server = TestServer::start();
    server.tenant("acme");
    let nobody = server.admin().without_token();
    nobody.get("/v1/executions").problem(401, "unauthenticated");
    assert!(
        nobody
            .get("/v1/executions")
            .header("www-authenticate")
            .is_some()
    );
    let long = "x".repeat(100_000);
    for token in ["", "x", "a.b.c", "....", &long[..6000]] {
        nobody
            .with_token(token)
            .get("/v1/executions")
            .problem(401, "unauthenticated");
    }
    let basic = nobody
        .request("GET", "/v1/executions")
        .header("Authorization", "Basic YTpi");
    basic.send().problem(401, "unauthenticated");
}

#[test]
fn a_token_may_come_as_an_api_key() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let token = owner.token.clone().unwrap();
    let request = owner.without_token();
    request
        .request("GET", "/v1/executions")
        .header("X-Api-Key", &token)
        .send()
        .expect(200);
}

#[test]
fn an_unsigned_token_is_refused() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let token = owner.token.clone().unwrap();
    for alg in ["none", "None", "HS256"] {
        let mut header = header_of(&token);
        header["alg"] = json!(alg);
        let payload = part(&claims_of(&token));
        for signature in ["", "AAAA", token.rsplit('.').next().unwrap()] {
            let forged = format!("{}.{payload}.{signature}", part(&header));
            owner
                .with_token(&forged)
                .get("/v1/executions")
                .problem(401, "unauthenticated");
        }
    }
}

#[test]
fn a_changed_claim_breaks_the_signature() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let token = owner.token.clone().unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let mut claims = claims_of(&token);
    claims["tenant"] = json!("other");
    let forged = format!("{}.{}.{}", parts[0], part(&claims), parts[2]);
    owner
        .with_token(&forged)
        .get("/v1/executions")
        .problem(401, "unauthenticated");
}

#[test]
fn a_token_of_another_servers_key_is_refused() {
    let server = TestServer::start();
    server.tenant("acme");
    let other = TestServer::start();
    let foreign = other.tenant("acme");
    let foreign = server.admin().with_token(&foreign.token.unwrap());
    foreign
        .get("/v1/executions")
        .problem(401, "unauthenticated");
}

#[test]
fn claims_are_all_checked() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let good = claims_of(owner.token.as_deref().unwrap());
    let sign = |change: &dyn Fn(&mut Value)| {
        let mut claims = good.clone();
        change(&mut claims);
        owner.with_token(&server.sign(&claims))
    };
    sign(&|_| ()).get("/v1/executions").expect(200);
    let now = good["exp"].as_i64().unwrap();
    let changes: [(&str, Value); 8] = [
        ("exp", json!(1_000_000_000)),
        ("exp", json!("soon")),
        ("nbf", json!(now + 86_400)),
        ("iss", json!("somebody")),
        ("aud", json!("something")),
        ("jti", json!("")),
        ("scope", json!(7)),
        ("tenant", json!("nobody-knows")),
    ];
    for (claim, value) in changes {
        let changed = sign(&|claims| claims[claim] = value.clone());
        let answer = changed.get("/v1/executions");
        assert_eq!(answer.status, 401, "{claim} = {value}: {}", answer.text());
        answer.problem(401, "unauthenticated");
    }
    for claim in ["exp", "iss", "aud", "jti", "sub", "scope"] {
        let without = sign(&|claims| drop(claims.as_object_mut().unwrap().remove(claim)));
        let answer = without.get("/v1/executions");
        assert_eq!(answer.status, 401, "without {claim}: {}", answer.text());
    }
}

#[test]
fn a_scope_that_is_not_there_is_forbidden() {
    let server = TestServer::start();
    server.tenant("acme");
    let runner = server.token("acme", "runner");
    runner.get("/v1/tenants").problem(403, "forbidden");
    runner
        .get("/v1/usage?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z")
        .problem(403, "forbidden");
    let billing = server.token("acme", "billing");
    billing
        .post("/v1/executions", &json!({"code": "print 1"}))
        .problem(403, "forbidden");
    let owner = server.token("acme", "owner");
    owner
        .put("/v1/tenants/acme/quotas", &json!({"quotas": []}))
        .problem(403, "forbidden");
}

#[test]
fn an_operator_runs_nothing_unless_it_names_a_tenant() {
    let server = TestServer::start();
    server.tenant("acme");
    let admin = server.admin();
    admin
        .post("/v1/executions", &json!({"code": "print 1"}))
        .problem(400, "invalid_argument");
    let run = admin
        .post("/v1/executions?tenant=acme", &json!({"code": "print 1"}))
        .expect(200);
    assert_eq!(run["tenant"], "acme");
    admin
        .post("/v1/executions?tenant=nobody", &json!({"code": "print 1"}))
        .problem(404, "not_found");
}

#[test]
fn the_published_key_set_names_the_signing_key() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let keys = owner
        .without_token()
        .get("/.well-known/jwks.json")
        .expect(200);
    let kid = &header_of(owner.token.as_deref().unwrap())["kid"];
    let key = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| &key["kid"] == kid);
    let key = key.unwrap_or_else(|| panic!("{kid} is not in {keys}"));
    assert_eq!(
        (&key["kty"], &key["crv"]),
        (&json!("OKP"), &json!("Ed25519"))
    );
    assert!(key.get("d").is_none(), "the private key is published");
}

#[test]
fn an_unknown_key_id_is_refused() {
    let server = TestServer::start();
    let owner = server.tenant("acme");
    let token = owner.token.clone().unwrap();
    let mut header = header_of(&token);
    for kid in [json!("../../keys/x"), json!("nobody"), Value::Null] {
        header["kid"] = kid;
        let rest = token.split_once('.').unwrap().1;
        let forged = format!("{}.{rest}", part(&header));
        owner
            .with_token(&forged)
            .get("/v1/executions")
            .problem(401, "unauthenticated");
    }
}
