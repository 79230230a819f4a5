//! Clusters as clients of gRPC know them. It knows no route.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use heddle_proto::envoy::config::cluster::v3 as wire;
use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::endpoint::v3 as eds;
use heddle_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use wire::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbConfig, LbPolicy};

use super::super::bytes;
use super::super::cluster::{MEMBERS, PORT, assigned, dns, is_inline, ring};
use super::super::wire::{ads, any, exact};
use super::super::zones::Ranked;
use super::provider;
use crate::model::{Balancer, Discovery, HashTable, Upstream};

/// A cluster, or what of the upstream gRPC lacks.
/// Only nodes that have an identity of the mesh are `members`.
pub(in super::super) fn encode(upstream: &Upstream, ranked: Option<&Ranked>, members: bool) -> Result<Bytes, String> {
    if upstream.mesh.is_some() && !members {
        return Err(MEMBERS.to_owned());
    }
    if upstream.mesh.as_ref().is_some_and(|peer| peer.port.is_some()) {
        return Err(PORT.to_owned());
    }
    let inline = is_inline(Some(upstream), ranked);
    let load_assignment = match (inline, &upstream.discovery, ranked) {
        (false, ..) => None,
        (_, Some(Discovery::Dns(name)), _) => Some(dns(upstream, name)),
        (_, None, Some(ranked)) if ranked.endpoints.endpoints.len() == 1 => Some(assigned(ranked, None)),
        _ => return Err("nodes: gRPC looks up one name only, beside which there is nothing".to_owned()),
    };
    let (kind, asked) = match load_assignment {
        Some(_) => (DiscoveryType::LogicalDns, None),
        None => (DiscoveryType::Eds, Some(EdsClusterConfig { eds_config: ads(), ..Default::default() })),
    };
    let (policy, config) = match upstream.balancer {
        Balancer::RoundRobin | Balancer::LeastConn | Balancer::Ewma => (LbPolicy::RoundRobin, None),
        Balancer::ConsistentHash(_, HashTable::Ring(size)) => {
            (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(ring(size, ranked))))
        }
        Balancer::ConsistentHash(_, HashTable::Maglev { .. }) => return Err("type: gRPC knows no table of Maglev".to_owned()),
    };
    Ok(bytes(&wire::Cluster {
        name: upstream.name.to_string(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
        eds_cluster_config: asked,
        load_assignment: load_assignment.map(bare),
        lb_policy: policy.into(),
        lb_config: config,
        circuit_breakers: upstream.breakers.max_requests.map(|most| wire::CircuitBreakers {
            thresholds: vec![wire::circuit_breakers::Thresholds { max_requests: Some(most), ..Default::default() }],
            ..Default::default()
        }),
        transport_socket: match &upstream.mesh {
            Some(peer) => Some(mutual(peer.identities.iter(), true)),
            None => upstream.scheme.is_tls().then(|| transport(upstream)).transpose()?,
        },
        lrs_server: Some(here()),
        ..Default::default()
    }))
}

/// Loads are reported where the cluster comes from.
fn here() -> base::ConfigSource {
    base::ConfigSource {
        config_source_specifier: Some(base::config_source::ConfigSourceSpecifier::Self_(base::SelfConfigSource::default())),
        ..Default::default()
    }
}

/// The endpoints, those of each weight as a part of their zone: clients of gRPC share requests out to places by weight, and within one to all alike. A ring takes
/// the weights of endpoints themselves.
pub(in super::super) fn assignment(ranked: &Ranked, upstream: Option<&Upstream>) -> Bytes {
    let mut assignment = assigned(ranked, upstream);
    if !upstream.is_some_and(|upstream| matches!(upstream.balancer, Balancer::ConsistentHash(..))) {
        assignment.endpoints = assignment.endpoints.into_iter().flat_map(by_weight).collect();
    }
    bytes(&assignment)
}

fn by_weight(group: eds::LocalityLbEndpoints) -> Vec<eds::LocalityLbEndpoints> {
    let mut parts: BTreeMap<Option<u32>, Vec<eds::LbEndpoint>> = BTreeMap::new();
    for endpoint in group.lb_endpoints {
        parts.entry(endpoint.load_balancing_weight).or_default().push(endpoint);
    }
    if parts.keys().flatten().count() < 2 {
        return vec![eds::LocalityLbEndpoints { lb_endpoints: parts.into_values().flatten().collect(), ..group }];
    }
    // What has no weight gets nothing.
    let weighed = parts.into_iter().filter_map(|(weight, endpoints)| Some((weight?, endpoints)));
    let part = |(weight, lb_endpoints): (u32, Vec<eds::LbEndpoint>)| {
        let count = u32::try_from(lb_endpoints.len()).unwrap_or(u32::MAX);
        eds::LocalityLbEndpoints {
            locality: Some(base::Locality { sub_zone: format!("weight-{weight}"), ..group.locality.clone().unwrap_or_default() }),
            // No more than all of them together, which can be added up.
            load_balancing_weight: Some(weight.saturating_mul(count)),
            priority: group.priority,
            lb_endpoints,
        }
    };
    weighed.map(part).collect()
}

/// One name in one place, and nothing said of it.
fn bare(mut assignment: eds::ClusterLoadAssignment) -> eds::ClusterLoadAssignment {
    for group in &mut assignment.endpoints {
        group.priority = 0;
    }
    assignment
}

/// TLS by the certificates that the bootstrap of the client provides.
fn transport(upstream: &Upstream) -> Result<base::TransportSocket, String> {
    let written = &upstream.tls;
    if !written.verify {
        return Err("tls.verify: gRPC speaks TLS with nobody whose certificate it does not verify".to_owned());
    }
    Ok(mutual(written.sni.iter(), written.client_cert.is_some()))
}

/// Towards a peer whose certificate has one of these names; `shows` says whether the own one is shown.
fn mutual<'a>(names: impl Iterator<Item = &'a Arc<str>>, shows: bool) -> base::TransportSocket {
    let trusted = tls::CertificateValidationContext {
        ca_certificate_provider_instance: Some(provider()),
        match_subject_alt_names: names.map(|name| exact(name)).collect(),
        ..Default::default()
    };
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_certificate_provider_instance: shows.then(provider),
            validation_context_type: Some(tls::common_tls_context::ValidationContextType::ValidationContext(trusted)),
            ..Default::default()
        }),
        ..Default::default()
    };
    base::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: any(&context).map(base::transport_socket::ConfigType::TypedConfig),
    }
}
