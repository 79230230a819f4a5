//! A cluster as one worker sees it: choosing an endpoint, and the limits that may refuse it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use heddle_node::clock;
use heddle_xds::model::{Balancer, Upstream};
use tokio::time::Instant;

use super::connect::after;
use super::h2::Trust;
use super::host::Host;

use super::{Cluster, Edition, EndpointCore, EndpointView, Sent, Spec, UpstreamError};
use crate::balance::{self, InFlight};
use crate::exchange::{EndpointName, Reason};
use crate::health::Finding;

/// Repeats that are always allowed at once, so that a budget does not forbid the only one of a quiet upstream (as Envoy's `min_retry_concurrency`).
const FREE_REPEATS: u32 = 3;
/// Repeats in percent of requests when the configuration does not say.
const REPEAT_PERCENT: u8 = 20;
/// Requests whose share of repeats may be saved up: with 20 percent, an endpoint that dies with 100 requests in flight costs none of them.
const SAVING_REQUESTS: u32 = 500;
/// What one repeat costs, in the percent that each request earns.
const REPEAT_COST: u32 = 100;

/// What one worker keeps for one cluster.
pub(super) struct Local {
    cluster: Arc<Cluster>,
    balancer: RefCell<balance::Worker>,
    seen: RefCell<Rc<Met>>,
    hosts: RefCell<HashMap<u64, Rc<Host>, foldhash::fast::RandomState>>,
    active: Cell<u32>,
    repeats: Cell<u32>,
    /// What repeats have cost and requests have not yet earned back.
    spent: Cell<u32>,
}

/// A view with this worker's side of its endpoints, index for index.
struct Met {
    view: Arc<EndpointView>,
    hosts: Vec<Rc<Host>>,
}

/// An edition of a cluster at the moment a request meets it: configuration and endpoints stay the same for all tries of the request.
pub struct Target {
    local: Rc<Local>,
    seen: Rc<Met>,
}

/// An endpoint that was chosen for one try. Dropping it ends the try.
pub struct Picked {
    endpoint: EndpointHandle,
    seen: Rc<Met>,
    local: Rc<Local>,
    in_flight: InFlight,
    trial: Cell<bool>,
    repeat: bool,
}

/// Whether an endpoint may have seen the request that an endpoint is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// None has, whether it was tried or not: choosing another one adds no load.
    Never,
    /// One has: sending it again adds load, which is bounded.
    Perhaps,
}

/// An endpoint, for as long as somebody cares; copying it touches nothing that other workers write.
#[derive(Clone)]
pub struct EndpointHandle(Rc<Host>);

impl EndpointHandle {
    /// Its name and address, for people.
    pub fn name(&self) -> &Rc<EndpointName> {
        &self.0.name
    }
}

impl std::ops::Deref for EndpointHandle {
    type Target = EndpointCore;

    fn deref(&self) -> &EndpointCore {
        &self.0.core
    }
}

impl Local {
    pub(super) fn new(cluster: &Arc<Cluster>) -> Rc<Local> {
        let view = cluster.view().clone();
        let local = Local {
            cluster: cluster.clone(),
            balancer: RefCell::default(),
            seen: RefCell::new(Rc::new(Met { view: view.clone(), hosts: Vec::new() })),
            hosts: RefCell::default(),
            active: Cell::new(0),
            repeats: Cell::new(0),
            spent: Cell::new(0),
        };
        local.follow(view);
        Rc::new(local)
    }

    /// Takes a new view over. Endpoints that left keep their side here until their last connection is closed.
    fn follow(&self, view: Arc<EndpointView>) {
        let mut known = self.hosts.borrow_mut();
        let mut hosts = Vec::with_capacity(view.endpoints.len());
        for endpoint in &view.endpoints {
            let new = || Host::new(endpoint.core.clone(), endpoint.fallbacks.clone());
            let host = known.entry(endpoint.core.id).or_insert_with(new);
            if *host.fallbacks.borrow() != endpoint.fallbacks {
                host.fallbacks.replace(endpoint.fallbacks.clone());
            }
            hosts.push(host.clone());
        }
        self.seen.replace(Rc::new(Met { view, hosts }));
    }

    fn seen(&self, now: &Arc<EndpointView>) -> Rc<Met> {
        if !Arc::ptr_eq(now, &self.seen.borrow().view) {
            self.follow(now.clone());
        }
        self.seen.borrow().clone()
    }

    /// Closes idle connections that are due. False when the cluster is gone and nothing is open any more.
    pub(super) fn sweep(&self, now: Instant) -> bool {
        let spec = self.seen(&self.cluster.view()).view.spec.clone();
        let trust = spec.is_mesh().then(|| Trust::now(self.cluster.identity()));
        let mut hosts = self.hosts.borrow_mut();
        for host in hosts.values() {
            host.sweep(&spec.config.keepalive, trust.as_ref(), now);
        }
        hosts.retain(|_, host| !(host.core.is_retired() && host.is_unused()));
        !self.cluster.is_retired() || hosts.values().any(|host| !host.is_unused())
    }
}

impl Target {
    pub(super) fn new(local: Rc<Local>, edition: &Edition) -> Target {
        let seen = local.seen(&edition.view());
        Target { local, seen }
    }

    /// The upstream's configuration.
    pub fn config(&self) -> &Upstream {
        &self.seen.view.spec.config
    }

    /// The endpoints.
    pub fn view(&self) -> &EndpointView {
        &self.seen.view
    }

    /// Waits until names that nobody has looked up before have been, at most as long as a connection may take; then looks at the endpoints of the edition
    /// anew.
    pub async fn settle(&mut self, edition: &Edition) {
        let until = after(clock::now(), self.config().timeouts.connect);
        let _ = tokio::time::timeout_at(until, edition.watch().wait_for(|_| edition.view().pending == 0)).await;
        self.seen = self.local.seen(&edition.view());
    }

    /// Whether a request is not to be sent at all, to relieve the endpoints. It is counted then.
    pub fn drops(&self, dice: &mut fastrand::Rng) -> bool {
        self.seen.view.spec.drops.iter().any(|one| one.takes(dice))
    }

    /// Chooses an endpoint whose id is not in `tried`. `key` is for consistent hashing.
    ///
    /// Errors: [`Reason::Overflow`] when a limit of the upstream refuses another request or repeat, [`Reason::UpstreamDns`] when no name could be resolved,
    /// [`Reason::NoEndpoint`] when there is none or all were tried.
    pub fn pick(
        &self,
        key: Option<u64>,
        tried: &[u64],
        seen: Seen,
        dice: &mut fastrand::Rng,
        now: Instant,
    ) -> Result<Picked, UpstreamError> {
        let repeat = seen == Seen::Perhaps;
        self.admit(repeat)?;
        let mut balancer = self.local.balancer.borrow_mut();
        let view = &self.seen.view;
        let Some(pick) = balancer.pick(&view.balance, key, tried, dice, now) else {
            return Err(self.no_endpoint());
        };
        self.taken(pick, &balancer, repeat)
    }

    /// Chooses the endpoint that this token stands for; `None` when it is not there, may not be used or is in `tried`.
    ///
    /// Errors: [`Reason::Overflow`] as [`Target::pick`].
    pub fn pick_preferred(&self, token: u64, tried: &[u64], seen: Seen, now: Instant) -> Option<Result<Picked, UpstreamError>> {
        let index = self.seen.hosts.iter().position(|host| host.name.token == token)?;
        let repeat = seen == Seen::Perhaps;
        let mut balancer = self.local.balancer.borrow_mut();
        let pick = balancer.prefer(&self.seen.view.balance, index, tried, now)?;
        if let Err(error) = self.admit(repeat) {
            if pick.trial {
                self.seen.view.balance.nodes()[index].standing.give_back();
            }
            return Some(Err(error));
        }
        Some(self.taken(pick, &balancer, repeat))
    }

    /// How many endpoints stand that could be chosen.
    pub fn standing(&self) -> usize {
        let may = |node: &&balance::Node| node.weight > 0 && node.standing.state() != balance::State::Down;
        self.seen.view.balance.nodes().iter().filter(may).count()
    }

    fn taken(&self, pick: balance::Pick, balancer: &balance::Worker, repeat: bool) -> Result<Picked, UpstreamError> {
        let (Some(host), Some(load)) = (self.seen.hosts.get(pick.index), balancer.load(pick.index)) else {
            return Err(self.no_endpoint());
        };
        self.local.active.set(self.local.active.get() + 1);
        if repeat {
            self.local.repeats.set(self.local.repeats.get() + 1);
        }
        host.shard.attempts.inc();
        host.shard.active.inc();
        Ok(Picked {
            endpoint: EndpointHandle(host.clone()),
            seen: self.seen.clone(),
            local: self.local.clone(),
            in_flight: InFlight::start(load),
            trial: Cell::new(pick.trial),
            repeat,
        })
    }

    fn admit(&self, repeat: bool) -> Result<(), UpstreamError> {
        let breakers = &self.config().breakers;
        let active = self.local.active.get();
        let overflow = |detail: &'static str| {
            if let Some(host) = self.seen.hosts.first() {
                host.shard.overflows.inc();
            }
            Err(UpstreamError::new(Reason::Overflow, Sent::Nothing, detail))
        };
        if breakers.max_requests.is_some_and(|most| active >= most) {
            return overflow("breakers.max_requests is reached");
        }
        let percent = u32::from(breakers.retry_budget_percent.unwrap_or(REPEAT_PERCENT));
        let spent = self.local.spent.get();
        if !repeat {
            self.local.spent.set(spent.saturating_sub(percent));
        } else if spent + REPEAT_COST <= percent * SAVING_REQUESTS {
            self.local.spent.set(spent + REPEAT_COST);
        } else if self.local.repeats.get() >= FREE_REPEATS {
            return overflow("breakers.retry_budget_percent is used up");
        }
        Ok(())
    }

    fn no_endpoint(&self) -> UpstreamError {
        let view = &self.seen.view;
        if view.endpoints.is_empty() && view.unresolved + view.pending > 0 {
            UpstreamError::new(Reason::UpstreamDns, Sent::Nothing, "no name of the upstream could be resolved")
        } else {
            UpstreamError::new(Reason::NoEndpoint, Sent::Nothing, "no endpoint is left to try")
        }
    }
}

impl Picked {
    /// Id for `tried`.
    pub fn id(&self) -> u64 {
        self.host().core.id
    }

    /// Address and name of the endpoint.
    pub fn endpoint(&self) -> &EndpointHandle {
        &self.endpoint
    }

    /// This worker's side of the endpoint.
    pub(super) fn host(&self) -> &Rc<Host> {
        &self.endpoint.0
    }

    /// The cluster that it belongs to.
    pub(super) fn cluster(&self) -> &Cluster {
        &self.local.cluster
    }

    /// The configuration that the try runs on.
    pub(super) fn spec(&self) -> &Spec {
        &self.seen.view.spec
    }

    /// Tells health what was found.
    pub(super) fn report(&self, finding: Finding, now: Instant) {
        self.trial.set(false);
        self.local.cluster.traffic(self.spec(), &self.host().core, finding, now);
    }

    /// Notes how long the endpoint took to answer.
    pub(super) fn observe(&self, took: std::time::Duration, now: Instant) {
        if self.spec().config.balancer == Balancer::Ewma {
            self.in_flight.load().observe(took, now);
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.local.active.set(self.local.active.get().saturating_sub(1));
        if self.repeat {
            self.local.repeats.set(self.local.repeats.get().saturating_sub(1));
        }
        self.host().shard.active.dec();
        if self.trial.get() {
            self.host().core.health.standing().give_back();
        }
    }
}
