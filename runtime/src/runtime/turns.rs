//! Whose sandbox is made next: few are made at a time, and whoever waits gets a turn for each name,
//! not for each sandbox.
//!
//! To make one takes the platform's own time on the CPU. Made all at once, a crowd's would hold up
//! everyone's, and what runs already. A name of which none is being made does not wait for the
//! crowd's either: as many places again are kept for such. Names that have had too much of the CPUs
//! have one place between them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Who is being served and who waits.
#[derive(Debug)]
pub(super) struct Turns {
    /// How many at a time when one name has them all; twice as many in all.
    count: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many are being made for each name; none is zero.
    served: HashMap<String, usize>,
    /// How many of them are for names behind.
    behind: usize,
    /// Names with someone waiting, in the order in which they are served.
    waiting: VecDeque<Waiting>,
}

/// Those of one name who wait.
#[derive(Debug)]
struct Waiting {
    name: String,
    behind: bool,
    queue: VecDeque<oneshot::Sender<Turn>>,
}

/// A sandbox may be made until this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    /// None when there was nobody to take it.
    of: Option<(Arc<Turns>, String)>,
    behind: bool,
}

impl State {
    /// Whether another may be made for this name now; counts it if so.
    fn admit(&mut self, name: &str, behind: bool, count: usize) -> bool {
        let all: usize = self.served.values().sum();
        let lone = !self.served.contains_key(name);
        let has_place = all < count || (lone && all < count.saturating_mul(2));
        let admitted = has_place && !(behind && self.behind > 0);
        if admitted {
            *self.served.entry(name.to_owned()).or_default() += 1;
            self.behind += usize::from(behind);
        }
        admitted
    }

    fn release(&mut self, name: &str, behind: bool) {
        self.behind -= usize::from(behind);
        if let Some(served) = self.served.get_mut(name) {
            *served -= 1;
            if *served == 0 {
                self.served.remove(name);
            }
        }
    }

    /// The first in the line who may be served, with the name and whether that is behind; the name
    /// goes to the end.
    fn next(&mut self, count: usize) -> Option<(String, bool, oneshot::Sender<Turn>)> {
        let mut line = 0..self.waiting.len();
        let at = line.find(|at| {
            let first = self.waiting.get(*at);
            let first = first.map(|first| (first.name.clone(), first.behind));
            first.is_some_and(|(name, behind)| self.admit(&name, behind, count))
        })?;
        let mut first = self.waiting.remove(at)?;
        let (name, behind) = (first.name.clone(), first.behind);
        let next = first.queue.pop_front()?;
        if !first.queue.is_empty() {
            self.waiting.push_back(first);
        }
        Some((name, behind, next))
    }
}

impl Turns {
    /// At most `count` at a time for one name, and twice as many for all.
    pub(super) fn new(count: usize) -> Turns {
        Turns {
            count,
            state: Mutex::default(),
        }
    }

    /// Waits for this name's turn; `behind` is whether it has had too much of the CPUs. Who waits
    /// is bounded by who may ask for a sandbox at all. Dropping the future gives the turn up.
    pub(super) async fn take(self: &Arc<Turns>, name: &str, behind: bool) -> Turn {
        let turn = {
            let mut state = self.state();
            if state.admit(name, behind, self.count) {
                return self.turn(name.to_owned(), behind);
            }
            let (serve, turn) = oneshot::channel();
            match state.waiting.iter_mut().find(|of| of.name == name) {
                Some(of) => {
                    of.behind = behind;
                    of.queue.push_back(serve);
                }
                None => state.waiting.push_back(Waiting {
                    name: name.to_owned(),
                    behind,
                    queue: VecDeque::from([serve]),
                }),
            }
            turn
        };
        // The sender is held until it has sent.
        turn.await.unwrap_or(Turn {
            of: None,
            behind: false,
        })
    }

    /// Whether somebody else than `name` waits.
    pub(super) fn others_wait(&self, name: &str) -> bool {
        let state = self.state();
        state.waiting.iter().any(|waiting| waiting.name != name)
    }

    fn turn(self: &Arc<Turns>, name: String, behind: bool) -> Turn {
        Turn {
            of: Some((Arc::clone(self), name)),
            behind,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some((turns, name)) = self.of.take() else {
            return;
        };
        turns.state().release(&name, self.behind);
        loop {
            let Some((name, behind, next)) = turns.state().next(turns.count) else {
                return;
            };
            match next.send(turns.turn(name, behind)) {
                Ok(()) => return,
                // Given up: the one after it.
                Err(mut turn) => {
                    if let Some((turns, name)) = turn.of.take() {
                        turns.state().release(&name, behind);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn is_free(turns: &Arc<Turns>, name: &str) -> bool {
        timeout(Duration::ZERO, turns.take(name, false))
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn names_are_served_in_turn_however_many_each_has_waiting() {
        let turns = Arc::new(Turns::new(1));
        let (first, _other) = (
            turns.take("crowd", false).await,
            turns.take("other", false).await,
        );
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for name in ["crowd", "crowd", "crowd", "lone"] {
            let (turns, served) = (Arc::clone(&turns), Arc::clone(&served));
            waiting.push(tokio::spawn(async move {
                let _turn = turns.take(name, false).await;
                served.lock().unwrap().push(name);
            }));
            tokio::task::yield_now().await;
        }
        assert!(served.lock().unwrap().is_empty());
        drop(first);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*served.lock().unwrap(), ["crowd", "lone", "crowd", "crowd"]);
        assert!(is_free(&turns, "another").await);
    }

    #[tokio::test]
    async fn a_name_with_none_in_the_making_waits_for_no_crowd_up_to_twice_as_many() {
        let turns = Arc::new(Turns::new(2));
        let crowd = [
            turns.take("crowd", false).await,
            turns.take("crowd", false).await,
        ];
        assert!(!is_free(&turns, "crowd").await);
        let lone = turns.take("first", false).await;
        assert!(!is_free(&turns, "first").await);
        let _second = turns.take("second", false).await;
        assert!(!is_free(&turns, "third").await);
        drop(lone);
        assert!(is_free(&turns, "third").await);
        drop(crowd);
        assert!(is_free(&turns, "crowd").await);
    }

    #[tokio::test]
    async fn names_behind_have_one_place_between_them_and_take_nobody_elses() {
        let turns = Arc::new(Turns::new(2));
        let first = turns.take("bully", true).await;
        for name in ["bully", "other bully"] {
            let second = timeout(Duration::ZERO, turns.take(name, true)).await;
            assert!(second.is_err());
        }
        let next = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take("other bully", true).await }
        });
        tokio::task::yield_now().await;
        assert!(is_free(&turns, "lone").await);
        drop(first);
        let _next = timeout(Duration::from_secs(60), next)
            .await
            .unwrap()
            .unwrap();
        assert!(
            timeout(Duration::ZERO, turns.take("bully", true))
                .await
                .is_err()
        );
        assert!(is_free(&turns, "lone").await);
    }

    #[tokio::test]
    async fn turn_of_one_who_has_gone_is_the_next_ones() {
        let turns = Arc::new(Turns::new(1));
        let (first, _other) = (
            turns.take("a", false).await,
            turns.take("other", false).await,
        );
        let gone = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { drop(turns.take("b", false).await) }
        });
        tokio::task::yield_now().await;
        assert!(!turns.others_wait("b"));
        let stays = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take("c", false).await }
        });
        tokio::task::yield_now().await;
        assert!(turns.others_wait("b"));
        gone.abort();
        assert!(gone.await.is_err());
        drop(first);
        let turn = timeout(Duration::from_secs(60), stays)
            .await
            .unwrap()
            .unwrap();
        assert!(!is_free(&turns, "another").await);
        drop(turn);
        assert!(is_free(&turns, "another").await);
    }
}
