//! Counters that a worker writes without locks: each worker has a shard of its own and readers add the shards up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
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

/// Slot of a duration in [`BUCKETS`], the last one being `+Inf`.
fn bucket_slot(micros: u64) -> usize {
    BUCKET_MICROS.partition_point(|bound| *bound < micros)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Durations added up over shards.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Durations {
    /// How many fell in each bucket, not cumulative; the last one is `+Inf`.
    pub counts: [u64; BUCKETS.len() + 1],
    /// Sum in microseconds.
    pub sum_micros: u64,
}

impl Durations {
    fn add(&mut self, counts: impl Iterator<Item = u64>, sum_micros: u64) {
        self.counts.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        self.sum_micros += sum_micros;
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

/// Slot of 200, which has a place of its own in a shard.
const OK: usize = 1;

/// Counters by [`CODES`].
#[derive(Debug)]
struct Codes([Counter; CODES.len()]);

impl Default for Codes {
    fn default() -> Self {
        Codes(std::array::from_fn(|_| Counter::default()))
    }
}

/// One bucket of both histograms of a shard.
#[derive(Debug, Default)]
struct Bucket {
    duration: Counter,
    upstream: Counter,
}

/// Buckets that lie beside what every request writes: up to 5 ms.
const QUICK: usize = 4;

/// What most requests do not write.
#[derive(Debug, Default)]
struct Rare {
    slow: [Bucket; BUCKETS.len() + 1 - QUICK],
    bytes_in: Counter,
    retries: Counter,
    /// Statuses but 200.
    codes: OnceLock<Box<Codes>>,
}

/// What one request adds to the counters of its route.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    /// Status of the answer.
    pub status: u16,
    /// First byte in to last byte out.
    pub duration: Duration,
    /// Time until the upstream's response head, of the last try.
    pub upstream: Option<Duration>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// Tries after the first.
    pub retries: u64,
}

/// One worker's share of what is counted for one route.
///
/// With thousands of routes a request finds this memory cold, and the processor's tables of pages are too small for all of it. What a quick success writes
/// therefore fills, with the two counts of the `Arc` before it, two lines of 64 bytes beside each other; the rest is elsewhere.
#[derive(Debug, Default)]
#[repr(C)]
pub struct RouteShard {
    ok: Counter,
    duration_micros: Counter,
    upstream_micros: Counter,
    bytes_out: Counter,
    rare: OnceLock<Box<Rare>>,
    quick: [Bucket; QUICK],
}

impl RouteShard {
    /// Counts a request; only the owning worker may call it.
    pub fn count(&self, counted: &Counted) {
        match code_slot(counted.status) {
            OK => self.ok.inc(),
            slot => self.rare().codes.get_or_init(Box::default).0[slot].inc(),
        }
        let duration = micros(counted.duration);
        self.duration_micros.add(duration);
        self.bucket(bucket_slot(duration)).duration.inc();
        if let Some(upstream) = counted.upstream.map(micros) {
            self.upstream_micros.add(upstream);
            self.bucket(bucket_slot(upstream)).upstream.inc();
        }
        self.bytes_out.add(counted.bytes_out);
        if counted.bytes_in > 0 {
            self.rare().bytes_in.add(counted.bytes_in);
        }
        if counted.retries > 0 {
            self.rare().retries.add(counted.retries);
        }
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    fn bucket(&self, slot: usize) -> &Bucket {
        self.quick.get(slot).unwrap_or_else(|| &self.rare().slow[slot - QUICK])
    }

    /// The counts of all buckets.
    fn buckets(&self, count: fn(&Bucket) -> &Counter) -> impl Iterator<Item = u64> {
        let rare = self.rare.get();
        let slow = (0..BUCKETS.len() + 1 - QUICK).map(move |slot| rare.map_or(0, |rare| count(&rare.slow[slot]).get()));
        self.quick.iter().map(move |bucket| count(bucket).get()).chain(slow)
    }

    /// Code text and count, always of the same codes in the same order.
    pub fn codes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let others = self.rare.get().and_then(|rare| rare.codes.get());
        CODES.iter().enumerate().map(move |(slot, code)| match slot {
            OK => (*code, self.ok.get()),
            slot => (*code, others.map_or(0, |others| others.0[slot].get())),
        })
    }

    /// Adds the durations from first byte in to last byte out to a sum.
    pub fn add_durations(&self, sum: &mut Durations) {
        sum.add(self.buckets(|bucket| &bucket.duration), self.duration_micros.get());
    }

    /// Adds the times until upstreams' response heads to a sum.
    pub fn add_upstream_durations(&self, sum: &mut Durations) {
        sum.add(self.buckets(|bucket| &bucket.upstream), self.upstream_micros.get());
    }

    /// Body bytes from clients.
    pub fn bytes_in(&self) -> u64 {
        self.rare.get().map_or(0, |rare| rare.bytes_in.get())
    }

    /// Body bytes to clients.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.get()
    }

    /// Tries after the first.
    pub fn retries(&self) -> u64 {
        self.rare.get().map_or(0, |rare| rare.retries.get())
    }
}

/// A value per worker, made when that worker first needs it.
#[derive(Debug)]
pub struct Sharded<T>(Box<[OnceLock<Arc<T>>]>);

impl<T: Default> Sharded<T> {
    /// For this many workers.
    pub fn new(workers: usize) -> Sharded<T> {
        Sharded((0..workers.max(1)).map(|_| OnceLock::new()).collect())
    }

    /// The worker's own value.
    pub fn own(&self, worker: usize) -> &Arc<T> {
        self.0[worker % self.0.len()].get_or_init(Arc::default)
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
        let shard = RouteShard::default();
        for micros in [500, 501, 3_600_000_000] {
            shard.count(&Counted { duration: Duration::from_micros(micros), ..Counted::default() });
        }
        let mut sum = Durations::default();
        shard.add_durations(&mut sum);
        assert_eq!((sum.counts[0], sum.counts[1], sum.counts[15]), (1, 1, 1));
        assert_eq!(sum.sum_micros, 500 + 501 + 3_600_000_000);
        let mut upstream = Durations::default();
        shard.add_upstream_durations(&mut upstream);
        assert_eq!(upstream, Durations::default());
    }

    #[test]
    fn each_status_is_counted_once_and_a_quick_success_needs_no_memory_of_its_own() {
        let shard = RouteShard::default();
        let counted = Counted { status: 200, upstream: Some(Duration::ZERO), bytes_out: 2, ..Counted::default() };
        shard.count(&counted);
        assert!(shard.rare.get().is_none());
        shard.count(&Counted { status: 404, bytes_in: 1, retries: 3, ..counted });
        let codes: Vec<_> = shard.codes().filter(|(_, count)| *count > 0).collect();
        assert_eq!(codes, [("200", 1), ("404", 1)]);
        assert_eq!((shard.bytes_in(), shard.bytes_out(), shard.retries()), (1, 4, 3));
        assert_eq!(size_of::<RouteShard>() + 2 * size_of::<usize>(), 128, "what every request writes fills two lines");
    }
}
