//! Archives in the making, and the directory that they are unpacked into.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

use super::super::*;

pub(super) const BOUNDS: Bounds = Bounds {
    tree_bytes: 1 << 20,
    file_bytes: 1 << 19,
    entries: 200,
};

/// An archive in the making, header by header.
#[derive(Clone, Default)]
pub(super) struct Tar(pub(super) Vec<u8>);

impl Tar {
    /// What every archive here begins with.
    pub(super) fn good() -> Tar {
        Tar::default()
            .directory("./")
            .directory("etc/")
            .file("etc/hosts", b"localhost")
            .link("etc/link", "hosts")
    }

    pub(super) fn entry(mut self, header: &Header, content: &[u8]) -> Tar {
        let mut header = header.clone();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn directory(self, path: &str) -> Tar {
        self.entry(&header(EntryType::Directory, path, 0), b"")
    }

    pub(super) fn file(self, path: &str, content: &[u8]) -> Tar {
        self.entry(&header(EntryType::Regular, path, content.len()), content)
    }

    pub(super) fn link(self, path: &str, target: &str) -> Tar {
        self.to(EntryType::Symlink, path, target)
    }

    pub(super) fn hard_link(self, path: &str, target: &str) -> Tar {
        self.to(EntryType::Link, path, target)
    }

    pub(super) fn to(self, kind: EntryType, path: &str, target: &str) -> Tar {
        let mut header = header(kind, path, 0);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.entry(&header, b"")
    }

    pub(super) fn special(self, kind: EntryType, path: &str) -> Tar {
        self.entry(&header(kind, path, 0), b"")
    }

    /// A header before an entry: a long name, or PAX records.
    pub(super) fn before(self, kind: EntryType, content: &[u8]) -> Tar {
        self.entry(&header(kind, "././@x", content.len()), content)
    }

    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        self.before(EntryType::XHeader, &pax(records))
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(super) fn header(kind: EntryType, path: &str, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory {
        0o755
    } else {
        0o644
    });
    header.set_uid(nix::unistd::geteuid().as_raw().into());
    header.set_gid(nix::unistd::getegid().as_raw().into());
    header.set_mtime(1_700_000_000);
    header.set_size(size as u64);
    header
}

pub(super) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let long = (rest + 1..).find(|long| long - rest == long.to_string().len());
        write!(text, "{} {key}=", long.unwrap()).unwrap();
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    text
}

pub(super) fn gzip(archive: &[u8]) -> Vec<u8> {
    let mut to = GzEncoder::new(Vec::new(), Compression::fast());
    to.write_all(archive).unwrap();
    to.finish().unwrap()
}

/// A directory to unpack into, beside one that nothing may touch.
pub(super) struct Ring {
    dir: tempfile::TempDir,
    pub(super) tally: Tally,
}

impl Ring {
    pub(super) fn new() -> Ring {
        let dir = tempfile::tempdir().unwrap();
        for name in ["root", "outside"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("outside/file"), "outside").unwrap();
        let tally = Tally::default();
        Ring { dir, tally }
    }

    pub(super) fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }

    pub(super) fn lay(&mut self, archive: &[u8], is_layer: bool) -> Result<Tally, Refused> {
        self.lay_within(archive, is_layer, BOUNDS)
    }

    pub(super) fn lay_within(
        &mut self,
        mut archive: &[u8],
        is_layer: bool,
        bounds: Bounds,
    ) -> Result<Tally, Refused> {
        let order = Order {
            parent: 1,
            is_layer,
            bounds,
            told: bounds,
        };
        let root = File::open(self.root()).unwrap();
        let done = unpack(&mut archive, root.as_fd(), &order);
        let outside = fs::read_dir(self.dir.path().join("outside")).unwrap();
        assert_eq!(outside.count(), 1, "something was made outside");
        let path = self.dir.path().join("outside/file");
        assert_eq!(fs::read(&path).unwrap(), b"outside");
        assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
        match done {
            Ok(tally) => {
                self.tally = tally;
                Ok(tally)
            }
            Err(Stop::Refused(refused)) => Err(refused),
            Err(failed) => panic!("{failed:?}"),
        }
    }

    /// What is there: each path with its content, its target, or nothing.
    pub(super) fn tree(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        list(&self.root(), "", &mut found);
        found
    }
}

fn list(dir: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            list(&path, &format!("{name}/"), found);
            found.insert(name, "/".to_owned());
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            found.insert(name, format!("-> {}", target.display()));
        } else {
            found.insert(name, String::from_utf8(fs::read(&path).unwrap()).unwrap());
        }
    }
}

/// Lays one archive into an empty directory.
pub(super) fn lay(archive: &[u8]) -> Result<Ring, Refused> {
    let mut ring = Ring::new();
    ring.lay(archive, false).map(|_| ring)
}

/// The good archive is unpacked; with the trick behind it, it is refused for `flaw` at `entry`.
pub(super) fn refuses(trick: impl FnOnce(Tar) -> Tar, entry: &str, flaw: &Flaw) {
    refuses_bytes(&trick(Tar::good()).end(), entry, flaw);
}

pub(super) fn refuses_bytes(archive: &[u8], entry: &str, flaw: &Flaw) {
    let control = lay(&Tar::good().end()).unwrap_or_else(|why| panic!("the control: {why:?}"));
    assert_eq!(control.tree().len(), 3);
    let refused = match lay(archive) {
        Ok(ring) => panic!("{entry}: {flaw}: unpacked to {:?}", ring.tree()),
        Err(refused) => refused,
    };
    let expected = (entry.to_owned(), flaw.clone());
    assert_eq!((refused.entry, refused.flaw), expected);
}

/// Archives with a harmless look-alike of a trick are unpacked.
pub(super) fn accepts(look_alike: impl FnOnce(Tar) -> Tar) -> Ring {
    let archive = look_alike(Tar::good()).end();
    lay(&archive).unwrap_or_else(|why| panic!("refused: {why:?}"))
}

pub(super) fn malformed(reason: &str) -> Flaw {
    let reason = reason.to_owned();
    Flaw::Malformed { reason }
}
