//! When an identity is renewed: a function of its life, of what has failed, and of now. It knows neither keys nor control planes.

use std::time::{Duration, SystemTime};

use heddle_node::clock::Instant;

/// Where in its life an identity is renewed; half of it, so that a control plane may be away for the other half.
const RENEW_AT: f64 = 0.5;
/// How far renewals of a fleet that was started together are spread, as a share of the life.
const SPREAD: f64 = 0.1;
/// Where in its life an identity that was not renewed is a reason to wake somebody.
const ALARM_AT: f64 = 2.0 / 3.0;
/// Before the first repetition.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// At most between two attempts; for short lives less.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// At most, while there is no identity: somebody is waiting for this process.
const LONGEST_FIRST_WAIT: Duration = Duration::from_secs(10);
/// The longest wait that a control plane can ask for.
const LONGEST_HINT: Duration = Duration::from_secs(300);
/// By how much the wall clock may run away from the monotonic one before the machine counts as having slept.
const SLEPT: Duration = Duration::from_secs(60);

/// The life of an identity as this process sees it: by its monotonic clock, so that a wall clock that is wrong or jumps does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// When it was received.
    pub(super) start: Instant,
    /// The wall clock at that moment.
    pub(super) wall: SystemTime,
    /// How long it was valid then, by the clock of whoever signed it.
    pub(super) length: Duration,
}

impl Life {
    /// How long it is valid at `now`.
    pub(super) fn remaining(&self, now: Instant) -> Duration {
        self.length.saturating_sub(now.saturating_duration_since(self.start))
    }
}

/// What is known of the present identity and of the attempts to renew it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    life: Option<Life>,
    due: Instant,
    failures: u32,
}

impl Schedule {
    /// Without an identity: the first attempt is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self { life: None, due: now, failures: 0 }
    }

    /// There is a new identity.
    pub(super) fn renewed(&mut self, life: Life, dice: &mut fastrand::Rng) {
        let share = RENEW_AT + SPREAD * (dice.f64() - 0.5);
        *self = Self { life: Some(life), due: life.start + life.length.mul_f64(share), failures: 0 };
    }

    /// An attempt has failed. `hint` is how long the control plane wants to be left alone.
    pub(super) fn failed(&mut self, now: Instant, hint: Option<Duration>, dice: &mut fastrand::Rng) {
        let longest = match &self.life {
            None => LONGEST_FIRST_WAIT,
            Some(life) => (life.length / 20).clamp(FIRST_WAIT, LONGEST_WAIT),
        };
        let full = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(longest);
        let half = full / 2;
        let wait = (half + half.mul_f64(dice.f64())).max(hint.unwrap_or_default().min(LONGEST_HINT));
        self.failures = self.failures.saturating_add(1);
        self.due = now + wait;
    }

    /// When the next attempt is due. `wall` shows when the machine has slept, which the monotonic clock does not count: then it is due at once.
    pub(super) fn due(&self, now: Instant, wall: SystemTime) -> Instant {
        let slept = self.life.is_some_and(|life| {
            let by_wall = wall.duration_since(life.wall).unwrap_or_default();
            by_wall > now.saturating_duration_since(life.start) + SLEPT
        });
        if slept && self.failures == 0 { now } else { self.due }
    }

    /// Attempts that have failed since the last good one.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the present identity, if any, is still good.
    pub(super) fn is_alive(&self, now: Instant) -> bool {
        self.life.is_some_and(|life| !life.remaining(now).is_zero())
    }

    /// Whether two thirds of the life have gone without a renewal.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.life.is_some_and(|life| now.saturating_duration_since(life.start) >= life.length.mul_f64(ALARM_AT))
    }

    /// How long the present identity is still good.
    pub(super) fn remaining(&self, now: Instant) -> Duration {
        self.life.map_or(Duration::ZERO, |life| life.remaining(now))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use heddle_node::clock;
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn held(length: Duration, seed: u64) -> (Schedule, Life) {
        let life = Life { start: clock::now(), wall: clock::wall(), length };
        let mut schedule = Schedule::new(life.start);
        schedule.renewed(life, &mut fastrand::Rng::with_seed(seed));
        (schedule, life)
    }

    #[test]
    fn the_first_identity_is_due_at_once() {
        let now = clock::now();
        let schedule = Schedule::new(now);
        assert_eq!(schedule.due(now, clock::wall()), now);
        assert!(!schedule.is_alive(now) && !schedule.is_overdue(now));
    }

    #[test]
    fn two_thirds_are_the_alarm_and_the_end_is_the_end() {
        let (schedule, life) = held(DAY, 1);
        assert!(!schedule.is_overdue(life.start + DAY / 2));
        assert!(schedule.is_overdue(life.start + DAY * 2 / 3));
        assert!(schedule.is_alive(life.start + DAY - Duration::from_secs(1)));
        assert!(!schedule.is_alive(life.start + DAY));
    }

    #[test]
    fn a_machine_that_has_slept_renews_at_once() {
        let (schedule, life) = held(DAY, 1);
        let minute = life.start + Duration::from_secs(60);
        assert!(schedule.due(minute, life.wall + Duration::from_secs(60)) > minute);
        assert_eq!(schedule.due(minute, life.wall + DAY), minute);
        // The wall clock was set back: nothing has happened.
        assert!(schedule.due(minute, life.wall - DAY) > minute);
    }

    #[test]
    fn a_hint_is_followed_within_reason() {
        let (mut schedule, life) = held(DAY, 1);
        let mut dice = fastrand::Rng::with_seed(1);
        schedule.failed(life.start, Some(Duration::from_secs(20)), &mut dice);
        assert_eq!(schedule.due(life.start, life.wall), life.start + Duration::from_secs(20));
        schedule.failed(life.start, Some(DAY), &mut dice);
        assert_eq!(schedule.due(life.start, life.wall), life.start + LONGEST_HINT);
    }

    proptest! {
        #[test]
        fn renewal_is_about_the_half(seconds in 2_u64..1_000_000, seed: u64) {
            let length = Duration::from_secs(seconds);
            let (schedule, life) = held(length, seed);
            let after = schedule.due(life.start, life.wall) - life.start;
            prop_assert!(after >= length.mul_f64(0.449) && after <= length.mul_f64(0.551), "{after:?} of {length:?}");
        }

        #[test]
        fn lives_of_five_minutes_outlast_two_minutes_without_a_control_plane(from in 0_u64..1_200_000, seed: u64) {
            let (length, absence) = (Duration::from_secs(300), Duration::from_secs(120));
            let (mut schedule, life) = held(length, seed);
            let mut dice = fastrand::Rng::with_seed(seed);
            let away = life.start + Duration::from_millis(from);
            let (mut now, mut renewals) = (life.start, Vec::new());
            while now < life.start + Duration::from_secs(1_800) {
                now = schedule.due(now, life.wall).max(now);
                prop_assert!(schedule.is_alive(now), "its life is over after {renewals:?}");
                if now >= away && now < away + absence {
                    schedule.failed(now, None, &mut dice);
                } else {
                    schedule.renewed(Life { start: now, wall: life.wall, length }, &mut dice);
                    renewals.push(now - life.start);
                }
            }
            prop_assert!((9..=14).contains(&renewals.len()), "{renewals:?}");
        }

        #[test]
        fn attempts_go_on_for_ever_within_bounds(seconds in 2_u64..1_000_000, seed: u64, failures in 1_u32..200) {
            let (mut schedule, life) = held(Duration::from_secs(seconds), seed);
            let mut dice = fastrand::Rng::with_seed(seed);
            let mut now = life.start;
            for _ in 0..failures {
                schedule.failed(now, None, &mut dice);
                let due = schedule.due(now, life.wall);
                let most = (life.length / 20).clamp(FIRST_WAIT, LONGEST_WAIT);
                prop_assert!(due - now <= most && due - now >= FIRST_WAIT / 2);
                now = due;
            }
            prop_assert_eq!(schedule.failures(), failures);
        }
    }
}
