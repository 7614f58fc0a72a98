//! The runtime with real sandboxes: what a program gets, what it costs, how it ends.
//!
//! A binary of its own (`harness = false`), because it is the launcher's binary as well: `spawn`
//! runs a sealed copy of it with the one argument `launcher`, and an import runs it with `unpack`
//! and an order. It moves into a mount namespace with a `/dev` of its own first. It needs root and
//! the `python` image, in the store that the environment variable `FAREBOX_TEST_IMAGES` names;
//! without them each test is skipped aloud. Arguments are those of the usual harness as far as a
//! test runner needs them: `--list`, `--exact`, names to filter by.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "test code"
)]

#[expect(dead_code, reason = "the launcher's tests use more of it")]
#[path = "../support/ahead.rs"]
mod ahead;
mod bed;
mod ends;
mod evidence;
mod forks;
mod images;
mod interpreter;
mod kept;
mod node;
#[path = "../support/own_dev.rs"]
mod own_dev;
mod run;
mod survives;
#[path = "../support/templates.rs"]
mod templates;
mod warm;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use bed::Bed;

/// A test: its name and what it does with a runtime of its own.
pub(crate) type Test = (&'static str, fn(&mut Bed));

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "launcher") {
        return runtime::launcher_main();
    }
    if let [command, order] = arguments.as_slice()
        && command == "unpack"
    {
        return runtime::unpack_main(order);
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let all = [
        run::TESTS,
        ends::TESTS,
        evidence::TESTS,
        survives::TESTS,
        images::TESTS,
        kept::TESTS,
        warm::TESTS,
        forks::TESTS,
        interpreter::TESTS,
        node::TESTS,
    ]
    .concat();
    if has("--list") {
        for (name, _) in all.iter().filter(|_| !has("--ignored")) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = arguments
        .iter()
        .filter(|one| !one.starts_with("--"))
        .collect();
    let is_wanted = |name: &str| {
        let exact = has("--exact");
        let fits = |want: &&String| {
            if exact {
                *want == name
            } else {
                name.contains(want.as_str())
            }
        };
        wanted.is_empty() || wanted.iter().any(fits)
    };
    run_all(all.iter().filter(|(name, _)| is_wanted(name)))
}

fn run_all<'a>(tests: impl Iterator<Item = &'a Test>) -> ExitCode {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let lacks = bed::lacks();
    if lacks.is_none() {
        own_dev::enter().unwrap();
    }
    for (name, test) in tests {
        if let Some(why) = &lacks {
            println!("test {name} ... skipped: {why}");
            note_skip(name, why);
            skipped += 1;
            continue;
        }
        let done = catch_unwind(AssertUnwindSafe(|| {
            let mut bed = Bed::new();
            test(&mut bed);
            bed.end();
        }));
        let word = if done.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word}");
        passed += u32::from(done.is_ok());
        failed += u32::from(done.is_err());
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; {skipped} ignored");
    ExitCode::from(u8::from(failed > 0))
}

/// Tells whoever runs the tests what has been skipped, if they have said where.
fn note_skip(name: &str, why: &str) {
    let Ok(path) = std::env::var("FAREBOX_TEST_SKIPS") else {
        return;
    };
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path);
    writeln!(file.unwrap(), "{name}: {why}").unwrap();
}
