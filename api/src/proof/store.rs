//! Signed checkpoints below `DIR/ledger/checkpoints`: one append-only file a day, each note durable
//! before anybody sees it, the oldest days dropped whole.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::clock::rfc3339;
use crate::note::{self, Note};

/// What the name of a day's file ends with.
const ENDING: &str = ".notes";

/// A signed checkpoint and its text.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) size: u64,
    pub(crate) root: [u8; 32],
    pub(crate) text: String,
}

/// The files.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    days_max: usize,
    /// Name and first size of each day's file, oldest first.
    days: Vec<(String, u64)>,
    latest: Option<Signed>,
}

/// A file of checkpoints that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}")]
pub(crate) struct StoreError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError {
        what,
        path: path.clone(),
        source,
    }
}

impl Store {
    /// Reads what there is; a note that a crash has cut off is dropped, as nobody has seen it.
    pub(crate) fn open(dir: &Path, days_max: usize) -> Result<Store, StoreError> {
        fs::create_dir_all(dir).map_err(failed("create", dir))?;
        let names = mend(dir)?;
        let mut store = Store {
            dir: dir.to_owned(),
            days_max,
            days: Vec::new(),
            latest: None,
        };
        for name in names {
            if let Some(first) = store.first_size(&name)? {
                store.days.push((name, first));
            }
        }
        if let Some((last, _)) = store.days.last() {
            store.latest = store.read(last)?.pop();
        }
        Ok(store)
    }

    /// The newest one.
    pub(crate) fn latest(&self) -> Option<&Signed> {
        self.latest.as_ref()
    }

    /// The newest one over `size` entries.
    pub(crate) fn at(&self, size: u64) -> Result<Option<Signed>, StoreError> {
        let behind = self.days.partition_point(|(_, first)| *first <= size);
        let Some((name, _)) = behind.checked_sub(1).and_then(|day| self.days.get(day)) else {
            return Ok(None);
        };
        Ok(self
            .read(name)?
            .into_iter()
            .rev()
            .find(|one| one.size == size))
    }

    /// The first size in a day's file, without reading all of it.
    fn first_size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let path = self.dir.join(name);
        let mut head = Vec::new();
        let file = File::open(&path).map_err(failed("open", &path))?;
        let read = file.take(note::NOTE_MAX_BYTES).read_to_end(&mut head);
        read.map_err(failed("read", &path))?;
        let head = String::from_utf8_lossy(&head);
        let Some(first) = note::split(&head).next() else {
            return Ok(None);
        };
        signed(&path, first).map(|first| Some(first.size))
    }

    fn read(&self, name: &str) -> Result<Vec<Signed>, StoreError> {
        let path = self.dir.join(name);
        let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
        note::split(&text).map(|text| signed(&path, text)).collect()
    }

    /// Appends a note, durably; `now_us` says to which day. Sizes only grow.
    pub(crate) fn append(&mut self, signed: Signed, now_us: i64) -> Result<(), StoreError> {
        let today = rfc3339(now_us)
            .split('T')
            .next()
            .unwrap_or_default()
            .to_owned()
            + ENDING;
        // A clock that was put back must not put sizes out of order.
        let name = match self.days.last() {
            Some((last, _)) if *last >= today => last.clone(),
            _ => today,
        };
        let path = self.dir.join(&name);
        append(&path, &signed.text).map_err(failed("write", &path))?;
        if self.days.last().is_none_or(|(last, _)| *last != name) {
            let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
            synced.map_err(failed("sync", &self.dir))?;
            self.days.push((name, signed.size));
        }
        self.latest = Some(signed);
        while self.days.len() > self.days_max {
            let path = self.dir.join(self.days.remove(0).0);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }
}

/// Drops a note at the end of the newest file that was not written whole, and names all files,
/// oldest first; none if there is no such directory.
pub(crate) fn mend(dir: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        listed => listed.map_err(failed("list", dir))?,
    };
    for entry in entries {
        let name = entry.map_err(failed("list", dir))?.file_name();
        names.extend(
            name.into_string()
                .ok()
                .filter(|name| name.ends_with(ENDING)),
        );
    }
    names.sort();
    if let Some(last) = names.last() {
        cut_torn(&dir.join(last))?;
    }
    Ok(names)
}

/// The checkpoint in a file's note.
fn signed(path: &Path, text: &str) -> Result<Signed, StoreError> {
    let note = Note::parse(text);
    let note = note
        .map_err(|error| failed("use", path)(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let (size, root) = (note.checkpoint().size, note.checkpoint().root);
    let text = text.to_owned();
    Ok(Signed { size, root, text })
}

/// Appends a note and an empty line to a file, durably. What a failure has written of it is taken
/// back, as far as that is possible.
pub(super) fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let before = file.metadata()?.len();
    let written = file
        .write_all(format!("{text}\n").as_bytes())
        .and_then(|()| file.sync_data());
    if written.is_err() && file.set_len(before).is_err() {
        tracing::warn!(path = %path.display(), "half a checkpoint may lie at the end of the file");
    }
    written
}

/// Drops what lies behind the last whole note.
fn cut_torn(path: &Path) -> Result<(), StoreError> {
    let bytes = fs::read(path).map_err(failed("read", path))?;
    // Every note ends with an empty line, which is written with it.
    let whole = bytes.windows(2).rposition(|pair| pair == b"\n\n");
    let mut length = whole.map_or(0, |at| at.saturating_add(2));
    // The empty line within a note whose signature is cut off is no end.
    let text = |length: usize| String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
    if Note::parse_all(&text(length)).is_err() {
        let head = bytes.get(..length.saturating_sub(2)).unwrap_or_default();
        let before = head.windows(2).rposition(|pair| pair == b"\n\n");
        length = before.map_or(0, |at| at.saturating_add(2));
    }
    if length == bytes.len() {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), "dropping a checkpoint that was not written whole");
    let cut = File::options().write(true).open(path).and_then(|file| {
        file.set_len(u64::try_from(length).unwrap_or(u64::MAX))?;
        file.sync_all()
    });
    cut.map_err(failed("cut", path))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::note::NoteSigner;

    const DAY: i64 = 86_400_000_000;

    fn one(size: u64) -> Signed {
        let signer = NoteSigner::new("test".to_owned(), SigningKey::from_bytes(&[1; 32]));
        let root = [u8::try_from(size % 251).unwrap(); 32];
        let text = signer.sign(size, &root);
        Signed { size, root, text }
    }

    fn filled(dir: &Path, days_max: usize) -> Store {
        let mut store = Store::open(dir, days_max).unwrap();
        for (size, day) in [(1, 0), (5, 0), (9, 1), (10, 3), (20, 3)] {
            store.append(one(size), day * DAY).unwrap();
        }
        store
    }

    fn sizes(store: &Store) -> Vec<u64> {
        (0..40)
            .filter(|size| store.at(*size).unwrap().is_some())
            .collect()
    }

    #[test]
    fn every_size_that_was_signed_is_found_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path(), 10);
        assert_eq!(sizes(&store), [1, 5, 9, 10, 20]);
        assert_eq!(store.at(9).unwrap().unwrap().text, one(9).text);
        let again = Store::open(dir.path(), 10).unwrap();
        assert_eq!(sizes(&again), [1, 5, 9, 10, 20]);
        assert_eq!(again.latest().unwrap().size, 20);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn the_oldest_days_are_dropped_whole() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sizes(&filled(dir.path(), 2)), [9, 10, 20]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_clock_that_was_put_back_keeps_sizes_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = filled(dir.path(), 10);
        store.append(one(30), 0).unwrap();
        assert_eq!(sizes(&store), [1, 5, 9, 10, 20, 30]);
        assert_eq!(
            sizes(&Store::open(dir.path(), 10).unwrap()),
            [1, 5, 9, 10, 20, 30]
        );
    }

    #[test]
    fn a_note_cut_off_at_any_byte_is_dropped_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path(), 10));
        let path = dir.path().join("1970-01-04.notes");
        let bytes = fs::read(&path).unwrap();
        let (first, two) = (one(10).text.len() + 1, bytes.len());
        for length in first..two {
            fs::write(&path, &bytes[..length]).unwrap();
            let mut store = Store::open(dir.path(), 10).unwrap();
            assert_eq!(store.latest().unwrap().size, 10, "{length}");
            store.append(one(20), 3 * DAY).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes, "{length}");
        }
        for length in 0..first {
            fs::write(&path, &bytes[..length]).unwrap();
            let store = Store::open(dir.path(), 10).unwrap();
            assert_eq!(store.latest().unwrap().size, 9, "{length}");
        }
    }
}
