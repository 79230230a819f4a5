//! The immutable list that is chosen from, with all that can be computed before a request comes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use heddle_xds::model::HashTable;

use super::ring::Spread;
use super::{Epoch, Standing, Zones};

/// How a node is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Smooth weighted round robin, as nginx.
    RoundRobin,
    /// Consistent hashing; without a key it falls back to round robin.
    ConsistentHash(HashTable),
    /// Lowest (1 + requests in flight) / weight.
    LeastConn,
    /// The better of two random nodes by decayed response time, load and weight.
    Ewma,
}

/// One endpoint as balancing sees it.
#[derive(Debug, Clone)]
pub struct Node {
    /// Unique in this process; the same while the endpoint stays.
    pub id: u64,
    /// What decides its place on the ring: the same on every agent.
    pub identity: Arc<str>,
    /// Relative share; zero is never chosen.
    pub weight: u32,
    /// Higher is used first.
    pub priority: i32,
    /// Locality zone, empty when unknown.
    pub zone: Arc<str>,
    /// Whether it may be chosen.
    pub standing: Arc<Standing>,
}

/// Nodes that are chosen from together.
#[derive(Debug)]
pub(super) struct Part {
    /// Indexes of nodes with a weight.
    pub(super) members: Vec<u32>,
    pub(super) spread: Spread,
}

/// Nodes of one priority.
#[derive(Debug)]
pub(super) struct Tier {
    /// Its zones, level by level, among the parts.
    pub(super) levels: Range<usize>,
    /// All its nodes together, among the parts; the only level where there is one only.
    pub(super) whole: usize,
    /// Whether the first level is the own zone.
    pub(super) at_home: bool,
}

/// The immutable list that is chosen from.
#[derive(Debug)]
pub struct View {
    pub(super) stamp: u64,
    pub(super) policy: Policy,
    pub(super) nodes: Vec<Node>,
    pub(super) parts: Vec<Part>,
    /// The part of its zone that each node is in; `u32::MAX` for those that are in none.
    pub(super) home: Vec<u32>,
    /// Highest priority first.
    pub(super) tiers: Vec<Tier>,
    pub(super) slow_start: Duration,
    pub(super) panic_threshold: Option<u8>,
    pub(super) zones: Zones,
    pub(super) epoch: Arc<Epoch>,
}

impl View {
    /// Groups the nodes and builds rings where the policy needs them. The index of a node stays its place in `nodes`.
    pub fn new(
        policy: Policy,
        nodes: Vec<Node>,
        slow_start: Duration,
        panic_threshold: Option<u8>,
        zones: Zones,
        epoch: Arc<Epoch>,
    ) -> View {
        static STAMP: AtomicU64 = AtomicU64::new(1);
        let mut priorities: BTreeMap<i32, BTreeMap<usize, Vec<u32>>> = BTreeMap::new();
        for (index, node) in nodes.iter().enumerate().filter(|(_, node)| node.weight > 0) {
            if let Some(level) = zones.level(&node.zone, node.priority) {
                priorities.entry(node.priority).or_default().entry(level).or_default().push(index as u32);
            }
        }
        let (mut parts, mut tiers) = (Vec::new(), Vec::with_capacity(priorities.len()));
        for levels in priorities.into_values().rev() {
            let (first, at_home) = (parts.len(), zones.matter() && levels.contains_key(&0));
            let mut whole: Vec<u32> = levels.values().flatten().copied().collect();
            whole.sort_unstable();
            parts.extend(levels.into_values().map(|members| Part::new(policy, &nodes, members)));
            let levels = first..parts.len();
            if levels.len() > 1 {
                parts.push(Part::new(policy, &nodes, whole));
            }
            tiers.push(Tier { levels, whole: parts.len() - 1, at_home });
        }
        let mut home = vec![u32::MAX; nodes.len()];
        for (at, part) in parts.iter().enumerate().rev() {
            part.members.iter().for_each(|&index| home[index as usize] = at as u32);
        }
        let stamp = STAMP.fetch_add(1, Ordering::Relaxed);
        View { stamp, policy, nodes, parts, home, tiers, slow_start, panic_threshold, zones, epoch }
    }

    /// All nodes, those without weight too.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Whether no node can ever be chosen.
    pub fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }
}

impl Part {
    fn new(policy: Policy, nodes: &[Node], members: Vec<u32>) -> Part {
        let spread = match policy {
            Policy::ConsistentHash(table) => {
                let place = |&index: &u32| (index, &*nodes[index as usize].identity, nodes[index as usize].weight);
                Spread::new(table, members.iter().map(place))
            }
            _ => Spread::None,
        };
        Part { members, spread }
    }
}
