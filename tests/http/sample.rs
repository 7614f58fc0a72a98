//! A ledger with every kind of line on its statements, closed months and open ones: whatever it is
//! exported as adds up to what they say, to the last digit.
//!
//! With `FAREBOX_SAMPLE_DIR` the exports are left there, for `scripts/sample-ledger.sh`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use api::Format;
use ledger::{Effect, Grant, Money, Proposal, RateCard};
use serde_json::{Value, json};

use crate::exports::{rows, units};
use crate::periods::{approve, did, known, last_month, operator, propose, ran};
use crate::server::TestServer;

const TENANTS: [&str; 2] = ["acme", "1-2-3"];

/// What is payable, by tenant and month.
type Owed = BTreeMap<(String, String), i128>;

fn grant(name: &str, amount: &str, priority: u8) -> Effect {
    Effect::Grant(Grant {
        tenant: "acme".to_owned(),
        name: name.to_owned(),
        amount: Money::parse(amount).unwrap(),
        currency: "USD".to_owned(),
        priority,
        expires_at: None,
    })
}

/// Last month: `acme` by a card of its own with a package, tiers and an allowance, its charges paid
/// by two grants in part, one run of it taken back; the other tenant by the list.
fn past(dir: &Path) {
    let (ledger, _) = last_month(dir);
    for tenant in TENANTS {
        known(&ledger, tenant);
    }
    let card = json!({
        "id": "deal", "currency": "USD", "effective_from": "1970-01-01T00:00:00Z",
        "price": [
            {"meter": "executions", "model": "package", "size": "2", "amount": "0.01"},
            {"meter": "cpu_us", "model": "graduated", "included": "500000", "increment": 1000,
             "tiers": [{"up_to": "1000000", "amount": "0.200001"}, {"amount": "0.100001"}]},
            {"meter": "memory_byte_ms", "model": "unit", "amount": "0.000004"},
        ],
    });
    did(
        &ledger,
        "seed",
        Effect::RateCard(RateCard::read(card).unwrap()),
    );
    let terms = Effect::Terms {
        tenant: "acme".to_owned(),
        rate_card: Some("deal".to_owned()),
        prepaid: false,
    };
    did(&ledger, "seed", terms);
    did(&ledger, "seed", grant("trial", "0.0700005", 0));
    did(&ledger, "seed", grant("welcome", "0.25", 1));
    ran(&ledger, "acme", 1);
    let entry = ran(&ledger, "acme", 2);
    for (number, tenant) in [(3, "acme"), (4, "1-2-3"), (5, "1-2-3"), (6, "acme")] {
        ran(&ledger, tenant, number);
    }
    let Some(ledger::Body::Settled(settled)) = ledger.entry(entry).unwrap().map(|one| one.body)
    else {
        panic!("{entry} is no settlement")
    };
    let proposal = Proposal::reversal(entry, settled, "ann".to_owned());
    let proposal = did(&ledger, "ann", Effect::Propose(proposal));
    let approval = Effect::Approve {
        proposal,
        subject: "bob".to_owned(),
    };
    did(&ledger, "bob", approval);
    ledger.close().unwrap();
}

/// Last month closed, this one with runs, a correction of it, and lines that credit pays.
pub(crate) fn sample() -> TestServer {
    let mut server = TestServer::start();
    server.restart_after(past);
    let finance = operator(&server, api::Role::Finance, "finance");
    let periods = finance.get("/v1/periods").expect(200);
    let last = periods["items"][1]["period"].as_str().unwrap().to_owned();
    let close = format!("/v1/periods/{last}/close");
    let closed = finance.post(&close, &json!({})).expect(200);
    // What is closed is signed by then.
    let note = finance.get("/v1/ledger/checkpoint").text();
    let size: u64 = note.lines().nth(1).unwrap().parse().unwrap();
    assert!(size >= closed["through"].as_u64().unwrap(), "{note}");
    let clients = TENANTS.map(|tenant| server.tenant(tenant));
    let settled = finance.get("/v1/entries?kind=settlement&tenant=acme");
    let entry = settled.expect(200)["items"][0]["seq"].clone();
    for client in clients {
        for (number, project) in ["default", "web_1", "7.5"].into_iter().enumerate() {
            let body = json!({
                "code": format!("cpu_us {}", 300_001 + number), "project": project,
                "tags": {"cost_center": "42", "note": "=1+1, \"quoted\" \\ and, more"},
            });
            client.post("/v1/executions", &body).expect(200);
        }
    }
    for body in [
        json!({"tenant": "acme", "reverses": entry, "reason": "our fault"}),
        json!({"tenant": "acme", "amount": "0.123456789012", "description": "support",
               "reason": "asked"}),
        json!({"tenant": "1-2-3", "amount": "-0.5", "description": "=goodwill; \"a|b\"",
               "reason": "-"}),
    ] {
        approve(&finance, &propose(&server, &body)).expect(200);
    }
    server
}

/// The totals of all statements, and which kinds of lines there are.
fn statements(server: &TestServer) -> (Owed, BTreeSet<String>) {
    let (mut owed, mut kinds) = (Owed::new(), BTreeSet::new());
    let periods = server.admin().get("/v1/periods").expect(200);
    for period in periods["items"].as_array().unwrap() {
        for tenant in TENANTS {
            let period = period["period"].as_str().unwrap();
            let path = format!("/v1/statements?tenant={tenant}&period={period}");
            let statement = server.admin().get(&path).expect(200);
            let lines = statement["items"].as_array().unwrap();
            let amounts = lines
                .iter()
                .map(|line| units(line["amount"].as_str().unwrap()));
            let total = units(statement["total"].as_str().unwrap());
            assert_eq!(total, amounts.sum::<i128>(), "{statement}");
            owed.insert((tenant.to_owned(), period.to_owned()), total);
            kinds.extend(
                lines
                    .iter()
                    .map(|line| line["kind"].as_str().unwrap().to_owned()),
            );
        }
    }
    (owed, kinds)
}

/// Sums of a column by two others, the second one's month.
fn by_month(table: &[Vec<String>], amount: &str, tenant: &str, month: &str) -> Owed {
    let place = |name: &str| table[0].iter().position(|known| known == name).unwrap();
    let (amount, tenant, month) = (place(amount), place(tenant), place(month));
    let mut owed = Owed::new();
    for row in &table[1..] {
        let key = (row[tenant].clone(), row[month][..7].to_owned());
        *owed.entry(key).or_default() += units(&row[amount]);
    }
    owed
}

/// What a journal of Beancount or hledger books as receivable.
fn receivable(text: &str) -> Owed {
    let (mut owed, mut key) = (Owed::new(), (String::new(), String::new()));
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with("20") {
            let tenant = words[2].trim_matches('"').to_owned();
            key = (tenant, line[..7].to_owned());
        } else if line.starts_with("  Assets:Receivable:") {
            *owed.entry(key.clone()).or_default() += units(words[1]);
        }
    }
    owed
}

#[test]
fn every_export_adds_up_to_the_statements_of_closed_months_and_open_ones() {
    let server = sample();
    let (owed, kinds) = statements(&server);
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    let all = "adjustment correction credit included refund rounding usage";
    assert_eq!(kinds.join(" "), all);
    assert!(
        owed.values().filter(|total| **total != 0).count() >= 2,
        "{owed:?}"
    );
    let text = |path: &str| server.admin().get(path).text();
    let csv = rows(&text("/v1/exports/csv"));
    assert_eq!(by_month(&csv, "amount", "tenant", "time"), owed);
    let kind = csv[0].iter().position(|name| name == "kind").unwrap();
    let kinds: BTreeSet<&str> = csv[1..].iter().map(|row| row[kind].as_str()).collect();
    let kinds: Vec<&str> = kinds.into_iter().collect();
    let all = "adjustment correction credit refund rounding usage";
    assert_eq!(kinds.join(" "), all);
    let mut of_lines = Owed::new();
    for line in text("/v1/exports/jsonl").lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let word = |name: &str| row[name].as_str().unwrap();
        let key = (word("tenant").to_owned(), word("time")[..7].to_owned());
        *of_lines.entry(key).or_default() += units(word("amount"));
    }
    assert_eq!(of_lines, owed);
    let focus = rows(&text("/v1/exports/focus"));
    let invoices = by_month(
        &focus,
        "BilledCost",
        "BillingAccountName",
        "BillingPeriodStart",
    );
    assert_eq!(invoices, owed);
    let place = |name: &str| focus[0].iter().position(|known| known == name).unwrap();
    let (invoice, account) = (place("InvoiceId"), place("BillingAccountName"));
    let month = place("BillingPeriodStart");
    for row in &focus[1..] {
        assert_eq!(
            row[invoice],
            format!("{}/{}", row[account], &row[month][..7])
        );
    }
    for format in ["beancount", "hledger"] {
        let books = text(&format!("/v1/exports/{format}"));
        assert_eq!(receivable(&books), owed, "{books}");
    }
    leave(&server);
}

#[test]
fn rounding_is_of_whole_months_and_comes_again_where_an_export_goes_on() {
    let server = sample();
    let (owed, _) = statements(&server);
    let table = |query: &str| {
        rows(
            &server
                .admin()
                .get(&format!("/v1/exports/csv{query}"))
                .text(),
        )
    };
    let whole = table("");
    let place = |name: &str| whole[0].iter().position(|known| known == name).unwrap();
    let (entry, kind) = (place("entry"), place("kind"));
    let mut cursors: Vec<&str> = whole[1..].iter().map(|row| row[entry].as_str()).collect();
    cursors.retain(|cursor| !cursor.is_empty());
    cursors.dedup();
    for cursor in cursors {
        // What the first part says of open months is told again by the second.
        let mut both = table(&format!("?as_of={cursor}"));
        both.retain(|row| !row[entry].is_empty());
        both.extend(table(&format!("?cursor={cursor}")).into_iter().skip(1));
        assert_eq!(both, whole, "cut at {cursor}");
    }
    let acme = table("?tenant=acme");
    let mut of_acme = owed.clone();
    of_acme.retain(|(tenant, _), _| tenant == "acme");
    assert_eq!(by_month(&acme, "amount", "tenant", "time"), of_acme);
    let periods = server.admin().get("/v1/periods").expect(200);
    let last = periods["items"][1]["period"].as_str().unwrap();
    let next = periods["items"][0]["period"].as_str().unwrap();
    let (start, end) = (
        format!("{last}-01T00:00:00Z"),
        format!("{next}-01T00:00:00Z"),
    );
    let mut of_month = owed;
    of_month.retain(|(_, month), _| month == last);
    let month = table(&format!("?from={start}&to={end}"));
    assert_eq!(by_month(&month, "amount", "tenant", "time"), of_month);
    for part in [
        "?project=default".to_owned(),
        format!("?to={last}-02T00:00:00Z"),
        format!("?from={last}-01T00:00:01Z&to={end}"),
    ] {
        let rounded = table(&part).iter().any(|row| row[kind] == "rounding");
        assert!(!rounded, "{part}");
    }
}

/// Leaves the exports, and what they must add up to, where they are asked for.
fn leave(server: &TestServer) {
    let Some(dir) = std::env::var_os("FAREBOX_SAMPLE_DIR") else {
        return;
    };
    let dir = Path::new(&dir);
    std::fs::create_dir_all(dir).unwrap();
    let (owed, _) = statements(server);
    let owed = owed.iter().map(|((tenant, period), total)| {
        json!({"tenant": tenant, "period": period, "total": Money(*total).to_string()})
    });
    let owed = json!({ "items": owed.collect::<Vec<_>>() });
    std::fs::write(dir.join("statements.json"), owed.to_string()).unwrap();
    for (format, name) in Format::ALL {
        let parquet = [Format::Parquet, Format::FocusParquet].contains(&format);
        if parquet && !cfg!(feature = "parquet") {
            continue;
        }
        let answer = server.admin().get(&format!("/v1/exports/{name}"));
        let disposition = answer.header("content-disposition").unwrap();
        let file = disposition.split('"').nth(1).unwrap();
        std::fs::write(dir.join(file), &answer.body).unwrap();
    }
}

/// A tenant with a card of its own sees what the list would have cost it.
#[test]
fn a_discount_is_visible_in_focus() {
    let server = sample();
    let focus = rows(&server.admin().get("/v1/exports/focus").text());
    let place = |name: &str| focus[0].iter().position(|known| known == name).unwrap();
    let (sku, account) = (place("SkuId"), place("BillingAccountName"));
    let (list, own) = (place("ListUnitPrice"), place("ContractedUnitPrice"));
    let mut seen = BTreeSet::new();
    for row in focus[1..].iter().filter(|row| row[sku] == "memory_byte_ms") {
        seen.insert((row[account].as_str(), row[list].as_str(), row[own].as_str()));
    }
    let expected = [
        ("1-2-3", "0.0000045", "0.0000045"),
        ("acme", "0.0000045", "0.000004"),
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
}

/// One call has what all tenants owe, for who closes the month; another what a draft would cost.
#[test]
fn finance_sees_all_totals_of_a_month_and_what_a_draft_would_cost() {
    let server = sample();
    let (owed, _) = statements(&server);
    let finance = operator(&server, api::Role::Finance, "finance");
    let periods = finance.get("/v1/periods").expect(200);
    let mut found = Owed::new();
    for period in periods["items"].as_array().unwrap() {
        let name = period["period"].as_str().unwrap();
        let path = format!("/v1/statements/totals?period={name}");
        let list = finance.get(&path).expect(200);
        assert_eq!(
            (&list["state"], &list["period"]),
            (&period["state"], &json!(name))
        );
        let items = list["items"].as_array().unwrap();
        for item in items {
            let part = |name: &str| units(item[name].as_str().unwrap());
            let parts = ["charged", "adjusted", "credit", "rounding"];
            assert_eq!(parts.map(part).iter().sum::<i128>(), part("total"));
            let tenant = item["tenant"].as_str().unwrap().to_owned();
            found.insert((tenant, name.to_owned()), part("total"));
        }
        let first = finance.get(&format!("{path}&limit=1")).expect(200);
        assert_eq!(first["items"], json!([items[0]]));
        let next = first["next_cursor"].as_str().unwrap();
        let rest = finance.get(&format!("{path}&cursor={next}")).expect(200);
        assert_eq!(rest["items"], json!([items[1]]));
    }
    assert_eq!(found, owed);
    let card = json!({
        "id": "draft", "currency": "USD", "effective_from": "2020-01-01T00:00:00Z",
        "price": [{"meter": "executions", "model": "unit", "amount": "1"}],
    });
    let path = "/v1/rates/preview?tenant=acme";
    let preview = finance.post(path, &card).expect(200);
    assert_eq!(preview["would_be"]["total"], "3", "{preview}");
    let billing = server.token("acme", "billing");
    billing
        .post("/v1/rates/preview", &card)
        .problem(403, "forbidden");
    billing
        .get("/v1/statements/totals")
        .problem(403, "forbidden");
    finance
        .get("/v1/statements/totals?period=2026")
        .problem(400, "invalid_argument");
}
