//! User namespaces of slots: they map the ids of an image and of a sandbox to the slot's range.
//!
//! No process lives in one: a child makes it, the launcher pins it by a descriptor and kills the
//! child, which the owner may have stopped.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, pipe2};

use super::kernel;
use crate::oci::RANGE;

/// How long a child may take, in ms.
const PATIENCE_MS: u16 = 1000;

/// Makes a user namespace in which ids 0 to 65535 are the host's from `uid_first` on; it belongs to
/// `owner`, who may do everything in it.
pub(crate) fn make(uid_first: u32, owner: u32) -> io::Result<OwnedFd> {
    let (made, tell) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (wait, done) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    match kernel::fork()? {
        ForkResult::Child => {
            drop((made, done));
            let ok = kernel::become_keeping_capabilities(owner).is_ok()
                && unshare(CloneFlags::CLONE_NEWUSER).is_ok();
            let told = ok && File::from(tell).write_all(&[1]).is_ok();
            // Ends when the launcher is gone, at the latest.
            let ended = File::from(wait).read(&mut [0]);
            kernel::exit_now(u8::from(!(told && ended.is_ok())));
        }
        ForkResult::Parent { child } => {
            drop((tell, wait));
            let pinned = pin(File::from(made), child.as_raw(), uid_first);
            drop(done);
            kill(child, Signal::SIGKILL)?;
            waitpid(child, None)?;
            pinned
        }
    }
}

fn pin(mut made: File, child: i32, uid_first: u32) -> io::Result<OwnedFd> {
    let mut polled = [PollFd::new(made.as_fd(), PollFlags::POLLIN)];
    if poll(&mut polled, PATIENCE_MS)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    made.read_exact(&mut [0])?;
    let map = format!("0 {uid_first} {RANGE}");
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{child}/{file}"), &map)?;
    }
    File::open(format!("/proc/{child}/ns/user")).map(OwnedFd::from)
}
