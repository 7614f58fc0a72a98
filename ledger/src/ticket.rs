//! The answer to come: a future and a blocking wait over one slot, with the standard library only.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::Failed;

/// The answer to a command, once it is durable. Await it, or [`Ticket::wait`] for it.
///
/// Dropping it takes nothing back: the command is carried out all the same.
pub struct Ticket<T> {
    slot: Arc<Slot<T>>,
}

/// The writer's end; answers exactly once, with a failure if it is dropped before.
pub(crate) struct Answer<T> {
    slot: Arc<Slot<T>>,
    given: bool,
}

struct Slot<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

enum State<T> {
    Pending { waker: Option<Waker>, blocked: bool },
    Ready(Result<T, Failed>),
    Taken,
}

/// A ticket and the end that answers it.
pub(crate) fn ticket<T>() -> (Ticket<T>, Answer<T>) {
    let slot = Arc::new(Slot {
        state: Mutex::new(State::Pending {
            waker: None,
            blocked: false,
        }),
        ready: Condvar::new(),
    });
    (
        Ticket {
            slot: Arc::clone(&slot),
        },
        Answer { slot, given: false },
    )
}

impl<T> Ticket<T> {
    /// Blocks until the answer is there.
    pub fn wait(self) -> Result<T, Failed> {
        let mut state = self
            .slot
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Ready(answer) => return answer,
                State::Taken => return Err(Failed::NotWritable),
                State::Pending { waker, .. } => {
                    *state = State::Pending {
                        waker,
                        blocked: true,
                    }
                }
            }
            state = self
                .slot
                .ready
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T, Failed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self
            .slot
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Ready(answer) => Poll::Ready(answer),
            State::Taken => Poll::Ready(Err(Failed::NotWritable)),
            State::Pending { waker, blocked } => {
                let waker = waker
                    .filter(|old| old.will_wake(cx.waker()))
                    .unwrap_or_else(|| cx.waker().clone());
                *state = State::Pending {
                    waker: Some(waker),
                    blocked,
                };
                Poll::Pending
            }
        }
    }
}

impl<T> Answer<T> {
    /// Gives the answer.
    pub(crate) fn give(mut self, answer: Result<T, Failed>) {
        self.put(answer);
    }

    fn put(&mut self, answer: Result<T, Failed>) {
        self.given = true;
        let mut state = self
            .slot
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *state, State::Ready(answer));
        drop(state);
        if let State::Pending { waker, blocked } = before {
            if blocked {
                self.slot.ready.notify_all();
            }
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if !self.given {
            self.put(Err(Failed::NotWritable));
        }
    }
}

impl<T> fmt::Debug for Ticket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_reaches_a_waiting_thread() {
        let (ticket, answer) = ticket();
        let waiter = thread::spawn(move || ticket.wait());
        answer.give(Ok(7));
        assert_eq!(waiter.join().unwrap(), Ok(7));
    }

    #[test]
    fn an_answer_wakes_the_last_poller_and_is_taken_once() {
        let (mut ticket, answer) = ticket();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(Pin::new(&mut ticket).poll(&mut cx), Poll::Pending);
        answer.give(Ok(7));
        assert_eq!(Pin::new(&mut ticket).poll(&mut cx), Poll::Ready(Ok(7)));
        let again = Pin::new(&mut ticket).poll(&mut cx);
        assert_eq!(again, Poll::Ready(Err(Failed::NotWritable)));
    }

    #[test]
    fn a_dropped_answer_is_a_failure() {
        let (ticket, answer) = ticket::<u8>();
        drop(answer);
        assert_eq!(ticket.wait(), Err(Failed::NotWritable));
    }
}
