//! Whose sandbox is made next: few are made at a time, and whoever waits gets a turn for each name,
//! not for each sandbox.
//!
//! To make one takes the platform's own time on the CPU. Made all at once, a crowd's would hold up
//! everyone's, and what runs already.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Who is being served and who waits.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Names with someone waiting, in the order in which they are served.
    waiting: VecDeque<(String, VecDeque<oneshot::Sender<Turn>>)>,
}

/// A sandbox may be made until this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    /// None when there was nobody to take it.
    turns: Option<Arc<Turns>>,
}

impl Turns {
    /// At most `count` at a time.
    pub(super) fn new(count: usize) -> Turns {
        Turns {
            state: Mutex::new(State {
                free: count,
                waiting: VecDeque::new(),
            }),
        }
    }

    /// Waits for this name's turn. Who waits is bounded by who may ask for a sandbox at all.
    /// Dropping the future gives the turn up.
    pub(super) async fn take(self: &Arc<Turns>, name: &str) -> Turn {
        let turn = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Turn {
                    turns: Some(Arc::clone(self)),
                };
            }
            let (serve, turn) = oneshot::channel();
            match state.waiting.iter_mut().find(|(of, _)| of == name) {
                Some((_, queue)) => queue.push_back(serve),
                None => state
                    .waiting
                    .push_back((name.to_owned(), VecDeque::from([serve]))),
            }
            turn
        };
        // The sender is held until it has sent.
        turn.await.unwrap_or(Turn { turns: None })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next who waits, whose name goes to the end of the line; else one is free.
    fn next(&self) -> Option<oneshot::Sender<Turn>> {
        let mut state = self.state();
        let Some((name, mut queue)) = state.waiting.pop_front() else {
            state.free += 1;
            return None;
        };
        let next = queue.pop_front();
        if !queue.is_empty() {
            state.waiting.push_back((name, queue));
        }
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.turns.take() else {
            return;
        };
        while let Some(next) = turns.next() {
            let turn = Turn {
                turns: Some(Arc::clone(&turns)),
            };
            match next.send(turn) {
                Ok(()) => return,
                // Given up: the one after it.
                Err(mut turn) => turn.turns = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn is_free(turns: &Arc<Turns>) -> bool {
        let none = Duration::ZERO;
        timeout(none, turns.take("another")).await.is_ok()
    }

    #[tokio::test]
    async fn names_are_served_in_turn_however_many_each_has_waiting() {
        let turns = Arc::new(Turns::new(1));
        let first = turns.take("crowd").await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for name in ["crowd", "crowd", "crowd", "lone"] {
            let (turns, served) = (Arc::clone(&turns), Arc::clone(&served));
            waiting.push(tokio::spawn(async move {
                let _turn = turns.take(name).await;
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
        assert!(is_free(&turns).await);
    }

    #[tokio::test]
    async fn turn_of_one_who_has_gone_is_the_next_ones() {
        let turns = Arc::new(Turns::new(1));
        let first = turns.take("a").await;
        let gone = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { drop(turns.take("b").await) }
        });
        tokio::task::yield_now().await;
        let stays = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take("c").await }
        });
        tokio::task::yield_now().await;
        gone.abort();
        assert!(gone.await.is_err());
        drop(first);
        let turn = timeout(Duration::from_secs(60), stays)
            .await
            .unwrap()
            .unwrap();
        assert!(!is_free(&turns).await);
        drop(turn);
        assert!(is_free(&turns).await);
    }
}
