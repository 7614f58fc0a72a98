//! Disks made ahead: empty, mounted nowhere and nobody's, made by a process of their own.
//!
//! ```text
//! launcher --a class--> disk maker: files copied and written, then one by one: loop device, mount
//!          <--mount---  for a sandbox that is being made; the shim attaches it
//! ```
//!
//! To make a disk is to wait for the host's file system: since Linux 6.15 the kernel makes a file
//! durable before it ties it to a loop device, which takes some milliseconds on a host at rest, and
//! hundreds while somebody's sandboxes write as much as they can. A sandbox that finds a disk ready
//! waits for none of it. Several are made for one wait.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, getppid};
use serde::{Deserialize, Serialize};

use super::kernel;
use super::step::{During, Failed, log};
use crate::disk::{DiskFile, Template};
use crate::wire::{self, FRAME_MAX, WireError};

/// The disks that stand ready.
#[derive(Debug)]
pub(super) struct Disks {
    most: usize,
    /// The oldest first, each with its class.
    ready: VecDeque<(u8, OwnedFd)>,
    /// How many have been asked of the maker that have not come.
    asked: usize,
    maker: Option<Maker>,
}

/// The process that makes them.
#[derive(Debug)]
struct Maker {
    pid: Pid,
    socket: OwnedFd,
}

/// From launcher to maker: make one of this class.
#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    class: u8,
}

/// From maker to launcher, in the order of the questions.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// With one descriptor: a detached mount.
    Made { class: u8 },
    /// The log has why.
    Failed,
}

impl Disks {
    /// None is ready; `most` will be at most.
    pub(super) fn new(most: usize) -> Disks {
        Disks {
            most,
            ready: VecDeque::new(),
            asked: 0,
            maker: None,
        }
    }

    /// Takes one of a class.
    pub(super) fn take(&mut self, class: u8) -> Option<OwnedFd> {
        let at = self.ready.iter().position(|(of, _)| *of == class)?;
        self.ready.remove(at).map(|(_, disk)| disk)
    }

    /// Has more made, of the class that was asked for, when no more than half stand ready, so that
    /// several are made at a time, or none of this class. `made_of` are the templates of the
    /// classes, and where files go.
    pub(super) fn refill(&mut self, class: u8, made_of: (&[Template], BorrowedFd<'_>)) {
        let is_half_gone = self.ready.len() + self.asked <= self.most / 2;
        let lacks_class = self.asked == 0 && self.ready.iter().all(|(of, _)| *of != class);
        if !is_half_gone && !lacks_class {
            return;
        }
        if self.ready.len() >= self.most {
            // Of a class that is less wanted.
            drop(self.ready.pop_front());
        }
        for _ in self.ready.len() + self.asked..self.most {
            let asked = self.maker(made_of).and_then(|maker| ask(maker, class));
            if let Err(failed) = asked {
                log("launcher", &failed.to_string());
                return self.end_maker();
            }
            self.asked += 1;
        }
    }

    /// What to wait for, if something is to come.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.maker.as_ref().map(|maker| maker.socket.as_fd())
    }

    /// Takes what has come.
    pub(super) fn receive(&mut self) {
        while let Some(maker) = &self.maker {
            match wire::recv::<Answer>(maker.socket.as_fd(), FRAME_MAX) {
                Ok(Some((answer, descriptors))) => {
                    self.asked = self.asked.saturating_sub(1);
                    if let (Answer::Made { class }, Ok([disk])) =
                        (answer, wire::exactly(descriptors))
                    {
                        self.ready.push_back((class, disk));
                    }
                }
                Err(WireError::Socket { source, .. })
                    if source.kind() == io::ErrorKind::WouldBlock =>
                {
                    return;
                }
                Ok(None) | Err(_) => {
                    log(
                        "launcher",
                        "the disk maker ended; the next disk starts another",
                    );
                    self.end_maker();
                }
            }
        }
    }

    /// Takes note of a child that was reaped.
    pub(super) fn reaped(&mut self, pid: Pid) {
        if self.maker.as_ref().is_some_and(|maker| maker.pid == pid) {
            (self.maker, self.asked) = (None, 0);
        }
    }

    /// Ends the maker and what stands ready.
    pub(super) fn end(&mut self) {
        self.ready.clear();
        self.end_maker();
    }

    fn end_maker(&mut self) {
        self.asked = 0;
        if let Some(maker) = self.maker.take() {
            // It may have ended by itself; until it is reaped, here at the latest, it has its pid.
            if let Err(errno) = kill(maker.pid, Signal::SIGKILL) {
                log("launcher", &format!("cannot kill the disk maker: {errno}"));
            }
            while waitpid(maker.pid, None) == Err(Errno::EINTR) {}
        }
    }

    fn maker(&mut self, made_of: (&[Template], BorrowedFd<'_>)) -> Result<&Maker, Failed> {
        let maker = match self.maker.take() {
            Some(maker) => maker,
            None => start(made_of)?,
        };
        Ok(self.maker.insert(maker))
    }
}

fn ask(maker: &Maker, class: u8) -> Result<(), Failed> {
    wire::send(maker.socket.as_fd(), &Ask { class }, FRAME_MAX, &[])
        .map_err(io::Error::other)
        .during("ask for a disk")
}

/// Forks a maker.
fn start((templates, dir): (&[Template], BorrowedFd<'_>)) -> Result<Maker, Failed> {
    let kind = (AddressFamily::Unix, SockType::SeqPacket);
    let (near, far) = socketpair(kind.0, kind.1, None, SockFlag::SOCK_CLOEXEC)
        .during("make the disk maker's socket")?;
    fcntl(near.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .during("make the disk maker's socket non-blocking")?;
    let launcher = Pid::this();
    match kernel::fork().during("fork the disk maker")? {
        ForkResult::Parent { child } => Ok(Maker {
            pid: child,
            socket: near,
        }),
        ForkResult::Child => {
            let ended = become_maker(launcher, templates, (&far, dir))
                .and_then(|()| serve(templates, (&far, dir)));
            if let Err(failed) = &ended {
                log("disks", &failed.to_string());
            }
            kernel::exit_now(u8::from(ended.is_err()))
        }
    }
}

/// Ties the maker's life to the launcher's, and keeps no descriptor that it does not need.
fn become_maker(
    launcher: Pid,
    templates: &[Template],
    (socket, dir): (&OwnedFd, BorrowedFd<'_>),
) -> Result<(), Failed> {
    prctl::set_name(c"farebox-disks").during("take a name")?;
    prctl::set_pdeathsig(Signal::SIGKILL).during("tie the disk maker to the launcher")?;
    if getppid() != launcher {
        return Err(Failed::because("start", "the launcher is gone"));
    }
    SigSet::empty()
        .thread_set_mask()
        .during("unblock signals")?;
    let mut kept = vec![socket.as_raw_fd(), dir.as_raw_fd()];
    kept.extend(
        templates
            .iter()
            .map(|template| template.as_fd().as_raw_fd()),
    );
    kernel::close_all_from(3, &kept).during("close inherited descriptors")
}

/// Makes what is asked for until the launcher is gone.
fn serve(templates: &[Template], (socket, dir): (&OwnedFd, BorrowedFd<'_>)) -> Result<(), Failed> {
    loop {
        let Some(classes) = asked(socket)? else {
            return Ok(());
        };
        // All files first: the first mount waits for the notes of all of them.
        let files: Vec<_> = classes
            .iter()
            .map(|class| file(templates, *class, dir))
            .collect();
        for (class, file) in classes.into_iter().zip(files) {
            let mount = file.and_then(DiskFile::mount);
            let (answer, disk) = match &mount {
                Ok(disk) => (Answer::Made { class }, Some(disk.as_fd())),
                Err(failed) => {
                    log("disks", &failed.to_string());
                    (Answer::Failed, None)
                }
            };
            let descriptors: Vec<_> = disk.into_iter().collect();
            wire::send(socket.as_fd(), &answer, FRAME_MAX, &descriptors)
                .map_err(io::Error::other)
                .during("hand a disk over")?;
        }
    }
}

/// The classes that are asked for: at least one, waited for, and all that have come besides. None
/// when the launcher is gone.
fn asked(socket: &OwnedFd) -> Result<Option<Vec<u8>>, Failed> {
    let mut classes = Vec::new();
    loop {
        let asked = wire::recv::<Ask>(socket.as_fd(), FRAME_MAX)
            .map_err(io::Error::other)
            .during("receive from the launcher")?;
        let Some((Ask { class }, _)) = asked else {
            return Ok(None);
        };
        classes.push(class);
        let mut more = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut more, PollTimeout::ZERO) != Ok(1) {
            return Ok(Some(classes));
        }
    }
}

fn file(templates: &[Template], class: u8, dir: BorrowedFd<'_>) -> Result<DiskFile, Failed> {
    let template = templates
        .get(usize::from(class))
        .ok_or_else(|| Failed::because("make a disk", format!("there is no class {class}")))?;
    let file = template.file(dir)?;
    file.write_out()?;
    Ok(file)
}
