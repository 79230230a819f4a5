//! Who of the fleet shares the checks with this node, and what they have found. Worked out once for each state of the fleet; it acts on nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use heddle_node::membership::{Facts, Fleet, Member, MemberState, Seen};
use xxhash_rust::xxh64::xxh64;

/// What a member says is forgotten when it has not been heard for this long, whatever the failure detector thinks.
pub const HINT_LIFE_MS: u64 = 60_000;
/// Observations that are read of one member; more are a mistake or a lie.
pub const MAX_READ: usize = 512;
/// The role whose nodes have the same upstreams in whatever group they are. Those of others have them only where they were given a group of their own.
const GATEWAY: &str = "gateway";
/// The group of those who were given none.
const DEFAULT_GROUP: &str = "default";

/// Those who share the checks with this node.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    own: Arc<str>,
    /// Serving nodes of our role, group and zone, this one too, by id.
    members: Vec<Arc<str>>,
    isolated: bool,
    stamp: u64,
    /// Who calls what down: indexes of `members`, in order.
    down: HashMap<Arc<str>, HashMap<SocketAddr, Vec<u32>>>,
}

impl Peers {
    /// Nobody else.
    pub fn alone(own: &Arc<str>) -> Peers {
        Peers { own: own.clone(), members: vec![own.clone()], ..Peers::default() }
    }

    /// Those of a fleet. `own` is what this node says of itself, `now_ms` Unix milliseconds.
    ///
    /// A node that takes most of its peers for dead is more likely the one that is cut off: it goes by nobody else's word and shares nothing.
    pub fn of(fleet: &Fleet, own: &Facts, now_ms: u64) -> Peers {
        let alone = Peers::alone(&fleet.own);
        if matches!(&*own.group, "" | DEFAULT_GROUP) && &*own.role != GATEWAY {
            return alone;
        }
        let alike = |member: &&Member| member.facts.role == own.role && member.facts.group == own.group;
        let known = || fleet.members.iter().filter(alike).filter(|member| member.state != MemberState::Left);
        let (all, dead) = (known().count(), known().filter(|member| member.state == MemberState::Dead).count());
        if dead * 2 > all {
            return Peers { isolated: true, ..alone };
        }
        let mut serving: Vec<&Member> = known().filter(|member| member.is_serving() && member.facts.zone == own.zone).collect();
        serving.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        serving.dedup_by(|a, b| a.id == b.id);
        let mut down: HashMap<Arc<str>, HashMap<SocketAddr, Vec<u32>>> = HashMap::new();
        for (index, member) in serving.iter().enumerate().filter(|(_, member)| is_heard(member, &fleet.own, now_ms)) {
            for seen in member.facts.observations.iter().take(MAX_READ).filter(|seen| seen.seen == Seen::Down) {
                let by = down.entry(seen.upstream.clone()).or_default().entry(seen.endpoint).or_default();
                if by.last() != Some(&(index as u32)) {
                    by.push(index as u32);
                }
            }
        }
        let members: Vec<Arc<str>> = serving.iter().map(|member| member.id.clone()).collect();
        let stamp = members.iter().fold(members.len() as u64, |stamp, id| xxh64(id.as_bytes(), stamp));
        Peers { own: fleet.own.clone(), members, isolated: false, stamp, down }
    }

    /// Whether there is somebody to share with.
    pub fn share(&self) -> bool {
        !self.isolated && self.members.iter().any(|id| *id != self.own)
    }

    /// How many share, this node included.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// Whether this node is cut off from most of its peers.
    pub fn is_isolated(&self) -> bool {
        self.isolated
    }

    /// The same as long as the same nodes share.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Who checks an endpoint: `count` nodes by rendezvous hashing (Thaler and Ravishankar 1998), all when it is zero. Every node of the zone comes to the
    /// same result, and one that leaves moves only its own endpoints.
    pub fn checkers(&self, upstream: &str, endpoint: SocketAddr, count: u32) -> Arc<[Arc<str>]> {
        if count == 0 || self.members.len() <= count as usize {
            return self.members.clone().into();
        }
        let key = xxh64(endpoint.to_string().as_bytes(), xxh64(upstream.as_bytes(), 0));
        let mut ranked: Vec<(u64, &Arc<str>)> = self.members.iter().map(|id| (xxh64(id.as_bytes(), key), id)).collect();
        let (first, ..) = ranked.select_nth_unstable_by(count as usize, |a, b| b.cmp(a));
        first.sort_unstable_by(|a, b| a.1.cmp(b.1));
        first.iter().map(|(_, id)| (*id).clone()).collect()
    }

    /// Whether this node is one of them.
    pub fn is_own(&self, id: &str) -> bool {
        *id == *self.own
    }

    /// Those of `checkers` who call the endpoint down, when they are most of them. This node has its own evidence and no voice here.
    pub fn doubters(&self, upstream: &str, endpoint: SocketAddr, checkers: &[Arc<str>]) -> Option<Arc<[Arc<str>]>> {
        let by = self.down.get(upstream)?.get(&endpoint)?;
        let voices: Arc<[Arc<str>]> = by
            .iter()
            .filter_map(|index| self.members.get(*index as usize))
            .filter(|id| **id != self.own && checkers.contains(id))
            .cloned()
            .collect();
        (voices.len() > checkers.len() / 2).then_some(voices)
    }
}

/// Whether what a member says counts: it is another one, alive, and was heard of late.
fn is_heard(member: &Member, own: &Arc<str>, now_ms: u64) -> bool {
    let fresh = member.last_seen_ms == 0 || now_ms.saturating_sub(member.last_seen_ms) <= HINT_LIFE_MS;
    member.id != *own && member.state == MemberState::Alive && fresh
}
