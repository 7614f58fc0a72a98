//! The answer to come: a future and a blocking wait over one slot, with the standard library only.

use std::any::Any;
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
    /// `None` once it is given.
    slot: Option<Arc<Slot<T>>>,
}

struct Slot<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

/// What a command was made of. It is dropped where it was made, with the ticket: memory that is
/// freed on another thread than its own makes the two wait for each other in the allocator.
pub(crate) type Spent = Box<dyn Any + Send>;

struct State<T> {
    /// The answer, perhaps not given yet.
    answer: Option<Result<T, Failed>>,
    /// The command.
    command: Option<Spent>,
    given: bool,
    waker: Option<Waker>,
    /// A thread waits.
    blocked: bool,
}

impl<T> State<T> {
    /// The answer, once it is given; a failure if it was taken before.
    fn take(&mut self) -> Option<Result<T, Failed>> {
        if !self.given {
            return None;
        }
        self.command = None;
        Some(self.answer.take().unwrap_or(Err(Failed::NotWritable)))
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
        command: None,
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
    (ticket, Answer { slot: Some(slot) })
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
    /// A word of where it goes; see [`crate::state::State::bring_near`].
    pub(crate) fn near(&self) -> u64 {
        let slot = self.slot.as_ref();
        slot.map_or(0, |slot| u64::from(slot.state.is_poisoned()))
    }

    /// Puts the answer, which is given by [`Answer::give`], and the command, if it is to be dropped
    /// by the ticket's owner.
    pub(crate) fn put(&self, answer: T, command: Option<Spent>) {
        if let Some(slot) = &self.slot {
            let mut state = slot.lock();
            state.answer = Some(Ok(answer));
            state.command = command;
        }
    }

    /// Gives the answer that was put.
    pub(crate) fn give(mut self) {
        self.end(None);
    }

    /// Gives a failure in place of whatever was put.
    pub(crate) fn fail(mut self, failed: Failed) {
        self.end(Some(failed));
    }

    fn end(&mut self, failed: Option<Failed>) {
        let Some(slot) = self.slot.take() else { return };
        let mut state = slot.lock();
        if let Some(failed) = failed {
            state.answer = Some(Err(failed));
        }
        state.given = true;
        let (waker, blocked) = (state.waker.take(), state.blocked);
        drop(state);
        if blocked {
            slot.ready.notify_all();
        }
        // So that the ticket's owner, who has made it, is the last to hold it.
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        self.end(Some(Failed::NotWritable));
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
        answer.put(7, None);
        answer.give();
        assert_eq!(waiter.join().unwrap(), Ok(7));
    }

    #[test]
    fn an_answer_wakes_the_last_poller_and_is_taken_once() {
        let (mut ticket, answer) = ticket();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(Pin::new(&mut ticket).poll(&mut cx), Poll::Pending);
        answer.put(7, None);
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
        answer.put(7, None);
        drop(answer);
        assert_eq!(after.wait(), Err(Failed::NotWritable));
        let (refused, answer) = ticket::<u8>();
        answer.fail(Failed::NoRoom);
        assert_eq!(refused.wait(), Err(Failed::NoRoom));
    }
}
