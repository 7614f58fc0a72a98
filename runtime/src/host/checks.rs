//! `farebox doctor`: each thing that sandboxes need of a host or that protects them, what is lost
//! without it, and the cure.

mod needed;
mod wanted;

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at; stable, in `snake_case`.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; empty when it is well.
    pub cure: String,
    /// What does not work or does not hold without it; empty when it is well.
    pub lost: String,
}

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Sandboxes run, but less well guarded, or fewer of them.
    Weak,
    /// No sandbox can run.
    Fault,
}

impl Verdict {
    /// As it is written: part of the contract of `farebox doctor --json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Weak => "weak",
            Verdict::Fault => "fault",
        }
    }
}

/// What an installation asks of its host.
#[derive(Clone, Copy, Debug)]
pub struct Needs<'a> {
    /// Where images are, or would be.
    pub images_dir: &'a Path,
    /// Where the ledger and the sandboxes' disks are, or would be.
    pub data_dir: &'a Path,
    /// What all disks of sandboxes together may take, in bytes.
    pub disk_bytes: u64,
    /// Sandboxes that may live at one time.
    pub sandboxes: u32,
    /// First user id of their ranges.
    pub uid_base: u32,
}

/// Looks at the host; changes nothing. To be called with one thread, since it forks.
#[must_use]
pub fn doctor(needs: &Needs<'_>) -> Vec<Check> {
    look(&Host {
        root: PathBuf::from("/"),
        needs: *needs,
    })
}

fn look(host: &Host<'_>) -> Vec<Check> {
    let needed = needed::ROWS.iter().map(|row| (Verdict::Fault, row));
    let wanted = wanted::ROWS.iter().map(|row| (Verdict::Weak, row));
    needed
        .chain(wanted)
        .map(|(without, row)| row.check(without, host))
        .collect()
}

/// What a look comes to: what was found, whether it is well or not.
type Finding = Result<String, String>;

/// One line of a table: a name, a look, what is lost if it finds nothing good, and the cure.
struct Row(
    &'static str,
    fn(&Host<'_>) -> Finding,
    &'static str,
    &'static str,
);

impl Row {
    fn check(&self, without: Verdict, host: &Host<'_>) -> Check {
        let Row(name, look, lost, cure) = *self;
        let (verdict, found, lost, cure) = match look(host) {
            Ok(found) => (Verdict::Ok, found, "", ""),
            Err(found) => (without, found, lost, cure),
        };
        Check {
            name,
            verdict,
            found,
            cure: cure.to_owned(),
            lost: lost.to_owned(),
        }
    }
}

/// The host that is looked at.
struct Host<'a> {
    /// Where its `/proc`, `/sys` and `/etc` are: `/`, but in tests.
    root: PathBuf,
    needs: Needs<'a>,
}

impl Host<'_> {
    /// The text of a file without the white space around it; none where there is no such file.
    fn text(&self, path: &str) -> Option<String> {
        let text = read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// The number that a file holds.
    fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn needs(dir: &Path) -> Needs<'_> {
        Needs {
            images_dir: dir,
            data_dir: dir,
            disk_bytes: 0,
            sandboxes: 4,
            uid_base: 0x4000_0000,
        }
    }

    #[test]
    fn only_what_is_wrong_has_a_cure_and_a_loss() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host {
            root: dir.path().to_owned(),
            needs: needs(dir.path()),
        };
        let well = Row("a", |_| Ok("there".to_owned()), "everything", "mend it");
        let well = well.check(Verdict::Fault, &host);
        assert_eq!((well.verdict, well.found.as_str()), (Verdict::Ok, "there"));
        assert!(well.cure.is_empty() && well.lost.is_empty());
        let wrong = Row("a", |_| Err("absent".to_owned()), "everything", "mend it");
        let wrong = wrong.check(Verdict::Weak, &host);
        assert_eq!((wrong.verdict, &*wrong.found), (Verdict::Weak, "absent"));
        assert_eq!((&*wrong.lost, &*wrong.cure), ("everything", "mend it"));
    }

    #[test]
    fn every_name_is_there_once() {
        let mut names: Vec<&str> = needed::ROWS
            .iter()
            .chain(&wanted::ROWS)
            .map(|row| row.0)
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
