//! Real sandboxes: what holds around untrusted code, what is left of it, and that ordinary programs
//! do not notice.
//!
//! A binary of its own (`harness = false`), because it is the launcher's binary as well: the
//! runtime starts its launcher from a sealed copy of the running binary, with the one argument
//! `launcher`.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "test code, with an environment of its own"
)]

#[path = "../../runtime/tests/support/ahead.rs"]
mod ahead;
#[path = "../support/bed.rs"]
mod bed;
mod harness;
mod hostile;
mod ordinary;
#[path = "../../runtime/tests/support/templates.rs"]
mod templates;
#[expect(dead_code, reason = "the kill rounds use more of it")]
#[path = "../support/world.rs"]
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "launcher") {
        return runtime::launcher_main();
    }
    let mut tests = hostile::tests();
    tests.extend(ordinary::tests());
    harness::run(&tests, &arguments)
}
