//! The words of a tenant that are read ahead; see [`crate::state::near`].

use super::{Places, Tenant};

impl Tenant {
    /// A word of each cache line that a hold through `key`, or the end of one, counted at these
    /// places, needs.
    pub(crate) fn near(&self, places: Places, key: Option<&str>) -> u64 {
        let counters = places.into_iter().filter_map(|place| self.at(place));
        let mut words = counters.fold(0, |words, counters| words ^ counters.near(key.is_some()));
        words ^= self.billing.near();
        if let Some(key) = key {
            words ^= self.starts.near(key) ^ u64::from(self.open);
            let limits = places
                .into_iter()
                .flat_map(|place| self.rules.limits(place));
            words = limits.fold(words, |words, limit| words ^ limit.near());
        }
        words
    }
}
