//! The real binary with real sandboxes, killed by SIGKILL at random instants under load, again and
//! again on the same data directory: whatever was acknowledged is charged exactly once, and nothing
//! is left behind.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "test code, with clocks and an environment of its own"
)]

#[path = "../support/http.rs"]
mod http;
mod load;
#[expect(dead_code, reason = "the sandbox tests use more of it")]
#[path = "../support/server.rs"]
mod server;
#[path = "../support/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use load::{Acknowledged, Load, Random};
use serde_json::Value;
use server::{Server, farebox};
use world::{World, say, seed, wait_until};

const TENANTS: [&str; 2] = ["acme", "globex"];
const CLIENTS_PER_TENANT: usize = 3;

/// Longest that sandboxes of a killed server may linger once the next one is ready.
const PATIENCE: Duration = Duration::from_secs(15);

/// Small segments, so that kills also meet the change from one to the next.
const SETTINGS: [(&str, &str); 3] = [
    ("FAREBOX_LEDGER__SEGMENT_BYTES", "1048576"),
    ("FAREBOX_LEDGER__VIEW_FLUSH_MS", "100"),
    ("FAREBOX_LOG__FILTER", "warn"),
];

/// Bar: 200 rounds; the short form has 20.
#[test]
fn acknowledged_executions_survive_kills_and_are_charged_once() {
    let Some(world) = World::enter("kill rounds") else {
        return;
    };
    let rounds = if world.full { 200 } else { 20 };
    let mut random = Random::new(seed());
    let dir = server::data_dir();
    let mut server = Server::start(&world, dir.path(), &SETTINGS);
    let tokens = TENANTS.map(|tenant| server.tenant(tenant));
    let mut acknowledged = Vec::new();
    let mut unanswered = Vec::new();
    for round in 1..=rounds {
        let load = Load::start(
            server.address,
            &tokens,
            CLIENTS_PER_TENANT,
            random.next(),
            unanswered,
        );
        server::pass(Duration::from_millis(random.below(700)));
        let family = server.kill();
        let made = load.end();
        acknowledged.extend(made.acknowledged);
        unanswered = made.unanswered;
        verify(&world, dir.path(), "after the kill");

        server = Server::start(&world, dir.path(), &SETTINGS);
        assert_nothing_left(&world, dir.path(), &family);
        assert_no_open_hold(&world, dir.path());
        assert_charged_once(&server, &tokens, &acknowledged);
        say(&format!(
            "round {round}: {} acknowledged",
            acknowledged.len()
        ));
    }
    // What got no answer is sent again under its key, and must not be charged a second time.
    let load = Load::again(server.address, &tokens, unanswered);
    acknowledged.extend(load.end().acknowledged);
    assert_charged_once(&server, &tokens, &acknowledged);
    assert!(
        acknowledged.len() >= rounds,
        "too little was acknowledged to prove anything"
    );
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    assert_eq!(verify(&world, dir.path(), "at the end")["holds_open"], 0);
    world.assert_host_dev();
}

/// `farebox ledger verify` on a stopped server's directory.
fn verify(world: &World, dir: &Path, when: &str) -> Value {
    let ledger = dir.join("ledger");
    let proof = farebox(
        world,
        &["--json", "ledger", "verify", ledger.to_str().unwrap()],
    );
    let words = String::from_utf8_lossy(&proof.stderr);
    assert!(proof.status.success(), "{when}: {words}");
    serde_json::from_slice(&proof.stdout).unwrap()
}

/// Recovery has ended every hold that the killed server had open. Verified on a copy: the journal
/// only grows, so a copy of it is a journal.
fn assert_no_open_hold(world: &World, dir: &Path) {
    let open = || {
        let copy = tempfile::tempdir().unwrap();
        copy_all(&dir.join("ledger/journal"), &copy.path().join("journal"));
        let path = copy.path().to_str().unwrap();
        let proof = farebox(world, &["--json", "ledger", "verify", path]);
        let words = String::from_utf8_lossy(&proof.stderr);
        assert!(proof.status.success(), "a copy of the journal: {words}");
        let proof: Value = serde_json::from_slice(&proof.stdout).unwrap();
        (proof["holds_open"] == 0).then_some(())
    };
    assert!(
        wait_until(PATIENCE, open).is_some(),
        "holds of the killed server are still open"
    );
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// No process, group, directory or mount of the killed server's sandboxes is there any more.
fn assert_nothing_left(
    world: &World,
    dir: &Path,
    family: &std::collections::BTreeSet<server::Process>,
) {
    let gone = wait_until(PATIENCE, || {
        let processes = family.iter().any(|one| server::lives(*one));
        let groups = !server::sandbox_groups(dir).is_empty();
        let finals =
            std::fs::read_dir(dir.join("run/final")).is_ok_and(|mut all| all.next().is_some());
        (!processes && !groups && !finals).then_some(())
    });
    let living: Vec<_> = family.iter().filter(|one| server::lives(**one)).collect();
    assert!(
        gone.is_some(),
        "left behind: processes {living:?}, groups {:?}, records in {}/run/final",
        server::sandbox_groups(dir),
        dir.display()
    );
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = dir.to_str().unwrap();
    assert!(
        !mounts.contains(ours),
        "a mount of {ours} is left:\n{mounts}"
    );
    let expected = ["final", "instance", "lock"];
    for entry in std::fs::read_dir(dir.join("run")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            expected.contains(&name.as_str()),
            "{name} is left in {ours}/run"
        );
    }
    world.assert_host_dev();
}

/// Each acknowledged execution has one settlement of its tenant, with the charge that was answered.
fn assert_charged_once(server: &Server, tokens: &[String; 2], acknowledged: &[Acknowledged]) {
    for (tenant, token) in TENANTS.iter().zip(tokens) {
        let entries = load::settlements(server, tenant);
        let mut charges: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for entry in &entries {
            charges
                .entry(load::execution_of(entry))
                .or_default()
                .push(entry);
        }
        for (execution, entries) in &charges {
            assert_eq!(
                entries.len(),
                1,
                "{execution} is charged {} times",
                entries.len()
            );
        }
        for one in acknowledged.iter().filter(|one| one.token == *token) {
            let entry = charges.get(one.execution.as_str());
            assert!(
                entry.is_some(),
                "{} was acknowledged and is not charged",
                one.execution
            );
            assert_eq!(
                load::total_of(entry.unwrap()[0]),
                one.total,
                "{}",
                one.execution
            );
        }
    }
}
