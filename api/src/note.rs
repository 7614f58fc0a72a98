//! Checkpoints of the ledger as C2SP signed notes (`tlog-checkpoint`): made, read, verified.
//!
//! ```text
//! ORIGIN
//! SIZE
//! base64 of the root
//!
//! DASH NAME base64(4 bytes of the key's hash | Ed25519 signature over the three lines)
//! ```
//! DASH is U+2014. A file may hold many notes with an empty line behind each.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

/// The signature type of Ed25519 in key hashes and verifier keys.
const ED25519: u8 = 1;
/// What a signature line begins with.
const DASH: &str = "\u{2014} ";
/// Bytes of a note that are read: more is no note.
const NOTE_MAX: usize = 16 << 10;
/// The same, for reading files.
pub(crate) const NOTE_MAX_BYTES: u64 = 16 << 10;

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which ledger.
    pub origin: String,
    /// How many entries it had.
    pub size: u64,
    /// The RFC 6962 root over them.
    pub root: [u8; 32],
}

/// A signed checkpoint as it was read; nothing is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    checkpoint: Checkpoint,
    /// What was signed.
    signed: String,
    /// Key names, and hash and signature.
    signatures: Vec<(String, Vec<u8>)>,
}

/// A public key that verifies notes: `NAME+HASH+KEY`, as the signed-note specification has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    key: VerifyingKey,
}

/// Why something is no note, no key, or not signed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is not a signed checkpoint.
    #[error("it is no signed checkpoint: {0}")]
    Malformed(&'static str),
    /// It is not a verifier key.
    #[error("it is no verifier key (NAME+HASH+KEY): {0}")]
    Key(&'static str),
    /// None of the keys signed it.
    #[error("none of the given keys has signed it")]
    Unsigned,
    /// A signature in the name of a key is not that key's.
    #[error("its signature is not good: it was changed after it was signed")]
    Forged,
}

/// A name that may stand in notes and keys.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && c != '+';
    (1..=200).contains(&name.len()) && name.chars().all(plain)
}

/// Signs checkpoints under one name.
pub(crate) struct NoteSigner {
    key: SigningKey,
    public: NoteKey,
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoteSigner")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl NoteSigner {
    pub(crate) fn new(name: String, key: SigningKey) -> NoteSigner {
        let public = NoteKey::new(name, key.verifying_key());
        NoteSigner { key, public }
    }

    /// The name that it signs under: the origin of what it signs.
    pub(crate) fn name(&self) -> &str {
        &self.public.name
    }

    /// The note over a checkpoint of its own.
    pub(crate) fn sign(&self, size: u64, root: &[u8; 32]) -> String {
        let name = &self.public.name;
        let signed = format!("{name}\n{size}\n{}\n", STANDARD.encode(root));
        let mut signature = self.public.hash().to_vec();
        signature.extend_from_slice(&self.key.sign(signed.as_bytes()).to_bytes());
        format!("{signed}\n{DASH}{name} {}\n", STANDARD.encode(signature))
    }
}

impl NoteKey {
    pub(crate) fn new(name: String, key: VerifyingKey) -> NoteKey {
        NoteKey { name, key }
    }

    /// Reads `NAME+HASH+KEY`.
    ///
    /// # Errors
    /// [`NoteError::Key`], also where the hash is not the key's.
    pub fn parse(text: &str) -> Result<NoteKey, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (name, hash, key) = (parts.next(), parts.next(), parts.next());
        let (Some(name), Some(hash), Some(key)) = (name, hash, key) else {
            return Err(NoteError::Key("it has not three parts"));
        };
        if !is_name(name) {
            return Err(NoteError::Key("the name is not one"));
        }
        let bytes = STANDARD.decode(key).unwrap_or_default();
        let Some((&ED25519, key)) = bytes.split_first() else {
            return Err(NoteError::Key("it is not an Ed25519 key"));
        };
        let key = <&[u8; 32]>::try_from(key).ok();
        let key = key.and_then(|key| VerifyingKey::from_bytes(key).ok());
        let key = key.ok_or(NoteError::Key("it is not an Ed25519 key"))?;
        let key = NoteKey::new(name.to_owned(), key);
        if crate::ids::hex(&key.hash()) != hash.to_ascii_lowercase() {
            return Err(NoteError::Key("its hash is another key's"));
        }
        Ok(key)
    }

    /// The first bytes of the hash that names it in signatures.
    fn hash(&self) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(self.name.as_bytes())
            .chain_update([b'\n', ED25519])
            .chain_update(self.key.as_bytes())
            .finalize();
        let mut hash = [0; 4];
        hash.copy_from_slice(digest.get(..4).unwrap_or(&[0; 4]));
        hash
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![ED25519];
        bytes.extend_from_slice(self.key.as_bytes());
        let (hash, key) = (crate::ids::hex(&self.hash()), STANDARD.encode(bytes));
        write!(f, "{}+{hash}+{key}", self.name)
    }
}

impl Note {
    /// Reads one note, and nothing behind it.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn parse(text: &str) -> Result<Note, NoteError> {
        if text.len() > NOTE_MAX {
            return Err(NoteError::Malformed("it is too long"));
        }
        let cut = "there is no empty line between text and signatures";
        let (signed, below) = text.split_once("\n\n").ok_or(NoteError::Malformed(cut))?;
        let below = below.strip_suffix('\n').unwrap_or(below);
        let signatures = below.split('\n').map(signature).collect::<Option<_>>();
        let signatures = signatures.ok_or(NoteError::Malformed("a signature line is not one"))?;
        Ok(Note {
            checkpoint: checkpoint(signed)?,
            signed: format!("{signed}\n"),
            signatures,
        })
    }

    /// Reads all notes of a text, each with an empty line behind it; the last may go without.
    ///
    /// # Errors
    /// [`NoteError::Malformed`] of the first that is none.
    pub fn parse_all(text: &str) -> Result<Vec<Note>, NoteError> {
        split(text).map(Note::parse).collect()
    }

    /// What it says.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Whether one of `keys` has signed it. Signatures of others say nothing.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`], or [`NoteError::Forged`] where one in a key's name is not good.
    pub fn verify(&self, keys: &[NoteKey]) -> Result<(), NoteError> {
        let mut good = false;
        for (name, bytes) in &self.signatures {
            let Some((hash, signature)) = bytes.split_at_checked(4) else {
                continue;
            };
            let Some(key) = keys
                .iter()
                .find(|key| key.name == *name && key.hash() == hash)
            else {
                continue;
            };
            let signature = Signature::from_slice(signature);
            let verifies = |signature: &Signature| {
                let text = self.signed.as_bytes();
                key.key.verify_strict(text, signature).is_ok()
            };
            if !signature.as_ref().is_ok_and(verifies) {
                return Err(NoteError::Forged);
            }
            good = true;
        }
        if good {
            Ok(())
        } else {
            Err(NoteError::Unsigned)
        }
    }
}

/// The texts of the notes in a file of many.
pub(crate) fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text.trim_start_matches('\n');
    std::iter::from_fn(move || {
        let (note, behind) = match rest.split_once("\n\n") {
            None if rest.is_empty() => return None,
            None => (rest, ""),
            Some((signed, below)) => {
                let end = below.find("\n\n").map_or(below.len(), |at| at + 1);
                let length = signed.len() + 2 + end;
                rest.split_at_checked(length)?
            }
        };
        rest = behind.trim_start_matches('\n');
        Some(note)
    })
}

fn signature(line: &str) -> Option<(String, Vec<u8>)> {
    let (name, encoded) = line.strip_prefix(DASH)?.split_once(' ')?;
    let bytes = STANDARD.decode(encoded).ok()?;
    (is_name(name) && bytes.len() > 4).then(|| (name.to_owned(), bytes))
}

fn checkpoint(signed: &str) -> Result<Checkpoint, NoteError> {
    let mut lines = signed.split('\n');
    let origin = lines.next().filter(|origin| !origin.is_empty());
    let origin = origin.ok_or(NoteError::Malformed("it has no origin"))?;
    let size = lines.next().unwrap_or_default();
    let plain = size == "0" || (!size.starts_with('0') && size.bytes().all(|b| b.is_ascii_digit()));
    let size = size.parse().ok().filter(|_| plain);
    let size = size.ok_or(NoteError::Malformed("its second line is no size"))?;
    let root = lines.next().and_then(|root| STANDARD.decode(root).ok());
    let root = root.and_then(|root| root.try_into().ok());
    Ok(Checkpoint {
        origin: origin.to_owned(),
        size,
        root: root.ok_or(NoteError::Malformed("its third line is no root"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(seed: u8) -> NoteSigner {
        NoteSigner::new(
            "farebox/test".to_owned(),
            SigningKey::from_bytes(&[seed; 32]),
        )
    }

    fn keys(seed: u8) -> Vec<NoteKey> {
        vec![signer(seed).public]
    }

    #[test]
    fn a_note_has_the_form_of_the_specification_and_reads_back() {
        let text = signer(1).sign(42, &[7; 32]);
        let lines: Vec<&str> = text.split('\n').collect();
        let root = STANDARD.encode([7; 32]);
        assert_eq!(lines[..4], ["farebox/test", "42", root.as_str(), ""]);
        assert!(lines[4].starts_with("\u{2014} farebox/test "), "{text}");
        assert_eq!(lines[5..], [""]);
        let note = Note::parse(&text).unwrap();
        assert_eq!(note.checkpoint().size, 42);
        assert_eq!(note.checkpoint().root, [7; 32]);
        assert_eq!(note.verify(&keys(1)), Ok(()));
        assert_eq!(note.verify(&keys(2)), Err(NoteError::Unsigned));
        assert_eq!(note.verify(&[]), Err(NoteError::Unsigned));
    }

    /// The example of the signed-note specification's Go package (`golang.org/x/mod/sumdb/note`).
    #[test]
    fn keys_of_the_reference_implementation_are_read() {
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key = NoteKey::parse(text).unwrap();
        assert_eq!(key.to_string(), text);
        let signed = "If you think cryptography is the answer to your problem,\n\
            then you don't know what your problem is.\n";
        let signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngo\
            tpRZb6KE6RyyBwJnAM=";
        let note = Note {
            checkpoint: Checkpoint {
                origin: String::new(),
                size: 0,
                root: [0; 32],
            },
            signed: signed.to_owned(),
            signatures: vec![(
                "PeterNeumann".to_owned(),
                STANDARD.decode(signature).unwrap(),
            )],
        };
        assert_eq!(note.verify(&[key]), Ok(()));
    }

    #[test]
    fn every_changed_character_of_a_note_is_noticed() {
        let text = signer(1).sign(42, &[7; 32]);
        for (at, was) in text.char_indices() {
            for new in ['A', '\n', ' '] {
                let mut changed: Vec<char> = text.chars().collect();
                let place = text[..at].chars().count();
                changed[place] = new;
                let changed: String = changed.into_iter().collect();
                // A last line may go without its end.
                let same = new == was || at + 1 == text.len();
                let verified = Note::parse(&changed).and_then(|note| note.verify(&keys(1)));
                assert!(same || verified.is_err(), "{at}: {changed:?}");
            }
        }
    }

    #[test]
    fn keys_read_back_and_bad_ones_are_named() {
        let key = &keys(1)[0];
        let text = key.to_string();
        assert_eq!(NoteKey::parse(&text).as_ref(), Ok(key));
        for bad in [
            "",
            "x",
            "x+00000000+",
            "farebox/test+00000000+AQ==",
            &text.replace("farebox", "other"),
            &text[..text.len() - 4],
        ] {
            assert!(
                matches!(NoteKey::parse(bad), Err(NoteError::Key(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_file_of_notes_is_read_note_by_note() {
        let one = |size| signer(1).sign(size, &[7; 32]);
        let file = format!("{}\n{}\n{}", one(1), one(2), one(3));
        let notes = Note::parse_all(&file).unwrap();
        let sizes: Vec<u64> = notes.iter().map(|note| note.checkpoint().size).collect();
        assert_eq!(sizes, [1, 2, 3]);
        assert!(notes.iter().all(|note| note.verify(&keys(1)).is_ok()));
        assert_eq!(Note::parse_all("").unwrap(), []);
        assert!(Note::parse_all(&file[..file.len() - 150]).is_err());
        assert!(Note::parse_all(&format!("{}\nrubbish", one(1))).is_err());
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        let good = signer(1).sign(42, &[7; 32]);
        for (from, to) in [
            ("42\n", "042\n"),
            ("42\n", "-1\n"),
            ("42\n", "\n"),
            ("\n\n", "\n"),
            ("farebox/test\n42", "\n42"),
            ("BwcHBwcH", "BwcH"),
            ("\u{2014}", "-"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert!(
                matches!(Note::parse(&bad), Err(NoteError::Malformed(_))),
                "{bad:?}"
            );
        }
        let size = signer(1)
            .sign(u64::MAX, &[7; 32])
            .replace(&u64::MAX.to_string(), "18446744073709551616");
        assert!(Note::parse(&size).is_err());
        assert!(Note::parse(&format!("{}{good}", "x".repeat(NOTE_MAX))).is_err());
    }
}
