//! What is kept of a process's output: the head of each stream up to a bound, its last bytes, and
//! how much there was.

use std::collections::VecDeque;

/// How much of the end of a stream outlives its being cut, in bytes.
pub(crate) const TAIL_BYTES: usize = 4096;

/// Which of a process's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Sees every byte of output as it arrives, before any is dropped.
///
/// It runs on the path of the execution and must not block.
pub type OutputSink = Box<dyn FnMut(Stream, &[u8]) + Send>;

/// What was kept of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Captured {
    /// The head of the stream, at most the output limit.
    pub bytes: Vec<u8>,
    /// Whether bytes were dropped after the head.
    pub truncated: bool,
    /// How many bytes the process wrote and the server read.
    pub total: u64,
    /// The last of what was dropped, at most [`TAIL_BYTES`].
    dropped: VecDeque<u8>,
}

impl Captured {
    /// Adds `chunk`, keeping at most `limit` bytes in all; says whether the limit has been passed.
    pub(crate) fn add(&mut self, chunk: &[u8], limit: u64) -> bool {
        self.total += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let room = limit.saturating_sub(self.bytes.len());
        let kept = chunk.len().min(room);
        self.bytes.extend_from_slice(&chunk[..kept]);
        self.truncated |= kept < chunk.len();
        let dropped = &chunk[kept..];
        let last = &dropped[dropped.len().saturating_sub(TAIL_BYTES)..];
        let more = (self.dropped.len() + last.len()).saturating_sub(TAIL_BYTES);
        self.dropped.drain(..more);
        self.dropped.extend(last);
        self.truncated
    }

    /// The end of the stream, whether it was cut or not: at most 4,096 bytes.
    #[must_use]
    pub fn tail(&self) -> Vec<u8> {
        let of_head = TAIL_BYTES - self.dropped.len();
        let head = &self.bytes[self.bytes.len().saturating_sub(of_head)..];
        head.iter().chain(&self.dropped).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_kept_and_the_rest_counted() {
        let mut captured = Captured::default();
        assert!(!captured.add(b"abc", 5));
        assert!(!captured.add(b"de", 5));
        assert!(captured.add(b"fgh", 5));
        assert!(captured.add(b"", 5), "once passed, the limit stays passed");
        assert_eq!(captured.bytes, b"abcde");
        assert_eq!((captured.truncated, captured.total), (true, 8));
        assert_eq!(captured.tail(), b"abcdefgh");
    }

    #[test]
    fn the_last_bytes_outlive_the_cut_however_they_come() {
        let all: Vec<u8> = (0..20_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        for (limit, piece) in [
            (0, 1),
            (5, 7),
            (4_095, 4_096),
            (100, 4_097),
            (9_999, 20_000),
        ] {
            let mut captured = Captured::default();
            for chunk in all.chunks(piece) {
                captured.add(chunk, limit);
                assert!(captured.dropped.len() <= TAIL_BYTES);
            }
            assert_eq!(
                captured.tail(),
                all[all.len() - TAIL_BYTES..],
                "{limit} {piece}"
            );
        }
        let mut short = Captured::default();
        short.add(b"ab", 1);
        assert_eq!(short.tail(), b"ab");
    }

    #[test]
    fn output_of_exactly_the_limit_is_not_truncated() {
        let mut captured = Captured::default();
        assert!(!captured.add(b"abcde", 5));
        assert_eq!(captured.total, 5);
    }
}
