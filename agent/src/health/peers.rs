//! Who of the fleet shares the checks with this node, and what they have found. Worked out once for each state of the fleet; it acts on nothing.

use std::collections::{HashMap, HashSet};
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
    /// The host of each of them: however many there are on one, they are checkers of one another's opinion.
    hosts: Vec<u64>,
    isolated: bool,
    stamp: u64,
    /// Who calls what down: indexes of `members`, in order.
    down: HashMap<Arc<str>, HashMap<SocketAddr, Vec<u32>>>,
}

impl Peers {
    /// Nobody else.
    pub fn alone(own: &Arc<str>) -> Peers {
        Peers { own: own.clone(), members: vec![own.clone()], hosts: vec![0], ..Peers::default() }
    }

    /// Those of a fleet. `own` is what this node says of itself, `now_ms` Unix milliseconds.
    ///
    /// A node that takes most of its peers for dead is more likely the one that is cut off: it goes by nobody else's word and shares nothing.
    pub fn of(fleet: &Fleet, own: &Facts, now_ms: u64) -> Peers {
        Peers::without(&HashSet::new(), fleet, own, now_ms)
    }

    /// The same without those whose checks have stopped: others take over what falls to them, and what they have said is old.
    pub fn without(stopped: &HashSet<Arc<str>>, fleet: &Fleet, own: &Facts, now_ms: u64) -> Peers {
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
        let checks = |member: &&Member| {
            member.is_serving() && member.facts.zone == own.zone && (member.id == fleet.own || !stopped.contains(&member.id))
        };
        let mut serving: Vec<&Member> = known().filter(checks).collect();
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
        let hosts = serving.iter().map(|member| host(member)).collect();
        Peers { own: fleet.own.clone(), members, hosts, isolated: false, stamp, down }
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
    /// same result, and one that leaves moves only its own endpoints. They are on different hosts as far as there are so many: members that somebody has made up
    /// on his own host are no more than one of them.
    pub fn checkers(&self, upstream: &str, endpoint: SocketAddr, count: u32) -> Arc<[Arc<str>]> {
        if count == 0 || self.members.len() <= count as usize {
            return self.members.clone().into();
        }
        let key = xxh64(endpoint.to_string().as_bytes(), xxh64(upstream.as_bytes(), 0));
        let mut ranked: Vec<(u64, usize)> =
            self.members.iter().enumerate().map(|(at, id)| (xxh64(id.as_bytes(), key), at)).collect();
        ranked.sort_unstable_by(|a, b| b.cmp(a));
        let mut hosts: HashSet<u64> = HashSet::new();
        let (mut first, spare): (Vec<usize>, Vec<usize>) =
            ranked.iter().map(|(_, at)| *at).partition(|at| hosts.len() < count as usize && hosts.insert(self.hosts[*at]));
        let missing = (count as usize).saturating_sub(first.len());
        first.extend(spare.into_iter().take(missing));
        first.sort_unstable();
        first.into_iter().map(|at| self.members[at].clone()).collect()
    }

    /// On how many hosts they are.
    fn hosts(&self, ids: &[Arc<str>]) -> usize {
        let of = |id: &Arc<str>| self.members.binary_search(id).ok().and_then(|at| self.hosts.get(at));
        ids.iter().filter_map(of).collect::<HashSet<&u64>>().len()
    }

    /// Whether this node is one of them.
    pub fn is_own(&self, id: &str) -> bool {
        *id == *self.own
    }

    /// Those of `checkers` who call the endpoint down, when they are most of them, on most of their hosts. This node has its own evidence and no voice here.
    pub fn doubters(&self, upstream: &str, endpoint: SocketAddr, checkers: &[Arc<str>]) -> Option<Arc<[Arc<str>]>> {
        let by = self.down.get(upstream)?.get(&endpoint)?;
        let voices: Arc<[Arc<str>]> = by
            .iter()
            .filter_map(|index| self.members.get(*index as usize))
            .filter(|id| **id != self.own && checkers.contains(id))
            .cloned()
            .collect();
        (voices.len() > checkers.len() / 2 && self.hosts(&voices) > self.hosts(checkers) / 2).then_some(voices)
    }
}

/// Stands for the host of a member. On a loopback address there are many nodes, and nobody else.
fn host(member: &Member) -> u64 {
    match member.facts.address.map(|address| address.ip()).filter(|ip| !ip.is_loopback()) {
        Some(ip) => xxh64(ip.to_canonical().to_string().as_bytes(), 0),
        None => xxh64(member.id.as_bytes(), 1),
    }
}

/// Whether what a member says counts: it is another one, alive, and was heard of late.
fn is_heard(member: &Member, own: &Arc<str>, now_ms: u64) -> bool {
    let fresh = member.last_seen_ms == 0 || now_ms.saturating_sub(member.last_seen_ms) <= HINT_LIFE_MS;
    member.id != *own && member.state == MemberState::Alive && fresh
}
