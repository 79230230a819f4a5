//! What clients and servers of gRPC are given: the part of Envoy's types that they know, by the names that they ask for. It knows no stream.
//!
//! A client asks for a `Listener` by the name of its service. That is a host of routes: the closest one that covers it stands for it, and its
//! `RouteConfiguration` holds the routes of that host alone. A server asks by the address that it listens on, and is told how its connections begin.

mod cluster;
mod route;
mod services;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::listener::v3 as wire;
use heddle_proto::envoy::config::route::v3 as routes;
use heddle_proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use heddle_proto::envoy::extensions::filters::http::router::v3::Router;
use heddle_proto::envoy::extensions::filters::network::http_connection_manager::v3 as manager;
use heddle_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use manager::http_connection_manager::RouteSpecifier;
use prost::Message;

use super::hosts::Table;
use super::plugins::{FAULT, ROUTER, filter};
use super::wire::{address, ads, any};
use super::{Difference, mesh, table};
use crate::model::{Kind, Listener, Resource};
use crate::snapshot::{NodeScope, SnapshotSource, Versioned};

pub(super) use cluster::{assignment, encode as cluster};
pub(super) use route::{encode as route, gap};
pub(super) use services::project;

/// The provider of certificates that the bootstrap of a client or server of gRPC names.
const PROVIDER: &str = "default";
/// What a server asks for that is to listen in clear, with its address behind.
const SERVER: &str = "grpc/server?xds.resource.listening_address=";
/// The same for a server that is to demand certificates.
const MUTUAL: &str = "grpc/server/mtls?xds.resource.listening_address=";
/// Longest name that is asked for: that of a host with its port (RFC 1035 section 2.3.4), or an address behind what a server asks for.
const MAX_NAME: usize = 512;

/// The name of the routes and of the listener of a host. No name begins so that is asked for.
fn of_host(domain: &str) -> String {
    format!("hosts/{domain}")
}

/// Tells the tables of those hosts that have changed, and a listener for each.
pub(super) fn tables(routes: &mut Table, out: &mut Difference) {
    for (domain, body) in routes.encode_touched(of_host) {
        let name = of_host(&domain);
        match body {
            Some(body) => {
                let listener = client(&name);
                out.push(Ok(Versioned::encoded(table(&name), body)));
                out.push(Ok(Versioned::encoded(standing(&name), listener)));
            }
            None => out.extend([Kind::Route, Kind::Listener].map(|kind| Err((kind, name.as_str().into())))),
        }
    }
}

/// The listener that was asked for by the name of a service or of a server's address.
pub(crate) fn listener(source: &dyn SnapshotSource, name: &str, scope: &NodeScope) -> Option<Arc<Versioned>> {
    if name.len() > MAX_NAME {
        return None;
    }
    // What should run between callers and a server, no server runs.
    let is_server = name.starts_with(SERVER) || name.starts_with(MUTUAL);
    if is_server && source.get(Kind::MeshInbound, &format!("{}/{}", scope.namespace, scope.service), scope).is_some() {
        return None;
    }
    if let Some(address) = name.strip_prefix(SERVER) {
        // In clear nobody proves who calls.
        return policies(source, scope).is_empty().then(|| server(name, address, Vec::new(), None)).flatten();
    }
    if let Some(address) = name.strip_prefix(MUTUAL) {
        return server(name, address, policies(source, scope), Some(mutual()));
    }
    let found = covering(name).into_iter().find_map(|host| source.get(Kind::Listener, &of_host(&host), scope))?;
    let mut body = wire::Listener { name: name.to_owned(), ..Default::default() }.encode_to_vec();
    body.extend_from_slice(&found.body);
    Some(Arc::new(Versioned::encoded(standing(name), body.into())))
}

/// The policies that protect the service of a server.
fn policies(source: &dyn SnapshotSource, scope: &NodeScope) -> Vec<Arc<Versioned>> {
    let protects = |found: &Arc<Versioned>| match &found.resource {
        Resource::AuthorizationPolicy(policy) => {
            let own = policy.service.as_ref().is_none_or(|service| *service == scope.service);
            own && policy.namespace == scope.namespace
        }
        _ => false,
    };
    source.all(Kind::AuthorizationPolicy).1.iter().map(|(_, found)| found).filter(|found| protects(found)).cloned().collect()
}

/// The hosts of routes that cover the name of a service, the closest first.
fn covering(name: &str) -> Vec<String> {
    let host = match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => name,
    };
    let host = host.to_ascii_lowercase();
    let dots = host.char_indices().filter(|(_, c)| *c == '.').map(|(at, _)| format!("*{}", &host[at..]));
    let wider: Vec<String> = dots.chain(["*".to_owned()]).collect();
    std::iter::once(host).chain(wider).collect()
}

/// The listener of a client, without its name: that comes when it is asked for.
fn client(routes: &str) -> Bytes {
    let rds = manager::Rds { config_source: ads(), route_config_name: routes.to_owned() };
    let api_listener = wire::ApiListener { api_listener: any(&manager(RouteSpecifier::Rds(rds))) };
    wire::Listener { api_listener: Some(api_listener), ..Default::default() }.encode_to_vec().into()
}

fn manager(routes: RouteSpecifier) -> manager::HttpConnectionManager {
    manager::HttpConnectionManager {
        route_specifier: Some(routes),
        http_filters: vec![filter(FAULT, &HttpFault::default(), false), filter(ROUTER, &Router::default(), false)],
        ..Default::default()
    }
}

/// The listener of a server: everything that comes is for it, as far as the policies let it.
fn server(
    name: &str,
    listening: &str,
    policies: Vec<Arc<Versioned>>,
    transport_socket: Option<base::TransportSocket>,
) -> Option<Arc<Versioned>> {
    let listening: std::net::SocketAddr = listening.parse().ok()?;
    let route = routes::Route {
        r#match: Some(routes::RouteMatch {
            path_specifier: Some(routes::route_match::PathSpecifier::Prefix(String::new())),
            ..Default::default()
        }),
        action: Some(routes::route::Action::NonForwardingAction(routes::NonForwardingAction {})),
        ..Default::default()
    };
    let host =
        routes::VirtualHost { name: "*".to_owned(), domains: vec!["*".to_owned()], routes: vec![route], ..Default::default() };
    let routes = routes::RouteConfiguration { name: "served".to_owned(), virtual_hosts: vec![host], ..Default::default() };
    let mut manager = manager(RouteSpecifier::RouteConfig(routes));
    // A server injects no faults.
    manager.http_filters.remove(0);
    manager.http_filters.splice(0..0, mesh::guards(&policies, listening.port()));
    let filter = wire::Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: any(&manager).map(wire::filter::ConfigType::TypedConfig),
    };
    let chain = wire::FilterChain { filters: vec![filter], transport_socket, ..Default::default() };
    let body = wire::Listener {
        name: name.to_owned(),
        address: Some(address(&listening.ip().to_string(), listening.port())),
        default_filter_chain: Some(chain),
        ..Default::default()
    };
    Some(Arc::new(Versioned::encoded(standing(name), body.encode_to_vec().into())))
}

/// Certificates are shown and demanded; which ones, and whom they convince, the provider in the bootstrap of the server says.
fn mutual() -> base::TransportSocket {
    let trusted = tls::CertificateValidationContext { ca_certificate_provider_instance: Some(provider()), ..Default::default() };
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_certificate_provider_instance: Some(provider()),
            validation_context_type: Some(tls::common_tls_context::ValidationContextType::ValidationContext(trusted)),
            ..Default::default()
        }),
        require_client_certificate: Some(true),
        ..Default::default()
    };
    base::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: any(&context).map(base::transport_socket::ConfigType::TypedConfig),
    }
}

fn provider() -> tls::CertificateProviderPluginInstance {
    tls::CertificateProviderPluginInstance { instance_name: PROVIDER.to_owned(), ..Default::default() }
}

/// What a listener of gRPC stands for in a snapshot: one that is for every node.
pub(super) fn standing(name: &str) -> Resource {
    Resource::Listener(Listener::new(name, std::net::SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0)))
}
