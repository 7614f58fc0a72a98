//! The bounded queue in which asynchronous executions wait for their own tenant's concurrency.
//!
//! One of a tenant's waiters at a time holds the turn and tries; the others stand behind it in
//! order. Whatever ends one of the tenant's holds wakes the one whose turn it is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as TurnMutex, Notify, OwnedMutexGuard};

/// The queues of all tenants that have one.
#[derive(Debug)]
pub(crate) struct Turns {
    tenants: Mutex<HashMap<String, Arc<Queue>>>,
    waiting: Arc<AtomicUsize>,
    per_tenant_max: usize,
    max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    turn: Arc<TurnMutex<()>>,
    freed: Notify,
    waiting: AtomicUsize,
}

/// A place in a tenant's queue.
#[derive(Debug)]
pub(crate) struct Place {
    queue: Arc<Queue>,
    waiting: Arc<AtomicUsize>,
}

/// The turn: its holder alone tries, until it drops it.
#[derive(Debug)]
pub(crate) struct Turn {
    _turn: OwnedMutexGuard<()>,
    place: Place,
}

/// Too much waits already: for this tenant, or in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooMany {
    /// Of this tenant.
    Tenant,
    /// Of all tenants.
    Machine,
}

impl Turns {
    pub(crate) fn new(per_tenant_max: usize, max: usize) -> Turns {
        Turns {
            tenants: Mutex::default(),
            waiting: Arc::default(),
            per_tenant_max,
            max,
        }
    }

    /// Whether anything of `tenant` waits: what comes now must stand behind it.
    pub(crate) fn busy(&self, tenant: &str) -> bool {
        let tenants = self.lock();
        tenants
            .get(tenant)
            .is_some_and(|queue| queue.waiting.load(Ordering::SeqCst) > 0)
    }

    /// Takes a place at the end of the queue.
    pub(crate) fn join(&self, tenant: &str) -> Result<Place, TooMany> {
        let mut tenants = self.lock();
        if self.waiting.load(Ordering::SeqCst) >= self.max {
            return Err(TooMany::Machine);
        }
        let queue = Arc::clone(tenants.entry(tenant.to_owned()).or_default());
        if queue.waiting.load(Ordering::SeqCst) >= self.per_tenant_max {
            return Err(TooMany::Tenant);
        }
        queue.waiting.fetch_add(1, Ordering::SeqCst);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Ok(Place {
            queue,
            waiting: Arc::clone(&self.waiting),
        })
    }

    /// One of the tenant's holds has ended, or its caps are others.
    pub(crate) fn freed(&self, tenant: &str) {
        let mut tenants = self.lock();
        let Some(queue) = tenants.get(tenant) else {
            return;
        };
        if queue.waiting.load(Ordering::SeqCst) == 0 {
            tenants.remove(tenant);
        } else {
            queue.freed.notify_one();
        }
    }

    /// How much waits, over all tenants.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Queue>>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for the turn.
    pub(crate) async fn turn(self) -> Turn {
        let turn = Arc::clone(&self.queue.turn).lock_owned().await;
        Turn {
            _turn: turn,
            place: self,
        }
    }
}

impl Turn {
    /// Waits until one of the tenant's holds has ended, or its caps have changed, since this was
    /// last called.
    pub(crate) async fn freed(&self) {
        self.place.queue.freed.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Ordering::SeqCst);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_of_a_tenant_and_all_queues_are_bounded() {
        let turns = Turns::new(2, 3);
        let one = turns.join("a").unwrap();
        let _two = turns.join("a").unwrap();
        assert_eq!(turns.join("a").err(), Some(TooMany::Tenant));
        let _three = turns.join("b").unwrap();
        assert_eq!(turns.join("c").err(), Some(TooMany::Machine));
        drop(one);
        assert!(turns.join("a").is_ok());
    }

    #[test]
    fn an_end_wakes_the_one_whose_turn_it_is_even_if_it_came_before() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let turns = Turns::new(8, 8);
            let first = turns.join("a").unwrap().turn().await;
            turns.freed("a");
            first.freed().await;
            assert!(turns.busy("a"));
            drop(first);
            assert!(!turns.busy("a"));
            turns.freed("a");
            assert!(turns.lock().is_empty(), "empty queues are forgotten");
        });
    }
}
