//! Lays the entries of an archive into a directory, each below it and through no link.
//!
//! Every name is resolved by the kernel below the directory's descriptor, with links, other file
//! systems and the way out forbidden. Files are made anew, never opened; nothing that an entry says
//! can reach what another has made but by being refused or by replacing a lower layer's.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, fchmod, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};
use sha2::{Digest as _, Sha256};

use super::archive::{Kind, Member};
use super::{Order, Refused, Stop, Tally};
use crate::image::flaw::{self, Bound, Flaw};
use crate::launcher::kernel;

/// How the name of a layer's note begins that an entry of the layers below is gone.
const WHITEOUT: &[u8] = b".wh.";
/// The name of the note that everything of the layers below is gone from a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Later times than this are not set: no file of an image is from the year 2242.
const TIME_MAX_S: i64 = 1 << 33;

/// How much of a file is written at once, in bytes: the kernel keeps it in as large pieces as it
/// was written in, and what programs map of it is mapped and given up piece by piece.
const WRITTEN_AT_ONCE: usize = 1 << 20;

/// The directory and what was laid into it so far.
pub(super) struct Ground<'a> {
    root: BorrowedFd<'a>,
    order: &'a Order,
    tally: Tally,
    /// Paths of this archive and of the directories above them, by the half of their hash: what of
    /// the directory is not among them is of a layer below.
    seen: HashSet<[u8; 16]>,
    buffer: Vec<u8>,
}

/// What is at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Directory,
    File,
    Link,
}

impl<'a> Ground<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, order: &'a Order) -> Ground<'a> {
        Ground {
            root,
            order,
            tally: Tally::default(),
            seen: HashSet::new(),
            buffer: vec![0; WRITTEN_AT_ONCE],
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// Lays one entry.
    pub(super) fn lay(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), Stop> {
        let stop = |flaw| refused(&member.path, flaw);
        let parts = parts(&member.path).map_err(stop)?;
        self.count(member)?;
        let Some((name, above)) = parts.split_last() else {
            // The root itself: its owner and mode are the importer's.
            return match member.kind {
                Kind::Directory => Ok(()),
                Kind::File | Kind::Link | Kind::HardLink => Err(stop(Flaw::BadName)),
            };
        };
        if above.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err(stop(Flaw::Whiteout));
        }
        if name.starts_with(WHITEOUT) {
            if !self.order.is_layer || member.kind != Kind::File || member.size > 0 {
                return Err(stop(Flaw::Whiteout));
            }
            return self.white_out(above, name, &member.path);
        }
        for id in [member.uid, member.gid] {
            if id > flaw::ID_MAX {
                return Err(stop(Flaw::ForeignId { id }));
            }
        }
        let dir = self.directory(above, &member.path)?;
        let path = parts.join(&b'/');
        let is_second = !self.seen.insert(key(&path));
        let place = Place {
            dir: &dir,
            name,
            path: &path,
        };
        let found = place.found()?;
        let merges = member.kind == Kind::Directory && found == Found::Directory;
        if is_second && !merges {
            return Err(stop(Flaw::Duplicate));
        }
        if found != Found::Nothing && !merges {
            self.remove(&place, found)?;
        }
        match member.kind {
            Kind::Directory => self.lay_directory(&place, member, merges),
            Kind::File => self.lay_file(&place, member, content),
            Kind::Link => lay_link(&place, member),
            Kind::HardLink => self.lay_hard_link(&place, member),
        }
    }

    /// Adds the entry to what there is; nothing is made that passes a bound.
    fn count(&mut self, member: &Member) -> Result<(), Stop> {
        let bounds = &self.order.bounds;
        let beyond = |bound, max| refused(&member.path, Flaw::Beyond { bound, max });
        self.tally.entries += 1;
        if self.tally.entries > bounds.entries {
            return Err(beyond(Bound::Entries, self.order.told.entries));
        }
        if member.size > bounds.file_bytes {
            return Err(beyond(Bound::FileBytes, bounds.file_bytes));
        }
        // Headers count as well: an archive of nothing else has an end too.
        let bytes = member.size.saturating_add(member.header_bytes);
        if bytes > bounds.tree_bytes.saturating_sub(self.tally.bytes) {
            return Err(beyond(Bound::TreeBytes, self.order.told.tree_bytes));
        }
        self.tally.bytes += bytes;
        self.tally.attributes += member.attributes;
        self.tally.set_ids += u64::from(member.mode & 0o6000 != 0);
        Ok(())
    }

    /// The directory of these names, made where it is missing.
    fn directory(&mut self, parts: &[&[u8]], entry: &[u8]) -> Result<OwnedFd, Stop> {
        for count in (1..=parts.len()).rev() {
            let above = parts.get(..count).unwrap_or_default();
            if !self.seen.insert(key(&above.join(&b'/'))) {
                break;
            }
        }
        if let Some(dir) = self.open(parts, entry)? {
            return Ok(dir);
        }
        let mut dir = self.open(&[], entry)?;
        for count in 1..=parts.len() {
            let upto = parts.get(..count).unwrap_or_default();
            let next = self.open(upto, entry)?;
            if next.is_some() {
                dir = next;
                continue;
            }
            self.tally.entries += 1;
            if self.tally.entries > self.order.bounds.entries {
                let max = self.order.told.entries;
                let bound = Bound::Entries;
                return Err(refused(entry, Flaw::Beyond { bound, max }));
            }
            let name = upto.last().copied().unwrap_or_default();
            let at = dir.as_ref().map(AsRawFd::as_raw_fd);
            mkdirat(at, name, Mode::from_bits_truncate(0o755))
                .map_err(failed("make a directory", entry))?;
            dir = self.open(upto, entry)?;
        }
        dir.ok_or_else(|| failed("open a directory", entry)(Errno::ENOENT))
    }

    /// The directory of these names, if it is there.
    fn open(&self, parts: &[&[u8]], entry: &[u8]) -> Result<Option<OwnedFd>, Stop> {
        let path = if parts.is_empty() {
            b".".to_vec()
        } else {
            parts.join(&b'/')
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match kernel::open_beneath(self.root, path, flags.bits()) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOENT) => Ok(None),
                Some(Errno::ELOOP) => Err(refused(entry, Flaw::ThroughLink)),
                Some(Errno::ENOTDIR) => Err(refused(entry, Flaw::UnderFile)),
                _ => Err(Stop::failed("open a directory", entry, error)),
            },
        }
    }

    fn lay_directory(
        &self,
        place: &Place<'_>,
        member: &Member,
        is_there: bool,
    ) -> Result<(), Stop> {
        if !is_there {
            let made = mkdirat(Some(place.at()), place.name, Mode::S_IRWXU);
            made.map_err(failed("make a directory", place.path))?;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let dir = kernel::open_beneath(place.dir.as_fd(), place.name, flags.bits());
        let dir = dir.map_err(|error| Stop::failed("open a directory", place.path, error))?;
        let (uid, gid) = owner(member);
        fchown(dir.as_raw_fd(), uid, gid).map_err(failed("chown a directory", place.path))?;
        // The sticky bit stays, the set-id bits do not.
        let mode = Mode::from_bits_truncate(member.mode & 0o1777);
        fchmod(dir.as_raw_fd(), mode).map_err(failed("chmod a directory", place.path))
    }

    fn lay_file(
        &mut self,
        place: &Place<'_>,
        member: &Member,
        content: &mut dyn Read,
    ) -> Result<(), Stop> {
        let made = kernel::create_beneath(place.dir.as_fd(), place.name, 0o600);
        let made = made.map_err(|error| Stop::failed("make a file", place.path, error))?;
        let mut file = File::from(made);
        let mut left = member.size;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(usize::MAX);
            let room = room.min(self.buffer.len());
            let got = fill(content, &mut self.buffer[..room]);
            let got = got.map_err(|error| unreadable(&member.path, &error))?;
            if got == 0 {
                return Err(refused(&member.path, Flaw::Truncated));
            }
            let written = file.write_all(&self.buffer[..got]);
            written.map_err(|error| Stop::failed("write a file", place.path, error))?;
            left -= u64::try_from(got).unwrap_or(left);
        }
        let (uid, gid) = owner(member);
        let raw = file.as_raw_fd();
        fchown(raw, uid, gid).map_err(failed("chown a file", place.path))?;
        let mode = Mode::from_bits_truncate(member.mode & 0o777);
        fchmod(raw, mode).map_err(failed("chmod a file", place.path))?;
        // Interpreters compare it with what they have compiled of the file.
        let time_s = member.mtime_s.and_then(|time_s| i64::try_from(time_s).ok());
        if let Some(time_s) = time_s.filter(|time_s| *time_s < TIME_MAX_S) {
            let time = TimeSpec::new(time_s, 0);
            futimens(raw, &time, &time).map_err(failed("date a file", place.path))?;
        }
        Ok(())
    }

    /// A second name of a file that is there already; it may be of a layer below.
    fn lay_hard_link(&mut self, place: &Place<'_>, member: &Member) -> Result<(), Stop> {
        let stop = |flaw| refused(&member.path, flaw);
        let target = parts(&member.target).map_err(stop)?;
        let Some((name, above)) = target.split_last() else {
            return Err(stop(Flaw::LinkTarget));
        };
        let dir = self.open(above, &member.path)?;
        let dir = dir.ok_or_else(|| stop(Flaw::LinkTarget))?;
        let path = member.target.as_slice();
        let dir = &dir;
        let found = Place { dir, name, path }.found()?;
        if !matches!(found, Found::File | Found::Link) {
            return Err(stop(Flaw::LinkTarget));
        }
        let (from, to) = (Some(dir.as_raw_fd()), Some(place.at()));
        linkat(from, *name, to, place.name, AtFlags::empty())
            .map_err(failed("make a hard link", place.path))
    }

    /// Takes away what the layers below have at a name, or all that they have in a directory.
    fn white_out(&mut self, above: &[&[u8]], name: &[u8], entry: &[u8]) -> Result<(), Stop> {
        let Some(dir) = self.open(above, entry)? else {
            return Ok(());
        };
        if name == OPAQUE {
            return self.prune(&dir, &above.join(&b'/'));
        }
        let name = name.strip_prefix(WHITEOUT).unwrap_or_default();
        if matches!(name, b"" | b"." | b"..") || name.starts_with(WHITEOUT) {
            return Err(refused(entry, Flaw::Whiteout));
        }
        let path = [above, &[name]].concat().join(&b'/');
        let place = Place {
            dir: &dir,
            name,
            path: &path,
        };
        let found = place.found()?;
        if !self.seen.contains(&key(&path)) {
            return self.remove(&place, found);
        }
        // This archive has put something there itself; only what lies below that can be older.
        match found {
            Found::Directory => self.prune(&self.open_to_list(&place)?, &path),
            Found::Nothing | Found::File | Found::Link => Ok(()),
        }
    }

    /// Removes what is at a place, with all below it.
    fn remove(&self, place: &Place<'_>, found: Found) -> Result<(), Stop> {
        let flag = match found {
            Found::Nothing => return Ok(()),
            Found::Directory => {
                self.prune(&self.open_to_list(place)?, place.path)?;
                UnlinkatFlags::RemoveDir
            }
            Found::File | Found::Link => UnlinkatFlags::NoRemoveDir,
        };
        unlinkat(Some(place.at()), place.name, flag).map_err(failed("remove", place.path))
    }

    /// Removes all below a directory that is not of this archive. Goes no deeper than paths may be
    /// long.
    fn prune(&self, dir: &OwnedFd, path: &[u8]) -> Result<(), Stop> {
        let listed = kernel::open_beneath(dir.as_fd(), ".", OFlag::O_DIRECTORY.bits());
        let listed = listed.map_err(|error| Stop::failed("list a directory", path, error))?;
        let mut listed = Dir::from(listed).map_err(failed("list a directory", path))?;
        let names: Result<Vec<Vec<u8>>, Errno> = listed
            .iter()
            .map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()))
            .collect();
        drop(listed);
        for name in names.map_err(failed("list a directory", path))? {
            if matches!(name.as_slice(), b"." | b"..") {
                continue;
            }
            let below = match path {
                b"" => name.clone(),
                path => [path, &name].join(&b'/'),
            };
            let place = Place {
                dir,
                name: &name,
                path: &below,
            };
            let found = place.found()?;
            if !self.seen.contains(&key(&below)) {
                self.remove(&place, found)?;
            } else if found == Found::Directory {
                self.prune(&self.open_to_list(&place)?, &below)?;
            }
        }
        Ok(())
    }

    fn open_to_list(&self, place: &Place<'_>) -> Result<OwnedFd, Stop> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        kernel::open_beneath(place.dir.as_fd(), place.name, flags.bits())
            .map_err(|error| Stop::failed("open a directory", place.path, error))
    }
}

/// A name in an open directory, and the whole path for messages.
struct Place<'a> {
    dir: &'a OwnedFd,
    name: &'a [u8],
    path: &'a [u8],
}

impl Place<'_> {
    fn at(&self) -> RawFd {
        self.dir.as_raw_fd()
    }

    fn found(&self) -> Result<Found, Stop> {
        match fstatat(Some(self.at()), self.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
                SFlag::S_IFDIR => Ok(Found::Directory),
                SFlag::S_IFLNK => Ok(Found::Link),
                _ => Ok(Found::File),
            },
            Err(Errno::ENOENT) => Ok(Found::Nothing),
            Err(errno) => Err(failed("look at", self.path)(errno)),
        }
    }
}

/// Reads until the buffer is full or nothing more comes; answers how much that was.
fn fill(content: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match content.read(rest) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn lay_link(place: &Place<'_>, member: &Member) -> Result<(), Stop> {
    let target = member.target.as_slice();
    if target.is_empty() || target.contains(&0) {
        return Err(refused(&member.path, Flaw::BadName));
    }
    if u64::try_from(target.len()).unwrap_or(u64::MAX) > flaw::TARGET_BYTES_MAX {
        let (bound, max) = (Bound::TargetBytes, flaw::TARGET_BYTES_MAX);
        return Err(refused(&member.path, Flaw::Beyond { bound, max }));
    }
    symlinkat(target, Some(place.at()), place.name).map_err(failed("make a link", place.path))?;
    let (uid, gid) = owner(member);
    let flag = AtFlags::AT_SYMLINK_NOFOLLOW;
    fchownat(Some(place.at()), place.name, uid, gid, flag)
        .map_err(failed("chown a link", place.path))
}

/// The names of a path: none is `..`, too long or too deep; `.` and empty ones are left out.
fn parts(path: &[u8]) -> Result<Vec<&[u8]>, Flaw> {
    let long = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let within = |count, bound, max| {
        if long(count) > max {
            return Err(Flaw::Beyond { bound, max });
        }
        Ok(())
    };
    if path.is_empty() || path.contains(&0) {
        return Err(Flaw::BadName);
    }
    if path.starts_with(b"/") {
        return Err(Flaw::Absolute);
    }
    within(path.len(), Bound::PathBytes, flaw::PATH_BYTES_MAX)?;
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Flaw::Upward),
            part => {
                within(part.len(), Bound::NameBytes, flaw::NAME_BYTES_MAX)?;
                parts.push(part);
            }
        }
    }
    within(parts.len(), Bound::Depth, flaw::DEPTH_MAX)?;
    Ok(parts)
}

/// Half of a path's hash: a hundred million paths have no two that meet.
fn key(path: &[u8]) -> [u8; 16] {
    let hash = Sha256::digest(path);
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(hash) {
        *to = from;
    }
    half
}

/// Both ids are within a sandbox's range, or the entry was refused.
fn owner(member: &Member) -> (Option<Uid>, Option<Gid>) {
    let id = |id: u64| u32::try_from(id).unwrap_or_default();
    let (uid, gid) = (id(member.uid), id(member.gid));
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

fn refused(path: &[u8], flaw: Flaw) -> Stop {
    Stop::Refused(Refused::of(path, flaw))
}

/// What the content's reader stumbles over is the archive's fault.
fn unreadable(path: &[u8], error: &io::Error) -> Stop {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return refused(path, Flaw::Truncated);
    }
    let reason = flaw::escape(error.to_string().as_bytes());
    refused(path, Flaw::Malformed { reason })
}

fn failed(step: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Stop {
    let path = path.to_vec();
    move |errno| Stop::failed(step, &path, errno.into())
}
