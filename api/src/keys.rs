//! Signing keys: Ed25519 seeds in `DIR/keys`, one file each, mode 0600.
//!
//! A file is named `TIME-KID.key` (microseconds since the epoch; the key id is derived from the
//! public key) and holds the seed as 64 hex digits. The newest signs; all of them verify, so that
//! keys can rotate. The keys that sign the ledger's checkpoints lie apart, in `DIR/keys/ledger`:
//! one kind never stands for the other.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error as JwtError, ErrorKind, new_error};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use sha2::{Digest as _, Sha256};

use crate::clock::Clock;
use crate::ids::hex;

/// The signing keys of one data directory.
pub struct Keys {
    signing_kid: String,
    signing: EncodingKey,
    verifying: BTreeMap<String, (VerifyingKey, DecodingKey)>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("signing_kid", &self.signing_kid)
            .finish_non_exhaustive()
    }
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file operation failed.
    #[error("cannot {what} {path}")]
    File {
        /// The operation.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A key file does not hold a key.
    #[error("{path} does not hold a key: {fault}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Others than its owner can read a key.
    #[error("{path} has mode {mode:o}: it must be readable by its owner alone (chmod 600)")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The kernel has no random bytes.
    #[error("cannot get random bytes: {reason}")]
    Random {
        /// What it says.
        reason: String,
    },
}

impl Keys {
    /// Reads the keys below `data_dir`, and makes the first one if there is none.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn open(data_dir: &Path, clock: &Clock) -> Result<Keys, KeysError> {
        Keys::read(&files(data_dir, &data_dir.join("keys"), clock)?)
    }

    fn read(paths: &[PathBuf]) -> Result<Keys, KeysError> {
        install_provider();
        let mut verifying = BTreeMap::new();
        let mut newest = None;
        for path in paths {
            let key = SigningKey::from_bytes(&read_seed(path)?);
            let public = key.verifying_key();
            let kid = kid(&public);
            let malformed = KeysError::Malformed {
                path: path.clone(),
                fault: "bad public key",
            };
            let x = URL_SAFE_NO_PAD.encode(public.as_bytes());
            let Ok(decoding) = DecodingKey::from_ed_components(&x) else {
                return Err(malformed);
            };
            verifying.insert(kid.clone(), (public, decoding));
            newest = Some((kid, EncodingKey::from_ed_der(key.as_bytes())));
        }
        let (signing_kid, signing) = newest.ok_or_else(|| KeysError::Malformed {
            path: PathBuf::from("keys"),
            fault: "no key at all",
        })?;
        Ok(Keys {
            signing_kid,
            signing,
            verifying,
        })
    }

    pub(crate) fn signing(&self) -> (&str, &EncodingKey) {
        (&self.signing_kid, &self.signing)
    }

    pub(crate) fn verifying(&self, kid: &str) -> Option<&DecodingKey> {
        self.verifying.get(kid).map(|(_, key)| key)
    }

    /// The public keys with their ids: what the JWKS shows.
    pub(crate) fn public(&self) -> impl Iterator<Item = (&str, String)> {
        let each = self.verifying.iter();
        each.map(|(kid, (key, _))| (kid.as_str(), URL_SAFE_NO_PAD.encode(key.as_bytes())))
    }
}

/// The key files in `dir`, oldest first; the first one is made if there is none.
fn files(data_dir: &Path, dir: &Path, clock: &Clock) -> Result<Vec<PathBuf>, KeysError> {
    let at = |what, path: &Path| {
        let path = path.to_owned();
        move |source| KeysError::File { what, path, source }
    };
    if !dir.is_dir() {
        fs::create_dir_all(dir).map_err(at("create", dir))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(at("protect", dir))?;
        give_to_owner_of(data_dir, dir);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(at("list", dir))? {
        let path = entry.map_err(at("list", dir))?.path();
        if path.extension().is_some_and(|extension| extension == "key") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        let path = create(dir, clock)?;
        give_to_owner_of(data_dir, &path);
        paths.push(path);
    }
    paths.sort();
    Ok(paths)
}

/// The keys that sign the ledger's checkpoints, oldest first: files of the same form in
/// `DIR/keys/ledger`. The last signs; the first one is made if there is none.
pub(crate) fn of_ledger(data_dir: &Path, clock: &Clock) -> Result<Vec<SigningKey>, KeysError> {
    let files = files(data_dir, &data_dir.join("keys/ledger"), clock)?;
    let key = |path: &PathBuf| read_seed(path).map(|seed| SigningKey::from_bytes(&seed));
    files.iter().map(key).collect()
}

/// Leaves `path`, made by root for a server that will not be root, to the owner of the data
/// directory. Where that is not allowed, the maker is the owner anyway.
pub(crate) fn give_to_owner_of(data_dir: &Path, path: &Path) {
    if let Ok(meta) = fs::metadata(data_dir) {
        let given = std::os::unix::fs::chown(path, Some(meta.uid()), Some(meta.gid()));
        given.unwrap_or_default();
    }
}

/// Writes `text` to `path`, mode 0600, all or nothing.
pub(crate) fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

fn create(dir: &Path, clock: &Clock) -> Result<PathBuf, KeysError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| KeysError::Random {
        reason: error.to_string(),
    })?;
    let kid = kid(&SigningKey::from_bytes(&seed).verifying_key());
    let path = dir.join(format!("{:016}-{kid}.key", clock.wall_us()));
    write_secret(&path, &hex(&seed)).map_err(|source| KeysError::File {
        what: "write",
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

fn read_seed(path: &Path) -> Result<[u8; 32], KeysError> {
    let file = |source| KeysError::File {
        what: "read",
        path: path.to_owned(),
        source,
    };
    let mode = fs::metadata(path).map_err(file)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeysError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let text = fs::read_to_string(path).map_err(file)?;
    let digits = text.trim_end().as_bytes();
    let malformed = |fault| KeysError::Malformed {
        path: path.to_owned(),
        fault,
    };
    if digits.len() != 64 {
        return Err(malformed("not 64 hex digits"));
    }
    let mut seed = [0; 32];
    for (byte, pair) in seed.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok();
        let value = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        *byte = value.ok_or_else(|| malformed("not hex digits"))?;
    }
    Ok(seed)
}

fn kid(public: &VerifyingKey) -> String {
    let digest = Sha256::digest(public.as_bytes());
    hex(digest.get(..8).unwrap_or_default())
}

/// `EdDSA` is the one algorithm there is: another one cannot be asked for, whatever a token says.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| match algorithm {
        Algorithm::EdDSA => Ok(Box::new(EdSigner::new(key)?)),
        _ => Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    },
    verifier_factory: |algorithm, key| match algorithm {
        Algorithm::EdDSA => Ok(Box::new(EdVerifier::new(key)?)),
        _ => Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

/// Installs the provider for this process. Installing twice is no fault: it is the same one.
fn install_provider() {
    if PROVIDER.install_default().is_err() {
        tracing::trace!("the token provider was installed before");
    }
}

struct EdSigner(SigningKey);

impl EdSigner {
    fn new(key: &EncodingKey) -> Result<EdSigner, JwtError> {
        let seed = <&[u8; 32]>::try_from(key.as_bytes());
        let seed = seed.map_err(|source| new_error(ErrorKind::Provider(source.to_string())))?;
        Ok(EdSigner(SigningKey::from_bytes(seed)))
    }
}

impl Signer<Vec<u8>> for EdSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        use ed25519_dalek::Signer as _;
        Ok(self.0.sign(message).to_bytes().to_vec())
    }
}

impl JwtSigner for EdSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct EdVerifier(VerifyingKey);

impl EdVerifier {
    fn new(key: &DecodingKey) -> Result<EdVerifier, JwtError> {
        let provider = |reason: String| new_error(ErrorKind::Provider(reason));
        let bytes = <&[u8; 32]>::try_from(key.try_get_as_bytes()?);
        let bytes = bytes.map_err(|source| provider(source.to_string()))?;
        VerifyingKey::from_bytes(bytes)
            .map(EdVerifier)
            .map_err(|source| provider(source.to_string()))
    }
}

impl Verifier<Vec<u8>> for EdVerifier {
    /// Strict: small-order keys and malleable signatures are refused.
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let signature = Signature::from_slice(signature).map_err(SignatureError::from_source)?;
        self.0
            .verify_strict(message, &signature)
            .map_err(SignatureError::from_source)
    }
}

impl JwtVerifier for EdVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_is_made_protected_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let made = Keys::open(dir.path(), &clock).unwrap();
        let again = Keys::open(dir.path(), &clock).unwrap();
        assert_eq!(made.signing_kid, again.signing_kid);
        let file = fs::read_dir(dir.path().join("keys"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            Keys::open(dir.path(), &clock),
            Err(KeysError::Exposed { mode: 0o644, .. })
        ));
    }

    #[test]
    fn the_newest_key_signs_and_older_ones_still_verify() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let first = Keys::open(dir.path(), &clock).unwrap();
        create(&dir.path().join("keys"), &clock).unwrap();
        let both = Keys::open(dir.path(), &clock).unwrap();
        assert_ne!(both.signing_kid, first.signing_kid);
        assert!(both.verifying(&first.signing_kid).is_some());
        assert_eq!(both.public().count(), 2);
    }

    #[test]
    fn the_ledgers_key_is_not_the_tokens_and_the_newest_is_last() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let first = of_ledger(dir.path(), &clock).unwrap();
        let tokens = Keys::open(dir.path(), &clock).unwrap();
        assert!(tokens.verifying(&kid(&first[0].verifying_key())).is_none());
        assert_eq!(Keys::open(dir.path(), &clock).unwrap().public().count(), 1);
        create(&dir.path().join("keys/ledger"), &clock).unwrap();
        let both = of_ledger(dir.path(), &clock).unwrap();
        assert_eq!((both.len(), &both[0]), (2, &first[0]));
    }

    #[test]
    fn a_damaged_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("keys")).unwrap();
        write_secret(&dir.path().join("keys/1-x.key"), "zz").unwrap();
        let error = Keys::open(dir.path(), &Clock::system()).unwrap_err();
        assert!(error.to_string().contains("1-x.key"), "{error}");
    }
}
