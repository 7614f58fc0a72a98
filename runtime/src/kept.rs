//! The files of a sandbox whose run failed: listed and read for a while, then gone.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::stat::SFlag;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::error::ReadError;
#[cfg(feature = "fake")]
use crate::fake::FakeKept;
use crate::runtime::channel::Channel;
use crate::runtime::live::Live;
use crate::spec::SandboxId;
use crate::wire::{self, Answer, Ask, FromReader, INIT_FRAME_MAX, ToReader, WireError};

/// The files of one sandbox that has ended; cheap to clone. They go when their time is over, at
/// [`Kept::end`], or with the last clone.
#[derive(Debug, Clone)]
pub struct Kept {
    inner: Inner,
}

#[derive(Debug, Clone)]
enum Inner {
    Live(Arc<LiveKept>),
    #[cfg(feature = "fake")]
    Fake(Arc<FakeKept>),
}

/// A part of a directory, in its own order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// What is in it.
    pub entries: Vec<KeptEntry>,
    /// Whether there are more behind these.
    pub more: bool,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptEntry {
    /// Its name as the tenant gave it: any bytes but `/` and NUL, at most 255.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// In bytes; of a link, the length of its target.
    pub size: u64,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
}

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file: the only thing that can be read.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A pipe, a socket, or what nobody may look at.
    Other,
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// How large the whole file is, in bytes; it does not change.
    pub size: u64,
    /// The piece, at most 64 KiB; empty at the file's end.
    pub bytes: Vec<u8>,
}

impl Kept {
    pub(crate) fn live(kept: LiveKept) -> Kept {
        Kept {
            inner: Inner::Live(Arc::new(kept)),
        }
    }

    #[cfg(feature = "fake")]
    pub(crate) fn fake(kept: FakeKept) -> Kept {
        Kept {
            inner: Inner::Fake(Arc::new(kept)),
        }
    }

    /// For how long they stay, in seconds from the end of the run.
    #[must_use]
    pub fn for_s(&self) -> u32 {
        match &self.inner {
            Inner::Live(live) => live.for_s,
            #[cfg(feature = "fake")]
            Inner::Fake(fake) => fake.for_s(),
        }
    }

    /// What is in the directory `path`, which is absolute inside the sandbox, from the `from`-th
    /// entry on: at most `most`, and fewer where their names are long.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn list(&self, path: &[u8], from: u64, most: u32) -> Result<Listing, ReadError> {
        match &self.inner {
            Inner::Live(live) => live.list(path, from, most).await,
            #[cfg(feature = "fake")]
            Inner::Fake(fake) => fake.list(path, from, most),
        }
    }

    /// At most `len` bytes, and at most 64 KiB, of the file `path` from `offset` on.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn read(&self, path: &[u8], offset: u64, len: u64) -> Result<Piece, ReadError> {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        match &self.inner {
            Inner::Live(live) => live.read(path, offset, len).await,
            #[cfg(feature = "fake")]
            Inner::Fake(fake) => fake.read(path, offset, len),
        }
    }

    /// Lets them go now. What is being read is cut off.
    pub fn end(&self) {
        match &self.inner {
            Inner::Live(live) => live.end(),
            #[cfg(feature = "fake")]
            Inner::Fake(fake) => fake.end(),
        }
    }

    /// Waits until nothing is left of them: process, group, mounts, disk; slot and disk are free.
    pub async fn gone(&self) {
        match &self.inner {
            Inner::Live(live) => live.gone().await,
            #[cfg(feature = "fake")]
            Inner::Fake(fake) => fake.gone().await,
        }
    }
}

/// Files that a reader of the real runtime shows.
#[derive(Debug)]
pub(crate) struct LiveKept {
    live: Arc<Live>,
    id: SandboxId,
    for_s: u32,
    talk: Mutex<Talk>,
}

/// The reader's socket: one question at a time.
#[derive(Debug)]
struct Talk {
    channel: Channel,
    seq: u32,
}

impl LiveKept {
    pub(crate) fn new(
        live: Arc<Live>,
        id: SandboxId,
        for_s: u32,
        socket: OwnedFd,
    ) -> std::io::Result<LiveKept> {
        let channel = Channel::new(socket, INIT_FRAME_MAX)?;
        live.expect_kept(id);
        Ok(LiveKept {
            live,
            id,
            for_s,
            talk: Mutex::new(Talk { channel, seq: 0 }),
        })
    }

    async fn list(&self, path: &[u8], from: u64, most: u32) -> Result<Listing, ReadError> {
        let path = path.to_vec();
        match self.ask(Ask::List { path, from, most }).await? {
            Answer::Listed { entries, more } if within(entries.len(), most) => {
                let entries: Option<_> = entries.into_iter().map(understand).collect();
                let entries = entries.ok_or_else(|| self.broken())?;
                Ok(Listing { entries, more })
            }
            answer => Err(self.refused(&answer)),
        }
    }

    async fn read(&self, path: &[u8], offset: u64, len: u32) -> Result<Piece, ReadError> {
        let path = path.to_vec();
        match self.ask(Ask::Read { path, offset, len }).await? {
            Answer::Piece { size, bytes } if within(bytes.len(), len) => Ok(Piece { size, bytes }),
            answer => Err(self.refused(&answer)),
        }
    }

    /// Asks one thing and waits for its answer; answers that nobody waited for are passed over.
    async fn ask(&self, ask: Ask) -> Result<Answer, ReadError> {
        let mut talk = self.talk.lock().await;
        talk.seq = talk.seq.wrapping_add(1);
        let seq = talk.seq;
        let channel = &talk.channel;
        let exchange = async {
            channel.send(&ToReader { seq, ask }, &[]).await?;
            loop {
                match channel.recv::<FromReader>().await? {
                    Some((frame, _)) if frame.seq == seq => return Ok(Some(frame.answer)),
                    Some(_) => {}
                    None => return Ok(None),
                }
            }
        };
        let limit = Duration::from_millis(self.live.options.end_ms);
        let answered: Result<Result<_, WireError>, _> = timeout(limit, exchange).await;
        match answered {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None) | Err(WireError::Socket { .. })) => Err(ReadError::Gone),
            Ok(Err(_)) | Err(_) => Err(self.broken()),
        }
    }

    fn refused(&self, answer: &Answer) -> ReadError {
        match answer {
            Answer::Refused { errno } => ReadError::from_errno(*errno),
            _ => self.broken(),
        }
    }

    /// A reader that does not answer as it must is believed nothing more.
    fn broken(&self) -> ReadError {
        tracing::error!(sandbox = %self.id, "a reader broke the protocol; its files go");
        self.end();
        ReadError::Gone
    }

    fn end(&self) {
        self.live.drop_kept(self.id);
    }

    async fn gone(&self) {
        self.live.until_gone(self.id).await;
    }
}

impl Drop for LiveKept {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether so many came as were asked for at most.
fn within(found: usize, most: u32) -> bool {
    u32::try_from(found).is_ok_and(|found| found <= most)
}

/// What a reader says of an entry; none if that cannot be one.
fn understand(entry: wire::Entry) -> Option<KeptEntry> {
    let is_name = (1..=255).contains(&entry.name.len())
        && !entry.name.iter().any(|byte| matches!(byte, b'/' | 0));
    let kind = match SFlag::from_bits_truncate(entry.mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => EntryKind::File,
        SFlag::S_IFDIR => EntryKind::Directory,
        SFlag::S_IFLNK => EntryKind::Link,
        _ => EntryKind::Other,
    };
    is_name.then_some(KeptEntry {
        name: entry.name,
        kind,
        size: entry.size,
        mode: entry.mode & 0o7777,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_taken_for_names() {
        let entry = |name: &[u8], mode| wire::Entry {
            name: name.to_vec(),
            mode,
            size: 3,
        };
        for bad in [b"".as_slice(), b"a/b", b"a\0", &[b'x'; 256]] {
            assert_eq!(understand(entry(bad, 0)), None, "{bad:?}");
        }
        for (mode, kind) in [
            (0o100_644, EntryKind::File),
            (0o040_755, EntryKind::Directory),
            (0o120_777, EntryKind::Link),
            (0o010_644, EntryKind::Other),
            (0, EntryKind::Other),
        ] {
            let found = understand(entry(b"a\n\xff", mode)).unwrap();
            assert_eq!((found.kind, found.mode), (kind, mode & 0o7777));
        }
    }
}
