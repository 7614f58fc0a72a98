//! The `farebox` binary: reads the command line and hands each command to its file in `cli`.
//!
//! Synchronous on purpose: `farebox launcher` must run in a process that has one thread, and
//! `serve` must start it before there is a second one.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
