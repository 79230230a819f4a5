//! How long to wait before the next attempt. A function of the attempt and the dice.

use std::time::Duration;

/// Before the first repetition.
const BASE: Duration = Duration::from_millis(100);
/// At most.
const CAP: Duration = Duration::from_secs(10);

/// Wait before attempt `attempt` (0 is the first repetition): exponential from 100 ms to 10 s, of which the upper half is random, so that
/// the nodes of a fleet do not come back together.
pub fn backoff(attempt: u32, dice: &mut fastrand::Rng) -> Duration {
    let full = BASE.saturating_mul(1 << attempt.min(16)).min(CAP);
    let half = full / 2;
    half + half.mul_f64(dice.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_bounds() {
        let mut dice = fastrand::Rng::with_seed(7);
        for attempt in 0..100 {
            let full = BASE.saturating_mul(1 << attempt.min(16)).min(CAP);
            let wait = backoff(attempt, &mut dice);
            assert!(wait >= full / 2 && wait <= full, "{attempt}: {wait:?}");
        }
        assert!(backoff(u32::MAX, &mut dice) <= CAP);
    }

    #[test]
    fn dice_spread_the_waits() {
        let mut dice = fastrand::Rng::with_seed(7);
        let waits: std::collections::BTreeSet<Duration> = (0..20).map(|_| backoff(5, &mut dice)).collect();
        assert!(waits.len() > 15, "{waits:?}");
    }
}
