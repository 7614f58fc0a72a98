//! Taking down what a dead shim, or a dead launcher, has left: kill, counters, final file, removal.

use std::io;
use std::os::fd::BorrowedFd;

use nix::poll::{PollTimeout, poll};

use super::hex;
use super::state::write_final;
use super::step::{During, Failed, log};
use super::unhex;
use crate::cgroup::{Home, Kin, Meter, Reading};
use crate::clock::Monotonic;
use crate::wire::{Ended, EndedBy, FinalRecord, Id};

/// How long groups that were left may take to empty, in us.
const BOOT_WAIT_US: u64 = 10_000_000;
/// How long to wait before a group that is not empty is looked at again, in ms.
pub(super) const RETRY_MS: u8 = 5;

/// Where final files go, and whose they are.
pub(super) type Finals<'a> = (BorrowedFd<'a>, (u32, u32));

/// One attempt at a sandbox's groups; true when nothing is left. Never waits.
pub(super) fn attempt(home: &Home, sandbox: Id, finals: Finals<'_>) -> io::Result<bool> {
    let name = hex(&sandbox);
    let group = home.open(Kin::Sandboxes, &name)?;
    if group.is_gone() {
        return Ok(true);
    }
    group.kill()?;
    if !group.pids()?.is_empty() {
        return Ok(false);
    }
    let reading = Meter::open(&group)
        .and_then(|meter| meter.read())
        .unwrap_or_default();
    let measured = reading.since(Reading::default(), 0);
    let ended = Ended {
        by: EndedBy::ShimDied,
        measured,
        disk_full: false,
        unsettled: true,
    };
    // A file that the shim wrote before it died stays: it knows more.
    write_final(
        finals.0,
        &name,
        &FinalRecord {
            sandbox,
            execution: None,
            ended,
        },
        finals.1,
    )?;
    match home.remove(Kin::Sandboxes, &name) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        other => other.map(|()| true),
    }
}

/// Takes down every sandbox that an earlier launcher of this instance has left.
///
/// That they are ours is proven by the instance name, which only root can have written, and by the
/// lock, which says that no other launcher of this instance lives.
pub(super) fn boot(home: &Home, finals: Finals<'_>) -> Result<(), Failed> {
    let clock = Monotonic::start();
    templates(home, &clock).during("sweep templates that were left behind")?;
    for name in home
        .names(Kin::Sandboxes)
        .during("list groups that were left behind")?
    {
        let Some(sandbox) = unhex(&name) else {
            log(
                "launcher",
                &format!("left a group alone that is not a sandbox's: {name}"),
            );
            continue;
        };
        while !attempt(home, sandbox, finals).during("sweep a group that was left behind")? {
            if clock.now_us() > BOOT_WAIT_US {
                return Err(Failed::because("sweep groups that were left behind", name));
            }
            poll(&mut [], PollTimeout::from(RETRY_MS)).during("wait for a group to empty")?;
        }
        log("launcher", &format!("swept sandbox {name}"));
    }
    Ok(())
}

/// Takes down what is left of templates that have ended, whichever launcher's they were.
pub(super) fn templates(home: &Home, clock: &Monotonic) -> io::Result<()> {
    for name in home.names(Kin::Templates)? {
        loop {
            home.open(Kin::Templates, &name)?.kill()?;
            match home.remove(Kin::Templates, &name) {
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy
                        && clock.now_us() < BOOT_WAIT_US =>
                {
                    poll(&mut [], PollTimeout::from(RETRY_MS))?;
                }
                other => break other?,
            }
        }
    }
    Ok(())
}
