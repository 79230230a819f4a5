//! Counters that a worker writes without locks: each worker has a shard of its own and readers add the shards up.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A counter with one writer. Adding is a load and a store, no locked instruction; readers may see it a moment late, never torn.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning worker may call it.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// One less, for gauges; only the owning worker may call it.
    pub fn dec(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the duration buckets in seconds; `+Inf` is implied.
pub(super) const BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

const BUCKET_MICROS: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
    30_000_000,
];

/// A histogram of durations with one writer.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; 16],
    sum_micros: Counter,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let slot = BUCKET_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[slot].add(1);
        self.sum_micros.add(micros);
    }

    /// Adds this shard to a sum: counts per bucket (not cumulative) and the sum in microseconds.
    pub fn add_to(&self, counts: &mut [u64; 16], sum_micros: &mut u64) {
        for (total, bucket) in counts.iter_mut().zip(&self.buckets) {
            *total += bucket.get();
        }
        *sum_micros += self.sum_micros.get();
    }
}

/// The status codes counted singly; the last slots take the rest of each class.
pub(super) const CODES: [&str; 35] = [
    "101", "200", "201", "202", "204", "206", "301", "302", "303", "304", "307", "308", "400", "401", "403", "404", "405", "408",
    "409", "412", "413", "414", "421", "422", "429", "431", "499", "500", "502", "503", "504", "2xx", "3xx", "4xx", "5xx",
];

/// The statuses of the first slots of [`CODES`].
const SINGLE: [u16; 31] = [
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409, 412, 413, 414, 421, 422, 429,
    431, 499, 500, 502, 503, 504,
];

/// Slot of each status below 600.
static SLOTS: [u8; 600] = slots();

const fn slots() -> [u8; 600] {
    let mut slots = [31; 600];
    let mut status = 300;
    while status < 600 {
        slots[status] = 29 + (status / 100) as u8;
        status += 1;
    }
    let mut slot = 0;
    while slot < SINGLE.len() {
        slots[SINGLE[slot] as usize] = slot as u8;
        slot += 1;
    }
    slots
}

/// Slot of a status in [`CODES`]; what is no status counts as 5xx.
fn code_slot(status: u16) -> usize {
    SLOTS.get(usize::from(status)).map_or(CODES.len() - 1, |slot| usize::from(*slot))
}

/// Counters by [`CODES`].
#[derive(Debug)]
pub struct Codes([Counter; CODES.len()]);

impl Default for Codes {
    fn default() -> Self {
        Codes(std::array::from_fn(|_| Counter::default()))
    }
}

impl Codes {
    /// Counts one status.
    pub fn add(&self, status: u16) {
        self.0[code_slot(status)].add(1);
    }

    /// Code text and count, in the order of [`CODES`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CODES.iter().copied().zip(self.0.iter().map(Counter::get))
    }
}

/// One worker's share of what is counted for one route.
#[derive(Debug, Default)]
pub struct RouteShard {
    /// Requests by status.
    pub codes: Codes,
    /// First byte in to last byte out.
    pub duration: Histogram,
    /// Time until the upstream's response head.
    pub upstream: Histogram,
    /// Body bytes from clients.
    pub bytes_in: Counter,
    /// Body bytes to clients.
    pub bytes_out: Counter,
    /// Retries.
    pub retries: Counter,
    /// Requests in flight.
    pub active: Counter,
}

/// A value per worker, made when that worker first needs it.
#[derive(Debug)]
pub struct Sharded<T>(Box<[OnceLock<Box<T>>]>);

impl<T: Default> Sharded<T> {
    /// For this many workers.
    pub fn new(workers: usize) -> Sharded<T> {
        Sharded((0..workers.max(1)).map(|_| OnceLock::new()).collect())
    }

    /// The worker's own value.
    pub fn own(&self, worker: usize) -> &T {
        self.0[worker % self.0.len()].get_or_init(Box::default)
    }

    /// The values made so far.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(|slot| slot.get().map(|value| &**value))
    }
}

/// What is counted for one route; it outlives changes of the route.
pub type RouteStats = Sharded<RouteShard>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_the_slot_of_its_code_or_class() {
        for status in 100..600u16 {
            let code = CODES[code_slot(status)];
            let exact = code == status.to_string();
            let class = code == format!("{}xx", (status / 100).max(2));
            assert!(exact || class, "{status} is counted as {code}");
        }
    }

    #[test]
    fn a_duration_falls_in_the_first_bucket_that_is_not_below_it() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(500));
        histogram.observe(Duration::from_micros(501));
        histogram.observe(Duration::from_secs(3600));
        let (mut counts, mut sum) = ([0; 16], 0);
        histogram.add_to(&mut counts, &mut sum);
        assert_eq!((counts[0], counts[1], counts[15]), (1, 1, 1));
        assert_eq!(sum, 500 + 501 + 3_600_000_000);
    }
}
