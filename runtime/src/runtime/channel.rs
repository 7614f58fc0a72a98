//! One of the server's sockets to launcher, shim or init, driven by tokio.

#![expect(unsafe_code, reason = "registering a descriptor")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;

use crate::wire::{self, WireError};

/// A non-blocking packet socket; frames of at most `max` bytes either way.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: AsyncFd<OwnedFd>,
    max: usize,
}

impl Channel {
    /// Takes a connected socket; must be called within a tokio runtime.
    pub(crate) fn new(socket: OwnedFd, max: usize) -> io::Result<Channel> {
        use std::os::fd::AsRawFd;
        fcntl(socket.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // SAFETY: an owned descriptor is open, always answers the same number, and stays as it is
        // until the value that owns it is dropped, which the new value does.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Channel { socket, max })
    }

    /// A channel and its other end, which is a plain blocking socket.
    pub(crate) fn pair(max: usize) -> io::Result<(Channel, OwnedFd)> {
        let (near, far) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Channel::new(near, max)?, far))
    }

    /// The next frame; `None` when the peer is gone. Dropping the future loses no frame.
    pub(crate) async fn recv<T: DeserializeOwned>(
        &self,
    ) -> Result<Option<(T, Vec<OwnedFd>)>, WireError> {
        loop {
            let mut ready = self.socket.readable().await.map_err(socket("receive"))?;
            match wire::recv(self.socket.get_ref().as_fd(), self.max) {
                Err(WireError::Socket { source, .. }) if is_blocked(&source) => ready.clear_ready(),
                other => return other,
            }
        }
    }

    /// Sends one frame with its descriptors, when there is room for it. Dropping the future sends
    /// it whole or not at all.
    pub(crate) async fn send<T: Serialize>(
        &self,
        frame: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), WireError> {
        let bytes = wire::encode(frame, self.max)?;
        loop {
            let mut ready = self.socket.writable().await.map_err(socket("send"))?;
            match wire::send_bytes(self.socket.get_ref().as_fd(), &bytes, descriptors) {
                Err(source) if is_blocked(&source) => ready.clear_ready(),
                other => return other.map_err(socket("send")),
            }
        }
    }

    /// Sends one frame if there is room for it now.
    pub(crate) fn try_send<T: Serialize>(&self, frame: &T) -> Result<(), WireError> {
        wire::send(self.socket.get_ref().as_fd(), frame, self.max, &[])
    }

    /// Says that nothing more will be sent: the peer sees the end of the stream.
    pub(crate) fn end(&self) {
        use std::os::fd::AsRawFd;
        let how = nix::sys::socket::Shutdown::Write;
        let ended = nix::sys::socket::shutdown(self.socket.get_ref().as_raw_fd(), how);
        if let Err(error) = ended {
            tracing::debug!(%error, "the peer is gone already");
        }
    }
}

fn socket(operation: &'static str) -> impl FnOnce(io::Error) -> WireError {
    move |source| WireError::Socket { operation, source }
}

fn is_blocked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
