//! The store: one directory, whose writers hold its lock and whose readers need none.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::recipe::Recipe;
use super::{Bounds, Error, Image, Progress, Reference, build, recipe, tree};
use crate::clock;
use crate::spec::Digest;

/// Names and what they stand for, as in `names.json`.
type Names = BTreeMap<String, Digest>;

/// How the names begin of trees that are being removed.
const REMOVED: &str = "removed-";

/// Handle on an image store; every call reads what is there now.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// How to build.
#[derive(Debug, Clone)]
pub struct Build {
    /// Where packages come from (`http://HOST/PATH`); `None` takes the host's own package sources.
    pub mirror: Option<String>,
    /// Builds even if the recipe has not changed since the image was made.
    pub force: bool,
    /// How large the image may be.
    pub bounds: Bounds,
}

/// What [`Store::build`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Built {
    /// The image of this very recipe was there already.
    Unchanged(Image),
    /// It was made.
    Made(Image),
}

impl Built {
    /// The image, made or found.
    #[must_use]
    pub fn image(&self) -> &Image {
        match self {
            Built::Unchanged(image) | Built::Made(image) => image,
        }
    }
}

/// What [`Store::remove`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// Names that stand for nothing any more.
    pub names: Vec<String>,
    /// Images whose trees are gone.
    pub images: Vec<Digest>,
}

/// A version of a store's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version([i128; 3]);

impl Store {
    /// A store at `dir`, which is made with the first build. Reads and writes nothing.
    #[must_use]
    pub fn open(dir: &Path) -> Store {
        Store {
            dir: dir.to_owned(),
        }
    }

    /// The directory of the store.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the image of a recipe and gives it the recipe's name; a no-op if it is there already.
    ///
    /// Takes minutes; needs root, mmdebstrap and a package mirror. Waits for another build on this
    /// store.
    ///
    /// # Errors
    /// Says what is missing and what to do about it. The store is as it was before.
    pub fn build(
        &self,
        name: &str,
        options: &Build,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Built, Error> {
        let recipe = recipe::find(name)?;
        if !options.force
            && let Some(image) = self.unchanged(&recipe)?
        {
            return Ok(Built::Unchanged(image));
        }
        build::check_host()?;
        self.make_dirs()?;
        let _lock = self.lock(on_progress)?;
        // Another build may have made it while this one waited.
        if !options.force
            && let Some(image) = self.unchanged(&recipe)?
        {
            return Ok(Built::Unchanged(image));
        }
        let staging = self.dir.join("staging");
        clear(&staging)?;
        fs::create_dir(&staging).map_err(Error::io("make", &staging))?;
        let made = self.make(&recipe, options, &staging, on_progress);
        let cleared = clear(&staging);
        let image = made?;
        cleared?;
        Ok(Built::Made(image))
    }

    /// Builds in `staging`, moves the tree to its place and names it.
    fn make(
        &self,
        recipe: &Recipe,
        options: &Build,
        staging: &Path,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Image, Error> {
        let steps = build::STEPS;
        on_progress(Progress {
            step: 1,
            steps,
            text: "making the tree",
        });
        let packages = build::tree(recipe, options.mirror.as_deref(), staging, on_progress)?;
        on_progress(Progress {
            step: 2,
            steps,
            text: "hashing the tree",
        });
        let summary = tree::summarise(&staging.join("rootfs"), &options.bounds, &mut || Ok(()))?;
        let image = Image {
            name: recipe.name.clone(),
            tag: super::DEFAULT_TAG.to_owned(),
            digest: summary.digest,
            recipe: recipe.key.clone(),
            origin: String::new(),
            languages: recipe.languages.clone(),
            env: recipe.env.clone(),
            uid: recipe.uid,
            gid: recipe.gid,
            created_s: clock::wall_s(),
            suite: recipe.suite.clone(),
            architecture: architecture().to_owned(),
            packages,
            size_bytes: summary.size_bytes,
            entries: summary.entries,
            warm_bytes: recipe.warm_bytes,
        };
        on_progress(Progress {
            step: 3,
            steps,
            text: "storing the tree",
        });
        self.publish(&image, staging)
    }

    /// Moves a made tree to its place and names it; answers what its name now stands for.
    pub(super) fn publish(&self, image: &Image, staging: &Path) -> Result<Image, Error> {
        self.place(image, staging)?;
        let mut names = self.names()?;
        let name = format!("{}:{}", image.name, image.tag);
        names.insert(name.clone(), image.digest);
        self.write_names(&names)?;
        self.resolve(&name)
    }

    /// Moves a made tree to its digest's place, whole or not at all.
    fn place(&self, image: &Image, staging: &Path) -> Result<(), Error> {
        let ready = staging.join("image");
        let mut builder = fs::DirBuilder::new();
        builder
            .mode(0o755)
            .create(&ready)
            .map_err(Error::io("make", &ready))?;
        rename(&staging.join("rootfs"), &ready.join("rootfs"))?;
        write_json(&ready.join("image.json"), image)?;
        // The tree's own files are not synced one by one; a name must never stand for half a tree.
        nix::unistd::sync();
        let home = self.home(image.digest);
        if home.exists() {
            // The same tree again: it can be what it was before, and what it is now.
            let json = home.join("image.json");
            return write_json(&json, &self.merged(image));
        }
        rename(&ready, &home)?;
        sync_dir(&self.dir.join("sha256"))
    }

    /// What is to be said of a tree that was there before: an import adds its languages to what is
    /// known, a build knows it all.
    fn merged(&self, new: &Image) -> Image {
        match self.resolve(&new.digest.to_string()) {
            Ok(mut known) if new.recipe.is_empty() => {
                let more = new
                    .languages
                    .iter()
                    .filter(|one| !known.languages.contains(one));
                let more: Vec<String> = more.cloned().collect();
                known.languages.extend(more);
                known.warm_bytes = known.warm_bytes.max(new.warm_bytes);
                known
            }
            Ok(_) | Err(_) => new.clone(),
        }
    }

    /// The image that `name:latest` stands for, if it was made from this very recipe and is whole.
    fn unchanged(&self, recipe: &Recipe) -> Result<Option<Image>, Error> {
        match self.resolve(&recipe.name) {
            Ok(image) if image.recipe == recipe.key => Ok(Some(image)),
            Ok(_) | Err(Error::Unknown { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All named images, by name; an image with two names is listed twice.
    ///
    /// # Errors
    /// If the store cannot be read. A name whose tree is missing is left out.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let mut all = Vec::new();
        for name in self.names()?.keys() {
            match self.resolve(name) {
                Ok(image) => all.push(image),
                Err(Error::Unknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// The image that `reference` (`name`, `name:tag`, `sha256:HEX`) stands for.
    ///
    /// # Errors
    /// [`Error::Unknown`] if there is none, [`Error::Reference`] if the text is malformed.
    pub fn resolve(&self, reference: &str) -> Result<Image, Error> {
        let unknown = || Error::Unknown {
            reference: reference.to_owned(),
            store: self.dir.clone(),
        };
        let names = self.names()?;
        let (name, digest) = match Reference::parse(reference)? {
            Reference::Named(name) => {
                let digest = *names.get(&name).ok_or_else(unknown)?;
                (name, digest)
            }
            Reference::Digest(digest) => {
                let named = names.iter().find(|(_, found)| **found == digest);
                (
                    named.map(|(name, _)| name.clone()).unwrap_or_default(),
                    digest,
                )
            }
        };
        let path = self.home(digest).join("image.json");
        let mut image: Image = match fs::read(&path) {
            Ok(json) => read_json(&json, &path)?,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Err(unknown()),
            Err(source) => {
                return Err(Error::Io {
                    action: "read",
                    path,
                    source,
                });
            }
        };
        image.digest = digest;
        let (name, tag) = name.split_once(':').unwrap_or_default();
        image.name = name.to_owned();
        image.tag = tag.to_owned();
        Ok(image)
    }

    /// Which version of the names this store has: another one after every change. None while there
    /// are no names.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        let found = fs::metadata(self.dir.join("names.json")).ok()?;
        // Names are written to a new file each time.
        Some(Version([
            i128::from(found.ino()),
            i128::from(found.size()),
            i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec()),
        ]))
    }

    /// As [`Store::resolve`], after hashing the whole tree again.
    ///
    /// # Errors
    /// Also [`Error::Malformed`] if the tree is not what its digest says, and [`Error::Unsafe`] if
    /// no image could be like that.
    pub fn inspect(&self, reference: &str, bounds: &Bounds) -> Result<Image, Error> {
        let image = self.resolve(reference)?;
        let root = self.home(image.digest).join("rootfs");
        let found = tree::summarise(&root, bounds, &mut || Ok(()))?;
        if found.digest == image.digest {
            return Ok(image);
        }
        let reason = format!("its tree has the digest {}", found.digest);
        Err(Error::Malformed {
            what: format!("image {}", image.digest),
            reason,
        })
    }

    /// Removes a name, or an image by its digest, and every tree that no name stands for any more.
    ///
    /// Sandboxes that use such a tree lose its files: remove what is in use only on a stopped
    /// server.
    ///
    /// # Errors
    /// [`Error::StillNamed`] for a digest that has names, [`Error::Unknown`] for one that is not
    /// there.
    pub fn remove(&self, reference: &str) -> Result<Removed, Error> {
        let image = self.resolve(reference)?;
        let _lock = self.lock(&mut |_| {})?;
        let mut names = self.names()?;
        let mut removed = Removed::default();
        if reference.starts_with("sha256:") {
            let still: Vec<String> = names
                .iter()
                .filter(|(_, one)| **one == image.digest)
                .map(|(n, _)| n.clone())
                .collect();
            if !still.is_empty() {
                return Err(Error::StillNamed {
                    digest: image.digest,
                    names: still,
                });
            }
        } else {
            let name = format!("{}:{}", image.name, image.tag);
            names.remove(&name);
            self.write_names(&names)?;
            removed.names.push(name);
        }
        if !names.values().any(|one| *one == image.digest) {
            let home = self.home(image.digest);
            let away = self.dir.join(format!("{REMOVED}{}", image.digest.hex()));
            clear(&away)?;
            rename(&home, &away)?;
            clear(&away)?;
            removed.images.push(image.digest);
        }
        Ok(removed)
    }

    /// Removes what a command that was killed has left: a half-made tree, a half-removed one. Does
    /// nothing while another command changes the store, or where this one may not.
    pub fn sweep(&self) {
        let path = self.dir.join("lock");
        let Ok(file) = OpenOptions::new().write(true).open(path) else {
            return;
        };
        let Ok(_lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            return;
        };
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == "staging" || name.starts_with(REMOVED) {
                // What cannot be removed now is in nobody's way: the next command tries again.
                clear(&entry.path()).unwrap_or_default();
            }
        }
    }

    fn home(&self, digest: Digest) -> PathBuf {
        self.dir.join("sha256").join(digest.hex())
    }

    pub(super) fn make_dirs(&self) -> Result<(), Error> {
        let trees = self.dir.join("sha256");
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o755)
            .create(&trees)
            .map_err(Error::io("make", &trees))
    }

    pub(super) fn lock(
        &self,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Flock<File>, Error> {
        let path = self.dir.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o644);
        let file = options.open(&path).map_err(Error::io("open", &path))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, _busy)) => file,
        };
        let text = "waiting for another change of this store";
        on_progress(Progress {
            step: 0,
            steps: build::STEPS,
            text,
        });
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::Io {
            action: "lock",
            path,
            source: errno.into(),
        })
    }

    fn names(&self) -> Result<Names, Error> {
        let path = self.dir.join("names.json");
        match fs::read(&path) {
            Ok(json) => read_json(&json, &path),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Names::new()),
            Err(source) => Err(Error::Io {
                action: "read",
                path,
                source,
            }),
        }
    }

    fn write_names(&self, names: &Names) -> Result<(), Error> {
        write_json(&self.dir.join("names.json"), names)
    }
}

/// The machine in the package manager's word.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Removes a directory tree if it is there.
pub(super) fn clear(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Io {
            action: "remove",
            path: path.to_owned(),
            source,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(Error::io("make", to))
}

fn sync_dir(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io("sync", path))
}

fn read_json<T: serde::de::DeserializeOwned>(json: &[u8], path: &Path) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|fault| Error::Malformed {
        what: path.display().to_string(),
        reason: fault.to_string(),
    })
}

/// Replaces a file whole: a reader sees the old one or the new one, also after a crash.
fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let new = path.with_extension("json.new");
    let mut json = serde_json::to_vec_pretty(value).map_err(|fault| Error::Malformed {
        what: path.display().to_string(),
        reason: fault.to_string(),
    })?;
    json.push(b'\n');
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o644);
    let mut file = options.open(&new).map_err(Error::io("open", &new))?;
    file.write_all(&json).map_err(Error::io("write", &new))?;
    file.sync_all().map_err(Error::io("sync", &new))?;
    rename(&new, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

#[cfg(test)]
mod tests;
