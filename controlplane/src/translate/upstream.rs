//! Upstreams, shared and inline: how endpoints are used, which they are, and the key material towards them. Health checks have their own file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use heddle_xds::model::{
    Balancer, CircuitBreakers, Discovery, Endpoint, Endpoints, HashOn, HashTable, KeepalivePool, Labels, PassHost, Resource,
    Scheme, Secret, SecretBody, Timeouts, Upstream, UpstreamTls, ZoneMode, ZonePolicy,
};
use serde::Deserialize;
use serde_json::Value;

use super::context::{Context, Unit};
use super::{certificate, checks, mesh};
use crate::discovery::Ask;
use crate::model::resources::{self, CircuitBreaker, HashOnKind, LoadFrom, LocalityMode, Node, PassHostKind, Ssl};
use crate::model::{DEFAULT_NAMESPACE, Key, ResourceKind, ServiceId, Timeout, seconds};
use crate::state::Stored;

/// Health is ignored below this share of healthy endpoints, in percent. When (nearly) all fail, the check is the likelier
/// culprit, and few survivors must not take the whole load; small upstreams still lose all but one endpoint before it acts.
const PANIC_THRESHOLD: u8 = 10;

/// Names and values of labels that agents take, and how many of an endpoint.
const LONGEST_LABEL: usize = 1024;
const MOST_LABELS: usize = 128;

/// The name of a shared upstream's resources.
pub(super) fn name_of(key: &Key) -> String {
    key.to_string()
}

/// Translates a shared upstream.
pub(super) fn unit(context: &mut Context<'_>, key: &Key, stored: &Stored) -> Unit {
    Unit { resources: translate(context, key, &name_of(key), &key.id, &stored.value), ..Unit::default() }
}

/// All resources of one upstream: itself, its endpoints, and secrets that are written inside it. One that cannot be read has
/// none, so whoever names it answers 503.
pub(super) fn translate(context: &mut Context<'_>, owner: &Key, name: &str, label: &str, value: &Value) -> Vec<Resource> {
    let Ok(written) = resources::Upstream::deserialize(value) else { return Vec::new() };
    let name: Arc<str> = name.into();
    let mut out = Vec::with_capacity(2);
    let tls = written.tls.as_ref().map(|tls| self::tls(context, owner, &name, tls, &mut out)).unwrap_or_default();
    let (peer, mut endpoints) = match (meshed(&written), Ask::of(&written)) {
        (Some((service, port)), _) => {
            let known = context.service(&service);
            let (peer, endpoints) = mesh::behind(context.directory, (&service, port), known, name.clone());
            (Some(peer), endpoints)
        }
        (None, Some(ask)) => {
            let found = context.discovered(ask);
            let endpoints = found.map(|found| found.endpoints.as_slice().into()).unwrap_or_default();
            (None, Endpoints { upstream: name.clone(), endpoints })
        }
        (None, None) => {
            let nodes = written.nodes.iter().flat_map(|nodes| &nodes.0);
            let endpoints = nodes.map(|node| endpoint(node, scheme(&written.scheme))).collect();
            (None, Endpoints { upstream: name.clone(), endpoints })
        }
    };
    leave_in(&written.subset, &mut endpoints);
    let mut upstream = Upstream { tls, ..usage(name, label, &written) };
    if let Some((service, _)) = meshed(&written)
        && let Some(peer) = peer
    {
        upstream = mesh::called(context.directory, &service, peer, upstream);
        if upstream.in_clear {
            // In clear its application is spoken to as the service says, as its callers beside it do. What is written as gRPC stays so: sidecars take either.
            upstream.scheme = if upstream.scheme.is_h2() { Scheme::Grpc } else { mesh::spoken_to(context, &service) };
        }
    }
    out.push(Resource::Upstream(Arc::new(upstream)));
    out.push(Resource::Endpoints(endpoints));
    out
}

/// Leaves the endpoints of a subset: those that have all its labels.
pub(super) fn leave_in(subset: &BTreeMap<String, String>, endpoints: &mut Endpoints) {
    if !subset.is_empty() {
        endpoints.endpoints = endpoints.endpoints.iter().filter(|endpoint| is_in(subset, &endpoint.labels)).cloned().collect();
    }
}

/// Whether an endpoint has all labels of a subset.
pub(super) fn is_in(subset: &BTreeMap<String, String>, labels: &Labels) -> bool {
    subset.iter().all(|(name, value)| labels.iter().any(|(other, has)| **other == **name && **has == **value))
}

/// The service of the mesh that it leads to, and its port where one is named.
fn meshed(written: &resources::Upstream) -> Option<(ServiceId, Option<u16>)> {
    let service = written.service_name.as_deref().filter(|_| written.discovery_type.as_deref() == Some("mesh"))?;
    ServiceId::parse_called(service, DEFAULT_NAMESPACE)
}

/// How the endpoints of an upstream are used, but for TLS.
pub(super) fn usage(name: Arc<str>, label: &str, written: &resources::Upstream) -> Upstream {
    Upstream {
        name,
        label: label.into(),
        balancer: balancer(written),
        scheme: scheme(&written.scheme),
        pass_host: pass_host(written),
        retries: written.retries,
        retry_timeout: seconds(written.retry_timeout),
        timeouts: written.timeout.as_ref().map(timeouts).unwrap_or_default(),
        keepalive: written.keepalive_pool.as_ref().map(keepalive).unwrap_or_default(),
        tls: UpstreamTls::default(),
        checks: written.checks.as_ref().map(checks::checks).unwrap_or_default(),
        breakers: written.circuit_breaker.as_ref().map(breakers).unwrap_or_default(),
        discovery: discovery(written),
        slow_start: written.slow_start.map_or(Duration::ZERO, |span| span.0),
        panic_threshold: Some(written.panic_threshold.unwrap_or(PANIC_THRESHOLD)),
        mesh: None,
        locality: locality(written),
        fleet_load: written.load_from == LoadFrom::Fleet,
        in_clear: false,
        drops: Vec::new(),
    }
}

/// A key leads to the same endpoint from every gateway, unless zones are asked for.
fn locality(written: &resources::Upstream) -> ZonePolicy {
    let Some(locality) = &written.locality else {
        let mode = if written.hashes() { ZoneMode::Off } else { ZoneMode::Prefer };
        return ZonePolicy { mode, ..ZonePolicy::default() };
    };
    ZonePolicy {
        mode: match locality.mode {
            LocalityMode::Prefer => ZoneMode::Prefer,
            LocalityMode::Strict => ZoneMode::Strict,
            LocalityMode::Off => ZoneMode::Off,
        },
        failover: locality.failover.iter().map(|zone| zone.as_str().into()).collect(),
        overprovisioning: locality.overprovisioning,
        spread: None,
    }
}

/// Step timeouts.
pub(super) fn timeouts(written: &Timeout) -> Timeouts {
    Timeouts { connect: seconds(written.connect), send: seconds(written.send), read: seconds(written.read) }
}

fn scheme(written: &str) -> Scheme {
    match written {
        "https" => Scheme::Https,
        "grpc" => Scheme::Grpc,
        "grpcs" => Scheme::Grpcs,
        _ => Scheme::Http,
    }
}

fn balancer(written: &resources::Upstream) -> Balancer {
    let on = || hash_on(written.hash_on, written.key.as_deref().unwrap_or("remote_addr"));
    match written.balancer.as_str() {
        "chash" => Balancer::ConsistentHash(on(), HashTable::RING),
        "maglev" => Balancer::ConsistentHash(on(), HashTable::MAGLEV),
        "least_conn" => Balancer::LeastConn,
        "ewma" => Balancer::Ewma,
        _ => Balancer::RoundRobin,
    }
}

fn hash_on(kind: HashOnKind, key: &str) -> HashOn {
    match kind {
        HashOnKind::Vars => HashOn::Var(key.strip_prefix('$').unwrap_or(key).into()),
        HashOnKind::Header => HashOn::Header(bare(key, "http_").into()),
        HashOnKind::Cookie => HashOn::Cookie(bare(key, "cookie_").into()),
        HashOnKind::Consumer => HashOn::Consumer,
        HashOnKind::VarsCombinations => HashOn::VarsCombination(key.into()),
    }
}

/// Headers and cookies may be written as the variable that holds them (`http_x`, `$cookie_x`).
fn bare<'a>(key: &'a str, prefix: &str) -> &'a str {
    let key = key.strip_prefix('$').unwrap_or(key);
    key.strip_prefix(prefix).unwrap_or(key)
}

fn pass_host(written: &resources::Upstream) -> PassHost {
    match (written.pass_host, &written.upstream_host) {
        (PassHostKind::Node, _) => PassHost::Node,
        (PassHostKind::Rewrite, Some(host)) => PassHost::Rewrite(host.as_str().into()),
        (PassHostKind::Rewrite, None) | (PassHostKind::Pass, _) => PassHost::Pass,
    }
}

fn keepalive(written: &resources::KeepalivePool) -> KeepalivePool {
    KeepalivePool {
        size: written.size,
        idle_timeout: seconds(written.idle_timeout),
        requests: written.requests,
        // A connection that is old before it is open would be opened for one request after the other.
        max_age: if written.max_age > 0.0 { seconds(written.max_age.max(1.0)) } else { Duration::ZERO },
    }
}

fn breakers(written: &CircuitBreaker) -> CircuitBreakers {
    CircuitBreakers {
        max_connections: written.max_connections,
        max_pending: written.max_pending,
        max_requests: written.max_requests,
        retry_budget_percent: written.retry_budget_percent,
    }
}

fn discovery(written: &resources::Upstream) -> Option<Discovery> {
    let service = written.service_name.as_deref()?;
    (written.discovery_type.as_deref() == Some("dns")).then(|| Discovery::Dns(service.into()))
}

/// The client certificate comes from an `ssls` resource or stands inline; an inline one becomes a secret named after the upstream.
fn tls(
    context: &mut Context<'_>,
    owner: &Key,
    name: &str,
    written: &resources::UpstreamTls,
    out: &mut Vec<Resource>,
) -> UpstreamTls {
    let mut secret = |suffix: &str, body: SecretBody| -> Arc<str> {
        let name: Arc<str> = format!("{name}/{suffix}").into();
        out.push(Resource::Secret(Secret { name: name.clone(), body }));
        name
    };
    let inline = written.client_cert.as_deref().zip(written.client_key.as_deref());
    let client_cert = match &written.client_cert_id {
        Some(id) => Some(certificate::pair_name(&context.name(ResourceKind::Ssl, id.as_str(), owner), 0)),
        None => inline.map(|(chain, key)| secret("client", SecretBody::KeyPair { chain_pem: chain.into(), key_pem: key.into() })),
    };
    let ca = written.ca.as_deref().map(|ca| match roots(context, owner, ca) {
        Ok(pem) => secret("ca", SecretBody::Roots(pem)),
        Err(missing) => missing,
    });
    UpstreamTls { verify: written.verify, ca, client_cert, sni: written.sni.as_deref().map(Arc::from) }
}

/// Trusted roots: PEM, or the id of an `ssls` resource whose `client.ca`, else its own certificate, is trusted. An id of none
/// gives the name of a secret that does not exist, which trusts nobody.
fn roots(context: &mut Context<'_>, owner: &Key, written: &str) -> Result<Arc<str>, Arc<str>> {
    if written.contains("-----BEGIN") {
        return Ok(written.into());
    }
    let found = context.read(ResourceKind::Ssl, written, owner);
    let Some(ssl) = found.and_then(|(_, stored)| Ssl::deserialize(&stored.value).ok()) else {
        return Err(certificate::roots_name(&Key::new(ResourceKind::Ssl, written)));
    };
    Ok(ssl.client.map_or(ssl.cert, |client| client.ca).into())
}

pub(super) fn endpoint(node: &Node, scheme: Scheme) -> Endpoint {
    Endpoint {
        host: node.host.as_str().into(),
        port: node.port.unwrap_or_else(|| scheme.default_port()),
        weight: node.weight,
        priority: node.priority,
        zone: node.zone.as_deref().unwrap_or_default().into(),
        labels: labels(node),
        ..Endpoint::default()
    }
}

/// The texts in the metadata of a node, as far as labels carry them.
fn labels(node: &Node) -> Labels {
    let short = |text: &str| text.len() <= LONGEST_LABEL;
    let texts = node.metadata.iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    let texts: BTreeMap<&str, &str> = texts.filter(|(name, value)| short(name) && short(value)).collect();
    texts.into_iter().take(MOST_LABELS).map(|(name, value)| (name.into(), value.into())).collect()
}
