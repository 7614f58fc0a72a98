//! Init: process 1 of a sandbox; lays files, starts the main process, reaps everything, tells the
//! server.
//!
//! ```text
//! forked by the container library, filter loaded -> run: shed -> Hello -> loop
//! loop: File, Chunk... -> Done | Refused      Start + 3 descriptors -> Started | Refused
//!       a child ends -> reaped; the main one -> Exited
//! ```
//!
//! It is our own binary, forked and never exec'd, with one thread, no capability and the tenant's
//! uid. So its first act is to let go of every descriptor that it has inherited, one of which is
//! the host's procfs: this is a security boundary. It stays undumpable, which keeps the tenant's
//! processes out of its memory and its `/proc` entries; the filter keeps them from its limits and
//! priority; the kernel keeps their signals away from it, as it is process 1 and handles none.
//!
//! It trusts the server, which is the only one at the other end of its socket, but waits for
//! nobody: it never reads from a process of the tenant's and never blocks on anything but its own
//! poll, and on a child until that has executed its program. It does not end when the server does:
//! the shim alone decides that.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use crate::wire::{self, FromInit, INIT_FRAME_MAX, Start, ToInit, WireError};

mod files;
mod kernel;
mod spawn;

use self::files::Upload;

/// Most answers that wait for a server that does not read; it has at most a few outstanding.
const ANSWERS_MAX: usize = 64;

/// What init needs to know that is not in its frames.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where files are laid and relative paths begin.
    pub(crate) workspace: PathBuf,
}

impl Default for Config {
    /// The workspace that every image has.
    fn default() -> Config {
        Config {
            workspace: PathBuf::from("/workspace"),
        }
    }
}

/// Is init, until there is nothing left that it could do; answers the exit code.
///
/// Every other descriptor of the process is closed. The caller must end the process with the code
/// at once, and run no destructor.
pub(crate) fn run(socket: OwnedFd, config: Config) -> i32 {
    let Ok((socket, signals)) = kernel::shed(socket) else {
        return 1;
    };
    let mut init = Init {
        socket: Some(socket),
        signals,
        config,
        upload: None,
        main: None,
        answers: VecDeque::new(),
    };
    init.answer(FromInit::Hello);
    loop {
        if init.turn().is_err() {
            return 1;
        }
    }
}

/// Becomes a program in this very process, with nothing open but `stdio`: how [`run`]'s child does.
/// Answers its exit code if it cannot, `None` if there is no command or a text has a NUL in it.
pub(crate) fn become_program(start: &Start, stdio: [OwnedFd; 3]) -> Option<i32> {
    spawn::become_program(start, stdio)
}

#[derive(Debug)]
struct Init {
    /// `None` once the server has gone.
    socket: Option<OwnedFd>,
    signals: SignalFd,
    config: Config,
    /// The file that chunks are for.
    upload: Option<Upload>,
    /// The main process, while it runs.
    main: Option<libc::pid_t>,
    /// What could not be sent yet.
    answers: VecDeque<FromInit>,
}

impl Init {
    /// Waits for something to happen and deals with it.
    fn turn(&mut self) -> io::Result<()> {
        let (can_read, child) = self.wait()?;
        if child {
            // One signal may stand for many children; reap says when there are no more.
            while let Ok(Some(_)) = self.signals.read_signal() {}
            self.reap();
        }
        if can_read {
            self.receive();
        }
        self.flush();
        Ok(())
    }

    /// Whether the socket can be read, and whether a child has ended.
    fn wait(&self) -> io::Result<(bool, bool)> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(socket) = &self.socket {
            let mut want = PollFlags::POLLIN;
            want.set(PollFlags::POLLOUT, !self.answers.is_empty());
            fds.push(PollFd::new(socket.as_fd(), want));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = |index: usize| {
            let fd = fds.get(index);
            let events = fd.and_then(|fd| fd.revents()).unwrap_or(PollFlags::empty());
            events.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR)
        };
        Ok((ready(1), ready(0)))
    }

    /// Reaps every child that has ended, orphans too.
    fn reap(&mut self) {
        let mut ended = None;
        while let Some((pid, status)) = kernel::reap() {
            if self.main == Some(pid) {
                self.main = None;
                ended = Some(status);
            }
        }
        if let Some(status) = ended {
            let others_left = kernel::others();
            self.answer(FromInit::Exited {
                status,
                others_left,
            });
        }
    }

    /// Takes one frame from the server.
    fn receive(&mut self) {
        let Some(socket) = &self.socket else { return };
        match wire::recv::<ToInit>(socket.as_fd(), INIT_FRAME_MAX) {
            Ok(Some((ToInit::File { path, mode, size }, _))) => {
                self.upload = Some(Upload::begin(&self.config.workspace, path, mode, size));
                self.end_upload();
            }
            Ok(Some((ToInit::Chunk(bytes), _))) => {
                if let Some(upload) = &mut self.upload {
                    upload.add(&bytes);
                    self.end_upload();
                }
            }
            Ok(Some((ToInit::Start(start), descriptors))) => self.start(&start, descriptors),
            Ok(Some((ToInit::Adopt(pid), _))) => self.adopt(pid),
            Err(WireError::Socket { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
            }
            // The server is gone, or is not one that we understand: without it there is only
            // reaping.
            Ok(None) | Err(_) => {
                self.socket = None;
                self.upload = None;
                self.answers.clear();
            }
        }
    }

    /// Answers for the current file if it is whole.
    fn end_upload(&mut self) {
        let Some(upload) = self.upload.take_if(|upload| upload.is_whole()) else {
            return;
        };
        self.answer(match upload.end() {
            Ok(()) => FromInit::Done,
            Err((errno, path)) => FromInit::Refused {
                errno,
                path: wire::clip(&path),
            },
        });
    }

    fn start(&mut self, start: &Start, descriptors: Vec<OwnedFd>) {
        let name = start.argv.first().map_or("", String::as_str);
        let started = match (self.main, wire::exactly::<3>(descriptors)) {
            (Some(_), _) => Err(libc::EBUSY),
            (None, Err(_)) => Err(libc::EBADF),
            (None, Ok(stdio)) => spawn::spawn(start, stdio),
        };
        self.has_started(started, name);
    }

    /// Takes a child that was forked from outside for the main process.
    fn adopt(&mut self, pid: u32) {
        let pid = libc::pid_t::try_from(pid).unwrap_or(0);
        let started = match self.main {
            Some(_) => Err(libc::EBUSY),
            None if kernel::is_child(pid) => Ok(pid),
            None => Err(libc::ECHILD),
        };
        self.has_started(started, "");
    }

    fn has_started(&mut self, started: Result<libc::pid_t, i32>, name: &str) {
        match started {
            Ok(pid) => {
                self.main = Some(pid);
                self.answer(FromInit::Started);
            }
            Err(errno) => self.answer(FromInit::Refused {
                errno,
                path: wire::clip(name),
            }),
        }
    }

    /// Puts an answer in the queue; a server that reads none of many is left without.
    fn answer(&mut self, answer: FromInit) {
        if self.socket.is_some() && self.answers.len() < ANSWERS_MAX {
            self.answers.push_back(answer);
        }
        self.flush();
    }

    /// Sends what can be sent without waiting.
    fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        while let Some(answer) = self.answers.front() {
            match wire::send(socket.as_fd(), answer, INIT_FRAME_MAX, &[]) {
                Err(WireError::Socket { source, .. })
                    if source.kind() == io::ErrorKind::WouldBlock =>
                {
                    return;
                }
                Ok(()) | Err(_) => drop(self.answers.pop_front()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
