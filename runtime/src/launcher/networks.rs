//! Network namespaces made ahead: with nothing but a loopback device that is up, each for one
//! sandbox of one slot.
//!
//! One that a sandbox may enter belongs to its slot's user namespace, so it is made by a process
//! that is in there, and no process leaves that again. A shim that has nothing else left to do goes
//! in: the next sandbox of its slot does not wait for what takes half a millisecond, and five if the
//! kernel is busy.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde::{Deserialize, Serialize};

use super::step::{During, Failed};
use crate::wire::{self, FRAME_MAX, Id};

/// Most that stand ready: each takes the kernel some 100 KiB. Slots that came free last are the
/// next ones that are used.
const MOST: usize = 16;

/// What stands ready.
#[derive(Debug)]
pub(super) struct Networks {
    /// By slot and owner of its user namespace, the oldest first.
    ready: VecDeque<((u32, u32), OwnedFd)>,
    /// Where shims hand them over, and the launcher's end of it.
    shims: OwnedFd,
    own: OwnedFd,
}

/// With one descriptor: the network namespace for the next sandbox of this one's slot.
#[derive(Debug, Serialize, Deserialize)]
struct Made {
    sandbox: Id,
    owner: u32,
}

impl Networks {
    pub(super) fn new() -> Result<Networks, Failed> {
        let kind = (AddressFamily::Unix, SockType::SeqPacket);
        let (own, shims) = socketpair(kind.0, kind.1, None, SockFlag::SOCK_CLOEXEC)
            .during("make the networks' socket")?;
        for end in [&own, &shims] {
            fcntl(end.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                .during("make the networks' socket non-blocking")?;
        }
        Ok(Networks {
            ready: VecDeque::new(),
            shims,
            own,
        })
    }

    /// Takes the one of a slot.
    pub(super) fn take(&mut self, slot: u32, owner: u32) -> Option<OwnedFd> {
        let at = self.ready.iter().position(|(of, _)| *of == (slot, owner))?;
        self.ready.remove(at).map(|(_, network)| network)
    }

    /// Where a shim hands one over; none if it is to make none.
    pub(super) fn wanted(&self) -> Option<&OwnedFd> {
        (self.ready.len() < MOST).then_some(&self.shims)
    }

    /// Takes what has come; `slot_of` tells the slot of a live sandbox.
    pub(super) fn receive(&mut self, slot_of: impl Fn(&Id) -> Option<u32>) {
        // What else comes, or does not, is as if nothing was made.
        while let Ok(Some((Made { sandbox, owner }, descriptors))) =
            wire::recv(self.own.as_fd(), FRAME_MAX)
        {
            let Some((slot, Ok([network]))) =
                slot_of(&sandbox).zip(Some(wire::exactly(descriptors)))
            else {
                continue;
            };
            if self.ready.len() >= MOST {
                self.ready.pop_front();
            }
            self.ready.push_back(((slot, owner), network));
        }
    }

    /// Drops those of a template's slots.
    pub(super) fn forget_owner(&mut self, uid: u32) {
        self.ready.retain(|((_slot, owner), _)| *owner != uid);
    }
}

/// Hands over what the shim of `sandbox` has made; `owner` is its user namespace's.
pub(crate) fn hand_over(
    to: &OwnedFd,
    (sandbox, owner): (Id, u32),
    network: &OwnedFd,
) -> io::Result<()> {
    let made = Made { sandbox, owner };
    wire::send(to.as_fd(), &made, FRAME_MAX, &[network.as_fd()]).map_err(io::Error::other)
}
