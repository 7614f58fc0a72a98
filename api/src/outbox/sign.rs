//! Secrets of webhooks, and the signature that is made with one: HMAC-SHA256 over
//! `timestamp.body`.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::clock::Clock;
use crate::ids::{self, Kind, hex};
use crate::keys::write_secret;

/// Bytes of a secret that a caller brings.
pub(crate) const SECRET_MIN: usize = 16;
/// The most of them.
pub(crate) const SECRET_MAX: usize = 128;

/// What signs a webhook's deliveries. Never shown but once, to whom it was made for.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// A new one, of 256 random bits.
    ///
    /// # Errors
    /// The kernel has no random bytes to give.
    pub(crate) fn generate() -> Result<Secret, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Secret(format!("whsec_{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// One that a caller brings; `None` if it is too short, too long or not printable ASCII.
    pub(crate) fn given(text: String) -> Option<Secret> {
        let fits = (SECRET_MIN..=SECRET_MAX).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(Secret(text))
    }

    /// The one time that it is shown.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// What the header `Farebox-Signature` says of a body that is sent at that time.
    pub(super) fn sign(&self, timestamp_s: u64, body: &str) -> String {
        // A key of HMAC may have any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()) else {
            return String::new();
        };
        mac.update(timestamp_s.to_string().as_bytes());
        mac.update(b".");
        mac.update(body.as_bytes());
        format!("v1={}", hex(&mac.finalize().into_bytes()))
    }
}

/// Secrets at rest: one file each, mode 0600, under a name of ours. They are not in the ledger,
/// whose entries are shown.
#[derive(Debug)]
pub(crate) struct Secrets {
    dir: PathBuf,
}

impl Secrets {
    pub(super) fn open(dir: PathBuf) -> io::Result<Secrets> {
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        Ok(Secrets { dir })
    }

    fn path(&self, id: &str) -> Option<PathBuf> {
        // A document of the ledger names it: it is an id, or no path is made of it.
        ids::parse(Kind::Secret, id).map(|_| self.dir.join(id))
    }

    /// Keeps a secret; durable once this answers its id.
    pub(crate) fn keep(&self, secret: &Secret, clock: &Clock) -> io::Result<String> {
        let id = ids::new(clock).map_err(|error| io::Error::other(error.to_string()))?;
        let id = ids::text(Kind::Secret, &id);
        write_secret(&self.dir.join(&id), &secret.0)?;
        fs::File::open(&self.dir)?.sync_all()?;
        Ok(id)
    }

    /// The secret of that id.
    pub(super) fn read(&self, id: &str) -> io::Result<Secret> {
        let path = self.path(id).ok_or(io::ErrorKind::NotFound)?;
        Ok(Secret(fs::read_to_string(path)?))
    }

    /// Forgets a secret; one that is left behind goes at the next start.
    pub(crate) fn remove(&self, id: &str) {
        let gone = self.path(id).map(fs::remove_file);
        if let Some(Err(error)) = gone {
            tracing::warn!(%error, "a webhook's old secret could not be removed");
        }
    }

    /// Removes every file that is no secret of `known`.
    pub(crate) fn sweep(&self, known: &HashSet<String>) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if !name.is_some_and(|name| known.contains(name)) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef`.
    #[test]
    fn the_signature_is_hmac_sha256_of_timestamp_and_body() {
        let secret = Secret::given("0123456789abcdef".to_owned()).unwrap();
        assert_eq!(
            secret.sign(1_700_000_000, "{\"a\":1}"),
            "v1=9eb18f493f8ec135d9eb2dad817c369bb4e9cbfa818657897a7437c1cd8c3a23"
        );
    }

    #[test]
    fn secrets_are_private_read_back_and_swept() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::open(dir.path().join("secrets")).unwrap();
        let (one, two) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_ne!(one.reveal(), two.reveal());
        let clock = Clock::system();
        let (first, second) = (
            secrets.keep(&one, &clock).unwrap(),
            secrets.keep(&two, &clock).unwrap(),
        );
        assert_eq!(secrets.read(&first).unwrap().reveal(), one.reveal());
        let path = dir.path().join("secrets").join(&first);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        secrets.sweep(&HashSet::from([second.clone()])).unwrap();
        assert!(secrets.read(&first).is_err());
        assert_eq!(secrets.read(&second).unwrap().reveal(), two.reveal());
        assert!(secrets.read("../keys").is_err());
    }

    #[test]
    fn secrets_that_are_too_weak_or_odd_are_refused() {
        for text in [
            "short",
            "",
            "has a space in it!!",
            &"x".repeat(129),
            "t\u{e4}sttesttesttest",
        ] {
            assert!(Secret::given(text.to_owned()).is_none(), "{text}");
        }
        assert_eq!(format!("{:?}", Secret::generate().unwrap()), "Secret(..)");
    }
}
