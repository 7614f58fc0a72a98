//! What the API needs to know of images, and where it asks.

use std::fmt;

use runtime::Digest;
use runtime::image::{Error, Store};

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

impl ImageSource for Store {
    fn resolve(&self, name: &str) -> Result<Option<ImageInfo>, String> {
        match Store::resolve(self, name) {
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
}
