//! Copies of a data directory, made beside a running server: what a server needs to go on from, and
//! nothing that it can make again.
//!
//! A copy has the form of a data directory: `ledger/journal`, `ledger/checkpoints`, `keys`,
//! `outbox`. `ledger` gets its name last, once all of it is durable and has been looked at.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ledger::{Copied, Progress, copy_journal};
use nix::fcntl::OFlag;

use crate::proof::store;

/// The ledger's name while the copy is not whole.
const DRAFT: &str = "ledger.part";
/// Directories in directories: deeper is nothing of ours.
const DEPTH_MAX: u32 = 3;
/// What a copy may find where it is made: a file system's own.
const LOST: &str = "lost+found";

/// A copy that is not in its place yet: what it has made goes when it is dropped.
#[derive(Debug)]
pub struct Draft {
    to: PathBuf,
    copied: Copied,
    placed: bool,
}

/// Why a data directory was not copied; nothing is left of the copy then.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The place of the copy is in use.
    #[error("{path} is not empty: it has {found}")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// The journal could not be copied.
    #[error("cannot copy the journal")]
    Journal(#[source] ledger::Error),
    /// A file operation failed.
    #[error("cannot {what} {path}")]
    File {
        /// The operation.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The signed checkpoints could not be copied.
    #[error("cannot copy the signed checkpoints: {reason}")]
    Checkpoints {
        /// Why not.
        reason: String,
    },
}

fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| BackupError::File {
        what,
        path: path.clone(),
        source,
    }
}

impl Draft {
    /// Copies the data directory `from` into `to`, which must be absent or empty. A server may work
    /// on `from` meanwhile: the copy has every entry that it had answered before this was called.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn copy(
        from: &Path,
        to: &Path,
        on: &mut dyn FnMut(Progress),
    ) -> Result<Draft, BackupError> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(to);
        made.map_err(failed("make", to))?;
        must_be_empty(to)?;
        let mut draft = Draft {
            to: to.to_owned(),
            copied: Copied::default(),
            placed: false,
        };
        draft.fill(from, on)?;
        Ok(draft)
    }

    /// What belongs to an entry is copied before it or after it, never the one way only: each
    /// signed checkpoint before the entries that it covers, each secret both before and after the
    /// act that names it, and what was told of an entry after it, so that it is not told again.
    fn fill(&mut self, from: &Path, on: &mut dyn FnMut(Progress)) -> Result<(), BackupError> {
        let (source, ledger) = (from.join("ledger"), self.ledger_dir());
        let checkpoints = ledger.join("checkpoints");
        copy_dir(&from.join("outbox"), &self.to.join("outbox"), 0)?;
        copy_dir(&source.join("checkpoints"), &checkpoints, 0)?;
        store::mend(&checkpoints).map_err(|error| BackupError::Checkpoints {
            reason: crate::config::chain(&error),
        })?;
        self.copied = copy_journal(&source, &ledger, on).map_err(BackupError::Journal)?;
        copy_dir(&from.join("keys"), &self.to.join("keys"), 0)?;
        copy_dir(&from.join("outbox"), &self.to.join("outbox"), 0)?;
        sync(&ledger)?;
        sync(&self.to)
    }

    /// The copy's ledger, to be verified.
    #[must_use]
    pub fn ledger_dir(&self) -> PathBuf {
        self.to.join(DRAFT)
    }

    /// Puts the copy in its place, durably, and says what it has of the journal.
    ///
    /// # Errors
    /// The ledger could not get its name.
    pub fn place(mut self) -> Result<Copied, BackupError> {
        let ledger = self.to.join("ledger");
        let named = fs::rename(self.ledger_dir(), &ledger);
        named.map_err(failed("name", &ledger))?;
        self.placed = true;
        sync(&self.to)?;
        self.to.parent().map_or(Ok(()), sync)?;
        Ok(self.copied)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.placed {
            return;
        }
        for name in [DRAFT, "keys", "outbox"] {
            let path = self.to.join(name);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "half a copy is left");
                }
                _ => {}
            }
        }
    }
}

fn must_be_empty(path: &Path) -> Result<(), BackupError> {
    for entry in fs::read_dir(path).map_err(failed("list", path))? {
        let name = entry.map_err(failed("list", path))?.file_name();
        if name != LOST {
            return Err(BackupError::NotEmpty {
                path: path.to_owned(),
                found: name.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}

/// Copies the files below `from`, if there is such a directory; what vanishes meanwhile, drafts and
/// links are left out.
///
/// Whoever took the server over may put links there, and this may be root: none is followed, also
/// where one comes meanwhile.
fn copy_dir(from: &Path, to: &Path, depth: u32) -> Result<(), BackupError> {
    let directory = match open(from, OFlag::O_DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed("open the directory", from))?,
    };
    let held = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let entries = fs::read_dir(&held).map_err(failed("list", from))?;
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(to);
    made.map_err(failed("make", to))?;
    for entry in entries {
        let entry = entry.map_err(failed("list", from))?;
        let (source, target) = (held.join(entry.file_name()), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(failed("look at", &source))?;
        let ending = source.extension();
        let is_draft = ending.is_some_and(|ending| ending == "new" || ending == "tmp");
        if kind.is_dir() && depth < DEPTH_MAX {
            copy_dir(&source, &target, depth.saturating_add(1))?;
        } else if kind.is_file() && !is_draft {
            copy_file(&source, &target)?;
        }
    }
    sync(to)
}

fn copy_file(from: &Path, to: &Path) -> Result<(), BackupError> {
    let source = match open(from, OFlag::O_NONBLOCK) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed("read", to))?,
    };
    let write = || -> io::Result<()> {
        let found = source.metadata()?;
        if !found.is_file() || found.nlink() != 1 {
            return Err(io::Error::other(
                "the source is no file, or has a second name",
            ));
        }
        // No more than there is now: it may grow as fast as it is copied.
        let bytes = found.len();
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(to)?;
        io::copy(&mut source.take(bytes), &mut file)?;
        file.sync_all()
    };
    write().map_err(failed("write", to))
}

fn open(path: &Path, flags: OFlag) -> io::Result<File> {
    let flags = flags | OFlag::O_NOFOLLOW;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits()).open(path)
}

fn sync(dir: &Path) -> Result<(), BackupError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(failed("sync", dir))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_whole_files_are_copied_and_only_their_owner_reads_them() {
        let top = tempfile::tempdir().unwrap();
        let (from, to) = (top.path().join("keys"), top.path().join("copy"));
        fs::create_dir_all(from.join("ledger")).unwrap();
        for name in ["1-a.key", "2-b.new", "3-c.tmp", "ledger/1-d.key"] {
            fs::write(from.join(name), "seed").unwrap();
        }
        symlink("/etc/passwd", from.join("link.key")).unwrap();
        copy_dir(&from, &to, 0).unwrap();
        assert_eq!(names(&to), ["1-a.key", "ledger"]);
        assert_eq!(names(&to.join("ledger")), ["1-d.key"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&to.join("1-a.key")), 0o600);
        assert_eq!(mode(&to.join("ledger")), 0o700);
        assert!(copy_file(&from.join("link.key"), &to.join("x")).is_err());
        fs::hard_link(from.join("1-a.key"), from.join("other.key")).unwrap();
        assert!(copy_file(&from.join("1-a.key"), &to.join("x")).is_err());
        symlink(&from, top.path().join("linked")).unwrap();
        let linked = copy_dir(&top.path().join("linked"), &top.path().join("none"), 0);
        assert!(
            matches!(linked, Err(BackupError::File { .. })),
            "{linked:?}"
        );
        copy_dir(&top.path().join("absent"), &top.path().join("none"), 0).unwrap();
        assert!(!top.path().join("none").exists());
    }

    #[test]
    fn a_copy_that_fails_leaves_nothing_and_one_in_use_is_not_touched() {
        let top = tempfile::tempdir().unwrap();
        let (from, to) = (top.path().join("data"), top.path().join("copy"));
        fs::create_dir_all(from.join("keys")).unwrap();
        fs::create_dir_all(from.join("ledger/journal")).unwrap();
        fs::write(from.join("keys/1-a.key"), "seed").unwrap();
        fs::create_dir_all(to.join(LOST)).unwrap();
        let error = Draft::copy(&from, &to, &mut |_| {}).unwrap_err();
        assert!(matches!(error, BackupError::Journal(_)), "{error}");
        assert_eq!(names(&to), [LOST]);
        fs::write(to.join("mine"), "").unwrap();
        let error = Draft::copy(&from, &to, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("it has mine"), "{error}");
        assert_eq!(names(&to), [LOST, "mine"]);
    }
}
