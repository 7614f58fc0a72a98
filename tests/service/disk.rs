//! A disk under the journal that fills, and one that fails: what was acknowledged is kept, and
//! nothing is charged twice. The ledger has a small file system of its own, in the test's world.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount, umount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};

use crate::http::{Answer, Request};
use crate::server::{self, Server};
use crate::world::{World, wait_until};

/// Longest that a server may take to see that there is room again, or that there is none.
const PATIENCE: Duration = Duration::from_secs(60);

/// More runs than the journal's reserve can take, each with [`tags`] of some kilobytes.
const RUNS_MAX: usize = 400;

/// Segments so small that the reserve is used up within the test.
const SMALL: [(&str, &str); 1] = [("FAREBOX_LEDGER__SEGMENT_BYTES", "65536")];

/// A file system in memory, owned by the server's user.
fn tmpfs(at: &Path, mebibytes: u32) {
    let options = format!("size={mebibytes}m,mode=700,uid=65530,gid=65530");
    mount(
        Some("farebox-test"),
        at,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .unwrap();
}

/// Takes all the room that is left in `dir`.
fn fill(dir: &Path) -> PathBuf {
    use std::io::Write as _;
    let path = dir.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    for size in [1 << 16, 1 << 12] {
        let block = vec![1; size];
        while file.write_all(&block).is_ok() {}
    }
    path
}

/// Tags that make every entry some kilobytes large.
fn tags() -> Value {
    let value = "x".repeat(250);
    (0..16)
        .map(|n| (format!("tag-{n}"), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn run(server: &Server, token: &str, key: &str) -> Answer {
    let body = json!({"command": ["true"], "tags": tags()});
    let request = Request {
        method: "POST",
        path: "/v1/executions",
        token,
        key: Some(key),
        prefer: None,
        body: Some(&body),
    };
    server.ask(&request).unwrap()
}

/// The executions that the ledger has settled, each as often as it has.
fn settled(server: &Server) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/entries?tenant=acme&kind=settlement&limit=500{cursor}");
        let page = server.admin("GET", &path, None);
        for entry in page["items"].as_array().unwrap() {
            found.push(entry["execution"].as_str().unwrap().to_owned());
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

fn assert_settled_once(server: &Server, acknowledged: &BTreeSet<String>) {
    let settled = settled(server);
    let once: BTreeSet<String> = settled.iter().cloned().collect();
    assert_eq!(settled.len(), once.len(), "an execution is charged twice");
    let lost: Vec<_> = acknowledged.difference(&once).collect();
    assert!(
        lost.is_empty(),
        "acknowledged, but not in the ledger: {lost:?}"
    );
}

/// Runs until one is refused; answers what was acknowledged and the refusal.
fn run_until_refused(server: &Server, token: &str) -> (BTreeSet<String>, Answer) {
    let mut acknowledged = BTreeSet::new();
    for n in 0..RUNS_MAX {
        let answer = run(server, token, &format!("run-{n}"));
        if answer.status != 200 {
            return (acknowledged, answer);
        }
        acknowledged.insert(answer.body["id"].as_str().unwrap().to_owned());
    }
    panic!("{RUNS_MAX} runs on a full disk were all taken");
}

fn verify(world: &World, dir: &Path) {
    let verified = server::farebox(world, &["ledger", "verify", "--data-dir", &text(dir)]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_full_disk_refuses_new_runs_until_there_is_room_again() {
    let Some(world) = World::enter("a full disk under the ledger") else {
        return;
    };
    let dir = server::data_dir();
    let ledger = dir.path().join("ledger");
    fs::create_dir(&ledger).unwrap();
    tmpfs(&ledger, 16);
    let mut server = Server::start(&world, dir.path(), &SMALL);
    let token = server.tenant("acme");
    assert_eq!(run(&server, &token, "before").status, 200);
    let filler = fill(&ledger);
    let (mut acknowledged, refused) = run_until_refused(&server, &token);
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(refused.body["code"], "unavailable", "{}", refused.body);
    assert_eq!(refused.body["retry"], "safe", "{}", refused.body);
    assert_settled_once(&server, &acknowledged);
    fs::remove_file(filler).unwrap();
    let again = wait_until(PATIENCE, || {
        let answer = run(&server, &token, "after");
        (answer.status == 200).then_some(answer)
    });
    let again = again.unwrap_or_else(|| panic!("no room is found:\n{}", server.log()));
    acknowledged.insert(again.body["id"].as_str().unwrap().to_owned());
    assert_settled_once(&server, &acknowledged);
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    drop(server);
    verify(&world, dir.path());
    umount(&ledger).unwrap();
}

/// Loop device nodes in the world's /dev, which has none.
fn loop_nodes() {
    for number in 0..256 {
        let path = format!("/dev/loop{number}");
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        match mknod(path.as_str(), SFlag::S_IFBLK, mode, makedev(7, number)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => panic!("{path}: {errno}"),
        }
    }
}

fn done(command: &mut Command) {
    let output = command.stdin(Stdio::piped()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A disk promises more than there is below it: writing to it fails when it is too late to say no.
fn disk_that_will_fail(below: &Path, at: &Path) {
    tmpfs(below, 24);
    let image = below.join("image");
    fs::File::create(&image)
        .unwrap()
        .set_len(256 << 20)
        .unwrap();
    let quiet = "lazy_itable_init=1,nodiscard";
    done(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-O", "^has_journal", "-E", quiet])
            .arg(&image),
    );
    loop_nodes();
    done(
        Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(at),
    );
    nix::unistd::chown(at, Some(65_530.into()), Some(65_530.into())).unwrap();
}

#[test]
fn a_failing_disk_ends_the_server_and_loses_nothing_acknowledged() {
    let Some(world) = World::enter("a failing disk under the ledger") else {
        return;
    };
    let dir = server::data_dir();
    let ledger = dir.path().join("ledger");
    let below = dir.path().join("below");
    fs::create_dir(&ledger).unwrap();
    fs::create_dir(&below).unwrap();
    disk_that_will_fail(&below, &ledger);
    let mut server = Server::start(&world, dir.path(), &SMALL);
    let token = server.tenant("acme");
    assert_eq!(run(&server, &token, "before").status, 200);
    let filler = fill(&below);
    let (acknowledged, refused) = run_until_refused(&server, &token);
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(server.ended(), Some(7), "{}", server.log());
    drop(server);
    fs::remove_file(filler).unwrap();
    // What the kernel still has in memory of the failed writes is not what is on the disk.
    umount(&ledger).unwrap();
    done(
        Command::new("mount")
            .args(["-o", "loop"])
            .arg(below.join("image"))
            .arg(&ledger),
    );
    let mut server = Server::start(&world, dir.path(), &SMALL);
    assert_settled_once(&server, &acknowledged);
    assert_eq!(run(&server, &token, "after").status, 200);
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    drop(server);
    verify(&world, dir.path());
    umount(&ledger).unwrap();
    umount(&below).unwrap();
}
