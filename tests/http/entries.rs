//! Entries one by one and by what they are of; holds and the scopes that they count against.

use serde_json::{Value, json};

use crate::client::Client;
use crate::server::TestServer;

/// A run of a project with a tag; its record.
fn run(client: &Client, project: &str, tag: &str) -> Value {
    let body = json!({"code": "cpu_us 70", "project": project, "tags": {"team": tag}});
    client.post("/v1/executions", &body).expect(200)
}

/// The numbers of the entries that pass, a few at a time.
fn found(client: &Client, filter: &str) -> Vec<u64> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    for _ in 0..1_000 {
        let path = format!("/v1/entries?limit=3&{filter}{cursor}");
        let list = client.get(&path).expect(200);
        let items = list["items"].as_array().unwrap();
        all.extend(items.iter().map(|one| one["seq"].as_u64().unwrap()));
        match list["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
    panic!("the list of {filter} does not end")
}

#[test]
fn filters_find_what_a_scan_over_all_entries_finds() {
    let server = TestServer::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    for (project, tag) in [("web", "a"), ("web", "b"), ("batch", "a"), ("web", "a")] {
        run(&acme, project, tag);
        run(&other, project, tag);
    }
    let admin = server.admin();
    let all = admin.get("/v1/entries?limit=1000").expect(200)["items"].clone();
    let all = all.as_array().unwrap();
    let key = all
        .iter()
        .find(|one| one["tenant"] == "acme" && one["kind"] == "settlement")
        .unwrap()["key"]
        .as_str()
        .unwrap();
    let image = all.iter().find_map(|one| one["image"].as_str()).unwrap();
    let tagged = |one: &Value| one["tags"]["team"] == "a";
    let of_key = format!("key={key}");
    let of_image = format!("image={image}&tenant=other");
    type Passes<'a> = &'a dyn Fn(&Value) -> bool;
    let filters: [(&str, Passes<'_>); 7] = [
        ("project=web", &|one| one["project"] == "web"),
        ("project=web&tenant=acme", &|one| {
            one["project"] == "web" && one["tenant"] == "acme"
        }),
        ("tag=team:a", &tagged),
        ("tag=team:a&project=batch", &|one| {
            tagged(one) && one["project"] == "batch"
        }),
        (&of_key, &|one| one["key"] == key),
        (&of_image, &|one| {
            one["image"] == image && one["tenant"] == "other"
        }),
        ("function=none", &|_| false),
    ];
    for (filter, passes) in filters {
        let wanted: Vec<u64> = all
            .iter()
            .filter(|one| passes(one))
            .map(|one| one["seq"].as_u64().unwrap())
            .collect();
        assert_eq!(found(&admin, filter), wanted, "{filter}");
    }
    assert_eq!(found(&acme, "project=web").len(), 3);
    assert_eq!(found(&admin, "kind=act&project=web"), [0_u64; 0]);
    admin
        .get("/v1/entries?execution=exe_1")
        .problem(400, "invalid_argument");
}

#[test]
fn an_entry_tells_its_function_the_instant_of_its_hold_and_its_prices() {
    let server = TestServer::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let ran = run(&acme, "web", "a");
    let execution = ran["id"].as_str().unwrap();
    let seq = ran["receipt"]["entry"].as_u64().unwrap();
    assert_eq!(found(&acme, &format!("execution={execution}")), [seq]);
    assert_eq!(found(&other, &format!("execution={execution}")), [0_u64; 0]);
    let path = format!("/v1/entries/{seq}");
    let entry = acme.get(&path).expect(200);
    assert_eq!(
        (&entry["seq"], &entry["execution"]),
        (&json!(seq), &ran["id"])
    );
    let (opened, at) = (entry["opened_at"].as_str(), entry["at"].as_str());
    assert!(opened.unwrap() < at.unwrap(), "{entry}");
    let card = entry["rate_card"].as_u64().unwrap();
    let admin = server.admin();
    let card = admin.get(&format!("/v1/entries/{card}")).expect(200);
    assert_eq!(card["kind"], "act", "{card}");
    // Of another tenant, of nobody that may be seen, and none at all.
    other.get(&path).problem(404, "not_found");
    acme.get("/v1/entries/1").problem(404, "not_found");
    for none in ["0", "999999", "x"] {
        let path = format!("/v1/entries/{none}");
        admin.get(&path).problem(404, "not_found");
    }
    admin.get(&format!("{path}?tenant=acme")).expect(200);
    admin
        .get(&format!("{path}?tenant=other"))
        .problem(404, "not_found");
}
