//! What came of a load: every latency, every failure. It does not know how either was found.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Latencies of the answers that were complete and correct; all others are failures.
pub struct Tally {
    start: Instant,
    end: Instant,
    latencies: Vec<Duration>,
    failures: u64,
    first: Option<String>,
}

impl Tally {
    pub fn new() -> Tally {
        Tally::from(Instant::now())
    }

    /// Of a load that begins at `start`.
    pub fn from(start: Instant) -> Tally {
        Tally { start, end: start, latencies: Vec::with_capacity(1 << 16), failures: 0, first: None }
    }

    /// Counts one result; those that end behind `deadline` were cut off by the end of the load and count neither way.
    pub fn add(&mut self, latency: Result<Duration, String>, deadline: Instant) {
        let now = Instant::now();
        if now > deadline {
            return;
        }
        self.end = now;
        match latency {
            Ok(latency) => self.latencies.push(latency),
            Err(failure) => {
                self.failures += 1;
                self.first.get_or_insert(failure);
            }
        }
    }

    pub fn merge(&mut self, other: Tally) {
        self.end = self.end.max(other.end);
        self.latencies.extend(other.latencies);
        self.failures += other.failures;
        self.first = self.first.take().or(other.first);
    }

    pub fn done(&self) -> usize {
        self.latencies.len()
    }

    pub fn first_failure(&self) -> &str {
        self.first.as_deref().unwrap_or("nothing failed")
    }

    /// Milliseconds and counts.
    pub fn json(&self) -> Value {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let ms = |permille: usize| {
            let rank = (sorted.len() * permille).div_ceil(1000).saturating_sub(1);
            sorted.get(rank).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
        };
        json!({
            "requests": sorted.len(),
            "seconds": (self.end - self.start).as_secs_f64(),
            "errors": self.failures,
            "first_error": self.first,
            "p50_ms": ms(500),
            "p90_ms": ms(900),
            "p99_ms": ms(990),
            "p999_ms": ms(999),
        })
    }
}
