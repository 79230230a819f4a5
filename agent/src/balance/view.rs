//! The immutable list that is chosen from, with all that can be computed before a request comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Epoch, Ring, Standing};

/// How a node is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Smooth weighted round robin, as nginx.
    RoundRobin,
    /// Consistent hashing; without a key it falls back to round robin.
    ConsistentHash,
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
    /// Whether it may be chosen.
    pub standing: Arc<Standing>,
}

/// Nodes of one priority.
#[derive(Debug)]
pub(super) struct Group {
    /// Indexes of nodes with a weight.
    pub(super) members: Vec<u32>,
    pub(super) ring: Ring,
}

/// The immutable list that is chosen from.
#[derive(Debug)]
pub struct View {
    pub(super) stamp: u64,
    pub(super) policy: Policy,
    pub(super) nodes: Vec<Node>,
    /// Highest priority first.
    pub(super) groups: Vec<Group>,
    pub(super) slow_start: Duration,
    pub(super) panic_threshold: u8,
    pub(super) epoch: Arc<Epoch>,
}

impl View {
    /// Groups the nodes and builds rings where the policy needs them. The index of a node stays its place in `nodes`.
    pub fn new(policy: Policy, nodes: Vec<Node>, slow_start: Duration, panic_threshold: u8, epoch: Arc<Epoch>) -> View {
        static STAMP: AtomicU64 = AtomicU64::new(1);
        let mut priorities: Vec<i32> = nodes.iter().filter(|node| node.weight > 0).map(|node| node.priority).collect();
        priorities.sort_unstable_by(|a, b| b.cmp(a));
        priorities.dedup();
        let groups = priorities.into_iter().map(|priority| Group::new(policy, &nodes, priority)).collect();
        View { stamp: STAMP.fetch_add(1, Ordering::Relaxed), policy, nodes, groups, slow_start, panic_threshold, epoch }
    }

    /// All nodes, those without weight too.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Whether no node can ever be chosen.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

impl Group {
    fn new(policy: Policy, nodes: &[Node], priority: i32) -> Group {
        let fits = |node: &Node| node.weight > 0 && node.priority == priority;
        let members: Vec<u32> = nodes.iter().enumerate().filter(|(_, node)| fits(node)).map(|(index, _)| index as u32).collect();
        let ring = if policy == Policy::ConsistentHash {
            Ring::build(members.iter().map(|&index| (index, &*nodes[index as usize].identity, nodes[index as usize].weight)))
        } else {
            Ring::default()
        };
        Group { members, ring }
    }
}
