//! Services as Envoy's resources: a cluster of three endpoints and a virtual host each, and one listener. It knows no data plane.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use heddle_proto::envoy::config::cluster::v3::{Cluster, cluster};
use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::endpoint::v3 as endpoint;
use heddle_proto::envoy::config::listener::v3 as listener;
use heddle_proto::envoy::config::route::v3 as route;
use heddle_proto::envoy::extensions::filters::http::router::v3::Router;
use heddle_proto::envoy::extensions::filters::network::http_connection_manager::v3 as manager;
use prost::{Message, Name};
use prost_types::{Any, Duration};

use crate::control::Resources;

/// The type of endpoints.
pub const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const TABLE: &str = "routes";

/// Where a service is.
pub type Addresses = Vec<SocketAddr>;

/// Everything for so many services, which are at these addresses; `http` is where the listener is to be.
pub fn all(services: usize, http: SocketAddr, addresses: &Addresses) -> Resources {
    let names: Vec<String> = (0..services).map(|number| format!("s{number}")).collect();
    let each = |make: &dyn Fn(&str) -> Bytes| names.iter().map(|name| (name.clone(), make(name))).collect::<BTreeMap<_, _>>();
    let one = |name: &str, body: Bytes| BTreeMap::from([(name.to_owned(), body)]);
    BTreeMap::from([
        (Cluster::type_url(), each(&cluster)),
        (ENDPOINTS.to_owned(), each(&|name| assignment(name, addresses))),
        (listener::Listener::type_url(), one("in", listener(http))),
        (route::RouteConfiguration::type_url(), one(TABLE, table(&names))),
    ])
}

fn bytes(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn ads() -> base::ConfigSource {
    base::ConfigSource {
        resource_api_version: base::ApiVersion::V3.into(),
        config_source_specifier: Some(base::config_source::ConfigSourceSpecifier::Ads(base::AggregatedConfigSource {})),
        ..Default::default()
    }
}

fn address(address: SocketAddr) -> base::Address {
    let socket = base::SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(base::socket_address::PortSpecifier::PortValue(address.port().into())),
        ..Default::default()
    };
    base::Address { address: Some(base::address::Address::SocketAddress(socket)) }
}

fn cluster(name: &str) -> Bytes {
    bytes(&Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds.into())),
        eds_cluster_config: Some(cluster::EdsClusterConfig { eds_config: Some(ads()), ..Default::default() }),
        connect_timeout: Some(Duration { seconds: 1, nanos: 0 }),
        ..Default::default()
    })
}

/// The endpoints of a service.
pub fn assignment(name: &str, addresses: &Addresses) -> Bytes {
    let one = |at: &SocketAddr| {
        let inner = endpoint::Endpoint { address: Some(address(*at)), ..Default::default() };
        let host_identifier = Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(inner));
        endpoint::LbEndpoint { host_identifier, ..Default::default() }
    };
    let lb_endpoints = addresses.iter().map(one).collect();
    bytes(&endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![endpoint::LocalityLbEndpoints { lb_endpoints, ..Default::default() }],
        ..Default::default()
    })
}

fn listener(http: SocketAddr) -> Bytes {
    let router = manager::HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(manager::http_filter::ConfigType::TypedConfig(any(&Router::default()))),
        ..Default::default()
    };
    let rds = manager::Rds { config_source: Some(ads()), route_config_name: TABLE.to_owned() };
    let http_manager = manager::HttpConnectionManager {
        stat_prefix: "in".to_owned(),
        route_specifier: Some(manager::http_connection_manager::RouteSpecifier::Rds(rds)),
        http_filters: vec![router],
        ..Default::default()
    };
    let filter = listener::Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(&http_manager))),
    };
    bytes(&listener::Listener {
        name: "in".to_owned(),
        address: Some(address(http)),
        filter_chains: vec![listener::FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    })
}

fn table(names: &[String]) -> Bytes {
    let host = |name: &String| {
        let matches = route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        };
        let to = route::RouteAction {
            cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(name.clone())),
            ..Default::default()
        };
        let routes =
            vec![route::Route { r#match: Some(matches), action: Some(route::route::Action::Route(to)), ..Default::default() }];
        route::VirtualHost { name: name.clone(), domains: vec![format!("{name}.example")], routes, ..Default::default() }
    };
    let virtual_hosts = names.iter().map(host).collect();
    bytes(&route::RouteConfiguration { name: TABLE.to_owned(), virtual_hosts, ..Default::default() })
}
