//! Counters by key and window, shared by all workers of a node and bounded in number. It knows no requests and no clock.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::config::WindowType;

/// Counters by the hash of their key. Workers meet only where they count the same keys, or keys of the same shard.
#[derive(Debug)]
pub(super) struct Counters {
    shards: Box<[Shard]>,
}

/// On a cache line of its own, so that shards do not disturb each other.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Windows>);

#[derive(Debug, Default)]
struct Windows {
    by_key: HashMap<u128, Window, RandomState>,
    /// When counters that have ended were last cleared away, in Unix milliseconds.
    swept: u64,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    /// End, in Unix milliseconds.
    end: u64,
    used: u64,
    /// Of the window before, for sliding windows.
    before: u64,
}

/// What a limit says to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether the request is within the limit.
    pub allowed: bool,
    /// Requests that remain in the window.
    pub remaining: u64,
    /// Milliseconds until the window ends.
    pub reset_ms: u64,
}

/// A limit, as it is for one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub count: u64,
    /// Length of the window in milliseconds, not 0.
    pub window_ms: u64,
    pub kind: WindowType,
}

const SHARDS: usize = 64;
/// Keys per shard: bounds a store at about 256,000 keys and 20 MB, however many keys clients make up.
const MAX_KEYS: usize = 4096;
/// A full shard is cleared at most this often; in between, an arbitrary counter makes room.
const SWEEP_EVERY_MS: u64 = 1000;

impl Default for Counters {
    fn default() -> Self {
        Counters { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl Counters {
    /// Counts one request for the key with this hash.
    pub(super) fn count(&self, key: u128, limit: Limit, now_ms: u64) -> Verdict {
        let shard = &self.shards[key as usize % SHARDS];
        let mut windows = shard.0.lock();
        let window = windows.window(key, limit, now_ms);
        match limit.kind {
            WindowType::Fixed => window.fixed(limit, now_ms),
            WindowType::Sliding => window.sliding(limit, now_ms),
        }
    }
}

impl Windows {
    fn window(&mut self, key: u128, limit: Limit, now: u64) -> &mut Window {
        if self.by_key.len() >= MAX_KEYS && !self.by_key.contains_key(&key) {
            self.make_room(now);
        }
        self.by_key.entry(key).or_insert_with(|| Window { end: limit.first_end(now), used: 0, before: 0 })
    }

    fn make_room(&mut self, now: u64) {
        if now.saturating_sub(self.swept) >= SWEEP_EVERY_MS {
            self.swept = now;
            self.by_key.retain(|_, window| window.end > now);
        }
        if self.by_key.len() >= MAX_KEYS
            && let Some(any) = self.by_key.keys().next().copied()
        {
            self.by_key.remove(&any);
        }
    }
}

impl Limit {
    /// A fixed window starts with its first request; sliding ones lie on a grid, so that two neighbours can be weighed.
    fn first_end(self, now: u64) -> u64 {
        match self.kind {
            WindowType::Fixed => now.saturating_add(self.window_ms),
            WindowType::Sliding => (now / self.window_ms + 1).saturating_mul(self.window_ms),
        }
    }
}

impl Window {
    fn fixed(&mut self, limit: Limit, now: u64) -> Verdict {
        if now >= self.end {
            *self = Window { end: limit.first_end(now), used: 0, before: 0 };
        }
        let allowed = self.used < limit.count;
        self.used += u64::from(allowed);
        Verdict { allowed, remaining: limit.count.saturating_sub(self.used), reset_ms: self.end - now }
    }

    /// The sliding window counter: requests of the window before count by the share of it that is still within reach.
    fn sliding(&mut self, limit: Limit, now: u64) -> Verdict {
        let end = limit.first_end(now);
        if end != self.end {
            let next = self.end.saturating_add(limit.window_ms) == end;
            *self = Window { end, used: 0, before: if next { self.used } else { 0 } };
        }
        let left = u128::from(end - now);
        let carried = (u128::from(self.before) * left / u128::from(limit.window_ms)) as u64;
        let allowed = carried.saturating_add(self.used) < limit.count;
        self.used += u64::from(allowed);
        Verdict { allowed, remaining: limit.count.saturating_sub(carried.saturating_add(self.used)), reset_ms: end - now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(count: u64, window_ms: u64, kind: WindowType) -> Limit {
        Limit { count, window_ms, kind }
    }

    #[test]
    fn a_fixed_window_starts_with_its_first_request() {
        let counters = Counters::default();
        let limit = limit(2, 1000, WindowType::Fixed);
        let at = |now| counters.count(7, limit, now);
        assert_eq!(at(500), Verdict { allowed: true, remaining: 1, reset_ms: 1000 });
        assert_eq!(at(900), Verdict { allowed: true, remaining: 0, reset_ms: 600 });
        assert_eq!(at(1499), Verdict { allowed: false, remaining: 0, reset_ms: 1 });
        assert_eq!(at(1500), Verdict { allowed: true, remaining: 1, reset_ms: 1000 });
        assert!(counters.count(8, limit, 1500).allowed, "another key has its own counter");
    }

    #[test]
    fn a_sliding_window_remembers_the_one_before() {
        let counters = Counters::default();
        let at = |now| counters.count(7, limit(10, 1000, WindowType::Sliding), now);
        for n in 0..10 {
            assert_eq!(at(500), Verdict { allowed: true, remaining: 9 - n, reset_ms: 500 });
        }
        assert!(!at(999).allowed);
        assert!(!at(1000).allowed, "all ten still count");
        assert_eq!(at(1500), Verdict { allowed: true, remaining: 4, reset_ms: 500 });
        assert_eq!(at(3000), Verdict { allowed: true, remaining: 9, reset_ms: 1000 });
    }

    #[test]
    fn counting_is_exact_over_threads() {
        let counters = Counters::default();
        let count = || (0..5000).filter(|_| counters.count(1, limit(3000, 60_000, WindowType::Fixed), 0).allowed).count();
        let allowed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_default()).sum()
        });
        assert_eq!(allowed, 3000);
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let counters = Counters::default();
        for key in 0..(SHARDS as u128 * 5000) {
            counters.count(key, limit(1, 1000, WindowType::Fixed), 0);
        }
        let held = |counters: &Counters| counters.shards.iter().map(|shard| shard.0.lock().by_key.len()).sum::<usize>();
        assert_eq!(held(&counters), SHARDS * MAX_KEYS);
        counters.count(u128::MAX, limit(1, 1000, WindowType::Fixed), 5000);
        assert!(held(&counters) < SHARDS * MAX_KEYS - 4000, "ended ones are cleared away");
    }
}
