//! The privileged side with real sandboxes: launcher, shim, init, groups, disks.
//!
//! A binary of its own (`harness = false`), because it is also the launcher's binary (`spawn` runs
//! a sealed copy of it with the one argument `launcher`) and the program that runs in the sandboxes
//! (`probe NAME`). It moves into a mount namespace with a `/dev` of its own first, and skips aloud
//! where it has no privilege. A name as argument runs the tests whose names contain it; `bench
//! ROUNDS GAP_MS` measures.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "test code"
)]

#[path = "../support/ahead.rs"]
mod ahead;
mod bench;
mod disks;
mod ends;
mod frames;
mod lives;
#[path = "../support/own_dev.rs"]
mod own_dev;
mod probe;
mod support;
// The wire itself, compiled in: tests speak it byte by byte, and it is no part of the public face.
#[expect(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "tests use a part of it"
)]
#[path = "../../src/wire.rs"]
mod wire;

use std::fs::File;
use std::io::Write as _;
use std::panic::catch_unwind;
use std::process::ExitCode;

/// A test: its name, what it does.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("launcher") => return runtime::launcher_main(),
        Some("probe") => return probe::run(&arguments[1..]),
        _ => {}
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let all = [frames::TESTS, lives::TESTS, disks::TESTS, ends::TESTS].concat();
    if has("--list") {
        for (name, _) in all.iter().filter(|_| !has("--ignored")) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    // Flags are the standard harness's.
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let fits = |name: &str, wanted: &str| {
        if has("--exact") {
            name == wanted
        } else {
            name.contains(wanted)
        }
    };
    let is_chosen = |name: &str| filter.is_none_or(|wanted| fits(name, wanted));
    if let Err(reason) = support::isolate() {
        let why = format!("{reason}; run as root on a host with cgroups");
        all.iter()
            .filter(|(name, _)| is_chosen(name))
            .for_each(|(name, _)| skip(name, &why));
        return ExitCode::SUCCESS;
    }
    if arguments.first().is_some_and(|first| first == "bench") {
        bench::run(&arguments[1..]);
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<Test> = all
        .into_iter()
        .filter(|(name, _)| is_chosen(name))
        .collect();
    let failed: Vec<&str> = chosen
        .iter()
        .filter(|test| !passes(test))
        .map(|test| test.0)
        .collect();
    println!(
        "\n{} tests, {} failed {failed:?}",
        chosen.len(),
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Says aloud that a test does not run here; scripts/test.sh collects these and counts them.
fn skip(name: &str, why: &str) {
    eprintln!("SKIPPED {name}: {why}");
    if let Ok(path) = std::env::var("FAREBOX_TEST_SKIPS") {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        writeln!(file, "{name}: {why}").unwrap();
    }
}

/// Runs one test; the host's `/dev/null` must be what it was whatever the test did.
fn passes((name, test): &Test) -> bool {
    let before = support::host_null();
    let outcome = catch_unwind(test);
    let is_unharmed = support::host_null() == before;
    let word = if outcome.is_ok() && is_unharmed {
        "ok"
    } else {
        "FAILED"
    };
    println!("test {name} ... {word}");
    if !is_unharmed {
        println!("the host's /dev/null was changed: {before:?}");
    }
    outcome.is_ok() && is_unharmed
}
