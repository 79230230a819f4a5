//! Doing a thing once for all who want it at the same time, on whatever worker they are, and remembering for a while how it ended. It knows no provider.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Most things that are remembered; beyond that each does its own.
const MAX_ENTRIES: usize = 4_096;

/// Things under way and done, by key.
pub(crate) struct Flights<K, T> {
    entries: Mutex<HashMap<K, Flight<T>>>,
    /// For how many seconds an end is remembered.
    memory: fn(&T) -> u64,
}

struct Flight<T> {
    started: u64,
    end: watch::Receiver<Option<T>>,
}

impl<K: Hash + Eq, T: Clone + Send + Sync + 'static> Flights<K, T> {
    /// None yet; `memory` says for how many seconds after its start an end is remembered.
    pub(crate) fn new(memory: fn(&T) -> u64) -> Flights<K, T> {
        Flights { entries: Mutex::default(), memory }
    }

    /// How `task` ended: that of this call, or one for the same key that is under way or has not been forgotten at `now` (seconds). A task
    /// goes on when those who wait for it go away. `None` when it died with its worker.
    pub(crate) fn share(
        &self,
        key: K,
        now: u64,
        task: impl Future<Output = T> + 'static,
    ) -> impl Future<Output = Option<T>> + 'static {
        let mut end = self.join(key, now, task);
        async move {
            let ended = end.wait_for(Option::is_some).await;
            ended.ok().and_then(|end| end.clone())
        }
    }

    fn join(&self, key: K, now: u64, task: impl Future<Output = T> + 'static) -> watch::Receiver<Option<T>> {
        let mut entries = self.entries.lock();
        if let Some(flight) = entries.get(&key).filter(|flight| flight.is_of_use(now, self.memory)) {
            return flight.end.clone();
        }
        let (tell, end) = watch::channel(None);
        tokio::task::spawn_local(async move {
            let ended = task.await;
            tell.send_replace(Some(ended));
        });
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, flight| flight.is_of_use(now, self.memory));
        }
        if entries.len() < MAX_ENTRIES {
            entries.insert(key, Flight { started: now, end: end.clone() });
        }
        end
    }
}

impl<T> Flight<T> {
    fn is_of_use(&self, now: u64, memory: fn(&T) -> u64) -> bool {
        match &*self.end.borrow() {
            Some(end) => now.saturating_sub(self.started) < memory(end),
            // One whose task is gone will never end.
            None => self.end.has_changed().is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    async fn local(story: impl Future<Output = ()>) {
        tokio::task::LocalSet::new().run_until(story).await;
    }

    #[tokio::test]
    async fn all_who_ask_at_once_share_one_task() {
        local(async {
            let flights: Flights<u8, u32> = Flights::new(|_| 10);
            let runs = Rc::new(Cell::new(0));
            let ask = |key, now| {
                let runs = runs.clone();
                flights.share(key, now, async move {
                    tokio::task::yield_now().await;
                    runs.set(runs.get() + 1);
                    runs.get()
                })
            };
            let (a, b) = (ask(1, 0), ask(1, 0));
            drop(ask(2, 0));
            let (a, b) = (a.await, b.await);
            assert!(a.is_some() && a == b);
            assert_eq!(ask(1, 9).await, a, "remembered");
            assert_eq!(ask(1, 10).await, Some(3), "forgotten; and the one that nobody waited for ran too");
        })
        .await;
    }

    #[tokio::test]
    async fn a_task_that_died_is_done_again() {
        local(async {
            let flights: Flights<u8, u32> = Flights::new(|_| 10);
            let (tell, end) = watch::channel(None);
            flights.entries.lock().insert(1, Flight { started: 0, end });
            drop(tell);
            assert_eq!(flights.share(1, 0, async { 7 }).await, Some(7));
        })
        .await;
    }
}
