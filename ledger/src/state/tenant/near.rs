//! The words of a tenant that are read ahead; see [`crate::state::near`].

use super::{Places, Tenant};

/// The places of a hold's scopes that mostly have quotas: tenant and project.
const CHECKED: usize = 2;

impl Tenant {
    /// Words of the tenant itself.
    pub(crate) fn near(&self) -> u64 {
        let lengths = [
            self.counters.len(),
            self.windows.len(),
            self.rules.limits(0).len(),
            self.plans.len(),
        ];
        let lengths = lengths.iter().fold(0, |all, length| all ^ length);
        u64::try_from(lengths).unwrap_or(0) ^ u64::from(self.open) ^ self.starts.near()
    }

    /// Words of the counters at these places.
    pub(crate) fn near_counters(&self, places: Places, hold: bool) -> u64 {
        let mut words = 0;
        for (place, index) in places.into_iter().zip(0..) {
            let checked = hold && index < CHECKED;
            words ^= self.at(place).map_or(0, |one| one.near(checked));
        }
        words
    }

    /// Words of whatever else a hold through `key`, or the end of one, needs.
    pub(crate) fn near_rest(&self, places: Places, key: Option<&[u8]>) -> u64 {
        let window = self
            .windows
            .first()
            .map_or(0, |span| u64::from(span.end == 0));
        let words = self.billing.near() ^ window;
        let Some(key) = key else { return words };
        let limits = places
            .into_iter()
            .take(CHECKED)
            .flat_map(|place| self.rules.limits(place));
        limits.fold(words, |words, limit| words ^ limit.near()) ^ self.starts.near_key(key)
    }
}
