//! Feeds an archive to an unpacking process, and listens to whoever interrupts the command.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sha2::{Digest as _, Sha256};

use crate::image::Error;
use crate::image::flaw::Flaw;
use crate::image::unpack::{Order, REPORT_MAX, Report, Tally};
use crate::spec::Digest;

/// Signals that end a command; what it made is removed first.
const INTERRUPTS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
/// Bytes that are read and handed on at a time.
const PIECE: usize = 1 << 16;

/// Who interrupts this thread is heard, and not obeyed at once, for as long as this value lives.
pub(super) struct Interrupts {
    signals: SignalFd,
    before: SigSet,
}

impl Interrupts {
    pub(super) fn listen() -> Result<Interrupts, Error> {
        let failed = |errno: Errno| Error::io("listen to", "signals")(errno.into());
        let wanted: SigSet = INTERRUPTS.into_iter().collect();
        let mut before = SigSet::empty();
        let how = SigmaskHow::SIG_BLOCK;
        pthread_sigmask(how, Some(&wanted), Some(&mut before)).map_err(failed)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&wanted, flags);
        Ok(Interrupts {
            signals: signals.map_err(failed)?,
            before,
        })
    }

    /// An error once somebody has interrupted.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        match self.signals.read_signal() {
            Ok(Some(_)) => Err(Error::Interrupted),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Waits until `other` is ready, or somebody interrupts.
    fn wait(&mut self, other: BorrowedFd<'_>, event: PollFlags) -> Result<(), Error> {
        loop {
            let mut polled = [
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(other, event),
            ];
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::io("wait for", "the archive")(errno.into())),
            }
            let is_ready = polled[1].revents().is_some_and(|found| !found.is_empty());
            self.check()?;
            if is_ready {
                return Ok(());
            }
        }
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        // A signal that came late is obeyed now.
        let how = SigmaskHow::SIG_SETMASK;
        pthread_sigmask(how, Some(&self.before), None).unwrap_or_default();
    }
}

/// What was fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fed {
    pub(super) bytes: u64,
    pub(super) digest: Digest,
    pub(super) tally: Tally,
}

/// Unpacks `input`, called `name`, into the directory `into`; `on_bytes` is told how far it is.
pub(super) fn unpack(
    (input, name): (&File, &Path),
    into: &Path,
    order: &Order,
    interrupts: &mut Interrupts,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Fed, Error> {
    let mut unpacker = Unpacker::start(into, order)?;
    let (bytes, digest) = unpacker.feed((input, name), interrupts, on_bytes)?;
    let report = unpacker.listen(interrupts)?;
    let tally = tally(&report, unpacker.end())?;
    Ok(Fed {
        bytes,
        digest,
        tally,
    })
}

/// The process that unpacks, and the two pipes to it. When this value is gone, so is the process:
/// nothing may be left that still writes into the tree.
struct Unpacker {
    child: Child,
    archive: Option<File>,
    report: Option<File>,
}

impl Unpacker {
    fn start(into: &Path, order: &Order) -> Result<Unpacker, Error> {
        let order = serde_json::to_string(order).map_err(io::Error::from);
        let order = order.map_err(Error::io("write", "an order"))?;
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["unpack", &order])
            .env_clear()
            .current_dir(into)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let spawned = command.spawn();
        let mut child = spawned.map_err(Error::io("start", "the process that unpacks"))?;
        let archive = child
            .stdin
            .take()
            .map(|pipe| File::from(OwnedFd::from(pipe)));
        let report = child
            .stdout
            .take()
            .map(|pipe| File::from(OwnedFd::from(pipe)));
        Ok(Unpacker {
            child,
            archive,
            report,
        })
    }

    /// Hands the whole of `input` over, unless the process has heard enough; answers how long it
    /// was, and its hash.
    fn feed(
        &mut self,
        (input, name): (&File, &Path),
        interrupts: &mut Interrupts,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(u64, Digest), Error> {
        let mut pipe = self.archive.take();
        if let Some(pipe) = &pipe {
            let flags = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
            let set = fcntl(pipe.as_raw_fd(), flags).map_err(io::Error::from);
            set.map_err(Error::io("open", "the pipe to the process that unpacks"))?;
        }
        let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
        let mut buffer = vec![0; PIECE];
        while let Some(open) = &mut pipe {
            interrupts.wait(input.as_fd(), PollFlags::POLLIN)?;
            let mut from = input;
            let got = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if is_transient(&error) => continue,
                Err(error) => return Err(Error::io("read", name)(error)),
            };
            hash.update(&buffer[..got]);
            bytes += u64::try_from(got).unwrap_or(u64::MAX);
            if !hand_over(open, &buffer[..got], interrupts)? {
                pipe = None;
            }
            on_bytes(bytes);
        }
        Ok((bytes, Digest(hash.finalize().into())))
    }

    /// The process's report, once it has ended.
    fn listen(&mut self, interrupts: &mut Interrupts) -> Result<Vec<u8>, Error> {
        let mut told = Vec::new();
        let mut buffer = [0; REPORT_MAX];
        while let Some(report) = &mut self.report {
            interrupts.wait(report.as_fd(), PollFlags::POLLIN)?;
            match report.read(&mut buffer) {
                Ok(0) => break,
                // More than that is no report of ours.
                Ok(got) if told.len() + got > REPORT_MAX => break,
                Ok(got) => told.extend_from_slice(&buffer[..got]),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(Error::io("read", "the unpacking report")(error)),
            }
        }
        Ok(told)
    }

    /// Waits for the process.
    fn end(&mut self) -> Option<ExitStatus> {
        self.child.wait().ok()
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        // The archive's end may be what it waits for; then it is killed, and its child with it.
        self.archive = None;
        drop(self.child.kill());
        if let Some(mut report) = self.report.take() {
            // The pipe ends when both processes have.
            drop(io::copy(&mut report, &mut io::sink()));
        }
        drop(self.child.wait());
    }
}

/// Writes all of `piece`; false if the other side reads no more.
fn hand_over(
    pipe: &mut File,
    mut piece: &[u8],
    interrupts: &mut Interrupts,
) -> Result<bool, Error> {
    while !piece.is_empty() {
        interrupts.wait(pipe.as_fd(), PollFlags::POLLOUT)?;
        match pipe.write(piece) {
            Ok(written) => piece = piece.get(written..).unwrap_or_default(),
            Err(error) if is_transient(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            Err(error) => {
                return Err(Error::io("write to", "the process that unpacks")(error));
            }
        }
    }
    Ok(true)
}

fn is_transient(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::Interrupted || kind == io::ErrorKind::WouldBlock
}

/// What the process says, which is believed no further than that it is printed.
fn tally(report: &[u8], status: Option<ExitStatus>) -> Result<Tally, Error> {
    let failed = |reason: String| {
        let cure = match reason.contains("os error 28") {
            true => "make room where images.dir is; nothing was kept",
            false => "see `farebox doctor`; nothing was kept",
        };
        Err(Error::Unpack { reason, cure })
    };
    let ended = || status.map_or_else(|| "it is gone".to_owned(), |status| status.to_string());
    match serde_json::from_slice(report) {
        Ok(Report::Done(tally)) if status.is_some_and(|status| status.success()) => Ok(tally),
        Ok(Report::Refused(refused)) => Err(Error::Unsafe {
            entry: printable(&refused.entry),
            flaw: tame(refused.flaw),
        }),
        Ok(Report::Failed { step, path, reason }) => failed(format!(
            "cannot {} {}: {}",
            printable(&step),
            printable(&path),
            printable(&reason)
        )),
        Ok(Report::Done(_)) | Err(_) => failed(format!(
            "the process that unpacks ended without a report ({})",
            ended()
        )),
    }
}

fn tame(flaw: Flaw) -> Flaw {
    match flaw {
        Flaw::Attribute { name } => Flaw::Attribute {
            name: printable(&name),
        },
        Flaw::Compressed { with } => Flaw::Compressed {
            with: printable(&with),
        },
        Flaw::Malformed { reason } => Flaw::Malformed {
            reason: printable(&reason),
        },
        other => other,
    }
}

fn printable(text: &str) -> String {
    let plain = |c: char| c == ' ' || c.is_ascii_graphic();
    text.chars()
        .map(|c| if plain(c) { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_report_is_believed_only_with_its_exit_code_and_printed_only_when_printable() {
        let done = serde_json::to_vec(&Report::Done(Tally::default())).unwrap();
        let status = |raw| Some(ExitStatus::from_raw(raw));
        assert!(tally(&done, status(0)).is_ok());
        for status in [status(0x100), status(9), None] {
            let error = tally(&done, status).unwrap_err();
            assert!(matches!(error, Error::Unpack { .. }), "{error:?}");
        }
        for bad in [&b""[..], b"{", b"null", b"{\"Done\":{}}"] {
            assert!(tally(bad, status(0)).is_err());
        }
        let report =
            br#"{"Refused":{"entry":"a\u001b[2J\n","flaw":{"Malformed":{"reason":"\u0007"}}}}"#;
        let text = tally(report, status(0)).unwrap_err().to_string();
        assert!(text.starts_with("a?[2J? "), "{text}");
        assert!(!text.contains(char::is_control), "{text}");
    }
}
