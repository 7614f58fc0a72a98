//! Exports and CSV: every format of the same charges, whole, in pieces and of one tenant alone.

use std::collections::BTreeMap;

use api::{Export, Format, Issuer};
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::sample::sample;
use crate::server::TestServer;

/// Runs of two tenants; one has a tag that a spreadsheet would run.
fn two_tenants(server: &TestServer) -> (Client, Client) {
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    for n in 1..=3 {
        let tags = json!({"team": format!("=cmd|' /C calc'!A{n}"), "n": n.to_string()});
        let body = json!({"code": format!("cpu_us {}", n * 1000), "project": "web", "tags": tags});
        acme.post("/v1/executions", &body).expect(200);
    }
    other
        .post("/v1/executions", &json!({"code": "cpu_us 77"}))
        .expect(200);
    (acme, other)
}

#[track_caller]
fn export(client: &Client, path: &str) -> Answer {
    let answer = client.get(path);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

/// Rows of a table without line breaks in its cells.
pub(crate) fn rows(text: &str) -> Vec<Vec<String>> {
    text.lines().map(cells).collect()
}

fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut quoted) = (vec![String::new()], false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cells.last_mut().unwrap().push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            _ => cells.last_mut().unwrap().push(c),
        }
    }
    cells
}

/// The column of that name, without its head.
fn column(table: &[Vec<String>], name: &str) -> Vec<String> {
    let at = table[0].iter().position(|known| known == name);
    let at = at.unwrap_or_else(|| panic!("no {name} in {:?}", table[0]));
    table[1..].iter().map(|row| row[at].clone()).collect()
}

/// A decimal in 10^-12, digit by digit.
pub(crate) fn units(text: &str) -> i128 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<12}").parse().unwrap()
}

/// What `/v1/costs` says of a tenant.
fn cost(server: &TestServer, tenant: &str) -> i128 {
    let path = format!("/v1/costs?window=month&tenant={tenant}");
    let costs = server.admin().get(&path).expect(200);
    units(costs["items"][0]["cost"].as_str().unwrap())
}

/// What a tenant's statement comes to.
fn owed(server: &TestServer, tenant: &str) -> i128 {
    let path = format!("/v1/statements?tenant={tenant}");
    let statement = server.admin().get(&path).expect(200);
    units(statement["total"].as_str().unwrap())
}

#[test]
fn every_format_has_the_charges_that_costs_has() {
    let server = TestServer::start();
    two_tenants(&server);
    let both = owed(&server, "acme") + owed(&server, "other");
    let sum = |cells: Vec<String>| cells.iter().map(|cell| units(cell)).sum::<i128>();

    let csv = export(&server.admin(), "/v1/exports/csv");
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    let disposition = csv.header("content-disposition").unwrap();
    assert_eq!(disposition, "attachment; filename=\"charges.csv\"");
    let table = rows(&csv.text());
    assert_eq!(sum(column(&table, "amount")), both);
    assert_eq!(column(&table, "project")[0], "web");
    let tags: Value = serde_json::from_str(&column(&table, "tags")[0]).unwrap();
    assert_eq!(tags["team"], "=cmd|' /C calc'!A1");

    let jsonl = export(&server.admin(), "/v1/exports/jsonl").text();
    let lines = jsonl
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let amounts = lines.map(|line| line["amount"].as_str().unwrap().to_owned());
    assert_eq!(sum(amounts.collect()), both);

    let focus = rows(&export(&server.admin(), "/v1/exports/focus").text());
    assert_eq!(sum(column(&focus, "BilledCost")), both);
    let issuers = column(&focus, "ProviderName");
    assert!(issuers.iter().all(|name| name == "Farebox"), "{issuers:?}");

    for format in ["beancount", "hledger"] {
        let books = export(&server.admin(), &format!("/v1/exports/{format}")).text();
        let posted = |account: &str| {
            let lines = books.lines().filter(|line| line.contains(account));
            let amounts = lines.map(|line| line.split_whitespace().nth(1).unwrap().to_owned());
            amounts.map(|amount| units(&amount)).sum::<i128>()
        };
        assert_eq!(
            posted("Assets:Receivable:T-acme:P-web"),
            cost(&server, "acme"),
            "{books}"
        );
        assert_eq!(posted("Assets:Receivable:"), both, "{books}");
    }
}

#[test]
fn an_export_is_of_the_callers_tenant_and_takes_the_filters_of_usage() {
    let server = TestServer::start();
    let (acme, other) = two_tenants(&server);
    let billing = server.token("other", "billing");
    for format in ["csv", "jsonl", "focus", "beancount", "hledger"] {
        let path = format!("/v1/exports/{format}");
        let theirs = export(&billing, &path).text();
        assert!(
            theirs.contains("other") && !theirs.contains("acme"),
            "{theirs}"
        );
        billing
            .get(&format!("{path}?tenant=acme"))
            .problem(404, "not_found");
        server
            .token("acme", "developer")
            .get(&path)
            .problem(403, "forbidden");
    }
    let entries = |client: &Client, filter: &str| {
        let table = rows(&export(client, &format!("/v1/exports/csv?{filter}")).text());
        let mut entries = column(&table, "entry");
        entries.dedup();
        entries.retain(|entry| !entry.is_empty());
        entries.len()
    };
    assert_eq!(entries(&acme, ""), 3);
    assert_eq!(entries(&other, "project=default"), 1);
    assert_eq!(entries(&server.admin(), "tenant=acme&project=web"), 3);
    assert_eq!(entries(&acme, "tag=n:2"), 1);
    assert_eq!(entries(&acme, "tag=n:2&tag=n:3"), 0);
    assert_eq!(entries(&acme, "image=python"), 3);
    assert_eq!(entries(&acme, "image=node"), 0);
    assert_eq!(entries(&acme, "function=f"), 0);
    assert_eq!(entries(&acme, "to=2020-01-01T00:00:00Z"), 0);
    assert_eq!(entries(&acme, "from=2020-01-01T00:00:00Z"), 3);
    for bad in [
        "cursor=-1",
        "cursor=x",
        "as_of=",
        "from=today",
        "tag=n",
        "window=day",
    ] {
        acme.get(&format!("/v1/exports/csv?{bad}"))
            .problem(400, "invalid_argument");
    }
    let range = "from=2020-01-02T00:00:00Z&to=2020-01-01T00:00:00Z";
    acme.get(&format!("/v1/exports/csv?{range}"))
        .problem(400, "invalid_argument");
    acme.get("/v1/exports/xml").problem(404, "not_found");
}

#[test]
fn an_export_goes_on_behind_an_entry_and_ends_where_the_first_did() {
    let server = TestServer::start();
    let (acme, _) = two_tenants(&server);
    let whole = export(&acme, "/v1/exports/csv");
    let as_of = whole.header("farebox-as-of").unwrap().to_owned();
    let table = rows(&whole.text());
    let first = column(&table, "entry")[0].clone();
    acme.post("/v1/executions", &json!({"code": "cpu_us 5"}))
        .expect(200);

    let rest = export(
        &acme,
        &format!("/v1/exports/csv?cursor={first}&as_of={as_of}"),
    );
    let rest = rows(&rest.text());
    let of_first = table[1..].iter().filter(|row| row[0] == first).count();
    assert_eq!(rest[0], table[0]);
    assert_eq!(rest[1..], table[1 + of_first..]);

    let later = export(&acme, &format!("/v1/exports/csv?cursor={as_of}"));
    let entries = |answer: &Answer| {
        let mut entries = column(&rows(&answer.text()), "entry");
        entries.dedup();
        entries
    };
    let found = entries(&later);
    // And the rounding of the month, which no entry says while it is open.
    assert!(found.len() == 2 && found[1].is_empty(), "{found:?}");
    assert_ne!(later.header("farebox-as-of"), Some(as_of.as_str()));
    let nothing = export(&acme, &format!("/v1/exports/csv?cursor={}", u64::MAX));
    assert_eq!(entries(&nothing), [""]);
}

#[test]
fn usage_is_told_by_image_key_and_tag() {
    let server = TestServer::start();
    let (acme, _) = two_tenants(&server);
    acme.post("/v1/executions", &json!({"code": "cpu_us 9"}))
        .expect(200);
    let range = server.today();
    let by = |group: &str| {
        let years = "from=2020-01-01T00:00:00Z&to=2090-01-01T00:00:00Z";
        let path = format!("/v1/usage?{years}&window=month&group_by={group}");
        let usage = acme.get(&path).expect(200);
        let items = usage["items"].as_array().unwrap().clone();
        let runs = |item: &Value| item["usage"]["executions"].as_str().unwrap().to_owned();
        let brief = items
            .iter()
            .map(|item| (item["group"].to_string(), runs(item)));
        brief.collect::<BTreeMap<String, String>>()
    };
    let tags = by("tag:n");
    assert_eq!(tags.len(), 4, "{tags:?}");
    assert_eq!(tags[r#"{"tag:n":null}"#], "1");
    assert_eq!(tags[r#"{"tag:n":"2"}"#], "1");
    let images = by("image,project");
    assert_eq!(images.len(), 2, "{images:?}");
    assert!(images.keys().all(|group| group.contains("python@sha256:")));
    assert_eq!(by("key").values().collect::<Vec<_>>(), ["4"]);
    let path = format!("/v1/usage?{range}&group_by=tenant,project,function,image");
    acme.get(&path).problem(400, "invalid_argument");
    acme.get(&format!("/v1/usage?{range}&group_by=tenant,tenant"))
        .problem(400, "invalid_argument");
    acme.get(&format!("/v1/usage?{range}&group_by=tag:"))
        .problem(400, "invalid_argument");
}

#[test]
fn every_list_is_there_as_csv_and_runs_nothing_in_a_spreadsheet() {
    let server = TestServer::start();
    let (acme, _) = two_tenants(&server);
    let hook = json!({"url": "http://hooks.example.com/"});
    acme.put("/v1/webhooks/hook", &hook).expect(201);
    let document = server.admin().get("/openapi.json").expect(200);
    let mut lists = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let answers = &methods["get"]["responses"]["200"]["content"];
        let of_one = path.contains("{id}") || path.contains("{format}");
        if answers["text/csv"].is_null() || of_one {
            continue;
        }
        lists += 1;
        let path = path.replace("{tenant}", "acme").replace("{name}", "hook");
        let tenant = if path.contains("acme") {
            ""
        } else {
            "?tenant=acme"
        };
        let known = methods["get"]["parameters"].as_array();
        let takes = known.is_some_and(|all| all.iter().any(|one| one["name"] == "tenant"));
        let path = if takes {
            format!("{path}{tenant}")
        } else {
            path
        };
        let json = server.admin().get(&path).expect(200);
        assert!(json["items"].is_array(), "{path} is no list");
        let csv = server
            .admin()
            .request("GET", &path)
            .header("Accept", "text/csv")
            .send();
        assert_eq!(
            csv.header("content-type"),
            Some("text/csv; charset=utf-8"),
            "{path}"
        );
        let items = json["items"].as_array().unwrap().len();
        let lines = csv.text().lines().count();
        assert_eq!(
            lines,
            items + usize::from(items > 0),
            "{path}: {}",
            csv.text()
        );
    }
    assert!(lists >= 11, "{lists} lists");

    let path = "/v1/entries?kind=settlement&limit=2";
    let answer = acme
        .request("GET", path)
        .header("Accept", "text/csv")
        .send();
    let table = rows(&answer.text());
    assert_eq!(
        column(&table, "tags.team"),
        ["'=cmd|' /C calc'!A1", "'=cmd|' /C calc'!A2"]
    );
    assert_eq!(column(&table, "charge.currency"), ["USD", "USD"]);
    let next = answer.header("farebox-next-cursor").unwrap();
    let page = acme
        .request("GET", &format!("{path}&cursor={next}"))
        .header("Accept", "text/csv");
    assert_eq!(column(&rows(&page.send().text()), "tags.n"), ["3"]);
    let problem = acme
        .request("GET", "/v1/entries?limit=0")
        .header("Accept", "text/csv")
        .send();
    problem.problem(400, "invalid_argument");
}

#[test]
fn a_forecast_is_an_estimate_from_what_was_used() {
    let server = TestServer::start();
    let (acme, _) = two_tenants(&server);
    let quotas = json!([
        {"meter": "executions", "window": "lifetime", "limit": "10"},
        {"meter": "cpu_us", "window": "month", "limit": "1000000", "scope": {"project": "web"}},
        {"meter": "cost", "window": "day", "limit": "1", "scope": {"key": "nobody"}},
    ]);
    server.quota("acme", &quotas);
    let forecast = acme.get("/v1/forecast").expect(200);
    assert_eq!(forecast["kind"], "estimate", "{forecast}");
    assert!(
        forecast["method"]
            .as_str()
            .unwrap()
            .contains("last 24 hours")
    );
    let items = forecast["items"].as_array().unwrap();
    let of = |name: &str| {
        let mut found = items.iter().filter(|item| item["quota"] == name);
        found
            .next()
            .unwrap_or_else(|| panic!("no {name} in {forecast}"))
    };
    let runs = of("tenant/executions/lifetime");
    assert_eq!(runs["free"], "7");
    assert_eq!(runs["last_24h"]["used"], "3");
    // Three in at most 25 hours: at least two and at most three in 24; seven are left.
    assert!(
        ["2", "3"].contains(&runs["last_24h"]["per_day"].as_str().unwrap()),
        "{runs}"
    );
    let days = runs["last_24h"]["days_left"].as_str().unwrap();
    assert!(days.starts_with("2."), "{runs}");
    assert_eq!(runs["last_24h"]["exhausted_before_reset"], Value::Null);
    let cpu = of("project:web/cpu_us/month");
    assert!(
        cpu["resets_at"].is_string() && cpu["last_7d"]["projected"].is_string(),
        "{cpu}"
    );
    let key = items
        .iter()
        .find(|item| item["scope"]["key"] == "nobody")
        .unwrap();
    assert_eq!(
        (&key["last_7d"]["used"], &key["last_7d"]["days_left"]),
        (&json!("0"), &Value::Null)
    );
    let memory = acme.get("/v1/forecast?meter=memory_byte_ms").expect(200);
    assert_eq!(memory["items"][0]["quota"], Value::Null, "{memory}");
    acme.get("/v1/forecast?meter=cpu")
        .problem(400, "invalid_argument");
    acme.get("/v1/forecast?tenant=other")
        .problem(404, "not_found");
    server
        .admin()
        .get("/v1/forecast")
        .problem(400, "invalid_argument");
    assert_eq!(
        server.admin().get("/v1/forecast?tenant=other").expect(200)["tenant"],
        "other"
    );
}

#[test]
fn a_stopped_ledger_exports_what_the_server_did() {
    let mut server = sample();
    let settled = server
        .admin()
        .get("/v1/entries?kind=settlement")
        .expect(200);
    let middle = settled["items"][7]["seq"].as_u64().unwrap();
    let parquet = [Format::Parquet, Format::FocusParquet];
    let all = Format::ALL.iter();
    let built = all.filter(|(format, _)| cfg!(feature = "parquet") || !parquet.contains(format));
    let told = built.flat_map(|(format, name)| {
        let server = &server;
        [0, middle].map(move |after| {
            let path = format!("/v1/exports/{name}?cursor={after}");
            (*format, after, export(&server.admin(), &path).body)
        })
    });
    let told: Vec<(Format, u64, Vec<u8>)> = told.collect();
    server.stop();
    for (format, after, told) in told {
        let issuer = Issuer {
            provider: "Farebox".to_owned(),
            region: "local".to_owned(),
        };
        let query = ledger::ChargeQuery {
            after,
            ..ledger::ChargeQuery::default()
        };
        let mut export = Export::new(format, issuer, &query).unwrap();
        let mut out = Vec::new();
        export.head(&mut out);
        let through = ledger::read_entries(&server.data_dir().join("ledger"), &mut |entry| {
            export.entries([entry], &mut out).unwrap();
            true
        })
        .unwrap();
        export.end(through, &mut out).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&out),
            String::from_utf8_lossy(&told)
        );
    }
}

#[test]
fn parquet_is_exported_where_it_is_built_and_else_the_cure_is_told() {
    let server = TestServer::start();
    two_tenants(&server);
    for format in ["parquet", "focus-parquet"] {
        let path = format!("/v1/exports/{format}");
        if cfg!(feature = "parquet") {
            let file = export(&server.admin(), &path);
            let kind = "application/vnd.apache.parquet";
            assert_eq!(file.header("content-type"), Some(kind));
            assert!(file.body.starts_with(b"PAR1") && file.body.ends_with(b"PAR1"));
        } else {
            let problem = server.admin().get(&path).problem(501, "not_built");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("`--features parquet`"), "{problem}");
        }
    }
}
