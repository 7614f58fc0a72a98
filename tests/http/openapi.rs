//! The generated document: every route of the contract, every error as problem details.

use serde_json::Value;

use crate::server::TestServer;

/// Method, path and nothing else: what API.md promises of this slice.
const ROUTES: &[(&str, &str)] = &[
    ("post", "/v1/tenants"),
    ("get", "/v1/tenants"),
    ("get", "/v1/tenants/{tenant}"),
    ("patch", "/v1/tenants/{tenant}"),
    ("post", "/v1/tenants/{tenant}/suspend"),
    ("post", "/v1/tenants/{tenant}/resume"),
    ("post", "/v1/tenants/{tenant}/tokens"),
    ("get", "/v1/tenants/{tenant}/tokens"),
    ("delete", "/v1/tokens/{jti}"),
    ("get", "/v1/tenants/{tenant}/quotas"),
    ("put", "/v1/tenants/{tenant}/quotas"),
    ("get", "/v1/quotas"),
    ("get", "/v1/tenants/{tenant}/limits"),
    ("put", "/v1/tenants/{tenant}/limits"),
    ("post", "/v1/executions"),
    ("get", "/v1/executions"),
    ("get", "/v1/executions/{id}"),
    ("get", "/v1/executions/{id}/events"),
    ("get", "/v1/executions/{id}/files"),
    ("delete", "/v1/executions/{id}/files"),
    ("get", "/v1/executions/{id}/files/list"),
    ("delete", "/v1/executions/{id}"),
    ("get", "/v1/usage"),
    ("get", "/v1/forecast"),
    ("get", "/v1/exports/{format}"),
    ("get", "/v1/entries"),
    ("get", "/v1/entries/{seq}"),
    ("get", "/v1/holds"),
    ("get", "/.well-known/jwks.json"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
];

fn document(server: &TestServer) -> Value {
    server
        .admin()
        .without_token()
        .get("/openapi.json")
        .expect(200)
}

#[test]
fn the_document_is_openapi_3_1_and_has_every_route() {
    let server = TestServer::start();
    let document = document(&server);
    assert!(
        document["openapi"].as_str().unwrap().starts_with("3.1"),
        "{}",
        document["openapi"]
    );
    let missing: Vec<_> = ROUTES
        .iter()
        .filter(|(method, path)| document["paths"][path][method].is_null())
        .collect();
    assert!(missing.is_empty(), "not in the document: {missing:?}");
}

#[test]
fn every_operation_has_a_summary_and_answers() {
    let server = TestServer::start();
    let document = document(&server);
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(
                operation["summary"].is_string() || operation["description"].is_string(),
                "{name}"
            );
            assert!(
                operation["responses"]
                    .as_object()
                    .is_some_and(|all| !all.is_empty()),
                "{name}"
            );
        }
    }
}

#[test]
fn every_reference_in_the_document_resolves() {
    fn visit(value: &Value, root: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(root.pointer(pointer).is_some(), "{reference} leads nowhere");
                }
                members.values().for_each(|member| visit(member, root));
            }
            Value::Array(items) => items.iter().for_each(|item| visit(item, root)),
            _ => {}
        }
    }
    let server = TestServer::start();
    let document = document(&server);
    visit(&document, &document);
}

#[test]
fn each_route_of_the_document_is_served() {
    let server = TestServer::start();
    let nobody = server.admin().without_token();
    for (path, operations) in document(&server)["paths"].as_object().unwrap() {
        let path: String = path
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        for method in operations.as_object().unwrap().keys() {
            let answer = nobody.request(&method.to_uppercase(), &path).send();
            assert!(
                ![404, 405].contains(&answer.status),
                "{method} {path}: {}",
                answer.status
            );
        }
    }
}

/// One line for each operation: what it takes and answers, by name. A change here is a change of
/// the contract.
#[test]
fn the_operations_are_as_they_were() {
    let server = TestServer::start();
    let document = document(&server);
    let mut lines = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let names: Vec<&str> = parameters
                .map(|one| one["name"].as_str().unwrap())
                .collect();
            let body = schema(&operation["requestBody"]);
            let answers = operation["responses"].as_object().unwrap();
            let answers: Vec<String> = answers
                .iter()
                .map(|(status, answer)| format!("{status} {}", schema(answer)))
                .collect();
            let (names, answers) = (names.join(" "), answers.join(", "));
            lines.push(format!("{method} {path} [{names}] {body} -> {answers}"));
        }
    }
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"));
}

/// The name of the schema of a body, or its type.
fn schema(body: &Value) -> &str {
    let Some(content) = body["content"].as_object() else {
        return "-";
    };
    let schema = &content.values().next().unwrap()["schema"];
    let name = schema["$ref"].as_str().or_else(|| schema["type"].as_str());
    name.and_then(|name| name.rsplit('/').next()).unwrap_or("-")
}
