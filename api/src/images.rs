//! What the API needs to know of images, and where it asks.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use runtime::Digest;
use runtime::image::{Error, Store, Version};

/// An image, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// As it was named.
    pub name: String,
    /// What its content is.
    pub digest: Digest,
    /// Languages that code can be run in.
    pub languages: Vec<String>,
    /// Environment of every process in it.
    pub env: Vec<(String, String)>,
    /// Memory that a started interpreter takes before any code has run, in bytes.
    pub warm_bytes: u64,
}

/// Where images are looked up.
pub trait ImageSource: Send + Sync + fmt::Debug {
    /// The image of that name, name and tag, or digest.
    ///
    /// # Errors
    /// The store cannot be read; a name that is not there is `None`.
    fn resolve(&self, name: &str) -> Result<Option<ImageInfo>, String>;
}

/// A store, with what it has answered since its names changed last: every execution asks.
#[derive(Debug)]
pub(crate) struct KnownImages {
    store: Store,
    known: Mutex<Known>,
}

/// Answers, and the version of the names that they are of.
#[derive(Debug, Default)]
struct Known {
    version: Option<Version>,
    images: HashMap<String, ImageInfo>,
}

/// Answers that are kept at most. An image has few names, and what is no image is not kept.
const KNOWN_MAX: usize = 1_024;

impl KnownImages {
    pub(crate) fn new(store: Store) -> KnownImages {
        KnownImages {
            store,
            known: Mutex::default(),
        }
    }
}

impl ImageSource for KnownImages {
    fn resolve(&self, name: &str) -> Result<Option<ImageInfo>, String> {
        // Before the answer: one that is older than its version would be kept for good.
        let version = self.store.version();
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let known = known();
            if version.is_some()
                && known.version == version
                && let Some(found) = known.images.get(name)
            {
                return Ok(Some(found.clone()));
            }
        }
        let found = find(&self.store, name)?;
        // A digest may stand for an image without a name, which can go without a new version.
        if let Some(image) = &found
            && !name.starts_with("sha256:")
        {
            let mut known = known();
            if known.version != version || known.images.len() >= KNOWN_MAX {
                known.images.clear();
                known.version = version;
            }
            known.images.insert(name.to_owned(), image.clone());
        }
        Ok(found)
    }
}

fn find(store: &Store, name: &str) -> Result<Option<ImageInfo>, String> {
    match store.resolve(name) {
        Ok(image) => Ok(Some(ImageInfo {
            name: if image.name.is_empty() {
                name.to_owned()
            } else {
                image.name
            },
            digest: image.digest,
            languages: image.languages,
            env: image.env.into_iter().collect(),
            warm_bytes: image.warm_bytes,
        })),
        Err(Error::Unknown { .. } | Error::Reference { .. }) => Ok(None),
        Err(error) => Err(crate::config::chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::json;

    use super::*;

    /// Has the store say that `python` is the image of this digest, which knows one language.
    fn name(store: &Path, digit: &str, language: &str) {
        let digest = format!("sha256:{}", digit.repeat(64));
        let home = store.join("sha256").join(digit.repeat(64));
        fs::create_dir_all(&home).unwrap();
        let image = json!({
            "digest": digest, "recipe": "", "languages": [language], "env": {}, "uid": 1, "gid": 1,
            "created_s": 0, "suite": "", "architecture": "", "packages": [], "size_bytes": 0,
            "entries": 0, "warm_bytes": 0,
        });
        fs::write(home.join("image.json"), image.to_string()).unwrap();
        write_names(store, &json!({ "python:latest": digest }));
    }

    fn write_names(store: &Path, names: &serde_json::Value) {
        fs::write(store.join("new"), names.to_string()).unwrap();
        fs::rename(store.join("new"), store.join("names.json")).unwrap();
    }

    #[test]
    fn an_image_is_known_until_the_names_change() {
        let dir = tempfile::tempdir().unwrap();
        let images = KnownImages::new(Store::open(dir.path()));
        let language = |reference| {
            let found = images.resolve(reference).unwrap();
            found.map(|image| image.languages.concat())
        };
        assert_eq!(language("python"), None);
        name(dir.path(), "a", "first");
        assert_eq!(language("python").as_deref(), Some("first"));
        // Nothing is read again.
        let home = dir.path().join("sha256").join("a".repeat(64));
        fs::remove_file(home.join("image.json")).unwrap();
        assert_eq!(language("python").as_deref(), Some("first"));
        name(dir.path(), "b", "second");
        assert_eq!(language("python").as_deref(), Some("second"));
        let by_digest = format!("sha256:{}", "b".repeat(64));
        assert_eq!(language(&by_digest).as_deref(), Some("second"));
        write_names(dir.path(), &json!({}));
        assert_eq!(language("python"), None);
    }
}
