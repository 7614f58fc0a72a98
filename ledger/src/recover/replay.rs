//! The view at an open: used where it can be, made again where not, and brought up to the journal.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::{Found, view_path};
use crate::commit;
use crate::entry::Body;
use crate::error::Error;
use crate::id::Id;
use crate::journal::frame;
use crate::journal::reader::Frame;
use crate::journal::{Position, segment};
use crate::merkle::{Frontier, Leaves};
use crate::options::Options;
use crate::record::{self, Posting, Record, Slate};
use crate::state::{Known, Located, coming};
use crate::view::store::Store;
use crate::view::{Mark, Unwritten, View};
use crate::walk::{self, Segments, Start};

/// The view's database and its head mark. What cannot be used is dropped, to be made again.
pub(super) fn open_view(options: &Options, found: &Found) -> Result<(Store, Option<Mark>), Error> {
    let path = view_path(&options.dir);
    let stale = commit::stale_path(&options.dir);
    if !stale.exists() {
        match usable_view(options, &path, found) {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, cause = ?std::error::Error::source(&error),
                    "the view cannot be opened and is made again");
            }
        }
    }
    if path.exists() {
        let removed = fs::remove_dir_all(&path);
        removed.map_err(|source| Error::File {
            what: "remove",
            path: path.clone(),
            source,
        })?;
    }
    let store = Store::open(&path, options.view_cache_bytes)?;
    if stale.exists() {
        let removed = fs::remove_file(&stale);
        removed.map_err(|source| Error::File {
            what: "remove",
            path: stale,
            source,
        })?;
    }
    Ok((store, None))
}

fn usable_view(
    options: &Options,
    path: &Path,
    found: &Found,
) -> Result<Option<(Store, Option<Mark>)>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let store = Store::open(path, options.view_cache_bytes)?;
    let ledger = found.segments.headers.first().map(|header| header.ledger);
    let mark = store.head()?.and_then(|bytes| commit::decode(&bytes));
    let fits = |mark: &Mark| Some(mark.ledger) == ledger && mark.position <= found.end;
    match mark {
        Some(mark) if fits(&mark) => Ok(Some((store, Some(mark)))),
        _ => Ok(None),
    }
}

/// How a journal is replayed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replay<'a> {
    /// The ledger's directory.
    pub(crate) dir: &'a Path,
    /// The journal.
    pub(crate) segments: &'a Segments,
    /// What the rows include, if there are any.
    pub(crate) mark: Option<Mark>,
    /// Settlements added to the rows between two commits: memory against rows written twice.
    pub(crate) step: u64,
    /// Whether everything is made anew: the indexes of full segments, too, and of the rows only
    /// those are written that are done. What they include is told once all are: see
    /// [`write_rows`].
    pub(crate) anew: bool,
}

impl Replay<'_> {
    /// Takes in what the checkpoint and the rows lack; says up to where the rows are committed.
    /// Tells `on` the end of each frame and the settlements taken in.
    ///
    /// A thread of its own goes through the journal for the tree: hashing needs nothing else.
    pub(crate) fn run(
        &self,
        view: &mut View,
        on: &mut dyn FnMut(Position, u64),
    ) -> Result<u64, Error> {
        let (start, frontier) = (self.behind(view), view.frontier.clone());
        thread::scope(|scope| {
            let tree = thread::Builder::new().name("tree".to_owned());
            let tree = tree.spawn_scoped(scope, || self.tree(start, frontier));
            let tree = tree.map_err(|_spawn| Error::Thread { thread: "tree" })?;
            let rows_lsn = self.replay(view, on)?;
            let frontier = tree.join();
            view.frontier = frontier.map_err(|_panic| Error::Thread { thread: "tree" })??;
            Ok(rows_lsn)
        })
    }

    /// The tree with all entries from `start` on.
    fn tree(&self, start: Start, mut frontier: Frontier) -> Result<Frontier, Error> {
        walk::walk(self.dir, self.segments, start, |_, frame| {
            let records = frame::records(frame.payload).flatten();
            let leaves = records.filter_map(|(_, bytes)| record::leaf(bytes));
            let mut waiting = Leaves::default();
            leaves.for_each(|leaf| waiting.add(leaf, |hash| frontier.push(hash)));
            waiting.end(|hash| frontier.push(hash));
            Ok(())
        })?;
        Ok(frontier)
    }

    fn replay(&self, view: &mut View, on: &mut dyn FnMut(Position, u64)) -> Result<u64, Error> {
        let mut rows_lsn = self.mark.map_or(0, |mark| mark.lsn);
        let (mut since, mut settlements) = (0, 0);
        let mut writing = Writing::default();
        let mut kept = Kept::default();
        let start = self.start(view);
        let walked = walk::walk(self.dir, self.segments, start, |number, frame| {
            let end = walk::end(number, frame);
            if self.anew {
                view.turn(number);
            }
            let taken = self.frame(view, (number, frame), rows_lsn, &mut kept)?;
            (since, settlements) = (since + taken, settlements + taken);
            on(end, settlements);
            while let Some(index) = view.sealing.first().cloned() {
                index.write(&segment::index_path(self.dir, index.segment))?;
                view.index_written(&index);
            }
            if since >= self.step || writing.is_done() {
                rows_lsn = writing.end(view)?.unwrap_or(rows_lsn);
            }
            if since >= self.step {
                since = 0;
                let mark = Mark {
                    ledger: view.ledger,
                    lsn: last_lsn(frame),
                    position: end,
                };
                writing.begin(view, Some(mark).filter(|_| !self.anew))?;
                tracing::info!(lsn = mark.lsn, "making the view again");
            }
            Ok(())
        });
        // Nobody writes to the database when this is over, whatever became of the walk.
        let written = writing.end(view);
        walked?;
        Ok(written?.unwrap_or(rows_lsn))
    }

    /// Where the first of the two that is behind goes on.
    fn start(&self, view: &View) -> Start {
        let first = Start::first(self.segments);
        let rows_at = self.mark.map_or(first.position, |mark| mark.position);
        if rows_at >= view.position {
            return self.behind(view);
        }
        match self.mark {
            Some(mark) if mark.lsn > 0 => Start {
                position: rows_at,
                lsn: Some(mark.lsn + 1),
            },
            _ => first,
        }
    }

    /// Where state and tree go on.
    fn behind(&self, view: &View) -> Start {
        match view.state.lsn {
            0 => Start::first(self.segments),
            lsn => Start {
                position: view.position,
                lsn: Some(lsn + 1),
            },
        }
    }

    /// Takes in what of a frame the state and the rows up to `rows_lsn` lack; says how many
    /// settlements and adjustments the rows did.
    fn frame(
        &self,
        view: &mut View,
        (number, frame): (u32, &Frame<'_>),
        rows_lsn: u64,
        kept: &mut Kept,
    ) -> Result<u64, Error> {
        let before = view.state.lsn;
        let mut settlements = 0;
        let mut coming = coming(frame.payload);
        walk::records(number, frame, |read| {
            let rows = |near: &[_]| view.rows.bring_near(view.state.settled_near(near));
            let near = coming.next(&view.state, &kept.known, rows);
            let open = |id: &Id| view.state.hold(id).map(Arc::clone);
            let stored = read.stored(&mut kept.slate, open)?;
            let (record, is_entry) = (stored.record(), stored.seq().is_some());
            // From here on only the record has the hold.
            drop(stored);
            let mut tenant = None;
            if read.lsn > view.state.lsn {
                let known = kept.known_of(&record, near);
                let located = view.replay(read.lsn, &record, known)?;
                if known.is_none() {
                    kept.keep(&record, located);
                }
                tenant = located.map(|located| located.tenant);
            }
            if self.anew {
                view.tail.push(&record, tenant, read.offset);
            }
            if read.lsn > rows_lsn {
                view.unwritten.add(record.at());
                settlements += u64::from(counts(&record));
                view.add_to_rows(read.lsn, &record, tenant);
            }
            if let Record::Hold(hold) | Record::Settled(Posting { hold, .. }) = record {
                kept.slate.keep(hold);
            }
            Ok(is_entry)
        })?;
        if view.state.lsn > before {
            view.position = walk::end(number, frame);
        }
        Ok(settlements)
    }
}

/// The number of a frame's last record.
fn last_lsn(frame: &Frame<'_>) -> u64 {
    frame.header.first_lsn + u64::from(frame.header.records) - 1
}

/// Whether the rows count a record.
fn counts(record: &Record) -> bool {
    match record {
        Record::Settled(_) => true,
        Record::Entered(entry) => !matches!(entry.body, Body::Acted(_)),
        Record::Hold(_) | Record::Release(_) => false,
    }
}

/// What is kept from frame to frame.
#[derive(Debug, Default)]
struct Kept {
    known: Known,
    slate: Slate,
}

impl Kept {
    /// Where runs of a hold's names were counted before.
    fn known_of(&self, record: &Record, near: Option<Located>) -> Option<Located> {
        match record {
            Record::Hold(hold) => near.or_else(|| self.known.find(hold.all_names())),
            Record::Release(_) | Record::Settled(_) | Record::Entered(_) => None,
        }
    }

    /// Keeps where a hold is counted, if that is for good.
    fn keep(&mut self, record: &Record, located: Option<Located>) {
        if let (Record::Hold(hold), Some(located)) = (record, located)
            && located.is_whole()
        {
            self.known.keep(hold.all_names(), located);
        }
    }
}

/// Rows that a thread of their own writes while others are made: one step of them at a time.
#[derive(Debug, Default)]
struct Writing(Option<(Written, Option<Mark>)>);

/// What becomes of the writing.
type Written = JoinHandle<Result<(), Error>>;

impl Writing {
    /// Begins to write the dirty rows and their mark; without one, only rows that are done.
    fn begin(&mut self, view: &mut View, mark: Option<Mark>) -> Result<(), Error> {
        let frozen = match mark {
            Some(_) => {
                view.unwritten.freeze();
                view.rows.freeze()
            }
            None => view.rows.freeze_before(view.state.at),
        };
        let store = Arc::clone(view.rows.store());
        let write = move || match mark {
            Some(mark) => store.commit(frozen.iter(), &commit::encode(&mark)),
            None => store.put_rows(frozen.iter()),
        };
        let thread = thread::Builder::new().name("rows".to_owned());
        let thread = thread.spawn(write).map_err(|_spawn| ended())?;
        self.0 = Some((thread, mark));
        Ok(())
    }

    /// Whether there are rows that have been written.
    fn is_done(&self) -> bool {
        let writing = self.0.as_ref();
        writing.is_some_and(|(thread, _)| thread.is_finished())
    }

    /// Waits until they are; says up to which command the database says that its rows are, if that
    /// has changed.
    fn end(&mut self, view: &mut View) -> Result<Option<u64>, Error> {
        let Some((thread, mark)) = self.0.take() else {
            return Ok(None);
        };
        thread.join().map_err(|_panic| ended())??;
        view.rows.committed_up_to(view.state.at);
        if mark.is_some() {
            view.unwritten.written();
        }
        Ok(mark.map(|mark| mark.lsn))
    }
}

fn ended() -> Error {
    Error::Thread { thread: "rows" }
}

/// Writes the dirty rows and the head mark.
pub(crate) fn write_rows(view: &mut View, mark: Mark) -> Result<(), Error> {
    let frozen = view.rows.freeze();
    view.rows
        .store()
        .commit(frozen.iter(), &commit::encode(&mark))?;
    view.rows.committed_up_to(view.state.at);
    view.unwritten = Unwritten::default();
    Ok(())
}
