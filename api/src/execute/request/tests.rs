//! Every fault of a request is named at its place, and the schema is what is read.

use serde_json::{Map, Value, json};
use utoipa::PartialSchema as _;

use super::*;
use crate::json::Faults;

fn tenant(config: &Config) -> LimitsDoc {
    LimitsDoc {
        concurrency: 1,
        starts_per_minute: None,
        key_starts_per_minute: None,
        maximum: config.tier.maximum,
        default: config.tier.default,
        images: None,
        fresh: false,
    }
}

fn parse(value: Value) -> (Option<Request>, Vec<String>) {
    let config = Config::default_layer();
    let Value::Object(map) = value else {
        unreachable!()
    };
    let mut faults = Faults::default();
    let mut body = Object::new(map, &mut faults);
    let request = read(&mut body, &config, &tenant(&config));
    body.finish();
    (
        request,
        faults
            .into_vec()
            .into_iter()
            .map(|fault| fault.pointer)
            .collect(),
    )
}

fn faults(value: Value) -> Vec<String> {
    parse(value).1
}

#[test]
fn the_smallest_request_gets_the_tenants_defaults() {
    let (request, faults) = parse(json!({"language": "python", "code": "print(1)"}));
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(
        request.unwrap().limits,
        Config::default_layer().tier.default
    );
}

#[test]
fn code_and_command_exclude_each_other_and_one_is_needed() {
    let both = json!({"language": "python", "code": "1", "command": ["ls"]});
    assert_eq!(faults(both), ["/command"]);
    assert_eq!(faults(json!({})), ["/code"]);
    assert_eq!(faults(json!({"command": []})), ["/command"]);
    assert_eq!(
        faults(json!({"command": ["a\u{0}b"]})),
        ["/command/0", "/command"]
    );
}

#[test]
fn limits_outside_their_bounds_are_faults_and_nothing_is_clipped() {
    let limits = json!({"wall_ms": 0, "cpu_ms": -1, "memory_bytes": 1u64 << 40, "pids": 1.5,
                        "odd": 1, "disk_bytes": "1"});
    let mut found = faults(json!({"command": ["ls"], "limits": limits}));
    found.sort();
    let mut all = [
        "wall_ms",
        "cpu_ms",
        "memory_bytes",
        "pids",
        "odd",
        "disk_bytes",
    ]
    .map(|name| format!("/limits/{name}"));
    all.sort();
    assert_eq!(found, all);
}

#[test]
fn files_must_be_plain_and_decodable() {
    for path in [
        "../x",
        "/etc/passwd",
        "a/../b",
        "a\u{0}b",
        "",
        "./a",
        "a//b",
    ] {
        let file = json!({"path": path, "content": ""});
        let found = faults(json!({"command": ["ls"], "files": [file]}));
        assert_eq!(found, ["/files/0/path"], "{path:?}");
    }
    let file = json!({"path": "a", "content": "%%", "encoding": "base64"});
    assert_eq!(
        faults(json!({"command": ["ls"], "files": [file]})),
        ["/files/0/content"]
    );
    let file = json!({"path": "a", "content": "AAEC", "encoding": "base64"});
    let (request, none) = parse(json!({"command": ["ls"], "files": [file]}));
    assert!(none.is_empty());
    assert_eq!(request.unwrap().files[0].content, [0, 1, 2]);
    let twice = json!([{"path": "a", "content": ""}, {"path": "a", "content": ""}]);
    assert_eq!(
        faults(json!({"command": ["ls"], "files": twice})),
        ["/files/1/path"]
    );
}

#[test]
fn every_kind_of_fault_is_told_at_once() {
    let found = faults(json!({
        "command": ["ls"], "odd": 1, "env": {"A=B": "1", "C": 2}, "tags": {"": "x", "ok": "a\nb"},
        "project": "no spaces", "network": {"mode": "egress"}, "max_cost": "-1",
        "on_low_quota": "maybe", "on_output_limit": "no", "isolation": "none",
        "stdin": 5, "image": 7, "language": "ruby"
    }));
    for pointer in [
        "/odd",
        "/env/C",
        "/tags/",
        "/tags/ok",
        "/project",
        "/network/mode",
        "/max_cost",
        "/on_low_quota",
        "/on_output_limit",
        "/stdin",
        "/image",
        "/language",
        "/isolation",
    ] {
        assert!(
            found.iter().any(|fault| fault.starts_with(pointer)),
            "{pointer} in {found:?}"
        );
    }
}

/// The schema in the OpenAPI document and the reader are written apart; this holds them together.
#[test]
fn the_schema_names_exactly_the_fields_that_are_read() {
    let config = Config::default_layer();
    let mut faults = Faults::default();
    let mut body = Object::new(Map::new(), &mut faults);
    read(&mut body, &config, &tenant(&config));
    let mut asked: Vec<&str> = body.asked().to_vec();
    asked.sort_unstable();
    asked.dedup();
    let schema = serde_json::to_value(ExecutionBody::schema()).unwrap();
    let mut named: Vec<&str> = schema["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    named.sort_unstable();
    assert_eq!(asked, named);
    let schema = serde_json::to_value(LimitsBody::schema()).unwrap();
    let limits = schema["properties"].as_object().unwrap();
    assert!(limits.len() == 9 && Limits::NAMES.iter().all(|name| limits.contains_key(*name)));
}

#[test]
fn what_a_tenant_shares_a_request_can_only_make_less() {
    let config = Config::default_layer();
    let fresh = |asked: &str, fresh: bool| {
        let Value::Object(map) = json!({"code": "1", "isolation": asked}) else {
            unreachable!()
        };
        let mut faults = Faults::default();
        let mut body = Object::new(map, &mut faults);
        let tenant = LimitsDoc {
            fresh,
            ..tenant(&config)
        };
        read(&mut body, &config, &tenant).map(|request| request.fresh)
    };
    assert_eq!(fresh("shared", false), Some(false));
    assert_eq!(fresh("fresh", false), Some(true));
    assert_eq!(fresh("shared", true), Some(true));
}
