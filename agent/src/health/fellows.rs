//! What all upstreams of a node share towards the fleet: its peers as they are now, and what this node tells them. It probes nothing.

use std::collections::BTreeMap;
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

/// What all upstreams of a node share towards the fleet.
#[derive(Debug, Default)]
pub struct Fellows {
    known: Mutex<Option<Known>>,
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
        let peers = Arc::new(Peers::of(&fleet, &membership.facts(), clock::unix_ms()));
        *known = Some(Known { fleet, peers: peers.clone(), at: now });
        peers
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
