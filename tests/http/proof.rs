//! Checkpoints, proofs and what an auditor makes of them, over HTTP; the auditor's side is written
//! here once more, and shares no line with the server's.

use std::io::{Read, Write};
use std::net::TcpListener;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use runtime::fake::FakeOptions;

use crate::client::Client;
use crate::server::{TestServer, until};

type Hash = Vec<u8>;

fn base64(text: &str) -> Hash {
    STANDARD.decode(text).unwrap()
}

fn hash(parts: &[&[u8]]) -> Hash {
    Sha256::digest(parts.concat()).to_vec()
}

/// RFC 6962, section 2.1.1, from the top down: the root that a path leads to.
fn root_of(leaf: &Hash, index: u64, size: u64, path: &[Hash]) -> Hash {
    let Some((last, below)) = path.split_last() else {
        assert_eq!((index, size), (0, 1), "the path is too short");
        return leaf.clone();
    };
    let left = (size.next_power_of_two() / 2).max(1);
    if index < left {
        hash(&[&[1], &root_of(leaf, index, left, below), last])
    } else {
        hash(&[&[1], last, &root_of(leaf, index - left, size - left, below)])
    }
}

/// RFC 6962, section 2.1.2: the two roots that a consistency proof leads to. `whole` says that the
/// older tree is known to be a complete subtree here.
fn roots_of(from: u64, to: u64, path: &[Hash], known: Option<&Hash>) -> (Hash, Hash) {
    if from == to {
        let root = known.cloned().unwrap_or_else(|| path[0].clone());
        assert_eq!(path.len(), usize::from(known.is_none()));
        return (root.clone(), root);
    }
    let (last, below) = path.split_last().unwrap();
    let left = to.next_power_of_two() / 2;
    if from <= left {
        let (old, new) = roots_of(from, left, below, known);
        (old, hash(&[&[1], &new, last]))
    } else {
        let (old, new) = roots_of(from - left, to - left, below, None);
        (hash(&[&[1], last, &old]), hash(&[&[1], last, &new]))
    }
}

/// Size and root of a signed note, once its signature is found good.
fn opened(note: &str, key: &str) -> (u64, Hash) {
    let (name, rest) = key.trim().split_once('+').unwrap();
    let key = base64(rest.split_once('+').unwrap().1);
    let (text, signatures) = note.split_once("\n\n").unwrap();
    let signed = format!("{text}\n");
    let line = signatures.trim_end().strip_prefix("\u{2014} ").unwrap();
    let (signer, signature) = line.split_once(' ').unwrap();
    let signature = base64(signature);
    let id = hash(&[name.as_bytes(), b"\n", &key]);
    assert_eq!((signer, &signature[..4]), (name, &id[..4]));
    let key = VerifyingKey::from_bytes(key[1..].try_into().unwrap()).unwrap();
    let signature = Signature::from_slice(&signature[4..]).unwrap();
    key.verify_strict(signed.as_bytes(), &signature).unwrap();
    let lines: Vec<&str> = text.split('\n').collect();
    assert_eq!(lines[0], name);
    (lines[1].parse().unwrap(), base64(lines[2]))
}

fn checkpoint(client: &Client, query: &str) -> (u64, Hash) {
    let key = client.get("/v1/ledger/keys");
    let note = client.get(&format!("/v1/ledger/checkpoint{query}"));
    assert_eq!(note.status, 200, "{}", note.text());
    assert_eq!(
        note.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    opened(&note.text(), &key.text())
}

fn sign(server: &TestServer) -> (u64, Hash) {
    let note = server
        .admin()
        .request("POST", "/v1/ledger/checkpoint")
        .send();
    assert_eq!(note.status, 200, "{}", note.text());
    opened(&note.text(), &server.admin().get("/v1/ledger/keys").text())
}

fn path_of(proof: &Value) -> Vec<Hash> {
    let hashes = proof["path"].as_array().unwrap().iter();
    hashes.map(|hash| base64(hash.as_str().unwrap())).collect()
}

/// Checks an inclusion proof against a root that is known from elsewhere.
fn assert_included(proof: &Value, root: &Hash) {
    let leaf = hash(&[&[0], &base64(proof["bytes"].as_str().unwrap())]);
    assert_eq!(base64(proof["leaf_hash"].as_str().unwrap()), leaf);
    let (index, size) = (
        proof["leaf_index"].as_u64().unwrap(),
        proof["size"].as_u64().unwrap(),
    );
    assert_eq!(index + 1, proof["seq"].as_u64().unwrap());
    assert_eq!(
        &root_of(&leaf, index, size, &path_of(proof)),
        root,
        "{proof}"
    );
}

fn run(client: &Client, times: usize) -> Vec<u64> {
    let body = json!({"code": "cpu_us 1000"});
    let one = || client.post("/v1/executions", &body).expect(200);
    (0..times)
        .map(|_| one()["receipt"]["entry"].as_u64().unwrap())
        .collect()
}

#[test]
fn each_entry_is_proved_in_a_signed_tree_that_only_grows() {
    let server = TestServer::start();
    let acme = server.tenant("acme");
    let mut signed = vec![sign(&server)];
    for times in [1, 2, 5] {
        run(&acme, times);
        signed.push(sign(&server));
    }
    let auditor = server.admin();
    let (size, root) = signed.last().unwrap();
    assert_eq!(&checkpoint(&auditor, ""), signed.last().unwrap());
    for (older, before) in &signed {
        assert_eq!(&checkpoint(&auditor, &format!("?size={older}")).1, before);
        let query = format!("/v1/ledger/proofs/consistency?from={older}&to={size}");
        let proof = auditor.get(&query).expect(200);
        let known = (older.is_power_of_two() || older == size).then_some(before);
        let (old, new) = roots_of(*older, *size, &path_of(&proof), known);
        assert_eq!((&old, &new), (before, root), "{proof}");
        for seq in 1..=*older {
            let query = format!("/v1/ledger/proofs/inclusion?entry={seq}&size={older}");
            let proof = auditor.get(&query).expect(200);
            assert_included(&proof, before);
            assert_eq!(
                (&proof["signed"], &proof["entry"]["seq"]),
                (&json!(true), &json!(seq))
            );
        }
    }
    // What a checkpoint does not cover yet is proved in the tree as it is.
    let newest = run(&acme, 1)[0];
    let path = format!("/v1/ledger/proofs/inclusion?entry={newest}");
    let proof = auditor.get(&path).expect(200);
    assert_eq!(
        (&proof["signed"], &proof["size"]),
        (&json!(false), &json!(newest))
    );
    let (_, root) = sign(&server);
    assert_included(&auditor.get(&path).expect(200), &root);
    // Nothing new: nothing is signed again.
    assert_eq!(sign(&server).1, root);
}

#[test]
fn a_tenant_proves_its_own_entries_and_no_others() {
    let server = TestServer::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let (mine, theirs) = (run(&acme, 1)[0], run(&other, 1)[0]);
    sign(&server);
    let (_, root) = checkpoint(&acme, "");
    let path = |seq: u64| format!("/v1/ledger/proofs/inclusion?entry={seq}");
    let proof = acme.get(&path(mine)).expect(200);
    assert_included(&proof, &root);
    assert_eq!(proof["entry"]["tenant"], "acme");
    // Whatever else is wrong with it, another's entry is not there.
    for foreign in [
        path(theirs),
        format!("{}&size=1", path(theirs)),
        path(1),
        path(9_999),
    ] {
        acme.get(&foreign).problem(404, "not_found");
    }
    acme.get("/v1/ledger/proofs/consistency?from=1").expect(200);
    acme.request("POST", "/v1/ledger/checkpoint")
        .send()
        .problem(403, "forbidden");
}

#[test]
fn proofs_need_their_scope_and_good_numbers() {
    let server = TestServer::start();
    server.tenant("acme");
    let routes = [
        "/v1/ledger/checkpoint",
        "/v1/ledger/keys",
        "/v1/ledger/proofs/inclusion?entry=1",
        "/v1/ledger/proofs/consistency?from=1",
    ];
    let (runner, billing) = (
        server.token("acme", "runner"),
        server.token("acme", "billing"),
    );
    for route in routes {
        runner.get(route).problem(403, "forbidden");
        runner
            .without_token()
            .get(route)
            .problem(401, "unauthenticated");
        let status = billing.get(route).status;
        assert!([200, 404].contains(&status), "{route}: {status}");
    }
    let admin = server.admin();
    for query in [
        "inclusion",
        "inclusion?entry=x",
        "inclusion?entry=-1",
        "inclusion?entry=1&size=99999",
        "inclusion?entry=2&size=1",
        "inclusion?entry=1&odd=1",
        "consistency",
        "consistency?from=0",
        "consistency?from=3&to=2",
        "consistency?from=1&to=99999",
        "consistency?from=+1",
    ] {
        let answer = admin.get(&format!("/v1/ledger/proofs/{query}"));
        answer.problem(400, "invalid_argument");
    }
    admin
        .get("/v1/ledger/proofs/inclusion?entry=0")
        .problem(404, "not_found");
    admin
        .get("/v1/ledger/checkpoint?size=99999")
        .problem(404, "not_found");
    admin
        .get("/v1/ledger/checkpoint?size=x")
        .problem(400, "invalid_argument");
}

#[test]
fn checkpoints_are_signed_by_themselves_and_outlive_the_server() {
    let mut server = TestServer::with(&[("proof.checkpoint_s", "1")], FakeOptions::default());
    let acme = server.tenant("acme");
    let first = checkpoint(&acme, "");
    let seq = run(&acme, 1)[0];
    until_signed(&acme, seq);
    let before = checkpoint(&acme, "");
    run(&acme, 1);
    server.restart();
    // The end of a server signs what nobody had signed.
    let acme = server.reach(&acme);
    let after = checkpoint(&acme, "");
    assert!(after.0 > before.0, "{} then {}", before.0, after.0);
    for (size, root) in [first, before] {
        assert_eq!(checkpoint(&acme, &format!("?size={size}")).1, root);
    }
}

/// Waits until a checkpoint covers an entry, by asking for its proof.
fn until_signed(client: &Client, seq: u64) {
    let path = format!("/v1/ledger/proofs/inclusion?entry={seq}");
    until(|| (client.get(&path).expect(200)["signed"] == true).then_some(()));
}

#[test]
fn a_ledger_put_back_to_an_older_state_is_not_signed_again() {
    let mut server = TestServer::start();
    let acme = server.tenant("acme");
    run(&acme, 1);
    let copy = tempfile::tempdir().unwrap();
    let mut older = copy.path().to_owned();
    server.restart_after(|dir| {
        older = copy.path().join("ledger");
        copy_dir(&dir.join("ledger"), &older);
    });
    let acme = server.reach(&acme);
    run(&acme, 2);
    sign(&server);
    server.restart_after(|dir| {
        // The notes stay, as an auditor's would; the journal goes back.
        let ledger = dir.join("ledger");
        let notes = std::fs::read_dir(ledger.join("checkpoints")).unwrap();
        let notes: Vec<_> = notes.map(|file| file.unwrap().path()).collect();
        for note in notes {
            let kept = older.join("checkpoints").join(note.file_name().unwrap());
            std::fs::copy(&note, kept).unwrap();
        }
        std::fs::remove_dir_all(&ledger).unwrap();
        copy_dir(&older, &ledger);
    });
    let acme = server.reach(&acme);
    for _ in 0..3 {
        let refused = server
            .admin()
            .request("POST", "/v1/ledger/checkpoint")
            .send();
        refused.problem(503, "unavailable");
        // Also once it has grown past what was signed.
        run(&acme, 1);
    }
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// One POST as a receiver sees it; answered with `status`.
fn receive(listener: &TcpListener, status: &str) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = Vec::new();
    let whole = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.to_ascii_lowercase();
        let length = length.split_once("content-length: ")?.1.lines().next()?;
        let length: usize = length.parse().ok()?;
        (body.len() >= length).then(|| text.clone())
    };
    let mut chunk = [0; 4096];
    let text = loop {
        let read = stream.read(&mut chunk).unwrap();
        bytes.extend_from_slice(&chunk[..read]);
        if let Some(text) = whole(&bytes) {
            break text;
        }
        assert!(
            read > 0,
            "half a request: {}",
            String::from_utf8_lossy(&bytes)
        );
    };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).unwrap();
    text
}

#[test]
fn checkpoints_leave_the_host_by_file_and_by_url_and_failures_are_tried_again() {
    let away = tempfile::tempdir().unwrap();
    let file = away.path().join("notes");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/notes", listener.local_addr().unwrap());
    let flags = [
        ("proof.push_file", file.to_str().unwrap()),
        ("proof.push_url", &url),
    ];
    let mut server = TestServer::with(&flags, FakeOptions::default());
    let key = server.admin().get("/v1/ledger/keys").text();
    // The token's first use is written down beside it, and would be an entry after the checkpoint.
    until(|| {
        let acts = server.admin().get("/v1/audit").text();
        acts.contains("token.seen").then_some(())
    });
    let (size, root) = sign(&server);
    // A failure and a redirect are no deliveries; the same note comes again.
    let refused = [
        "500 Internal Server Error",
        "302 Found\r\nLocation: /elsewhere",
        "200 OK",
    ];
    for status in refused {
        let post = receive(&listener, status);
        assert!(post.starts_with("POST /notes HTTP/1.1\r\n"), "{post}");
        let note = post.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(opened(note, &key), (size, root.clone()));
    }
    let metrics = until(|| {
        let text = server.admin().get("/metrics").text();
        let is_there = |sink| text.contains(&format!("push_lag_entries{{sink=\"{sink}\"}} 0\n"));
        ["file", "url"].into_iter().all(is_there).then_some(text)
    });
    assert!(metrics.contains("farebox_checkpoint_push_lag_seconds{sink=\"url\"} 0\n"));
    assert!(
        metrics.contains("farebox_checkpoint_push_failures_total{sink=\"url\"}"),
        "{metrics}"
    );
    assert!(
        metrics.contains("farebox_checkpoint_lag_entries 0\n"),
        "{metrics}"
    );
    assert!(metrics.contains("farebox_checkpoint_lag_seconds 0\n"));
    let notes = std::fs::read_to_string(&file).unwrap();
    assert_eq!(opened(notes.trim_end(), &key), (size, root));
    // The last one, signed when the server ends, is delivered too.
    server.tenant("acme");
    let last = std::thread::spawn(move || receive(&listener, "204 No Content"));
    server.stop();
    let (last, _) = opened(last.join().unwrap().split_once("\r\n\r\n").unwrap().1, &key);
    assert!(last > size);
    let notes = std::fs::read_to_string(&file).unwrap();
    assert_eq!(notes.matches("\u{2014} ").count(), 2, "{notes}");
}
