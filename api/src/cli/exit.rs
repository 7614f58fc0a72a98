//! The exit codes of the binary: part of its contract, listed in the README and in `--help`.

use std::process::ExitCode;

/// How a command ended. `run` answers the program's own code instead once the program has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Done = 0,
    /// Something broke; the message says what and what to do.
    Failed = 1,
    /// The command line or the configuration makes no sense.
    Usage = 2,
    /// The server or the ledger said no: quota, scope, conflict, not found; or an archive may not
    /// become an image.
    Refused = 3,
    /// No server answers, or it answers that it cannot now.
    Unavailable = 4,
    /// `ledger verify` found that the ledger does not hold together.
    Unproven = 5,
    /// This host cannot run sandboxes safely; `farebox doctor` says why.
    Host = 6,
    /// The journal could not be written: the server stopped itself rather than lose an entry.
    Journal = 7,
    /// `run`: the program used up its wall or CPU time.
    TimedOut = 124,
    /// `run`: Farebox itself failed; the program did not run to an end of its own.
    NotRun = 125,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
