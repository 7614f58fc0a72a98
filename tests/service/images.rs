//! Imported images from the outside: the commands, what runs in them, and a store that was changed
//! under a running server.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::http::{Answer, Request};
use crate::server::{self, NONE_AHEAD, Server};
use crate::world::{World, wait_until};

/// Longest that a command may take to be where a test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Packs a shell and its libraries from the root $1 into the archive $2.
const PACK: &str = "
cd \"$1\"
libraries=$(find usr/lib usr/lib64 -name libc.so.6 -o -name 'ld-linux*' -o -name 'libtinfo.so.6*')
tar --numeric-owner -czf \"$2\" bin lib lib64 usr/bin/sh usr/bin/dash usr/bin/bash $libraries";

/// A store of its own with an archive of a small root beside it.
struct Shop {
    world: World,
    dir: tempfile::TempDir,
}

impl Shop {
    fn open(test: &str) -> Option<Shop> {
        let world = World::enter(test)?;
        let dir = server::data_dir();
        let store = &world.images;
        let names = fs::read(store.join("names.json")).unwrap();
        let names: Value = serde_json::from_slice(&names).unwrap();
        let digest = names["python:latest"].as_str().unwrap();
        let root = store
            .join("sha256")
            .join(digest.trim_start_matches("sha256:"))
            .join("rootfs");
        let packed = Command::new("sh")
            .args(["-ec", PACK, "pack"])
            .arg(root)
            .arg(dir.path().join("root.tar.gz"))
            .status()
            .unwrap();
        assert!(packed.success());
        Some(Shop { world, dir })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.at("store")
    }

    fn command(&self, args: &[&str]) -> Command {
        let store = self.store();
        let settings = [("FAREBOX_IMAGES__DIR", store.to_str().unwrap())];
        let mut command = server::command(&self.world, &settings);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `farebox` with `input`; answers its exit code, and what it said.
    fn farebox(&self, args: &[&str], input: &[u8]) -> (i32, Output) {
        let mut child = self.command(args).spawn().unwrap();
        // One that does not want it all has ended.
        drop(child.stdin.take().unwrap().write_all(input));
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), output)
    }

    /// As [`Shop::farebox`] of a command that must succeed, with `--json`.
    fn json(&self, args: &[&str], input: &[u8]) -> Value {
        let args = [args, &["--json"]].concat();
        let (code, output) = self.farebox(&args, input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code, 0, "{args:?}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn import(&self) -> Value {
        let archive = fs::read(self.at("root.tar.gz")).unwrap();
        self.json(
            &["image", "import", "tiny:1", "-", "--language", "shell"],
            &archive,
        )
    }

    fn rootfs(&self, image: &Value) -> PathBuf {
        let digest = image["digest"].as_str().unwrap();
        let home = self.store().join("sha256");
        home.join(digest.trim_start_matches("sha256:"))
            .join("rootfs")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_image_is_imported_shown_run_and_removed() {
    let Some(shop) = Shop::open("an imported image") else {
        return;
    };
    let image = shop.import();
    assert_eq!(image["name"], "tiny");
    assert_eq!(image["languages"], json!(["shell"]));
    assert_eq!(image["set_ids_dropped"], 0);
    let listed = shop.json(&["image", "list"], b"");
    assert_eq!(listed[0]["digest"], image["digest"]);
    let shown = shop.json(&["image", "inspect", "tiny:1"], b"");
    assert_eq!(shown["origin"], image["origin"]);
    let (code, shown) = shop.farebox(&["image", "inspect", "tiny:1"], b"");
    assert_eq!(code, 0);
    assert!(text(&shown.stdout).contains("tar sha256:"), "{shown:?}");

    let script = shop.at("script.sh");
    fs::write(&script, "echo \"in $PWD as $USER\"; exit 7\n").unwrap();
    let script = script.to_str().unwrap();
    let run = ["run", "--image", "tiny:1", "--language", "shell", script];
    let (code, ran) = shop.farebox(&run, b"");
    assert_eq!(text(&ran.stdout), "in /workspace as user\n", "{ran:?}");
    assert_eq!(code, 7);

    shop.json(&["image", "remove", "tiny:1"], b"");
    assert_eq!(shop.json(&["image", "list"], b""), json!([]));
    assert!(!shop.rootfs(&image).exists());
    shop.world.assert_host_dev();
}

#[test]
fn what_is_refused_has_its_exit_code_its_cause_and_its_cure() {
    let Some(shop) = Shop::open("refused imports") else {
        return;
    };
    let file = shop.at("root.tar.gz");
    let file = file.to_str().unwrap();
    let bad = shop.at("bad");
    fs::create_dir(&bad).unwrap();
    nix::unistd::mkfifo(&bad.join("a\npipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let packed = Command::new("tar")
        .arg("-C")
        .arg(&bad)
        .arg("-cf")
        .arg(shop.at("bad.tar"))
        .arg(".")
        .status();
    assert!(packed.unwrap().success());
    let bad = shop.at("bad.tar");
    let bad = bad.to_str().unwrap();
    let settle = |args: &[&str]| {
        let (code, output) = shop.farebox(&[&["image", "import"], args, &["--json"]].concat(), b"");
        let told: Value = serde_json::from_slice(&output.stderr).unwrap();
        let word = |name: &str| told["error"][name].as_str().unwrap().to_owned();
        assert_eq!(told["error"]["exit_code"], code);
        (code, word("cause"), word("cure"))
    };
    let (code, cause, cure) = settle(&["x", bad]);
    assert_eq!(code, 3);
    assert_eq!(cause, "./a\\npipe is a socket or a named pipe");
    assert!(cure.starts_with("remove it"), "{cure}");
    assert_eq!(settle(&["x", "/nowhere.tar"]).0, 2);
    assert_eq!(settle(&["X/y", file]).0, 2);
    let (code, cause, _) = settle(&["x", "/proc/version"]);
    assert_eq!(code, 3, "{cause}");
    let store = shop.store();
    let small = [
        ("FAREBOX_IMAGES__DIR", store.to_str().unwrap()),
        ("FAREBOX_IMAGES__FILE_MAX_BYTES", "1000"),
    ];
    let mut command = server::command(&shop.world, &small);
    let output = command
        .args(["image", "import", "x", file])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let told = text(&output.stderr);
    assert!(told.contains("images.file_max_bytes"), "{told}");
    assert_eq!(shop.json(&["image", "list"], b""), json!([]));
    assert!(!store.join("staging").exists());
    // The same archive within the bounds.
    shop.json(&["image", "import", "x", file], b"");
}

/// Starts an import that waits for the rest of its archive, once it has begun to unpack.
fn waiting_import(shop: &Shop) -> Child {
    let mut child = shop
        .command(&["image", "import", "slow", "-"])
        .spawn()
        .unwrap();
    let first = {
        let script = "cd \"$1\" && echo x > seen && tar -cf - seen | head -c 1024";
        let made = Command::new("sh")
            .args(["-ec", script, "first"])
            .arg(shop.dir.path())
            .output();
        made.unwrap().stdout
    };
    child.stdin.as_mut().unwrap().write_all(&first).unwrap();
    let seen = shop.store().join("staging/rootfs/seen");
    let begun = wait_until(PATIENCE, || {
        assert_eq!(child.try_wait().unwrap(), None);
        seen.exists().then_some(())
    });
    assert!(begun.is_some(), "nothing is unpacked");
    child
}

/// Processes that unpack into this shop's store.
fn unpackers(shop: &Shop) -> Vec<u32> {
    let staging = shop.store().join("staging");
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let works_there = |pid: &u32| {
        let cwd = fs::read_link(format!("/proc/{pid}/cwd"));
        cwd.is_ok_and(|cwd| cwd.starts_with(&staging))
    };
    pids.filter(works_there).collect()
}

#[test]
fn an_interrupted_import_leaves_nothing_and_a_killed_one_is_swept() {
    let Some(shop) = Shop::open("interrupted imports") else {
        return;
    };
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let child = waiting_import(&shop);
        assert!(!unpackers(&shop).is_empty());
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains("interrupted; nothing was kept"));
        assert!(!shop.store().join("staging").exists());
        assert!(unpackers(&shop).is_empty());
    }
    let mut child = waiting_import(&shop);
    // Another command finds the store at work, and leaves it alone.
    shop.json(&["image", "list"], b"");
    assert!(shop.store().join("staging/rootfs/seen").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = wait_until(PATIENCE, || unpackers(&shop).is_empty().then_some(()));
    assert!(gone.is_some(), "who unpacks outlives who has asked");
    assert!(shop.store().join("staging").exists());
    assert_eq!(shop.json(&["image", "list"], b""), json!([]));
    assert!(!shop.store().join("staging").exists());
}

fn execute(server: &Server, token: &str) -> Answer {
    let body = json!({ "image": "tiny:1", "language": "shell", "code": "echo hello" });
    let (method, path, body) = ("POST", "/v1/executions", Some(&body));
    let request = Request {
        method,
        path,
        token,
        body,
        ..Request::default()
    };
    server.ask(&request).unwrap()
}

#[test]
fn a_changed_image_is_a_failed_start_that_names_image_and_path_and_costs_nothing() {
    let Some(shop) = Shop::open("a changed store") else {
        return;
    };
    let image = shop.import();
    let root = shop.rootfs(&image);
    let dir = server::data_dir();
    let store = shop.store();
    let settings = [
        ("FAREBOX_IMAGES__DIR", store.to_str().unwrap()),
        ("FAREBOX_IMAGES__DEFAULT", "tiny:1"),
        NONE_AHEAD,
    ];
    let mut server = Server::start(&shop.world, dir.path(), &settings);
    let token = server.tenant("acme");
    let hello = |server: &Server| {
        let record = execute(server, &token).body;
        assert_eq!(record["stdout"], "hello\n", "{record}");
    };
    hello(&server);
    let outside = shop.at("outside");
    fs::create_dir(&outside).unwrap();
    for name in ["dev", "etc"] {
        let (path, aside) = (root.join(name), root.join("aside"));
        fs::rename(&path, &aside).unwrap();
        symlink(&outside, &path).unwrap();
        let answer = execute(&server, &token);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let outcome = &answer.body["outcome"];
        assert_eq!(outcome["kind"], "start_failed", "{}", answer.body);
        let reason = outcome["reason"].as_str().unwrap();
        let digest = image["digest"].as_str().unwrap();
        assert!(reason.contains(digest), "{reason}");
        assert!(
            reason.contains(&format!("/{name} is not a plain directory")),
            "{reason}"
        );
        assert!(answer.body["receipt"]["entry"].is_null(), "{}", answer.body);
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        hello(&server);
    }
    assert_eq!(
        fs::read_dir(&outside).unwrap().count(),
        0,
        "a link was followed"
    );
    assert!(Path::new("/dev/null").exists());
    assert_eq!(server.stop(), Some(0));
    shop.world.assert_host_dev();
}
