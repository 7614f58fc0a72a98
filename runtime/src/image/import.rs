//! Imports: a root file system from an archive, or an image in the OCI layout, becomes an image.
//!
//! ```text
//! archive --unpack--> staging/rootfs --is a layout?--> staging/layout
//! staging/layout, or a directory --each layer--> staging/rootfs
//! staging/rootfs --what is missing is made--> walk of the tree --> its place in the store
//! ```
//!
//! Only the walk decides whether it is an image, whatever has been said on the way.

mod feed;
mod layout;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use self::feed::{Fed, Interrupts};
use self::layout::Layout;
use super::flaw::Bounds;
use super::store::{Store, architecture, clear, rename};
use super::unpack::{Order, Tally};
use super::{Error, Image, Progress, Reference, needs, recipe, tree};
use crate::clock;
use crate::oci::USER;

/// Steps of an import, as shown: unpacking, the digest, the store.
const STEPS: u32 = 3;
/// What is unpacked between two words about it, in bytes.
const SHOWN_BYTES: u64 = 4 << 20;
/// What processes have in their environment unless the image says otherwise.
const ENV: [(&str, &str); 4] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/workspace"),
    ("USER", "user"),
    ("LANG", "C.UTF-8"),
];

/// What to import, and as what.
#[derive(Debug, Clone)]
pub struct Import {
    /// `NAME` or `NAME:TAG`.
    pub name: String,
    /// Languages that code can be run in, the image's own first.
    pub languages: Vec<String>,
    /// Where it comes from.
    pub source: Source,
    /// How large it may be.
    pub bounds: Bounds,
}

/// Where an import comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An archive, or the directory of an OCI image layout.
    Path(PathBuf),
    /// An archive on standard input.
    StandardInput,
}

/// An image that was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// What it is.
    pub image: Image,
    /// Set-user-id and set-group-id bits of the archive that it has not got.
    pub set_ids_dropped: u64,
    /// Extended attributes of the archive that it has not got.
    pub attributes_dropped: u64,
}

impl Store {
    /// Makes an image of a root file system (tar or tar.gz) or of an OCI image layout (a directory,
    /// or an archive of one), and names it.
    ///
    /// Takes as long as reading, writing and hashing it does; needs root. Waits for another change
    /// of this store. SIGINT, SIGTERM and SIGHUP to the calling thread end it as an error.
    ///
    /// # Errors
    /// Says what of the archive may not be in an image, or what is missing here. The store is as it
    /// was before.
    pub fn import(
        &self,
        import: &Import,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Imported, Error> {
        let Reference::Named(name) = Reference::parse(&import.name)? else {
            return Err(Error::Reference {
                reference: import.name.clone(),
            });
        };
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::Missing {
                missing: "importing an image needs root".to_owned(),
                cure: "run the command as root: it makes files of other users".to_owned(),
            });
        }
        let source = open(&import.source)?;
        self.make_dirs()?;
        let _lock = self.lock(on_progress)?;
        let staging = self.dir().join("staging");
        clear(&staging)?;
        let mut work = Work {
            import,
            staging: &staging,
            interrupts: Interrupts::listen()?,
            tally: Tally::default(),
            on_progress,
        };
        let made = work.make(&source, &name);
        let placed = made.and_then(|image| self.publish(&image, &staging));
        let tally = work.tally;
        let cleared = clear(&staging);
        let image = placed?;
        cleared?;
        Ok(Imported {
            image,
            set_ids_dropped: tally.set_ids,
            attributes_dropped: tally.attributes,
        })
    }
}

/// An open source and its name.
enum Opened {
    Archive(File, PathBuf),
    Layout(PathBuf),
}

fn open(source: &Source) -> Result<Opened, Error> {
    match source {
        Source::StandardInput => {
            let input = std::io::stdin().as_fd().try_clone_to_owned();
            let name = PathBuf::from("standard input");
            let input = input.map_err(Error::io("open", &name))?;
            Ok(Opened::Archive(input.into(), name))
        }
        Source::Path(path) => {
            let file = File::open(path).map_err(Error::io("open", path))?;
            let found = file.metadata().map_err(Error::io("look at", path))?;
            if found.is_dir() {
                return Ok(Opened::Layout(path.clone()));
            }
            Ok(Opened::Archive(file, path.clone()))
        }
    }
}

/// One import under way.
struct Work<'a> {
    import: &'a Import,
    staging: &'a Path,
    interrupts: Interrupts,
    tally: Tally,
    on_progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Work<'_> {
    /// Makes the tree at `staging`/rootfs and says what it is.
    fn make(&mut self, source: &Opened, name: &str) -> Result<Image, Error> {
        let root = self.staging.join("rootfs");
        make_dir(self.staging)?;
        make_dir(&root)?;
        let (origin, env) = match source {
            Opened::Layout(path) => self.lay_image(&Layout::open(path)?)?,
            Opened::Archive(file, name) => {
                let fed = self.unpack((file, name), false, "the archive")?;
                let opened = File::open(&root).map_err(Error::io("open", &root))?;
                if layout::is_layout(&opened) {
                    let layout = self.staging.join("layout");
                    rename(&root, &layout)?;
                    make_dir(&root)?;
                    // What counts is what the layers come to.
                    self.tally = Tally::default();
                    self.lay_image(&Layout::open(&layout)?)?
                } else {
                    (format!("tar {}", fed.digest), BTreeMap::new())
                }
            }
        };
        let opened = File::open(&root).map_err(Error::io("open", &root))?;
        needs::complete(opened.as_fd()).map_err(Error::io("complete", &root))?;
        self.show(2, "hashing the tree");
        let interrupts = &mut self.interrupts;
        let bounds = &self.import.bounds;
        let summary = tree::summarise(&root, bounds, &mut || interrupts.check())?;
        self.show(3, "storing the tree");
        let (name, tag) = name.split_once(':').unwrap_or_default();
        let mut all: BTreeMap<String, String> = ENV
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        all.extend(env);
        Ok(Image {
            name: name.to_owned(),
            tag: tag.to_owned(),
            digest: summary.digest,
            recipe: String::new(),
            origin,
            warm_bytes: warm_bytes(&self.import.languages)?,
            languages: self.import.languages.clone(),
            env: all,
            uid: USER,
            gid: USER,
            created_s: clock::wall_s(),
            suite: String::new(),
            architecture: String::new(),
            packages: Vec::new(),
            size_bytes: summary.size_bytes,
            entries: summary.entries,
        })
    }

    /// Lays the layers of a layout's image over each other; answers its origin and environment.
    fn lay_image(&mut self, layout: &Layout) -> Result<(String, BTreeMap<String, String>), Error> {
        let plan = layout.plan(architecture())?;
        let count = plan.layers.len();
        for (index, blob) in plan.layers.iter().enumerate() {
            let file = layout.open_blob(*blob)?;
            let name = PathBuf::from(blob.digest.to_string());
            let what = format!("layer {} of {count}", index + 1);
            let fed = self.unpack((&file, &name), true, &what)?;
            layout::check_digest(*blob, fed.digest)?;
        }
        Ok((format!("oci {}", plan.manifest), plan.env))
    }

    fn unpack(&mut self, input: (&File, &Path), is_layer: bool, what: &str) -> Result<Fed, Error> {
        let told = self.import.bounds;
        let order = Order {
            parent: nix::unistd::getpid().as_raw(),
            is_layer,
            bounds: Bounds {
                tree_bytes: told.tree_bytes.saturating_sub(self.tally.bytes),
                file_bytes: told.file_bytes,
                entries: told.entries.saturating_sub(self.tally.entries),
            },
            told,
        };
        self.show(1, &format!("unpacking {what}"));
        let mut shown = 0;
        let on_progress = &mut *self.on_progress;
        let mut on_bytes = |bytes: u64| {
            if bytes >= shown + SHOWN_BYTES {
                shown = bytes;
                let text = format!("unpacking {what}: {} MiB", bytes >> 20);
                on_progress(progress(1, &text));
            }
        };
        let root = self.staging.join("rootfs");
        let fed = feed::unpack(input, &root, &order, &mut self.interrupts, &mut on_bytes)?;
        self.tally.bytes += fed.tally.bytes;
        self.tally.entries += fed.tally.entries;
        self.tally.set_ids += fed.tally.set_ids;
        self.tally.attributes += fed.tally.attributes;
        Ok(fed)
    }

    fn show(&mut self, step: u32, text: &str) {
        (self.on_progress)(progress(step, text));
    }
}

fn progress(step: u32, text: &str) -> Progress<'_> {
    Progress {
        step,
        steps: STEPS,
        text,
    }
}

/// What the recipe of a language says that its idle interpreter takes; a shell takes nothing to
/// speak of.
fn warm_bytes(languages: &[String]) -> Result<u64, Error> {
    let known = recipe::recipe_names();
    let mut most = 0;
    for language in languages.iter().filter(|one| known.contains(one)) {
        most = most.max(recipe::find(language)?.warm_bytes);
    }
    Ok(most)
}

/// Makes a directory that everyone may read, whatever the umask.
fn make_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(Error::io("make", path))
}
