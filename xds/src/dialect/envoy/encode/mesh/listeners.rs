//! The two ends of an application in the mesh: what others send to it, and where it calls a service. They know no policy.

use std::net::SocketAddr;
use std::time::Duration;

use heddle_proto::envoy::config::cluster::v3 as clusters;
use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::endpoint::v3 as eds;
use heddle_proto::envoy::config::listener::v3 as wire;
use heddle_proto::envoy::config::route::v3 as routes;
use heddle_proto::envoy::extensions::filters::http::rbac::v3::{Rbac, RbacPerRoute};
use heddle_proto::envoy::extensions::filters::http::router::v3::Router;
use heddle_proto::envoy::extensions::filters::network::http_connection_manager::v3 as manager;
use heddle_proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use heddle_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{ClusterSpecifier, TunnelingConfig};
use heddle_proto::envoy::extensions::upstreams::http::v3 as http;
use manager::http_connection_manager::{
    CodecType, ForwardClientCertDetails, RouteSpecifier, ServerHeaderTransformation, SetCurrentClientCertDetails, UpgradeConfig,
};
use prost::Name;

use super::super::listener::{hash_policy_if, inspector};
use super::super::plugins::{Filters, ROUTER, chain, filter};
use super::super::wire::{address, ads, any, span};
use super::policy::Rules;
use super::tls;
use crate::model::MeshProtocol;

/// The names of what leads to the application.
pub(super) const INBOUND: &str = "inbound";
/// The two filters that ask the policies, in their order. What they ask stands in the routes, so that a change counts for connections that are there.
const DENY: &str = "heddle.deny";
const ALLOW: &str = "heddle.allow";
/// What is asked for by who opens a tunnel.
const TUNNEL: &str = "CONNECT";
/// The field in which agents of ours tell each other how names of fields were written.
const CASE_FIELD: &str = "x-heddle-case";
/// How else what tells of the caller may be spelled for applications that do not tell `_` from `-`. Envoy takes off the one with hyphens alone.
const SPELLINGS: [&str; 7] = [
    "x_forwarded-client-cert",
    "x-forwarded_client-cert",
    "x-forwarded-client_cert",
    "x_forwarded_client-cert",
    "x_forwarded-client_cert",
    "x-forwarded_client_cert",
    "x_forwarded_client_cert",
];
/// How long connecting to the application may take: it is on this machine.
const CONNECT: Duration = Duration::from_secs(5);
/// After this long members connect anew, and prove anew who they are: as at our own sidecars (`inbound.max_connection_age`). Envoy judges no certificate again.
const AGE: Duration = Duration::from_secs(3_600);
/// How long what is in flight then may take (`inbound.max_connection_age_grace`).
const GRACE: Duration = Duration::from_secs(24 * 3_600);

/// What is sent to an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Requests of HTTP/1.1.
    Http1,
    /// Requests of HTTP/2.
    Http2,
    /// Bytes that nobody looks into, in tunnels.
    Bytes,
}

/// What is sent to an application that speaks this; what it would have to find out has no counterpart.
pub(super) fn sent(protocol: MeshProtocol) -> Result<Sent, String> {
    match protocol {
        MeshProtocol::Http => Ok(Sent::Http1),
        MeshProtocol::Http2 | MeshProtocol::Grpc => Ok(Sent::Http2),
        MeshProtocol::Tcp => Ok(Sent::Bytes),
        MeshProtocol::Auto => Err("protocol auto: Envoy has to be told http, http2, grpc or tcp".to_owned()),
    }
}

/// What takes calls of members of the mesh, and of nobody else unless requests are taken in clear. Those are judged by the same policies, as callers that have
/// proven nothing, and can tell the application of no certificate: Envoy takes off what they say of one.
pub(super) fn inbound(at: SocketAddr, (domain, federated): (&str, bool), sent: Sent, in_clear: bool) -> wire::Listener {
    let none = |name: &str| filter(name, &Rbac::default(), false);
    let manager = manager::HttpConnectionManager {
        http_filters: vec![none(DENY), none(ALLOW), router()],
        common_http_protocol_options: Some(base::HttpProtocolOptions {
            max_connection_duration: span(AGE),
            max_stream_duration: span(GRACE),
            ..Default::default()
        }),
        http2_protocol_options: Some(base::Http2ProtocolOptions { allow_connect: true, ..Default::default() }),
        forward_client_cert_details: ForwardClientCertDetails::SanitizeSet.into(),
        set_current_client_cert_details: Some(SetCurrentClientCertDetails { uri: true, ..Default::default() }),
        // Who called at the edge, members tell each other.
        use_remote_address: Some(false),
        skip_xff_append: true,
        preserve_external_request_id: true,
        upgrade_configs: vec![upgrade(if sent == Sent::Bytes { TUNNEL } else { "websocket" })],
        ..common(INBOUND)
    };
    let mut opened = listener(INBOUND, at, &manager, tls::inward(domain, federated));
    if in_clear {
        // What begins with a handshake is a call of a member, also where callers in clear are meant: it may not have heard of that.
        let members = opened.filter_chains.remove(0);
        let clear = wire::FilterChain { transport_socket: None, ..members.clone() };
        opened.filter_chains = [(members, "tls"), (clear, "raw_buffer")].map(|(chain, begins)| told_by(chain, begins)).into();
        opened.listener_filters = vec![inspector()];
    }
    opened
}

/// A chain for what begins like this.
fn told_by(chain: wire::FilterChain, begins: &str) -> wire::FilterChain {
    let told = wire::FilterChainMatch { transport_protocol: begins.to_owned(), ..Default::default() };
    wire::FilterChain { name: begins.to_owned(), filter_chain_match: Some(told), ..chain }
}

/// How bytes reach a service.
pub(super) struct Way<'w> {
    pub cluster: &'w str,
    /// What the other end is told that they are for; `None` where it takes them as they are, in clear.
    pub authority: Option<String>,
    pub attempts: u32,
    /// Whether the address of who connects decides which instance they reach.
    pub hashed: bool,
}

/// Where the application sends bytes to a service, in a tunnel unless that is called in clear. The service may speak first.
pub(super) fn tunnel(name: &str, at: SocketAddr, way: Way<'_>) -> wire::Listener {
    let proxy = TcpProxy {
        stat_prefix: name.to_owned(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(way.cluster.to_owned())),
        // How long nobody says anything is a matter of both ends.
        idle_timeout: span(Duration::ZERO),
        max_connect_attempts: Some(way.attempts),
        tunneling_config: way.authority.map(|hostname| TunnelingConfig { hostname }),
        hash_policy: hash_policy_if(way.hashed),
        ..Default::default()
    };
    let filter = wire::Filter {
        name: "envoy.filters.network.tcp_proxy".to_owned(),
        config_type: any(&proxy).map(wire::filter::ConfigType::TypedConfig),
    };
    opened(name, at, vec![filter], None)
}

/// A listener that closes what connects to it.
pub(super) fn closed(name: &str, at: SocketAddr) -> wire::Listener {
    opened(name, at, Vec::new(), None)
}

/// Where the application calls a service.
pub(super) fn outbound(name: &str, at: SocketAddr, further: &Filters) -> wire::Listener {
    let manager = manager::HttpConnectionManager { http_filters: chain(further), use_remote_address: Some(true), ..common(name) };
    listener(name, at, &manager, None)
}

fn common(name: &str) -> manager::HttpConnectionManager {
    manager::HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix: name.to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(manager::Rds { config_source: ads(), route_config_name: name.to_owned() })),
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        // How long something may take is the caller's to say.
        stream_idle_timeout: span(Duration::ZERO),
        generate_request_id: Some(false),
        normalize_path: Some(true),
        upgrade_configs: vec![upgrade("websocket")],
        ..Default::default()
    }
}

fn upgrade(kind: &str) -> UpgradeConfig {
    UpgradeConfig { upgrade_type: kind.to_owned(), ..Default::default() }
}

fn router() -> manager::HttpFilter {
    filter(ROUTER, &Router { suppress_envoy_headers: true, ..Default::default() }, false)
}

fn listener(
    name: &str,
    at: SocketAddr,
    manager: &manager::HttpConnectionManager,
    transport_socket: Option<base::TransportSocket>,
) -> wire::Listener {
    let filter = wire::Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: any(manager).map(wire::filter::ConfigType::TypedConfig),
    };
    opened(name, at, vec![filter], transport_socket)
}

fn opened(
    name: &str,
    at: SocketAddr,
    filters: Vec<wire::Filter>,
    transport_socket: Option<base::TransportSocket>,
) -> wire::Listener {
    wire::Listener {
        name: name.to_owned(),
        address: Some(address(&at.ip().to_string(), at.port())),
        filter_chains: vec![wire::FilterChain { filters, transport_socket, ..Default::default() }],
        ..Default::default()
    }
}

/// Everything goes to the application, as far as the policies let it: requests, or what stands in tunnels.
pub(super) fn to_application(rules: Rules, sent: Sent) -> routes::RouteConfiguration {
    let (matches, upgrade_configs) = match sent {
        Sent::Bytes => {
            let ends = routes::route_action::upgrade_config::ConnectConfig {};
            let tunnel = routes::route_action::UpgradeConfig {
                upgrade_type: TUNNEL.to_owned(),
                connect_config: Some(ends),
                ..Default::default()
            };
            (tunnels(), vec![tunnel])
        }
        _ => (everything(), Vec::new()),
    };
    let asked = [(DENY, rules.deny), (ALLOW, rules.allow)].into_iter();
    let asked = asked.filter_map(|(name, rules)| Some((name.to_owned(), any(&RbacPerRoute { rbac: Some(rules?) })?)));
    let action = routes::RouteAction {
        cluster_specifier: Some(routes::route_action::ClusterSpecifier::Cluster(INBOUND.to_owned())),
        timeout: span(Duration::ZERO),
        upgrade_configs,
        ..Default::default()
    };
    let route = routes::Route {
        r#match: Some(matches),
        action: Some(routes::route::Action::Route(action)),
        typed_per_filter_config: asked.collect(),
        request_headers_to_remove: [CASE_FIELD].into_iter().chain(SPELLINGS).map(str::to_owned).collect(),
        ..Default::default()
    };
    table(INBOUND, vec![host(INBOUND, vec!["*".to_owned()], vec![route])])
}

/// The same rules as filters, for who has no routes in which they could stand.
pub(super) fn guards(rules: Rules) -> Vec<manager::HttpFilter> {
    let asked = [(DENY, rules.deny), (ALLOW, rules.allow)].into_iter();
    asked.filter_map(|(name, rules)| Some(filter(name, &rules?, false))).collect()
}

/// A table that answers everything with 503.
pub(super) fn unavailable(name: &str) -> routes::RouteConfiguration {
    let answer = routes::DirectResponseAction { status: 503, ..Default::default() };
    let route = routes::Route {
        r#match: Some(everything()),
        action: Some(routes::route::Action::DirectResponse(answer)),
        ..Default::default()
    };
    table(name, vec![host(name, vec!["*".to_owned()], vec![route])])
}

/// The routes of a service. Who calls it by the address of its listener is taken to mean its name.
pub(super) fn to_service(name: &str, service: &str, at: SocketAddr, all: Vec<routes::Route>) -> routes::RouteConfiguration {
    let named = |mut route: routes::Route| {
        if let Some(routes::route::Action::Route(action)) = &mut route.action {
            action
                .host_rewrite_specifier
                .get_or_insert_with(|| routes::route_action::HostRewriteSpecifier::HostRewriteLiteral(host_of(service)));
        }
        route
    };
    let own = vec![at.ip().to_string(), "localhost".to_owned()];
    let addressed = host("address", own, all.iter().cloned().map(named).collect());
    table(name, vec![addressed, host("name", vec!["*".to_owned()], all)])
}

/// The name of a service as a host: `cart.shop.mesh` for `shop/cart`.
pub(in super::super) fn host_of(service: &str) -> String {
    let (namespace, service) = service.split_once('/').unwrap_or(("default", service));
    format!("{service}.{namespace}.mesh")
}

fn everything() -> routes::RouteMatch {
    routes::RouteMatch { path_specifier: Some(routes::route_match::PathSpecifier::Prefix("/".to_owned())), ..Default::default() }
}

fn tunnels() -> routes::RouteMatch {
    let connect = routes::route_match::ConnectMatcher {};
    routes::RouteMatch { path_specifier: Some(routes::route_match::PathSpecifier::ConnectMatcher(connect)), ..Default::default() }
}

fn host(name: &str, domains: Vec<String>, routes: Vec<routes::Route>) -> routes::VirtualHost {
    routes::VirtualHost { name: name.to_owned(), domains, routes, ..Default::default() }
}

fn table(name: &str, virtual_hosts: Vec<routes::VirtualHost>) -> routes::RouteConfiguration {
    routes::RouteConfiguration { name: name.to_owned(), virtual_hosts, ignore_port_in_host_matching: true, ..Default::default() }
}

/// The application as a cluster of one endpoint, without limits: those are its callers'.
pub(super) fn application(at: SocketAddr, sent: Sent) -> clusters::Cluster {
    use http::http_protocol_options::explicit_http_config::ProtocolConfig;
    use http::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
    let protocol = match sent {
        Sent::Http2 => ProtocolConfig::Http2ProtocolOptions(base::Http2ProtocolOptions::default()),
        Sent::Http1 | Sent::Bytes => ProtocolConfig::HttpProtocolOptions(base::Http1ProtocolOptions::default()),
    };
    let options = http::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(protocol),
        })),
        ..Default::default()
    };
    let endpoint = eds::Endpoint { address: Some(address(&at.ip().to_string(), at.port())), ..Default::default() };
    let endpoint =
        eds::LbEndpoint { host_identifier: Some(eds::lb_endpoint::HostIdentifier::Endpoint(endpoint)), ..Default::default() };
    let unlimited = Some(u32::MAX);
    let thresholds = clusters::circuit_breakers::Thresholds {
        max_connections: unlimited,
        max_pending_requests: unlimited,
        max_requests: unlimited,
        ..Default::default()
    };
    clusters::Cluster {
        name: INBOUND.to_owned(),
        cluster_discovery_type: Some(clusters::cluster::ClusterDiscoveryType::Type(
            clusters::cluster::DiscoveryType::Static.into(),
        )),
        load_assignment: Some(eds::ClusterLoadAssignment {
            cluster_name: INBOUND.to_owned(),
            endpoints: vec![eds::LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
            ..Default::default()
        }),
        connect_timeout: span(CONNECT),
        circuit_breakers: Some(clusters::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }),
        typed_extension_protocol_options: any(&options)
            .map(|options| (http::HttpProtocolOptions::full_name(), options))
            .into_iter()
            .collect(),
        ..Default::default()
    }
}
