//! Listeners: what is accepted, shown and read before a route is looked for. It knows no route.

mod misdirected;
mod tcp;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::listener::v3 as wire;
use heddle_proto::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol as ProxyFilter;
use heddle_proto::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use heddle_proto::envoy::extensions::filters::network::http_connection_manager::v3 as manager;
use heddle_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use manager::http_connection_manager::{
    CodecType, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation, UpgradeConfig,
};
use manager::{HttpConnectionManager, HttpFilter};
use misdirected::Guards;
use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};

pub(super) use tcp::{Find, hash_policy_if, takes_bytes};

use super::plugins::Filters;
use super::wire::{address, ads, any, secret, span};
use super::{ROUTES, Reader, bytes, plugins};
use crate::model::{Certificate, ClientValidation, Listener, ListenerProtocol, ProxyProtocol, TlsVersion};

const MANAGER: &str = "envoy.filters.network.http_connection_manager";
const INSPECTOR: &str = "envoy.filters.listener.tls_inspector";
/// What is spoken inside TLS where a listener looks for requests.
const REQUESTS: [&str; 2] = ["h2", "http/1.1"];
const TLS: &str = "envoy.transport_sockets.tls";
/// Most that Envoy takes of a request head, KiB.
const MOST_HEAD: u32 = 8_192;

/// A listener, or what of it Envoy lacks.
pub(super) fn encode(
    (reader, listener): (Reader, &Listener),
    certificates: &[&Certificate],
    further: &Filters,
    find: Find<'_, '_>,
) -> Result<Bytes, String> {
    let certificates = &shown_by(listener, certificates)[..];
    let mut listener_filters = Vec::new();
    match &listener.proxy_protocol {
        ProxyProtocol::Off => {}
        ProxyProtocol::Required(peers) if peers.is_empty() => {
            listener_filters.push(looking("envoy.filters.listener.proxy_protocol", any(&ProxyFilter::default())));
        }
        ProxyProtocol::Required(_) => return Err("proxy_protocol: Envoy cannot demand it of some peers only".to_owned()),
    }
    if !listener.forwarded.trusted.is_empty() {
        return Err("forwarded.trusted: Envoy counts hops and knows no trusted networks".to_owned());
    }
    let filter = |first: Option<HttpFilter>| wire::Filter {
        name: MANAGER.to_owned(),
        config_type: any(&manager(reader, listener, first, further)).map(wire::filter::ConfigType::TypedConfig),
    };
    let filter_chains = match listener.protocol {
        ListenerProtocol::Http => vec![wire::FilterChain { filters: vec![filter(None)], ..Default::default() }],
        ListenerProtocol::Https => {
            listener_filters.push(inspector());
            // Agents of ours look at hosts by themselves.
            let guards = if reader == Reader::Agent { None } else { Guards::of(certificates) };
            chains(listener, (&filter, guards.as_ref()), certificates)?
        }
        ListenerProtocol::Tcp => {
            if tcp::must_look(listener) {
                listener_filters.push(inspector());
            }
            tcp::chains(listener, certificates, find)?
        }
    };
    Ok(bytes(&wire::Listener {
        name: listener.name.to_string(),
        address: Some(address(&listener.address.ip().to_string(), listener.address.port())),
        filter_chains,
        listener_filters,
        listener_filters_timeout: span(listener.limits.handshake_timeout),
        ..Default::default()
    }))
}

/// Certificates that the listener shows: its own if it has any.
fn shown_by<'c>(listener: &Listener, certificates: &[&'c Certificate]) -> Vec<&'c Certificate> {
    let has_own = certificates.iter().any(|certificate| certificate.listeners.contains(&listener.name));
    let is_for = |certificate: &&&Certificate| match has_own {
        true => certificate.listeners.contains(&listener.name),
        false => certificate.listeners.is_empty(),
    };
    certificates.iter().filter(is_for).copied().collect()
}

/// What tells TLS from everything else.
pub(super) fn inspector() -> wire::ListenerFilter {
    looking(INSPECTOR, any(&TlsInspector::default()))
}

fn looking(name: &str, config: Option<prost_types::Any>) -> wire::ListenerFilter {
    wire::ListenerFilter {
        name: name.to_owned(),
        config_type: config.map(wire::listener_filter::ConfigType::TypedConfig),
        ..Default::default()
    }
}

/// A certificate with the names that Envoy can look for, and why others are left out: those stand for no server name at our agents either.
pub(super) fn usable(certificate: &Certificate) -> (Cow<'_, Certificate>, Option<String>) {
    let is_usable = |name: &str| match name.strip_prefix("*.") {
        Some(rest) => !rest.is_empty() && !rest.contains('*') && rest.matches('.').count() < misdirected::MOST_DOTS,
        None => name == "*" || !name.contains('*'),
    };
    let (good, bad): (Vec<_>, Vec<_>) = certificate.snis.iter().cloned().partition(|name| is_usable(name));
    if bad.is_empty() {
        return (Cow::Borrowed(certificate), None);
    }
    let reason = format!("snis: `{}`: Envoy takes `*` for the first label of a name alone, so it is left out", bad.join("`, `"));
    (Cow::Owned(Certificate { snis: good, ..certificate.clone() }), Some(reason))
}

/// What takes requests, with a filter before all others.
type Manager<'a> = &'a dyn Fn(Option<HttpFilter>) -> wire::Filter;

/// A chain for each certificate. Each name is shown by the first certificate that has it.
fn chains(
    listener: &Listener,
    (filter, guards): (Manager<'_>, Option<&Guards<'_>>),
    certificates: &[&Certificate],
) -> Result<Vec<wire::FilterChain>, String> {
    let unguarded = filter(None);
    let mut taken: BTreeSet<&Arc<str>> = BTreeSet::new();
    let mut chains = Vec::new();
    for certificate in certificates {
        let names: Vec<&Arc<str>> = certificate.snis.iter().filter(|name| taken.insert(name)).collect();
        if names.is_empty() {
            continue;
        }
        if certificate.client.as_ref().is_some_and(|client| !client.skip_uri_regex.is_empty()) {
            return Err(format!("certificate {}: Envoy cannot leave paths out of the demand for a certificate", certificate.id));
        }
        let whole = names.iter().any(|name| &***name == "*");
        let named: Vec<String> = names.iter().filter(|name| &****name != "*").map(|name| name.to_string()).collect();
        let filter = match guards.and_then(|guards| guards.filter(certificate)) {
            Some(guard) => filter(Some(guard)),
            None => unguarded.clone(),
        };
        let parts = [(!named.is_empty()).then_some(named), whole.then(Vec::new)];
        for server_names in parts.into_iter().flatten() {
            chains.push(wire::FilterChain {
                name: format!("{}{}", certificate.id, if server_names.is_empty() { "/*" } else { "" }),
                filter_chain_match: (!server_names.is_empty())
                    .then(|| wire::FilterChainMatch { server_names, ..Default::default() }),
                filters: vec![filter.clone()],
                transport_socket: Some(shown(certificate, &REQUESTS)),
                transport_socket_connect_timeout: span(listener.limits.handshake_timeout),
                ..Default::default()
            });
        }
    }
    if chains.is_empty() {
        return Err("has no certificate yet, without which Envoy takes no listener of TLS".to_owned());
    }
    Ok(chains)
}

/// TLS with this certificate and its demands, inside which one of these protocols is agreed on.
fn shown(certificate: &Certificate, protocols: &[&str]) -> base::TransportSocket {
    use tls::tls_parameters::TlsProtocol::{TlSv12, TlSv13};
    let version = |version: TlsVersion| match version {
        TlsVersion::V1_2 => TlSv12.into(),
        TlsVersion::V1_3 => TlSv13.into(),
    };
    let client = certificate.client.as_ref();
    let validation = client.map(validated);
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_params: Some(tls::TlsParameters {
                tls_minimum_protocol_version: version(certificate.min_version),
                tls_maximum_protocol_version: version(certificate.max_version),
                ..Default::default()
            }),
            tls_certificate_sds_secret_configs: certificate.secrets.iter().map(|name| secret(name)).collect(),
            alpn_protocols: protocols.iter().map(|name| (*name).to_owned()).collect(),
            validation_context_type: validation,
            ..Default::default()
        }),
        require_client_certificate: client.map(|_| true),
        ..Default::default()
    };
    base::TransportSocket {
        name: TLS.to_owned(),
        config_type: any(&context).map(base::transport_socket::ConfigType::TypedConfig),
    }
}

/// Whose certificates are believed. Envoy counts the root as well as what stands between it and the client.
fn validated(client: &ClientValidation) -> ValidationContextType {
    let most = u32::from(client.depth) + 1;
    let bounded = tls::CertificateValidationContext { max_verify_depth: Some(most), ..Default::default() };
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(bounded),
        validation_context_sds_secret_config: Some(secret(&client.ca)),
    })
}

fn manager(reader: Reader, listener: &Listener, first: Option<HttpFilter>, further: &Filters) -> HttpConnectionManager {
    let limits = &listener.limits;
    let underscores = if listener.paths.drop_underscore_headers {
        base::http_protocol_options::HeadersWithUnderscoresAction::DropHeader
    } else {
        base::http_protocol_options::HeadersWithUnderscoresAction::Allow
    };
    let slashes = if listener.paths.reject_encoded_slashes {
        PathWithEscapedSlashesAction::RejectRequest
    } else {
        PathWithEscapedSlashesAction::KeepUnchanged
    };
    HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix: listener.name.to_string(),
        route_specifier: Some(RouteSpecifier::Rds(manager::Rds { config_source: ads(), route_config_name: ROUTES.to_owned() })),
        http_filters: first.into_iter().chain(plugins::chain(further)).collect(),
        common_http_protocol_options: Some(base::HttpProtocolOptions {
            idle_timeout: span(limits.idle_timeout),
            max_headers_count: Some(limits.max_headers.max(1)),
            headers_with_underscores_action: underscores.into(),
            max_connection_duration: Some(limits.max_connection_duration).filter(|age| !age.is_zero()).and_then(span),
            max_requests_per_connection: (limits.max_requests_per_connection > 0).then_some(limits.max_requests_per_connection),
            ..Default::default()
        }),
        http_protocol_options: Some(base::Http1ProtocolOptions { accept_http_10: true, ..Default::default() }),
        http2_protocol_options: Some(base::Http2ProtocolOptions {
            max_concurrent_streams: Some(limits.max_streams.max(1)),
            ..Default::default()
        }),
        server_name: listener.server_header.server.as_deref().unwrap_or_default().to_owned(),
        server_header_transformation: match listener.server_header.server {
            Some(_) => ServerHeaderTransformation::Overwrite,
            None => ServerHeaderTransformation::PassThrough,
        }
        .into(),
        via: listener.server_header.via.as_deref().unwrap_or_default().to_owned(),
        max_request_headers_kb: Some(limits.max_header_bytes.div_ceil(1024).clamp(1, MOST_HEAD)),
        request_headers_timeout: span(limits.header_timeout),
        stream_idle_timeout: span(limits.body_timeout.max(Duration::from_secs(1))),
        use_remote_address: Some(true),
        generate_request_id: Some(false),
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), enabled: Some(false), ..Default::default() }],
        // A name with the dot of the root is the same host; our agents know that by themselves.
        strip_trailing_host_dot: reader == Reader::Envoy,
        normalize_path: Some(true),
        merge_slashes: listener.paths.merge_slashes,
        path_with_escaped_slashes_action: slashes.into(),
        ..Default::default()
    }
}
