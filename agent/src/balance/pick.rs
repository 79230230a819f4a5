//! The pick itself, and what one worker keeps between picks.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::rc::Rc;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::plan::Plan;
use super::{Admission, Load, Node, Policy, State, View};

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Index of the node in the view.
    pub index: usize,
    /// Whether it is the one trial of a half-open endpoint; its permit is returned by a report or by `Standing::give_back`.
    pub trial: bool,
}

/// What one worker keeps for one cluster between picks.
#[derive(Debug, Default)]
pub struct Worker {
    stamp: u64,
    epoch: u64,
    plan: Plan,
    /// What is kept for each part of the view.
    turns: Vec<Turn>,
    loads: Vec<Rc<Load>>,
    ids: Vec<u64>,
    /// Steps on with each request that is split between zones.
    drawn: u32,
}

#[derive(Debug, Default)]
struct Turn {
    /// Smooth round robin: current weights, parallel to the members of the part.
    current: Vec<i64>,
    /// Every member counts, whatever its health.
    ignore_health: bool,
}

/// Members that may not be chosen in this pick, beyond those tried before.
type Refused = SmallVec<[u32; 4]>;

/// 2^32 over the golden ratio: its multiples fall evenly over the circle, however many there are (Knuth, The Art of Computer Programming, 6.4).
const GOLDEN: u32 = 0x9E37_79B9;

/// Seconds that an answer is taken to need at least, so that requests in flight count where answers need none.
const FLOOR: f64 = 1e-6;
/// Seconds that one is taken to need from an endpoint that has answered nothing: more than anybody waits.
const UNKNOWN: f64 = 1e6;

/// One look at one part.
struct Look<'a> {
    view: &'a View,
    members: &'a [u32],
    loads: &'a [Rc<Load>],
    tried: &'a [u64],
    refused: &'a Refused,
    ignore_health: bool,
    shares: &'a [u32],
    now: Instant,
}

/// What one request asks for.
struct Ask<'a> {
    key: Option<u64>,
    tried: &'a [u64],
    now: Instant,
}

impl Worker {
    /// Load on the node at `index` of the view of the last pick.
    pub fn load(&self, index: usize) -> Option<&Rc<Load>> {
        self.loads.get(index)
    }

    /// Chooses a node that is not in `tried`; `None` when all that may be used were tried.
    pub fn pick(&mut self, view: &View, key: Option<u64>, tried: &[u64], dice: &mut fastrand::Rng, now: Instant) -> Option<Pick> {
        self.follow(view, now);
        let ask = Ask { key, tried, now };
        let (mut next, mut split_at) = (0, self.plan.split_at);
        loop {
            let part = if next == split_at {
                split_at = usize::MAX;
                self.draw(view.policy, key)
            } else {
                next += 1;
                *self.plan.order.get(next - 1)?
            };
            if let Some(pick) = self.pick_in(part, view, &ask, dice) {
                return Some(pick);
            }
        }
    }

    /// Chooses the node at `index` where it may be: it stands, or health is ignored, its zone is allowed, and it is not in `tried`. Its weight does not
    /// matter, so that one with weight 0 takes nobody new but keeps those that it has.
    pub fn prefer(&mut self, view: &View, index: usize, tried: &[u64], now: Instant) -> Option<Pick> {
        self.follow(view, now);
        let allowed = |node: &&Node| !tried.contains(&node.id) && view.zones.allows(&node.zone);
        let node = view.nodes.get(index).filter(allowed)?;
        let home = view.home.get(index).and_then(|&at| self.turns.get(at as usize));
        let ignore_health = home.is_some_and(|turn| turn.ignore_health);
        match if ignore_health { Admission::Free } else { node.standing.admit() } {
            Admission::Refused => None,
            admission => Some(Pick { index, trial: admission == Admission::Trial }),
        }
    }

    fn pick_in(&mut self, at: u32, view: &View, ask: &Ask<'_>, dice: &mut fastrand::Rng) -> Option<Pick> {
        let turn = self.turns.get_mut(at as usize)?;
        let ignore_health = turn.ignore_health;
        let part = view.parts.get(at as usize)?;
        let mut refused = Refused::new();
        loop {
            let look = Look {
                view,
                members: &part.members,
                loads: &self.loads,
                tried: ask.tried,
                refused: &refused,
                ignore_health,
                shares: &self.plan.shares,
                now: ask.now,
            };
            let index = match (view.policy, ask.key) {
                (Policy::ConsistentHash(_), Some(key)) => part.spread.find(key, |&index| look.allows(index)),
                (Policy::RoundRobin | Policy::ConsistentHash(_), _) => look.round_robin(&mut turn.current),
                (Policy::LeastConn, _) => look.least_conn(dice),
                (Policy::Ewma, _) => look.ewma(dice),
            }?;
            let standing = &view.nodes[index as usize].standing;
            match if ignore_health { Admission::Free } else { standing.admit() } {
                Admission::Refused => refused.push(index),
                admission => return Some(Pick { index: index as usize, trial: admission == Admission::Trial }),
            }
        }
    }

    /// The part whose turn it is by the shares of the zones. A key keeps its zone as long as the share of that zone does not shrink past it.
    #[cold]
    fn draw(&mut self, policy: Policy, key: Option<u64>) -> u32 {
        let place = match key {
            Some(key) if matches!(policy, Policy::ConsistentHash(_)) => {
                (key.wrapping_mul(u64::from(GOLDEN) << 32 | 0x7F4A_7C15) >> 32) as u32
            }
            _ => {
                self.drawn = self.drawn.wrapping_add(GOLDEN);
                self.drawn
            }
        };
        let split = &self.plan.split;
        split.iter().find(|(end, _)| u64::from(place) < *end).map_or(u32::MAX, |(_, part)| *part)
    }

    /// Takes over a new view or a change of health; nothing to do in the usual case.
    fn follow(&mut self, view: &View, now: Instant) {
        let epoch = view.epoch.get();
        if self.stamp != view.stamp || self.epoch != epoch || self.plan.due.is_some_and(|due| due <= now) {
            self.take(view, epoch, now);
        }
    }

    #[cold]
    fn take(&mut self, view: &View, epoch: u64, now: Instant) {
        if self.stamp != view.stamp {
            let mut old: HashMap<u64, Rc<Load>> = self.ids.drain(..).zip(self.loads.drain(..)).collect();
            for node in &view.nodes {
                self.loads.push(old.remove(&node.id).unwrap_or_default());
                self.ids.push(node.id);
            }
            self.turns =
                view.parts.iter().map(|part| Turn { current: vec![0; part.members.len()], ignore_health: false }).collect();
        }
        (self.stamp, self.epoch) = (view.stamp, epoch);
        self.plan = view.plan(now);
        for (turn, ignore_health) in self.turns.iter_mut().zip(&self.plan.ignore_health) {
            turn.ignore_health = *ignore_health;
        }
    }
}

impl Look<'_> {
    fn allows(&self, index: u32) -> bool {
        let node = &self.view.nodes[index as usize];
        (self.ignore_health || node.standing.state() != State::Down)
            && !self.refused.contains(&index)
            && !self.tried.contains(&node.id)
    }

    /// Weight in 1/256, less while it ramps or while others load it, never zero.
    fn weight(&self, index: u32) -> i64 {
        let node = &self.view.nodes[index as usize];
        let share = self.shares.get(index as usize).copied().unwrap_or(256);
        (i64::from(node.weight) * i64::from(share)).max(1)
    }

    /// nginx's smooth weighted round robin: everybody gains its weight, the richest is chosen and pays the sum.
    fn round_robin(&self, current: &mut [i64]) -> Option<u32> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (slot, &index) in self.members.iter().enumerate() {
            if !self.allows(index) {
                continue;
            }
            let weight = self.weight(index);
            total += weight;
            let have = &mut current[slot];
            *have += weight;
            if best.is_none_or(|(_, most)| *have > most) {
                best = Some((slot, *have));
            }
        }
        let (slot, _) = best?;
        current[slot] -= total;
        Some(self.members[slot])
    }

    /// Lowest (1 + active) / weight; dice decide between equals, else idle clusters would load the first node only.
    fn least_conn(&self, dice: &mut fastrand::Rng) -> Option<u32> {
        let mut best: Option<(u32, u128, u128)> = None;
        let mut equals = 1;
        for &index in self.members.iter().filter(|&&index| self.allows(index)) {
            let (cost, weight) = (1 + u128::from(self.loads[index as usize].active()), self.weight(index) as u128);
            let order = best.map_or(Ordering::Less, |(_, least, of)| (cost * of).cmp(&(least * weight)));
            equals = match order {
                Ordering::Less => 1,
                Ordering::Equal => equals + 1,
                Ordering::Greater => continue,
            };
            if dice.u32(..equals) == 0 {
                best = Some((index, cost, weight));
            }
        }
        best.map(|(index, ..)| index)
    }

    /// Power of two choices (Mitzenmacher 2001) by decayed response time times load over weight.
    fn ewma(&self, dice: &mut fastrand::Rng) -> Option<u32> {
        let draw = |dice: &mut fastrand::Rng, not: Option<u32>| {
            let start = dice.usize(..self.members.len());
            let ring = self.members[start..].iter().chain(&self.members[..start]);
            ring.copied().find(|&index| Some(index) != not && self.allows(index))
        };
        let one = draw(dice, None)?;
        let Some(other) = draw(dice, Some(one)) else { return Some(one) };
        Some(if self.cost(other) < self.cost(one) { other } else { one })
    }

    /// An endpoint that has not answered yet costs nothing, so it is tried soon; as long as that try lasts it costs more than any that has, so that nobody is run over who
    /// is new and cold (Finagle's penalty). One that is waited for in vain is given another one now and then.
    fn cost(&self, index: u32) -> f64 {
        let load = &self.loads[index as usize];
        let took = match load.ewma(self.now) {
            Some(seconds) => seconds + FLOOR,
            None if load.active() > 0 && load.is_spared(self.now) => UNKNOWN,
            None => FLOOR,
        };
        took * f64::from(1 + load.active()) / self.weight(index) as f64
    }
}
