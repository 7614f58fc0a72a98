//! A tenant's quotas as they were given, and its hard ones by the scope that they limit: what a
//! hold is checked against lies together.

use serde::{Deserialize, Serialize, Serializer};

use super::amounts::Amounts;
use crate::quantity::Meter;
use crate::quota::{Mode, Quota, ScopeKind, Window};

/// A quota, and where its counters are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// The quota.
    pub(crate) quota: Quota,
    /// Index into the tenant's calendars; `None` for a lifetime.
    pub(super) calendar: Option<usize>,
    /// Place of its scope's counters.
    pub(super) scope: u32,
}

/// A hard quota as holds are checked against it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limit {
    /// What counts.
    pub(crate) meter: Meter,
    /// The most that may be posted and held together.
    pub(crate) most: u128,
    calendar: Option<u32>,
    /// Index into the tenant's rules.
    rule: u32,
    /// Whose it is.
    pub(crate) scope: ScopeKind,
    /// Over which time.
    pub(crate) window: Window,
}

impl Limit {
    /// A word of it.
    pub(crate) fn near(&self) -> u64 {
        u64::from(self.rule)
    }

    /// Index into the tenant's calendars; `None` for a lifetime.
    #[inline]
    pub(super) fn calendar(&self) -> Option<usize> {
        usize::try_from(self.calendar?).ok()
    }

    /// Whether `used + need <= limit + overdraft`.
    #[inline]
    pub(crate) fn has_room(&self, used: u128, need: &Amounts) -> bool {
        let all = used.checked_add(need.get(self.meter));
        all.is_some_and(|all| all <= self.most)
    }

    /// Index into the tenant's rules.
    pub(crate) fn rule(&self) -> usize {
        usize::try_from(self.rule).unwrap_or(usize::MAX)
    }
}

/// All of a tenant. Only the rules are stored; the rest is made from them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(from = "Vec<Rule>")]
pub(crate) struct Rules {
    all: Vec<Rule>,
    /// In the order of the places of their scopes.
    limits: Vec<Limit>,
    /// Where the limits of each place begin, up to the last place that has any, and their end.
    starts: Vec<usize>,
}

impl Rules {
    /// All rules, in the order in which they were given.
    pub(crate) fn all(&self) -> &[Rule] {
        &self.all
    }

    /// The hard quotas of the scope at a place.
    pub(super) fn limits(&self, place: u32) -> &[Limit] {
        let Ok(place) = usize::try_from(place) else {
            return &[];
        };
        match self.starts.get(place..) {
            Some([start, end, ..]) => self.limits.get(*start..*end).unwrap_or_default(),
            _ => &[],
        }
    }
}

impl From<Vec<Rule>> for Rules {
    fn from(all: Vec<Rule>) -> Self {
        let mut placed: Vec<(usize, Limit)> = Vec::new();
        for (rule, index) in all.iter().zip(0..) {
            let Rule {
                quota,
                calendar,
                scope,
            } = rule;
            if quota.mode != Mode::Hard {
                continue;
            }
            let limit = Limit {
                meter: quota.meter,
                most: quota.limit.saturating_add(quota.overdraft),
                calendar: calendar.and_then(|index| u32::try_from(index).ok()),
                rule: index,
                scope: quota.scope.kind(),
                window: quota.window,
            };
            placed.push((usize::try_from(*scope).unwrap_or(usize::MAX), limit));
        }
        placed.sort_by_key(|(place, _)| *place);
        let mut starts = Vec::new();
        for (at, (place, _)) in placed.iter().enumerate() {
            while starts.len() <= *place {
                starts.push(at);
            }
        }
        starts.push(placed.len());
        Self {
            all,
            limits: placed.into_iter().map(|(_, limit)| limit).collect(),
            starts,
        }
    }
}

impl Serialize for Rules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.all.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Scope, Window};
    use crate::testing::quota;

    #[test]
    fn hard_quotas_are_found_by_their_place_and_stored_as_rules() {
        let rule = |scope, limit, mode| Rule {
            quota: Quota {
                mode,
                ..quota(Scope::Tenant, Meter::CpuUs, Window::Day, limit)
            },
            calendar: Some(0),
            scope,
        };
        let all = vec![
            rule(4, 1, Mode::Hard),
            rule(0, 2, Mode::Hard),
            rule(2, 3, Mode::Soft),
            rule(4, 4, Mode::Hard),
        ];
        let rules = Rules::from(all.clone());
        let at = |place| -> Vec<(u128, usize)> {
            let limits = rules.limits(place).iter();
            limits.map(|limit| (limit.most, limit.rule())).collect()
        };
        assert_eq!(at(0), [(2, 1)]);
        assert_eq!(at(4), [(1, 0), (4, 3)]);
        for place in [1, 2, 3, 5, 6, u32::MAX] {
            assert_eq!(at(place), []);
        }
        assert_eq!(Rules::default().limits(0), []);
        let (mut stored, mut given) = (Vec::new(), Vec::new());
        crate::codec::append(&mut stored, &rules);
        crate::codec::append(&mut given, &all);
        assert_eq!(stored, given);
        assert_eq!(postcard::from_bytes(&stored), Ok(rules));
    }
}
