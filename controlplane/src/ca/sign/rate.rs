//! How often the authority signs: a bucket of tokens overall and one per identity, so that a herd is spread. A machine of values and `now`.

use std::collections::BTreeMap;

/// Identities that are remembered; those with a full bucket are forgotten first.
const MAX_IDENTITIES: usize = 100_000;

/// A rate and how much of it may come at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Sustained, per second; above zero.
    pub per_second: f64,
    /// At once; at least one.
    pub burst: f64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: f64,
    at_ms: u64,
}

impl Bucket {
    fn full(rate: Rate, now_ms: u64) -> Bucket {
        Bucket { level: rate.burst, at_ms: now_ms }
    }

    fn refill(&mut self, rate: Rate, now_ms: u64) {
        // Rates are small numbers of a few digits; the span is exact up to 2^53 ms.
        #[expect(clippy::cast_precision_loss, reason = "milliseconds between two calls")]
        let seconds = now_ms.saturating_sub(self.at_ms) as f64 / 1_000.0;
        self.level = (self.level + seconds * rate.per_second).min(rate.burst);
        self.at_ms = self.at_ms.max(now_ms);
    }

    /// Milliseconds until a whole token is there.
    fn wait_ms(&self, rate: Rate) -> u64 {
        let missing = (1.0 - self.level).max(0.0);
        // At least 1e-3 per second and less than one token: below 1e6.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded above and below")]
        let wait = (missing / rate.per_second * 1_000.0).ceil().clamp(0.0, 1e9) as u64;
        wait
    }
}

/// Buckets of a rate limit.
#[derive(Debug)]
pub struct Limits {
    overall: (Rate, Bucket),
    each: Rate,
    by_identity: BTreeMap<String, Bucket>,
}

impl Limits {
    /// All buckets are full.
    pub fn new(overall: Rate, each: Rate, now_ms: u64) -> Limits {
        Limits { overall: (overall, Bucket::full(overall, now_ms)), each, by_identity: BTreeMap::new() }
    }

    /// Takes one signature for `identity`, or says after how many milliseconds to come again; then nothing is taken. Those that have to wait are told
    /// times apart from each other (`dice` is a number below one), as they would meet again otherwise.
    pub fn take(&mut self, identity: &str, now_ms: u64, dice: f64) -> Result<(), u64> {
        self.make_room(now_ms);
        let (rate, bucket) = &mut self.overall;
        bucket.refill(*rate, now_ms);
        let own = self.by_identity.entry(identity.to_owned()).or_insert_with(|| Bucket::full(self.each, now_ms));
        own.refill(self.each, now_ms);
        if bucket.level >= 1.0 && own.level >= 1.0 {
            bucket.level -= 1.0;
            own.level -= 1.0;
            return Ok(());
        }
        let wait = bucket.wait_ms(*rate).max(own.wait_ms(self.each)).max(1);
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 1e9")]
        let spread = ((wait + 1_000) as f64 * dice.clamp(0.0, 1.0)) as u64;
        Err(wait + spread)
    }

    /// Forgets identities whose buckets are full again, when there are too many.
    fn make_room(&mut self, now_ms: u64) {
        if self.by_identity.len() < MAX_IDENTITIES {
            return;
        }
        let each = self.each;
        self.by_identity.retain(|_, bucket| {
            bucket.refill(each, now_ms);
            bucket.level < each.burst
        });
        if self.by_identity.len() >= MAX_IDENTITIES {
            self.by_identity.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::new(Rate { per_second: 10.0, burst: 5.0 }, Rate { per_second: 1.0, burst: 2.0 }, 0)
    }

    #[test]
    fn one_identity_cannot_take_it_all_and_neither_can_all_together() {
        let mut limits = limits();
        assert_eq!((limits.take("a", 0, 0.0), limits.take("a", 0, 0.0)), (Ok(()), Ok(())));
        assert_eq!(limits.take("a", 0, 0.0), Err(1_000), "its own bucket is empty");
        assert!(["b", "c", "d"].iter().all(|name| limits.take(name, 0, 0.0).is_ok()));
        assert_eq!(limits.take("e", 0, 0.0), Err(100), "the common bucket is empty");
        assert_eq!(limits.take("e", 100, 0.0), Ok(()));
        assert_eq!(limits.take("a", 1_000, 0.0), Ok(()));
    }

    #[test]
    fn those_who_wait_come_at_different_times() {
        let mut limits = limits();
        while limits.take("a", 0, 0.0).is_ok() {}
        assert_eq!((limits.take("a", 0, 0.0), limits.take("a", 0, 0.5)), (Err(1_000), Err(2_000)));
    }

    #[test]
    fn a_clock_that_jumps_back_gives_nothing_away() {
        let mut limits = limits();
        while limits.take("a", 10_000, 0.0).is_ok() {}
        assert!(limits.take("a", 0, 0.0).is_err());
        assert!(limits.take("a", 10_500, 0.0).is_err());
        assert!(limits.take("a", 11_000, 0.0).is_ok());
    }
}
