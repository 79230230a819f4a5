//! The states of a circuit breaker: closed, open, recovering. It knows no requests, and the time is told to it.

use std::time::Duration;

use super::condition::Condition;
use super::window::{Seen, Window};

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub(in crate::filters::api_breaker) struct Spans {
    /// Between two looks at the condition.
    pub check: Duration,
    /// Open.
    pub fallback: Duration,
    /// Recovering.
    pub recovery: Duration,
}

/// A circuit breaker. Times are counted from any one moment.
#[derive(Debug)]
pub(in crate::filters::api_breaker) struct Machine {
    state: State,
    window: Window,
    next_check: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everything passes.
    Closed,
    /// Nothing passes.
    Open { until: Duration },
    /// Ever more passes, until half of it does; then all of it would be twice as much.
    Recovering { since: Duration, until: Duration, passed: u64, refused: u64 },
}

impl Machine {
    /// A closed one.
    pub(in crate::filters::api_breaker) fn new(condition: &Condition) -> Machine {
        Machine { state: State::Closed, window: Window::new(condition), next_check: Duration::ZERO }
    }

    /// Whether everything passes, so that nobody need ask.
    pub(in crate::filters::api_breaker) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether a request that comes now passes.
    pub(in crate::filters::api_breaker) fn admit(&mut self, spans: Spans, now: Duration) -> bool {
        match &mut self.state {
            State::Closed => return true,
            State::Open { until } if now < *until => return false,
            State::Open { .. } => {
                self.state = State::Recovering { since: now, until: now + spans.recovery, passed: 0, refused: 0 }
            }
            State::Recovering { until, .. } if now >= *until => {
                self.state = State::Closed;
                return true;
            }
            State::Recovering { .. } => {}
        }
        self.ration(spans, now)
    }

    /// Lets a share pass that grows from nothing to one half.
    fn ration(&mut self, spans: Spans, now: Duration) -> bool {
        let State::Recovering { since, passed, refused, .. } = &mut self.state else { return true };
        let target = 0.5 * now.saturating_sub(*since).as_secs_f64() / spans.recovery.as_secs_f64();
        let share = (*passed + 1) as f64 / (*passed + *refused + 1) as f64;
        let passes = share <= target;
        *(if passes { passed } else { refused }) += 1;
        passes
    }

    /// Takes into account what came of a request that has passed.
    pub(in crate::filters::api_breaker) fn record(&mut self, condition: &Condition, spans: Spans, now: Duration, seen: Seen) {
        self.window.record(now.as_secs(), &condition.ranges, seen);
        if now < self.next_check {
            return;
        }
        self.next_check = now + spans.check;
        if !matches!(self.state, State::Open { .. }) && condition.holds(&|of| self.window.measure(of)) {
            self.state = State::Open { until: now + spans.fallback };
            self.window.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const SPANS: Spans =
        Spans { check: Duration::from_millis(100), fallback: Duration::from_secs(10), recovery: Duration::from_secs(10) };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn seen(status: u16) -> Seen {
        Seen { status, took: Duration::ZERO }
    }

    #[test]
    fn it_opens_recovers_and_closes() {
        let condition = Condition::parse("NetworkErrorRatio() > 0.5").unwrap();
        let mut machine = Machine::new(&condition);
        machine.record(&condition, SPANS, ms(0), seen(200));
        for at in [10, 20] {
            machine.record(&condition, SPANS, ms(at), seen(502));
        }
        assert!(machine.is_closed(), "nobody looks before the next check");
        machine.record(&condition, SPANS, ms(100), seen(502));
        assert!(!machine.is_closed() && !machine.admit(SPANS, ms(10_099)));
        assert!(!machine.admit(SPANS, ms(10_100)), "it starts with nothing");
        let passed = (0..1000).filter(|at| machine.admit(SPANS, ms(10_100 + at * 10))).count();
        assert!((450..=500).contains(&passed), "half of it at the end, not {passed}");
        assert!(machine.admit(SPANS, ms(20_100)) && machine.is_closed());
    }

    #[test]
    fn a_failure_while_it_recovers_opens_it_again() {
        let condition = Condition::parse("ResponseCodeRatio(500, 600, 0, 600) >= 1").unwrap();
        let mut machine = Machine::new(&condition);
        machine.record(&condition, SPANS, ms(0), seen(500));
        assert!(!machine.admit(SPANS, ms(10_000)));
        machine.record(&condition, SPANS, ms(15_000), seen(200));
        assert_eq!(machine.state, State::Recovering { since: ms(10_000), until: ms(20_000), passed: 0, refused: 1 });
        machine.record(&condition, SPANS, ms(26_000), seen(500));
        assert_eq!(machine.state, State::Open { until: ms(36_000) });
    }

    proptest! {
        #[test]
        fn it_is_never_open_longer_than_told(steps in prop::collection::vec((0u64..3000, any::<bool>()), 1..80)) {
            let condition = Condition::parse("NetworkErrorRatio() > 0.3").unwrap();
            let (mut machine, mut now, mut opened) = (Machine::new(&condition), Duration::ZERO, None);
            for (step, fails) in steps {
                now += ms(step);
                let passes = machine.admit(SPANS, now);
                match machine.state {
                    State::Closed => prop_assert!(passes),
                    State::Open { until } => prop_assert!(!passes && now < until && until <= opened.unwrap_or(now) + SPANS.fallback),
                    State::Recovering { since, until, passed, refused } => {
                        prop_assert!(now < until && until == since + SPANS.recovery);
                        prop_assert!(passed <= refused);
                    }
                }
                if passes {
                    machine.record(&condition, SPANS, now, seen(if fails { 502 } else { 200 }));
                    if let State::Open { .. } = machine.state {
                        opened = Some(now);
                    }
                }
            }
        }
    }
}
