//! Whether the kernel loads system call filters, asked by a process that nobody waits for.
//!
//! A kernel whose filters have come to a deadlock answers no question about them, and who asks
//! hangs for ever, out of reach of every signal. So a process of its own asks, that holds nothing
//! of ours but the end of a pipe, and that belongs to nobody when it hangs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, alarm, pipe2};

use crate::launcher::kernel;
use crate::seccomp;

/// How long a kernel may take that is only busy, in milliseconds.
pub(crate) const PATIENCE_MS: u16 = 10_000;
/// When a process that asks is ended, if it can be, in seconds.
const ASKER_SECONDS: u32 = 60;

/// Loads the sandboxes' own filter for a trial. To be called with one thread, since it forks.
///
/// # Errors
/// Says why not; also when there is no answer within `patience_ms`.
pub(crate) fn loads(patience_ms: u16) -> Result<String, String> {
    let filter = seccomp::compile().map_err(|error| error.to_string())?;
    let ask = || {
        prctl::set_no_new_privs()?;
        filter.load()
    };
    match answer(patience_ms, ask) {
        Ok(Some(0)) => Ok("filters can be loaded".to_owned()),
        Ok(Some(errno)) => Err(Errno::from_raw(errno).desc().to_owned()),
        Ok(None) => Err(format!(
            "the kernel does not answer within {patience_ms} ms"
        )),
        Err(error) => Err(format!("cannot ask: {error}")),
    }
}

/// The error number that `ask` comes to in another process, 0 for none; nothing without an answer.
fn answer(patience_ms: u16, ask: impl FnOnce() -> io::Result<()>) -> io::Result<Option<i32>> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    match kernel::fork()? {
        ForkResult::Child => {
            // Whoever adopts the one that asks will reap it.
            if let Ok(ForkResult::Child) = kernel::fork() {
                alarm::set(ASKER_SECONDS);
                let closed = kernel::close_all_from(0, &[write.as_raw_fd()]);
                let asked = closed.and_then(|()| ask());
                let errno =
                    asked.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0);
                // Nobody may be there to be told.
                drop(File::from(write).write_all(&errno.to_ne_bytes()));
            }
            kernel::exit_now(0)
        }
        ForkResult::Parent { child } => {
            drop(write);
            waitpid(child, None)?;
            let mut polled = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
            if poll(&mut polled, PollTimeout::from(patience_ms))? == 0 {
                return Ok(None);
            }
            let mut errno = [0; 4];
            File::from(read).read_exact(&mut errno)?;
            Ok(Some(i32::from_ne_bytes(errno)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Monotonic;

    #[test]
    fn answer_is_what_the_call_came_to() {
        assert_eq!(answer(PATIENCE_MS, || Ok(())).unwrap(), Some(0));
        let refused = || Err(Errno::ENOSYS.into());
        assert_eq!(answer(PATIENCE_MS, refused).unwrap(), Some(libc::ENOSYS));
    }

    /// The one that hangs is ended by its alarm at the latest.
    #[test]
    fn call_that_hangs_holds_nobody_up() {
        let clock = Monotonic::start();
        let hang = || {
            alarm::set(2);
            nix::unistd::pause();
            Ok(())
        };
        assert_eq!(answer(50, hang).unwrap(), None);
        assert!(clock.now_us() < 1_900_000, "{}", clock.now_us());
    }

    /// It was another process that is under the filter now.
    #[test]
    fn trial_leaves_the_caller_as_it_was() {
        let status = || std::fs::read_to_string("/proc/self/status").unwrap();
        let mode = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("Seccomp:"));
            line.map(str::to_owned)
        };
        let before = mode(&status());
        assert_eq!(loads(PATIENCE_MS), Ok("filters can be loaded".to_owned()));
        assert_eq!(mode(&status()), before);
    }
}
