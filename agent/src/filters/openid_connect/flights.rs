//! Doing a thing once for all who want it at the same time, on whatever worker they are, and remembering for a while how it ended. It knows no provider.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::Hash;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Most things that are remembered; beyond that each does its own.
const MAX_ENTRIES: usize = 4_096;

/// How many of those that are remembered are looked at for one that is of no use any more, when there is no room: a flood must not make each request
/// look at all of them under the lock.
const LOOKS: usize = 8;

/// Things under way and done, by key.
pub(crate) struct Flights<K, T> {
    entries: Mutex<Entries<K, T>>,
    /// For how many seconds an end is remembered.
    memory: fn(&T) -> u64,
}

struct Entries<K, T> {
    by_key: HashMap<K, Flight<T>>,
    /// Each key once; the one that was looked at longest ago goes first.
    order: VecDeque<K>,
}

struct Flight<T> {
    started: u64,
    end: watch::Receiver<Option<T>>,
}

impl<K: Hash + Eq + Clone, T: Clone + Send + Sync + 'static> Flights<K, T> {
    /// None yet; `memory` says for how many seconds after its start an end is remembered.
    pub(crate) fn new(memory: fn(&T) -> u64) -> Flights<K, T> {
        let entries = Entries { by_key: HashMap::new(), order: VecDeque::new() };
        Flights { entries: Mutex::new(entries), memory }
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
        if let Some(flight) = entries.by_key.get(&key).filter(|flight| flight.is_of_use(now, self.memory)) {
            return flight.end.clone();
        }
        let (tell, end) = watch::channel(None);
        tokio::task::spawn_local(async move {
            let ended = task.await;
            tell.send_replace(Some(ended));
        });
        entries.put(key, Flight { started: now, end: end.clone() }, |flight| flight.is_of_use(now, self.memory));
        end
    }
}

impl<K: Hash + Eq + Clone, T> Entries<K, T> {
    /// Remembers a flight, as long as there is room or some that is of no use is found in time.
    fn put(&mut self, key: K, flight: Flight<T>, is_of_use: impl Fn(&Flight<T>) -> bool) {
        if let Some(known) = self.by_key.get_mut(&key) {
            *known = flight;
            return;
        }
        for _ in 0..LOOKS {
            if self.by_key.len() < MAX_ENTRIES {
                break;
            }
            let Some(oldest) = self.order.pop_front() else { break };
            if self.by_key.get(&oldest).is_some_and(&is_of_use) {
                self.order.push_back(oldest);
            } else {
                self.by_key.remove(&oldest);
            }
        }
        if self.by_key.len() < MAX_ENTRIES {
            self.order.push_back(key.clone());
            self.by_key.insert(key, flight);
        }
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
    async fn a_flood_looks_at_few_and_finds_room_in_time() {
        thread_local! { static LOOKED: Cell<usize> = const { Cell::new(0) } }
        local(async {
            let flights: Flights<usize, u32> = Flights::new(|_| {
                LOOKED.set(LOOKED.get() + 1);
                10
            });
            for key in 0..MAX_ENTRIES {
                flights.share(key, 0, async { 7 }).await;
            }
            for key in MAX_ENTRIES..MAX_ENTRIES + 100 {
                LOOKED.set(0);
                flights.share(key, 5, async { 8 }).await;
                assert!(LOOKED.get() <= LOOKS, "{}", LOOKED.get());
                let entries = flights.entries.lock();
                assert_eq!((entries.by_key.len(), entries.order.len()), (MAX_ENTRIES, MAX_ENTRIES));
            }
            assert_eq!(flights.share(3, 5, async { 9 }).await, Some(7), "still remembered");
            for key in 0..2 * MAX_ENTRIES {
                flights.share(key, 20, async { 9 }).await;
                let entries = flights.entries.lock();
                assert!(entries.by_key.len() == entries.order.len() && entries.order.len() <= MAX_ENTRIES);
            }
            assert_eq!(flights.share(MAX_ENTRIES - 1, 20, async { 10 }).await, Some(9), "what was of no use has made room");
        })
        .await;
    }

    #[tokio::test]
    async fn a_task_that_died_is_done_again() {
        local(async {
            let flights: Flights<u8, u32> = Flights::new(|_| 10);
            let (tell, end) = watch::channel(None);
            flights.entries.lock().put(1, Flight { started: 0, end }, |_| true);
            drop(tell);
            assert_eq!(flights.share(1, 0, async { 7 }).await, Some(7));
        })
        .await;
    }
}
