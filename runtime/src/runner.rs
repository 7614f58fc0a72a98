//! An interpreter that waits in a sandbox made ahead: how it is started, and what it is told.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sandbox::pump::Pipes;
use crate::spec::{File, Process};
use crate::template::{DIRECTORY, FILTER_NAME, NATIVE_NAME};
use crate::wire::Start;

/// Written to its standard output when it could run a program, and again when it can after
/// [`PREPARE`].
const READY: u8 = 6;

/// Has it do what a run would have to do otherwise: a fork goes through a run that does nothing,
/// another loads what most programs import, one module after the other.
const PREPARE: u8 = 3;

/// Has it stop that.
const HURRY: u8 = 1;

/// Begins the order.
const ORDER: u8 = 2;

/// What waits, but for the line that begins it: it is no part of an image, and nothing in it is
/// secret.
const PYTHON: &str = include_str!("runner/python.py");

/// What waits as a file of its own, which it removes itself: a worker thread would be given the
/// text of `node -e` to run, too.
const NODE: &str = include_str!("runner/node.cjs");

/// That file's name.
const NODE_FILE: &str = ".farebox-waits.cjs";

/// Where programs are, and start.
const CWD: &str = "/workspace";

/// An interpreter to have waiting, and the environment to start it in: the image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interpreter {
    /// `python3`, for commands of the form `python3 FILE ARGUMENT...`.
    Python {
        /// The whole environment.
        env: Vec<(String, String)>,
        /// Whether it may be a fork of the image's template rather than started: it shares that
        /// one's hash secret and layout of memory with other forks then.
        fork: bool,
    },
    /// `node`, for commands of the form `node FILE ARGUMENT...`.
    Node {
        /// The whole environment.
        env: Vec<(String, String)>,
    },
}

impl Interpreter {
    /// Its start.
    pub(crate) fn start(&self, open_files: u32) -> Start {
        match self {
            Interpreter::Python { env, .. } => python("main()", env, open_files),
            Interpreter::Node { env } => Start {
                argv: vec!["node".to_owned(), NODE_FILE.to_owned()],
                env: env.clone(),
                cwd: CWD.to_owned(),
                open_files,
            },
        }
    }

    /// The file that must be in the workspace when it starts.
    pub(crate) fn file(&self) -> Option<File> {
        match self {
            Interpreter::Python { .. } => None,
            Interpreter::Node { .. } => Some(File {
                path: NODE_FILE.to_owned(),
                content: NODE.as_bytes().to_vec(),
                mode: 0o600,
            }),
        }
    }
}

/// The start of a template, whose forks are interpreters that wait.
pub(crate) fn template(env: &[(String, String)], open_files: u32) -> Start {
    let [native, filter] = [NATIVE_NAME, FILTER_NAME].map(|name| format!("/{DIRECTORY}/{name}"));
    let begin = format!("main(template({native:?}, {filter:?}))");
    python(&begin, env, open_files)
}

fn python(begin: &str, env: &[(String, String)], open_files: u32) -> Start {
    let text = format!("{PYTHON}\n{begin}\n");
    Start {
        argv: vec!["python3".to_owned(), "-c".to_owned(), text],
        env: env.to_vec(),
        cwd: CWD.to_owned(),
        open_files,
    }
}

/// An interpreter that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pipes: Pipes,
    /// The limit that it was started with.
    open_files: u32,
    /// It has been told to prepare.
    prepares: AtomicBool,
    /// It was forked from a template, which has loaded everything already.
    pub(crate) is_fork: bool,
}

impl Waiting {
    /// Waits until one that has been started could run a program; none if it ends first.
    pub(crate) async fn ready(pipes: Pipes, open_files: u32) -> Option<Waiting> {
        let said = pipes.first_byte().await;
        (said == Some(READY)).then_some(Waiting {
            pipes,
            open_files,
            prepares: AtomicBool::new(false),
            is_fork: false,
        })
    }

    /// Waits until a fork of a template could run a program; answers its id inside its sandbox,
    /// too.
    ///
    /// # Errors
    /// There is no fork; what was said of it, from inside the sandbox.
    pub(crate) async fn forked(pipes: Pipes, open_files: u32) -> Result<(Waiting, u32), String> {
        let mut said = [0; 5];
        for byte in &mut said {
            let next = pipes.first_byte().await;
            *byte = next.ok_or_else(|| pipes.complaint())?;
        }
        let [READY, pid @ ..] = said else {
            return Err("it speaks out of turn".to_owned());
        };
        let waiting = Waiting {
            pipes,
            open_files,
            prepares: AtomicBool::new(false),
            is_fork: true,
        };
        Ok((waiting, u32::from_le_bytes(pid)))
    }

    /// Has it make its run shorter, as nobody has wanted it so far. To be called once.
    pub(crate) fn prepare(&self) {
        // One that has ended is found out when it is wanted.
        self.prepares
            .store(self.pipes.say(PREPARE).is_ok(), Ordering::Relaxed);
    }

    /// Has it do nothing any more but wait; false if it has ended. To be called once.
    pub(crate) async fn hurry(&self) -> bool {
        if !self.prepares.load(Ordering::Relaxed) {
            return true;
        }
        let said = match self.pipes.byte_there() {
            None if self.pipes.say(HURRY).is_ok() => self.pipes.first_byte().await,
            said => said,
        };
        said == Some(READY)
    }

    /// Its pipes, and what goes to its standard input: the program that it is to run, with so many
    /// open files, then that one's own input.
    ///
    /// # Errors
    /// The order is longer than 4 GiB, or has a NUL in it.
    pub(crate) fn order(self, process: &Process, open_files: u32) -> io::Result<(Pipes, Vec<u8>)> {
        let other = (open_files != self.open_files).then_some(open_files);
        Ok((self.pipes, order(process, other)?))
    }
}

/// What goes to its standard input; `open_files` is the limit if it is another one.
fn order(process: &Process, open_files: Option<u32>) -> io::Result<Vec<u8>> {
    // Without the interpreter's own name.
    let argv = process.argv.get(1..).unwrap_or_default();
    let open_files = open_files.map(|most| most.to_string()).unwrap_or_default();
    let count = argv.len().to_string();
    let texts = [open_files.as_str(), process.cwd.as_str(), count.as_str()].into_iter();
    let texts = texts.chain(argv.iter().map(String::as_str));
    let env = process.env.iter();
    let texts: Vec<&str> = texts
        .chain(env.flat_map(|(name, value)| [name.as_str(), value.as_str()]))
        .collect();
    if texts.iter().any(|text| text.contains('\0')) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let order = texts.join("\0");
    let length = u32::try_from(order.len()).map_err(io::Error::other)?;
    let mut input = Vec::with_capacity(5 + order.len() + process.stdin.len());
    input.push(ORDER);
    input.extend_from_slice(&length.to_le_bytes());
    input.extend_from_slice(order.as_bytes());
    input.extend_from_slice(&process.stdin);
    Ok(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_tells_everything_but_the_limit_that_stays() {
        let text = |text: &str| text.to_owned();
        let process = Process {
            argv: ["python3", "main.py", ""].map(text).to_vec(),
            env: vec![(text("ONE"), text("1"))],
            cwd: text("/workspace"),
            stdin: b"input".to_vec(),
            execution: [0; 16],
            wall_ms: 1,
            cpu_ms: 1,
            output_bytes: 1,
            kill_on_output_limit: false,
            reduced: false,
            keep_s: 0,
        };
        let body = b"77\0/workspace\x002\0main.py\0\0ONE\x001";
        let expected = [&[ORDER, 30, 0, 0, 0], &body[..], b"input"].concat();
        assert_eq!(order(&process, Some(77)).unwrap(), expected);
        let unsaid = [&[ORDER, 28, 0, 0, 0], &body[2..], b"input"].concat();
        assert_eq!(order(&process, None).unwrap(), unsaid);
        let torn = Process {
            argv: ["python3", "a\0b"].map(text).to_vec(),
            ..process
        };
        assert!(order(&torn, None).is_err());
    }
}
