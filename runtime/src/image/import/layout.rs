//! OCI image layouts: which layers make the image of this machine, and the blobs that they are in.
//!
//! Nothing in a layout is believed but what its digests prove: the index says which manifest, and
//! whoever made the layout could have said another; from there on every blob is what the one before
//! says, byte for byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::image::{Error, flaw};
use crate::launcher::kernel;
use crate::spec::Digest;

/// Longest index, manifest or configuration, in bytes.
const DOCUMENT_MAX: u64 = 4 << 20;
/// Most layers of an image.
const LAYERS_MAX: usize = 512;
/// How deep an index may lie in another.
const INDEXES_MAX: u32 = 3;
/// Most variables that an image may set, and bytes of all of them.
const ENV_MAX: usize = 128;
const ENV_BYTES_MAX: usize = 16 << 10;

const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// How the types of layers begin that are tar archives; what they are compressed with, if anything,
/// is seen when they are read.
const LAYER_TYPES: [&str; 3] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
];

/// What has to be done for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Digest of its manifest.
    pub(super) manifest: Digest,
    /// From the lowest up.
    pub(super) layers: Vec<Blob>,
    /// What its processes have in their environment.
    pub(super) env: BTreeMap<String, String>,
}

/// A file of the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// An open layout.
#[derive(Debug)]
pub(super) struct Layout {
    dir: File,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    image_layout_version: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Configuration {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    config: Option<Run>,
}

#[derive(Debug, Deserialize)]
struct Run {
    #[serde(rename = "Env")]
    env: Option<Vec<String>>,
}

/// Whether the directory of this descriptor looks like a layout.
pub(super) fn is_layout(dir: &File) -> bool {
    let flags = OFlag::O_PATH.bits();
    kernel::open_beneath(dir.as_fd(), "oci-layout", flags).is_ok()
}

impl Layout {
    pub(super) fn open(path: &Path) -> Result<Layout, Error> {
        let dir = File::open(path).map_err(Error::io("open", path))?;
        if !is_layout(&dir) {
            return Err(wrong("oci-layout", "is missing"));
        }
        let layout = Layout { dir };
        let head: Head = read(&layout.document("oci-layout")?, "oci-layout")?;
        if !head.image_layout_version.starts_with("1.") {
            return Err(wrong("oci-layout", "is of a version other than 1"));
        }
        Ok(layout)
    }

    /// What makes the one image for this machine, in the package manager's word for it.
    pub(super) fn plan(&self, architecture: &str) -> Result<Plan, Error> {
        let mut index: Index = read(&self.document("index.json")?, "index.json")?;
        for _ in 0..INDEXES_MAX {
            let chosen = choose(index, architecture)?;
            let blob = blob(&chosen)?;
            let text = self.blob_document(blob)?;
            let name = blob.digest.to_string();
            if INDEX_TYPES.contains(&chosen.media_type.as_str()) {
                index = read(&text, &name)?;
                continue;
            }
            let manifest: Manifest = read(&text, &name)?;
            return self.read_manifest(blob.digest, &manifest, architecture);
        }
        Err(wrong("index.json", "leads from index to index"))
    }

    fn read_manifest(
        &self,
        digest: Digest,
        manifest: &Manifest,
        architecture: &str,
    ) -> Result<Plan, Error> {
        let name = digest.to_string();
        if manifest.layers.len() > LAYERS_MAX {
            return Err(wrong(&name, &format!("has more than {LAYERS_MAX} layers")));
        }
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let kind = layer.media_type.as_str();
            if !LAYER_TYPES.iter().any(|known| kind.starts_with(known)) {
                let found = flaw::escape(kind.as_bytes());
                return Err(wrong(&name, &format!("has a layer of the type {found}")));
            }
            layers.push(blob(layer)?);
        }
        let config = blob(&manifest.config)?;
        let text = self.blob_document(config)?;
        let config: Configuration = read(&text, &config.digest.to_string())?;
        let is_ours = |found: &str, ours: &str| found.is_empty() || found == ours;
        if !is_ours(&config.architecture, architecture) || !is_ours(&config.os, "linux") {
            let found = format!("{}/{}", config.os, config.architecture);
            let found = flaw::escape(found.as_bytes());
            return Err(wrong(
                &name,
                &format!("is for {found}, not linux/{architecture}"),
            ));
        }
        let env = config.config.and_then(|run| run.env).unwrap_or_default();
        Ok(Plan {
            manifest: digest,
            layers,
            env: environment(&name, env)?,
        })
    }

    /// Opens a blob to be read; its digest is for whoever reads it to compare.
    pub(super) fn open_blob(&self, blob: Blob) -> Result<File, Error> {
        let file = self.open_file(&format!("blobs/sha256/{}", blob.digest.hex()))?;
        let found = file.metadata().map(|found| found.len());
        let found = found.map_err(Error::io("look at", blob.digest.to_string()))?;
        if found != blob.size {
            let why = format!("has {found} bytes, not {}", blob.size);
            return Err(wrong(&blob.digest.to_string(), &why));
        }
        Ok(file)
    }

    fn blob_document(&self, blob: Blob) -> Result<Vec<u8>, Error> {
        let name = blob.digest.to_string();
        let text = bounded(self.open_blob(blob)?, &name)?;
        check_digest(blob, Digest(Sha256::digest(&text).into()))?;
        Ok(text)
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, Error> {
        bounded(self.open_file(name)?, name)
    }

    /// Opens a regular file of the layout: below it, through no link, waiting for nobody.
    fn open_file(&self, name: &str) -> Result<File, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let opened = kernel::open_beneath(self.dir.as_fd(), name, flags.bits());
        let opened = opened.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => wrong(name, "is missing"),
            Some(libc::ELOOP | libc::EXDEV) => wrong(name, "is a link"),
            _ => Error::io("open", name)(error),
        })?;
        let found = fstat(opened.as_raw_fd()).map_err(std::io::Error::from);
        let found = found.map_err(Error::io("look at", name))?;
        if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(wrong(name, "is no file"));
        }
        Ok(opened.into())
    }
}

/// A blob is what its digest says, or the layout is refused.
pub(super) fn check_digest(blob: Blob, found: Digest) -> Result<(), Error> {
    if found == blob.digest {
        return Ok(());
    }
    let why = format!("has another digest: {found}");
    Err(wrong(&blob.digest.to_string(), &why))
}

/// The one manifest, or index, of an index that is for this machine.
fn choose(index: Index, architecture: &str) -> Result<Descriptor, Error> {
    let is_known = |found: &Descriptor| {
        let found = found.media_type.as_str();
        INDEX_TYPES.contains(&found) || MANIFEST_TYPES.contains(&found)
    };
    let is_ours = |found: &Descriptor| {
        let platform = found.platform.as_ref();
        platform.is_none_or(|one| one.os == "linux" && one.architecture == architecture)
    };
    let all = index.manifests.into_iter();
    let mut ours = all.filter(|found| is_known(found) && is_ours(found));
    let name = "index.json";
    let chosen = ours.next();
    let chosen =
        chosen.ok_or_else(|| wrong(name, &format!("names no image for linux/{architecture}")))?;
    if ours.any(|other| other.digest != chosen.digest) {
        let why = format!("names several images for linux/{architecture}");
        return Err(wrong(name, &why));
    }
    Ok(chosen)
}

fn blob(of: &Descriptor) -> Result<Blob, Error> {
    let digest = of.digest.parse().map_err(|_no_digest| {
        let found = flaw::escape(of.digest.as_bytes());
        wrong(
            "a descriptor",
            &format!("has the digest {found}, not sha256:HEX"),
        )
    })?;
    Ok(Blob {
        digest,
        size: of.size,
    })
}

/// Reads what an image says of its environment: bounded, each variable named once.
fn environment(name: &str, lines: Vec<String>) -> Result<BTreeMap<String, String>, Error> {
    let bytes: usize = lines.iter().map(String::len).sum();
    if lines.len() > ENV_MAX || bytes > ENV_BYTES_MAX {
        let why = format!("sets more than {ENV_MAX} variables or {ENV_BYTES_MAX} bytes of them");
        return Err(wrong(name, &why));
    }
    let mut env = BTreeMap::new();
    for line in lines {
        match line.split_once('=') {
            Some((key, value)) if !key.is_empty() && !line.contains('\0') => {
                env.insert(key.to_owned(), value.to_owned());
            }
            Some(_) | None => {
                let found = flaw::escape(line.as_bytes());
                return Err(wrong(name, &format!("sets no variable with {found}")));
            }
        }
    }
    Ok(env)
}

fn bounded(file: File, name: &str) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let read = file.take(DOCUMENT_MAX + 1).read_to_end(&mut text);
    read.map_err(Error::io("read", name))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > DOCUMENT_MAX {
        return Err(wrong(name, &format!("is longer than {DOCUMENT_MAX} bytes")));
    }
    Ok(text)
}

fn read<T: DeserializeOwned>(text: &[u8], name: &str) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|fault| {
        let reason = flaw::escape(fault.to_string().as_bytes());
        wrong(name, &format!("is malformed: {reason}"))
    })
}

fn wrong(part: &str, why: &str) -> Error {
    Error::Layout {
        part: part.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests;
