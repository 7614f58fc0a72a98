//! Kept files without a sandbox: what was laid and written, below `/workspace`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Slot;
use crate::error::ReadError;
use crate::kept::{EntryKind, KeptEntry, Listing, Piece};
use crate::wire::CHUNK_MAX;

/// Where the files are.
const WORKSPACE: &str = "/workspace";

/// The files of one fake sandbox. Its slot stays taken while they are there.
#[derive(Debug)]
pub(crate) struct FakeKept {
    files: BTreeMap<String, Vec<u8>>,
    for_s: u32,
    slot: Mutex<Option<Slot>>,
    ended: watch::Sender<bool>,
}

impl FakeKept {
    pub(super) fn new(files: BTreeMap<String, Vec<u8>>, for_s: u32, slot: Slot) -> FakeKept {
        FakeKept {
            files,
            for_s,
            slot: Mutex::new(Some(slot)),
            ended: watch::Sender::new(false),
        }
    }

    pub(crate) fn for_s(&self) -> u32 {
        self.for_s
    }

    /// The part of a path below the workspace.
    fn below(&self, path: &[u8]) -> Result<String, ReadError> {
        if *self.ended.borrow() {
            return Err(ReadError::Gone);
        }
        let path = String::from_utf8_lossy(path);
        let rest = path.strip_prefix(WORKSPACE).ok_or(ReadError::NotFound)?;
        Ok(rest.trim_matches('/').to_owned())
    }

    pub(crate) fn list(&self, path: &[u8], from: u64, most: u32) -> Result<Listing, ReadError> {
        let dir = self.below(path)?;
        if self.files.contains_key(&dir) {
            return Err(ReadError::NotADirectory);
        }
        let prefix = if dir.is_empty() { dir } else { dir + "/" };
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for (name, content) in &self.files {
            let Some(rest) = name.strip_prefix(&prefix) else {
                continue;
            };
            let (first, is_file) = match rest.split_once('/') {
                Some((first, _)) => (first, false),
                None => (rest, true),
            };
            if seen.insert(first.to_owned()) {
                all.push(KeptEntry {
                    name: first.as_bytes().to_vec(),
                    kind: if is_file {
                        EntryKind::File
                    } else {
                        EntryKind::Directory
                    },
                    size: if is_file { size(content) } else { 4096 },
                    mode: if is_file { 0o644 } else { 0o755 },
                });
            }
        }
        if all.is_empty() && !prefix.is_empty() {
            return Err(ReadError::NotFound);
        }
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(all.len());
        let mut entries = all.split_off(from);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let more = entries.len() > most;
        entries.truncate(most);
        Ok(Listing { entries, more })
    }

    pub(crate) fn read(&self, path: &[u8], offset: u64, len: u32) -> Result<Piece, ReadError> {
        let name = self.below(path)?;
        let Some(content) = self.files.get(&name) else {
            let listed = self.list(path, 0, 1);
            return Err(listed.map_or_else(|error| error, |_| ReadError::NotAFile));
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let start = start.min(content.len());
        let len = usize::try_from(len).unwrap_or(CHUNK_MAX).min(CHUNK_MAX);
        let end = start.saturating_add(len).min(content.len());
        Ok(Piece {
            size: size(content),
            bytes: content[start..end].to_vec(),
        })
    }

    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
        let slot = self
            .slot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(slot);
    }

    /// Its time passes in reality.
    pub(crate) async fn gone(&self) {
        let mut ended = self.ended.subscribe();
        let over = Duration::from_secs(self.for_s.into());
        let early = ended.wait_for(|ended| *ended);
        if tokio::time::timeout(over, early).await.is_err() {
            self.end();
        }
    }
}

fn size(content: &[u8]) -> u64 {
    u64::try_from(content.len()).unwrap_or(u64::MAX)
}
