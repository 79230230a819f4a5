//! The health of one endpoint: counters in a row, the steps between up, down and trial, and the one view that follows from all evidence.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use heddle_node::clock;
use heddle_node::membership::Seen;
use heddle_xds::model::EndpointStatus;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::time::Instant;

use super::Judge;
use super::evidence::{Cause, Doubt, Evidence, Finding, Own, Reason};
use crate::balance::{Standing, State};

/// First wait of an endpoint that traffic ejected; nginx's `fail_timeout`.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// Longest such wait; also how long an endpoint must stay up until its ejections are forgotten.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

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
    pub traffic: Option<Box<Judge>>,
    /// For probes.
    pub probes: Option<Box<Judge>>,
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
    /// What this node has found out itself, as in `Evidence::own`: what a request looks at.
    own: AtomicU8,
    /// Whether this node probes it.
    checked: AtomicBool,
    traffic: Streak,
    probes: Streak,
    ejections: AtomicU64,
    born: Instant,
    /// Nothing while nothing has happened to it: a node may have tens of thousands of endpoints, and most of them simply work.
    steps: Mutex<Option<Box<Steps>>>,
}

#[derive(Debug)]
struct Steps {
    evidence: Evidence,
    /// Since when its standing is what it is.
    since: Instant,
    /// Ejections by own evidence without a long time up between them.
    in_row: u32,
    back_at: Option<Instant>,
    up_since: Option<Instant>,
    /// What our probes last decided, and since when in Unix milliseconds; nothing while they have never found it down.
    seen: Option<(Seen, u64)>,
    /// When it last answered this node as it should, as far as anybody looked.
    good_at: Option<Instant>,
    /// Answers that were counted when somebody last looked.
    answered: Option<u64>,
    /// Ids of the nodes that check it.
    checkers: Arc<[Arc<str>]>,
}

impl Steps {
    /// Those of an endpoint to which nothing has happened.
    fn new(born: Instant) -> Steps {
        Steps {
            evidence: Evidence::new(born),
            since: born,
            in_row: 0,
            back_at: None,
            up_since: None,
            seen: None,
            good_at: None,
            answered: None,
            checkers: Arc::default(),
        }
    }
}

/// All there is to show of the health of one endpoint.
#[derive(Debug, Clone)]
pub struct Look {
    /// Whether it may be chosen.
    pub state: State,
    /// Whether it is about to leave.
    pub draining: bool,
    /// Since when its state is what it is.
    pub since: Instant,
    /// Why it is not simply up.
    pub reasons: Vec<Reason>,
    /// Ids of the nodes that check it; empty while nobody shares.
    pub checkers: Arc<[Arc<str>]>,
}

enum Verdict {
    Nothing,
    Good,
    Bad,
}

impl EndpointHealth {
    /// Healthy, as every unknown endpoint.
    pub fn new(standing: Arc<Standing>, now: Instant) -> EndpointHealth {
        EndpointHealth {
            standing,
            own: AtomicU8::new(State::Up as u8),
            checked: AtomicBool::new(true),
            traffic: Streak::default(),
            probes: Streak::default(),
            ejections: AtomicU64::new(0),
            born: now,
            steps: Mutex::new(None),
        }
    }

    /// What has happened to it, to be looked at.
    fn look_at<T>(&self, look: impl FnOnce(&Steps) -> T) -> T {
        match &*self.steps.lock() {
            Some(steps) => look(steps),
            None => look(&Steps::new(self.born)),
        }
    }

    /// What has happened to it, to be changed.
    fn steps(&self) -> MappedMutexGuard<'_, Steps> {
        let born = self.born;
        MutexGuard::map(self.steps.lock(), |steps| &mut **steps.get_or_insert_with(|| Box::new(Steps::new(born))))
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

    /// Whether this node probes it.
    pub fn is_checked(&self) -> bool {
        self.checked.load(Ordering::Relaxed)
    }

    /// All there is to show.
    pub fn look(&self) -> Look {
        self.look_at(|steps| Look {
            state: self.state(),
            draining: steps.evidence.is_draining(),
            since: steps.since,
            reasons: steps.evidence.reasons(),
            checkers: steps.checkers.clone(),
        })
    }

    /// What our probes have found, once they have found it down, and since when in Unix milliseconds.
    pub fn seen(&self) -> Option<(Seen, u64)> {
        self.look_at(|steps| steps.seen)
    }

    /// Ids of the nodes that check it; empty while nobody shares.
    pub fn checkers(&self) -> Arc<[Arc<str>]> {
        self.look_at(|steps| steps.checkers.clone())
    }

    /// Whether discovery says that it is about to leave.
    pub fn is_draining(&self) -> bool {
        self.look_at(|steps| steps.evidence.is_draining())
    }

    /// When an endpoint that traffic ejected may be tried again, where no probe decides that.
    pub fn back_at(&self) -> Option<Instant> {
        if self.own() == State::Down { self.look_at(|steps| steps.back_at) } else { None }
    }

    /// Takes what a request has found. A trial's permit is used up or returned.
    pub fn traffic(&self, rules: &Rules, finding: Finding, now: Instant) -> Option<Change> {
        let Some(judge) = &rules.traffic else {
            return None;
        };
        let own = self.own();
        if own == State::Up && self.traffic.is_clear() && !judge.is_bad(finding) {
            return None;
        }
        match (self.traffic.note(judge, finding), own) {
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
        let verdict = self.probes.note(judge, finding);
        self.keep_seen(judge.is_good(finding), &verdict, now);
        match (verdict, self.own()) {
            (Verdict::Bad, State::Up | State::Trial) => self.step(State::Down, Cause::Probe, Some(finding), rules, now),
            (Verdict::Good, State::Down | State::Trial) => self.step(State::Up, Cause::Probe, Some(finding), rules, now),
            _ => None,
        }
    }

    /// Takes what discovery says.
    pub fn told(&self, status: EndpointStatus, now: Instant) -> Option<Change> {
        if self.look_at(|steps| steps.evidence.told == status) {
            return None;
        }
        let mut steps = self.steps();
        let returns = steps.evidence.told == EndpointStatus::Draining;
        (steps.evidence.told, steps.evidence.told_since) = (status, now);
        if returns {
            self.begin_anew(&mut steps, now);
        }
        self.settle(&mut steps, Cause::Discovery, None, now)
    }

    /// Whoever comes back after it has drained is another process: what requests found of the one before it says nothing.
    fn begin_anew(&self, steps: &mut Steps, now: Instant) {
        self.traffic.clear();
        if steps.evidence.own.state == State::Up || steps.evidence.own.cause == Cause::Probe {
            return;
        }
        (steps.in_row, steps.back_at, steps.up_since) = (0, None, Some(now));
        steps.evidence.own = Own { state: State::Up, cause: Cause::Discovery, finding: None, since: now };
        self.own.store(State::Up as u8, Ordering::Release);
    }

    /// Takes that the member of the fleet which it is leaves, or no longer does. Whether that is new.
    pub fn leaving(&self, member: Option<&Arc<str>>, now: Instant) -> bool {
        let is_new = self.look_at(|steps| steps.evidence.leaving.as_ref().map(|(id, _)| id) != member);
        if is_new {
            let mut steps = self.steps();
            steps.evidence.leaving = member.map(|id| (id.clone(), now));
            if member.is_none() {
                self.begin_anew(&mut steps, now);
                self.settle(&mut steps, Cause::Discovery, None, now);
            }
        }
        is_new
    }

    /// Takes what other nodes say, as far as it counts. An endpoint that waits here is tried at once when they find it well again.
    pub fn doubted(&self, by: Option<Arc<[Arc<str>]>>, now: Instant) -> Option<Change> {
        if by.is_none() && self.look_at(|steps| steps.evidence.doubt.is_none()) {
            return None;
        }
        let mut steps = self.steps();
        let before = steps.evidence.doubt.take();
        if before.is_some() && by.is_none() {
            steps.back_at = steps.back_at.map(|_| now);
        }
        let since = before.map_or(now, |doubt| doubt.since);
        steps.evidence.doubt = by.map(|by| Doubt { by, since });
        self.settle(&mut steps, Cause::Fleet, None, now)
    }

    /// Says who probes it. An endpoint that was down by probes which end here waits, as one that traffic ejected.
    pub fn assign(&self, checkers: Arc<[Arc<str>]>, own: bool, now: Instant) {
        if self.is_checked() == own && self.look_at(|steps| steps.checkers == checkers) {
            return;
        }
        let mut steps = self.steps();
        steps.checkers = checkers;
        if self.checked.swap(own, Ordering::Relaxed) != own {
            (steps.back_at, steps.seen) = ((!own).then(|| now + FIRST_WAIT), None);
        }
    }

    /// Takes how many answers have been counted so far. Looking often is all it takes to know whether an endpoint works, without a request writing so.
    pub fn answered(&self, answers: u64, now: Instant) {
        let mut steps = self.steps();
        if steps.answered.is_some_and(|before| before != answers) {
            steps.good_at = Some(now);
        }
        steps.answered = Some(answers);
    }

    /// Whether it has answered this node as it should within this time.
    pub fn is_proven(&self, within: Duration, now: Instant) -> bool {
        self.look_at(|steps| steps.good_at).is_some_and(|at| now.saturating_duration_since(at) <= within)
    }

    /// Whether hints keep it down, and whether something else does.
    pub fn is_doubted_or_out(&self) -> (bool, bool) {
        self.look_at(|Steps { evidence, .. }| {
            let out = evidence.told == EndpointStatus::Unhealthy || evidence.own.state == State::Down;
            (evidence.doubt.is_some(), out)
        })
    }

    /// Lets time do its part: the end of a wait, or of checking altogether.
    pub fn tick(&self, rules: &Rules, now: Instant) -> Option<Change> {
        let own = self.own();
        if own == State::Up {
            return None;
        }
        let probed = rules.probes.is_some() && self.is_checked();
        if rules.traffic.is_none() && !probed {
            return self.step(State::Up, Cause::Unchecked, None, rules, now);
        }
        if probed {
            self.steps().back_at = None;
            return None;
        }
        if own != State::Down {
            return None;
        }
        let back_at = self.look_at(|steps| steps.back_at);
        // without an appointment it was ejected by probes that have since been switched off
        if back_at.is_some_and(|at| now < at) { None } else { self.step(State::Trial, Cause::Waited, None, rules, now) }
    }

    /// What this node has found out itself.
    fn own(&self) -> State {
        match self.own.load(Ordering::Acquire) {
            own if own == State::Up as u8 => State::Up,
            own if own == State::Down as u8 => State::Down,
            _ => State::Trial,
        }
    }

    fn keep_seen(&self, good: bool, verdict: &Verdict, now: Instant) {
        let mut steps = self.steps();
        if good {
            steps.good_at = Some(now);
        }
        steps.seen = match (verdict, steps.seen) {
            (Verdict::Bad, None | Some((Seen::Up, _))) => Some((Seen::Down, clock::unix_ms())),
            (Verdict::Good, Some((Seen::Down, _))) => Some((Seen::Up, clock::unix_ms())),
            (_, seen) => seen,
        };
    }

    /// A step of what this node has found out itself.
    fn step(&self, to: State, cause: Cause, finding: Option<Finding>, rules: &Rules, now: Instant) -> Option<Change> {
        let mut steps = self.steps();
        if steps.evidence.own.state == to {
            return None;
        }
        match to {
            State::Down => {
                if steps.up_since.is_some_and(|since| now.saturating_duration_since(since) >= LONGEST_WAIT) {
                    steps.in_row = 0;
                }
                let wait = FIRST_WAIT.saturating_mul(1 << steps.in_row.min(16)).min(LONGEST_WAIT);
                steps.in_row = steps.in_row.saturating_add(1);
                let probed = rules.probes.is_some() && self.is_checked();
                steps.back_at = (!probed).then(|| now + wait);
                // What it answered before says nothing any more.
                steps.good_at = None;
            }
            State::Up => {
                steps.back_at = None;
                steps.up_since = Some(now);
            }
            State::Trial => {}
        }
        self.traffic.clear();
        self.probes.clear();
        let finding_kept = finding.or(steps.evidence.own.finding);
        steps.evidence.own = Own { state: to, cause: own_cause(cause, &steps.evidence.own), finding: finding_kept, since: now };
        self.own.store(to as u8, Ordering::Release);
        let same = Change { from: self.state(), to: self.state(), cause, finding };
        // Even a change that others outweigh is told: there may be a wait to keep.
        Some(self.settle(&mut steps, cause, finding, now).unwrap_or(same))
    }

    /// Lets the standing follow the evidence.
    fn settle(&self, steps: &mut Steps, cause: Cause, finding: Option<Finding>, now: Instant) -> Option<Change> {
        let (from, to) = (self.state(), steps.evidence.verdict());
        if from == to {
            return None;
        }
        if to == State::Down {
            self.ejections.fetch_add(1, Ordering::Relaxed);
        }
        steps.since = now;
        self.standing.set(to, now);
        Some(Change { from, to, cause, finding })
    }
}

/// A trial keeps the reason for which the endpoint went down.
fn own_cause(cause: Cause, before: &Own) -> Cause {
    if cause == Cause::Waited { before.cause } else { cause }
}

impl Judge {
    fn is_good(&self, finding: Finding) -> bool {
        match finding {
            Finding::Status(status) => self.healthy.has(status) && !self.unhealthy.has(status),
            Finding::Connected => true,
            Finding::Broken | Finding::TimedOut => false,
        }
    }

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
        if judge.is_good(finding) {
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
