//! What an agent tells the fleet of itself while it runs: how busy it is and which configuration it holds. It knows no gossip.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock::{self, Instant};
use heddle_node::membership::{Membership, NodeLoad};
use heddle_xds::client::ClientStatus;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::listener::{Count, Counters, Entry, Wanted};
use crate::pipeline::Shared;
use crate::tables::Tables;

/// How often it is looked at. Requests do nothing for it.
const LOOK: Duration = Duration::from_secs(1);

/// The most ports that are told.
const MAX_PORTS: usize = 32;

/// What is counted.
pub(super) struct Sources {
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<[Arc<Counters>]>,
    pub(super) status: watch::Receiver<ClientStatus>,
}

impl Sources {
    fn requests(&self) -> u64 {
        let of = |counters: &Arc<Counters>| counters.get(Count::Http1Requests).wrapping_add(counters.get(Count::Http2Requests));
        self.counters.iter().map(of).fold(0, u64::wrapping_add)
    }

    fn in_flight(&self) -> u64 {
        self.shared.counters.iter().map(|counters| counters.active.get()).fold(0, u64::wrapping_add)
    }
}

/// Tells for as long as the process lives: a drain is told to its end.
pub(super) async fn tell(membership: Membership, sources: Sources) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = (clock::now(), sources.requests());
    loop {
        looks.tick().await;
        let now = (clock::now(), sources.requests());
        let load = NodeLoad { in_flight: coarse(sources.in_flight()), requests_per_second: coarse(rate(before, now)) };
        let version = sources.status.borrow().version.clone();
        before = now;
        membership.say(|facts| (facts.load, facts.config_version) = (load, version));
    }
}

/// Tells at which ports this node is called, as long as there are tables: whoever sends requests there learns by it when this node is about to leave.
pub(super) async fn tell_ports(membership: Membership, own: Arc<[Wanted]>, mut tables: watch::Receiver<Arc<Tables>>) {
    loop {
        let known = tables.borrow_and_update().clone();
        let ports = ports(&own, &known);
        membership.say(|facts| facts.ports = ports);
        if tables.changed().await.is_err() {
            return;
        }
    }
}

/// Ports at which others call this node, the lowest first.
fn ports(own: &[Wanted], tables: &Tables) -> Arc<[u16]> {
    let own = own.iter().filter(|wanted| matches!(wanted.entry, Entry::Inbound(_))).map(|wanted| &wanted.listener);
    let ports: BTreeSet<u16> = own.chain(tables.listeners.values()).map(|listener| listener.address.port()).collect();
    ports.into_iter().filter(|port| *port != 0).take(MAX_PORTS).collect()
}

/// Events a second between two looks.
fn rate((then, before): (Instant, u64), (now, after): (Instant, u64)) -> u64 {
    let seconds = now.saturating_duration_since(then).as_secs_f64();
    if seconds < f64::EPSILON { 0 } else { (after.wrapping_sub(before) as f64 / seconds).round() as u64 }
}

/// Two digits of a number: what moves by less is no news for a fleet.
fn coarse(number: u64) -> u32 {
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    u32::try_from(number / unit * unit).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_by_the_time_that_has_passed() {
        let then = clock::now();
        assert_eq!(rate((then, 100), (then + Duration::from_secs(2), 300)), 100);
        assert_eq!(rate((then, 100), (then, 300)), 0);
        assert_eq!(rate((then, u64::MAX), (then + Duration::from_secs(1), 4)), 5);
    }

    #[test]
    fn small_moves_are_no_news() {
        assert_eq!([0, 7, 99, 101, 12_345].map(coarse), [0, 7, 99, 100, 12_000]);
        assert_eq!(coarse(u64::MAX), u32::MAX);
    }
}
