//! From clusters of Envoy to upstreams of our model and their endpoints, in each way in which routes use them. It knows no stream and no filter.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dialect::envoy::decode::piece::{Addresses, Assignment, Cluster, Probed, Route};
use crate::model::{
    ActiveCheck, Balancer, CheckKind, Endpoint, Endpoints, HashOn, LocalityWeight, PassHost, Resource, Spread, Upstream,
};

/// One way in which routes use a cluster; each is an upstream of ours.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Variant {
    pub(super) hash: Option<HashOn>,
    pub(super) own_host: bool,
}

/// The variants of clusters that a listener's routes use, by cluster. The plain one, which is always there, is not listed, so that a cluster which is used in no
/// other way costs nothing more.
pub(super) type Uses = BTreeMap<Arc<str>, Vec<Variant>>;

impl Variant {
    pub(super) fn of(route: &Route) -> Variant {
        Variant { hash: route.hash.clone(), own_host: route.own_host }
    }

    /// What tells it from others of the same cluster; empty for the plain one.
    fn key(&self) -> String {
        let mut key = match &self.hash {
            None => String::new(),
            Some(HashOn::Header(name)) => format!("#header:{name}"),
            Some(HashOn::Cookie(name)) => format!("#cookie:{name}"),
            Some(HashOn::Var(name) | HashOn::VarsCombination(name)) => format!("#{name}"),
            Some(HashOn::Consumer) => "#consumer".to_owned(),
        };
        if self.own_host {
            key.push_str("#host");
        }
        key
    }

    /// The name of a cluster that is used in this way, which is noted.
    pub(super) fn used(&self, cluster: &Arc<str>, uses: &mut Uses) -> Arc<str> {
        let known = match uses.get_mut(cluster) {
            Some(known) => known,
            None => uses.entry(cluster.clone()).or_default(),
        };
        if *self == Variant::default() {
            return cluster.clone();
        }
        if !known.contains(self) {
            known.push(self.clone());
        }
        format!("{cluster}{}", self.key()).into()
    }
}

/// What a cluster is here: an upstream and its endpoints for each way in which it is used, and its key material.
pub(super) fn cluster(cluster: &Cluster, asked: Option<&Assignment>, variants: &[&Variant]) -> Vec<Resource> {
    let mut resources: Vec<Resource> = cluster.secrets.iter().cloned().map(Resource::Secret).collect();
    let assignment = match &cluster.addresses {
        Addresses::Told(assignment) => Some(assignment),
        Addresses::Asked(_) => asked,
    };
    let mut plain_upstream = cluster.upstream.clone();
    let endpoints = assignment.map(|assignment| placed_endpoints(assignment, cluster.by_locality, &mut plain_upstream));
    let endpoints = endpoints.unwrap_or_default();
    let plain = Variant::default();
    for variant in [&plain].into_iter().chain(variants.iter().copied()) {
        let name = match variant.key() {
            key if key.is_empty() => cluster.upstream.name.clone(),
            key => format!("{}{key}", cluster.upstream.name).into(),
        };
        let mut upstream = plain_upstream.clone();
        if *variant != plain {
            let upstream = Arc::make_mut(&mut upstream);
            upstream.name = name.clone();
            if let (Some(hash), Some(table)) = (&variant.hash, cluster.table) {
                upstream.balancer = Balancer::ConsistentHash(hash.clone(), table);
            }
            if variant.own_host {
                upstream.pass_host = PassHost::Node;
            }
        }
        resources.push(Resource::Upstream(upstream));
        resources.push(Resource::Endpoints(Endpoints { upstream: name, endpoints: endpoints.clone() }));
    }
    resources
}

/// The endpoints of an assignment, and how requests are spread over its priorities and localities.
fn placed_endpoints(assignment: &Assignment, by_locality: bool, upstream: &mut Arc<Upstream>) -> Arc<[Endpoint]> {
    if upstream.locality.overprovisioning != assignment.overprovisioning {
        Arc::make_mut(upstream).locality.overprovisioning = assignment.overprovisioning;
    }
    if upstream.drops != assignment.drops {
        Arc::make_mut(upstream).drops.clone_from(&assignment.drops);
    }
    if let Some(check) = probed_as(assignment, upstream.checks.active.as_deref()) {
        Arc::make_mut(upstream).checks.active = Some(Arc::new(check));
    }
    let spread = Spread { health_by_weight: assignment.health_by_weight, ..Spread::default() };
    if !by_locality {
        if upstream.locality.spread.as_ref() != Some(&spread) {
            Arc::make_mut(upstream).locality.spread = Some(spread);
        }
        return assignment.endpoints.clone();
    }
    let mut endpoints = assignment.endpoints.to_vec();
    let mut spread = spread;
    let mut rest = &mut endpoints[..];
    for locality in &assignment.localities {
        let (own, others) = rest.split_at_mut(locality.count.min(rest.len()));
        own.iter_mut().for_each(|endpoint| endpoint.zone = locality.name.clone());
        rest = others;
        spread.weights.push(LocalityWeight { priority: locality.priority, zone: locality.name.clone(), weight: locality.weight });
    }
    Arc::make_mut(upstream).locality.spread = Some(spread);
    endpoints.into()
}

/// The check of a cluster whose endpoints say as whom they are probed, which goes before what the check says; nothing where that makes no difference.
fn probed_as(assignment: &Assignment, check: Option<&ActiveCheck>) -> Option<ActiveCheck> {
    let host = match assignment.probed.as_ref()? {
        Probed::Own => None,
        Probed::As(host) => Some(host.clone()),
    };
    let check = check.filter(|check| check.kind != CheckKind::Tcp && check.host != host)?;
    Some(ActiveCheck { host, ..check.clone() })
}
