//! What waits for what it depends on, and when it stops waiting. It knows nothing of our resources.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::parts::{is_at_once, parts_of};
use super::{Gate, Owner, Waiting, World};
use crate::dialect::envoy::decode::piece::{Addresses, Cluster, Door};
use crate::dialect::envoy::kind::EnvoyKind;

impl Waiting<Door> {
    /// Whether what is live has another address than what comes.
    fn is_leaving(&self) -> bool {
        !self.barred && self.live.as_ref().is_some_and(|live| live.listener.address != self.next.listener.address)
    }
}

impl World {
    /// When something that waits stops waiting. Listeners do not before they may open at all.
    pub fn wake(&self) -> Option<Instant> {
        let until = |owner: &Owner| match owner.0 {
            EnvoyKind::Cluster => self.clusters.get(&owner.1).map(|waiting| waiting.until),
            _ if self.gate == Gate::Open => self.doors.get(&owner.1).map(|waiting| waiting.until),
            _ => None,
        };
        let gate = match self.gate {
            Gate::Shut(until) if !self.warming.is_empty() => Some(until),
            _ => None,
        };
        self.warming.iter().filter_map(until).chain(gate).min()
    }

    /// Whether everything that is held is live.
    pub fn is_warm(&self) -> bool {
        self.warming.is_empty() && !matches!(self.gate, Gate::Shut(_))
    }

    /// Takes into use what is ready, or has waited long enough.
    pub(super) fn warm(&mut self, now: Instant) {
        let clusters: Vec<Owner> = self.warming.iter().filter(|(kind, _)| *kind == EnvoyKind::Cluster).cloned().collect();
        for owner in clusters {
            let ready = self.clusters.get(&owner.1).is_some_and(|waiting| now >= waiting.until || self.is_ready(&waiting.next));
            if let Some(waiting) = self.clusters.get_mut(&owner.1).filter(|_| ready) {
                let connect = waiting.live.as_ref().map(|live| live.upstream.timeouts.connect);
                let changed = connect.is_some_and(|connect| connect != waiting.next.upstream.timeouts.connect);
                waiting.live = Some(waiting.next.clone());
                self.drafts.clear();
                self.warming.remove(&owner);
                self.stale.insert(owner.clone());
                if changed || connect.is_none() {
                    self.stale_callers_of(&owner.1);
                }
            }
        }
        self.gate = match self.gate {
            Gate::Shut(until) if now < until => return,
            Gate::Shut(_) | Gate::Warming if self.warming.iter().any(|(kind, _)| *kind == EnvoyKind::Cluster) => Gate::Warming,
            _ => Gate::Open,
        };
        if self.gate != Gate::Open {
            return;
        }
        self.readmit();
        for name in self.ready_doors(now) {
            if let Some(waiting) = self.doors.get_mut(&name) {
                let before = waiting.live.replace(waiting.next.clone());
                self.opened.entry(name.clone()).or_insert(before);
                let owner = (EnvoyKind::Listener, name);
                self.warming.remove(&owner);
                self.stale.insert(owner);
            }
        }
        self.fall_back();
    }

    /// Listeners that have all that they wait for. One whose address another one is leaving waits until that has left, as connections would go to either.
    fn ready_doors(&mut self, now: Instant) -> BTreeSet<Arc<str>> {
        let is_ready = |waiting: &Waiting<Door>| now >= waiting.until || self.is_complete(&waiting.next);
        let names = self.warming.iter().filter(|(kind, _)| *kind == EnvoyKind::Listener).map(|(_, name)| name);
        let mut ready: BTreeSet<Arc<str>> = names.filter(|name| self.doors.get(*name).is_some_and(is_ready)).cloned().collect();
        while !ready.is_empty() {
            let leaving = self.doors.iter().filter(|(name, waiting)| waiting.is_leaving() && !ready.contains(*name));
            let (left_at, until): (BTreeSet<SocketAddr>, Vec<Instant>) =
                leaving.filter_map(|(_, waiting)| Some((waiting.live.as_ref()?.listener.address, waiting.until))).unzip();
            let blocked =
                |name: &&Arc<str>| self.doors.get(*name).is_some_and(|waiting| left_at.contains(&waiting.next.listener.address));
            let blocked: Vec<Arc<str>> = ready.iter().filter(blocked).cloned().collect();
            if blocked.is_empty() {
                break;
            }
            for name in blocked {
                ready.remove(&name);
                if let Some(waiting) = self.doors.get_mut(&name) {
                    waiting.until = until.iter().copied().chain([waiting.until]).max().unwrap_or(now);
                }
            }
        }
        ready
    }

    /// Whether something is there, or known not to be.
    fn is_settled(&self, kind: EnvoyKind, name: &Arc<str>) -> bool {
        self.holds(kind, name) || self.absent.contains(&(kind, name.clone()))
    }

    fn is_ready(&self, cluster: &Cluster) -> bool {
        let addresses = match &cluster.addresses {
            Addresses::Told(_) => true,
            Addresses::Asked(service) => self.is_settled(EnvoyKind::Endpoints, service),
        };
        addresses && cluster.asks_secrets.iter().all(|name| self.is_settled(EnvoyKind::Secret, name))
    }

    fn is_complete(&self, door: &Door) -> bool {
        parts_of(door).all(|(kind, name, _)| self.is_settled(kind, name) || is_at_once(door, kind, name))
            && door.asks_secrets.iter().all(|name| self.is_settled(EnvoyKind::Secret, name))
    }
}
