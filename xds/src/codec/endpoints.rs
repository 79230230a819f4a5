//! Endpoints as standard EDS carries them, grouped by locality and priority. It knows no other kind.
//!
//! EDS wants priorities that are dense and start at zero, one group per locality and priority, and weights above zero. What would be
//! lost by that (our own priority, the user's order) travels as endpoint metadata under `heddle`, and only where it would be lost.
//! Weight zero travels as `DRAINING` without a weight, which is what it means; labels travel under `envoy.lb`, where subsets are made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use heddle_proto::envoy::config::core::v3::address::Address as AddressKind;
use heddle_proto::envoy::config::core::v3::socket_address::PortSpecifier;
use heddle_proto::envoy::config::core::v3::{Address, HealthStatus, Locality, Metadata, SocketAddress};
use heddle_proto::envoy::config::endpoint::v3 as eds;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use super::read::{Fault, MAX_NAME, Read, name, narrow, required, text};
use crate::model::{Endpoint, EndpointStatus, Endpoints, Labels};

/// Endpoints of one upstream.
const MAX_ENDPOINTS: usize = 20_000;
/// Longest DNS name (RFC 1035 section 2.3.4), with room for a scope id of an IPv6 literal.
const MAX_HOST: usize = 255;
/// Who reads our endpoint metadata.
const READER: &str = "heddle";
/// Who reads labels (Envoy's subset load balancer).
const SUBSETS: &str = "envoy.lb";
/// Labels of one endpoint.
const MAX_LABELS: usize = 128;
/// Longest name and value of a label.
const MAX_LABEL: usize = 1024;

pub(super) fn to_wire(endpoints: &Endpoints) -> eds::ClusterLoadAssignment {
    let levels: BTreeSet<i32> = endpoints.endpoints.iter().map(|e| e.priority).collect();
    let rank: BTreeMap<i32, u32> = levels.into_iter().rev().zip(0u32..).collect();
    let mut groups: BTreeMap<(u32, usize), Vec<usize>> = BTreeMap::new();
    let mut first: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    for (at, endpoint) in endpoints.endpoints.iter().enumerate() {
        let rank = rank.get(&endpoint.priority).copied().unwrap_or_default();
        let start = *first.entry((rank, &endpoint.zone)).or_insert(at);
        groups.entry((rank, start)).or_default().push(at);
    }
    let ordered = groups.values().flatten().copied().eq(0..endpoints.endpoints.len());
    let dense = rank.iter().all(|(&priority, &rank)| natural(rank) == priority);
    let mut wire = Vec::with_capacity(groups.len());
    for ((rank, _), members) in groups {
        let picked: Vec<(usize, &Endpoint)> =
            members.into_iter().filter_map(|at| endpoints.endpoints.get(at).map(|e| (at, e))).collect();
        let weight = picked.iter().fold(0u32, |sum, (_, e)| sum.saturating_add(e.weight)).max(1);
        let zone = picked.first().map(|(_, e)| e.zone.to_string()).unwrap_or_default();
        wire.push(eds::LocalityLbEndpoints {
            locality: Some(Locality { zone, ..Default::default() }),
            lb_endpoints: picked.iter().map(|(at, e)| to_lb(e, (!ordered).then_some(*at), dense)).collect(),
            load_balancing_weight: Some(weight),
            priority: rank,
        });
    }
    eds::ClusterLoadAssignment { cluster_name: endpoints.upstream.to_string(), endpoints: wire, ..Default::default() }
}

fn to_lb(endpoint: &Endpoint, order: Option<usize>, dense: bool) -> eds::LbEndpoint {
    let mut fields = BTreeMap::new();
    let mut put = |key: &str, value: f64| fields.insert(key.to_string(), Value { kind: Some(Kind::NumberValue(value)) });
    if !dense {
        put("priority", endpoint.priority.into());
    }
    if let Some(order) = order.and_then(|order| u32::try_from(order).ok()) {
        put("order", order.into());
    }
    if endpoint.weight == 0 && endpoint.status != EndpointStatus::Unknown {
        put("weight", 0.0);
    }
    let label =
        |(name, value): &(Arc<str>, Arc<str>)| (name.to_string(), Value { kind: Some(Kind::StringValue(value.to_string())) });
    let labels: BTreeMap<String, Value> = endpoint.labels.iter().map(label).collect();
    let parts = [(READER, fields), (SUBSETS, labels)].into_iter().filter(|(_, fields)| !fields.is_empty());
    let filter_metadata: BTreeMap<String, Struct> = parts.map(|(who, fields)| (who.to_string(), Struct { fields })).collect();
    let metadata = (!filter_metadata.is_empty()).then(|| Metadata { filter_metadata, ..Default::default() });
    let address = SocketAddress {
        address: endpoint.host.to_string(),
        port_specifier: Some(PortSpecifier::PortValue(endpoint.port.into())),
        ..Default::default()
    };
    let health = match endpoint.status {
        EndpointStatus::Unknown if endpoint.weight == 0 => HealthStatus::Draining,
        EndpointStatus::Unknown => HealthStatus::Unknown,
        EndpointStatus::Healthy => HealthStatus::Healthy,
        EndpointStatus::Unhealthy => HealthStatus::Unhealthy,
        EndpointStatus::Draining => HealthStatus::Draining,
    };
    eds::LbEndpoint {
        health_status: health.into(),
        metadata,
        load_balancing_weight: (endpoint.weight > 0).then_some(endpoint.weight),
        host_identifier: Some(eds::lb_endpoint::HostIdentifier::Endpoint(eds::Endpoint {
            address: Some(Address { address: Some(AddressKind::SocketAddress(address)) }),
            ..Default::default()
        })),
    }
}

pub(super) fn from_wire(message: eds::ClusterLoadAssignment) -> Read<Endpoints> {
    let upstream = name("cluster_name", message.cluster_name)?;
    let count: usize = message.endpoints.iter().map(|group| group.lb_endpoints.len()).sum();
    if count > MAX_ENDPOINTS || message.endpoints.len() > MAX_ENDPOINTS {
        return Err(Fault::new("endpoints", format!("has {count} endpoints, at most {MAX_ENDPOINTS} are allowed")));
    }
    let mut endpoints = Vec::with_capacity(count);
    for (at, group) in message.endpoints.into_iter().enumerate() {
        let zone = group.locality.map(|locality| locality.zone).unwrap_or_default();
        let zone = text("locality.zone", zone, MAX_NAME).map_err(|fault| fault.inside(&format!("endpoints[{at}]")))?;
        for (index, endpoint) in group.lb_endpoints.into_iter().enumerate() {
            let place = || format!("endpoints[{at}].lb_endpoints[{index}]");
            let next = endpoints.len();
            endpoints.push(from_lb(endpoint, &zone, group.priority, next).map_err(|fault| fault.inside(&place()))?);
        }
    }
    endpoints.sort_by_key(|(order, _)| *order);
    Ok(Endpoints { upstream, endpoints: endpoints.into_iter().map(|(_, endpoint)| endpoint).collect() })
}

/// One endpoint and its place in the user's order (`next` where none was said).
fn from_lb(message: eds::LbEndpoint, zone: &Arc<str>, priority: u32, next: usize) -> Read<(usize, Endpoint)> {
    let endpoint = match required("endpoint", message.host_identifier)? {
        eds::lb_endpoint::HostIdentifier::Endpoint(endpoint) => endpoint,
        eds::lb_endpoint::HostIdentifier::EndpointName(_) => {
            return Err(Fault::new("endpoint_name", "named endpoints are not supported, expected endpoint"));
        }
    };
    let address = match required("endpoint.address", endpoint.address.and_then(|address| address.address))? {
        AddressKind::SocketAddress(address) => address,
        AddressKind::Pipe(_) => return Err(Fault::new("endpoint.address", "expected socket_address, found pipe")),
        AddressKind::EnvoyInternalAddress(_) => {
            return Err(Fault::new("endpoint.address", "expected socket_address, found envoy_internal_address"));
        }
    };
    let host = address.address;
    if host.is_empty() || host.len() > MAX_HOST || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Fault::new("endpoint.address.address", "expected an IP literal or a DNS name"));
    }
    let port = match address.port_specifier {
        Some(PortSpecifier::PortValue(port)) => narrow("endpoint.address.port_value", port)?,
        _ => return Err(Fault::new("endpoint.address.port_value", "is missing")),
    };
    let mut metadata = message.metadata.map(|metadata| metadata.filter_metadata).unwrap_or_default();
    let ours = metadata.remove(READER).unwrap_or_default();
    let labels = labels(metadata.remove(SUBSETS).unwrap_or_default())?;
    let (status, unsaid) = match HealthStatus::try_from(message.health_status).unwrap_or(HealthStatus::Unknown) {
        HealthStatus::Draining if message.load_balancing_weight.is_none() && !ours.fields.contains_key("weight") => {
            (EndpointStatus::Unknown, 0)
        }
        HealthStatus::Draining => (EndpointStatus::Draining, 1),
        HealthStatus::Unhealthy | HealthStatus::Timeout => (EndpointStatus::Unhealthy, 1),
        HealthStatus::Healthy => (EndpointStatus::Healthy, 1),
        _ => (EndpointStatus::Unknown, 1),
    };
    let zero = number(&ours, "weight")? == Some(0);
    let weight = if zero { 0 } else { message.load_balancing_weight.unwrap_or(unsaid) };
    let priority = match number(&ours, "priority")? {
        Some(priority) => priority,
        None => natural(priority),
    };
    let order = match number(&ours, "order")? {
        Some(order) => usize::try_from(order).map_err(|_| Fault::new("metadata.heddle.order", "must not be negative"))?,
        None => next,
    };
    Ok((order, Endpoint { host: host.into(), port, weight, priority, zone: zone.clone(), status, labels }))
}

/// What subsets are made by; values that are no text are not compared, and left out.
fn labels(metadata: Struct) -> Read<Labels> {
    if metadata.fields.len() > MAX_LABELS {
        return Err(Fault::new("metadata.envoy.lb", format!("expected at most {MAX_LABELS} labels")));
    }
    let mut labels = Vec::with_capacity(metadata.fields.len());
    for (name, value) in metadata.fields {
        if let Some(Kind::StringValue(value)) = value.kind {
            let name = text("metadata.envoy.lb", name, MAX_LABEL)?;
            labels.push((name, text("metadata.envoy.lb", value, MAX_LABEL)?));
        }
    }
    Ok(labels.into())
}

/// A whole number of our metadata.
fn number(ours: &Struct, key: &str) -> Read<Option<i32>> {
    match ours.fields.get(key).and_then(|value| value.kind.as_ref()) {
        None => Ok(None),
        Some(Kind::NumberValue(value)) if value.fract() == 0.0 && value.abs() <= f64::from(i32::MAX) + 1.0 => {
            // In range and whole by the guard; only +2^31 saturates.
            Ok(Some(*value as i32))
        }
        Some(_) => Err(Fault::new(&format!("metadata.heddle.{key}"), "expected a whole number")),
    }
}

/// Our priority for one of EDS, when nothing else is said: zero first, then downwards.
fn natural(rank: u32) -> i32 {
    i32::try_from(rank).map_or(i32::MIN, |rank| -rank)
}
