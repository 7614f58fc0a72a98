//! The database under the view: a few calls, and sled behind them. Nothing else names sled.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock::Micros;
use crate::error::Error;

/// Rows and one head mark.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    db: sled::Db,
    rows: sled::Tree,
    head: sled::Tree,
    detail_from: AtomicI64,
}

const HEAD: &[u8] = b"head";
/// Names the instant before which days may be missing.
const DETAIL: &[u8] = b"detail";

impl Store {
    /// Opens the database, or makes an empty one. A snapshot that sled was writing when it was
    /// killed would keep it from opening ever again, so that is removed first.
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Self, Error> {
        let failed = |what| move |source| failed(what, path, source);
        if path.exists() {
            for file in fs::read_dir(path).map_err(failed("list"))? {
                let file = file.map_err(failed("list"))?.path();
                let name = file
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or("");
                if name.starts_with("snap.") && name.ends_with(".generating") {
                    fs::remove_file(&file).map_err(failed("clean"))?;
                }
            }
        }
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None)
            .print_profile_on_drop(false);
        // On damage it does not expect, sled panics.
        let opened = catch_unwind(AssertUnwindSafe(|| -> sled::Result<_> {
            let db = config.open()?;
            let (rows, head) = (db.open_tree("rows")?, db.open_tree("head")?);
            Ok((db, rows, head))
        }));
        let (db, rows, head) = match opened {
            Ok(opened) => opened.map_err(io::Error::from).map_err(failed("open"))?,
            Err(_panic) => return Err(failed("open")(io::Error::other("the database panicked"))),
        };
        let detail = head.get(DETAIL);
        let detail = detail.map_err(io::Error::from).map_err(failed("read"))?;
        let detail = detail.and_then(|bytes| bytes.as_ref().try_into().ok());
        Ok(Self {
            path: path.to_owned(),
            db,
            rows,
            head,
            detail_from: AtomicI64::new(detail.map_or(Micros::MIN, Micros::from_be_bytes)),
        })
    }

    /// The instant before which days may be missing.
    pub(crate) fn detail_from(&self) -> Micros {
        self.detail_from.load(Ordering::SeqCst)
    }

    /// Says that days before `at` may be missing, durably, before any of them is.
    pub(crate) fn set_detail_from(&self, at: Micros) -> Result<(), Error> {
        self.head
            .insert(DETAIL, &at.to_be_bytes())
            .map_err(|error| self.failed("write", error))?;
        self.flush()?;
        self.detail_from.store(at, Ordering::SeqCst);
        Ok(())
    }

    /// Removes rows from `from` up to but not `to`, at most so many; says how many.
    pub(crate) fn remove(&self, from: Vec<u8>, to: Vec<u8>, most: usize) -> Result<usize, Error> {
        let mut removed = 0;
        for row in self.scan(from, to).take(most) {
            self.rows
                .remove(row?.0)
                .map_err(|error| self.failed("remove from", error))?;
            removed += 1;
        }
        Ok(removed)
    }

    /// A row.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, Error> {
        self.rows
            .get(key)
            .map_err(|error| self.failed("read", error))
    }

    /// The rows from `from` up to but not `to`, in order. Not a snapshot: see [`crate::usage`].
    pub(crate) fn scan(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
    ) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), Error>> {
        self.rows
            .range(from..to)
            .map(|row| row.map_err(|error| self.failed("read", error)))
    }

    /// Writes rows, which are sorted, and then, once these are durable, the head mark.
    pub(crate) fn commit<'a>(
        &self,
        rows: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        head: &[u8],
    ) -> Result<(), Error> {
        self.put_rows(rows)?;
        self.head
            .insert(HEAD, head)
            .map_err(|error| self.failed("write", error))?;
        self.flush()
    }

    /// The first half of a commit: durable rows under the old head mark.
    pub(crate) fn put_rows<'a>(
        &self,
        rows: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), Error> {
        for (key, value) in rows {
            self.rows
                .insert(key, value)
                .map_err(|error| self.failed("write", error))?;
        }
        self.flush()
    }

    /// The head mark.
    pub(crate) fn head(&self) -> Result<Option<sled::IVec>, Error> {
        self.head
            .get(HEAD)
            .map_err(|error| self.failed("read", error))
    }

    /// Bytes on the disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    /// How many rows there are; walks them all.
    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// sled's flush ends in `sync_file_range`, which does not make a grown file durable.
    fn flush(&self) -> Result<(), Error> {
        self.db
            .flush()
            .map_err(|error| self.failed("flush", error))?;
        let file = self.path.join("db");
        let sync = File::open(&file).and_then(|file| file.sync_data());
        sync.map_err(|source| failed("sync", &self.path, source))
    }

    fn failed(&self, what: &'static str, error: sled::Error) -> Error {
        failed(what, &self.path, error.into())
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> Error {
    Error::View {
        what,
        path: path.to_owned(),
        source,
    }
}
