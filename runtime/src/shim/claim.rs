//! What a sandbox is held to and told of: when it is made, and again when one made ahead is
//! claimed.

use std::io;

use super::watch::Sandbox;
use super::{Host, Job};
use crate::clock;
use crate::launcher::cpus;
use crate::launcher::root::TOLD;
use crate::launcher::slots::check_limits;
use crate::launcher::step::{During, Failed};
use crate::truth::{Cpu, Files, Share};
use crate::wire::WireLimits;

/// Writes what the sandbox will find in its `/proc`.
pub(super) fn tell(cpu: &Cpu, job: &Job<'_>) -> io::Result<Files> {
    let files = Files::make(TOLD)?;
    files.write(cpu, share(job.cpus, &job.limits))?;
    Ok(files)
}

/// Holds an idle sandbox to other limits, and tells it of them.
///
/// # Errors
/// Limits that pass the launcher's maxima or need other CPUs or more open files than the sandbox
/// was made with, and what the kernel says; the sandbox must not be used then.
pub(super) fn claim(
    host: &Host<'_>,
    sandbox: &Sandbox<'_>,
    limits: &WireLimits,
) -> Result<(), Failed> {
    let refused = |why: &str| Err(Failed::because("claim the sandbox", why));
    let made = sandbox.limits.get();
    if check_limits(limits, host.maxima).is_err() {
        return refused("a limit passes its bounds");
    }
    let other_cpus = cpus::count(limits.cpu_millis) != cpus::count(made.cpu_millis);
    if other_cpus || limits.open_files > made.open_files {
        return refused("it was made for fewer CPUs or open files");
    }
    sandbox.group.limit_anew(&made, limits)?;
    sandbox
        .told
        .write(host.cpu, share(sandbox.cpus, limits))
        .during("tell the sandbox what it has")?;
    sandbox.limits.set(*limits);
    Ok(())
}

fn share(cpus: &[usize], limits: &WireLimits) -> Share {
    Share {
        cpus: cpus.len(),
        memory_bytes: limits.memory_bytes,
        since_s: clock::wall_s(),
    }
}
