//! What one revision of the configuration makes of an upstream, for the tables of that revision. All editions of an upstream share its cluster, and with it
//! endpoints, health, counters and connections. It resolves no names and judges no health.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, Guard};
use heddle_xds::model;
use tokio::time::Instant;

use super::evidence;
use super::state::{Cluster, Context, Spec, uses_tls};
use super::tls::Secrets;
use super::view::{Endpoint, EndpointCore, EndpointView};

/// How news of an upstream have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// With a revision of the configuration: who began before it keeps what there was.
    Revision,
    /// From discovery, and nothing else has changed: in force for everybody at once.
    Discovery,
}

/// Endpoints that discovery has taken away, by address and name: what came back meanwhile is another endpoint to older editions, yet the same place.
pub(super) type Gone<'a> = HashSet<(SocketAddr, &'a str)>;

/// An upstream as one revision of the configuration wants it, with the endpoints to choose from.
///
/// The newest edition has whatever is known now. An older one keeps the endpoints that it had, except for those that discovery takes away: these are gone
/// whatever the configuration says. When nothing is left of it, it follows the newest one.
pub struct Edition {
    /// Id of the cluster.
    pub id: u64,
    view: ArcSwap<EndpointView>,
    cluster: Arc<Cluster>,
}

impl Deref for Edition {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Edition {
    /// The first edition of a new cluster. `nodes` are its endpoints, empty while they are not known or when they are discovered.
    pub fn first(
        context: Arc<Context>,
        config: Arc<model::Upstream>,
        nodes: &Arc<[model::Endpoint]>,
        secrets: Secrets<'_>,
        now: Instant,
    ) -> Arc<Edition> {
        let cluster = Cluster::new(context, config, nodes, secrets, now);
        Edition::newest(&cluster)
    }

    fn newest(cluster: &Arc<Cluster>) -> Arc<Edition> {
        let view = ArcSwap::new(cluster.view.load_full());
        let edition = Arc::new(Edition { id: cluster.id, view, cluster: cluster.clone() });
        cluster.held.lock().push(Arc::downgrade(&edition));
        edition
    }

    /// Takes a configuration and nodes: this edition where they are no other or come from discovery, else the next one, and this one stays as it is.
    /// Endpoints that stay keep their health, their counters and their connections.
    #[must_use]
    pub fn next(
        self: &Arc<Self>,
        config: Arc<model::Upstream>,
        nodes: &Arc<[model::Endpoint]>,
        secrets: Secrets<'_>,
        news: News,
        now: Instant,
    ) -> Arc<Edition> {
        let cluster = &self.cluster;
        let mut inner = cluster.inner.lock();
        let unchanged = inner.nodes == *nodes;
        if unchanged && !uses_tls(&config) && cluster.view.load().spec.config == config {
            return self.clone();
        }
        let spec = Spec::compile(&cluster.context, config, secrets);
        let unchecked = spec.probes.is_none();
        let same = {
            let old = &cluster.view.load().spec;
            old.config == spec.config && old.same_tls(&spec)
        };
        if same && unchanged {
            return self.clone();
        }
        inner.nodes = nodes.clone();
        cluster.rebuild(&mut inner, Some(Arc::new(spec)), news, now);
        let next = if news == News::Discovery { self.clone() } else { Edition::newest(cluster) };
        drop(inner);
        if unchecked {
            cluster.unshare(now);
        }
        cluster.tick(now);
        next
    }

    /// The endpoints to choose from at this moment.
    pub fn view(&self) -> Guard<Arc<EndpointView>> {
        self.view.load()
    }

    /// What all its editions share.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Takes over what is true whatever the configuration: that endpoints are `gone`, and which of the others drain.
    fn follow(&self, newest: &Arc<EndpointView>, gone: &Gone<'_>) {
        let own = self.view.load_full();
        if own.endpoints.is_empty() && own.pending == 0 {
            return;
        }
        let stays = |endpoint: &Endpoint| !gone.contains(&(endpoint.core.address, &*endpoint.core.host));
        own.endpoints.iter().filter(|endpoint| !stays(endpoint)).for_each(|endpoint| endpoint.core.retire());
        if !own.endpoints.iter().any(stays) {
            self.view.store(newest.clone());
            return;
        }
        let both = || own.endpoints.iter().zip(own.balance.nodes()).filter(|(endpoint, _)| stays(endpoint));
        let endpoints: Vec<Endpoint> = both().map(|(endpoint, _)| endpoint.clone()).collect();
        let mut nodes: Vec<_> = both().map(|(_, node)| node.clone()).collect();
        nodes.iter_mut().zip(&endpoints).for_each(|(node, endpoint)| node.weight = endpoint.weight);
        let draining_serve = evidence::leave_draining_out(&mut nodes, &endpoints);
        let weights = own.balance.nodes().iter().map(|node| (node.id, node.weight));
        if draining_serve == own.draining_serve && nodes.iter().map(|node| (node.id, node.weight)).eq(weights) {
            return;
        }
        let balance = own.spec.balance(nodes, &self.cluster.context, self.cluster.epoch());
        let (spec, pending, unresolved) = (own.spec.clone(), own.pending, own.unresolved);
        self.view.store(Arc::new(EndpointView { spec, endpoints, balance, pending, unresolved, draining_serve }));
    }
}

impl Drop for Edition {
    /// Nobody begins here any more: what no other edition has is let go of.
    fn drop(&mut self) {
        let (own, newest) = (self.view.load(), self.cluster.view());
        if Arc::ptr_eq(&own, &newest) {
            return;
        }
        let ids = |view: &EndpointView| view.endpoints.iter().map(|endpoint| endpoint.core.id).collect::<Vec<u64>>();
        let mut stays: HashSet<u64> = ids(&newest).into_iter().collect();
        // Of two that are dropped at the same moment neither finds the other: both let go.
        self.cluster.editions().iter().for_each(|edition| stays.extend(ids(&edition.view())));
        own.endpoints.iter().filter(|endpoint| !stays.contains(&endpoint.core.id)).for_each(|endpoint| endpoint.core.retire());
    }
}

impl Cluster {
    /// The editions that somebody holds, the newest one last. Nothing is locked any more when they are handed out, as the last of an edition may be let go
    /// of by whoever has asked for them.
    pub(super) fn editions(&self) -> Vec<Arc<Edition>> {
        let mut held = self.held.lock();
        let found: Vec<Arc<Edition>> = held.iter().filter_map(Weak::upgrade).collect();
        held.retain(|edition| edition.strong_count() > 0);
        found
    }

    /// Every endpoint that somebody can choose, in whatever edition; those of several more than once.
    pub(super) fn each_core(&self, mut told: impl FnMut(&Arc<EndpointCore>)) {
        let newest = self.view.load();
        newest.endpoints.iter().for_each(|endpoint| told(&endpoint.core));
        for edition in self.editions() {
            let view = edition.view();
            if !Arc::ptr_eq(&view, &newest) {
                view.endpoints.iter().for_each(|endpoint| told(&endpoint.core));
            }
        }
    }

    /// Hands a new list on to the editions that somebody holds: news of discovery are the newest edition's own, a revision will have an edition of its own.
    pub(super) fn hand_on(&self, view: &Arc<EndpointView>, news: News, gone: &Gone<'_>) {
        let mut editions = self.editions();
        if news == News::Discovery
            && let Some(newest) = editions.pop()
        {
            newest.view.store(view.clone());
        }
        editions.iter().for_each(|edition| edition.follow(view, gone));
    }
}
