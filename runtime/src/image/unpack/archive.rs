//! Reads a tar archive entry by entry: plain or compressed with gzip, names and ids from GNU and
//! PAX headers, everything bounded.
//!
//! The tar crate splits the stream into headers and contents; what the headers mean is decided
//! here, so that an archive which another reader may understand differently is refused: two sizes,
//! two names, content where none can be, something behind the end.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, EntryType, Header, PaxExtensions};

use super::{Refused, Stop};
use crate::image::flaw::{self, Bound, Flaw};

/// Size of a block of an archive, in bytes.
const BLOCK: u64 = 512;
/// Most bytes of one header that goes before an entry: names, attributes.
const HEADER_BYTES_MAX: u64 = 64 << 10;
/// Most bytes behind the end of an archive: it is filled up to the writer's record.
const PADDING_BYTES_MAX: u64 = 16 << 20;

/// How the archives begin that are told by name when they are refused.
const COMPRESSED: [(&[u8], &str); 5] = [
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
    (b"\x04\x22\x4d\x18", "lz4"),
];
/// How a stream compressed with gzip begins.
const GZIP: &[u8] = b"\x1f\x8b";

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    Link,
    HardLink,
}

/// One entry, as its headers tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) kind: Kind,
    /// As given; nothing about it is checked.
    pub(super) path: Vec<u8>,
    /// Target of a link of either kind.
    pub(super) target: Vec<u8>,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Bytes of content; 0 for everything but a file.
    pub(super) size: u64,
    /// Seconds since the epoch.
    pub(super) mtime_s: Option<u64>,
    /// How many extended attributes it would have.
    pub(super) attributes: u64,
    /// Bytes that its headers took.
    pub(super) header_bytes: u64,
}

/// Called for each entry with its content.
pub(super) type OnMember<'a> = dyn FnMut(&Member, &mut dyn Read) -> Result<(), Stop> + 'a;

/// Reads the whole of `input` and calls `each` for each entry, in order.
pub(super) fn read(input: &mut dyn Read, each: &mut OnMember<'_>) -> Result<(), Stop> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    let start = input.fill_buf().map_err(Stop::reading)?;
    for (magic, with) in COMPRESSED {
        if start.starts_with(magic) {
            let with = with.to_owned();
            return Err(refused(b"", Flaw::Compressed { with }));
        }
    }
    if start.starts_with(GZIP) {
        return members(&mut MultiGzDecoder::new(input), each);
    }
    members(&mut input, each)
}

fn members(input: &mut dyn Read, each: &mut OnMember<'_>) -> Result<(), Stop> {
    let stream = Rc::new(Stream::default());
    let mut archive = Archive::new(Counted {
        input,
        stream: Rc::clone(&stream),
    });
    let mut ahead = Ahead::default();
    let mut last = Vec::new();
    let mut end = 0;
    let entries = archive.entries().map_err(|error| damaged(&last, &error))?;
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|error| match stream.ended.get() {
            true => refused(&last, Flaw::Truncated),
            false => damaged(&last, &error),
        })?;
        let header = entry.header().clone();
        let size = header
            .entry_size()
            .map_err(|error| damaged(&last, &error))?;
        end = size
            .checked_next_multiple_of(BLOCK)
            .and_then(|size| size.checked_add(entry.raw_file_position()))
            .ok_or_else(|| refused(&last, Flaw::Truncated))?;
        if let Some(which) = Extension::of(header.entry_type()) {
            ahead.take(which, &mut entry, size)?;
            continue;
        }
        let member = std::mem::take(&mut ahead).member(&header, size)?;
        last.clone_from(&member.path);
        each(&member, &mut entry)?;
    }
    if ahead.header_bytes > 0 {
        return Err(refused(&last, Flaw::Truncated));
    }
    // The end is a block of zeros, which was read; a stream that just stops has none.
    if stream.taken.get() < end + BLOCK {
        return Err(refused(&last, Flaw::Truncated));
    }
    padding(&mut archive.into_inner(), &last)
}

/// Reads to the end of the stream, which a checksum may depend on: nothing but zeros.
fn padding(input: &mut dyn Read, last: &[u8]) -> Result<(), Stop> {
    let mut buffer = vec![0; 1 << 16];
    let mut seen = 0;
    loop {
        let got = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(damaged(last, &error)),
        };
        if buffer[..got].iter().any(|byte| *byte != 0) {
            return Err(refused(last, Flaw::Trailing));
        }
        seen += u64::try_from(got).unwrap_or(u64::MAX);
        if seen > PADDING_BYTES_MAX {
            return Err(beyond(last, Bound::PaddingBytes, PADDING_BYTES_MAX));
        }
    }
}

/// How far the reading of a stream is.
#[derive(Debug, Default)]
struct Stream {
    taken: Cell<u64>,
    ended: Cell<bool>,
}

/// Notes what is read, so that it is known where the stream has ended.
struct Counted<'a> {
    input: &'a mut dyn Read,
    stream: Rc<Stream>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        let taken = u64::try_from(got).map_err(io::Error::other)?;
        let taken = self.stream.taken.get().saturating_add(taken);
        self.stream.taken.set(taken);
        self.stream.ended.set(got == 0 && !buffer.is_empty());
        Ok(got)
    }
}

/// A header that tells something of the entry behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    GnuPath,
    GnuTarget,
    Pax,
    PaxGlobal,
}

impl Extension {
    fn of(kind: EntryType) -> Option<Extension> {
        match kind {
            EntryType::GNULongName => Some(Extension::GnuPath),
            EntryType::GNULongLink => Some(Extension::GnuTarget),
            EntryType::XHeader => Some(Extension::Pax),
            EntryType::XGlobalHeader => Some(Extension::PaxGlobal),
            _ => None,
        }
    }
}

/// What such headers have told of the entry to come.
#[derive(Debug, Default)]
struct Ahead {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    attributes: u64,
    header_bytes: u64,
    has_pax: bool,
}

impl Ahead {
    fn take(&mut self, which: Extension, content: &mut dyn Read, size: u64) -> Result<(), Stop> {
        self.header_bytes += size + BLOCK;
        if self.header_bytes > HEADER_BYTES_MAX {
            return Err(beyond(b"", Bound::HeaderBytes, HEADER_BYTES_MAX));
        }
        let mut text = Vec::new();
        let got = content.read_to_end(&mut text);
        let got = got.map_err(|error| damaged(b"", &error))?;
        if u64::try_from(got).unwrap_or(u64::MAX) < size {
            return Err(refused(b"", Flaw::Truncated));
        }
        match which {
            Extension::GnuPath => set_once(&mut self.path, gnu_name(text)?),
            Extension::GnuTarget => set_once(&mut self.target, gnu_name(text)?),
            Extension::Pax if self.has_pax => Err(twice(b"")),
            Extension::Pax => {
                self.has_pax = true;
                self.pax(&text)
            }
            // For every entry to come: a comment, never what decides where an entry goes.
            Extension::PaxGlobal => {
                let mut all = Ahead::default();
                all.pax(&text)?;
                let Ahead {
                    path: None,
                    target: None,
                    uid: None,
                    gid: None,
                    size: None,
                    ..
                } = all
                else {
                    return Err(refused(b"", Flaw::UnknownKind { kind: b'g' }));
                };
                self.header_bytes = 0;
                Ok(())
            }
        }
    }

    fn pax(&mut self, text: &[u8]) -> Result<(), Stop> {
        for record in PaxExtensions::new(text) {
            let record = record.map_err(|error| damaged(b"", &error))?;
            let value = record.value_bytes();
            let number = || {
                let text = std::str::from_utf8(value).unwrap_or_default();
                text.parse().map_err(|_no_number| {
                    let reason = "a PAX header has no number where one must be".to_owned();
                    refused(b"", Flaw::Malformed { reason })
                })
            };
            match record.key_bytes() {
                b"path" => set_once(&mut self.path, value.to_vec())?,
                b"linkpath" => set_once(&mut self.target, value.to_vec())?,
                b"uid" => set_once(&mut self.uid, number()?)?,
                b"gid" => set_once(&mut self.gid, number()?)?,
                b"size" => set_once(&mut self.size, number()?)?,
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(refused(self.name(), Flaw::Sparse));
                }
                key => self.attribute(key)?,
            }
        }
        Ok(())
    }

    /// Counts an extended attribute; none is ever set. Those that are an overlay's instructions say
    /// that the archive is of a layer on disk, which would not be what it seems to be.
    fn attribute(&mut self, key: &[u8]) -> Result<(), Stop> {
        let attributes: [&[u8]; 3] = [b"SCHILY.xattr.", b"LIBARCHIVE.xattr.", b"SCHILY.acl."];
        let Some(name) = attributes
            .iter()
            .find_map(|prefix| key.strip_prefix(*prefix))
        else {
            return Ok(());
        };
        let overlay: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
        if overlay.iter().any(|prefix| name.starts_with(prefix)) {
            let name = flaw::escape(name);
            return Err(refused(self.name(), Flaw::Attribute { name }));
        }
        self.attributes += 1;
        Ok(())
    }

    /// What is known of the entry's name.
    fn name(&self) -> &[u8] {
        self.path.as_deref().unwrap_or_default()
    }

    /// The entry that all this was about.
    fn member(self, header: &Header, size: u64) -> Result<Member, Stop> {
        let path = self
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        if self.size.is_some_and(|told| told != size) {
            return Err(refused(&path, Flaw::TwoSizes));
        }
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Link,
            EntryType::Link => Kind::HardLink,
            EntryType::Char | EntryType::Block => return Err(refused(&path, Flaw::Device)),
            EntryType::Fifo => return Err(refused(&path, Flaw::Special)),
            EntryType::GNUSparse => return Err(refused(&path, Flaw::Sparse)),
            other => {
                let kind = other.as_byte();
                return Err(refused(&path, Flaw::UnknownKind { kind }));
            }
        };
        if kind != Kind::File && size > 0 {
            return Err(refused(&path, Flaw::Content));
        }
        let target = self.target;
        let target = target.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let number = |found: io::Result<u64>| found.map_err(|error| damaged(&path, &error));
        let mode = header.mode().map_err(|error| damaged(&path, &error))?;
        Ok(Member {
            kind,
            target: target.unwrap_or_default(),
            mode: mode & 0o7777,
            uid: self.uid.map_or_else(|| number(header.uid()), Ok)?,
            gid: self.gid.map_or_else(|| number(header.gid()), Ok)?,
            size,
            mtime_s: header.mtime().ok(),
            attributes: self.attributes,
            header_bytes: self.header_bytes,
            path,
        })
    }
}

/// Each thing is told once, or two readers could take two different ones of it.
fn set_once<T>(to: &mut Option<T>, value: T) -> Result<(), Stop> {
    match to.replace(value) {
        None => Ok(()),
        Some(_) => Err(twice(b"")),
    }
}

/// A name up to the NUL that ends it.
fn gnu_name(mut text: Vec<u8>) -> Result<Vec<u8>, Stop> {
    let end = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    if text
        .get(end..)
        .is_some_and(|rest| rest.iter().any(|byte| *byte != 0))
    {
        return Err(refused(&text, Flaw::BadName));
    }
    text.truncate(end);
    Ok(text)
}

fn refused(path: &[u8], flaw: Flaw) -> Stop {
    Stop::Refused(Refused::of(path, flaw))
}

fn beyond(path: &[u8], bound: Bound, max: u64) -> Stop {
    refused(path, Flaw::Beyond { bound, max })
}

fn twice(path: &[u8]) -> Stop {
    let reason = "two headers tell the same of one entry".to_owned();
    refused(path, Flaw::Malformed { reason })
}

/// What the tar crate or the decompressor stumbles over; the entry is the last one that was whole.
fn damaged(path: &[u8], error: &io::Error) -> Stop {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return refused(path, Flaw::Truncated);
    }
    let reason = flaw::escape(error.to_string().as_bytes());
    refused(path, Flaw::Malformed { reason })
}
