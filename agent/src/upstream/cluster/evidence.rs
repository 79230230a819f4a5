//! What a cluster does with evidence about its endpoints: each piece goes to the endpoint's own health, and what follows is told. It gathers none itself.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::state::{Cluster, HealthEvent, Spec};
use super::view::{Endpoint, EndpointCore};
use crate::balance::{Node, State};
use crate::health::{Change, Finding};

impl Cluster {
    /// Takes what a request has found; a no-op for the success of a healthy endpoint.
    pub fn traffic(&self, spec: &Spec, core: &EndpointCore, finding: Finding, now: Instant) {
        if let Some(change) = core.health.traffic(&spec.rules, finding, now) {
            self.tell(core, change);
        }
    }

    /// Takes what a probe has found.
    pub fn probed(&self, core: &EndpointCore, finding: Finding, now: Instant) {
        self.probes.fetch_add(1, Ordering::Relaxed);
        if let Some(change) = core.health.probed(&self.view.load().spec.rules, finding, now) {
            self.tell(core, change);
        }
    }

    /// Lets time do its part in the health of endpoints; called whenever something is due, off the request path.
    pub fn tick(&self, now: Instant) {
        let rules = &self.view.load().spec.rules;
        self.each_core(|core| {
            if let Some(change) = core.health.tick(rules, now) {
                self.tell(core, change);
            }
        });
    }

    /// Says that the health of an endpoint has changed.
    pub(super) fn tell(&self, core: &EndpointCore, change: Change) {
        let upstream = self.view.load().spec.config.label.clone();
        (self.context.on_health)(&HealthEvent { upstream, host: core.host.clone(), address: core.address, change });
        self.changed();
    }
}

/// Whether endpoints that drain must serve on: there are some, and none of the others stands.
pub(super) fn must_draining_serve(endpoints: &[Endpoint]) -> bool {
    let drains = |endpoint: &&Endpoint| endpoint.core.health.is_draining();
    let serves = |endpoint: &Endpoint| endpoint.weight > 0 && endpoint.core.health.state() == State::Up;
    endpoints.iter().any(|endpoint| drains(&endpoint)) && !endpoints.iter().filter(|endpoint| !drains(endpoint)).any(serves)
}

/// Takes their weight from endpoints that drain: they get nobody new, but keep the sessions that they have. Where nobody else stands they keep it, as a
/// request that may fail is better than one that must; says whether that is so.
pub(super) fn leave_draining_out(nodes: &mut [Node], endpoints: &[Endpoint]) -> bool {
    let serve = must_draining_serve(endpoints);
    for (node, endpoint) in nodes.iter_mut().zip(endpoints) {
        if !serve && endpoint.core.health.is_draining() {
            node.weight = 0;
        }
    }
    serve
}
