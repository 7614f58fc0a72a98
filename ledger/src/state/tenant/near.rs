//! The words of a tenant that are read ahead; see [`crate::state::near`].

use super::{Places, Tenant};

impl Tenant {
    /// A word of each cache line that a hold through `key`, or the end of one, counted at these
    /// places, needs.
    pub(crate) fn near(&self, places: Places, key: Option<&str>) -> u64 {
        let mut words = 0;
        for place in places {
            let limits = self.rules.limits(place);
            let checked = key.is_some() && !limits.is_empty();
            words ^= self.at(place).map_or(0, |one| one.near(checked));
            if checked {
                words = limits.iter().fold(words, |words, one| words ^ one.near());
            }
        }
        words ^= self.billing.near();
        if let Some(key) = key {
            words ^= self.starts.near(key) ^ u64::from(self.open);
        }
        words
    }
}
