//! Images: root file systems by digest, made from recipes or imported, found by name.
//!
//! On disk, under the store's directory, all owned by root and readable by everyone:
//!
//! ```text
//! sha256/HEX/rootfs/      the tree; never changed once it is there
//! sha256/HEX/image.json   what it is: Image without names
//! names.json              {"NAME:TAG": "sha256:HEX"}; replaced whole
//! lock                    held by whoever changes the store
//! staging/                the tree that is being made, by the holder of the lock
//! ```
//!
//! A digest is the SHA-256 of the canonical manifest that `image/tree.rs` documents, so it can be
//! computed again from the tree alone.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::spec::Digest;

pub use self::flaw::{Bound, Bounds, Flaw};
pub use self::import::{Import, Imported, Source};
pub use self::recipe::recipe_names;
pub use self::store::{Build, Built, Removed, Store, Version};
pub use self::unpack::unpack_main;

mod build;
pub(crate) mod flaw;
mod import;
pub(crate) mod needs;
mod recipe;
mod sources;
mod store;
mod tree;
mod unpack;

/// One image, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Name it was asked or listed by, without the tag; empty if only its digest names it.
    #[serde(skip)]
    pub name: String,
    /// Tag of that name, `latest` if none was given.
    #[serde(skip)]
    pub tag: String,
    /// SHA-256 of its canonical manifest.
    pub digest: Digest,
    /// Hash of the recipe that it was made from: 64 hex digits; empty if it was imported.
    pub recipe: String,
    /// What it was imported from: `tar` or `oci`, and the digest of the archive or the manifest;
    /// empty if it was built.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// Languages that code can be run in, the image's own first.
    pub languages: Vec<String>,
    /// Environment of every process; a request's own lies over it.
    pub env: BTreeMap<String, String>,
    /// Numeric user that processes run as, inside.
    pub uid: u32,
    /// Numeric group that processes run as, inside.
    pub gid: u32,
    /// When it was made, in seconds since the epoch.
    pub created_s: u64,
    /// Release that its packages come from; empty if it was imported.
    pub suite: String,
    /// Machine that its programs are for, in the package manager's word; empty if it was imported.
    pub architecture: String,
    /// What is installed; empty if it was imported.
    pub packages: Vec<Package>,
    /// Sum of the sizes of its files, in bytes.
    pub size_bytes: u64,
    /// Number of entries in its tree.
    pub entries: u64,
    /// Memory that an idle interpreter takes, in bytes: the least that a sandbox can do with, less
    /// 16 MiB.
    pub warm_bytes: u64,
}

/// A package in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// How an image is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// `name` or `name:tag`, here always with the tag.
    Named(String),
    /// `sha256:HEX`.
    Digest(Digest),
}

/// The tag of a name that is given without one.
const DEFAULT_TAG: &str = "latest";

impl Reference {
    /// Reads `name`, `name:tag` or `sha256:HEX`; names and tags are 1 to 64 of `a-z 0-9 . _ -`, and
    /// begin with a letter or digit.
    pub(crate) fn parse(text: &str) -> Result<Reference, Error> {
        let malformed = || Error::Reference {
            reference: text.to_owned(),
        };
        if text.starts_with("sha256:") {
            return text
                .parse()
                .map(Reference::Digest)
                .map_err(|_unhelpful| malformed());
        }
        let (name, tag) = text.split_once(':').unwrap_or((text, DEFAULT_TAG));
        let word = |word: &str| {
            (1..=64).contains(&word.len())
                && word.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && word.bytes().all(|b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
                })
        };
        if word(name) && word(tag) {
            Ok(Reference::Named(format!("{name}:{tag}")))
        } else {
            Err(malformed())
        }
    }
}

/// What a build or an import is doing, for a human.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The step, counted from 1.
    pub step: u32,
    /// How many steps there are.
    pub steps: u32,
    /// What the step does, or what its tool says.
    pub text: &'a str,
}

/// Why the store could not do what was asked.
#[expect(
    clippy::error_impl_error,
    reason = "named with its module, as in std::io"
)]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text names no image in any form.
    #[error("malformed image reference {reference:?}: want name, name:tag or sha256:HEX")]
    Reference {
        /// As given.
        reference: String,
    },
    /// No such image is in the store.
    #[error(
        "no image {reference:?} in {store}; `farebox image build NAME` or `import` makes one",
        store = .store.display()
    )]
    Unknown {
        /// As given.
        reference: String,
        /// The store's directory.
        store: PathBuf,
    },
    /// No recipe of that name is known.
    #[error("no recipe {name:?}; known: {}", known.join(", "))]
    NoRecipe {
        /// As given.
        name: String,
        /// Every recipe's name.
        known: Vec<String>,
    },
    /// The image still has names.
    #[error("{digest} is still named {}; remove the names first", names.join(", "))]
    StillNamed {
        /// The image.
        digest: Digest,
        /// Its names.
        names: Vec<String>,
    },
    /// Something that a build needs is not there.
    #[error("{missing}; {cure}")]
    Missing {
        /// What is missing.
        missing: String,
        /// What to do about it.
        cure: String,
    },
    /// The build's tools failed.
    #[error("building image {name} failed ({status}); {cure}; the last lines were:\n{tail}")]
    Build {
        /// The recipe.
        name: String,
        /// How the tool ended.
        status: String,
        /// Most likely remedy.
        cure: String,
        /// The last lines of its messages.
        tail: String,
    },
    /// The tree, or the archive, may not become the root of a sandbox.
    #[error("{entry} {flaw}")]
    Unsafe {
        /// Path inside the tree, escaped.
        entry: String,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// An OCI image layout is not as it must be.
    #[error("the layout's {part} {why}")]
    Layout {
        /// Which file of it, or which blob.
        part: String,
        /// What is wrong with it.
        why: String,
    },
    /// An archive could not be unpacked, for a reason of this host's.
    #[error("unpacking failed: {reason}; {cure}")]
    Unpack {
        /// What the unpacking process said, or how it ended.
        reason: String,
        /// Most likely remedy.
        cure: &'static str,
    },
    /// Somebody has interrupted the command.
    #[error("interrupted; nothing was kept")]
    Interrupted,
    /// A recipe or an index is malformed.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// Which file.
        what: String,
        /// Where and why.
        reason: String,
    },
    /// The file system said no.
    #[error("cannot {action} {path}", path = .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: the file system's no, with what was tried on what.
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            write!(f, "{}", self.digest)
        } else {
            write!(f, "{}:{}@{}", self.name, self.tag, self.digest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_names_with_tags_or_digests() {
        let named = |text| Reference::parse(text).ok();
        assert_eq!(
            named("python"),
            Some(Reference::Named("python:latest".to_owned()))
        );
        assert_eq!(
            named("py-3:1.2"),
            Some(Reference::Named("py-3:1.2".to_owned()))
        );
        let digest = Digest([7; 32]);
        assert_eq!(named(&digest.to_string()), Some(Reference::Digest(digest)));
    }

    #[test]
    fn malformed_references_are_refused() {
        let long = "a".repeat(65);
        for bad in [
            "",
            ":",
            "a:",
            ":b",
            "A",
            "-a",
            "a/b",
            "../x",
            "a b",
            "a:b:c",
            "sha256:12",
            &long,
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }
}
