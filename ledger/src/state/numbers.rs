//! How records are numbered and timed: each follows on the one before it.

use crate::clock::Micros;

/// The numbers and the time of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Numbers {
    /// Of its command.
    pub(crate) lsn: u64,
    /// Of the last entry.
    pub(crate) seq: u64,
    /// When it was recorded.
    pub(crate) at: Micros,
}

impl Numbers {
    /// Those of the next record, if they can follow; `seq` is that of an entry.
    pub(crate) fn next(self, lsn: u64, at: Micros, seq: Option<u64>) -> Result<Self, String> {
        if lsn != self.lsn + 1 {
            return Err(format!("command {lsn} follows on command {}", self.lsn));
        }
        if at <= self.at && self.lsn > 0 {
            return Err(format!("its time {at} is not after {}", self.at));
        }
        if let Some(seq) = seq.filter(|seq| *seq != self.seq + 1) {
            return Err(format!("entry {seq} follows on entry {}", self.seq));
        }
        let seq = seq.unwrap_or(self.seq);
        Ok(Self { lsn, seq, at })
    }
}
