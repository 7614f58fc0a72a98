//! Counts detached work, so that the server can wait for the last of it.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

/// A count of what is under way; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    count: Arc<watch::Sender<usize>>,
}

/// One piece of work; counts until it is dropped, also by a panic.
struct Under(Arc<watch::Sender<usize>>);

impl Tasks {
    pub(crate) fn new() -> Tasks {
        Tasks {
            count: Arc::new(watch::Sender::new(0)),
        }
    }

    /// `work`, counted from now to its end.
    pub(crate) fn track<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        self.count.send_modify(|count| *count += 1);
        let under = Under(Arc::clone(&self.count));
        async move {
            let _under = under;
            work.await
        }
    }

    /// Resolves once nothing is under way.
    pub(crate) async fn idle(&self) {
        let mut count = self.count.subscribe();
        // The sender lives in `self`, so that this cannot fail while it is awaited.
        drop(count.wait_for(|count| *count == 0).await);
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waits_for_the_last_task_also_when_one_is_dropped() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let tasks = Tasks::new();
            tasks.idle().await;
            let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
            let waits = tokio::spawn(tasks.track(receiver));
            let dropped = tasks.track(std::future::pending::<()>());
            assert_eq!(*tasks.count.borrow(), 2);
            drop(dropped);
            sender.send(()).unwrap();
            tasks.idle().await;
            assert!(waits.await.unwrap().is_ok());
        });
    }
}
