//! The file of the outbox: one JSON object a line, the last word on each firing and delivery wins.
//!
//! A line that was cut off by a crash is not there. The file is made anew, without what nobody asks
//! for any more, at every start and when it has grown to several times its size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Delivery, Firing};

/// A line: a firing with the delivery that tells of it, or a delivery as it is now, or the id of
/// one that is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) firing: Option<Firing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delivery: Option<Delivery>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gone: Option<String>,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Its size when it was last made anew.
    base: u64,
    /// Whether the last write may have left a part of a line.
    torn: bool,
}

/// A file smaller than this is not worth making anew.
const SMALL: u64 = 1 << 20;
/// How many times its size it may grow to.
const GROWTH: u64 = 4;

/// What the file at `path` says, line by line; nothing if there is none.
pub(super) fn read(path: &Path) -> io::Result<Vec<Line>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let mut lines = Vec::new();
    let mut bad = 0_usize;
    for text in bytes.split(|byte| *byte == b'\n') {
        match serde_json::from_slice(text) {
            Ok(line) => lines.push(line),
            Err(_) if text.is_empty() => {}
            Err(_) => bad += 1,
        }
    }
    if bad > 0 {
        tracing::warn!(lines = bad, "the outbox has lines that cannot be read");
    }
    Ok(lines)
}

impl Journal {
    /// Makes the file at `path` anew from `lines`, durable and all or nothing.
    pub(super) fn create(path: &Path, lines: &[Line]) -> io::Result<Journal> {
        let draft = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&draft)?;
        let bytes = encode(lines)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        let bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(Journal {
            path: path.to_owned(),
            file,
            bytes,
            base: bytes,
            torn: false,
        })
    }

    /// Appends lines: durable once this answers, if `sync` asks for it.
    pub(super) fn append(&mut self, lines: &[Line], sync: bool) -> io::Result<()> {
        let mut bytes = encode(lines)?;
        if self.torn {
            bytes.insert(0, b'\n');
        }
        self.torn = true;
        self.file.write_all(&bytes)?;
        if sync {
            self.file.sync_data()?;
        }
        self.torn = false;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(length);
        Ok(())
    }

    /// Whether it is time to make it anew.
    pub(super) fn is_overgrown(&self) -> bool {
        self.bytes > self.base.max(SMALL).saturating_mul(GROWTH)
    }

    /// Makes it anew.
    pub(super) fn rewrite(&mut self, lines: &[Line]) -> io::Result<()> {
        *self = Journal::create(&self.path, lines)?;
        Ok(())
    }

    /// Everything that was appended is durable once this answers.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode(lines: &[Line]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line)?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(id: &str) -> Line {
        Line {
            gone: Some(id.to_owned()),
            ..Line::default()
        }
    }

    #[test]
    fn lines_read_back_and_a_torn_one_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(read(&path).unwrap(), []);
        let mut journal = Journal::create(&path, &[gone("a")]).unwrap();
        journal.append(&[gone("b"), gone("c")], true).unwrap();
        assert_eq!(read(&path).unwrap(), [gone("a"), gone("b"), gone("c")]);
        let whole = fs::read(&path).unwrap();
        for cut in 1..=13 {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let lines = read(&path).unwrap();
            // Without its line feed alone, a line is still whole.
            let wanted = if cut == 1 { 3 } else { 2 };
            assert_eq!(lines.len(), wanted, "{cut}");
        }
    }

    #[test]
    fn a_failed_write_spoils_no_later_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut journal = Journal::create(&path, &[gone("a")]).unwrap();
        journal.file.write_all(b"{\"gone\":\"b").unwrap();
        journal.torn = true;
        journal.append(&[gone("c")], true).unwrap();
        assert_eq!(read(&path).unwrap(), [gone("a"), gone("c")]);
    }

    #[test]
    fn it_is_made_anew_when_it_has_grown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut journal = Journal::create(&path, &[]).unwrap();
        let many: Vec<Line> = (0..1_000).map(|n| gone(&format!("{n:0>1000}"))).collect();
        let mut rounds = 0;
        while !journal.is_overgrown() {
            journal.append(&many, false).unwrap();
            rounds += 1;
            assert!(rounds < 10);
        }
        journal.rewrite(&[gone("a")]).unwrap();
        assert!(!journal.is_overgrown());
        journal.append(&[gone("b")], true).unwrap();
        assert_eq!(read(&path).unwrap(), [gone("a"), gone("b")]);
    }
}
