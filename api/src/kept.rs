//! The files of failed runs that are kept for reading: whose they are, and how many there may be.
//!
//! They hold a slot and a disk of the machine that nobody pays for. So a tenant has a bounded
//! number, the oldest goes when one more comes, and any goes, the oldest of all first, when a run
//! needs its room.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime::Kept;
use tokio::runtime::Handle;

type Id = [u8; 16];

/// All of them, the oldest first.
#[derive(Debug)]
pub(crate) struct KeptFiles {
    all: Mutex<Vec<Entry>>,
    per_tenant_max: usize,
}

#[derive(Debug)]
struct Entry {
    execution: Id,
    tenant: String,
    kept: Kept,
}

impl KeptFiles {
    pub(crate) fn new(per_tenant_max: usize) -> KeptFiles {
        KeptFiles {
            all: Mutex::default(),
            per_tenant_max,
        }
    }

    /// Keeps the files of an execution until they go by themselves, which a task on `walk` waits
    /// for.
    pub(crate) fn keep(self: &Arc<KeptFiles>, id: Id, tenant: &str, kept: Kept, walk: &Handle) {
        let waits = {
            let (all, kept) = (Arc::clone(self), kept.clone());
            async move {
                kept.gone().await;
                all.end(&id);
            }
        };
        let entry = Entry {
            execution: id,
            tenant: tenant.to_owned(),
            kept,
        };
        let mut too_many = Vec::new();
        {
            let mut all = self.lock();
            all.push(entry);
            let mut count = all.iter().filter(|entry| entry.tenant == tenant).count();
            while count > self.per_tenant_max {
                let Some(oldest) = all.iter().position(|entry| entry.tenant == tenant) else {
                    break;
                };
                too_many.push(all.remove(oldest));
                count -= 1;
            }
        }
        too_many.iter().for_each(|entry| entry.kept.end());
        drop(walk.spawn(waits));
    }

    /// The files of an execution, if they are there.
    pub(crate) fn get(&self, id: &Id) -> Option<Kept> {
        let all = self.lock();
        let found = all.iter().find(|entry| entry.execution == *id);
        found.map(|entry| entry.kept.clone())
    }

    /// Lets the files of an execution go; whether there were any.
    pub(crate) fn end(&self, id: &Id) -> bool {
        self.take(|entry| entry.execution == *id).is_some()
    }

    /// Lets the oldest go; answers them, so that it can be waited until they are gone.
    pub(crate) fn end_oldest(&self) -> Option<Kept> {
        self.take(|_| true)
    }

    /// Lets all go.
    pub(crate) fn clear(&self) {
        while self.end_oldest().is_some() {}
    }

    fn take(&self, wanted: impl FnMut(&Entry) -> bool) -> Option<Kept> {
        let entry = {
            let mut all = self.lock();
            let at = all.iter().position(wanted)?;
            all.remove(at)
        };
        entry.kept.end();
        Some(entry.kept)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
