//! The part of the test harness's command line that cargo and nextest use: list, and run by name.
//!
//! Every test runs in a process of its own, because it enters a mount namespace and starts a
//! launcher before it has a second thread.

use std::io::Write as _;
use std::process::{Command, ExitCode};

use crate::world::say;

/// One test: its name, and what it does; a panic is a failure.
pub(crate) struct Test {
    pub(crate) name: String,
    pub(crate) run: Box<dyn Fn()>,
}

/// Does what `arguments` ask: `--list`, or the tests whose names contain one of the words given.
pub(crate) fn run(tests: &[Test], arguments: &[String]) -> ExitCode {
    let asks = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let mut words = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            // Options with a value of their own.
            "--format" | "--test-threads" | "--skip" | "--color" => drop(rest.next()),
            flag if flag.starts_with('-') => {}
            word => words.push(word),
        }
    }
    let wanted = |test: &&Test| {
        words.is_empty()
            || words.iter().any(|word| match asks("--exact") {
                true => test.name == *word,
                false => test.name.contains(word),
            })
    };
    let chosen: Vec<&Test> = tests.iter().filter(wanted).collect();
    if asks("--list") {
        // None is ever ignored.
        let shown = chosen.iter().filter(|_| !asks("--ignored"));
        let lines: String = shown.map(|test| format!("{}: test\n", test.name)).collect();
        std::io::stdout().write_all(lines.as_bytes()).unwrap();
        return ExitCode::SUCCESS;
    }
    match chosen.as_slice() {
        [one] if asks("--exact") => {
            (one.run)();
            ExitCode::SUCCESS
        }
        all => run_apart(all),
    }
}

/// Runs each in a process of its own, one after the other.
fn run_apart(tests: &[&Test]) -> ExitCode {
    let mut failed = 0;
    for test in tests {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let ended = command.arg(&test.name).arg("--exact").status().unwrap();
        let word = if ended.success() { "ok" } else { "FAILED" };
        say(&format!("test {} ... {word}", test.name));
        failed += u32::from(!ended.success());
    }
    say(&format!("{} tests, {failed} failed", tests.len()));
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
