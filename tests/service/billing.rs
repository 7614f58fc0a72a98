//! What is charged against what the kernel says, and quotas against many clients, over HTTP with
//! real sandboxes.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{self, Answer, Request};
use crate::server::{self, NONE_AHEAD, RUNS_ALONE, Server, sandbox_groups, sandboxes_of};
use crate::world::{World, wait_until};

/// Longest that a sandbox may take to be gone after its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Charged and counted CPU may differ by 2 % and 5 ms.
fn close(charged_us: u64, counted_us: u64) -> bool {
    charged_us.abs_diff(counted_us) <= counted_us / 50 + 5_000
}

/// Burns two seconds of CPU in each of `processes`, then says how much that was in all, in us. What
/// an interpreter has used before it had a program is in its own count and in nobody's charge.
fn burner(processes: usize) -> String {
    format!(
        "import os, resource, time\n\
         def burn():\n    \
             began = time.process_time()\n    \
             while time.process_time() - began < 2.0: pass\n\
         children = []\n\
         for _ in range({processes} - 1):\n    \
             pid = os.fork()\n    \
             if pid == 0:\n        \
                 burn()\n        \
                 os._exit(0)\n    \
             children.append(pid)\n\
         burn()\n\
         for pid in children: os.waitpid(pid, 0)\n\
         used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n\
         print(int(sum(one.ru_utime + one.ru_stime for one in used) * 1000000))\n"
    )
}

#[test]
fn cpu_charged_is_what_the_kernel_counted_for_one_process() {
    cpu_charged_is_what_the_kernel_counted("cpu of one process", 1);
}

#[test]
fn cpu_charged_is_what_the_kernel_counted_for_two_processes() {
    cpu_charged_is_what_the_kernel_counted("cpu of two processes", 2);
}

fn cpu_charged_is_what_the_kernel_counted(test: &str, processes: usize) {
    let Some(world) = World::enter(test) else {
        return;
    };
    let dir = server::data_dir();
    let mut server = Server::start(&world, dir.path(), &RUNS_ALONE);
    let token = server.tenant("acme");
    let body = json!({
        "language": "python",
        "code": burner(processes),
        "limits": { "cpu_ms": 20_000, "wall_ms": 300_000, "cpu_millis": 2000 },
    });
    settle_down(dir.path());
    let before_us = cpu_us(dir.path());
    let (method, path, token, body) = ("POST", "/v1/executions", token.as_str(), Some(&body));
    let request = Request {
        method,
        path,
        token,
        body,
        ..Request::default()
    };
    let answer = server.ask(&request).unwrap();
    settle_down(dir.path());
    let counted_us = cpu_us(dir.path()) - before_us;
    let record = answer.body;
    assert_eq!(
        record["outcome"],
        json!({"kind": "exited", "code": 0}),
        "{record}"
    );
    let charged_us = charged(&record);
    assert!(
        close(charged_us, counted_us),
        "charged {charged_us}, counted {counted_us} us"
    );
    let told_us: u64 = record["stdout"].as_str().unwrap().trim().parse().unwrap();
    assert!(told_us >= 2_000_000 * processes as u64, "{record}");
    assert!(
        close(charged_us, told_us),
        "charged {charged_us} us, it says {told_us} us"
    );
    assert_eq!(record["measured"]["cpu_us"], charged_us, "{record}");
    assert_eq!(server.stop(), Some(0));
}

fn charged(record: &Value) -> u64 {
    let lines = record["charge"]["lines"].as_array().unwrap();
    let line = lines.iter().find(|line| line["meter"] == "cpu_us").unwrap();
    line["quantity"].as_str().unwrap().parse().unwrap()
}

/// Waits until no sandbox of this server is left.
fn settle_down(dir: &Path) {
    let gone = wait_until(PATIENCE, || sandbox_groups(dir).is_empty().then_some(()));
    assert!(gone.is_some(), "sandboxes stay: {:?}", sandbox_groups(dir));
}

/// What all sandboxes of this server have used since it was started, those that are gone included:
/// a group counts what its children have used, on either kind of tree.
fn cpu_us(dir: &Path) -> u64 {
    let all = sandboxes_of(dir);
    for group in &all {
        if let Ok(text) = fs::read_to_string(group.join("cpuacct.usage")) {
            return text.trim().parse::<u64>().unwrap() / 1000;
        }
    }
    for group in &all {
        let text = fs::read_to_string(group.join("cpu.stat")).unwrap_or_default();
        let mut lines = text.lines();
        if let Some(usage) = lines.find_map(|line| line.strip_prefix("usage_usec ")) {
            return usage.trim().parse().unwrap();
        }
    }
    panic!("no counter in {all:?}");
}

/// The books agree with the kernel: what it counted for all sandboxes together covers what was
/// charged, and what is left over is small and explained.
#[test]
fn executions_and_the_kernels_count_of_all_sandboxes_are_reconciled() {
    const RUNS: i64 = 3;
    let Some(world) = World::enter("reconciliation with the kernel") else {
        return;
    };
    let dir = server::data_dir();
    let mut server = Server::start(&world, dir.path(), &[NONE_AHEAD]);
    let token = server.tenant("acme");
    let body = json!({ "language": "python", "code": burner(1),
        "limits": { "cpu_ms": 20_000, "wall_ms": 300_000, "cpu_millis": 1000 } });
    for _ in 0..RUNS {
        let (method, path, token, body) = ("POST", "/v1/executions", token.as_str(), Some(&body));
        let request = Request {
            method,
            path,
            token,
            body,
            ..Request::default()
        };
        let record = server.ask(&request).unwrap().body;
        assert_eq!(record["outcome"]["kind"], "exited", "{record}");
    }
    settle_down(dir.path());
    let now = jiff::Timestamp::now().as_second();
    let hour = |hours: i64| {
        let start = now - now.rem_euclid(3_600) + hours * 3_600;
        jiff::Timestamp::from_second(start).unwrap()
    };
    let path = format!("/v1/reconciliation?from={}&to={}", hour(-1), hour(2));
    let found = server.admin("GET", &path, None);
    assert_eq!(found["agrees"], true, "{found}");
    assert_eq!(found["range"]["settlements"], RUNS, "{found}");
    let cpu = &found["cpu"];
    let of = |name: &str| cpu[name].as_i64().unwrap();
    assert_eq!(of("executions"), RUNS);
    assert!(of("charged_us") >= 2_000_000 * RUNS, "{cpu}");
    assert_eq!(
        of("kernel_us"),
        of("charged_us") + of("overrun_us") + of("residual_us"),
        "{cpu}"
    );
    // A template was started beside the first run.
    assert!(of("templates_us") > 0, "{cpu}");
    // Each was made before it was anybody's, and an interpreter was started in most.
    assert!(of("making_us") > 0, "{cpu}");
    assert!(of("making_us") <= of("residual_us"), "{cpu}");
    // Making and ending a sandbox costs milliseconds, not a part of the bill.
    assert!(of("residual_per_execution_us") < 200_000, "{cpu}");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn of_64_clients_at_once_exactly_as_many_run_as_the_quota_has_room_for() {
    const CLIENTS: usize = 64;
    const ROOM: usize = 20;
    let Some(world) = World::enter("quota against 64 clients") else {
        return;
    };
    let dir = server::data_dir();
    let mut server = Server::start(&world, dir.path(), &[NONE_AHEAD]);
    let token = server.tenant("acme");
    let cap = json!({ "concurrency": CLIENTS });
    server.admin("PUT", "/v1/tenants/acme/limits", Some(&cap));
    let quota = json!([{ "meter": "executions", "window": "lifetime", "limit": ROOM.to_string() }]);
    server.admin(
        "PUT",
        "/v1/tenants/acme/quotas",
        Some(&json!({ "quotas": quota })),
    );

    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    for answer in at_once(CLIENTS, server.address, &token) {
        *statuses.entry(answer.status).or_default() += 1;
        if answer.status != 200 {
            assert!(
                answer.head.contains("application/problem+json"),
                "{}",
                answer.head
            );
            assert_eq!(answer.body["code"], "quota_exceeded", "{}", answer.body);
            let violated = &answer.body["violated"][0];
            assert_eq!(violated["meter"], "executions", "{}", answer.body);
            assert_eq!(violated["limit"], ROOM.to_string(), "{}", answer.body);
        }
    }
    assert_eq!(
        statuses,
        BTreeMap::from([(200, ROOM), (429, CLIENTS - ROOM)])
    );
    let state = server.admin("GET", "/v1/tenants/acme/quotas", None);
    let all = state["items"].as_array().unwrap();
    let quota = all
        .iter()
        .find(|quota| quota["window"] == "lifetime")
        .unwrap();
    assert_eq!(quota["posted"], ROOM.to_string(), "{state}");
    assert_eq!(quota["held"], "0", "{state}");
    assert_eq!(server.stop(), Some(0));
}

/// One program for each of `clients`, all at once; every output must be its own.
fn at_once(clients: usize, address: SocketAddr, token: &str) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let ask = |at: usize| {
            let body = json!({ "language": "python", "code": format!("print({at})") });
            let (method, path, body) = ("POST", "/v1/executions", Some(&body));
            let request = Request {
                method,
                path,
                token,
                body,
                ..Request::default()
            };
            let answer = http::send(address, &request).unwrap();
            if answer.status == 200 {
                assert_eq!(answer.body["stdout"], format!("{at}\n"), "{}", answer.body);
            }
            answer
        };
        let clients: Vec<_> = (0..clients)
            .map(|at| scope.spawn(move || ask(at)))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    })
}
