//! The slots of this machine: how many executions run at once, and who is next when it is full.
//!
//! ```text
//! claim -> slot at once | waits, fairly by tenant -> slot | full (queue_ms, queue_max)
//! ```
//! Tenants take turns: each that waits gets every n-th free slot, however many of its executions
//! wait. A [`Slot`] gives itself back when it is dropped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// The slots and those who wait for one.
#[derive(Debug)]
pub(crate) struct Machine {
    shared: Arc<Shared>,
    queue_max: usize,
    queue: Duration,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    waiting: usize,
    /// Tenants that wait, the next one first, each with its executions in order.
    tenants: VecDeque<(String, VecDeque<oneshot::Sender<Slot>>)>,
}

/// The permit for one execution on this machine.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
}

/// No slot came free in time, or too many wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Machine {
    pub(crate) fn new(slots: usize, queue_max: usize, queue: Duration) -> Machine {
        let state = State {
            free: slots,
            waiting: 0,
            tenants: VecDeque::new(),
        };
        Machine {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
            }),
            queue_max,
            queue,
        }
    }

    /// A slot, if one is free: then nobody waits for one.
    pub(crate) fn claim_free(&self) -> Option<Slot> {
        self.take_free(&mut self.shared.lock())
    }

    fn take_free(&self, state: &mut State) -> Option<Slot> {
        state.free = state.free.checked_sub(1)?;
        Some(Slot {
            shared: Arc::clone(&self.shared),
        })
    }

    /// A slot for `tenant`, at once or within the queue's time.
    pub(crate) async fn claim(&self, tenant: &str) -> Result<Slot, Full> {
        let turn = {
            let mut state = self.shared.lock();
            if let Some(slot) = self.take_free(&mut state) {
                return Ok(slot);
            }
            if state.waiting >= self.queue_max {
                return Err(Full);
            }
            state.wait(tenant)
        };
        // A slot that is sent after the time is up is dropped with the receiver, and so given on.
        match tokio::time::timeout(self.queue, turn).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(Full),
        }
    }

    /// How many slots are free, and how many executions wait.
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = self.shared.lock();
        (state.free, state.waiting)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, tenant: &str) -> oneshot::Receiver<Slot> {
        let (sender, receiver) = oneshot::channel();
        self.waiting += 1;
        match self.tenants.iter_mut().find(|(name, _)| name == tenant) {
            Some((_, queue)) => queue.push_back(sender),
            None => self
                .tenants
                .push_back((tenant.to_owned(), VecDeque::from([sender]))),
        }
        receiver
    }

    /// The one whose turn it is; its tenant goes to the end of the row.
    fn next(&mut self) -> Option<oneshot::Sender<Slot>> {
        loop {
            let (tenant, mut queue) = self.tenants.pop_front()?;
            let sender = queue.pop_front();
            if !queue.is_empty() {
                self.tenants.push_back((tenant, queue));
            }
            let sender = sender?;
            self.waiting -= 1;
            // Those who have given up are passed over.
            if !sender.is_closed() {
                return Some(sender);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let next = {
            let mut state = self.shared.lock();
            let next = state.next();
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        if let Some(sender) = next {
            // If the receiver went away in between, the slot comes back and is dropped: on to the
            // next.
            drop(sender.send(Slot {
                shared: Arc::clone(&self.shared),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    }

    fn machine(slots: usize, queue_max: usize, queue_ms: u64) -> Arc<Machine> {
        Arc::new(Machine::new(
            slots,
            queue_max,
            Duration::from_millis(queue_ms),
        ))
    }

    #[test]
    fn a_slot_is_given_on_when_it_is_dropped() {
        runtime().block_on(async {
            let machine = machine(1, 8, 60_000);
            let slot = machine.claim("a").await.unwrap();
            let waiter = tokio::spawn({
                let machine = Arc::clone(&machine);
                async move { machine.claim("a").await.is_ok() }
            });
            while machine.load() != (0, 1) {
                tokio::task::yield_now().await;
            }
            drop(slot);
            assert!(waiter.await.unwrap());
            assert_eq!(machine.load(), (1, 0));
        });
    }

    #[test]
    fn tenants_take_turns_however_many_of_one_wait() {
        runtime().block_on(async {
            let machine = machine(1, 100, 60_000);
            let slot = machine.claim("x").await.unwrap();
            let order = Arc::new(Mutex::new(Vec::new()));
            let mut tasks = Vec::new();
            for (n, tenant) in ["a", "a", "a", "b", "c"].into_iter().enumerate() {
                let (machine, order) = (Arc::clone(&machine), Arc::clone(&order));
                let before = machine.load().1;
                tasks.push(tokio::spawn({
                    let machine = Arc::clone(&machine);
                    async move {
                        let slot = machine.claim(tenant).await.unwrap();
                        order.lock().unwrap().push((tenant, n));
                        drop(slot);
                    }
                }));
                while machine.load().1 == before {
                    tokio::task::yield_now().await;
                }
            }
            drop(slot);
            for task in tasks {
                task.await.unwrap();
            }
            let order = order.lock().unwrap();
            assert_eq!(*order, [("a", 0), ("b", 3), ("c", 4), ("a", 1), ("a", 2)]);
        });
    }

    #[test]
    fn the_queue_is_bounded_in_length_and_in_time() {
        runtime().block_on(async {
            let machine = machine(1, 1, 1);
            let slot = machine.claim("a").await.unwrap();
            assert_eq!(machine.claim("a").await.err(), Some(Full));
            drop(slot);
            assert_eq!(machine.load(), (1, 0), "who gave up leaves nothing behind");
            let _slot = machine.claim("a").await.unwrap();
            let none = Machine::new(0, 0, Duration::from_secs(60));
            assert_eq!(none.claim("a").await.err(), Some(Full));
        });
    }
}
