//! What an image can have that no sandbox may have: each flaw with its cause and its cure, in one
//! list.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most directories from the root to an entry, the entry counted.
pub(crate) const DEPTH_MAX: u64 = 128;
/// Longest path of an entry in bytes: with the store's own before it, it must stay below 4,096.
pub(crate) const PATH_BYTES_MAX: u64 = 2048;
/// Longest name in bytes, as file systems have it.
pub(crate) const NAME_BYTES_MAX: u64 = 255;
/// Longest target of a symbolic link in bytes, as the kernel has it.
pub(crate) const TARGET_BYTES_MAX: u64 = 4095;
/// Largest user or group id: as many as a sandbox has.
pub(crate) const ID_MAX: u64 = 65_535;
/// Longest text that an error quotes of an image, in bytes before it is escaped.
const QUOTED_BYTES: usize = 200;

/// How large an image may be; configured in `[images]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Bytes of all files together, holes counted as if they were written.
    pub tree_bytes: u64,
    /// Bytes of the largest file.
    pub file_bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

/// A bound that an image passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bound {
    /// [`Bounds::tree_bytes`].
    TreeBytes,
    /// [`Bounds::file_bytes`].
    FileBytes,
    /// [`Bounds::entries`].
    Entries,
    /// Directories above an entry.
    Depth,
    /// Bytes of a path.
    PathBytes,
    /// Bytes of a name.
    NameBytes,
    /// Bytes of a link's target.
    TargetBytes,
    /// Bytes of what an archive says of one entry besides its content.
    HeaderBytes,
    /// Bytes behind the end of an archive.
    PaddingBytes,
}

/// Why an image is refused. Its text follows the path of the entry at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flaw {
    /// One of the directories that sandboxes rely on is not there.
    Missing,
    /// Something else is in the place of such a directory; a link would be followed on the host.
    NotDirectory,
    /// Such a directory belongs to somebody else.
    Owner {
        /// Whose it is.
        found: u32,
        /// Whose it must be.
        wanted: u32,
    },
    /// Such a directory can be written to by others.
    Writable,
    /// A device node.
    Device,
    /// A socket or a named pipe.
    Special,
    /// A set-user-id or set-group-id bit.
    SetId,
    /// An extended attribute: file capabilities, access lists, instructions to the overlay.
    Attribute {
        /// Its name, escaped.
        name: String,
    },
    /// An owner that no sandbox can have.
    ForeignId {
        /// The user or group id.
        id: u64,
    },
    /// A whiteout: a layer's note that an entry of the layers below is gone.
    Whiteout,
    /// A size beyond its bound.
    Beyond {
        /// Which.
        bound: Bound,
        /// The bound.
        max: u64,
    },
    /// An archive's name that begins with `/`.
    Absolute,
    /// An archive's name with `..` in it.
    Upward,
    /// A name with a NUL in it, or without any character.
    BadName,
    /// An archive's entry that goes through a symbolic link.
    ThroughLink,
    /// An archive's entry below something that is no directory.
    UnderFile,
    /// A second entry of the same name in one archive.
    Duplicate,
    /// A hard link to what is not there, or is no file.
    LinkTarget,
    /// A file with holes that are not written out.
    Sparse,
    /// An entry that is no file, but says that it has content.
    Content,
    /// An entry of a kind that root file systems do not have.
    UnknownKind {
        /// The byte that stands for it.
        kind: u8,
    },
    /// An entry whose size is told in two ways.
    TwoSizes,
    /// An archive that ends before its end.
    Truncated,
    /// An archive with something behind its end.
    Trailing,
    /// An archive in a compression that is not read.
    Compressed {
        /// Which.
        with: String,
    },
    /// No archive, or a damaged one.
    Malformed {
        /// What is wrong with it, escaped.
        reason: String,
    },
}

impl Flaw {
    /// What to do about it.
    #[must_use]
    pub fn cure(&self) -> &'static str {
        match self {
            Flaw::Missing | Flaw::NotDirectory => {
                "every image has /dev /proc /sys /etc /tmp /run /workspace as plain directories; \
                 if the store was changed, remove the image and make it again"
            }
            Flaw::Owner { .. } | Flaw::Writable => {
                "give it its owner and mode back (docs/images.md); if the store was changed, \
                 remove the image and make it again"
            }
            Flaw::Device => {
                "leave it out: tar --exclude=./dev/*; a sandbox gets devices of its own"
            }
            Flaw::Special => "remove it: a program makes its own when it runs",
            Flaw::SetId => "chmod u-s,g-s: it has no effect in a sandbox",
            Flaw::Attribute { .. } => {
                "remove it (setfattr -x, setcap -r, setfacl -b): nothing of that kind has an \
                 effect in a sandbox"
            }
            Flaw::ForeignId { .. } => "chown it to ids from 0 to 65535",
            Flaw::Whiteout => {
                "this is a layer, or the upper directory of one: import the whole image, as an \
                 OCI layout or as a root file system"
            }
            Flaw::Beyond { bound, .. } => bound.cure(),
            Flaw::Absolute | Flaw::Upward | Flaw::BadName => {
                "make the archive from inside the root: tar -C ROOT -c ."
            }
            Flaw::ThroughLink | Flaw::UnderFile => {
                "make the archive from a tree on disk, where every entry lies in a directory"
            }
            Flaw::Duplicate => "make the archive again, in one go, without tar -r and -A",
            Flaw::LinkTarget => {
                "make the archive from the whole root, so that the file comes before its links"
            }
            Flaw::Sparse => "make the archive without --sparse",
            Flaw::Content | Flaw::UnknownKind { .. } | Flaw::TwoSizes => {
                "make the archive with GNU tar or a container tool: plain files, directories and \
                 links"
            }
            Flaw::Truncated | Flaw::Trailing | Flaw::Malformed { .. } => {
                "get the archive again, and compare its checksum"
            }
            Flaw::Compressed { .. } => "decompress it first; tar and tar.gz are read",
        }
    }
}

impl Bound {
    fn cure(self) -> &'static str {
        match self {
            Bound::TreeBytes => "make the image smaller, or raise images.tree_max_bytes",
            Bound::FileBytes => "make the file smaller, or raise images.file_max_bytes",
            Bound::Entries => "leave files out, or raise images.entries_max",
            Bound::Depth | Bound::PathBytes | Bound::NameBytes | Bound::TargetBytes => {
                "shorten it; this bound is fixed"
            }
            Bound::HeaderBytes => "leave out extended attributes and comments",
            Bound::PaddingBytes => "make the archive with a smaller blocking factor",
        }
    }

    /// Names what has a maximum.
    fn name(self) -> &'static str {
        match self {
            Bound::TreeBytes => "bytes of all files together",
            Bound::FileBytes => "bytes of a file",
            Bound::Entries => "entries",
            Bound::Depth => "directories deep",
            Bound::PathBytes => "bytes of a path",
            Bound::NameBytes => "bytes of a name",
            Bound::TargetBytes => "bytes of a link's target",
            Bound::HeaderBytes => "bytes of header",
            Bound::PaddingBytes => "bytes of padding",
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Missing => f.write_str("is missing"),
            Flaw::NotDirectory => f.write_str("is not a plain directory"),
            Flaw::Owner { found, wanted } => write!(f, "belongs to user {found}, not to {wanted}"),
            Flaw::Writable => f.write_str("can be written to by others"),
            Flaw::Device => f.write_str("is a device node"),
            Flaw::Special => f.write_str("is a socket or a named pipe"),
            Flaw::SetId => f.write_str("is set-user-id or set-group-id"),
            Flaw::Attribute { name } => write!(f, "has the extended attribute {name}"),
            Flaw::ForeignId { id } => write!(f, "belongs to user or group {id}, above {ID_MAX}"),
            Flaw::Whiteout => f.write_str("is a whiteout, where there is no layer below"),
            Flaw::Beyond { bound, max } => write!(f, "passes the most of {max} {}", bound.name()),
            Flaw::Absolute => f.write_str("has an absolute path"),
            Flaw::Upward => f.write_str("has `..` in its path"),
            Flaw::BadName => f.write_str("has a name that no file can have"),
            Flaw::ThroughLink => f.write_str("lies behind a symbolic link"),
            Flaw::UnderFile => f.write_str("lies below something that is no directory"),
            Flaw::Duplicate => f.write_str("is in the archive twice"),
            Flaw::LinkTarget => f.write_str("is a hard link to what is no file before it"),
            Flaw::Sparse => f.write_str("is stored as a sparse file"),
            Flaw::Content => f.write_str("is no file, but has content"),
            Flaw::UnknownKind { kind } => {
                write!(f, "is of the unknown kind '{}'", kind.escape_ascii())
            }
            Flaw::TwoSizes => f.write_str("has two sizes"),
            Flaw::Truncated => f.write_str("is cut off"),
            Flaw::Trailing => f.write_str("is followed by data behind the archive's end"),
            Flaw::Compressed { with } => write!(f, "is compressed with {with}"),
            Flaw::Malformed { reason } => write!(f, "is damaged, or what follows it: {reason}"),
        }
    }
}

/// A path or name of an image as an error may quote it: printable, and not too long.
pub(crate) fn escape(text: &[u8]) -> String {
    let cut = text.get(..QUOTED_BYTES).unwrap_or(text);
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("{}{more}", cut.escape_ascii())
}

/// The same of a path below the image's root.
pub(crate) fn escape_path(path: &[u8]) -> String {
    format!("/{}", escape(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_reach_an_error_printable_and_short() {
        assert_eq!(
            escape_path(b"etc/a\n\x1b[2Jb\xff"),
            "/etc/a\\n\\x1b[2Jb\\xff"
        );
        let long = escape(&[b'\n'; 5000]);
        assert_eq!(long.len(), 2 * QUOTED_BYTES + 3);
        assert!(long.ends_with("\\n..."));
    }

    #[test]
    fn a_flaw_reads_as_a_sentence_behind_its_path_and_has_a_cure() {
        let flaw = Flaw::Beyond {
            bound: Bound::Depth,
            max: DEPTH_MAX,
        };
        assert_eq!(flaw.to_string(), "passes the most of 128 directories deep");
        assert!(!flaw.cure().is_empty());
    }
}
