//! Templates: processes of an image's own Python that fork into sandboxes, so that none has to
//! start an interpreter.
//!
//! The launcher starts them ([`crate::launcher`]), shims ask them. Nothing of any tenant's is ever
//! in one, and nothing secret: whatever runs in a fork can read what its template knew.

pub(crate) mod request;

/// A module for `CPython` that waits for requests and forks; `build.rs` makes it of `native.rs`.
pub(crate) const NATIVE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/template.so"));

/// Where a template finds [`NATIVE`], and the filter that its forks load.
pub(crate) const DIRECTORY: &str = "run";
/// The name of [`NATIVE`] there.
pub(crate) const NATIVE_NAME: &str = "template.so";
/// The name of the filter there.
pub(crate) const FILTER_NAME: &str = "filter";
