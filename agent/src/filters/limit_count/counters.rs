//! Counters by key and window, shared by all workers of a node and bounded in number. It knows no requests and no clock.

use super::super::limits::{Entry, Store};
use super::config::WindowType;

/// Counters by the hash of their key.
#[derive(Debug, Default)]
pub(super) struct Counters(Store<Window>);

/// How often one key was counted in its window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// End, in Unix milliseconds.
    end: u64,
    used: u64,
    /// Of the window before, for sliding windows.
    before: u64,
    /// When nothing of it counts any more.
    ends: u64,
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

impl Counters {
    /// Counts one request for the key with this hash.
    pub(super) fn count(&self, key: u128, limit: Limit, now_ms: u64) -> Verdict {
        let make = || Window { end: limit.first_end(now_ms), used: 0, before: 0, ends: 0 };
        self.0.with(key, now_ms, make, |window| {
            let verdict = match limit.kind {
                WindowType::Fixed => window.fixed(limit, now_ms),
                WindowType::Sliding => window.sliding(limit, now_ms),
            };
            // A sliding window still counts in the one behind it.
            let behind = if limit.kind == WindowType::Sliding { limit.window_ms } else { 0 };
            window.ends = window.end.saturating_add(behind);
            verdict
        })
    }
}

impl Entry for Window {
    fn ends(&self) -> u64 {
        self.ends
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
        // A window that ends later than one that began now would: the clock was set back.
        if now >= self.end || self.end - now > limit.window_ms {
            (self.end, self.used) = (limit.first_end(now), 0);
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
            (self.end, self.before, self.used) = (end, if next { self.used } else { 0 }, 0);
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
    fn a_clock_that_is_set_back_refuses_nobody_for_longer() {
        let counters = Counters::default();
        let limit = limit(1, 1000, WindowType::Fixed);
        assert!(counters.count(7, limit, 3_600_500).allowed);
        assert!(!counters.count(7, limit, 3_600_600).allowed);
        assert_eq!(counters.count(7, limit, 500), Verdict { allowed: true, remaining: 0, reset_ms: 1000 });
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
        for kind in [WindowType::Fixed, WindowType::Sliding] {
            let counters = Counters::default();
            let count = || (0..5000).filter(|_| counters.count(1, limit(3000, 60_000, kind), 0).allowed).count();
            let allowed: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap_or_default()).sum()
            });
            assert_eq!(allowed, 3000, "{kind:?}");
        }
    }
}
