//! What all upstreams of a node share towards the fleet: its peers as they are now, and what this node tells them. It probes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_node::membership::{Fleet, Membership, Observation, Seen};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Peers;

/// Observations that one node tells; endpoints that are down come first.
pub const MAX_TOLD: usize = 256;
/// What was heard is looked at anew after this long even when nothing has come: hints of those who fell silent expire.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How exactly it is told when checks were last known to run: rarely, since it travels to all.
const CHECKED_STEP_S: u64 = 20;
/// Whose checks are not known to run for so long checks no more, though it may still gossip.
const STOPPED: Duration = Duration::from_secs(75);
/// Checks of an upstream that are so late have stopped.
pub const LATE: Duration = Duration::from_secs(30);

/// What all upstreams of a node share towards the fleet.
#[derive(Debug, Default)]
pub struct Fellows {
    known: Mutex<Option<Known>>,
    /// When which upstream's checks were last on time.
    running: Mutex<BTreeMap<Arc<str>, Instant>>,
    /// When members last told that their checks run: what they told, and when that came.
    heard: Mutex<HashMap<Arc<str>, (u64, Instant)>>,
    told: Mutex<BTreeMap<Arc<str>, Vec<Observation>>>,
}

#[derive(Debug)]
struct Known {
    fleet: Arc<Fleet>,
    peers: Arc<Peers>,
    at: Instant,
}

impl Fellows {
    /// The peers of this moment.
    pub fn peers(&self, membership: &Membership, now: Instant) -> Arc<Peers> {
        let fleet = membership.fleet();
        let mut known = self.known.lock();
        let same = |known: &&Known| Arc::ptr_eq(&known.fleet, &fleet) && now.saturating_duration_since(known.at) < LOOK_AGAIN;
        if let Some(known) = known.as_ref().filter(same) {
            return known.peers.clone();
        }
        let stopped = self.stopped(&fleet, now);
        let peers = Arc::new(Peers::without(&stopped, &fleet, &membership.facts(), clock::unix_ms()));
        *known = Some(Known { fleet, peers: peers.clone(), at: now });
        peers
    }

    /// Members whose checks have stopped: they say that they have some to run, and have not said for long that those run. By our own clock, whatever theirs is.
    fn stopped(&self, fleet: &Fleet, now: Instant) -> HashSet<Arc<str>> {
        let mut heard = self.heard.lock();
        heard.retain(|id, _| fleet.get(id).is_some());
        let mut stopped = HashSet::new();
        for member in fleet.members.iter().filter(|member| member.facts.checked_s > 0) {
            let told = heard.entry(member.id.clone()).or_insert((member.facts.checked_s, now));
            if told.0 != member.facts.checked_s {
                *told = (member.facts.checked_s, now);
            }
            if now.saturating_duration_since(told.1) >= STOPPED {
                stopped.insert(member.id.clone());
            }
        }
        stopped
    }

    /// Takes note how late the checks of an upstream are, `None` when there are none to run here, and tells the fleet that all checks run, while they do.
    pub fn checks(&self, membership: &Membership, upstream: &Arc<str>, late: Option<Duration>, now: Instant) {
        let mut running = self.running.lock();
        match late {
            None => {
                running.remove(upstream);
            }
            Some(late) if late < LATE => {
                running.insert(upstream.clone(), now);
            }
            Some(_) => {
                running.entry(upstream.clone()).or_insert(now);
            }
        }
        let checked_s = match running.values().min() {
            None => 0,
            Some(last) if now.saturating_duration_since(*last) < LATE => {
                clock::unix_ms() / 1_000 / CHECKED_STEP_S * CHECKED_STEP_S
            }
            Some(_) => return,
        };
        drop(running);
        if membership.facts().checked_s != checked_s {
            membership.say(|facts| facts.checked_s = checked_s);
        }
    }

    /// Tells the fleet what probes of this upstream have found, in the place of what was told before.
    pub fn tell(&self, membership: &Membership, upstream: &Arc<str>, found: Vec<Observation>) {
        let mut told = self.told.lock();
        let before = if found.is_empty() { told.remove(upstream) } else { told.insert(upstream.clone(), found.clone()) };
        if before.unwrap_or_default() == found {
            return;
        }
        let all = || told.values().flatten();
        let (down, up) = (all().filter(|one| one.seen == Seen::Down), all().filter(|one| one.seen == Seen::Up));
        let observations: Arc<[Observation]> = down.chain(up).take(MAX_TOLD).cloned().collect();
        membership.say(|facts| facts.observations = observations);
    }
}
