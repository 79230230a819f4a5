//! The only place that reads time. It knows nothing of what the time is used for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point on the monotonic clock: deadlines, timeouts, elapsed time. Tests that pause tokio's time move it.
pub type Instant = tokio::time::Instant;

/// The monotonic clock. Use it for everything that is compared or subtracted inside this process; never store or send it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock. Use it only for what leaves the process or outlives it (certificate validity, log lines, revisions): it may jump.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The wall clock in milliseconds since the Unix epoch; 0 for a clock set before it.
#[must_use]
pub fn unix_ms() -> u64 {
    unix_ms_of(wall())
}

/// `time` in milliseconds since the Unix epoch; 0 before it, saturating far beyond it.
#[must_use]
pub fn unix_ms_of(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_count_from_the_epoch() {
        assert_eq!(unix_ms_of(UNIX_EPOCH + Duration::from_millis(1_234)), 1_234);
        assert_eq!(unix_ms_of(UNIX_EPOCH - Duration::from_secs(1)), 0);
        assert!(unix_ms() > 1_600_000_000_000);
    }

    #[test]
    fn monotonic_time_does_not_go_back() {
        let before = now();
        assert!(now() >= before);
    }
}
