//! Compiles what a template loads into an image's Python: see `src/template/native.rs`.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// What is compiled, and what it includes.
const SOURCES: [&str; 3] = [
    "src/template/native.rs",
    "src/template/foreign.rs",
    "src/template/request.rs",
];

fn main() -> ExitCode {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let variable = |name: &str| env::var_os(name).unwrap_or_default();
    let module = PathBuf::from(variable("OUT_DIR")).join("template.so");
    let mut compiler = Command::new(variable("RUSTC"));
    compiler.args([
        "--edition=2024",
        "--crate-name=template",
        "--crate-type=cdylib",
    ]);
    // It has no standard library, nothing of its own to start, and finds everything when it is
    // loaded.
    compiler.args(["-Copt-level=2", "-Cpanic=abort", "-Cstrip=symbols"]);
    compiler.args(["-Clink-arg=-nostartfiles", "-Clink-arg=-Wl,-z,now"]);
    if variable("TARGET") != variable("HOST") {
        compiler.arg("--target").arg(variable("TARGET"));
    }
    compiler.arg("-o").arg(module).arg(SOURCES[0]);
    match compiler.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        found => {
            println!("cargo::error=cannot compile {}: {found:?}", SOURCES[0]);
            ExitCode::FAILURE
        }
    }
}
