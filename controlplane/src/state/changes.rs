//! How believers hear of a change: the newest state at once, and what differs since they looked. It knows neither store nor providers.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::State;
use crate::model::Key;

/// Keys that are remembered for subscribers that lag behind; one that lags further is told to look at everything.
const REMEMBERED_KEYS: usize = 65_536;

/// The newest state, and the way to it.
#[derive(Debug)]
pub(super) struct Published {
    state: ArcSwap<State>,
    log: Mutex<Log>,
    signal: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Log {
    /// What each generation changed, oldest first: those that some subscriber has not heard of.
    changes: VecDeque<(u64, Arc<[Key]>)>,
    keys: usize,
    /// Generations after this one are all in `changes`.
    complete_after: u64,
    /// What each subscriber has heard of.
    heard: Vec<Weak<AtomicU64>>,
}

impl Log {
    /// Forgets what every subscriber has heard of, and what is too much to be remembered.
    fn trim(&mut self) {
        let mut all_heard = u64::MAX;
        self.heard.retain(|heard| {
            let heard = heard.upgrade();
            all_heard = all_heard.min(heard.as_ref().map_or(u64::MAX, |heard| heard.load(Ordering::Relaxed)));
            heard.is_some()
        });
        while self.keys > REMEMBERED_KEYS || self.changes.front().is_some_and(|(generation, _)| *generation <= all_heard) {
            let Some((forgotten, keys)) = self.changes.pop_front() else { break };
            self.keys -= keys.len();
            self.complete_after = forgotten;
        }
    }
}

impl Published {
    pub(super) fn new(state: State) -> Published {
        let log = Log { complete_after: state.generation, ..Log::default() };
        let signal = watch::Sender::new(state.generation);
        Published { state: ArcSwap::from_pointee(state), log: Mutex::new(log), signal }
    }

    /// The newest state; never waits.
    pub(super) fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Replaces the state; `changed` is `None` when everything may be different.
    pub(super) fn publish(&self, state: Arc<State>, changed: Option<Vec<Key>>) {
        let generation = state.generation;
        {
            let mut log = self.log.lock();
            match changed {
                Some(keys) => {
                    log.keys += keys.len();
                    log.changes.push_back((generation, keys.into()));
                    log.trim();
                }
                None => *log = Log { complete_after: generation, heard: std::mem::take(&mut log.heard), ..Log::default() },
            }
            self.state.store(state);
        }
        self.signal.send_replace(generation);
    }

    /// The newest state and what differs from what a subscriber has `heard` of, who has then heard of that too.
    fn tell(&self, heard: &AtomicU64) -> Changes {
        let log = self.log.lock();
        let state = self.state.load_full();
        let seen = heard.swap(state.generation, Ordering::Relaxed);
        if seen < log.complete_after {
            return Changes { state, keys: None };
        }
        let missed = log.changes.iter().rev().take_while(|(generation, _)| *generation > seen);
        let keys: BTreeSet<Key> = missed.flat_map(|(_, keys)| keys.iter().cloned()).collect();
        Changes { state, keys: Some(keys.into_iter().collect()) }
    }

    pub(super) fn subscribe(self: &Arc<Self>) -> (Arc<State>, Subscription) {
        let signal = self.signal.subscribe();
        let mut log = self.log.lock();
        let state = self.state();
        let heard = Arc::new(AtomicU64::new(state.generation));
        // Nobody else clears away those who have gone while nothing changes.
        log.heard.retain(|heard| heard.strong_count() > 0);
        log.heard.push(Arc::downgrade(&heard));
        drop(log);
        (state, Subscription { published: self.clone(), heard, signal })
    }
}

/// What changed since a subscriber looked last.
#[derive(Debug, Clone)]
pub struct Changes {
    /// What is believed now.
    pub state: Arc<State>,
    /// What may be different, each once, in order; `None` when that is everything.
    pub keys: Option<Vec<Key>>,
}

/// A subscriber. However slow it is, it holds nobody up: changes that it missed come together.
#[derive(Debug)]
pub struct Subscription {
    published: Arc<Published>,
    /// The newest generation that it was told of; written under the lock of the log.
    heard: Arc<AtomicU64>,
    signal: watch::Receiver<u64>,
}

impl Subscription {
    /// Waits for something new. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Changes {
        // The sender lives in `published`, which is held here, so that waiting cannot fail.
        let heard = self.heard.load(Ordering::Relaxed);
        let _ = self.signal.wait_for(|generation| *generation > heard).await;
        self.published.tell(&self.heard)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use futures_util::FutureExt;

    use super::*;
    use crate::model::ResourceKind;

    fn at(generation: u64) -> Arc<State> {
        Arc::new(State { generation, ..State::default() })
    }

    fn route(id: u64) -> Key {
        Key::new(ResourceKind::Route, format!("{id:05}"))
    }

    #[test]
    fn a_subscriber_hears_of_what_it_missed_at_once() {
        let published = Arc::new(Published::new(State { generation: 7, ..State::default() }));
        let (first, mut subscription) = published.subscribe();
        assert_eq!(first.generation, 7);
        assert!(subscription.next().now_or_never().is_none(), "nothing is new");
        published.publish(at(8), Some(vec![route(2), route(1)]));
        published.publish(at(12), Some(vec![route(2)]));
        let changes = subscription.next().now_or_never().unwrap();
        assert_eq!(changes.state.generation, 12);
        assert_eq!(changes.keys, Some(vec![route(1), route(2)]));
        assert!(subscription.next().now_or_never().is_none());
        published.publish(at(13), Some(vec![route(9)]));
        assert_eq!(subscription.next().now_or_never().unwrap().keys, Some(vec![route(9)]));
    }

    #[test]
    fn who_lags_too_far_looks_at_everything() {
        let published = Arc::new(Published::new(State::default()));
        let (_, mut slow) = published.subscribe();
        published.publish(at(1), Some(vec![route(0)]));
        let (_, mut quick) = published.subscribe();
        published.publish(at(2), Some((1..=REMEMBERED_KEYS as u64).map(route).collect()));
        assert_eq!(slow.next().now_or_never().unwrap().keys, None);
        assert_eq!(quick.next().now_or_never().unwrap().keys.unwrap().len(), REMEMBERED_KEYS);
    }

    #[test]
    fn what_everybody_has_heard_of_is_forgotten() {
        let published = Arc::new(Published::new(State::default()));
        let remembered = || published.log.lock().changes.len();
        published.publish(at(1), Some(vec![route(0)]));
        published.publish(at(2), Some(vec![route(0)]));
        assert_eq!(remembered(), 0, "there is nobody to tell");
        let ((_, mut quick), (_, mut slow)) = (published.subscribe(), published.subscribe());
        for generation in 3..103 {
            published.publish(at(generation), Some(vec![route(generation)]));
            assert_eq!(quick.next().now_or_never().unwrap().keys, Some(vec![route(generation)]));
        }
        assert_eq!(remembered(), 100);
        assert_eq!(slow.next().now_or_never().unwrap().keys.unwrap().len(), 100);
        published.publish(at(103), Some(vec![route(0)]));
        assert_eq!(remembered(), 1);
        drop(slow);
        assert_eq!(quick.next().now_or_never().unwrap().keys, Some(vec![route(0)]));
        published.publish(at(104), Some(vec![route(1)]));
        assert_eq!((remembered(), published.log.lock().heard.len()), (1, 1), "who has gone holds nothing");
        for _ in 0..100 {
            drop(published.subscribe());
        }
        assert!(published.log.lock().heard.len() <= 2, "nor do those who come and go while nothing changes");
    }

    #[test]
    fn after_a_reload_everything_may_be_different() {
        let published = Arc::new(Published::new(State::default()));
        let (_, mut subscription) = published.subscribe();
        published.publish(at(1), Some(vec![route(0)]));
        published.publish(at(2), None);
        published.publish(at(3), Some(vec![route(3)]));
        assert_eq!(subscription.next().now_or_never().unwrap().keys, None);
    }
}
