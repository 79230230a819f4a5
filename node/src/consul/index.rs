//! The rules of blocking queries as values: where a query stands, what an answer means, whether emptiness is believed, how long to pause. It asks nobody.

use std::time::Duration;

use crate::clock::Instant;

/// First pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause: a Consul that is back is noticed within this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A Consul that has forgotten everything is believed after this, when it keeps saying so: by then its services had the time to register again.
const DOUBT: Duration = Duration::from_secs(60);

/// Where a blocking query stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// What is sent.
    ask: u64,
    /// The index of the newest answer taken.
    seen: u64,
    /// An answer went backwards, and the one asked for from the start has not come yet.
    reset: bool,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It may differ from the one before.
    News {
        /// The index went backwards before it: Consul was restored or began anew.
        reset: bool,
    },
    /// Nothing has changed.
    Same,
    /// It went backwards: it does not count, and the query starts at 0.
    Again,
}

impl Cursor {
    /// What to send as `index`; 0 is answered at once.
    #[must_use]
    pub fn ask(self) -> u64 {
        self.ask
    }

    /// The index of the newest answer taken, 0 before the first.
    #[must_use]
    pub fn seen(self) -> u64 {
        self.seen
    }

    /// Takes note of an answer with its `X-Consul-Index`; 0 counts as 1, which would else never block.
    pub fn take(&mut self, answered: u64) -> Step {
        let answered = answered.max(1);
        let backwards = answered < self.seen;
        if backwards && self.ask != 0 {
            *self = Cursor { ask: 0, seen: 0, reset: true };
            return Step::Again;
        }
        let reset = self.reset || backwards;
        let news = reset || answered != self.seen;
        *self = Cursor { ask: answered, seen: answered, reset: false };
        if news { Step::News { reset } } else { Step::Same }
    }

    /// Takes note of a failure: who answers next may have begun anew, and would let a query with an index that it never reached wait for nothing.
    pub fn fail(&mut self) {
        self.ask = 0;
    }
}

/// Whether an empty answer is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken over.
    Believe,
    /// What was known before stays for now.
    Doubt,
}

/// What is held of something, as far as emptiness goes: an empty answer after one that was not is believed when its index has advanced beyond that one's.
/// After a reset, a failure or a restart it says nothing: a Consul that has lost its data counts from one again, and may have come further than a young one
/// had before, by what others register. Then it takes a minute of emptiness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Belief {
    held: bool,
    doubt: Option<Doubt>,
}

/// Why emptiness is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Doubt {
    since: Instant,
    /// The index of the empty answer.
    at: u64,
    /// It was the first answer since the index went back, or since Consul was away: its data may be lost.
    lost: bool,
}

impl Belief {
    /// A belief that begins with something known from earlier, or with nothing.
    #[must_use]
    pub fn new(held: bool) -> Belief {
        Belief { held, doubt: None }
    }

    /// Judges an answer. `filtered`: Consul says that its ACLs took something out of it. `unsure`: it is the first answer since a reset or a restart.
    pub fn judge(&mut self, empty: bool, index: u64, unsure: bool, filtered: bool, now: Instant) -> Verdict {
        if !empty {
            *self = Belief::new(true);
            return Verdict::Believe;
        }
        let advanced = match self.doubt {
            None => !unsure && !filtered,
            Some(Doubt { since, at, lost }) => {
                !filtered && !unsure && !lost && index > at || now.saturating_duration_since(since) >= DOUBT
            }
        };
        if !self.held || advanced {
            *self = Belief::new(false);
            return Verdict::Believe;
        }
        self.doubt.get_or_insert(Doubt { since: now, at: index, lost: false }).lost |= unsure;
        Verdict::Doubt
    }

    /// Whether what came back empty may have lost its data: then only time speaks for emptiness.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.doubt.is_some_and(|doubt| doubt.lost)
    }

    /// When a doubt ends, if nothing else comes.
    #[must_use]
    pub fn ends(&self) -> Option<Instant> {
        self.doubt.map(|doubt| doubt.since + DOUBT)
    }

    /// Nothing else came until then: emptiness is believed.
    pub fn settle(&mut self) {
        *self = Belief::new(false);
    }

    /// Consul is away: time does not speak for emptiness.
    pub fn away(&mut self, now: Instant) {
        if let Some(doubt) = &mut self.doubt {
            doubt.since = now;
        }
    }
}

/// The pause after this many failures in a row, the upper half of it random, so that a fleet does not come back at once.
#[must_use]
pub fn pause(failures: u32, dice: &mut fastrand::Rng) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE);
    whole.mul_f64(0.5 + dice.f64() / 2.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    #[test]
    fn an_index_that_goes_back_starts_at_zero() {
        let mut cursor = Cursor::default();
        assert_eq!((cursor.ask(), cursor.take(40)), (0, Step::News { reset: false }));
        assert_eq!((cursor.ask(), cursor.take(40)), (40, Step::Same));
        assert_eq!((cursor.take(12), cursor.ask()), (Step::Again, 0));
        assert_eq!((cursor.take(12), cursor.ask()), (Step::News { reset: true }, 12));
        assert_eq!(cursor.take(0), Step::Again);
        assert_eq!((cursor.take(0), cursor.ask()), (Step::News { reset: true }, 1));
    }

    #[test]
    fn a_failure_asks_without_waiting_and_forgets_nothing() {
        let mut cursor = Cursor::default();
        cursor.take(40);
        cursor.fail();
        assert_eq!((cursor.ask(), cursor.take(40)), (0, Step::Same));
        cursor.fail();
        assert_eq!((cursor.take(3), cursor.ask()), (Step::News { reset: true }, 3));
    }

    #[test]
    fn emptiness_is_believed_when_the_index_has_advanced() {
        let now = clock::now();
        let mut belief = Belief::default();
        assert_eq!(belief.judge(true, 5, false, false, now), Verdict::Believe);
        belief.judge(false, 6, false, false, now);
        assert_eq!(belief.judge(true, 7, false, false, now), Verdict::Believe);
        belief.judge(false, 8, false, false, now);
        assert_eq!(belief.judge(true, 2, true, false, now), Verdict::Doubt);
        assert_eq!(belief.judge(true, 2, false, false, now), Verdict::Doubt);
        assert_eq!(belief.judge(true, 3, false, false, now), Verdict::Doubt, "others register again too");
        assert!(belief.is_lost());
        assert_eq!(belief.judge(true, 9, false, false, now + DOUBT / 2), Verdict::Doubt, "and come further than before");
        assert_eq!(belief.judge(true, 9, false, false, now + DOUBT), Verdict::Believe);
        belief.judge(false, 8, false, false, now);
        assert_eq!(belief.judge(true, 9, false, true, now), Verdict::Doubt, "taken out by ACLs");
        assert!(!belief.is_lost());
        assert_eq!(belief.ends(), Some(now + DOUBT));
        belief.away(now + DOUBT / 2);
        assert_eq!(belief.judge(true, 9, false, true, now + DOUBT), Verdict::Doubt);
        assert_eq!(belief.judge(true, 9, false, true, now + 2 * DOUBT), Verdict::Believe);
        belief.judge(false, 8, false, false, now);
        assert_eq!(belief.judge(true, 9, false, true, now), Verdict::Doubt);
        assert_eq!(belief.judge(true, 10, false, false, now), Verdict::Believe, "with a better token");
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut dice = fastrand::Rng::with_seed(7);
        for failures in 0..40 {
            let whole = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
            let wait = pause(failures, &mut dice);
            assert!(wait >= whole / 2 && wait <= whole, "{failures}: {wait:?}");
        }
    }

    proptest! {
        /// Against a server that may begin anew at any moment, a query never waits for an index that the server has not reached, and after any answer
        /// that counts what is held is what the server had at that index.
        #[test]
        fn no_query_waits_for_what_will_not_come(events in prop::collection::vec((0_u64..50, any::<bool>()), 1..200)) {
            let mut cursor = Cursor::default();
            let mut again = 0;
            for (index, failed) in events {
                if failed {
                    cursor.fail();
                    prop_assert_eq!(cursor.ask(), 0);
                    continue;
                }
                let (before, asked) = (cursor.seen(), cursor.ask());
                match cursor.take(index) {
                    Step::Again => {
                        prop_assert!(asked != 0 && index.max(1) < before);
                        prop_assert_eq!(cursor.ask(), 0);
                        again += 1;
                    }
                    Step::Same => prop_assert_eq!(before, index.max(1)),
                    Step::News { reset } => {
                        prop_assert_eq!(reset, again > 0 || index.max(1) < before);
                        again = 0;
                    }
                }
                if again == 0 {
                    prop_assert_eq!((cursor.ask(), cursor.seen()), (index.max(1), index.max(1)));
                }
            }
        }

        /// Something that was there is never given up for an answer that nothing speaks for.
        #[test]
        fn nothing_is_given_up_lightly(answers in prop::collection::vec((any::<bool>(), 1_u64..20, any::<bool>(), any::<bool>()), 1..100)) {
            let now = clock::now();
            let (mut belief, mut held) = (Belief::default(), false);
            for (empty, index, unsure, filtered) in answers {
                match belief.judge(empty, index, unsure, filtered, now) {
                    Verdict::Believe => {
                        prop_assert!(!empty || !held || (!unsure && !filtered));
                        held = !empty;
                    }
                    Verdict::Doubt => prop_assert!(empty && held && belief.ends().is_some()),
                }
            }
        }
    }
}
