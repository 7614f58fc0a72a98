//! Room taken ahead: spare segments, made by a thread of their own before they are needed.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::disk::{Disk, DiskFile};
use super::segment::{self, SegmentHeader};
use crate::error::Error;

/// Segments kept ready. One is the reserve of settlements; the other keeps holds from waiting
/// while the next is made.
const SPARES: usize = 2;

/// How long to wait before trying again to make a segment when there was no room.
const AGAIN: Duration = Duration::from_secs(1);

/// A segment that is open for writing.
#[derive(Debug)]
pub(crate) struct Segment {
    /// What it says about itself.
    pub(crate) header: SegmentHeader,
    /// Its file.
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the next frame goes.
    pub(crate) used: u64,
}

/// What new segments are made of.
#[derive(Debug)]
pub(crate) struct Maker {
    /// Where.
    pub(crate) disk: Arc<dyn Disk>,
    /// The ledger's directory.
    pub(crate) dir: PathBuf,
    /// Bytes of a segment.
    pub(crate) bytes: u64,
    /// The ledger that they belong to; `None` makes the first segment of a new one.
    pub(crate) ledger: Option<u64>,
}

impl Maker {
    /// Makes a segment, durably.
    pub(crate) fn make(&self, number: u32) -> Result<Segment, Error> {
        let path = segment::path(&self.dir, number);
        self.try_make(number, &path).map_err(|source| {
            // Half a segment is of no use, and its room may be what is missing.
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::debug!(path = %path.display(), %error, "no half-made segment to remove");
            }
            Error::File {
                what: "make the segment",
                path,
                source,
            }
        })
    }

    fn try_make(&self, number: u32, path: &Path) -> io::Result<Segment> {
        let header = SegmentHeader::new(number, self.ledger, self.bytes);
        let file = self.disk.create(path, self.bytes)?;
        if file.write_at(&header.encode(), 0)? != header.encode().len() {
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
        file.sync()?;
        self.disk.sync_dir(&segment::dir(&self.dir))?;
        Ok(Segment {
            header,
            file: Arc::from(file),
            used: segment::HEADER,
        })
    }
}

#[derive(Debug)]
struct State {
    spares: VecDeque<Segment>,
    next: u32,
    /// The last attempt to make a segment failed.
    full: bool,
    stop: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The spare segments and their maker.
#[derive(Debug)]
pub(crate) struct Room {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Room {
    /// Starts to keep segments ready, from number `next` on, beside the `spares` there are.
    pub(crate) fn start(maker: Maker, spares: VecDeque<Segment>, next: u32) -> io::Result<Self> {
        let state = State {
            spares,
            next,
            full: false,
            stop: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let mine = Arc::clone(&shared);
        let work = move || keep_ready(&mine, &maker);
        let thread = thread::Builder::new()
            .name("ledger-room".to_owned())
            .spawn(work)?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Whether there is a whole spare segment; waits while one is being made.
    pub(crate) fn has_spare(&self) -> bool {
        let state = self.shared.lock();
        let waits = |state: &mut State| state.spares.is_empty() && !state.full && !state.stop;
        let state = self.shared.changed.wait_while(state, waits);
        !state
            .unwrap_or_else(PoisonError::into_inner)
            .spares
            .is_empty()
    }

    /// Takes the next segment, if there is one.
    pub(crate) fn take(&self) -> Option<Segment> {
        if !self.has_spare() {
            return None;
        }
        let taken = self.shared.lock().spares.pop_front();
        self.shared.changed.notify_all();
        taken
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        let ended = self.thread.take().map(JoinHandle::join);
        if ended.is_some_and(|ended| ended.is_err()) {
            tracing::error!("the ledger's room thread has panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep_ready(shared: &Shared, maker: &Maker) {
    let mut state = shared.lock();
    while !state.stop {
        if state.spares.len() >= SPARES {
            let waiting = shared.changed.wait(state);
            state = waiting.unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let number = state.next;
        drop(state);
        let made = maker.make(number);
        state = shared.lock();
        match made {
            Ok(segment) => {
                state.spares.push_back(segment);
                state.next += 1;
                state.full = false;
                shared.changed.notify_all();
            }
            Err(error) => {
                if !state.full {
                    tracing::error!(%error, cause = ?std::error::Error::source(&error),
                        "no room for another journal segment");
                }
                state.full = true;
                shared.changed.notify_all();
                let waiting = shared
                    .changed
                    .wait_timeout_while(state, AGAIN, |state| !state.stop);
                state = waiting.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}
