//! Who has what: every write, and when the first and the last agent acknowledged it. It knows neither sockets nor the Admin API.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::wire::Resource;

/// What stands in a resource to say which write made it: this and eight digits.
pub const MARK: &str = "write-";
const DIGITS: usize = 8;

/// Whom a write concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Every agent.
    All,
    /// The agent with this number.
    One(usize),
}

/// One write and its way.
#[derive(Debug, Clone)]
pub struct Write {
    /// What was written, one number for each resource.
    pub target: usize,
    pub reach: Reach,
    /// When the Admin API answered.
    pub accepted: Option<Instant>,
    pub first: Option<Instant>,
    pub last: Option<Instant>,
    acks: usize,
}

/// What all agents were told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    pub responses: u64,
    pub resources: u64,
    pub removals: u64,
    pub bytes: u64,
}

/// Every write, every agent.
#[derive(Debug, Default)]
pub struct Ledger {
    pub traffic: Traffic,
    writes: Vec<Write>,
    /// The writes of each target, in their order.
    targets: Vec<Vec<usize>>,
    /// Which write made a version; `None` when none of ours did.
    versions: HashMap<Vec<u8>, Option<usize>>,
    agents: Vec<Agent>,
    /// Why streams ended.
    pub faults: Vec<String>,
}

#[derive(Debug, Default)]
struct Agent {
    resources: usize,
    /// The number of the newest write of each target that it acknowledged, plus one.
    seen: Vec<usize>,
}

impl Ledger {
    /// A new agent.
    pub fn enter(&mut self) -> usize {
        self.agents.push(Agent::default());
        self.agents.len() - 1
    }

    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// The agents that have got at least so many resources.
    pub fn loaded(&self, resources: usize) -> usize {
        self.agents.iter().filter(|agent| agent.resources >= resources).count()
    }

    /// Notes that a write is about to be sent; what is returned is to stand in the resource.
    pub fn begin(&mut self, target: usize, reach: Reach) -> (usize, String) {
        let number = self.writes.len();
        self.writes.push(Write { target, reach, accepted: None, first: None, last: None, acks: 0 });
        if self.targets.len() <= target {
            self.targets.resize(target + 1, Vec::new());
        }
        self.targets[target].push(number);
        (number, format!("{MARK}{number:0DIGITS$}"))
    }

    /// The Admin API took it.
    pub fn accepted(&mut self, number: usize, now: Instant) {
        self.writes[number].accepted = Some(now);
    }

    /// An agent acknowledges a resource.
    pub fn got(&mut self, agent: usize, resource: &Resource<'_>, now: Instant) {
        self.agents[agent].resources += 1;
        self.traffic.resources += 1;
        if self.writes.is_empty() {
            return;
        }
        let made = match self.versions.get(resource.version) {
            Some(made) => *made,
            None => {
                let made = mark(resource.body);
                self.versions.insert(resource.version.to_vec(), made);
                made
            }
        };
        let Some(number) = made else { return };
        let target = self.writes[number].target;
        let everybody = self.agents.len();
        let seen = &mut self.agents[agent].seen;
        if seen.len() <= target {
            seen.resize(target + 1, 0);
        }
        let before = std::mem::replace(&mut seen[target], number + 1);
        // A newer content of the same resource stands for those before it that were never sent.
        for passed in self.targets[target].iter().copied().filter(|passed| (before..=number).contains(passed)) {
            self.writes[passed].acknowledge(agent, everybody, now);
        }
    }

    /// All writes.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Writes from `from` on that somebody still lacks.
    pub fn outstanding(&self, from: usize) -> usize {
        self.writes[from..].iter().filter(|write| write.accepted.is_none() || write.last.is_none()).count()
    }

    /// Agents that lack the newest content of a target that concerns them, over all targets.
    pub fn stale(&self) -> usize {
        let newest = self.targets.iter().enumerate().filter_map(|(target, writes)| Some((target, *writes.last()?)));
        newest
            .map(|(target, number)| {
                let lacks = |agent: &usize| self.agents[*agent].seen.get(target).copied().unwrap_or(0) != number + 1;
                match self.writes[number].reach {
                    Reach::All => (0..self.agents.len()).filter(lacks).count(),
                    Reach::One(agent) => usize::from(lacks(&agent)),
                }
            })
            .sum()
    }
}

impl Write {
    fn acknowledge(&mut self, agent: usize, everybody: usize, now: Instant) {
        let concerned = match self.reach {
            Reach::All => everybody,
            Reach::One(one) if one == agent => 1,
            Reach::One(_) => return,
        };
        self.acks += 1;
        self.first = self.first.or(Some(now));
        if self.acks == concerned {
            self.last = Some(now);
        }
    }

    /// From the Admin API's answer to the first and to the last ACK; an ACK before the answer counts as none.
    pub fn delays(&self) -> Option<(Duration, Duration)> {
        let accepted = self.accepted?;
        Some((self.first?.saturating_duration_since(accepted), self.last?.saturating_duration_since(accepted)))
    }
}

/// The number of the write that stands in a resource.
fn mark(body: &[u8]) -> Option<usize> {
    let at = body.windows(MARK.len()).position(|window| window == MARK.as_bytes())? + MARK.len();
    std::str::from_utf8(body.get(at..at + DIGITS)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_done_when_the_last_agent_has_it_or_something_newer() {
        let mut ledger = Ledger::default();
        let agents = [ledger.enter(), ledger.enter()];
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (old, old_text) = ledger.begin(3, Reach::All);
        let (new, new_text) = ledger.begin(3, Reach::All);
        [old, new].into_iter().for_each(|number| ledger.accepted(number, start));
        let send = |ledger: &mut Ledger, agent, text: &str, ms| {
            let resource = Resource { name: b"r", version: text.as_bytes(), body: text.as_bytes() };
            ledger.got(agent, &resource, at(ms));
        };
        send(&mut ledger, agents[0], &old_text, 1);
        assert_eq!((ledger.outstanding(0), ledger.stale()), (2, 2));
        send(&mut ledger, agents[1], &new_text, 2);
        assert_eq!((ledger.outstanding(0), ledger.stale()), (1, 1), "the second has skipped the first write");
        send(&mut ledger, agents[0], &new_text, 5);
        assert_eq!((ledger.outstanding(0), ledger.stale()), (0, 0));
        let ms = |number: usize| ledger.writes()[number].delays().map(|(first, last)| (first.as_millis(), last.as_millis()));
        assert_eq!((ms(old), ms(new)), (Some((1, 2)), Some((2, 5))));
    }

    #[test]
    fn a_write_for_one_agent_is_done_with_it() {
        let mut ledger = Ledger::default();
        let agents = [ledger.enter(), ledger.enter()];
        let (number, text) = ledger.begin(0, Reach::One(agents[1]));
        ledger.accepted(number, Instant::now());
        assert_eq!(ledger.stale(), 1);
        ledger.got(agents[1], &Resource { name: b"l", version: b"v", body: text.as_bytes() }, Instant::now());
        assert_eq!((ledger.outstanding(0), ledger.stale()), (0, 0));
    }
}
