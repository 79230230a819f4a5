//! How a member is judged by its heartbeats: phi accrual with exponentially distributed intervals, as Cassandra and chitchat reckon it. Pure.
//!
//! Phi is the silence measured in usual intervals (Hayashibara et al., "The φ accrual failure detector", 2004, in the simplified form
//! of Lakshman and Malik, "Cassandra", 2010, without the constant factor). The usual interval is never taken for shorter than the gossip interval: a
//! busy host that misses a round is no dead one.

use std::time::Duration;

use super::super::facts::MemberState;
use crate::clock::Instant;

/// How much one interval moves the mean.
const WEIGHT: f64 = 1.0 / 16.0;
/// Longer silences, in gossip intervals, are outages, and say nothing about what is usual.
const LONGEST: u32 = 10;
/// So many heartbeats in a row must follow the first one of somebody who was taken for dead, before it is believed to live: the last heartbeats of the dead
/// travel for as long as two witnesses of each are met, and come singly.
const FOLLOWING: u8 = 2;

/// By what members are judged.
#[derive(Debug, Clone, Copy)]
pub struct Judge {
    /// Between two rounds.
    pub interval: Duration,
    /// From this phi on a member is taken for dead, from half of it on it is suspected.
    pub threshold: f64,
}

/// A heartbeat that is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Soon enough after the one before to say what is usual.
    InTime,
    /// After an outage.
    AfterSilence,
}

/// The heartbeats of one life of a member.
#[derive(Debug, Clone, Copy)]
pub struct Pulse {
    beat: u64,
    last: Instant,
    mean: f64,
    /// Heard more than once: the first time may be an echo of somebody long dead.
    confirmed: bool,
    /// Heartbeats that must follow yet.
    owed: u8,
}

impl Pulse {
    /// Of somebody heard for the first time.
    #[must_use]
    pub fn new(beat: u64, now: Instant, judge: Judge) -> Pulse {
        Pulse { beat, last: now, mean: judge.interval.as_secs_f64(), confirmed: false, owed: 0 }
    }

    /// Takes note of the newest heartbeat that is known; `None`: it is no news.
    pub fn hear(&mut self, beat: u64, now: Instant, judge: Judge) -> Option<Beat> {
        if beat <= self.beat {
            return None;
        }
        let (interval, phi) = (now.saturating_duration_since(self.last), self.phi(now, judge));
        self.owed = match self.owed {
            _ if phi >= judge.threshold => FOLLOWING,
            1.. if phi >= judge.threshold / 2.0 => FOLLOWING,
            owed => owed.saturating_sub(1),
        };
        (self.beat, self.last, self.confirmed) = (beat, now, true);
        if interval > judge.interval * LONGEST {
            return Some(Beat::AfterSilence);
        }
        self.mean += (interval.as_secs_f64() - self.mean) * WEIGHT;
        Some(Beat::InTime)
    }

    /// How long it has been silent.
    #[must_use]
    pub fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last)
    }

    /// The silence, in usual intervals.
    #[must_use]
    pub fn phi(&self, now: Instant, judge: Judge) -> f64 {
        self.silence(now).as_secs_f64() / self.mean.max(judge.interval.as_secs_f64())
    }

    /// How it stands; `None` while it is not sure that it lives at all.
    #[must_use]
    pub fn state(&self, now: Instant, judge: Judge) -> Option<MemberState> {
        let phi = self.phi(now, judge);
        let state = if self.owed > 0 {
            MemberState::Dead
        } else if phi < judge.threshold / 2.0 {
            MemberState::Alive
        } else if phi < judge.threshold {
            MemberState::Suspect
        } else {
            MemberState::Dead
        };
        self.confirmed.then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const JUDGE: Judge = Judge { interval: Duration::from_secs(1), threshold: 8.0 };

    fn beating(intervals: impl IntoIterator<Item = u64>) -> (Pulse, Instant) {
        let mut now = clock::now();
        let mut pulse = Pulse::new(1, now, JUDGE);
        for (beat, interval) in intervals.into_iter().enumerate() {
            now += Duration::from_millis(interval);
            pulse.hear(beat as u64 + 2, now, JUDGE);
        }
        (pulse, now)
    }

    fn after(pulse: &Pulse, now: Instant, millis: u64) -> Option<MemberState> {
        pulse.state(now + Duration::from_millis(millis), JUDGE)
    }

    #[test]
    fn an_echo_of_the_dead_is_nobody() {
        let (mut pulse, now) = beating([]);
        assert_eq!(after(&pulse, now, 100), None);
        pulse.hear(1, now, JUDGE);
        assert_eq!(after(&pulse, now, 100), None);
        pulse.hear(2, now, JUDGE);
        assert_eq!(after(&pulse, now, 100), Some(MemberState::Alive));
    }

    #[test]
    fn who_was_dead_lives_when_its_heart_beats_in_a_row() {
        let (pulse, now) = beating([1_000, 1_000, 8_000]);
        assert_eq!(after(&pulse, now, 100), Some(MemberState::Dead), "a late echo");
        let (pulse, now) = beating([1_000, 1_000, 8_000, 1_000, 7_000, 1_000]);
        assert_eq!(after(&pulse, now, 100), Some(MemberState::Dead), "several, and not in a row");
        let (pulse, now) = beating([1_000, 1_000, 8_000, 1_000, 1_000]);
        assert_eq!(after(&pulse, now, 100), Some(MemberState::Alive));
    }

    #[test]
    fn silence_is_suspected_and_then_taken_for_death() {
        let (pulse, now) = beating(vec![300; 100]);
        assert_eq!(after(&pulse, now, 3_900), Some(MemberState::Alive));
        assert_eq!(after(&pulse, now, 4_000), Some(MemberState::Suspect));
        assert_eq!(after(&pulse, now, 8_000), Some(MemberState::Dead));
    }

    #[test]
    fn who_is_usually_slow_is_given_more_time() {
        let (pulse, now) = beating(vec![3_000; 100]);
        assert_eq!(after(&pulse, now, 11_000), Some(MemberState::Alive));
        assert_eq!(after(&pulse, now, 23_000), Some(MemberState::Suspect));
        assert_eq!(after(&pulse, now, 24_500), Some(MemberState::Dead));
    }

    #[test]
    fn an_outage_is_not_what_is_usual() {
        let (pulse, now) = beating([1_000, 1_000, 600_000, 1_000]);
        assert_eq!(after(&pulse, now, 8_100), Some(MemberState::Dead));
    }

    proptest! {
        #[test]
        fn longer_silence_is_never_better(intervals in prop::collection::vec(0..20_000_u64, 1..50), a in 0..60_000_u64, b in 0..60_000_u64) {
            let (pulse, now) = beating(intervals);
            let phi = |millis| pulse.phi(now + Duration::from_millis(millis), JUDGE);
            prop_assert!(phi(a.min(b)) <= phi(a.max(b)) && phi(b).is_finite());
        }
    }
}
