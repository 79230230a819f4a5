//! How Envoys prove who they are to members of the mesh, and whom they believe. It knows no listener and no cluster.
//!
//! Their keys never pass through here: certificate and roots come from the agent beside each Envoy, by the cluster of its bootstrap that leads to it.

use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use heddle_proto::envoy::r#type::matcher::v3 as matcher;
use prost::Name;
use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};

use super::super::wire::{any, exact, text_matcher};
use crate::model::MeshPeer;

/// The cluster of an Envoy's bootstrap that leads to the agent beside it.
const AGENT: &str = "heddle_agent";
/// The names under which that serves the own identity and the roots of its trust domain, as those of SPIRE do.
const IDENTITY: &str = "default";
const ROOTS: &str = "ROOTCA";
/// The roots of all trust domains, each for the certificates that name it.
const EVERYBODY: &str = "ALL";
/// What members of the mesh offer when they call each other, best first: the first one tells a call of the mesh from the application's own TLS.
const CALLER_ALPN: [&str; 2] = ["heddle-h2", "h2"];
/// What a member takes: Envoy reads HTTP/2 where that was agreed on under its own name alone.
const INBOUND_ALPN: [&str; 1] = ["h2"];

/// Towards a peer that must prove one of these identities.
pub(in super::super) fn outward(peer: &MeshPeer) -> Option<base::TransportSocket> {
    let identities = peer.identities.iter().map(|id| exact(id)).collect();
    socket(&tls::UpstreamTlsContext { common_tls_context: Some(common(identities, ROOTS, &CALLER_ALPN)), ..Default::default() })
}

/// For callers that must be members of this trust domain, or of any that the agent beside the Envoy trusts.
pub(super) fn inward(domain: &str, federated: bool) -> Option<base::TransportSocket> {
    let (begins, roots) = match federated {
        true => ("spiffe://".to_owned(), EVERYBODY),
        false => (format!("spiffe://{domain}/"), ROOTS),
    };
    let member = text_matcher(matcher::string_matcher::MatchPattern::Prefix(begins));
    socket(&tls::DownstreamTlsContext {
        common_tls_context: Some(common(vec![member], roots, &INBOUND_ALPN)),
        require_client_certificate: Some(true),
        // A resumed session would outlive the check of an identity.
        disable_stateful_session_resumption: true,
        session_ticket_keys_type: Some(tls::downstream_tls_context::SessionTicketKeysType::DisableStatelessSessionResumption(
            true,
        )),
        ..Default::default()
    })
}

fn common(identities: Vec<matcher::StringMatcher>, roots: &str, alpn: &[&str]) -> tls::CommonTlsContext {
    let named = |matcher| tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(matcher),
        ..Default::default()
    };
    let version = tls::tls_parameters::TlsProtocol::TlSv13.into();
    tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: version,
            tls_maximum_protocol_version: version,
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: vec![of_agent(IDENTITY)],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
            default_validation_context: Some(tls::CertificateValidationContext {
                match_typed_subject_alt_names: identities.into_iter().map(named).collect(),
                ..Default::default()
            }),
            validation_context_sds_secret_config: Some(of_agent(roots)),
        })),
        alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

/// A secret of the agent beside the Envoy.
fn of_agent(name: &str) -> tls::SdsSecretConfig {
    use base::config_source::ConfigSourceSpecifier;
    use base::grpc_service::{EnvoyGrpc, TargetSpecifier};
    let agent = EnvoyGrpc { cluster_name: AGENT.to_owned(), ..Default::default() };
    let asked = base::ApiConfigSource {
        api_type: base::api_config_source::ApiType::Grpc.into(),
        transport_api_version: base::ApiVersion::V3.into(),
        grpc_services: vec![base::GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(agent)),
            ..Default::default()
        }],
        set_node_on_first_message_only: true,
        ..Default::default()
    };
    let sds_config = base::ConfigSource {
        resource_api_version: base::ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(asked)),
        ..Default::default()
    };
    tls::SdsSecretConfig { name: name.to_owned(), sds_config: Some(sds_config) }
}

fn socket(context: &impl Name) -> Option<base::TransportSocket> {
    Some(base::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: any(context).map(base::transport_socket::ConfigType::TypedConfig),
    })
}
