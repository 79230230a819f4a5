//! The run-time side of one upstream: shared by all workers, it outlives changes of configuration. It opens no connections.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::{ArcSwap, Guard};
use heddle_node::identity::Identity;
use heddle_node::membership::{Facts, Membership};
use heddle_xds::model::{self, CheckKind, Discovery, UpstreamTls};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::Instant;

use super::edition::{Edition, Gone, News};
use super::evidence;
use super::expand::{self, Answers, Expanded, Wanted};
use super::tls::{Secrets, TlsStore};
use super::view::{Endpoint, EndpointCore, EndpointView};
use crate::balance::{Callers, Epoch, Node, Policy, Standing, View, Zones};
use crate::dns::Answer;
use crate::health::{Change, EndpointHealth, Fellows, Judge, Rules};
use crate::upstream::drops::{Dropping, Drops};

/// What all clusters of a node share.
pub struct Context {
    /// TLS configurations.
    pub tls: TlsStore,
    /// Who this node is, for endpoints in the mesh.
    pub identity: Identity,
    /// Who else belongs to the fleet, and what they have found out about endpoints.
    pub membership: Membership,
    /// What all clusters share towards the fleet.
    pub fellows: Fellows,
    /// What our zone has of all who call the same upstreams.
    pub callers: Arc<Callers>,
    /// Requests that were not sent at all.
    pub drops: Drops,
    /// Told of every change of health, on whatever thread it happens; must be quick.
    pub on_health: Box<dyn Fn(&HealthEvent) + Send + Sync>,
}

impl Default for Context {
    fn default() -> Context {
        let membership = Membership::alone("", Facts::default());
        Context {
            tls: TlsStore::default(),
            identity: Identity::new(),
            membership,
            fellows: Fellows::default(),
            callers: Arc::default(),
            drops: Drops::default(),
            on_health: Box::new(|_| ()),
        }
    }
}

/// A change of health, for logs and metrics.
#[derive(Debug, Clone)]
pub struct HealthEvent {
    /// Label of the upstream.
    pub upstream: Arc<str>,
    /// Node name.
    pub host: Arc<str>,
    /// Address.
    pub address: SocketAddr,
    /// What changed and why.
    pub change: Change,
}

/// The configuration of an upstream, compiled.
#[derive(Debug)]
pub struct Spec {
    /// As delivered.
    pub config: Arc<model::Upstream>,
    /// Thresholds of health.
    pub rules: Rules,
    /// TLS, where the scheme or the mesh asks for it; what is wrong with it otherwise.
    pub tls: Option<Result<Arc<ClientConfig>, Arc<str>>>,
    /// Probes, and their TLS for checks of kind `https`.
    pub probes: Option<(Arc<model::ActiveCheck>, Option<Arc<ClientConfig>>)>,
    /// Shares of the requests that are not sent at all.
    pub(in crate::upstream) drops: Box<[Dropping]>,
}

/// The run-time side of one upstream: what all its [`Edition`]s share.
pub struct Cluster {
    /// Unique in this process.
    pub id: u64,
    /// Name of the upstream.
    pub name: Arc<str>,
    /// That of the newest edition.
    pub(super) view: ArcSwap<EndpointView>,
    epoch: Arc<Epoch>,
    pub(super) context: Arc<Context>,
    pub(super) inner: Mutex<Inner>,
    /// Editions that somebody may hold, the newest one last. Locked for a moment only, and never while an edition may be let go of.
    pub(super) held: Mutex<Vec<Weak<Edition>>>,
    /// Changes whenever the view or the health of an endpoint does; made for the first who wants to know.
    changes: OnceLock<watch::Sender<u64>>,
    /// Probes that have ended.
    pub(super) probes: AtomicU64,
    retired: AtomicBool,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) nodes: Arc<[model::Endpoint]>,
    answers: Answers,
    /// Whether endpoints have been there before: later ones ramp up.
    serving: bool,
}

impl Cluster {
    /// A cluster that has no edition yet.
    pub(super) fn new(
        context: Arc<Context>,
        config: Arc<model::Upstream>,
        nodes: &Arc<[model::Endpoint]>,
        secrets: Secrets<'_>,
        now: Instant,
    ) -> Arc<Cluster> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let epoch = Arc::new(Epoch::default());
        let spec = Spec::compile(&context, config, secrets);
        let balance = spec.balance(Vec::new(), &context, &epoch);
        let empty = EndpointView {
            spec: Arc::new(spec),
            endpoints: Vec::new(),
            balance,
            pending: 0,
            unresolved: 0,
            draining_serve: false,
        };
        let cluster = Arc::new(Cluster {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: empty.spec.config.name.clone(),
            view: ArcSwap::from_pointee(empty),
            epoch,
            context,
            inner: Mutex::new(Inner { nodes: nodes.clone(), ..Inner::default() }),
            held: Mutex::default(),
            changes: OnceLock::new(),
            probes: AtomicU64::new(0),
            retired: AtomicBool::new(false),
        });
        cluster.rebuild(&mut cluster.inner.lock(), None, News::Revision, now);
        cluster
    }

    /// Takes a DNS answer. Without one for a name that had one before, the last good answer stays.
    pub fn resolved(&self, name: &str, answer: Option<Answer>, now: Instant) {
        let mut inner = self.inner.lock();
        let known = inner.answers.get(name).and_then(Option::as_ref);
        let next = match (answer, known) {
            (Some(answer), Some(known)) if **known == answer => return,
            (Some(answer), _) => answer,
            (None, Some(_)) => return,
            (None, None) => Answer::default(),
        };
        inner.answers.insert(name.into(), Some(Arc::new(next)));
        self.rebuild(&mut inner, None, News::Discovery, now);
    }

    /// Names that need to be resolved, and whether SRV records are asked for.
    pub fn names(&self) -> Vec<(Arc<str>, bool)> {
        let inner = self.inner.lock();
        let view = self.view.load();
        let mut names = Vec::new();
        if let Some(Discovery::Dns(name)) = &view.spec.config.discovery {
            names.push((expand::split_port(name).0.into(), true));
        }
        for node in inner.all_nodes(&view.spec).iter() {
            if node.host.parse::<std::net::IpAddr>().is_err() && !names.iter().any(|(name, _)| *name == node.host) {
                names.push((node.host.clone(), false));
            }
        }
        names
    }

    /// The endpoints of the newest edition.
    pub fn view(&self) -> Guard<Arc<EndpointView>> {
        self.view.load()
    }

    /// Counts what changes for balancing.
    pub(super) fn epoch(&self) -> &Arc<Epoch> {
        &self.epoch
    }

    /// Changes whenever the view or the health of an endpoint does.
    pub fn watch(&self) -> watch::Receiver<u64> {
        let receiver = self.changes.get_or_init(|| watch::Sender::new(0)).subscribe();
        // Either who changes something sees the first who waits, or that one sees the change.
        fence(Ordering::SeqCst);
        receiver
    }

    /// Tells those who wait for the view or the health of an endpoint.
    pub(super) fn changed(&self) {
        fence(Ordering::SeqCst);
        if let Some(changes) = self.changes.get() {
            changes.send_modify(|count| *count += 1);
        }
    }

    /// Whether anything has to be done for it off the request path: names, probes, or waits after an ejection.
    pub(super) fn needs_keeper(&self) -> bool {
        let rules = &self.view.load().spec.rules;
        rules.traffic.is_some() || rules.probes.is_some() || !self.names().is_empty()
    }

    /// Lets go of all endpoints: the upstream is gone. Requests under way end as they began.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.context.drops.forget(&self.name);
        self.context.fellows.tell(&self.context.membership, &self.name, Vec::new());
        self.context.fellows.checks(&self.context.membership, &self.name, None, heddle_node::clock::now());
        for endpoint in &self.view.load().endpoints {
            endpoint.core.retire();
        }
    }

    /// Who this node is, for endpoints in the mesh.
    pub fn identity(&self) -> &Identity {
        &self.context.identity
    }

    /// Whether it was let go of.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Makes a new view from nodes and answers, with the endpoints of the old one where they stay.
    pub(super) fn rebuild(&self, inner: &mut Inner, spec: Option<Arc<Spec>>, news: News, now: Instant) {
        let old = self.view.load();
        let spec = spec.unwrap_or_else(|| old.spec.clone());
        let (nodes, waiting) = (inner.all_nodes(&spec), inner.awaits_discovery(&spec));
        if !inner.answers.is_empty() {
            let used = self.names_of(&nodes, &spec);
            inner.answers.retain(|name, _| used.contains(name));
        }
        let Expanded { wanted, pending, unresolved } = expand::expand(&nodes, &inner.answers);
        let known: HashMap<_, _> = old.endpoints.iter().map(|old| ((old.core.address, &*old.core.host), &old.core)).collect();
        let mut endpoints = Vec::with_capacity(wanted.len());
        let mut balanced = Vec::with_capacity(wanted.len());
        let mut changes = Vec::new();
        for want in wanted {
            let core = match known.get(&(want.address, &*want.host)) {
                Some(core) => (*core).clone(),
                None => self.new_core(&want, inner.serving, now),
            };
            changes.extend(core.health.told(want.status, now).map(|change| (core.clone(), change)));
            balanced.push(Node {
                id: core.id,
                identity: want.identity,
                weight: want.weight,
                priority: want.priority,
                zone: want.zone.clone(),
                standing: core.health.standing().clone(),
            });
            let Wanted { fallbacks, weight, priority, zone, .. } = want;
            endpoints.push(Endpoint { core, fallbacks, weight, priority, zone });
        }
        let mut gone = Gone::new();
        // What a revision has no more is let go of with the last edition that has it.
        if news == News::Discovery && !old.endpoints.is_empty() {
            let stays: HashSet<u64> = endpoints.iter().map(|endpoint| endpoint.core.id).collect();
            for left in old.endpoints.iter().filter(|old| !stays.contains(&old.core.id)) {
                left.core.retire();
                gone.insert((left.core.address, &*left.core.host));
            }
        }
        inner.serving |= !endpoints.is_empty();
        let draining_serve = evidence::leave_draining_out(&mut balanced, &endpoints);
        let balance = spec.balance(balanced, &self.context, &self.epoch);
        let pending = pending + waiting;
        let view = Arc::new(EndpointView { spec, endpoints, balance, pending, unresolved, draining_serve });
        self.view.store(view.clone());
        self.hand_on(&view, news, &gone);
        changes.iter().for_each(|(core, change)| self.tell(core, *change));
        self.changed();
    }

    /// Takes which members of the fleet are about to leave, by the addresses at which they take requests: those of them that are
    /// endpoints of any edition get nothing new.
    pub(in crate::upstream) fn members_leave(&self, leaving: &HashMap<SocketAddr, Arc<str>>, now: Instant) {
        let mut changed = false;
        self.each_core(|core| changed |= core.health.leaving(leaving.get(&core.address), now));
        if changed {
            self.rebuild(&mut self.inner.lock(), None, News::Discovery, now);
        }
    }

    /// Endpoints that drain serve on only while nobody else does: makes the view anew when that is not as it was.
    pub(super) fn recount(&self, now: Instant) {
        let mut inner = self.inner.lock();
        let is_old = |view: &EndpointView| evidence::must_draining_serve(&view.endpoints) != view.draining_serve;
        if is_old(&self.view.load()) || self.editions().iter().any(|edition| is_old(&edition.view())) {
            self.rebuild(&mut inner, None, News::Discovery, now);
        }
    }

    fn new_core(&self, want: &Wanted, serving: bool, now: Instant) -> Arc<EndpointCore> {
        let epoch = self.epoch.clone();
        let standing = if serving { Standing::joining(epoch, now) } else { Standing::new(epoch, now) };
        EndpointCore::new(want.host.clone(), want.address, EndpointHealth::new(Arc::new(standing), now))
    }

    fn names_of(&self, nodes: &Arc<[model::Endpoint]>, spec: &Spec) -> HashSet<Arc<str>> {
        let found = spec.config.discovery.iter().map(|Discovery::Dns(name)| Arc::from(expand::split_port(name).0));
        nodes.iter().map(|node| node.host.clone()).chain(found).collect()
    }
}

impl Inner {
    /// Configured nodes, or those that discovery has brought.
    fn all_nodes(&self, spec: &Spec) -> Arc<[model::Endpoint]> {
        let Some(Discovery::Dns(name)) = &spec.config.discovery else {
            return self.nodes.clone();
        };
        match self.answers.get(expand::split_port(name).0) {
            Some(Some(answer)) => expand::discovered(name, spec.config.scheme.default_port(), answer).into(),
            _ => Arc::default(),
        }
    }

    fn awaits_discovery(&self, spec: &Spec) -> usize {
        spec.config.discovery.iter().filter(|Discovery::Dns(name)| !self.answers.contains_key(expand::split_port(name).0)).count()
    }
}

impl Spec {
    pub(super) fn compile(context: &Context, config: Arc<model::Upstream>, secrets: Secrets<'_>) -> Spec {
        let rules = Rules {
            traffic: config.checks.passive.as_ref().map(|check| Box::new(Judge::new(&check.thresholds))),
            probes: config.checks.active.as_ref().map(|check| Box::new(Judge::new(&check.thresholds))),
        };
        let client = || context.tls.client(&config.tls, config.scheme.is_h2(), secrets).map_err(Arc::from);
        let tls = match &config.mesh {
            Some(peer) => Some(context.tls.mesh(&context.identity, peer).map_err(Arc::from)),
            None => config.scheme.is_tls().then(client),
        };
        let probes = config.checks.active.as_ref().map(|check| {
            if config.is_in_mesh() {
                // Only a sidecar with an identity gets an answer out of another one: a connection that stands must do.
                return (Arc::new(model::ActiveCheck { kind: CheckKind::Tcp, ..(**check).clone() }), None);
            }
            let demand = UpstreamTls { verify: check.verify_certificate, ..config.tls.clone() };
            let client = || context.tls.client(&demand, false, secrets).ok();
            (check.clone(), if check.kind == CheckKind::Https { client() } else { None })
        });
        Spec { drops: context.drops.of(&config), config, rules, tls, probes }
    }

    /// Whether its endpoints stand behind sidecars of the mesh.
    pub fn is_mesh(&self) -> bool {
        self.config.mesh.is_some()
    }

    /// Whether HTTP/2 is spoken with its endpoints.
    pub fn speaks_h2(&self) -> bool {
        self.is_mesh() || self.config.scheme.is_h2()
    }

    pub(super) fn same_tls(&self, other: &Spec) -> bool {
        match (&self.tls, &other.tls) {
            (Some(Ok(a)), Some(Ok(b))) => Arc::ptr_eq(a, b),
            (Some(Err(a)), Some(Err(b))) => a == b,
            (None, None) => true,
            _ => false,
        }
    }

    pub(super) fn balance(&self, nodes: Vec<Node>, context: &Context, epoch: &Arc<Epoch>) -> View {
        let policy = match &self.config.balancer {
            model::Balancer::RoundRobin => Policy::RoundRobin,
            model::Balancer::ConsistentHash(_, table) => Policy::ConsistentHash(*table),
            model::Balancer::LeastConn => Policy::LeastConn,
            model::Balancer::Ewma => Policy::Ewma,
        };
        let zones = Zones {
            own: context.membership.facts().zone.clone(),
            policy: self.config.locality.clone(),
            callers: context.callers.clone(),
        };
        View::new(policy, nodes, self.config.slow_start, self.config.panic_threshold, zones, epoch.clone())
    }
}

/// Whether key material decides what is compiled, so that it may have changed though the configuration has not.
pub(super) fn uses_tls(config: &model::Upstream) -> bool {
    config.mesh.is_none() && config.scheme.is_tls()
        || config.checks.active.as_ref().is_some_and(|check| check.kind == CheckKind::Https)
}
