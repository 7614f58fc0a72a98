//! The network namespace of a sandbox, which has nothing but a loopback device; and one for the
//! next sandbox of the slot.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Pid;

use super::Job;
use crate::launcher::kernel;
use crate::launcher::networks::{Word, tell};
use crate::launcher::step::log;

const OWN: &str = "/proc/self/ns/net";

/// Brings the loopback of a new sandbox up: steps into its network namespace for one call, while
/// nothing runs in it but our init.
pub(super) fn bring_up(init: Pid) -> io::Result<()> {
    let own = File::open(OWN)?;
    let sandbox = File::open(format!("/proc/{init}/ns/net"))?;
    setns(sandbox, CloneFlags::CLONE_NEWNET)?;
    let done = kernel::loopback_up();
    setns(own, CloneFlags::CLONE_NEWNET)?;
    done
}

/// Makes one for the next sandbox of the slot, if it is wanted, and ends the process then: it has
/// given up all privilege outside the slot's user namespace, and closed what others own.
pub(super) fn make_next(job: &Job<'_>) {
    let Some((to, template)) = job.networks.zip(job.fork_from) else {
        return;
    };
    let sandbox = job.sandbox;
    let enters = Word::Enters { sandbox };
    let made = Word::Made {
        sandbox,
        owner: template.uid,
    };
    let handed = kernel::close_all_from(3, &[to.as_raw_fd(), job.userns.as_raw_fd()])
        .and_then(|()| tell(to, &enters, None))
        .and_then(|()| make(job.userns))
        .and_then(|network| tell(to, &made, Some(&network)));
    if let Err(error) = handed {
        log(&job.name, &format!("cannot make the next network: {error}"));
    }
    kernel::exit_now(0);
}

fn make(userns: &OwnedFd) -> io::Result<OwnedFd> {
    setns(userns, CloneFlags::CLONE_NEWUSER)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    kernel::loopback_up()?;
    File::open(OWN).map(OwnedFd::from)
}
