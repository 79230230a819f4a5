//! The arithmetic of a pace: when the next request is due, and what happens to one that comes before. It knows no requests and no clock.
//!
//! Leaky bucket and token bucket are the same schedule read in two ways ("generic cell rate algorithm", ITU-T I.371): one number per key says
//! when the next request is due. With `e` requests too many in nginx's bucket, that is `e` intervals from now.

use super::super::limits::Entry;

/// When the next request of a key is due, in nanoseconds of the clock of its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due(pub u64);

impl Entry for Due {
    fn ends(&self) -> u64 {
        self.0.div_ceil(NANOS_PER_MS)
    }
}

/// Nanoseconds of a millisecond.
pub(super) const NANOS_PER_MS: u64 = 1_000_000;
/// Nanoseconds of a microsecond.
pub(super) const NANOS_PER_MICRO: u64 = 1000;

/// A pace. All spans are nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// From one request to the next.
    pub interval: u64,
    /// A request that comes at most this early goes on at once.
    pub at_once: u64,
    /// One that comes earlier than this is refused; in between it waits.
    pub most: u64,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Pass,
    /// It goes on after so many nanoseconds.
    Wait(u64),
    /// It is refused; so many nanoseconds later it would not be.
    Refuse(u64),
}

/// What a pace leaves to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// How many requests may come at once, those that wait included.
    pub limit: u64,
    /// How many still may.
    pub remaining: u64,
    /// Nanoseconds until the next one may.
    pub reset: u64,
}

/// Longest that Traefik holds a request up.
const MAX_DELAY: f64 = 500e6;
const NANOS: f64 = 1e9;

impl Pace {
    /// The leaky bucket of nginx: `rate` requests per second, `burst` more wait, or pass at once with `nodelay`.
    pub(super) fn leaky(rate: f64, burst: f64, nodelay: bool) -> Pace {
        let interval = NANOS / rate;
        // Numbers beyond what 64 bits hold saturate.
        let most = (burst * interval) as u64;
        Pace { interval: interval as u64, at_once: if nodelay { most } else { 0 }, most }
    }

    /// The token bucket of Traefik: `average` requests per `period` seconds, `burst` at once; one that comes half an interval early, 500 ms at most, waits.
    pub(super) fn tokens(average: f64, period: f64, burst: f64) -> Pace {
        let interval = NANOS * period / average;
        let at_once = (burst - 1.0).max(0.0) * interval;
        Pace { interval: interval as u64, at_once: at_once as u64, most: (at_once + (interval / 2.0).min(MAX_DELAY)) as u64 }
    }

    /// Takes one request into account.
    pub(super) fn admit(&self, due: &mut Due, now: u64) -> Verdict {
        let early = due.0.saturating_sub(now);
        if early > self.most {
            return Verdict::Refuse(early - self.most);
        }
        due.0 = due.0.max(now).saturating_add(self.interval);
        match early.saturating_sub(self.at_once) {
            0 => Verdict::Pass,
            wait => Verdict::Wait(wait),
        }
    }

    /// What is left to a key whose next request is due then.
    pub(super) fn left(&self, due: Due, now: u64) -> Left {
        let (early, interval) = (due.0.saturating_sub(now), self.interval.max(1));
        let remaining = self.most.checked_sub(early).map_or(0, |room| (room / interval).saturating_add(1));
        Left { limit: (self.most / interval).saturating_add(1), remaining, reset: early.saturating_sub(self.most) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = NANOS_PER_MS;

    #[test]
    fn a_leaky_bucket_is_that_of_nginx() {
        let pace = Pace::leaky(10.0, 2.0, false);
        let mut due = Due(0);
        let mut at = |ms: u64| pace.admit(&mut due, ms * MS);
        assert_eq!([at(1000), at(1000), at(1000)], [Verdict::Pass, Verdict::Wait(100 * MS), Verdict::Wait(200 * MS)]);
        assert_eq!(at(1000), Verdict::Refuse(100 * MS));
        assert_eq!(at(1100), Verdict::Wait(200 * MS), "a refused one takes no place");
        assert_eq!(at(5000), Verdict::Pass);
        let nodelay = Pace::leaky(10.0, 2.0, true);
        let mut due = Due(0);
        let passing = (0..5).filter(|_| nodelay.admit(&mut due, 0) == Verdict::Pass).count();
        assert_eq!(passing, 3);
    }

    #[test]
    fn a_token_bucket_is_that_of_traefik() {
        let pace = Pace::tokens(10.0, 1.0, 3.0);
        let mut due = Due(0);
        let mut at = |ms: u64| pace.admit(&mut due, ms * MS);
        assert_eq!([at(0), at(0), at(0)], [Verdict::Pass; 3]);
        assert_eq!(at(0), Verdict::Refuse(50 * MS), "half an interval is the most that is waited");
        assert_eq!(at(60), Verdict::Wait(40 * MS));
        assert_eq!(at(1000), Verdict::Pass);
        let slow = Pace::tokens(1.0, 60.0, 1.0);
        let mut due = Due(0);
        assert_eq!(slow.admit(&mut due, 0), Verdict::Pass);
        assert_eq!(slow.admit(&mut due, 59_400 * MS), Verdict::Refuse(100 * MS));
        assert_eq!(slow.admit(&mut due, 59_600 * MS), Verdict::Wait(400 * MS));
    }

    #[test]
    fn what_is_left_is_counted_in_whole_requests() {
        let pace = Pace::leaky(1.0 / 3.0, 2.0, true);
        let mut due = Due(0);
        let mut at = |ms: u64| {
            pace.admit(&mut due, ms * MS);
            let Left { limit, remaining, reset } = pace.left(due, ms * MS);
            (limit, remaining, reset.div_ceil(1000 * MS))
        };
        assert_eq!([at(0), at(0), at(0), at(0)], [(3, 2, 0), (3, 1, 0), (3, 0, 3), (3, 0, 3)]);
        assert_eq!(at(2_000), (3, 0, 1), "a refused one takes nothing");
        assert_eq!(at(60_000), (3, 2, 0));
    }

    #[test]
    fn extreme_numbers_do_no_harm() {
        for (rate, burst) in [(1e-300, 1e300), (1e300, 1e300), (1e-300, 0.0)] {
            let pace = Pace::leaky(rate, burst, false);
            let mut due = Due(0);
            assert_eq!(pace.admit(&mut due, 5), Verdict::Pass);
            pace.left(due, 5);
            pace.admit(&mut due, 6);
        }
    }

    /// The bucket as nginx computes it, in thousandths of a request and milliseconds.
    fn nginx(excess: &mut f64, last: &mut u64, now_ms: u64, rate: f64, burst: f64) -> Option<f64> {
        let first = *last == u64::MAX;
        let next = if first { 0.0 } else { (*excess - rate * (now_ms - *last) as f64 / 1000.0 + 1.0).max(0.0) };
        if next > burst {
            return None;
        }
        (*excess, *last) = (next, now_ms);
        Some(next / rate)
    }

    proptest! {
        #[test]
        fn the_schedule_says_what_nginx_says(steps in prop::collection::vec(0u64..400, 1..60), rate in 1u32..40, burst in 0u32..6) {
            let (rate, burst) = (f64::from(rate), f64::from(burst));
            let pace = Pace::leaky(rate, burst, false);
            let (mut due, mut excess, mut last, mut now) = (Due(0), 0.0, u64::MAX, 10);
            for step in steps {
                now += step;
                let verdict = pace.admit(&mut due, now * MS);
                // Where rounding decides, either may be right, and from there on they would differ.
                let early = due.0.saturating_sub(now * MS) as f64;
                let expected = nginx(&mut excess, &mut last, now, rate, burst);
                match (verdict, expected) {
                    (Verdict::Pass, Some(wait)) => prop_assert!(wait < 1e-4, "{wait}"),
                    (Verdict::Wait(ns), Some(wait)) => prop_assert!((ns as f64 / 1e9 - wait).abs() < 1e-4, "{ns} {wait}"),
                    (Verdict::Refuse(_), None) => {}
                    (Verdict::Refuse(after), Some(_)) => { prop_assert!(after < 1000, "{after}"); break }
                    (_, None) => { prop_assert!(early < burst * 1e9 / rate + 1e9 / rate + 1000.0); break }
                }
            }
        }
    }
}
