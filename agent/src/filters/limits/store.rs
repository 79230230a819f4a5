//! State by key, shared by all workers of a node and bounded in number. It knows neither requests nor what is kept, and reads no clock.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

/// State of one key.
pub(crate) trait Entry {
    /// The moment from which on it says no more than no entry at all, in the unit of `now`.
    fn ends(&self) -> u64;
}

/// State by the hash of a key. Workers meet only where they look at keys of the same shard.
#[derive(Debug)]
pub(crate) struct Store<V> {
    shards: Box<[Shard<V>]>,
}

/// On a cache line of its own, so that shards do not disturb each other.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<V>(Mutex<Entries<V>>);

#[derive(Debug)]
struct Entries<V> {
    by_key: HashMap<u128, V, RandomState>,
    /// When entries that have ended were last cleared away.
    swept: u64,
}

const SHARDS: usize = 64;
/// Keys per shard: bounds a store at about 256,000 keys and some 20 MB, however many keys clients make up.
const MAX_KEYS: usize = 4096;
/// A full shard is cleared at most this often, in milliseconds; in between, the one of a few that ends first makes room.
const SWEEP_EVERY_MS: u64 = 1000;
/// How many are looked at to find one that makes room.
const LOOKED_AT: usize = 16;

impl<V> Default for Store<V> {
    fn default() -> Self {
        let shard = || Shard(Mutex::new(Entries { by_key: HashMap::default(), swept: 0 }));
        Store { shards: (0..SHARDS).map(|_| shard()).collect() }
    }
}

impl<V: Entry> Store<V> {
    /// Acts on the state of this key, which `make` makes where there is none. `now` is in Unix milliseconds or any other clock of milliseconds.
    pub(crate) fn with<R>(&self, key: u128, now: u64, make: impl FnOnce() -> V, act: impl FnOnce(&mut V) -> R) -> R {
        let mut entries = self.shard(key).lock();
        if entries.by_key.len() >= MAX_KEYS && !entries.by_key.contains_key(&key) {
            entries.make_room(now);
        }
        act(entries.by_key.entry(key).or_insert_with(make))
    }

    /// Acts on the state of this key where there is some; it goes when `act` says so.
    pub(crate) fn with_known<R>(&self, key: u128, act: impl FnOnce(&mut V) -> (R, Stays)) -> Option<R> {
        let mut entries = self.shard(key).lock();
        let (result, stays) = act(entries.by_key.get_mut(&key)?);
        if stays == Stays::No {
            entries.by_key.remove(&key);
        }
        Some(result)
    }

    /// Looks at the state of every key, shard by shard.
    pub(crate) fn each(&self, mut look: impl FnMut(u128, &V)) {
        for shard in &self.shards {
            shard.0.lock().by_key.iter().for_each(|(key, state)| look(*key, state));
        }
    }

    fn shard(&self, key: u128) -> &Mutex<Entries<V>> {
        &self.shards[key as usize % SHARDS].0
    }

    /// How many keys are held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().by_key.len()).sum()
    }
}

/// Whether an entry stays after it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stays {
    Yes,
    No,
}

impl<V: Entry> Entries<V> {
    fn make_room(&mut self, now: u64) {
        if now.saturating_sub(self.swept) >= SWEEP_EVERY_MS {
            self.swept = now;
            self.by_key.retain(|_, entry| entry.ends() > now);
        }
        if self.by_key.len() >= MAX_KEYS
            && let Some(first) = self.by_key.iter().take(LOOKED_AT).min_by_key(|(_, entry)| entry.ends()).map(|(key, _)| *key)
        {
            self.by_key.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Entry for u64 {
        fn ends(&self) -> u64 {
            *self
        }
    }

    #[test]
    fn the_number_of_keys_is_bounded_and_ended_ones_go_first() {
        let store = Store::default();
        for key in 0..(SHARDS as u128 * 5000) {
            store.with(key, 0, || 1000, |_| {});
        }
        assert_eq!(store.len(), SHARDS * MAX_KEYS);
        store.with(u128::MAX, 5000, || 9000, |_| {});
        assert!(store.len() < SHARDS * MAX_KEYS - 4000, "ended ones are cleared away");
    }

    #[test]
    fn an_entry_stays_as_long_as_it_is_told_to() {
        let store = Store::default();
        assert_eq!(store.with_known(1, |ends: &mut u64| (*ends, Stays::Yes)), None);
        assert_eq!(store.with(1, 0, || 5, |ends| std::mem::replace(ends, 7)), 5);
        assert_eq!(store.with_known(1, |ends| (*ends, Stays::No)), Some(7));
        assert_eq!(store.len(), 0);
    }
}
