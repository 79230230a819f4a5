//! What an Envoy beside an application is given: a listener for what other members of the mesh send to it, which asks the policies of its service, and one for
//! each service that it calls. It knows no stream.
//!
//! Where these are is the Envoy's own to say ([`Station`]); who it is follows from its certificate. So each has a snapshot of its own, in which a few
//! resources are encoded anew whenever something changes that concerns it.

mod listeners;
mod modes;
mod policy;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use heddle_proto::envoy::config::listener::v3 as wire;
use heddle_proto::envoy::config::route::v3 as routes;
use heddle_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use prost::Message;

use super::cluster;
use super::grpc::standing;
use super::listener::takes_bytes;
use super::plugins::Filters;
use super::{Difference, Reader, Withheld, bytes, endpoints, route, table, zones};
use crate::model::{
    AuthorizationPolicy, Endpoints, Instance, Kind, MESH_PREFIX, MeshProtocol, MeshService, PeerMode, Resource, Route,
    RouteMatch, Upstream, UpstreamRef,
};
use crate::protocol::Station;
use crate::snapshot::{Changes, NodeScope, SnapshotSource, Versioned, View};

pub(super) use listeners::host_of;
use listeners::{Sent, Way};
pub(super) use tls::outward;

/// Who an Envoy beside an application is, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its service is that of its certificate.
    pub scope: NodeScope,
    /// The trust domain of its certificate.
    pub domain: Arc<str>,
    /// What others are told of it.
    pub instance: Option<Instance>,
    /// What stands beside it.
    pub station: Station,
}

/// Keeps what such an Envoy is given, and says what differs when the snapshot changes.
#[derive(Debug)]
pub(super) struct MeshEncoder {
    who: Member,
    /// Versions of what was given.
    given: BTreeMap<(Kind, Arc<str>), Arc<str>>,
    /// Services that it needs to know of.
    needed: BTreeSet<Arc<str>>,
    withheld: Vec<Withheld>,
}

/// What one Envoy is given, and what it is not.
#[derive(Default)]
struct Wanted {
    /// Where it is who wants it.
    zone: Arc<str>,
    all: Vec<Versioned>,
    needed: BTreeSet<Arc<str>>,
    /// Services that have a listener.
    called: BTreeSet<Arc<str>>,
    withheld: Vec<Withheld>,
}

impl MeshEncoder {
    /// Nothing is encoded yet.
    pub fn new(who: Member) -> MeshEncoder {
        MeshEncoder { who, given: BTreeMap::new(), needed: BTreeSet::new(), withheld: Vec::new() }
    }

    /// What differs now that the snapshot is `view`, which it became by `changes`.
    pub fn apply(&mut self, view: &View, changes: &Changes) -> Difference {
        if !self.concerned_by(changes) {
            return Difference::new();
        }
        let Wanted { all, needed, withheld, .. } = self.wanted(view);
        let key = |versioned: &Versioned| (versioned.resource.kind(), versioned.resource.name().clone());
        let now: BTreeMap<_, _> = all.iter().map(|versioned| (key(versioned), versioned.version.clone())).collect();
        let gone: Vec<_> = self.given.keys().filter(|key| !now.contains_key(key)).cloned().map(Err).collect();
        let is_new = |versioned: &Versioned| self.given.get(&key(versioned)) != Some(&versioned.version);
        let difference = all.into_iter().filter(is_new).map(Ok).chain(gone).collect();
        (self.given, self.needed, self.withheld) = (now, needed, withheld);
        difference
    }

    /// Its id.
    pub fn node(&self) -> &str {
        &self.who.scope.id
    }

    /// What it is not given.
    pub fn withheld(&self) -> Vec<Withheld> {
        self.withheld.clone()
    }

    fn concerned_by(&self, changes: &Changes) -> bool {
        let Some(names) = &changes.names else { return true };
        names.iter().any(|(kind, name)| match kind {
            Kind::AuthorizationPolicy | Kind::MeshInbound | Kind::PeerAuthentication | Kind::PluginMetadata => true,
            Kind::MeshService => self.needed.contains(name),
            Kind::Endpoints => name.strip_prefix(MESH_PREFIX).is_some_and(|service| self.needed.contains(service)),
            _ => false,
        })
    }

    fn wanted(&self, view: &View) -> Wanted {
        let mut wanted = Wanted { zone: self.who.scope.zone.clone(), ..Wanted::default() };
        if let Some(instance) = &self.who.instance
            && let Err(reason) = self.inbound(instance, view, &mut wanted)
        {
            wanted.withheld.push(Withheld { kind: Kind::Listener, name: listeners::INBOUND.into(), reason });
        }
        for (called, at) in &self.who.station.outbound {
            let service: Arc<str> = match called.contains('/') {
                true => called.clone(),
                false => format!("{}/{called}", self.who.scope.namespace).into(),
            };
            if wanted.called.insert(service.clone()) {
                outbound(&service, *at, view, &mut wanted);
            } else {
                let reason = format!("node.metadata.outbound names it twice: nothing is opened at {at}");
                wanted.withheld.push(Withheld { kind: Kind::MeshService, name: service, reason });
            }
        }
        // Several services may lead to the same cluster.
        let mut told = BTreeSet::new();
        wanted.all.retain(|versioned| told.insert((versioned.resource.kind(), versioned.resource.name().clone())));
        wanted
    }

    /// The way to the application.
    fn inbound(&self, instance: &Instance, view: &View, wanted: &mut Wanted) -> Result<(), String> {
        let Member { scope, domain, station, .. } = &self.who;
        let application = station.application.ok_or("node.metadata.application says where the application listens")?;
        let sent = listeners::sent(instance.protocol)?;
        if !instance.ports.is_empty() {
            return Err("node.metadata.instance.ports: an Envoy stands before one port of its application".to_owned());
        }
        let own = view.find(Kind::MeshInbound, &format!("{}/{}", scope.namespace, scope.service));
        if own.is_some() {
            return Err("inbound_plugins: they run in agents of ours alone, and nothing comes in without them".to_owned());
        }
        let all = view.all(Kind::AuthorizationPolicy).1;
        let policies: Vec<&AuthorizationPolicy> = all
            .iter()
            .filter(|(_, found)| scope.sees(&found.resource))
            .filter_map(|(_, found)| match &found.resource {
                Resource::AuthorizationPolicy(policy) => Some(policy),
                _ => None,
            })
            .collect();
        let rules = policy::rules(
            &policies,
            &policy::Meaning { domain: Some(domain), port: application.port(), opaque: sent == Sent::Bytes },
        );
        let ip = instance.address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let mut in_clear = modes::at(view, scope, application.port()) != PeerMode::Strict;
        if in_clear && sent == Sent::Bytes {
            let reason = "peer_authentications: who speaks first would be heard by callers in clear before Envoy asks any policy: it takes members alone";
            wanted.withheld.push(Withheld { kind: Kind::Listener, name: listeners::INBOUND.into(), reason: reason.into() });
            in_clear = false;
        }
        let at = SocketAddr::new(ip, instance.port);
        let listener = listeners::inbound(at, (domain, station.federated), sent, in_clear);
        let cluster = listeners::application(application, sent);
        wanted.all.push(versioned(bare(listeners::INBOUND), bytes(&cluster)));
        wanted.all.push(versioned(table(listeners::INBOUND), bytes(&listeners::to_application(rules, sent))));
        wanted.all.push(versioned(standing(listeners::INBOUND), bytes(&listener)));
        Ok(())
    }
}

/// The way to a service that the application calls. What cannot be told of it is answered with 503.
fn outbound(service: &Arc<str>, at: SocketAddr, view: &View, wanted: &mut Wanted) {
    let name = format!("outbound/{service}");
    wanted.needed.insert(service.clone());
    if let Some(known) = called(view, service).filter(|known| known.protocol == MeshProtocol::Tcp) {
        let listener = tunnel(&name, at, known, view, wanted);
        return wanted.all.push(versioned(standing(&name), bytes(&listener)));
    }
    let mut further = Filters::new();
    let encoded = called(view, service).map(|known| routed(known, view, wanted, &mut further)).transpose();
    let routes = match encoded {
        Ok(Some(all)) => listeners::to_service(&name, service, at, all),
        Ok(None) => listeners::unavailable(&name),
        Err(reason) => {
            wanted.withheld.push(Withheld { kind: Kind::MeshService, name: service.clone(), reason });
            listeners::unavailable(&name)
        }
    };
    wanted.all.push(versioned(table(&name), bytes(&routes)));
    wanted.all.push(versioned(standing(&name), bytes(&listeners::outbound(&name, at, &further))));
}

/// The way to a service that speaks bytes: what cannot be told of it closes connections.
fn tunnel(name: &str, at: SocketAddr, service: &MeshService, view: &View, wanted: &mut Wanted) -> wire::Listener {
    let upstream = &service.upstream;
    let way = takes_bytes(upstream).and_then(|hashed| {
        clusters(upstream, endpoints(view, &upstream.name), wanted)?;
        let authority = (!upstream.in_clear).then(|| authority(service));
        Ok(Way { cluster: &upstream.name, authority, attempts: tries(upstream), hashed })
    });
    match way {
        Ok(way) => listeners::tunnel(name, at, way),
        Err(reason) => {
            wanted.withheld.push(Withheld { kind: Kind::MeshService, name: service.name.clone(), reason });
            listeners::closed(name, at)
        }
    }
}

/// What a peer is told that the bytes of a tunnel are for: the service, and a port on which it is called that is no service of its own.
fn authority(service: &MeshService) -> String {
    let port = service.ports.first().copied().unwrap_or(80);
    let port = if service.own_ports.contains(&port) { 0 } else { port };
    format!("{}:{port}", host_of(&service.name))
}

/// How often a connection of bytes is tried in all.
pub(super) fn tries(upstream: &Upstream) -> u32 {
    upstream.retries.unwrap_or(route::RETRIES).saturating_add(1)
}

/// The routes of a service, with the clusters that they lead to.
fn routed(service: &MeshService, view: &View, wanted: &mut Wanted, further: &mut Filters) -> Result<Vec<routes::Route>, String> {
    listeners::sent(service.protocol)?;
    let find = |name: &str| Some(&*called(view, name.strip_prefix(MESH_PREFIX)?)?.upstream);
    let around = (&[][..], &Arc::default(), &route::metadata(view));
    let encoded = route::encode((Reader::Envoy, &as_route(service)), around, &find)?;
    let mut places = encoded.places;
    places.sort_by(|a, b| a.order.cmp(&b.order));
    wanted.needed.extend(service.depends.iter().cloned());
    for name in &encoded.upstreams {
        let Some(upstream) = find(name) else { continue };
        clusters(upstream, endpoints(view, name), wanted)?;
    }
    for extra in encoded.copies.values() {
        wanted.all.push(versioned(Resource::Upstream(Arc::new(extra.upstream.clone())), cluster::extra(extra)?));
    }
    further.extend(encoded.further);
    // What was encoded here can be read here.
    Ok(places.iter().filter_map(|place| routes::Route::decode(&*place.body).ok()).collect())
}

fn clusters(upstream: &Upstream, endpoints: Option<&Endpoints>, wanted: &mut Wanted) -> Result<(), String> {
    let ranked = endpoints.map(|endpoints| zones::ranked(Some(&wanted.zone), Some(upstream), endpoints));
    wanted.all.push(versioned(Resource::Upstream(Arc::new(upstream.clone())), cluster::encode(upstream, ranked.as_ref(), true)?));
    if let Some((endpoints, ranked)) = endpoints.zip(ranked) {
        let body = cluster::assignment(&ranked, Some(upstream));
        wanted.all.push(versioned(Resource::Endpoints(endpoints.clone()), body));
    }
    Ok(())
}

/// The filters of a server that asks these policies itself, about a port of its application. It is of the trust domain of those that it believes.
pub(super) fn guards(policies: &[Arc<Versioned>], port: u16) -> Vec<HttpFilter> {
    let policies = policies.iter().filter_map(|found| match &found.resource {
        Resource::AuthorizationPolicy(policy) => Some(policy),
        _ => None,
    });
    let policies: Vec<&AuthorizationPolicy> = policies.collect();
    listeners::guards(policy::rules(&policies, &policy::Meaning { domain: None, port, opaque: false }))
}

/// A service as a route that every request would match.
pub(super) fn as_route(service: &MeshService) -> Route {
    Route {
        id: service.name.clone(),
        name: service.name.clone(),
        service_id: "".into(),
        service_name: service.name.clone(),
        matches: RouteMatch { uris: vec!["/*".into()], ..RouteMatch::default() },
        priority: 0,
        created: 0,
        plugins: service.plugins.clone(),
        upstream: Some(UpstreamRef { name: service.upstream.name.clone() }),
        timeouts: service.timeouts,
        enable_websocket: true,
        max_duration: None,
    }
}

/// A service of the mesh.
fn called<'a>(view: &'a View, service: &str) -> Option<&'a MeshService> {
    match &view.find(Kind::MeshService, service)?.resource {
        Resource::MeshService(service) => Some(service),
        _ => None,
    }
}

fn versioned(resource: Resource, body: Bytes) -> Versioned {
    Versioned::encoded(resource, body)
}

/// What the cluster of the application stands for: an upstream of which nothing else is said.
fn bare(name: &str) -> Resource {
    Resource::Upstream(Arc::new(Upstream::new(name)))
}
