//! The ledger's only idea of time: it is given, never read.

/// Wall time in microseconds since the Unix epoch, UTC.
pub type Micros = i64;

/// Where the ledger gets the time from.
///
/// The ledger corrects what it is told: its own time never goes back and never stands still.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The wall time now.
    fn now_us(&self) -> Micros;
}
