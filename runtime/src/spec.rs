//! What a caller asks of a sandbox: ids, limits, files and the process to run; plain values, no
//! I/O.

use std::fmt;
use std::str::FromStr;

use crate::runner::Interpreter;

/// Identity of a sandbox: 16 time-ordered bytes; its text form is `sbx_` and 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxId(pub [u8; 16]);

impl SandboxId {
    /// The 32 lower-case hex digits without the prefix, as used for directory and group names.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sbx_{}", self.hex())
    }
}

impl fmt::Debug for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no digest (`sha256:` and 64 lower-case hex digits) or sandbox id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what} {text:?}")]
pub struct ParseIdError {
    /// What was expected: `digest` or `sandbox id`.
    pub what: &'static str,
    /// The text as given.
    pub text: String,
}

impl FromStr for SandboxId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let digits = text.strip_prefix("sbx_").unwrap_or(text);
        unhex(digits).map(SandboxId).ok_or_else(|| ParseIdError {
            what: "sandbox id",
            text: text.to_owned(),
        })
    }
}

/// SHA-256 of an image's canonical manifest; its text form is `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The 64 lower-case hex digits without the prefix: the image's directory name in the store.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.strip_prefix("sha256:")
            .and_then(unhex)
            .map(Digest)
            .ok_or_else(|| ParseIdError {
                what: "digest",
                text: text.to_owned(),
            })
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Caps on one sandbox or execution; every field must be above zero.
///
/// The kernel enforces memory, processes, disk, inodes and open files; the shim wall and CPU time;
/// the server the output. Upper bounds are the caller's and the launcher's, not this type's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wall time from go to the end of the main process, in milliseconds.
    pub wall_ms: u64,
    /// CPU time of all processes together, in milliseconds.
    pub cpu_ms: u64,
    /// CPU share in thousandths of one CPU.
    pub cpu_millis: u32,
    /// Memory with swap, in bytes; includes page cache that cannot be dropped.
    pub memory_bytes: u64,
    /// Processes and threads at once, init among them: 2 is the least that runs anything.
    pub pids: u32,
    /// Usable size of the sandbox's own disk, in bytes.
    pub disk_bytes: u64,
    /// Files, directories and links on that disk.
    pub inodes: u64,
    /// Descriptors one process may have open; below 16 init itself may run out of them.
    pub open_files: u32,
    /// Bytes kept of standard output, and as many of standard error.
    pub output_bytes: u64,
}

impl Limits {
    /// The names of the fields that are zero, which no sandbox can be made with.
    #[must_use]
    pub fn zeros(&self) -> Vec<&'static str> {
        [
            ("wall_ms", self.wall_ms),
            ("cpu_ms", self.cpu_ms),
            ("cpu_millis", u64::from(self.cpu_millis)),
            ("memory_bytes", self.memory_bytes),
            ("pids", u64::from(self.pids)),
            ("disk_bytes", self.disk_bytes),
            ("inodes", self.inodes),
            ("open_files", u64::from(self.open_files)),
            ("output_bytes", self.output_bytes),
        ]
        .into_iter()
        .filter_map(|(name, value)| (value == 0).then_some(name))
        .collect()
    }
}

/// What a sandbox may reach over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// Nothing but its own loopback.
    #[default]
    None,
}

/// A sandbox to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSpec {
    /// Made by the caller, never used twice.
    pub id: SandboxId,
    /// Whose it is: all live sandboxes of one name have the CPU weight of one between them.
    pub owner: String,
    /// Which root file system.
    pub image: Digest,
    /// Caps on the sandbox; wall and CPU time are set again by [`Process`].
    pub limits: Limits,
    /// What it may reach.
    pub network: Network,
    /// The interpreter that the command begins with: a sandbox made ahead has it waiting.
    pub interpreter: Option<Interpreter>,
}

/// A file to be laid into `/workspace` before the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Relative to `/workspace`; without `..`, NUL, empty parts or a leading `/`; at most 1,024
    /// bytes.
    pub path: String,
    /// The whole content.
    pub content: Vec<u8>,
    /// Permission bits, at most `0o777`.
    pub mode: u32,
}

impl File {
    /// Whether [`File::path`] keeps the rules of its documentation.
    #[must_use]
    pub fn path_is_plain(path: &str) -> bool {
        !path.is_empty()
            && path.len() <= 1024
            && !path.contains('\0')
            && path
                .split('/')
                .all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255)
    }
}

/// The process to be run in a sandbox; arguments and environment together at most 64 KiB, or the
/// run is a failed start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Identity of the execution, written down by the shim so that it can be settled after a crash.
    pub execution: [u8; 16],
    /// Program (looked up in `PATH` if it has no `/`) and arguments; not empty, no NUL.
    pub argv: Vec<String>,
    /// The whole environment; later entries win.
    pub env: Vec<(String, String)>,
    /// Directory to start in, absolute inside the sandbox.
    pub cwd: String,
    /// What the process reads on standard input; end of file follows.
    pub stdin: Vec<u8>,
    /// Wall time from go, in milliseconds.
    pub wall_ms: u64,
    /// CPU time of the whole sandbox from go, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes kept of standard output, and as many of standard error; the rest is dropped and
    /// counted.
    pub output_bytes: u64,
    /// Ends the run with [`crate::Outcome::OutputLimit`] when a stream passes `output_bytes`.
    pub kill_on_output_limit: bool,
    /// The limits were lowered to what a quota left, so that a timeout is a used-up quota.
    pub reduced: bool,
    /// For how long the sandbox's files stay for reading if the run fails, in seconds; 0: not at
    /// all. The launcher's own maximum bounds it.
    pub keep_s: u32,
}

/// Lower-case hex digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `N` bytes that `text` writes as exactly `2 N` lower-case hex digits.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_digests_read_back_as_written() {
        let id = SandboxId([0x1f; 16]);
        assert_eq!(id.to_string(), format!("sbx_{}", "1f".repeat(16)));
        assert_eq!(id.to_string().parse(), Ok(id));
        let digest = Digest([0xa0; 32]);
        assert_eq!(digest.to_string(), format!("sha256:{}", "a0".repeat(32)));
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn malformed_digests_are_refused() {
        let good = "a0".repeat(32);
        for bad in [
            good,
            format!("sha256:{}", "A0".repeat(32)),
            format!("sha256:{}", "a0".repeat(31)),
            format!("sha256:{}", "g0".repeat(32)),
            format!("sha256:+1{}", "a0".repeat(31)),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_plain_relative_paths_name_files() {
        for good in ["a", "a/b.py", "..a", ".hidden", "a b"] {
            assert!(File::path_is_plain(good), "{good:?}");
        }
        let long = "x".repeat(256);
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "..",
            "a/../b",
            "./a",
            "a\0b",
            long.as_str(),
        ] {
            assert!(!File::path_is_plain(bad), "{bad:?}");
        }
    }

    #[test]
    fn zero_limits_are_named() {
        let mut limits = Limits {
            wall_ms: 1,
            cpu_ms: 1,
            cpu_millis: 1,
            memory_bytes: 1,
            pids: 1,
            disk_bytes: 1,
            inodes: 1,
            open_files: 1,
            output_bytes: 1,
        };
        assert!(limits.zeros().is_empty());
        limits.pids = 0;
        limits.output_bytes = 0;
        assert_eq!(limits.zeros(), ["pids", "output_bytes"]);
    }
}
