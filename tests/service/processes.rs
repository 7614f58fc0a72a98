//! Who the server, the launcher and the code in a sandbox are, read from `/proc` and from inside.

use std::fs;

use serde_json::json;

use crate::http::{self, Request};
use crate::server::{self, Server};
use crate::world::World;

/// The numeric user of the default configuration.
const SERVER_USER: u32 = 65_530;

/// What one line of `/proc/PID/status` says.
fn status(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in the status of {pid}"))
        .trim()
        .to_owned()
}

#[test]
fn the_server_has_given_up_root_for_good_when_it_listens() {
    let Some(world) = World::enter("the server's privileges") else {
        return;
    };
    let dir = server::data_dir();
    let mut server = Server::start(&world, dir.path(), &[]);
    let pid = server.pid();
    let ids = vec![SERVER_USER.to_string(); 4].join("\t");
    assert_eq!(status(pid, "Uid"), ids);
    assert_eq!(status(pid, "Gid"), ids);
    assert_eq!(status(pid, "Groups"), "");
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn the_launcher_has_one_thread_no_environment_and_a_sealed_binary() {
    let Some(world) = World::enter("the launcher's hygiene") else {
        return;
    };
    let dir = server::data_dir();
    let mut server = Server::start(&world, dir.path(), &[("FAREBOX_LOG__FILTER", "info")]);
    let launcher = server
        .family()
        .into_iter()
        .map(|(pid, _)| pid)
        .find(|pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).nth(1) == Some(b"launcher")
        })
        .unwrap();
    assert_eq!(status(launcher, "Threads"), "1");
    assert_eq!(status(launcher, "Groups"), "");
    assert_eq!(fs::read(format!("/proc/{launcher}/environ")).unwrap(), b"");
    let binary = fs::read_link(format!("/proc/{launcher}/exe")).unwrap();
    assert!(
        binary.to_string_lossy().starts_with("/memfd:"),
        "{}",
        binary.display()
    );
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    let its = fs::read_link(format!("/proc/{launcher}/ns/mnt")).unwrap();
    assert_ne!(own, its, "the launcher shares a mount namespace");
    assert_eq!(server.stop(), Some(0));
}

/// Prints who it is and what it can reach, one a line.
const LOOK: &str = "\
import os, socket
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
print(os.getuid(), os.getgid(), os.getgroups())
print(status['CapEff'].strip(), status['CapBnd'].strip())
print(status['NoNewPrivs'].strip(), status['Seccomp'].strip())
print(sorted(os.listdir('/proc/self/fd')) )
print(os.path.exists('/sys/kernel'), os.path.exists('/sys/fs/cgroup/memory'))
print(sorted(name for _, name in socket.if_nameindex()))
def refused(what):
    try:
        what()
        return False
    except OSError:
        return True
print(refused(lambda: open('/usr/bin/python3', 'r+b')))
print(refused(lambda: os.mkdir('/sys/fs/cgroup/x')))
print(refused(lambda: os.kill(1, 9)) or os.path.exists('/proc/1'))
";

#[test]
fn code_in_a_sandbox_is_nobody_and_reaches_nothing() {
    let Some(world) = World::enter("code in a sandbox") else {
        return;
    };
    let dir = server::data_dir();
    let mut server = Server::start(&world, dir.path(), &[]);
    let token = server.tenant("acme");
    let body = json!({ "language": "python", "code": LOOK });
    let (method, path, token, body) = ("POST", "/v1/executions", token.as_str(), Some(&body));
    let request = Request {
        method,
        path,
        token,
        body,
        ..Request::default()
    };
    let record = http::send(server.address, &request).unwrap().body;
    assert_eq!(
        record["outcome"],
        json!({"kind": "exited", "code": 0}),
        "{record}"
    );
    let said: Vec<&str> = record["stdout"].as_str().unwrap().lines().collect();
    assert_eq!(said[0], "1000 1000 [1000]", "{record}");
    assert_eq!(said[1], "0000000000000000 0000000000000000", "{record}");
    assert_eq!(said[2], "1 2", "{record}");
    // Standard input, output and error, and the listing's own descriptor.
    assert_eq!(said[3], "['0', '1', '2', '3']", "{record}");
    assert_eq!(said[4], "False False", "{record}");
    assert_eq!(said[5], "['lo']", "{record}");
    assert_eq!(&said[6..], ["True", "True", "True"], "{record}");
    assert_eq!(server.stop(), Some(0));
}
