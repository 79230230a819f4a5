//! One upstream's part in the sharing of checks: who probes which endpoint, what others have found and how far that goes, and what they are told. It probes
//! nothing itself.

use std::sync::Arc;
use std::time::Duration;

use heddle_node::membership::Observation;
use heddle_xds::model::ActiveCheck;
use tokio::sync::watch;
use tokio::time::Instant;

use super::state::Cluster;
use super::view::{Endpoint, EndpointView};
use crate::health::{Case, Peers, admitted};

/// No hint counts against an endpoint that has answered this node within this time.
pub(super) const FRESH: Duration = Duration::from_secs(5);
/// How often answers are looked at while checks are shared, so that it is known which endpoints have answered.
const EVERY: Duration = Duration::from_secs(1);
/// Gossip may bring something every few milliseconds; it is looked at this often at most.
const AT_MOST: Duration = Duration::from_millis(100);

/// What the keeper of a cluster remembers of the sharing between two looks at it.
#[derive(Default)]
pub(super) struct Sharing {
    /// For which peers and endpoints checks are assigned.
    assigned: Option<(u64, Arc<EndpointView>)>,
    looked: Option<Instant>,
    /// How late our own checks are; `None` while there are none.
    pub(super) late: Option<Duration>,
    due: Option<Instant>,
}

impl Sharing {
    /// When to look next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Something was heard.
    pub(super) fn heard(&mut self, now: Instant) {
        let soon = self.looked.map_or(now, |looked| (looked + AT_MOST).max(now));
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }
}

impl Cluster {
    /// Looks at what the fleet says now. Says whether other endpoints than before are to be probed here.
    pub(super) fn share(&self, sharing: &mut Sharing, now: Instant) -> bool {
        let (view, peers) = (self.view.load_full(), self.context.fellows.peers(&self.context.membership, now));
        sharing.looked = Some(now);
        let Some((check, _)) = view.spec.probes.as_ref().filter(|(check, _)| check.checkers > 0 && peers.share()) else {
            sharing.due = None;
            if sharing.assigned.take().is_some() {
                self.unshare(now);
                return true;
            }
            return false;
        };
        sharing.due = Some(now + EVERY);
        self.context.fellows.checks(&self.context.membership, &self.name, sharing.late, now);
        let known = sharing.assigned.as_ref();
        let changed = !known.is_some_and(|(stamp, of)| *stamp == peers.stamp() && Arc::ptr_eq(of, &view));
        if changed {
            for endpoint in &view.endpoints {
                let checkers = peers.checkers(&self.name, endpoint.core.address, check.checkers);
                let own = checkers.iter().any(|id| peers.is_own(id));
                endpoint.core.health.assign(checkers, own, now);
            }
            sharing.assigned = Some((peers.stamp(), view.clone()));
        }
        self.doubt(&view, &peers, check, now);
        self.publish(&view);
        changed
    }

    /// Changes whenever the fleet says something.
    pub(super) fn heard(&self) -> watch::Receiver<u64> {
        self.context.membership.heard()
    }

    /// Ends all sharing: every endpoint is probed here, and what others say is forgotten.
    pub(super) fn unshare(&self, now: Instant) {
        for endpoint in &self.view.load().endpoints {
            endpoint.core.health.assign(Arc::default(), true, now);
            if let Some(change) = endpoint.core.health.doubted(None, now) {
                self.tell(&endpoint.core, change);
            }
        }
        self.context.fellows.tell(&self.context.membership, &self.name, Vec::new());
        self.context.fellows.checks(&self.context.membership, &self.name, None, now);
    }

    /// Takes what others have found, as far as it goes.
    fn doubt(&self, view: &EndpointView, peers: &Peers, check: &ActiveCheck, now: Instant) {
        let doubts = |endpoint: &Endpoint| {
            let health = &endpoint.core.health;
            health.answered(endpoint.core.stats.totals().answered, now);
            let checkers = health.checkers();
            let by = peers.doubters(&self.name, endpoint.core.address, &checkers)?;
            // What this node probes itself it has seen answer by the last probe, however long ago that was.
            let fresh = if health.is_checked() { FRESH.max(check.healthy_interval * 2 + check.timeout) } else { FRESH };
            (!health.is_proven(fresh, now)).then_some(by)
        };
        let doubts: Vec<Option<Arc<[Arc<str>]>>> = view.endpoints.iter().map(doubts).collect();
        let case = |(endpoint, doubt): (&Endpoint, &Option<_>)| {
            let health = &endpoint.core.health;
            let (acting, out) = health.is_doubted_or_out();
            let counts = endpoint.weight > 0 && !health.is_draining();
            Case { priority: endpoint.priority, counts, out, doubted: doubt.is_some(), acting }
        };
        let cases: Vec<Case> = view.endpoints.iter().zip(&doubts).map(case).collect();
        let admitted = admitted(&cases, view.spec.config.panic_threshold.unwrap_or(0));
        for ((endpoint, doubt), admitted) in view.endpoints.iter().zip(doubts).zip(admitted) {
            if let Some(change) = endpoint.core.health.doubted(doubt.filter(|_| admitted), now) {
                self.tell(&endpoint.core, change);
            }
        }
    }

    /// Tells the fleet what our probes have found.
    fn publish(&self, view: &EndpointView) {
        let mut told: Vec<Observation> = Vec::new();
        for core in view.endpoints.iter().map(|endpoint| &endpoint.core).filter(|core| core.health.is_checked()) {
            if let Some((seen, since_ms)) = core.health.seen().filter(|_| !told.iter().any(|one| one.endpoint == core.address)) {
                told.push(Observation { upstream: self.name.clone(), endpoint: core.address, seen, since_ms });
            }
        }
        self.context.fellows.tell(&self.context.membership, &self.name, told);
    }
}
