//! Clusters as clients of gRPC know them. It knows no route.

use bytes::Bytes;
use heddle_proto::envoy::config::cluster::v3 as wire;
use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::endpoint::v3 as eds;
use heddle_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use wire::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbConfig, LbPolicy};

use super::super::bytes;
use super::super::cluster::{assigned, dns, is_inline, ring};
use super::super::wire::{ads, any, exact};
use super::provider;
use crate::model::{Balancer, Discovery, Endpoints, HashTable, Upstream};

/// A cluster, or what of the upstream gRPC lacks.
pub(in super::super) fn encode(upstream: &Upstream, endpoints: Option<&Endpoints>) -> Result<Bytes, String> {
    if upstream.mesh.is_some() {
        return Err("leads into the mesh, of which this node has no identity".to_owned());
    }
    let inline = is_inline(Some(upstream), endpoints);
    let load_assignment = match (inline, &upstream.discovery, endpoints) {
        (false, ..) => None,
        (_, Some(Discovery::Dns(name)), _) => Some(dns(upstream, name)),
        (_, None, Some(endpoints)) if endpoints.endpoints.len() == 1 => Some(assigned(endpoints, None)),
        _ => return Err("nodes: gRPC looks up one name only, beside which there is nothing".to_owned()),
    };
    let (kind, asked) = match load_assignment {
        Some(_) => (DiscoveryType::LogicalDns, None),
        None => (DiscoveryType::Eds, Some(EdsClusterConfig { eds_config: ads(), ..Default::default() })),
    };
    let (policy, config) = match upstream.balancer {
        Balancer::RoundRobin | Balancer::LeastConn | Balancer::Ewma => (LbPolicy::RoundRobin, None),
        Balancer::ConsistentHash(_, HashTable::Ring(size)) => {
            (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(ring(size, endpoints))))
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
        transport_socket: upstream.scheme.is_tls().then(|| transport(upstream)).transpose()?,
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
    let trusted = tls::CertificateValidationContext {
        ca_certificate_provider_instance: Some(provider()),
        match_subject_alt_names: written.sni.iter().map(|sni| exact(sni)).collect(),
        ..Default::default()
    };
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_certificate_provider_instance: written.client_cert.as_ref().map(|_| provider()),
            validation_context_type: Some(tls::common_tls_context::ValidationContextType::ValidationContext(trusted)),
            ..Default::default()
        }),
        ..Default::default()
    };
    Ok(base::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: any(&context).map(base::transport_socket::ConfigType::TypedConfig),
    })
}
