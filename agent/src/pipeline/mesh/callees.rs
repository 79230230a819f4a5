//! The services that the application beside this node calls: asked for when they are first called, and found at once from then on. It sends nothing.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock::{self, Instant};
use heddle_xds::client::{Demand, Standing};
use heddle_xds::model::{Kind, MESH_PREFIX, address_name, instance_name};
use parking_lot::Mutex;

use super::super::view::View;
use super::super::worker::Worker;
use crate::exchange::Reason;
use crate::observe::MeshStats;
use crate::tables::Called;
use crate::upstream::Outside;

/// How long the first call of a service waits until it is known what the control plane knows of it.
const WAIT: Duration = Duration::from_secs(2);
/// How long a name that may be somebody else's waits for a control plane that is away: who cannot be asked must not hold up what does not concern it.
const ABSENCE: Duration = WAIT;
/// How long the first connection to an address waits until it is known whether that is one of a service: most are not.
const ADDRESS_WAIT: Duration = Duration::from_millis(250);
/// How long nobody waits for that after somebody has waited in vain: the control plane is away.
const SILENCE: Duration = Duration::from_secs(5);
/// How deep services may lead to services by their plugins.
const MAX_DEPTH: u32 = 3;

/// What a worker knows of whom the application beside it may call.
#[derive(Clone, Default)]
pub struct Callees {
    /// Asks for services by name.
    pub demand: Demand,
    /// The namespace of names that name none.
    pub namespace: Arc<str>,
    /// Whether captured connections and tunnels to anybody else are passed on.
    pub lets_others_pass: bool,
    /// By whom plain requests of the HTTP proxy to anybody else are passed on; `None`: they are not.
    pub outside: Option<Arc<Outside>>,
    /// What is counted of its connections.
    pub stats: Arc<MeshStats>,
    /// Until when nobody waits to be told whose an address is.
    pub silent_until: Arc<Mutex<Option<Instant>>>,
}

/// What a name stands for as far as it says so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meant {
    /// A service, or nothing: without an answer nothing can be done.
    Service,
    /// A service, or somebody outside of the mesh, to whom it leads without an answer.
    Anybody,
}

impl Meant {
    /// By what a name is known to be.
    pub(super) fn by(called: &Called) -> Meant {
        if called.is_sure() { Meant::Service } else { Meant::Anybody }
    }

    /// Until when an answer is waited for that is missed from `now` on: not at all by what has waited in vain just before.
    fn until(self, now: Instant, rests: bool, unheard_since: Option<Instant>) -> Instant {
        match self {
            _ if rests => now,
            Meant::Service => now + WAIT,
            Meant::Anybody => unheard_since.map_or(now + WAIT, |since| (since + ABSENCE).clamp(now, now + WAIT)),
        }
    }
}

/// What is known of a service.
enum Known {
    Yes,
    /// There is none of this name.
    No,
    /// The control plane has not answered yet.
    NotYet,
    /// What it has answered cannot be used.
    Unusable,
}

impl Worker {
    /// The number of a service, with the view that knows it. Its first call waits for the control plane, and only the first of the steps in which it is asked for;
    /// all who wait share one question.
    ///
    /// # Errors
    /// [`Reason::UnknownService`] when there is none, [`Reason::ServicePending`] when there is no answer in time, or none that can be used.
    pub(super) async fn callee(&self, service: &str, meant: Meant) -> Result<(Rc<View>, u32), Reason> {
        let (view, now) = (self.view(), clock::now());
        if let Some(number) = view.callee(service, now) {
            return Ok((view, number));
        }
        let demand = self.callees().demand;
        let until = meant.until(now, demand.rests(Kind::MeshService, service, now), demand.unheard_since());
        let mut answers = demand.answers();
        loop {
            // Both are asked before the view is looked at, so that nothing that happens meanwhile is missed.
            let swapped = self.swapping();
            answers.borrow_and_update();
            let view = self.view();
            match known(&demand, &view, service, clock::now(), 0) {
                Known::Yes => return view.note_callee(service, now).map(|number| (view, number)).ok_or(Reason::UnknownService),
                Known::No => return Err(Reason::UnknownService),
                Known::Unusable => return Err(Reason::ServicePending),
                Known::NotYet => {}
            }
            tokio::select! {
                () = swapped => {}
                Ok(()) = answers.changed() => {}
                () = tokio::time::sleep_until(until) => {
                    // Who did not wait to the end has not tried for those who would.
                    if until == now + WAIT {
                        demand.waited_in_vain(Kind::MeshService, service, clock::now());
                    }
                    return Err(Reason::ServicePending);
                }
            }
        }
    }
}

impl Worker {
    /// The service one of whose addresses this is, or what stands for the one instance that is there. Nobody is kept waiting for long for what is likely no
    /// service's.
    pub(super) async fn service_at(&self, at: SocketAddr) -> Option<Arc<str>> {
        let address = at.ip().to_canonical();
        if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            return None;
        }
        let (name, instance, now) = (address_name(address), instance_name(at), clock::now());
        let Callees { demand, silent_until, .. } = self.callees();
        let until = Meant::Anybody.until(now, false, demand.unheard_since()).min(now + ADDRESS_WAIT);
        let mut answers = demand.answers();
        loop {
            // Both are asked before the view is looked at, so that nothing that happens meanwhile is missed.
            let swapped = self.swapping();
            answers.borrow_and_update();
            let told = [&name, &instance].map(|name| demand.want(Kind::MeshService, name, clock::now()));
            let view = self.view();
            // What the owner of a service says goes before where an instance happens to be.
            if let Some(known) = view.tables.mesh.get(name.as_str()) {
                return known.depends.first().cloned();
            }
            let now = clock::now();
            let is_silent = silent_until.lock().is_some_and(|until| now < until);
            let is_over =
                told.iter().all(|told| matches!(told, Standing::Absent | Standing::Unusable)) || now >= until || is_silent;
            if let Some(known) = view.tables.mesh.get(instance.as_str()).filter(|_| told[0] != Standing::Asked || is_over) {
                return Some(known.name.clone());
            }
            if is_over {
                return None;
            }
            tokio::select! {
                () = swapped => {}
                Ok(()) = answers.changed() => {}
                () = tokio::time::sleep_until(until) => *silent_until.lock() = Some(clock::now() + SILENCE),
            }
        }
    }
}

/// Asks for a service, for its endpoints and for those that it leads to.
fn known(demand: &Demand, view: &View, service: &str, now: Instant, depth: u32) -> Known {
    let told = demand.want(Kind::MeshService, service, now);
    let upstream = format!("{MESH_PREFIX}{service}");
    let endpoints = demand.want(Kind::Endpoints, &upstream, now);
    let Some(known_service) = view.tables.mesh.get(service) else {
        return match told {
            Standing::Absent => Known::No,
            Standing::Unusable => Known::Unusable,
            Standing::Asked | Standing::Present => Known::NotYet,
        };
    };
    let has_endpoints = || view.tables.clusters.get(&*upstream).is_some_and(|cluster| !cluster.view().endpoints.is_empty());
    if endpoints == Standing::Asked && !has_endpoints() {
        return Known::NotYet;
    }
    let waits = |other: &Arc<str>| matches!(known(demand, view, other, now, depth + 1), Known::NotYet);
    // All of them are asked for, not only the first that is not known.
    let waiting = depth < MAX_DEPTH && known_service.depends.iter().filter(|other| waits(other)).count() > 0;
    if waiting { Known::NotYet } else { Known::Yes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_outside_waits_for_no_control_plane_that_has_long_been_away() {
        let now = clock::now();
        let long_ago = now.checked_sub(ABSENCE * 10);
        for (meant, rests, unheard_since, until) in [
            (Meant::Service, false, None, now + WAIT),
            (Meant::Service, false, long_ago, now + WAIT),
            (Meant::Service, true, None, now),
            (Meant::Anybody, false, None, now + WAIT),
            (Meant::Anybody, false, Some(now), now + WAIT),
            (Meant::Anybody, false, now.checked_sub(ABSENCE / 2), now + WAIT / 2),
            (Meant::Anybody, false, long_ago, now),
            (Meant::Anybody, true, None, now),
        ] {
            assert_eq!(meant.until(now, rests, unheard_since), until, "{meant:?} {rests} {unheard_since:?}");
        }
    }
}
