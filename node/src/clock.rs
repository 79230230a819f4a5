//! The only place that reads time. It knows nothing of what the time is used for.

use std::cell::Cell;
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

/// The wall clock for what happens thousands of times a second: reckoned from the monotonic one, and read anew once a second.
#[derive(Debug, Default)]
pub struct WallCache {
    read: Cell<Option<(Instant, u64)>>,
}

impl WallCache {
    /// Unix milliseconds of a moment that has just been.
    #[must_use]
    pub fn unix_ms(&self, moment: Instant) -> u64 {
        let millis = |span: Duration| span.as_secs().saturating_mul(1_000).saturating_add(u64::from(span.subsec_millis()));
        if let Some((at, ms)) = self.read.get() {
            match moment.checked_duration_since(at) {
                Some(since) if since.as_secs() == 0 => return ms + u64::from(since.subsec_millis()),
                Some(_) => {}
                None => return ms.saturating_sub(millis(at - moment)),
            }
        }
        let ms = unix_ms().saturating_sub(millis(now().saturating_duration_since(moment)));
        self.read.set(Some((moment, ms)));
        ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reckoned_time_keeps_to_the_wall_clock() {
        let moment = now();
        assert!(WallCache::default().unix_ms(moment).abs_diff(unix_ms()) < 1_000);
        let kept = WallCache::default();
        let first = kept.unix_ms(moment);
        assert_eq!(kept.unix_ms(moment + Duration::from_millis(250)), first + 250);
        assert_eq!(kept.unix_ms(moment - Duration::from_millis(250)), first - 250);
    }

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
