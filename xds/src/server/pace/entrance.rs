//! Lets streams begin one after the other when many want to at once. It knows no stream.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use heddle_node::clock;
use tokio::time::Instant;

/// Streams that begin at once, when none has begun for a while: a small fleet is not made to wait.
const BURST: u32 = 200;
/// Between two streams beyond those: of a thousand nodes that come back together the last waits for three seconds, and changes are told meanwhile.
const BETWEEN: Duration = Duration::from_millis(4);
/// Who would wait longer is sent away: by then it may be served elsewhere.
const LONGEST_QUEUE: Duration = Duration::from_secs(10);

/// Lets streams begin one after the other when many want to at once: a token bucket (GCRA, ITU-T I.371).
#[derive(Debug)]
pub(in crate::server) struct Entrance {
    /// When the bucket is full again.
    full_at: Mutex<Instant>,
}

impl Entrance {
    pub(in crate::server) fn new() -> Entrance {
        Entrance { full_at: Mutex::new(clock::now()) }
    }

    /// How long a stream that comes now has to wait, or that it would be too long.
    pub(in crate::server) fn enter(&self, now: Instant) -> Option<Duration> {
        // Nothing can fail while this is held.
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let (full, wait) = queue(*full_at, now);
        if wait > LONGEST_QUEUE {
            return None;
        }
        *full_at = full;
        Some(wait)
    }
}

/// When the bucket is full after one more stream, and how long that stream waits.
fn queue(full_at: Instant, now: Instant) -> (Instant, Duration) {
    let full = full_at.max(now) + BETWEEN;
    (full, full.saturating_duration_since(now).saturating_sub(BETWEEN * BURST))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_few_streams_begin_at_once_and_a_thousand_one_after_the_other() {
        let (entrance, now) = (Entrance::new(), clock::now());
        let waits: Vec<Duration> = (0..1_000).map(|_| entrance.enter(now).unwrap()).collect();
        assert!(waits[..BURST as usize].iter().all(Duration::is_zero));
        assert!(waits.is_sorted() && waits[999] == BETWEEN * 800, "{:?}", waits[999]);
        let refused = (0..5_000).filter(|_| entrance.enter(now).is_none()).count();
        assert!(refused > 2_000, "who would wait for too long goes elsewhere: {refused}");
        let later = now + Duration::from_secs(60);
        assert_eq!(entrance.enter(later), Some(Duration::ZERO));
    }
}
