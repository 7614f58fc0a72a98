//! Keeps execution records in append-only segments below `DIR/records`, bounded by bytes and age.
//!
//! A segment `NNNNNNNNNNNN.rec` is a row of frames: `b"FBR1"`, the body's length (u32 LE), the
//! first eight bytes of its SHA-256, the execution's 16 bytes, when it was written (i64 LE, us),
//! the tenant's length (u8) and name, then the body, a JSON record. Nothing is synced and nobody
//! waits: the ledger is the authority, a record that is missing is rebuilt from its entry. One
//! thread writes; the index is in memory; the oldest segment goes as a whole.

mod segment;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Clock;
use crate::config::Records as Options;
use crate::record::{Missing, Record};
use segment::Frame;

/// Bytes of one execution's identity.
type Id = [u8; 16];

/// A record on its way to the writer.
type Kept = (Id, Arc<Record>);

/// The records of this data directory.
#[derive(Debug)]
pub(crate) struct Records {
    shared: Arc<Shared>,
    queue: Mutex<Option<SyncSender<Kept>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    options: Options,
    index: Mutex<Index>,
}

/// Where everything is.
#[derive(Debug, Default)]
struct Index {
    /// Ids of each tenant, in the order of time.
    tenants: HashMap<Arc<str>, BTreeMap<Id, Place>>,
    count: usize,
    segments: BTreeMap<u64, Segment>,
    /// Records dropped by age or space were made before this; later ones that are missing were
    /// lost.
    dropped_before_us: i64,
}

#[derive(Debug, Clone)]
enum Place {
    /// It waits for the writer.
    Memory(Arc<Record>),
    Disk {
        segment: u64,
        offset: u64,
        length: u32,
    },
}

impl Place {
    fn is_in(&self, number: u64) -> bool {
        matches!(self, Place::Disk { segment, .. } if *segment == number)
    }
}

#[derive(Debug)]
struct Segment {
    file: Arc<File>,
    path: PathBuf,
    bytes: u64,
    newest_us: i64,
}

/// Why the records cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}")]
pub struct RecordsError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

impl Records {
    /// Opens the segments in `dir` and reads their index.
    ///
    /// # Errors
    /// The directory or a segment cannot be read; a torn or damaged segment is read as far as it is
    /// good.
    pub(crate) fn open(
        dir: &Path,
        options: Options,
        clock: Clock,
    ) -> Result<Records, RecordsError> {
        let index = segment::read_all(dir, &options)?;
        let (sender, receiver) = sync_channel(options.queue_max);
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            options,
            index: Mutex::new(index),
        });
        shared.expire(clock.wall_us());
        let writer = Writer {
            shared: Arc::clone(&shared),
            clock,
        };
        let thread = std::thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(|source| RecordsError {
                what: "start the writer of",
                path: dir.into(),
                source,
            })?;
        Ok(Records {
            shared,
            queue: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(thread)),
        })
    }

    /// Keeps a record. Never waits: with a full queue it stays in memory only until the index drops
    /// it.
    pub(crate) fn keep(&self, id: Id, record: &Arc<Record>) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queue.as_ref() else { return };
        // First in the index: whoever reads the record after this sees it, written or not.
        self.shared
            .lock()
            .insert(&record.tenant, id, Place::Memory(Arc::clone(record)));
        if queue.try_send((id, Arc::clone(record))).is_err() {
            metrics::counter!("farebox_records_lost_total").increment(1);
            self.shared.lock().remove(&record.tenant, &id);
        }
    }

    /// The record of an execution of `tenant`. Reads the disk: not for a thread that serves
    /// connections.
    pub(crate) fn get(&self, tenant: &str, id: &Id) -> Option<Arc<Record>> {
        let (place, file) = {
            let index = self.shared.lock();
            let place = index.tenants.get(tenant)?.get(id)?.clone();
            let file = match &place {
                Place::Disk { segment, .. } => {
                    index.segments.get(segment).map(|s| Arc::clone(&s.file))
                }
                Place::Memory(_) => None,
            };
            (place, file)
        };
        match place {
            Place::Memory(record) => Some(record),
            Place::Disk { offset, length, .. } => {
                let mut body = vec![0; usize::try_from(length).ok()?];
                file?.read_exact_at(&mut body, offset).ok()?;
                serde_json::from_slice(&body).ok().map(Arc::new)
            }
        }
    }

    /// Which tenant's an execution is, if its record is here.
    pub(crate) fn tenant_of(&self, id: &Id) -> Option<String> {
        let index = self.shared.lock();
        let mut owners = index.tenants.iter().filter(|(_, ids)| ids.contains_key(id));
        owners.next().map(|(tenant, _)| tenant.to_string())
    }

    /// Ids of a tenant below `before`, newest first, at most `limit`.
    pub(crate) fn ids(&self, tenant: &str, before: Option<&Id>, limit: usize) -> Vec<Id> {
        let index = self.shared.lock();
        let Some(ids) = index.tenants.get(tenant) else {
            return Vec::new();
        };
        match before {
            Some(before) => ids
                .range(..*before)
                .rev()
                .map(|(id, _)| *id)
                .take(limit)
                .collect(),
            None => ids.keys().rev().copied().take(limit).collect(),
        }
    }

    /// Why a record made at `made_us` is not here.
    pub(crate) fn missing(&self, made_us: i64) -> Missing {
        if made_us < self.shared.lock().dropped_before_us {
            Missing::Expired
        } else {
            Missing::Lost
        }
    }

    /// Writes what waits and ends the writer; records kept after this are not.
    pub(crate) fn close(&self) {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of execution records has failed");
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the oldest segments until bytes, age and index are within bounds.
    fn expire(&self, now_us: i64) {
        let age_us = i64::try_from(self.options.age_max_s.saturating_mul(1_000_000));
        let oldest_us = now_us.saturating_sub(age_us.unwrap_or(i64::MAX));
        let mut index = self.lock();
        loop {
            let bytes: u64 = index.segments.values().map(|segment| segment.bytes).sum();
            let over = bytes > self.options.bytes_max || index.count > self.options.index_max;
            let Some((number, oldest)) = index.segments.first_key_value() else {
                return;
            };
            let aged = oldest.bytes > 0 && oldest.newest_us < oldest_us;
            let drops = aged || (over && index.segments.len() > 1);
            if !drops {
                return;
            }
            let number = *number;
            index.drop_segment(number);
        }
    }
}

impl Index {
    fn insert(&mut self, tenant: &str, id: Id, place: Place) {
        if !self.tenants.contains_key(tenant) {
            self.tenants.insert(Arc::from(tenant), BTreeMap::new());
        }
        let ids = self.tenants.get_mut(tenant);
        if ids.is_some_and(|ids| ids.insert(id, place).is_none()) {
            self.count += 1;
        }
    }

    fn remove(&mut self, tenant: &str, id: &Id) {
        let Some(ids) = self.tenants.get_mut(tenant) else {
            return;
        };
        if ids.remove(id).is_some() {
            self.count -= 1;
        }
        if ids.is_empty() {
            self.tenants.remove(tenant);
        }
    }

    /// Adds a frame that is on disk in segment `number`.
    fn add(&mut self, number: u64, frame: &Frame) {
        let Some(segment) = self.segments.get_mut(&number) else {
            return;
        };
        segment.bytes = frame.end();
        segment.newest_us = segment.newest_us.max(frame.at_us);
        let (offset, length) = (frame.body_offset, frame.length);
        self.insert(
            &frame.tenant,
            frame.id,
            Place::Disk {
                segment: number,
                offset,
                length,
            },
        );
    }

    fn drop_segment(&mut self, number: u64) {
        let Some(segment) = self.segments.remove(&number) else {
            return;
        };
        self.dropped_before_us = self.dropped_before_us.max(segment.newest_us);
        self.tenants.retain(|_name, ids| {
            ids.retain(|_id, place| !place.is_in(number));
            !ids.is_empty()
        });
        self.count = self.tenants.values().map(BTreeMap::len).sum();
        if let Err(error) = std::fs::remove_file(&segment.path) {
            tracing::warn!(path = %segment.path.display(), %error, "cannot remove old records");
        }
    }
}

/// The one thread that writes segments.
struct Writer {
    shared: Arc<Shared>,
    clock: Clock,
}

impl Writer {
    fn run(&self, queue: &Receiver<Kept>) {
        while let Ok((id, record)) = queue.recv() {
            if let Err(error) = self.write(id, &record) {
                tracing::error!(%error, "cannot write an execution record");
                metrics::counter!("farebox_records_lost_total").increment(1);
                self.shared.lock().remove(&record.tenant, &id);
            }
        }
    }

    fn write(&self, id: Id, record: &Record) -> std::io::Result<()> {
        let now_us = self.clock.wall_us();
        let body = serde_json::to_vec(record)?;
        let bytes = segment::encode(&id, now_us, &record.tenant, &body)?;
        let (number, file, offset) = self.current(bytes.len())?;
        file.write_all_at(&bytes, offset)?;
        let frame = segment::frame(&bytes, offset);
        if let Some(frame) = frame {
            self.shared.lock().add(number, &frame);
        }
        self.shared.expire(now_us);
        Ok(())
    }

    /// The segment to append `length` bytes to, and where; a new one if the last is full.
    fn current(&self, length: usize) -> std::io::Result<(u64, Arc<File>, u64)> {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let mut index = self.shared.lock();
        if let Some((number, segment)) = index.segments.last_key_value()
            && (segment.bytes == 0
                || segment.bytes.saturating_add(length) <= self.shared.options.segment_bytes)
        {
            return Ok((*number, Arc::clone(&segment.file), segment.bytes));
        }
        let number = index
            .segments
            .last_key_value()
            .map_or(1, |(number, _)| number + 1);
        let segment = segment::create(&self.shared.dir, number)?;
        let file = Arc::clone(&segment.file);
        index.segments.insert(number, segment);
        Ok((number, file, 0))
    }
}

#[cfg(test)]
pub(crate) mod tests;
