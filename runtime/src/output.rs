//! What is kept of a process's output: the head of each stream up to a bound, and how much there
//! was.

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
        self.truncated
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
        assert_eq!(
            captured,
            Captured {
                bytes: b"abcde".to_vec(),
                truncated: true,
                total: 8
            }
        );
    }

    #[test]
    fn output_of_exactly_the_limit_is_not_truncated() {
        let mut captured = Captured::default();
        assert!(!captured.add(b"abcde", 5));
        assert_eq!(captured.total, 5);
    }
}
