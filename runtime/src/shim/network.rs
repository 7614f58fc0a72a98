//! The network namespace of a sandbox, which has nothing but a loopback device; and one for the
//! next sandbox of the slot.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Pid;

use super::Job;
use crate::launcher::kernel;
use crate::launcher::networks::hand_over;
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

/// Makes one for the next sandbox of the slot, if it is wanted. The shim can do nothing after it
/// but end: it has given up all privilege outside the slot's user namespace.
pub(super) fn make_next(job: &Job<'_>) {
    let Some((to, template)) = job.networks.zip(job.fork_from) else {
        return;
    };
    let made = make(job.userns);
    let handed = made.and_then(|made| hand_over(to, (job.sandbox, template.uid), &made));
    if let Err(error) = handed {
        log(&job.name, &format!("cannot make the next network: {error}"));
    }
}

fn make(userns: &OwnedFd) -> io::Result<OwnedFd> {
    setns(userns, CloneFlags::CLONE_NEWUSER)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    kernel::loopback_up()?;
    File::open(OWN).map(OwnedFd::from)
}
