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
    /// All contents that resources ever had, and where each stands by type, name and version.
    contents: Vec<Content>,
    known: HashMap<Vec<u8>, usize>,
    /// Resources by type and name.
    resources: HashMap<Vec<u8>, usize>,
    agents: Vec<Agent>,
    /// Why streams ended.
    pub faults: Vec<String>,
}

/// What stands in a resource. An Envoy has all routes in one, and so the writes of many.
#[derive(Debug)]
struct Content {
    resource: usize,
    writes: Vec<usize>,
}

#[derive(Debug, Default)]
struct Agent {
    /// The content that it has of each resource, plus one; zero for none.
    held: Vec<u32>,
    count: usize,
    /// The number of the newest write of each target that it acknowledged, plus one.
    seen: Vec<usize>,
}

impl Agent {
    /// It has this content of a resource now, none where that is zero.
    fn hold(&mut self, resource: usize, content: u32) {
        if self.held.len() <= resource {
            self.held.resize(resource + 1, 0);
        }
        let before = std::mem::replace(&mut self.held[resource], content);
        self.count = self.count + usize::from(content > 0) - usize::from(before > 0);
    }
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

    /// The agents that have at least so many resources.
    pub fn loaded(&self, resources: usize) -> usize {
        self.agents.iter().filter(|agent| agent.count >= resources).count()
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
        self.traffic.resources += 1;
        let number = self.content(resource);
        let everybody = self.agents.len();
        let Ledger { writes, targets, contents, agents, .. } = self;
        let (content, held) = (&contents[number], &mut agents[agent]);
        held.hold(content.resource, u32::try_from(number + 1).expect("fewer contents than writes and resources"));
        for number in &content.writes {
            let target = writes[*number].target;
            if held.seen.len() <= target {
                held.seen.resize(target + 1, 0);
            }
            let before = held.seen[target];
            if before > *number {
                continue;
            }
            held.seen[target] = number + 1;
            // A newer content of the same target stands for those before it that were never sent.
            for passed in targets[target].iter().copied().filter(|passed| (before..=*number).contains(passed)) {
                writes[passed].acknowledge(agent, everybody, now);
            }
        }
    }

    /// An agent is told that a resource is gone.
    pub fn lost(&mut self, agent: usize, type_url: &[u8], name: &[u8]) {
        self.traffic.removals += 1;
        if let Some(resource) = self.resources.get(&[type_url, name].join(&0)) {
            self.agents[agent].hold(*resource, 0);
        }
    }

    /// Which content this is. Nobody looks twice into the same one.
    fn content(&mut self, resource: &Resource<'_>) -> usize {
        let key = [resource.type_url, resource.name, resource.version].join(&0);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let named = self.resources.len();
        let named = *self.resources.entry([resource.type_url, resource.name].join(&0)).or_insert(named);
        self.contents.push(Content { resource: named, writes: marks(resource.body) });
        self.known.insert(key, self.contents.len() - 1);
        self.contents.len() - 1
    }

    /// All writes.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Writes from `from` on that somebody still lacks.
    pub fn outstanding(&self, from: usize) -> usize {
        self.writes[from..].iter().filter(|write| write.accepted.is_none() || write.last.is_none()).count()
    }

    /// Agents that lack the newest content of a target that concerns them, over all targets, by what each of them has now.
    pub fn stale(&self) -> usize {
        let newest: Vec<usize> = self.targets.iter().filter_map(|writes| writes.last().copied()).collect();
        let lacks = |(number, agent): (usize, &Agent)| {
            let mut has = vec![false; self.writes.len()];
            let contents = agent.held.iter().filter(|held| **held > 0).map(|held| &self.contents[*held as usize - 1]);
            contents.flat_map(|content| &content.writes).for_each(|write| has[*write] = true);
            newest.iter().filter(|write| self.writes[**write].concerns(number) && !has[**write]).count()
        };
        self.agents.iter().enumerate().map(lacks).sum()
    }
}

impl Write {
    fn concerns(&self, agent: usize) -> bool {
        self.reach == Reach::All || self.reach == Reach::One(agent)
    }

    fn acknowledge(&mut self, agent: usize, everybody: usize, now: Instant) {
        if !self.concerns(agent) {
            return;
        }
        let concerned = if self.reach == Reach::All { everybody } else { 1 };
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

/// The numbers of all writes that stand in a resource.
fn marks(body: &[u8]) -> Vec<usize> {
    let (mut found, mut rest) = (Vec::new(), body);
    while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK.as_bytes()) {
        rest = &rest[at + MARK.len()..];
        let digits = rest.get(..DIGITS).and_then(|digits| std::str::from_utf8(digits).ok());
        found.extend(digits.and_then(|digits| digits.parse::<usize>().ok()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource<'a>(name: &'a [u8], version: &'a str, body: &'a str) -> Resource<'a> {
        Resource { type_url: b"type", name, version: version.as_bytes(), body: body.as_bytes() }
    }

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
            ledger.got(agent, &resource(b"r", text, text), at(ms));
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
        ledger.got(agents[1], &resource(b"l", "v", &text), Instant::now());
        assert_eq!((ledger.outstanding(0), ledger.stale()), (0, 0));
    }

    #[test]
    fn one_resource_may_hold_what_many_writes_made() {
        let mut ledger = Ledger::default();
        let agent = ledger.enter();
        let now = Instant::now();
        let writes = [0, 1].map(|target| ledger.begin(target, Reach::All));
        writes.iter().for_each(|(number, _)| ledger.accepted(*number, now));
        let [first, second] = writes.map(|(_, text)| text);
        ledger.got(agent, &resource(b"table", "1", &format!("a {first} b seed c")), now);
        assert_eq!((ledger.outstanding(0), ledger.stale()), (1, 1));
        ledger.got(agent, &resource(b"table", "2", &format!("a {first} b {second} c")), now);
        assert_eq!((ledger.outstanding(0), ledger.stale()), (0, 0));
    }

    #[test]
    fn who_goes_back_to_an_older_content_or_loses_it_lacks_the_newest() {
        let mut ledger = Ledger::default();
        let agent = ledger.enter();
        let now = Instant::now();
        ledger.got(agent, &resource(b"table", "1", "seed"), now);
        let (number, text) = ledger.begin(0, Reach::All);
        ledger.accepted(number, now);
        ledger.got(agent, &resource(b"table", "2", &text), now);
        assert_eq!((ledger.stale(), ledger.loaded(1)), (0, 1));
        ledger.got(agent, &resource(b"table", "1", "seed"), now);
        assert_eq!((ledger.outstanding(0), ledger.stale()), (0, 1), "it was acknowledged once, and is lacking now");
        ledger.got(agent, &resource(b"table", "2", &text), now);
        ledger.lost(agent, b"type", b"table");
        assert_eq!((ledger.stale(), ledger.loaded(1)), (1, 0));
    }
}
