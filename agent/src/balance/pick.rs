//! The pick itself, and what one worker keeps between picks.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::rc::Rc;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{Admission, Load, Policy, State, View};

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
    groups: Vec<Group>,
    loads: Vec<Rc<Load>>,
    ids: Vec<u64>,
    /// While it lies ahead, weights are computed per pick.
    ramping_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Group {
    /// Smooth round robin: current weights, parallel to the members of the group.
    current: Vec<i64>,
    /// Every member counts, whatever its health.
    ignore_health: bool,
}

/// Members that may not be chosen in this pick, beyond those tried before.
type Refused = SmallVec<[u32; 4]>;

/// One look at one group.
struct Look<'a> {
    view: &'a View,
    members: &'a [u32],
    loads: &'a [Rc<Load>],
    tried: &'a [u64],
    refused: &'a Refused,
    ignore_health: bool,
    ramping: bool,
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
        for at in 0..view.groups.len() {
            if let Some(pick) = self.pick_in(at, view, key, tried, dice, now) {
                return Some(pick);
            }
        }
        None
    }

    /// Chooses the node at `index` where it may be: it stands, or health is ignored, and it is not in `tried`. Its weight does not matter, so that one
    /// with weight 0 takes nobody new but keeps those that it has.
    pub fn prefer(&mut self, view: &View, index: usize, tried: &[u64], now: Instant) -> Option<Pick> {
        self.follow(view, now);
        let node = view.nodes.get(index).filter(|node| !tried.contains(&node.id))?;
        let at = view.groups.iter().position(|group| group.members.contains(&(index as u32)));
        let ignore_health = at.and_then(|at| self.groups.get(at)).is_some_and(|group| group.ignore_health);
        match if ignore_health { Admission::Free } else { node.standing.admit() } {
            Admission::Refused => None,
            admission => Some(Pick { index, trial: admission == Admission::Trial }),
        }
    }

    fn pick_in(
        &mut self,
        at: usize,
        view: &View,
        key: Option<u64>,
        tried: &[u64],
        dice: &mut fastrand::Rng,
        now: Instant,
    ) -> Option<Pick> {
        let ramping = self.ramping_until.is_some_and(|end| now < end);
        let state = self.groups.get_mut(at)?;
        let group = view.groups.get(at)?;
        let mut refused = Refused::new();
        loop {
            let ignore_health = state.ignore_health;
            let look =
                Look { view, members: &group.members, loads: &self.loads, tried, refused: &refused, ignore_health, ramping, now };
            let index = match (view.policy, key) {
                (Policy::ConsistentHash, Some(key)) => group.ring.walk(key).find(|&index| look.allows(index)),
                (Policy::RoundRobin | Policy::ConsistentHash, _) => look.round_robin(&mut state.current),
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

    /// Takes over a new view or a change of health; nothing to do in the usual case.
    fn follow(&mut self, view: &View, now: Instant) {
        let epoch = view.epoch.get();
        if self.stamp == view.stamp && self.epoch == epoch {
            return;
        }
        if self.stamp != view.stamp {
            let mut old: HashMap<u64, Rc<Load>> = self.ids.drain(..).zip(self.loads.drain(..)).collect();
            for node in &view.nodes {
                self.loads.push(old.remove(&node.id).unwrap_or_default());
                self.ids.push(node.id);
            }
            self.groups = view.groups.iter().map(|g| Group { current: vec![0; g.members.len()], ignore_health: false }).collect();
        }
        (self.stamp, self.epoch) = (view.stamp, epoch);
        let up = |index: &u32| view.nodes[*index as usize].standing.state() != State::Down;
        // Trials are for one request at a time: where there is nothing else, the others need somebody, too.
        let serves = |index: &u32| view.nodes[*index as usize].standing.state() == State::Up;
        let none_up = !view.groups.iter().any(|group| group.members.iter().any(serves));
        for (state, group) in self.groups.iter_mut().zip(&view.groups) {
            let standing = group.members.iter().filter(|index| up(index)).count();
            let panics = standing * 100 < group.members.len() * usize::from(view.panic_threshold);
            state.ignore_health = none_up || panics;
        }
        let left = view.nodes.iter().filter_map(|node| node.standing.ramp_left(view.slow_start, now)).max();
        self.ramping_until = left.map(|left| now + left);
    }
}

impl Look<'_> {
    fn allows(&self, index: u32) -> bool {
        let node = &self.view.nodes[index as usize];
        (self.ignore_health || node.standing.state() != State::Down)
            && !self.refused.contains(&index)
            && !self.tried.contains(&node.id)
    }

    /// Weight in 1/256, less while it ramps, never zero.
    fn weight(&self, index: u32) -> i64 {
        let node = &self.view.nodes[index as usize];
        let share = if self.ramping { node.standing.ramp(self.view.slow_start, self.now) } else { 256 };
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

    /// An endpoint that has not answered yet costs nothing but its load, so it is tried soon.
    fn cost(&self, index: u32) -> f64 {
        let load = &self.loads[index as usize];
        let floor = 1e-6;
        (load.ewma(self.now) + floor) * f64::from(1 + load.active()) / self.weight(index) as f64
    }
}
