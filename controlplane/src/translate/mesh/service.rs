//! A service of the mesh: what its owner wrote, or defaults where nobody wrote anything, and where its instances are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_xds::model::{
    Endpoint, Endpoints, HealthChecks, MESH_PREFIX, MeshInbound, MeshPeer, MeshProtocol, MeshService, PassiveCheck, PluginConf,
    PluginOrigin, Resource, Scheme, Thresholds, Timeouts, Upstream, address_name, instance_name,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::context::{Context, Unit};
use super::super::{checks, plugins, upstream};
use crate::mesh::{Directory, FoundPlace, Known};
use crate::model::resources::{self, ServiceMirror, Split};
use crate::model::{Key, Labels, ServiceId};

/// An instance is near; one whose host is gone must not cost more.
const CONNECT: Duration = Duration::from_secs(1);
/// Without a word between its owner and its callers an answer may take its time: whoever waits for news, or reads a stream that is quiet for long, is not
/// cut off by a sidecar. Hosts that are gone are found out by pings, and callers have limits of their own.
const QUIET: Duration = Duration::from_secs(3600);
const UNWRITTEN: Timeouts = Timeouts { connect: CONNECT, send: QUIET, read: QUIET };
/// Tries after the first: what two instances in a row cannot take is no accident of one of them.
const RETRIES: u32 = 2;

/// Translates one service. One of which nothing is known is nothing.
pub(in super::super) fn unit(context: &mut Context<'_>, service: &ServiceId) -> Unit {
    let directory = context.directory;
    let Some(known) = directory.get(service) else { return Unit::default() };
    let (owner, written) = owned(context, known, service);
    let name = service.upstream();
    let (peer, endpoints) = super::behind(directory, (service, None), Some(known), name.clone());
    let protocol = spoken(&written, Some(known));
    let own_ports = own_ports(&written, known);
    let mut plugins = owner.as_ref().map_or_else(Vec::new, |(key, value)| plugins::of(context, key, value).0);
    let ports: Vec<_> = own_ports.iter().flat_map(|port| of_port(context, service, &written, *port, &plugins)).collect();
    if let Some((key, _)) = &owner {
        let origin = PluginOrigin(format!("{}/{}", key.kind.singular(), key.id).into());
        let made = |name: &str, config| PluginConf { name: name.into(), config: Arc::new(config), origin: origin.clone() };
        let split = Some(&written.split).filter(|split| !split.is_empty()).map(|split| shares(service, split));
        plugins.extend(split.map(|config| made("traffic-split", config)));
        plugins.extend(
            written.mirror.as_ref().and_then(|mirror| copies(service, mirror)).map(|config| made("proxy-mirror", config)),
        );
    }
    let inbound = owner.as_ref().map_or_else(Vec::new, |(key, value)| plugins::within(key, value, "inbound_plugins"));
    let parts = parts(service, &written);
    let others = led_to(service, &written).filter(|part| part.subset.is_empty());
    let others: BTreeSet<Arc<str>> = others.map(|part| part.service.full().clone()).collect();
    let resource = MeshService {
        name: service.full().clone(),
        protocol,
        vip: known.vip,
        ports: written.ports.iter().map(|port| port.number()).collect(),
        plugins,
        timeouts: None,
        upstream: Arc::new(super::called(directory, service, peer, usage(name, service.full(), &written, protocol))),
        depends: others.into_iter().chain(parts.keys().cloned()).collect(),
        own_ports,
    };
    let mut resources = vec![Resource::MeshService(resource), Resource::Endpoints(endpoints)];
    let inbound = Some(inbound).filter(|plugins| !plugins.is_empty());
    resources.extend(inbound.map(|plugins| Resource::MeshInbound(MeshInbound { service: service.full().clone(), plugins })));
    resources.extend(ports);
    resources.extend(places(context, service, known, &written));
    resources.extend(written.addresses.iter().filter_map(|address| address_of(directory, service, &written, address)));
    resources.extend(parts.into_iter().flat_map(|(name, part)| part.resources(context, name)));
    Unit { resources, ..Unit::default() }
}

/// The further ports of its instances on which a service is called.
fn own_ports(written: &resources::MeshService, known: &Known) -> Vec<u16> {
    if let Some(partner) = &known.federated {
        return partner.ports.clone();
    }
    let found = known.found.iter().flat_map(|found| found.ports.keys().copied());
    found.filter(|port| written.ports.is_empty() || written.ports.iter().any(|said| said.number() == *port)).collect()
}

/// A further port as a service of its own, which is used as the whole one is, but for its split and its mirror. It is spoken to as its owner says, else as its instances do.
fn of_port(
    context: &Context<'_>,
    service: &ServiceId,
    written: &resources::MeshService,
    port: u16,
    plugins: &[PluginConf],
) -> [Resource; 2] {
    let known = context.directory.get(service);
    let name: Arc<str> = format!("{}:{port}", service.full()).into();
    let upstream: Arc<str> = format!("{MESH_PREFIX}{name}").into();
    let (peer, endpoints) = super::behind(context.directory, (service, Some(port)), known, upstream.clone());
    let said = written.ports.iter().find(|said| said.number() == port).and_then(|said| MeshProtocol::named(said.protocol()?));
    let found = || Some(known?.found.as_ref()?.ports.get(&port)?.protocol);
    let protocol = said.or_else(found).unwrap_or_default();
    let resource = MeshService {
        upstream: Arc::new(Upstream { mesh: Some(peer), ..usage(upstream, &name, written, protocol) }),
        name,
        protocol,
        vip: None,
        ports: Vec::new(),
        plugins: plugins.to_vec(),
        timeouts: None,
        depends: Vec::new(),
        own_ports: Vec::new(),
    };
    [Resource::MeshService(resource), Resource::Endpoints(endpoints)]
}

/// An address that clients know it by, which sidecars ask for when a connection to it is captured. It says whose it is, and nothing else.
fn address_of(directory: &Directory, service: &ServiceId, written: &resources::MeshService, address: &str) -> Option<Resource> {
    let name = address_name(address.parse().ok()?);
    let upstream: Arc<str> = format!("{MESH_PREFIX}{name}").into();
    let (peer, _) = super::behind(directory, (service, None), None, upstream.clone());
    Some(Resource::MeshService(MeshService {
        upstream: Arc::new(Upstream { mesh: Some(peer), ..usage(upstream, &name, written, MeshProtocol::Auto) }),
        name: name.into(),
        protocol: MeshProtocol::Auto,
        vip: None,
        ports: Vec::new(),
        plugins: Vec::new(),
        timeouts: None,
        depends: vec![service.full().clone()],
        own_ports: Vec::new(),
    }))
}

/// The ports of single instances at their own addresses, which sidecars ask for when a connection there is captured: such a one goes to this instance and to no
/// other, so nothing of how instances are chosen matters. Only ports that owners name are the mesh's: what else is on a host is no business of its members.
fn places(context: &mut Context<'_>, service: &ServiceId, known: &Known, written: &resources::MeshService) -> Vec<Resource> {
    let Some(found) = known.found.as_ref().filter(|_| known.federated.is_none()) else { return Vec::new() };
    let mut resources = Vec::new();
    for (at, claims) in &found.places {
        let named = |claim: &&FoundPlace| claim.service == *service && names(written, at.port());
        let mut named: Vec<&FoundPlace> =
            claims.iter().filter(|claim| named(claim) || is_named(context, service, claim, at)).collect();
        let best = named.iter().map(|claim| claim.rank).min();
        named.retain(|claim| Some(claim.rank) == best);
        // One of those who are there tells it for all of them.
        let Some(first) = named.iter().min_by_key(|claim| &claim.service).filter(|first| first.service == *service) else {
            continue;
        };
        let is_one = |claim: &&FoundPlace| {
            (&claim.service, &claim.endpoint.host, claim.endpoint.port)
                == (&first.service, &first.endpoint.host, first.endpoint.port)
        };
        // Where nobody knows which of several is meant nobody is called, in clear neither.
        let endpoints = if named.iter().all(is_one) { vec![first.endpoint.clone()] } else { Vec::new() };
        resources.extend(place(context.directory, (service, known), written, *at, first, endpoints));
    }
    resources
}

/// Whether the owner of a service names a port of it.
fn names(written: &resources::MeshService, port: u16) -> bool {
    written.ports.iter().any(|said| said.number() == port)
}

/// The same of another service that says to be at this place.
fn is_named(context: &mut Context<'_>, own: &ServiceId, claim: &FoundPlace, at: &SocketAddr) -> bool {
    if claim.service == *own {
        return false;
    }
    let Some(known) = context.service(&claim.service) else { return false };
    names(&owned(context, known, &claim.service).1, at.port())
}

fn place(
    directory: &Directory,
    (service, known): (&ServiceId, &Known),
    written: &resources::MeshService,
    at: SocketAddr,
    found: &FoundPlace,
    endpoints: Vec<Endpoint>,
) -> [Resource; 2] {
    let said = match found.further {
        Some(port) => written.ports.iter().find(|said| said.number() == port).and_then(|said| said.protocol()),
        None => written.protocol.as_deref(),
    };
    let protocol = said.and_then(MeshProtocol::named).unwrap_or(found.protocol);
    let name: Arc<str> = instance_name(at).into();
    let upstream: Arc<str> = format!("{MESH_PREFIX}{name}").into();
    let (peer, _) = super::behind(directory, (service, found.further), Some(known), upstream.clone());
    let peer = MeshPeer { port: found.further, ..peer };
    let resource = MeshService {
        upstream: Arc::new(super::called(
            directory,
            service,
            peer,
            Upstream { scheme: scheme(protocol), timeouts: UNWRITTEN, ..Upstream::new(upstream.clone()) },
        )),
        name,
        protocol,
        vip: None,
        ports: vec![at.port()],
        plugins: Vec::new(),
        timeouts: None,
        depends: Vec::new(),
        own_ports: Vec::new(),
    };
    [Resource::MeshService(resource), Resource::Endpoints(Endpoints { upstream, endpoints: endpoints.into() })]
}

/// Whom an entry of a split or the mirror leads to, when that is not simply the service itself.
struct Part<'a> {
    service: ServiceId,
    subset: &'a Labels,
}

impl<'a> Part<'a> {
    fn of(owner: &ServiceId, entry: &'a Split) -> Option<Part<'a>> {
        Part::named(owner, entry.service.as_deref(), &entry.subset)
    }

    fn named(owner: &ServiceId, service: Option<&str>, subset: &'a Labels) -> Option<Part<'a>> {
        let service = match service {
            Some(other) => ServiceId::parse(other, owner.namespace())?,
            None => owner.clone(),
        };
        (service != *owner || !subset.is_empty()).then_some(Part { service, subset })
    }

    /// The name of a subset: `shop/web#version=v2`, and where it is one of another service `shop/web#shop/cart:version=v2`. No service is called so, so
    /// nobody calls it but the split and the mirror of `owner`, to whose unit it belongs.
    fn name(&self, owner: &ServiceId) -> Arc<str> {
        let labels: Vec<String> = self.subset.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let other = if self.service == *owner { String::new() } else { format!("{}:", self.service.full()) };
        format!("{}#{other}{}", owner.full(), labels.join(",")).into()
    }

    /// The upstream that requests are led to.
    fn upstream(&self, owner: &ServiceId) -> String {
        if self.subset.is_empty() { self.service.upstream().to_string() } else { format!("{MESH_PREFIX}{}", self.name(owner)) }
    }

    /// A subset as a service that is used as the whole one is, with the instances that have its labels.
    fn resources(&self, context: &mut Context<'_>, name: Arc<str>) -> [Resource; 2] {
        let (directory, known) = (context.directory, context.service(&self.service));
        let written = known.map(|known| owned(context, known, &self.service).1);
        let written = written.unwrap_or_else(|| resources::MeshService::unwritten(self.service.namespace()));
        let upstream: Arc<str> = format!("{MESH_PREFIX}{name}").into();
        let (peer, mut endpoints) = super::behind(directory, (&self.service, None), known, upstream.clone());
        upstream::leave_in(self.subset, &mut endpoints);
        let protocol = spoken(&written, known);
        let resource = MeshService {
            upstream: Arc::new(super::called(directory, &self.service, peer, usage(upstream, &name, &written, protocol))),
            name,
            protocol,
            vip: None,
            ports: Vec::new(),
            plugins: Vec::new(),
            timeouts: None,
            depends: Vec::new(),
            own_ports: Vec::new(),
        };
        [Resource::MeshService(resource), Resource::Endpoints(endpoints)]
    }
}

/// All that split and mirror lead to but the service itself.
fn led_to<'a>(owner: &'a ServiceId, written: &'a resources::MeshService) -> impl Iterator<Item = Part<'a>> {
    let mirror = written.mirror.iter().filter_map(|mirror| Part::named(owner, mirror.service.as_deref(), &mirror.subset));
    written.split.iter().filter_map(|entry| Part::of(owner, entry)).chain(mirror)
}

/// The subsets among these, by name.
fn parts<'a>(owner: &'a ServiceId, written: &'a resources::MeshService) -> BTreeMap<Arc<str>, Part<'a>> {
    led_to(owner, written).filter(|part| !part.subset.is_empty()).map(|part| (part.name(owner), part)).collect()
}

/// What is spoken to a service: as its owner says, else as its instances do.
fn spoken(written: &resources::MeshService, known: Option<&Known>) -> MeshProtocol {
    let owner = written.protocol.as_deref().and_then(MeshProtocol::named);
    let known = known.filter(|known| known.federated.is_none());
    owner.or_else(|| Some(known?.found.as_ref()?.protocol)).unwrap_or_default()
}

/// What is spoken to the applications of a service in clear.
pub(in super::super) fn spoken_to(context: &Context<'_>, service: &ServiceId) -> Scheme {
    let known = context.directory.get(service);
    let written = known.map(|known| owned(context, known, service).1);
    scheme(written.map(|written| spoken(&written, known)).unwrap_or_default())
}

/// What the owner wrote, with the resource that says it.
fn owned<'a>(context: &Context<'a>, known: &Known, service: &ServiceId) -> (Option<(Key, &'a Value)>, resources::MeshService) {
    let stored = known.owners.first().and_then(|key| Some((key.clone(), &context.state.get(key)?.value)));
    let written = stored.as_ref().and_then(|(_, value)| resources::MeshService::deserialize(*value).ok());
    (stored, written.unwrap_or_else(|| resources::MeshService::unwritten(service.namespace())))
}

/// What is spoken to the sidecars' applications.
fn scheme(protocol: MeshProtocol) -> Scheme {
    match protocol {
        MeshProtocol::Http2 | MeshProtocol::Grpc => Scheme::Grpc,
        MeshProtocol::Http | MeshProtocol::Tcp | MeshProtocol::Auto => Scheme::Http,
    }
}

/// How its endpoints are used.
fn usage(name: Arc<str>, label: &str, written: &resources::MeshService, protocol: MeshProtocol) -> Upstream {
    let usage = upstream::usage(name, label, &written.upstream());
    let passive = |checks: &resources::Checks| checks.passive.as_ref().map(checks::passive);
    Upstream {
        scheme: scheme(protocol),
        retries: written.retries.or(Some(RETRIES)),
        timeouts: if written.timeout.is_some() { usage.timeouts } else { UNWRITTEN },
        checks: match &written.checks {
            Some(checks) => HealthChecks { passive: passive(checks).map(Arc::new), ..usage.checks },
            None => HealthChecks { active: None, passive: Some(Arc::new(judged_by_traffic())) },
        },
        ..usage
    }
}

/// What traffic finds where nobody wrote how: an instance that is not reached, or whose sidecar says that its application is not. What the
/// application itself answers is no reason, as it may be the request.
fn judged_by_traffic() -> PassiveCheck {
    let thresholds = Thresholds {
        healthy_statuses: (200..=208).chain([226]).chain(300..=308).chain(400..=431).collect(),
        successes: 2,
        unhealthy_statuses: vec![502, 503, 504],
        http_failures: 5,
        tcp_failures: 2,
        timeouts: 5,
    };
    PassiveCheck { thresholds }
}

/// The configuration of the plugin that shares requests out: entries in a row with the same condition are one rule.
fn shares(service: &ServiceId, split: &[Split]) -> Value {
    let mut rules: Vec<(Option<&Value>, Vec<Value>)> = Vec::new();
    for entry in split {
        let share = match Part::of(service, entry) {
            Some(part) => json!({"upstream_id": part.upstream(service), "weight": entry.weight}),
            None => json!({"weight": entry.weight}),
        };
        match rules.last_mut() {
            Some((matches, shares)) if *matches == entry.matches.as_ref() => shares.push(share),
            _ => rules.push((entry.matches.as_ref(), vec![share])),
        }
    }
    let rule = |(matches, shares): (Option<&Value>, Vec<Value>)| match matches {
        Some(vars) => json!({"match": [{"vars": vars}], "weighted_upstreams": shares}),
        None => json!({"weighted_upstreams": shares}),
    };
    json!({"rules": rules.into_iter().map(rule).collect::<Vec<_>>()})
}

/// The configuration of the plugin that copies requests.
fn copies(service: &ServiceId, mirror: &ServiceMirror) -> Option<Value> {
    let part = Part::named(service, mirror.service.as_deref(), &mirror.subset)?;
    Some(json!({
        "upstream_id": part.upstream(service), "sample_ratio": mirror.sample_ratio, "mirror_body": mirror.mirror_body, "timeout": mirror.timeout,
    }))
}
