//! The CPU weight of each live sandbox: all that share one name have the weight of one between
//! them, however many they are.
//!
//! The kernel divides a busy CPU by weight. Without this a crowd would get a crowd's part of it.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cgroup::{WEIGHT, WEIGHT_LEAST};
use crate::wire::Id;

/// Up to so many sandboxes of one name, each has its exact part.
const EXACT_MAX: u32 = 16;

/// The weights of what is live.
#[derive(Debug, Default)]
pub(super) struct Shares {
    names: Mutex<HashMap<String, Crowd>>,
}

/// The sandboxes of one name.
#[derive(Debug, Default)]
struct Crowd {
    /// What the weight of one is divided by; 0 before the first.
    divisor: u32,
    /// Where the weight of each is written; none while it is being made.
    files: HashMap<Id, Option<File>>,
}

/// A sandbox's part; it goes back to the others when this is dropped.
#[derive(Debug)]
pub(crate) struct Part {
    shares: Arc<Shares>,
    name: String,
    sandbox: Id,
}

impl Shares {
    /// Counts a sandbox in that is to be made; the others' weights are written where they change.
    pub(super) fn join(self: &Arc<Shares>, name: &str, sandbox: Id) -> Part {
        let mut names = self.names();
        let crowd = names.entry(name.to_owned()).or_default();
        crowd.files.insert(sandbox, None);
        crowd.weigh();
        Part {
            shares: Arc::clone(self),
            name: name.to_owned(),
            sandbox,
        }
    }

    /// Whether any sandbox of this name is live or being made.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names().contains_key(name)
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Crowd>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut names = self.shares.names();
        let Some(crowd) = names.get_mut(&self.name) else {
            return;
        };
        crowd.files.remove(&self.sandbox);
        if crowd.files.is_empty() {
            names.remove(&self.name);
        } else {
            crowd.weigh();
        }
    }
}

impl Part {
    /// Its weight now.
    pub(super) fn weight(&self) -> u32 {
        let names = self.shares.names();
        names.get(&self.name).map_or(WEIGHT, Crowd::weight)
    }

    /// The sandbox has been made: its weight goes to this file from now on.
    pub(super) fn attach(&self, file: File) {
        let mut names = self.shares.names();
        if let Some(crowd) = names.get_mut(&self.name) {
            write(&file, crowd.weight());
            crowd.files.insert(self.sandbox, Some(file));
        }
    }
}

impl Crowd {
    fn weight(&self) -> u32 {
        (WEIGHT / self.divisor.max(1)).max(WEIGHT_LEAST)
    }

    /// Writes every weight if the divisor has changed.
    fn weigh(&mut self) {
        let count = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        let divisor = divisor(self.divisor, count);
        if divisor != self.divisor {
            self.divisor = divisor;
            let weight = self.weight();
            for file in self.files.values().flatten() {
                write(file, weight);
            }
        }
    }
}

fn write(file: &File, weight: u32) {
    // It fails only where the group is gone already.
    drop(file.write_at(weight.to_string().as_bytes(), 0));
}

/// What the weight of one is divided by for `count`: the count itself for a few. For many, anything
/// from the count to four times as much, so that not every sandbox that comes or goes has all the
/// others written anew.
fn divisor(now: u32, count: u32) -> u32 {
    if count <= EXACT_MAX {
        count
    } else if (count..=count.saturating_mul(4)).contains(&now) {
        now
    } else {
        count.checked_next_power_of_two().unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::tempfile;

    use super::*;

    /// What was written last; a shorter text leaves the end of a longer one.
    fn written(file: &File) -> u32 {
        let mut text = [0; 8];
        let len = file.read_at(&mut text, 0).unwrap();
        let text = str::from_utf8(&text[..len]).unwrap();
        file.set_len(0).unwrap();
        text.parse().unwrap_or(0)
    }

    #[test]
    fn all_of_one_name_share_one_weight_and_others_have_their_own() {
        let shares = Arc::new(Shares::default());
        let files: Vec<File> = (0..3).map(|_| tempfile().unwrap()).collect();
        let attach = |part: &Part, n: usize| part.attach(files[n].try_clone().unwrap());
        let other = shares.join("other", [9; 16]);
        attach(&other, 2);
        assert_eq!(written(&files[2]), WEIGHT);
        let first = shares.join("crowd", [0; 16]);
        attach(&first, 0);
        assert_eq!(written(&files[0]), WEIGHT);
        let second = shares.join("crowd", [1; 16]);
        assert_eq!(
            (written(&files[0]), second.weight()),
            (WEIGHT / 2, WEIGHT / 2)
        );
        attach(&second, 1);
        assert_eq!(written(&files[1]), WEIGHT / 2);
        drop(first);
        assert_eq!(written(&files[1]), WEIGHT);
        drop((second, other));
        assert!(shares.names().is_empty());
        assert_eq!([0, 2].map(|n| written(&files[n])), [0, 0]);
    }

    #[test]
    fn few_have_exact_parts_and_many_are_seldom_written() {
        let mut now = 0;
        for count in 1..=EXACT_MAX {
            now = divisor(now, count);
            assert_eq!(now, count);
        }
        let mut changes = 0;
        let ups_and_downs = (17..=1000).chain((17..1000).rev());
        for count in ups_and_downs {
            let next = divisor(now, count);
            assert!((count..=4 * count).contains(&next), "{next} for {count}");
            changes += u32::from(next != now);
            now = next;
        }
        assert!(changes <= 12, "{changes}");
    }
}
