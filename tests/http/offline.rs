//! The auditor's commands: a copy of the journal against checkpoints that were kept elsewhere, and
//! proofs of a running server against a pinned key.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::client::Client;
use crate::server::TestServer;

/// What an auditor keeps: the public key and checkpoints, in files of his own.
struct Kept {
    dir: tempfile::TempDir,
}

impl Kept {
    fn new() -> Kept {
        Kept {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn keep(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// Runs the binary with nothing in its environment.
pub(crate) fn farebox(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farebox"));
    command.env_clear().args(args).output().unwrap()
}

/// Runs `farebox ledger verify` with what was kept.
fn verify(ledger: &Path, key: &Path, notes: &[&Path]) -> Output {
    let mut args = vec![
        "--json",
        "ledger",
        "verify",
        ledger.to_str().unwrap(),
        "--key",
    ];
    args.push(key.to_str().unwrap());
    for note in notes {
        args.extend(["--checkpoint", note.to_str().unwrap()]);
    }
    farebox(&args)
}

/// What a command that succeeded has printed as JSON.
#[track_caller]
pub(crate) fn told(output: &Output) -> Value {
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The words of a failed verification.
#[track_caller]
fn unproven(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{words}");
    words
}

fn run(client: &Client) -> u64 {
    let body = json!({"code": "cpu_us 1000"});
    let record = client.post("/v1/executions", &body).expect(200);
    record["receipt"]["entry"].as_u64().unwrap()
}

fn sign(server: &TestServer) -> String {
    server
        .admin()
        .request("POST", "/v1/ledger/checkpoint")
        .send()
        .text()
}

/// A server with some runs, its key, and its checkpoints over fewer and more entries.
fn signed_twice(kept: &Kept, name: &str) -> (TestServer, PathBuf, PathBuf, PathBuf) {
    let server = TestServer::start();
    let acme = server.tenant("acme");
    let key = server.admin().get("/v1/ledger/keys").text();
    let key = kept.keep(&format!("{name}.key"), &key);
    run(&acme);
    let early = kept.keep(&format!("{name}.early"), &sign(&server));
    run(&acme);
    let late = kept.keep(&format!("{name}.late"), &sign(&server));
    (server, key, early, late)
}

#[test]
fn a_copy_of_the_journal_is_verified_with_what_an_auditor_kept() {
    let kept = Kept::new();
    let (mut server, key, early, late) = signed_twice(&kept, "a");
    server.stop();
    let ledger = server.data_dir().join("ledger");
    let copy = kept.dir.path().join("copy/journal");
    std::fs::create_dir_all(&copy).unwrap();
    for file in std::fs::read_dir(ledger.join("journal")).unwrap() {
        let file = file.unwrap().path();
        std::fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    // The journal, the directory that it lies in: whichever is at hand.
    for place in [copy.as_path(), copy.parent().unwrap()] {
        let verified = told(&verify(place, &key, &[&early, &late]));
        assert_eq!(verified["checkpoints"], 2, "{verified}");
        assert_eq!(verified["key"], "given");
        assert_eq!(verified["signed_entries"], verified["entries"]);
    }
    // The server's own directory has all of it beside the journal.
    let dir = server.data_dir().to_str().unwrap();
    let verified = told(&farebox(&["--json", "ledger", "verify", dir]));
    assert!(verified["checkpoints"].as_u64().unwrap() >= 2, "{verified}");
    assert_eq!(verified["key"], "beside the journal");
}

#[test]
fn another_ledger_and_an_older_state_are_not_what_was_signed() {
    let kept = Kept::new();
    let (mut one, key, early, late) = signed_twice(&kept, "one");
    let (mut other, ..) = signed_twice(&kept, "other");
    other.stop();
    let words = unproven(&verify(
        &other.data_dir().join("ledger"),
        &key,
        &[&early, &late],
    ));
    assert!(words.contains("another root"), "{words}");
    one.stop();
    let ledger = one.data_dir().join("ledger");
    told(&verify(&ledger, &key, &[&early, &late]));
    // The last frame is put back to zeros, and what was made from it with it.
    let segment = ledger.join("journal/00000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let frame = bytes.windows(4).rposition(|four| four == b"FBXF").unwrap();
    bytes[frame..].fill(0);
    std::fs::write(&segment, bytes).unwrap();
    std::fs::remove_file(ledger.join("checkpoint")).unwrap();
    told(&verify(&ledger, &key, &[&early]));
    let words = unproven(&verify(&ledger, &key, &[&early, &late]));
    assert!(words.contains("the journal ends with entry"), "{words}");
}

#[test]
fn changed_checkpoints_and_other_keys_prove_nothing() {
    let kept = Kept::new();
    let (mut server, key, early, _) = signed_twice(&kept, "a");
    let (_, other_key, ..) = signed_twice(&kept, "b");
    server.stop();
    let ledger = server.data_dir().join("ledger");
    let words = unproven(&verify(&ledger, &other_key, &[&early]));
    assert!(words.contains("none of the given keys"), "{words}");
    let text = std::fs::read_to_string(&early).unwrap();
    let size: u64 = text.lines().nth(1).unwrap().parse().unwrap();
    let forged = text.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size - 1), 1);
    let forged = kept.keep("forged", &forged);
    let words = unproven(&verify(&ledger, &key, &[&forged]));
    assert!(words.contains("changed after it was signed"), "{words}");
    let rubbish = kept.keep("rubbish", "rubbish\n");
    unproven(&verify(&ledger, &key, &[&rubbish]));
    assert_eq!(verify(&ledger, &rubbish, &[&early]).status.code(), Some(2));
}

#[test]
fn a_flipped_byte_is_named_by_its_entry() {
    let kept = Kept::new();
    let (mut server, key, early, _) = signed_twice(&kept, "a");
    server.stop();
    let ledger = server.data_dir().join("ledger");
    let segment = ledger.join("journal/00000001.seg");
    let good = std::fs::read(&segment).unwrap();
    // The word stands in the settlements only.
    let at = good.windows(6).rposition(|six| six == b"exited").unwrap();
    let mut bad = good.clone();
    bad[at] ^= 1;
    std::fs::write(&segment, bad).unwrap();
    let words = unproven(&verify(&ledger, &key, &[&early]));
    let last = told_entries(&good, &segment, &ledger, &key, &early);
    assert!(
        words.contains(&format!("entry {last} is not as it was written")),
        "{words}"
    );
}

/// Puts the journal right and says how many entries it has: the last is the last settlement.
fn told_entries(good: &[u8], segment: &Path, ledger: &Path, key: &Path, note: &Path) -> u64 {
    std::fs::write(segment, good).unwrap();
    told(&verify(ledger, key, &[note]))["entries"]
        .as_u64()
        .unwrap()
}

#[test]
fn proofs_of_a_running_server_are_checked_against_a_pinned_key() {
    let kept = Kept::new();
    let (server, key, early, late) = signed_twice(&kept, "a");
    let Client { address, token } = server.admin();
    let (url, token) = (format!("http://{address}"), token.unwrap());
    let ask = |args: &[&str]| {
        let mut all = vec!["--json", "ledger"];
        all.extend(args);
        all.extend(["--url", &url, "--token", &token]);
        farebox(&all)
    };
    let newest = told(&ask(&["checkpoint"]));
    assert_eq!(newest["note"], std::fs::read_to_string(&late).unwrap());
    let seq = newest["size"].as_u64().unwrap().to_string();
    let (key, early) = (key.to_str().unwrap(), early.to_str().unwrap());
    let proved = told(&ask(&[
        "prove", "--entry", &seq, "--since", early, "--key", key,
    ]));
    assert_eq!(proved["entry"]["seq"].to_string(), seq);
    assert_eq!(proved["entry"]["kind"], "settlement");
    assert_eq!(proved["key"], "given");
    let path = "/v1/entries?limit=1000&tenant=acme&kind=settlement";
    let entries = server.admin().get(path).expect(200);
    let shown = entries["items"].as_array().unwrap().last().unwrap();
    assert_eq!(
        &proved["entry"], shown,
        "the entry is not read as the server reads it"
    );
    let (_other, other_key, ..) = signed_twice(&kept, "b");
    unproven(&ask(&[
        "prove",
        "--entry",
        &seq,
        "--key",
        other_key.to_str().unwrap(),
    ]));
    // Signed on request, once there is something to sign.
    run(&server.token("acme", "owner"));
    let again = told(&ask(&["checkpoint", "--sign"]));
    assert!(again["size"].as_u64() > newest["size"].as_u64(), "{again}");
    assert_eq!(ask(&["prove"]).status.code(), Some(2));
    assert_eq!(
        ask(&["prove", "--entry", "99999", "--key", key])
            .status
            .code(),
        Some(3)
    );
}
