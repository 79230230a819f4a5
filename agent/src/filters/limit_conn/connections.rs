//! How many requests of each key are under way, on all workers. It knows no requests and no clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use heddle_node::clock::{self, Instant};
use parking_lot::Mutex;

use super::super::limits::Waiting;

/// Requests under way by the hash of their key. A key is held only while a request of its is under way, so there are never more keys than requests.
#[derive(Debug)]
pub(super) struct Connections {
    shards: Box<[Shard]>,
    /// What a request usually takes, in nanoseconds.
    usual: AtomicU64,
    /// Requests that are held up.
    pub waiting: Arc<Waiting>,
}

/// On a cache line of its own, so that shards do not disturb each other.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<HashMap<u128, u64, RandomState>>);

const SHARDS: usize = 64;
/// The most that one request can teach: a tunnel that was open for hours must not hold the next request up for hours.
const LONGEST: Duration = Duration::from_secs(60);

/// How many may be under way for one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Without delay.
    pub conn: u64,
    /// More, with delay.
    pub burst: u64,
}

impl Bounds {
    /// How many times the usual duration the request waits that is this one of those under way, itself included.
    pub(super) fn delays(self, number: u64) -> u64 {
        if number > self.conn { (number - 1) / self.conn } else { 0 }
    }
}

impl Connections {
    /// Nothing under way; a request is taken to last this long until there is experience.
    pub(super) fn new(usual: Duration) -> Connections {
        Connections {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            usual: AtomicU64::new(nanos(usual)),
            waiting: Arc::default(),
        }
    }

    /// Counts one more and says how many are under way with it; `None` when that is too many, and nothing was counted.
    pub(super) fn enter(&self, key: u128, bounds: Bounds) -> Option<u64> {
        let mut counts = self.shard(key).lock();
        let most = bounds.conn.saturating_add(bounds.burst);
        match counts.entry(key) {
            Entry::Vacant(entry) => (most > 0).then(|| *entry.insert(1)),
            Entry::Occupied(entry) if *entry.get() >= most => None,
            Entry::Occupied(mut entry) => {
                *entry.get_mut() += 1;
                Some(*entry.get())
            }
        }
    }

    fn leave(&self, key: u128) {
        let mut counts = self.shard(key).lock();
        if let Entry::Occupied(mut entry) = counts.entry(key) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    /// What a request usually takes.
    pub(super) fn usual(&self) -> Duration {
        Duration::from_nanos(self.usual.load(Ordering::Relaxed))
    }

    /// Takes into account what one has taken: the mean of it and of what was usual, as `resty.limit.conn` does.
    pub(super) fn learn(&self, took: Duration) {
        let took = nanos(took.min(LONGEST));
        let mean = |usual: u64| Some(usual / 2 + took / 2);
        // The closure never says no, so neither does the update.
        let _ = self.usual.fetch_update(Ordering::Relaxed, Ordering::Relaxed, mean);
    }

    fn shard(&self, key: u128) -> &Mutex<HashMap<u128, u64, RandomState>> {
        &self.shards[key as usize % SHARDS].0
    }

    /// How many keys are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().len()).sum()
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// One request under way. However it ends, it is dropped exactly once, and then counts no more.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    key: u128,
    /// When it goes on; `None` when nobody wants to know what it takes.
    began: Option<Instant>,
}

impl Place {
    /// The place of a request that [`Connections::enter`] has counted.
    pub(super) fn new(connections: Arc<Connections>, key: u128) -> Place {
        Place { connections, key, began: None }
    }

    /// Measures what the request takes from this moment on.
    pub(super) fn measure_from(&mut self, began: Instant) {
        self.began = Some(began);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.leave(self.key);
        if let Some(began) = self.began {
            self.connections.learn(clock::now().saturating_duration_since(began));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_are_under_way_the_longer_the_next_one_waits() {
        let bounds = Bounds { conn: 2, burst: 4 };
        let connections = Connections::new(Duration::from_secs(1));
        let delays: Vec<_> = (0..8).map(|_| connections.enter(7, bounds).map(|number| bounds.delays(number))).collect();
        assert_eq!(delays, [Some(0), Some(0), Some(1), Some(1), Some(2), Some(2), None, None]);
        assert_eq!(connections.enter(8, bounds), Some(1), "another key");
    }

    #[test]
    fn places_come_back_and_nothing_is_left_of_their_key() {
        let connections = Arc::new(Connections::new(Duration::from_millis(100)));
        let bounds = Bounds { conn: 1, burst: 0 };
        assert_eq!((connections.enter(1, bounds), connections.enter(1, bounds)), (Some(1), None));
        drop(Place::new(connections.clone(), 1));
        assert_eq!(connections.len(), 0);
        connections.learn(Duration::from_millis(300));
        assert_eq!(connections.usual(), Duration::from_millis(200));
    }
}
