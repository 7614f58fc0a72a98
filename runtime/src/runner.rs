//! An interpreter that waits in a sandbox made ahead: how it is started, and what it is told.

use serde::Serialize;

use crate::spec::Process;
use crate::wire::Start;

/// Written to its standard output when it is ready.
pub(crate) const READY: u8 = 6;

/// What waits: it is no part of an image, and nothing in it is secret.
const PYTHON: &str = include_str!("runner.py");

/// Where programs are, and start.
const CWD: &str = "/workspace";

/// An interpreter to have waiting, and the environment to start it in: the image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interpreter {
    /// `python3`, for commands of the form `python3 FILE ARGUMENT...`.
    Python {
        /// The whole environment.
        env: Vec<(String, String)>,
    },
}

impl Interpreter {
    /// Its start.
    pub(crate) fn start(&self, open_files: u32) -> Start {
        let Interpreter::Python { env } = self;
        Start {
            argv: ["python3", "-c", PYTHON].map(str::to_owned).to_vec(),
            env: env.clone(),
            cwd: CWD.to_owned(),
            open_files,
        }
    }
}

/// The program that it is to run, in the form that it takes.
#[derive(Serialize)]
struct Order<'a> {
    argv: &'a [String],
    env: std::collections::BTreeMap<&'a str, &'a str>,
    cwd: &'a str,
    open_files: u32,
}

/// What goes to its standard input: the order, then the program's own input.
///
/// # Errors
/// The order is longer than 4 GiB.
pub(crate) fn input(process: &Process, open_files: u32) -> std::io::Result<Vec<u8>> {
    let env = process.env.iter();
    let order = Order {
        // Without the interpreter's own name.
        argv: process.argv.get(1..).unwrap_or_default(),
        env: env
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect(),
        cwd: &process.cwd,
        open_files,
    };
    let order = serde_json::to_vec(&order)?;
    let length = u32::try_from(order.len()).map_err(std::io::Error::other)?;
    let mut input = Vec::with_capacity(4 + order.len() + process.stdin.len());
    input.extend_from_slice(&length.to_le_bytes());
    input.extend_from_slice(&order);
    input.extend_from_slice(&process.stdin);
    Ok(input)
}
