//! Small files that are replaced whole: `magic | crc u32 | postcard`, written beside, synced,
//! renamed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::Error;

/// Writes `value` in place of what is at `path`, durably: after a crash there is the old file or
/// the new one.
pub(crate) fn replace<T: Serialize>(path: &Path, magic: [u8; 8], value: &T) -> Result<(), Error> {
    replace_bytes(path, &encode(magic, value))
}

/// The bytes of a file with `value`.
pub(crate) fn encode<T: Serialize>(magic: [u8; 8], value: &T) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(&[0; 4]);
    codec::append(&mut bytes, value);
    let crc = crc32fast::hash(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Writes bytes made by [`encode`] in place of what is at `path`, durably.
pub(crate) fn replace_bytes(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let beside = path.with_extension("tmp");
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&beside, path)?;
        match path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| Error::File {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

/// Reads what [`replace`] has written; `None` if there is no file, or a damaged one.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, magic: [u8; 8]) -> Result<Option<T>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::File {
                what: "read",
                path: path.to_owned(),
                source,
            });
        }
    };
    let value = decode(&bytes, magic);
    if value.is_none() {
        tracing::warn!(path = %path.display(), "file is damaged and will be made again");
    }
    Ok(value)
}

/// Reads bytes made by [`encode`].
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], magic: [u8; 8]) -> Option<T> {
    let body = bytes.get(12..)?;
    let crc = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?);
    (bytes.starts_with(&magic) && crc == crc32fast::hash(body)).then_some(())?;
    postcard::from_bytes(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small");
        assert_eq!(read::<u64>(&path, *b"12345678").unwrap(), None);
        replace(&path, *b"12345678", &77_u64).unwrap();
        replace(&path, *b"12345678", &78_u64).unwrap();
        assert_eq!(read::<u64>(&path, *b"12345678").unwrap(), Some(78));
        assert_eq!(read::<u64>(&path, *b"87654321").unwrap(), None);
        let bytes = fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(read::<u64>(&path, *b"12345678").unwrap(), None);
        }
    }
}
