//! What an upstream did in the last ten seconds, in a ring of buckets of one second. It knows no condition and no clock.

use std::time::Duration;

use super::condition::{Condition, Measure, Ranges};

/// What came of one request.
#[derive(Debug, Clone, Copy)]
pub(in crate::filters::api_breaker) struct Seen {
    /// Status of the upstream; 502 or 504 when it could not be reached.
    pub status: u16,
    /// Until the head of the answer.
    pub took: Duration,
}

/// The last ten seconds.
#[derive(Debug)]
pub(super) struct Window {
    buckets: [Bucket; BUCKETS],
    /// The second of the newest bucket.
    newest: u64,
}

#[derive(Debug, Clone, Default)]
struct Bucket {
    requests: u64,
    network_errors: u64,
    /// Statuses in the ranges of the condition, two for each pair.
    ranges: Box<[[u64; 2]]>,
    /// Answers by latency; empty where none is asked for.
    latencies: Box<[u32]>,
}

const BUCKETS: usize = 10;
/// Steps of latency per doubling: the error is at most one part in 16.
const STEPS: u32 = 16;
/// Microseconds below this have a step of their own.
const FINEST: u64 = STEPS as u64;
/// The last step holds all above, about an hour.
const LATENCIES: usize = (STEPS * 29) as usize;

impl Window {
    /// An empty one for what this condition asks.
    pub(super) fn new(condition: &Condition) -> Window {
        let ranges = vec![[0; 2]; condition.ranges.len()].into();
        let latencies = vec![0; if condition.latency { LATENCIES } else { 0 }].into();
        let bucket = Bucket { requests: 0, network_errors: 0, ranges, latencies };
        Window { buckets: std::array::from_fn(|_| bucket.clone()), newest: 0 }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.buckets.iter_mut().for_each(Bucket::clear);
    }

    /// Takes one request into account that ended in this second.
    pub(super) fn record(&mut self, second: u64, ranges: &[Ranges], seen: Seen) {
        self.advance(second);
        let bucket = &mut self.buckets[(self.newest % BUCKETS as u64) as usize];
        bucket.requests += 1;
        bucket.network_errors += u64::from(matches!(seen.status, 502 | 504));
        for ((part, whole), counts) in ranges.iter().zip(&mut bucket.ranges) {
            counts[0] += u64::from(part.contains(&seen.status));
            counts[1] += u64::from(whole.contains(&seen.status));
        }
        if let Some(count) = bucket.latencies.get_mut(step(seen.took)) {
            *count = count.saturating_add(1);
        }
    }

    /// Forgets what is older than ten seconds.
    pub(super) fn advance(&mut self, second: u64) {
        let gone = second.saturating_sub(self.newest).min(BUCKETS as u64);
        self.newest = self.newest.max(second);
        for back in 0..gone {
            self.buckets[((self.newest - back) % BUCKETS as u64) as usize].clear();
        }
    }

    /// What a condition asks; 0 where there is nothing to divide by.
    pub(super) fn measure(&self, of: &Measure) -> f64 {
        let sum = |of: &dyn Fn(&Bucket) -> u64| self.buckets.iter().map(of).sum::<u64>();
        match of {
            Measure::RequestCount => sum(&|bucket| bucket.requests) as f64,
            Measure::NetworkErrorRatio => ratio(sum(&|bucket| bucket.network_errors), sum(&|bucket| bucket.requests)),
            Measure::ResponseCodeRatio(pair) => {
                let of = |side: usize| sum(&|bucket| bucket.ranges.get(*pair).map_or(0, |counts| counts[side]));
                ratio(of(0), of(1))
            }
            Measure::LatencyAtQuantileMs(quantile) => self.latency(*quantile),
        }
    }

    fn latency(&self, quantile: f64) -> f64 {
        let requests: u64 = self.buckets.iter().map(|bucket| bucket.requests).sum();
        let rank = ((requests as f64 * quantile).ceil() as u64).max(1);
        let mut before = 0;
        for step in 0..LATENCIES {
            before +=
                self.buckets.iter().filter_map(|bucket| bucket.latencies.get(step)).map(|count| u64::from(*count)).sum::<u64>();
            if before >= rank {
                return micros(step) as f64 / 1000.0;
            }
        }
        0.0
    }
}

impl Bucket {
    fn clear(&mut self) {
        (self.requests, self.network_errors) = (0, 0);
        self.ranges.fill([0; 2]);
        self.latencies.fill(0);
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The step of a latency: linear within each doubling, as in HdrHistogram.
fn step(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < FINEST {
        return micros as usize;
    }
    let doubling = micros.ilog2() - FINEST.ilog2();
    let within = (micros >> doubling) - FINEST;
    (((doubling + 1) * STEPS) as usize + within as usize).min(LATENCIES - 1)
}

/// The longest latency of a step.
fn micros(step: usize) -> u64 {
    let (row, within) = (step as u64 / FINEST, step as u64 % FINEST);
    if row == 0 { within } else { ((FINEST + within + 1) << (row - 1)) - 1 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn condition() -> Condition {
        Condition::parse("ResponseCodeRatio(500, 600, 0, 600) > 1 || LatencyAtQuantileMS(50.0) > 1").unwrap()
    }

    fn seen(status: u16, ms: u64) -> Seen {
        Seen { status, took: Duration::from_millis(ms) }
    }

    #[test]
    fn shares_are_those_of_the_last_ten_seconds() {
        let condition = condition();
        let mut window = Window::new(&condition);
        for status in [200, 502, 500, 504] {
            window.record(100, &condition.ranges, seen(status, 1));
        }
        let told =
            |window: &Window| (window.measure(&Measure::NetworkErrorRatio), window.measure(&Measure::ResponseCodeRatio(0)));
        assert_eq!(told(&window), (0.5, 0.75));
        window.record(109, &condition.ranges, seen(200, 1));
        assert_eq!((told(&window), window.measure(&Measure::RequestCount)), ((0.4, 0.6), 5.0));
        window.advance(110);
        assert_eq!((told(&window), window.measure(&Measure::RequestCount)), ((0.0, 0.0), 1.0));
        window.record(1000, &condition.ranges, seen(502, 1));
        assert_eq!(told(&window), (1.0, 1.0));
        window.clear();
        assert_eq!(told(&window), (0.0, 0.0));
    }

    #[test]
    fn quantiles_are_of_all_buckets() {
        let condition = condition();
        let mut window = Window::new(&condition);
        for (second, ms) in [(1, 10), (2, 20), (3, 1000), (4, 2000)] {
            window.record(second, &condition.ranges, seen(200, ms));
        }
        let at = |quantile| window.measure(&Measure::LatencyAtQuantileMs(quantile));
        for (quantile, expected) in [(0.0, 10.0), (0.25, 10.0), (0.5, 20.0), (0.75, 1000.0), (1.0, 2000.0)] {
            assert!((expected..expected * 1.07).contains(&at(quantile)), "{quantile}: {}", at(quantile));
        }
    }

    proptest! {
        #[test]
        fn a_step_holds_what_it_says(micros in 0u64..3_000_000_000) {
            let step = step(Duration::from_micros(micros));
            prop_assert!(super::micros(step) >= micros && super::micros(step) as f64 <= micros as f64 * (1.0 + 1.0 / 16.0));
        }

        #[test]
        fn sums_are_those_of_a_list(steps in prop::collection::vec((0u64..4, 200u16..600), 1..60)) {
            let condition = condition();
            let (mut window, mut list, mut now) = (Window::new(&condition), Vec::new(), 50);
            for (step, status) in steps {
                now += step;
                window.record(now, &condition.ranges, seen(status, 1));
                list.push((now, status));
                let recent = list.iter().filter(|(at, _)| at + 10 > now);
                let failed = recent.clone().filter(|(_, status)| *status >= 500).count();
                prop_assert_eq!(window.measure(&Measure::ResponseCodeRatio(0)), ratio(failed as u64, recent.count() as u64));
            }
        }
    }
}
