//! The 16-byte, time-ordered identifiers of holds and executions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An identifier: the bytes of a `UUIDv7`, so that ids made later sort later.
///
/// The caller makes ids and renders them with its own prefix; the ledger only compares them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Id(#[serde(with = "crate::codec::array")] pub [u8; 16]);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}
