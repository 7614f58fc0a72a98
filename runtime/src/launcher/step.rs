//! One step of the privileged side that failed, and the line that tells of it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longest log line in bytes: below `PIPE_BUF`, so that a line is never torn.
const LINE_MAX: usize = 1024;

/// A step that failed: what was being done, and what the kernel said.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: {source}")]
pub(crate) struct Failed {
    /// Continues the words "cannot".
    pub(crate) step: String,
    /// What came back.
    pub(crate) source: io::Error,
}

impl Failed {
    /// A step that fails for a reason of ours.
    pub(crate) fn because(step: impl Into<String>, reason: impl Into<String>) -> Failed {
        Failed {
            step: step.into(),
            source: io::Error::other(reason.into()),
        }
    }
}

/// Names the step that a result belongs to.
pub(crate) trait During<T> {
    /// Turns an error into [`Failed`]; `step` continues the words "cannot".
    fn during(self, step: &str) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, step: &str) -> Result<T, Failed> {
        self.map_err(|source| Failed {
            step: step.to_owned(),
            source: source.into(),
        })
    }
}

/// Writes one line to standard error, with everything but plain ASCII escaped.
///
/// A line that the reader has no room for is dropped: a stopped server must not stop the deadlines.
pub(crate) fn log(who: &str, line: &str) {
    let mut text = format!("farebox {who}: ");
    for character in line.chars() {
        if character == ' ' || character.is_ascii_graphic() {
            text.push(character);
        } else {
            let escaped = write!(text, "{}", character.escape_default());
            debug_assert!(escaped.is_ok(), "writing to a string");
        }
    }
    text.truncate(LINE_MAX);
    text.push('\n');
    let stderr = io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut ready, PollTimeout::ZERO) == Ok(1)
        && ready[0]
            .revents()
            .is_some_and(|found| found.contains(PollFlags::POLLOUT))
    {
        // The reader may be gone; there is nobody left to tell.
        drop(stderr.lock().write_all(text.as_bytes()));
    }
}
