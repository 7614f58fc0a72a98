//! The answer to come: a future and a blocking wait over one slot, with the standard library only.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::Failed;

/// The answer to a command, once it is durable. Await it, or [`Ticket::wait`] for it.
///
/// Dropping it takes nothing back: the command is carried out all the same.
pub struct Ticket<T> {
    slot: Arc<Slot<T>>,
}

/// The writer's end: the answer is put as soon as it is known, and given once it is durable. If
/// this is dropped before, the ticket tells a failure.
pub(crate) struct Answer<T> {
    slot: Arc<Slot<T>>,
    given: bool,
}

struct Slot<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    /// The answer, perhaps not given yet.
    answer: Option<Result<T, Failed>>,
    given: bool,
    waker: Option<Waker>,
    /// A thread waits.
    blocked: bool,
}

impl<T> State<T> {
    /// The answer, once it is given; a failure if it was taken before.
    fn take(&mut self) -> Option<Result<T, Failed>> {
        let taken = || self.answer.take().unwrap_or(Err(Failed::NotWritable));
        self.given.then(taken)
    }
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A ticket and the end that answers it.
pub(crate) fn ticket<T>() -> (Ticket<T>, Answer<T>) {
    let state = State {
        answer: None,
        given: false,
        waker: None,
        blocked: false,
    };
    let slot = Arc::new(Slot {
        state: Mutex::new(state),
        ready: Condvar::new(),
    });
    let ticket = Ticket {
        slot: Arc::clone(&slot),
    };
    (ticket, Answer { slot, given: false })
}

impl<T> Ticket<T> {
    /// Blocks until the answer is there.
    pub fn wait(self) -> Result<T, Failed> {
        let mut state = self.slot.lock();
        loop {
            if let Some(answer) = state.take() {
                return answer;
            }
            state.blocked = true;
            let waiting = self.slot.ready.wait(state);
            state = waiting.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T, Failed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.lock();
        if let Some(answer) = state.take() {
            return Poll::Ready(answer);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl<T> Answer<T> {
    /// Puts the answer, which is not given before this is dropped or [`Answer::give`] is called.
    pub(crate) fn put(&self, answer: T) {
        self.slot.lock().answer = Some(Ok(answer));
    }

    /// Puts a failure in place of whatever was put, and gives it.
    pub(crate) fn fail(self, failed: Failed) {
        self.slot.lock().answer = Some(Err(failed));
        self.give();
    }

    /// Gives the answer that was put.
    pub(crate) fn give(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.given = true;
        let mut state = self.slot.lock();
        state.given = true;
        let (waker, blocked) = (state.waker.take(), state.blocked);
        drop(state);
        if blocked {
            self.slot.ready.notify_all();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if !self.given {
            self.slot.lock().answer = None;
            self.end();
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
        f.debug_struct("Answer").finish_non_exhaustive()
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
        answer.put(7);
        answer.give();
        assert_eq!(waiter.join().unwrap(), Ok(7));
    }

    #[test]
    fn an_answer_wakes_the_last_poller_and_is_taken_once() {
        let (mut ticket, answer) = ticket();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(Pin::new(&mut ticket).poll(&mut cx), Poll::Pending);
        answer.put(7);
        assert_eq!(Pin::new(&mut ticket).poll(&mut cx), Poll::Pending);
        answer.give();
        assert_eq!(Pin::new(&mut ticket).poll(&mut cx), Poll::Ready(Ok(7)));
        let again = Pin::new(&mut ticket).poll(&mut cx);
        assert_eq!(again, Poll::Ready(Err(Failed::NotWritable)));
    }

    #[test]
    fn a_dropped_answer_is_a_failure() {
        let (before, answer) = ticket::<u8>();
        drop(answer);
        assert_eq!(before.wait(), Err(Failed::NotWritable));
        let (after, answer) = ticket();
        answer.put(7);
        drop(answer);
        assert_eq!(after.wait(), Err(Failed::NotWritable));
        let (refused, answer) = ticket::<u8>();
        answer.fail(Failed::NoRoom);
        assert_eq!(refused.wait(), Err(Failed::NoRoom));
    }
}
