//! Network namespaces made ahead: with nothing but a loopback device that is up, each for one
//! sandbox of one slot.
//!
//! One that a sandbox may enter belongs to its slot's user namespace, so it is made by a process
//! that is in there, and no process leaves that again. A shim that has nothing else left to do goes
//! in: the next sandbox of its slot does not wait for what takes half a millisecond, or five on a
//! busy kernel.
//!
//! In there it is at the mercy of the user namespace's owner, the image's template: that may stop
//! it, and nothing more. So it says that it goes in, and is killed if it does not end.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde::{Deserialize, Serialize};

use super::step::{During, Failed};
use crate::clock::Monotonic;
use crate::wire::{self, FRAME_MAX, Id};

/// Most that stand ready: each takes the kernel some 100 KiB. Slots that came free last are the
/// next ones that are used.
const MOST: usize = 16;
/// How long a shim may take for one, in us.
const PATIENCE_US: u64 = 1_000_000;

/// What stands ready.
#[derive(Debug)]
pub(super) struct Networks {
    /// By slot and owner of its user namespace, the oldest first.
    ready: VecDeque<((u32, u32), OwnedFd)>,
    /// Where shims hand them over, and the launcher's end of it.
    shims: OwnedFd,
    own: OwnedFd,
    /// The sandboxes whose shims make one, with the time by which each must have ended.
    making: Vec<(Id, u64)>,
    clock: Monotonic,
}

/// What the shim of `sandbox` says to the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// Nothing is left of the sandbox; the shim goes into the slot's user namespace, and will not
    /// come out again.
    Enters { sandbox: Id },
    /// With one descriptor: the network namespace for the next sandbox of the slot, whose user
    /// namespace is `owner`'s.
    Made { sandbox: Id, owner: u32 },
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
            making: Vec::new(),
            clock: Monotonic::start(),
        })
    }

    /// Takes the one of a slot and an owner, for a sandbox that somebody waits for. To whom nobody
    /// waits for it is no use, and the shim would be in the way of the next run that is.
    pub(super) fn take(&mut self, of: (u32, u32), ahead: bool) -> Option<OwnedFd> {
        if ahead {
            return None;
        }
        let at = self.ready.iter().position(|(ready, _)| *ready == of)?;
        self.ready.remove(at).map(|(_, network)| network)
    }

    /// Where the shim of a sandbox hands one over; none if it is to make none.
    pub(super) fn wanted(&self, ahead: bool) -> Option<&OwnedFd> {
        (!ahead && self.ready.len() < MOST).then_some(&self.shims)
    }

    /// Takes what has come; `slot_of` tells the slot of a live sandbox.
    pub(super) fn receive(&mut self, slot_of: impl Fn(&Id) -> Option<u32>) {
        // What else comes, or does not, is as if nothing was made.
        while let Ok(Some((word, descriptors))) = wire::recv(self.own.as_fd(), FRAME_MAX) {
            match word {
                Word::Enters { sandbox } => {
                    let until_us = self.clock.now_us() + PATIENCE_US;
                    self.making.push((sandbox, until_us));
                }
                Word::Made { sandbox, owner } => {
                    let network = wire::exactly(descriptors).ok();
                    if let Some((slot, [network])) = slot_of(&sandbox).zip(network) {
                        self.put((slot, owner), network);
                    }
                }
            }
        }
    }

    fn put(&mut self, of: (u32, u32), network: OwnedFd) {
        if self.ready.len() >= MOST {
            self.ready.pop_front();
        }
        self.ready.push_back((of, network));
    }

    /// Whether a shim makes one.
    pub(super) fn any_making(&self) -> bool {
        !self.making.is_empty()
    }

    /// The sandboxes whose shims should have ended; none is told twice.
    pub(super) fn overdue(&mut self) -> Vec<Id> {
        let now_us = self.clock.now_us();
        let late = self
            .making
            .extract_if(.., |(_, until_us)| *until_us <= now_us);
        late.map(|(sandbox, _)| sandbox).collect()
    }

    /// Takes note that the shim of a sandbox has ended.
    pub(super) fn ended(&mut self, sandbox: &Id) {
        self.making.retain(|(making, _)| making != sandbox);
    }

    /// Drops those of a template's slots.
    pub(super) fn forget_owner(&mut self, uid: u32) {
        self.ready.retain(|((_slot, owner), _)| *owner != uid);
    }
}

/// Tells the launcher.
pub(crate) fn tell(to: &OwnedFd, word: &Word, network: Option<&OwnedFd>) -> io::Result<()> {
    let descriptors: Vec<_> = network.map(AsFd::as_fd).into_iter().collect();
    wire::send(to.as_fd(), word, FRAME_MAX, &descriptors).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: u32 = 7;

    fn made(networks: &mut Networks, slot: u8) {
        let network = std::fs::File::open("/dev/null").unwrap().into();
        let word = Word::Made {
            sandbox: [slot; 16],
            owner: OWNER,
        };
        tell(&networks.shims, &word, Some(&network)).unwrap();
        networks.receive(|sandbox| Some(sandbox[0].into()));
    }

    #[test]
    fn no_more_stand_ready_than_the_bound_and_each_is_taken_once() {
        let mut networks = Networks::new().unwrap();
        for slot in 0..=u8::try_from(MOST).unwrap() {
            assert!(networks.wanted(false).is_some() || usize::from(slot) == MOST);
            made(&mut networks, slot);
        }
        assert_eq!(networks.ready.len(), MOST);
        assert!(networks.wanted(false).is_none());
        assert!(networks.take((0, OWNER), false).is_none(), "the oldest");
        assert!(networks.take((1, OWNER + 1), false).is_none());
        assert!(networks.take((1, OWNER), true).is_none());
        assert!(networks.take((1, OWNER), false).is_some());
        assert!(networks.take((1, OWNER), false).is_none());
        assert!(networks.wanted(false).is_some());
        assert!(networks.wanted(true).is_none());
        networks.forget_owner(OWNER);
        assert!(networks.ready.is_empty());
    }

    #[test]
    fn a_shim_that_does_not_end_is_told_of_once() {
        let mut networks = Networks::new().unwrap();
        for id in [1, 2] {
            let sandbox = [id; 16];
            tell(&networks.shims, &Word::Enters { sandbox }, None).unwrap();
        }
        networks.receive(|_| None);
        networks.ended(&[1; 16]);
        assert!(networks.overdue().is_empty(), "it has time");
        assert!(networks.any_making());
        networks
            .making
            .iter_mut()
            .for_each(|(_, until_us)| *until_us = 0);
        assert_eq!(networks.overdue(), [[2; 16]]);
        assert!(networks.overdue().is_empty() && !networks.any_making());
    }
}
