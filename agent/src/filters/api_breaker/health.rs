//! Failures and successes of one target, and for how long it is spared: 2, 4, 8 … seconds, as in APISIX. It knows no requests and no clock.

use super::super::limits::Entry;

/// When a target fails, and for how long it is spared. Times are milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub failures: u64,
    pub successes: u64,
    pub longest_ms: u64,
}

/// What is known of a target that has failed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Health {
    failures: u64,
    successes: u64,
    /// When it was last found to be broken.
    broken_at: Option<u64>,
    /// When it last said anything.
    touched: u64,
    longest_ms: u64,
}

impl Entry for Health {
    fn ends(&self) -> u64 {
        self.touched.saturating_add(self.longest_ms)
    }
}

impl Health {
    /// Whether it is to be spared now.
    pub(super) fn is_broken(&self, policy: Policy, now: u64) -> bool {
        let Some(since) = self.broken_at else { return false };
        now <= since.saturating_add(self.spared_ms(policy))
    }

    /// Twice as long each time that the failures were counted once more.
    fn spared_ms(&self, policy: Policy) -> u64 {
        let times = (self.failures / policy.failures).max(1);
        let seconds = u32::try_from(times).ok().and_then(|times| 2u64.checked_pow(times)).unwrap_or(u64::MAX);
        seconds.saturating_mul(1000).min(policy.longest_ms)
    }

    /// It has failed.
    pub(super) fn failed(&mut self, policy: Policy, now: u64) {
        (self.touched, self.longest_ms, self.successes) = (now, policy.longest_ms, 0);
        self.failures = self.failures.saturating_add(1);
        if self.failures.is_multiple_of(policy.failures) {
            self.broken_at = Some(now);
        }
    }

    /// It has done well; true when nothing is held against it any more.
    pub(super) fn succeeded(&mut self, policy: Policy, now: u64) -> bool {
        self.touched = now;
        self.successes += 1;
        self.successes >= policy.successes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { failures: 3, successes: 2, longest_ms: 5000 };

    #[test]
    fn it_is_spared_for_ever_longer_and_forgiven_after_successes() {
        let mut health = Health::default();
        for now in [0, 10] {
            health.failed(POLICY, now);
            assert!(!health.is_broken(POLICY, now));
        }
        health.failed(POLICY, 20);
        assert!(health.is_broken(POLICY, 2020) && !health.is_broken(POLICY, 2021));
        (0..3).for_each(|_| health.failed(POLICY, 3000));
        assert!(health.is_broken(POLICY, 7000) && !health.is_broken(POLICY, 7001));
        (0..3).for_each(|_| health.failed(POLICY, 8000));
        assert!(health.is_broken(POLICY, 13_000) && !health.is_broken(POLICY, 13_001), "the longest there is");
        assert!(!health.succeeded(POLICY, 14_000));
        health.failed(POLICY, 14_001);
        assert!(!health.succeeded(POLICY, 14_002), "a failure starts the successes afresh");
        assert!(health.succeeded(POLICY, 14_003));
    }
}
