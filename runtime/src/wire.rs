//! The frames between server, launcher, shim, init and reader, and how they are sent and received.
//!
//! A frame is one packet of a `SOCK_SEQPACKET` socket: a version byte, then postcard; descriptors
//! travel beside it by `SCM_RIGHTS`. Every side treats what it receives as hostile: a packet that
//! is too long, cut, followed by more bytes, or of another version is refused whole, and every
//! descriptor that came with it is closed. An empty packet counts as the end of the stream.

#![expect(
    unsafe_code,
    reason = "recvmsg with descriptors that survive a cut control message"
)]

use std::io::{self, IoSlice};
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::frames::{
    Autopsy, Deviation, Ended, EndedBy, FinalRecord, FromInit, FromLauncher, FromShim, Go, Handle,
    Id, Make, NAME_MAX, PROCESSES_MAX, Refusal, Seen, Start, ToInit, ToLauncher, ToShim, WireImage,
    WireMeasured, WireNetwork,
};
pub use self::frames::{DiskClass, LauncherConfig, WireLimits};
pub(crate) use self::reading::{Answer, Ask, Entry, FromReader, PATH_MAX, ToReader};

#[path = "wire/frames.rs"]
mod frames;
#[path = "wire/reading.rs"]
mod reading;

/// First byte of every frame. Server, launcher, shim and init are one binary, so there is one.
const VERSION: u8 = 1;

/// Longest frame to or from launcher and shim, in bytes.
pub(crate) const FRAME_MAX: usize = 4096;

/// Longest piece of file content in one [`ToInit::Chunk`], in bytes.
pub(crate) const CHUNK_MAX: usize = 64 * 1024;

/// Longest frame to or from init or a reader, in bytes: a chunk, or a [`ToInit::Start`], and its
/// head.
pub(crate) const INIT_FRAME_MAX: usize = CHUNK_MAX + 1024;

/// Longest text that a frame quotes, in bytes; [`clip`] cuts to it.
pub(crate) const TEXT_MAX: usize = 512;

/// The kernel's bound on descriptors in one packet (`SCM_MAX_FD`).
const KERNEL_DESCRIPTORS_MAX: usize = 253;

/// The kernel aligns control messages to the word.
const CONTROL_ALIGN: usize = size_of::<usize>();

/// Room for the descriptors of one packet, in words: whatever a peer sends is received, and closed,
/// rather than left installed behind a cut control message.
const CONTROL_WORDS: usize =
    (size_of::<libc::cmsghdr>() + KERNEL_DESCRIPTORS_MAX * size_of::<RawFd>()) / CONTROL_ALIGN + 2;

/// Why a frame could not be sent or understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The frame is longer than its socket allows.
    #[error("frame of {len} bytes is longer than {max}")]
    TooLong {
        /// Encoded length in bytes.
        len: usize,
        /// Bound in bytes.
        max: usize,
    },
    /// The packet was cut by the kernel: its sender ignored the bound.
    #[error("packet is cut: longer than {max} bytes or with more descriptors than may be open")]
    Cut {
        /// Bound in bytes.
        max: usize,
    },
    /// The first byte is not ours.
    #[error("frame has version {found}, expected {expected}")]
    Version {
        /// What the frame says.
        found: u8,
        /// What this binary speaks.
        expected: u8,
    },
    /// The body is not a frame of this kind, or is followed by more bytes.
    #[error("frame of {len} bytes is malformed")]
    Malformed {
        /// Length in bytes.
        len: usize,
    },
    /// The frame came with another number of descriptors than it must.
    #[error("frame carries {found} descriptors, expected {expected}")]
    Descriptors {
        /// What came.
        found: usize,
        /// What must come.
        expected: usize,
    },
    /// The frame could not be encoded.
    #[error("cannot encode a frame")]
    Encode {
        /// What postcard says.
        source: postcard::Error,
    },
    /// The socket failed.
    #[error("cannot {operation} on a socket")]
    Socket {
        /// `send` or `receive`.
        operation: &'static str,
        /// What the kernel says; `WouldBlock` on a non-blocking socket.
        source: io::Error,
    },
}

/// One received packet, not yet understood. Dropping it closes its descriptors.
#[derive(Debug)]
pub(crate) struct Packet {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Packet {
    /// Understands the packet as a frame, and hands over its descriptors.
    pub(crate) fn decode<T: DeserializeOwned>(self) -> Result<(T, Vec<OwnedFd>), WireError> {
        Ok((decode(&self.bytes)?, self.descriptors))
    }
}

/// Encodes one frame of at most `max` bytes.
pub(crate) fn encode<T: Serialize>(frame: &T, max: usize) -> Result<Vec<u8>, WireError> {
    let bytes =
        postcard::to_extend(frame, vec![VERSION]).map_err(|source| WireError::Encode { source })?;
    if bytes.len() > max {
        return Err(WireError::TooLong {
            len: bytes.len(),
            max,
        });
    }
    Ok(bytes)
}

/// Decodes one whole frame; bytes left over make it malformed.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let malformed = WireError::Malformed { len: bytes.len() };
    let Some((&found, body)) = bytes.split_first() else {
        return Err(malformed);
    };
    if found != VERSION {
        return Err(WireError::Version {
            found,
            expected: VERSION,
        });
    }
    match postcard::take_from_bytes(body) {
        Ok((frame, [])) => Ok(frame),
        Ok(_) | Err(_) => Err(malformed),
    }
}

/// Sends one frame with its descriptors; never raises `SIGPIPE`.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    frame: &T,
    max: usize,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), WireError> {
    let bytes = encode(frame, max)?;
    send_bytes(socket, &bytes, descriptors).map_err(|source| WireError::Socket {
        operation: "send",
        source,
    })
}

/// Sends an encoded frame; the form for non-blocking sockets (`WouldBlock` sends nothing).
pub(crate) fn send_bytes(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    loop {
        let parts = [IoSlice::new(bytes)];
        match sendmsg::<()>(
            socket.as_raw_fd(),
            &parts,
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Receives and decodes one frame; `None` when the peer is gone.
pub(crate) fn recv<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    max: usize,
) -> Result<Option<(T, Vec<OwnedFd>)>, WireError> {
    match receive(socket, max)? {
        Some(packet) => packet.decode().map(Some),
        None => Ok(None),
    }
}

/// Receives one packet of at most `max` bytes; `None` when the peer is gone.
///
/// Works on blocking and non-blocking sockets: the latter give a `WouldBlock` error when idle.
/// Descriptors arrive close-on-exec; a cut packet is an error and its descriptors are closed.
pub(crate) fn receive(socket: BorrowedFd<'_>, max: usize) -> Result<Option<Packet>, WireError> {
    let mut bytes = vec![0_u8; max];
    let mut control = [0_usize; CONTROL_WORDS];
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all-zero is a valid `msghdr`: null pointers with zero lengths.
    let mut head: libc::msghdr = unsafe { std::mem::zeroed() };
    head.msg_iov = &raw mut part;
    head.msg_iovlen = 1;
    head.msg_control = control.as_mut_ptr().cast();
    head.msg_controllen = size_of_val(&control);
    let len = loop {
        // SAFETY: `head` points at `bytes` and `control`, both live, writable and of the lengths
        // given, for the whole call; the descriptor is borrowed, hence open.
        let got =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut head, libc::MSG_CMSG_CLOEXEC) };
        match usize::try_from(got) {
            Ok(len) => break len,
            Err(_) => {
                let source = io::Error::last_os_error();
                if source.kind() != io::ErrorKind::Interrupted {
                    return Err(WireError::Socket {
                        operation: "receive",
                        source,
                    });
                }
            }
        }
    };
    let filled: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let descriptors = adopt(filled.get(..head.msg_controllen).unwrap_or(&filled));
    if head.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(WireError::Cut { max });
    }
    if len == 0 {
        return Ok(None);
    }
    bytes.truncate(len);
    Ok(Some(Packet { bytes, descriptors }))
}

/// Takes ownership of every descriptor that the kernel installed with a packet.
fn adopt(control: &[u8]) -> Vec<OwnedFd> {
    rights(control)
        .into_iter()
        // SAFETY: the kernel has just installed this number for this packet, nothing else in this
        // process knows it, and each number is listed once.
        .map(|raw| unsafe { OwnedFd::from_raw_fd(raw) })
        .collect()
}

/// Reads the descriptor numbers out of the control messages of one packet.
fn rights(mut control: &[u8]) -> Vec<RawFd> {
    let head = size_of::<libc::cmsghdr>();
    let mut found = Vec::new();
    while control.len() >= head {
        let Some(len) =
            word(control, offset_of!(libc::cmsghdr, cmsg_len)).map(usize::from_ne_bytes)
        else {
            break;
        };
        let level = word(control, offset_of!(libc::cmsghdr, cmsg_level)).map(i32::from_ne_bytes);
        let kind = word(control, offset_of!(libc::cmsghdr, cmsg_type)).map(i32::from_ne_bytes);
        let Some(data) = control.get(head..len.min(control.len())) else {
            break;
        };
        if level == Some(libc::SOL_SOCKET) && kind == Some(libc::SCM_RIGHTS) {
            let (numbers, _) = data.as_chunks::<{ size_of::<RawFd>() }>();
            found.extend(numbers.iter().copied().map(RawFd::from_ne_bytes));
        }
        let next = len.next_multiple_of(CONTROL_ALIGN);
        control = control.get(next..).unwrap_or_default();
    }
    found
}

/// The `N` bytes at `offset`.
fn word<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// Hands over exactly `N` descriptors, or refuses the frame and closes them.
pub(crate) fn exactly<const N: usize>(
    descriptors: Vec<OwnedFd>,
) -> Result<[OwnedFd; N], WireError> {
    let found = descriptors.len();
    descriptors
        .try_into()
        .map_err(|_rest| WireError::Descriptors { found, expected: N })
}

/// Cuts text to [`TEXT_MAX`] bytes, at a character's edge.
pub(crate) fn clip(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
#[path = "wire/tests.rs"]
mod tests;
