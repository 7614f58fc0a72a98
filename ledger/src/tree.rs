//! The complete subtrees of the Merkle tree, in files beside the journal, so that a proof reads
//! some kilobytes of them and not the journal.
//!
//! `DIR/tree/NN` holds the roots of all complete subtrees of 2^NN leaves, 32 bytes each, in order;
//! NN is 00, 08, 16, 24 and 32: every other level is hashed from at most 128 of them.
//! `DIR/tree/head` says how far they are. All of it is made from the journal as it is read back
//! from the disk, never from memory, off the path of commands, and can be made again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Fault, failed};
use crate::file;
use crate::journal::frame;
use crate::journal::reader::{Frame, Reader, Step};
use crate::journal::{Position, segment};
use crate::merkle::proof::Nodes;
use crate::merkle::{self, Frontier, Hash, node};
use crate::record;

const MAGIC: [u8; 8] = *b"FBXTREE1";
/// Levels between two files.
const STEP: u32 = 8;
/// Files: enough for 2^40 entries.
const FILES: usize = 5;
/// Bytes of hashes that wait in memory for one write.
const BUFFER: usize = 1 << 20;
/// Leaves that may be in the files before the head says so, durably.
const UNSAVED_MAX: u64 = 100_000;

/// How far the files are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Head {
    /// The ledger that they belong to.
    ledger: u64,
    /// The place behind the last frame included.
    position: Position,
    /// The tree.
    frontier: Frontier,
}

/// The files.
#[derive(Debug)]
pub(crate) struct Tree {
    dir: PathBuf,
    files: Vec<Level>,
    head: Head,
    /// Size of the tree when the head was last written.
    saved: u64,
}

/// The roots of one level.
#[derive(Debug)]
struct Level {
    path: PathBuf,
    file: File,
    /// Bytes in the file.
    bytes: u64,
    /// What comes behind them.
    buffer: Vec<u8>,
}

/// The directory of the files.
pub(crate) fn dir(ledger_dir: &Path) -> PathBuf {
    ledger_dir.join("tree")
}

impl Tree {
    /// Opens the files of `ledger`, whose journal begins at `first`; empty ones if there are none
    /// that can be used.
    pub(crate) fn open(ledger_dir: &Path, ledger: u64, first: Position) -> Result<Self, Error> {
        let dir = dir(ledger_dir);
        fs::create_dir_all(&dir).map_err(failed("make", &dir))?;
        let open = |number: usize| Level::open(&dir, number);
        let files = (0..FILES).map(open).collect::<Result<Vec<_>, _>>()?;
        let nothing = Head {
            ledger,
            position: first,
            frontier: Frontier::default(),
        };
        let mut tree = Self {
            dir: dir.clone(),
            files,
            head: nothing,
            saved: 0,
        };
        let found: Option<Head> = file::read(&dir.join("head"), MAGIC)?;
        if let Some(head) = found.filter(|head| head.ledger == ledger && tree.holds(head)) {
            tree.saved = head.frontier.size();
            tree.head = head;
        }
        let size = tree.size();
        for (level, count) in tree.files.iter_mut().zip(counts(size)) {
            level.cut(count)?;
        }
        Ok(tree)
    }

    /// Whether the files have all that a head says, as far as lengths and its peaks can tell.
    fn holds(&self, head: &Head) -> bool {
        let size = head.frontier.size();
        let mut files = self.files.iter().zip(counts(size));
        if files.any(|(level, count)| level.bytes < count * 32) {
            return false;
        }
        let mut at = 0;
        head.frontier.peaks().iter().all(|peak| {
            let level = (size - at).ilog2();
            let found = self.node(level, at >> level);
            at += 1 << level;
            found.is_ok_and(|found| found == *peak)
        }) && at == size
    }

    /// Removes the files, so that they are made again.
    pub(crate) fn remove(ledger_dir: &Path) -> Result<(), Error> {
        let dir = dir(ledger_dir);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed("remove", &dir)(error))
            }
            _ => Ok(()),
        }
    }

    /// Entries included.
    pub(crate) fn size(&self) -> u64 {
        self.head.frontier.size()
    }

    /// The right edge.
    pub(crate) fn frontier(&self) -> &Frontier {
        &self.head.frontier
    }

    /// Takes in the journal's frames up to `end`, which must be durable. After an error the tree
    /// must be opened again.
    pub(crate) fn catch_up(&mut self, ledger_dir: &Path, end: Position) -> Result<(), Error> {
        while self.head.position < end {
            let number = self.head.position.segment;
            let mut reader = Reader::open(&segment::path(ledger_dir, number))?;
            reader.seek(self.head.position.offset);
            while self.head.position < end {
                match reader.step()? {
                    Step::Frame(frame) => self.take(&frame)?,
                    Step::End(_) if number < end.segment => {
                        self.head.position = Position {
                            segment: number + 1,
                            offset: segment::HEADER,
                        };
                        break;
                    }
                    Step::End(_) => {
                        let what = "a frame that was durable cannot be read back";
                        return Err(self.fault(what.to_owned()));
                    }
                }
            }
        }
        for level in &mut self.files {
            level.flush()?;
        }
        if self.size() - self.saved >= UNSAVED_MAX {
            self.save()?;
        }
        Ok(())
    }

    fn take(&mut self, frame: &Frame<'_>) -> Result<(), Error> {
        if frame.header.next_seq != self.size() + 1 {
            let what = format!(
                "a frame goes on with entry {}, not {}",
                frame.header.next_seq,
                self.size() + 1
            );
            return Err(self.fault(what));
        }
        for found in frame::records(frame.payload) {
            let (_, bytes) = found.ok_or_else(|| self.fault("a record is cut off".to_owned()))?;
            if let Some(leaf) = record::leaf(bytes) {
                self.push(merkle::leaf(leaf))?;
            }
        }
        let size = frame::HEADER + frame.header.rest();
        self.head.position.offset = frame.offset + u64::try_from(size).unwrap_or(u64::MAX);
        Ok(())
    }

    fn push(&mut self, leaf: Hash) -> Result<(), Error> {
        let files = &mut self.files;
        self.head.frontier.push_with(leaf, |level, hash| {
            if let Some(file) = usize::try_from(level / STEP)
                .ok()
                .filter(|_| level.is_multiple_of(STEP))
                .and_then(|number| files.get_mut(number))
            {
                file.buffer.extend_from_slice(hash);
            }
        });
        let full = files.iter_mut().find(|file| file.buffer.len() >= BUFFER);
        full.map_or(Ok(()), Level::flush)
    }

    /// Makes what is in the files durable, and the head say so.
    pub(crate) fn save(&mut self) -> Result<(), Error> {
        if self.saved == self.size() {
            return Ok(());
        }
        for level in &mut self.files {
            level.flush()?;
            level
                .file
                .sync_data()
                .map_err(failed("sync", &level.path))?;
        }
        file::replace(&self.dir.join("head"), MAGIC, &self.head)?;
        self.saved = self.size();
        Ok(())
    }

    fn fault(&self, what: String) -> Error {
        let Position { segment, offset } = self.head.position;
        let (lsn, seq) = (0, self.size() + 1);
        Error::Corrupt {
            fault: Fault {
                segment,
                offset,
                lsn,
                seq,
                what,
            },
        }
    }
}

impl Nodes for Tree {
    type Error = Error;

    fn node(&self, level: u32, index: u64) -> Result<Hash, Error> {
        let number = usize::try_from(level / STEP).unwrap_or(FILES);
        let file = self.files.get(number).ok_or_else(|| {
            let source = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            failed("read", &self.dir)(source)
        })?;
        file.root(index, level % STEP)
    }
}

/// How many hashes each file has for `size` leaves.
fn counts(size: u64) -> impl Iterator<Item = u64> {
    (0..)
        .step_by(8)
        .map(move |level: u32| size.checked_shr(level).unwrap_or(0))
}

impl Level {
    fn open(dir: &Path, number: usize) -> Result<Self, Error> {
        let level = number * 8;
        let path = dir.join(format!("{level:02}"));
        let mut options = File::options();
        let options = options.create(true).truncate(false).read(true).write(true);
        let file = options.open(&path).map_err(failed("open", &path))?;
        let bytes = file.metadata().map_err(failed("read", &path))?.len();
        Ok(Self {
            path,
            file,
            bytes,
            buffer: Vec::new(),
        })
    }

    /// Makes the file hold `count` hashes, of those that it has.
    fn cut(&mut self, count: u64) -> Result<(), Error> {
        self.bytes = count * 32;
        let cut = self.file.set_len(self.bytes);
        cut.map_err(failed("cut", &self.path))
    }

    fn flush(&mut self) -> Result<(), Error> {
        let written = self.file.write_all_at(&self.buffer, self.bytes);
        written.map_err(failed("write", &self.path))?;
        self.bytes += u64::try_from(self.buffer.len()).unwrap_or(0);
        self.buffer.clear();
        Ok(())
    }

    /// The root over 2^`up` hashes of the file, the first of which is hash `index` x 2^`up`.
    fn root(&self, index: u64, up: u32) -> Result<Hash, Error> {
        let mut bytes = vec![0; 32 << up];
        let read = self.file.read_exact_at(&mut bytes, (index << up) * 32);
        read.map_err(failed("read", &self.path))?;
        let mut hashes: Vec<Hash> = bytes.as_chunks().0.to_vec();
        while hashes.len() > 1 {
            hashes = hashes
                .as_chunks()
                .0
                .iter()
                .map(|[left, right]| node(left, right))
                .collect();
        }
        Ok(hashes.pop().unwrap_or_default())
    }
}

/// The hash of leaf `index` in the files below `ledger_dir`, if they have it. They are not checked:
/// this is for telling where damage is, not whether there is any.
pub(crate) fn leaf_hint(ledger_dir: &Path, index: u64) -> Option<Hash> {
    let file = File::open(dir(ledger_dir).join("00")).ok()?;
    let mut hash = Hash::default();
    file.read_exact_at(&mut hash, index.checked_mul(32)?).ok()?;
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::proof;

    const START: Position = Position {
        segment: 1,
        offset: segment::HEADER,
    };

    fn leaf(number: u64) -> Hash {
        merkle::leaf(&number.to_be_bytes())
    }

    fn add(tree: &mut Tree, leaves: std::ops::Range<u64>) {
        for number in leaves {
            tree.push(leaf(number)).unwrap();
        }
        tree.files
            .iter_mut()
            .for_each(|level| level.flush().unwrap());
    }

    /// More than 2^16 leaves, so that three files take part.
    #[test]
    fn every_level_is_found_or_hashed_from_the_file_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(dir.path(), 7, START).unwrap();
        let mut edges = vec![Frontier::default()];
        for number in 0..70_001 {
            tree.push(leaf(number)).unwrap();
            let mut edge = edges[edges.len() - 1].clone();
            edge.push(leaf(number));
            edges.push(edge);
        }
        tree.files
            .iter_mut()
            .for_each(|level| level.flush().unwrap());
        let lengths: Vec<u64> = tree.files.iter().map(|level| level.bytes / 32).collect();
        assert_eq!(lengths, [70_001, 273, 1, 0, 0]);
        for size in [1, 2, 255, 256, 257, 4_097, 65_535, 65_536, 65_537, 70_001] {
            let edge = &edges[usize::try_from(size).unwrap()];
            assert_eq!(proof::root(&tree, size).unwrap(), edge.root(), "{size}");
        }
        assert!(tree.node(0, 70_001).is_err() && tree.node(40, 0).is_err());
    }

    #[test]
    fn an_open_goes_on_from_the_last_save_and_drops_what_came_after() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(dir.path(), 7, START).unwrap();
        add(&mut tree, 0..300);
        tree.save().unwrap();
        add(&mut tree, 300..600);
        drop(tree);
        let mut tree = Tree::open(dir.path(), 7, START).unwrap();
        assert_eq!(tree.size(), 300);
        // Whatever lies behind must not be taken for what comes next.
        add(&mut tree, 1_000..1_300);
        let mut edge = Frontier::default();
        (0..300)
            .chain(1_000..1_300)
            .for_each(|number| edge.push(leaf(number)));
        assert_eq!(proof::root(&tree, 600).unwrap(), edge.root());
        assert_eq!(leaf_hint(dir.path(), 300), Some(leaf(1_000)));
        assert_eq!(leaf_hint(dir.path(), 600), None);
    }

    #[test]
    fn files_that_are_short_or_another_ledgers_are_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        for (ledger, file, keep) in [(7, "00", 9_000), (7, "08", 32), (8, "00", u64::MAX)] {
            let mut tree = Tree::open(dir.path(), 7, START).unwrap();
            let size = tree.size();
            add(&mut tree, size..512);
            tree.save().unwrap();
            let path = super::dir(dir.path()).join(file);
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(keep.min(file.metadata().unwrap().len()))
                .unwrap();
            let tree = Tree::open(dir.path(), ledger, START).unwrap();
            assert_eq!(tree.size(), 0, "{file:?}");
        }
    }
}
