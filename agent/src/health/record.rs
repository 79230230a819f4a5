//! The health of one endpoint: counters in a row, and the steps between up, down and trial.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Judge;
use crate::balance::{Standing, State};

/// First wait of an endpoint that traffic ejected; nginx's `fail_timeout`.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// Longest such wait; also how long an endpoint must stay up until its ejections are forgotten.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What a request or a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It answered with this status.
    Status(u16),
    /// A connection stood (TCP probes).
    Connected,
    /// It could not be connected to, cut the connection or answered with nonsense.
    Broken,
    /// It did not answer in time.
    TimedOut,
}

/// Why a state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Real traffic.
    Traffic,
    /// A probe.
    Probe,
    /// The wait after an ejection is over.
    Waited,
    /// Checks were switched off.
    Unchecked,
}

/// A change of state, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// What was found last.
    pub finding: Option<Finding>,
}

/// The rules of one upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// For real traffic.
    pub traffic: Option<Judge>,
    /// For probes.
    pub probes: Option<Judge>,
}

/// Counts in a row.
#[derive(Debug, Default)]
struct Streak {
    bad_statuses: AtomicU32,
    broken: AtomicU32,
    timeouts: AtomicU32,
    successes: AtomicU32,
}

/// The health of one endpoint. Shared by all workers; a success of a healthy endpoint writes nothing.
#[derive(Debug)]
pub struct EndpointHealth {
    standing: Arc<Standing>,
    traffic: Streak,
    probes: Streak,
    ejections: AtomicU64,
    steps: Mutex<Steps>,
}

#[derive(Debug, Default)]
struct Steps {
    /// Ejections without a long time up between them.
    in_row: u32,
    back_at: Option<Instant>,
    up_since: Option<Instant>,
}

enum Verdict {
    Nothing,
    Good,
    Bad,
}

impl EndpointHealth {
    /// Healthy, as every unknown endpoint.
    pub fn new(standing: Arc<Standing>) -> EndpointHealth {
        EndpointHealth {
            standing,
            traffic: Streak::default(),
            probes: Streak::default(),
            ejections: AtomicU64::new(0),
            steps: Mutex::default(),
        }
    }

    /// What balancing reads.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Whether it may be chosen, now or as a trial.
    pub fn state(&self) -> State {
        self.standing.state()
    }

    /// How often it went down.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// When an endpoint that traffic ejected may be tried again, where no probe decides that.
    pub fn back_at(&self) -> Option<Instant> {
        if self.state() == State::Down { self.steps.lock().back_at } else { None }
    }

    /// Takes what a request has found. A trial's permit is used up or returned.
    pub fn traffic(&self, rules: &Rules, finding: Finding, now: Instant) -> Option<Change> {
        let Some(judge) = &rules.traffic else {
            return None;
        };
        let state = self.state();
        if state == State::Up && self.traffic.is_clear() && !judge.is_bad(finding) {
            return None;
        }
        match (self.traffic.note(judge, finding), state) {
            (Verdict::Bad, State::Up) => self.step(State::Down, Cause::Traffic, Some(finding), rules, now),
            (Verdict::Good, State::Down) if judge.successes > 0 => {
                self.step(State::Up, Cause::Traffic, Some(finding), rules, now)
            }
            (Verdict::Good, State::Trial) => self.step(State::Up, Cause::Traffic, Some(finding), rules, now),
            (_, State::Trial) if judge.is_bad(finding) => self.step(State::Down, Cause::Traffic, Some(finding), rules, now),
            (_, State::Trial) => {
                self.standing.give_back();
                None
            }
            _ => None,
        }
    }

    /// Takes what a probe has found.
    pub fn probed(&self, rules: &Rules, finding: Finding, now: Instant) -> Option<Change> {
        let judge = rules.probes.as_ref()?;
        match (self.probes.note(judge, finding), self.state()) {
            (Verdict::Bad, State::Up | State::Trial) => self.step(State::Down, Cause::Probe, Some(finding), rules, now),
            (Verdict::Good, State::Down | State::Trial) => self.step(State::Up, Cause::Probe, Some(finding), rules, now),
            _ => None,
        }
    }

    /// Lets time do its part: the end of a wait, or of checking altogether.
    pub fn tick(&self, rules: &Rules, now: Instant) -> Option<Change> {
        if self.state() == State::Up {
            return None;
        }
        if rules.traffic.is_none() && rules.probes.is_none() {
            return self.step(State::Up, Cause::Unchecked, None, rules, now);
        }
        if rules.probes.is_some() || self.state() != State::Down {
            return None;
        }
        let back_at = self.steps.lock().back_at;
        // without an appointment it was ejected by probes that have since been switched off
        if back_at.is_some_and(|at| now < at) { None } else { self.step(State::Trial, Cause::Waited, None, rules, now) }
    }

    fn step(&self, to: State, cause: Cause, finding: Option<Finding>, rules: &Rules, now: Instant) -> Option<Change> {
        let mut steps = self.steps.lock();
        let from = self.state();
        if from == to {
            return None;
        }
        match to {
            State::Down => {
                if steps.up_since.is_some_and(|since| now.saturating_duration_since(since) >= LONGEST_WAIT) {
                    steps.in_row = 0;
                }
                let wait = FIRST_WAIT.saturating_mul(1 << steps.in_row.min(16)).min(LONGEST_WAIT);
                steps.in_row = steps.in_row.saturating_add(1);
                steps.back_at = rules.probes.is_none().then(|| now + wait);
                self.ejections.fetch_add(1, Ordering::Relaxed);
            }
            State::Up => {
                steps.back_at = None;
                steps.up_since = Some(now);
            }
            State::Trial => {}
        }
        self.traffic.clear();
        self.probes.clear();
        self.standing.set(to, now);
        Some(Change { from, to, cause, finding })
    }
}

impl Judge {
    fn is_bad(&self, finding: Finding) -> bool {
        match finding {
            Finding::Status(status) => self.unhealthy.has(status),
            Finding::Connected => false,
            Finding::Broken | Finding::TimedOut => true,
        }
    }
}

impl Streak {
    fn is_clear(&self) -> bool {
        [&self.bad_statuses, &self.broken, &self.timeouts].iter().all(|count| count.load(Ordering::Relaxed) == 0)
    }

    fn clear(&self) {
        for count in [&self.bad_statuses, &self.broken, &self.timeouts, &self.successes] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a finding and says whether a threshold is reached. Statuses in neither set say nothing.
    fn note(&self, judge: &Judge, finding: Finding) -> Verdict {
        let good = match finding {
            Finding::Status(status) => judge.healthy.has(status) && !judge.unhealthy.has(status),
            Finding::Connected => true,
            Finding::Broken | Finding::TimedOut => false,
        };
        if good {
            for count in [&self.bad_statuses, &self.broken, &self.timeouts] {
                count.store(0, Ordering::Relaxed);
            }
            let successes = self.successes.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            return if successes >= judge.successes.max(1) { Verdict::Good } else { Verdict::Nothing };
        }
        let (count, limit) = match finding {
            Finding::Status(status) if judge.unhealthy.has(status) => (&self.bad_statuses, judge.http_failures),
            Finding::Broken => (&self.broken, judge.tcp_failures),
            Finding::TimedOut => (&self.timeouts, judge.timeouts),
            Finding::Status(_) | Finding::Connected => return Verdict::Nothing,
        };
        self.successes.store(0, Ordering::Relaxed);
        let failures = count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if limit > 0 && failures >= limit { Verdict::Bad } else { Verdict::Nothing }
    }
}
