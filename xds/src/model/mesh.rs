//! The mesh: services as their clients reach them, who may call whom, and who is let in without an identity. It knows no certificates and no sockets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::{PluginConf, Timeouts, Upstream};

/// What begins the names of upstreams and endpoints of mesh services: `mesh/<namespace>/<service>`.
pub const MESH_PREFIX: &str = "mesh/";

/// The name under which it is told whose this address is: a service that has none of its own endpoints, and depends on the one that is meant. No service is
/// called so.
pub fn address_name(address: IpAddr) -> String {
    format!("{ADDRESS_PREFIX}{}", address.to_canonical())
}

/// The name under which it is told what is at this address and port: a service of its own, whose one endpoint is the instance that is there.
pub fn instance_name(at: SocketAddr) -> String {
    format!("{ADDRESS_PREFIX}{}/{}", at.ip().to_canonical(), at.port())
}

/// The address and port of such a name.
pub fn instance_of_name(name: &str) -> Option<SocketAddr> {
    let (address, port) = name.strip_prefix(ADDRESS_PREFIX)?.rsplit_once('/')?;
    Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
}

/// A host without the ending that names of services may have: `api.shop` for `api.shop.mesh`. One that says nothing else keeps it.
pub fn without_mesh(host: &str) -> &str {
    let begins = host.len().saturating_sub(MESH_ENDING.len());
    match host.split_at_checked(begins) {
        Some((name, ending)) if !matches!(name, "" | "*") && ending.eq_ignore_ascii_case(MESH_ENDING) => name,
        _ => host,
    }
}

/// How names of services may end.
const MESH_ENDING: &str = ".mesh";

/// What begins such names.
pub const ADDRESS_PREFIX: &str = "@";

/// How clients of the mesh reach one service. Its addresses are the `Endpoints` of the name of its upstream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeshService {
    /// `<namespace>/<service>`.
    pub name: Arc<str>,
    /// What its application speaks.
    pub protocol: MeshProtocol,
    /// The address that names of the service resolve to, the same on every node; `None` where none could be given.
    pub vip: Option<IpAddr>,
    /// Ports on which clients call it; empty is any.
    pub ports: Vec<u16>,
    /// Traffic features, as plugins of a route to it.
    pub plugins: Vec<PluginConf>,
    /// Overrides the upstream's timeouts.
    pub timeouts: Option<Timeouts>,
    /// How its endpoints are used, named `mesh/<namespace>/<service>`.
    pub upstream: Arc<Upstream>,
    /// Names of services that its plugins lead to.
    pub depends: Vec<Arc<str>>,
    /// Ports of the application that are services of their own, named `<namespace>/<service>:<port>`; calls on any other port are for this one.
    pub own_ports: Vec<u16>,
}

/// What runs in the sidecars of one service for requests that come in to it, after its callers have been judged. It is told to these sidecars alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeshInbound {
    /// `<namespace>/<service>`.
    pub service: Arc<str>,
    /// Plugins between the sidecar and its application.
    pub plugins: Vec<PluginConf>,
}

/// What an application speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub enum MeshProtocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 in clear with prior knowledge.
    Http2,
    /// The same, with gRPC in it.
    Grpc,
    /// Bytes that are not looked into.
    Tcp,
    /// To be found out by the first bytes, from whichever side they come.
    #[default]
    Auto,
}

impl MeshProtocol {
    /// Every one, with its name in configuration.
    pub const ALL: [(&str, MeshProtocol); 5] = [
        ("http", MeshProtocol::Http),
        ("http2", MeshProtocol::Http2),
        ("grpc", MeshProtocol::Grpc),
        ("tcp", MeshProtocol::Tcp),
        ("auto", MeshProtocol::Auto),
    ];

    /// Its name in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            MeshProtocol::Http => "http",
            MeshProtocol::Http2 => "http2",
            MeshProtocol::Grpc => "grpc",
            MeshProtocol::Tcp => "tcp",
            MeshProtocol::Auto => "auto",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<MeshProtocol> {
        MeshProtocol::ALL.into_iter().find_map(|(known, protocol)| (known == name).then_some(protocol))
    }
}

/// Endpoints stand behind sidecars: they are reached by mutual TLS, with HTTP/2 in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MeshPeer {
    /// SPIFFE ids of which the endpoint must prove one; never empty.
    pub identities: Vec<Arc<str>>,
    /// The port of its application that is meant; `None` is the one that it has by itself.
    pub port: Option<u16>,
}

/// One running instance of a service, as its sidecar registers it when it connects.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Instance {
    /// Where other nodes reach its sidecar: an IP literal; empty is the address that the control plane sees.
    pub address: Arc<str>,
    /// Port of its sidecar's inbound listener.
    pub port: u16,
    /// What the application speaks.
    pub protocol: MeshProtocol,
    /// Its further ports, and what it speaks there.
    pub ports: Vec<(u16, MeshProtocol)>,
    /// Version of the application, empty when not said.
    pub version: Arc<str>,
    /// Labels, by name.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// It takes no new requests.
    pub draining: bool,
    /// Of which process this is said: when that began, in Unix milliseconds; 0 is not said, and before all that say. Of several under one id of a node that are connected at once, the one
    /// that began last counts, and no other takes its place away.
    pub process: u64,
    /// The port on which the application listens where nobody names another one; 0 is not said.
    pub application: u16,
    /// The address is where the control plane has seen it come from, and not merely what it says itself. Nobody says this; the control plane knows it.
    pub is_seen: bool,
}

/// Who may call a service. Of all policies for a service, those that deny are asked first; where one that allows exists, what none of them allows is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuthorizationPolicy {
    /// Unique id.
    pub id: Arc<str>,
    /// Namespace of the services that it protects.
    pub namespace: Arc<str>,
    /// The service that it protects; `None` is every one of the namespace.
    pub service: Option<Arc<str>>,
    /// What a match means.
    pub action: PolicyAction,
    /// Only counts and tells what it would do.
    pub dry_run: bool,
    /// It matches when one of these does. Without any it matches nothing: one that allows then refuses everything.
    pub rules: Vec<PolicyRule>,
}

/// Who is let in by the sidecars of services. What is said of a port of a service goes before what is said of the service, and that before what is said of
/// its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerAuthentication {
    /// Unique id.
    pub id: Arc<str>,
    /// Namespace of the services that it is about.
    pub namespace: Arc<str>,
    /// The service that it is about; `None` is every one of the namespace.
    pub service: Option<Arc<str>>,
    /// For all ports; `None` leaves that to what is less specific.
    pub mode: Option<PeerMode>,
    /// For single ports of the application.
    pub ports: BTreeMap<u16, PeerMode>,
}

/// Who is let in. Of two, the greater one is the safer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub enum PeerMode {
    /// Callers in clear only.
    Disable,
    /// Members of the mesh, and callers in clear on the same port: while services move into the mesh.
    Permissive,
    /// Members of the mesh, which prove who they are.
    #[default]
    Strict,
}

impl PeerMode {
    /// Every one, with its name in configuration.
    pub const ALL: [(&str, PeerMode); 3] =
        [("strict", PeerMode::Strict), ("permissive", PeerMode::Permissive), ("disable", PeerMode::Disable)];

    /// Its name in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            PeerMode::Strict => "strict",
            PeerMode::Permissive => "permissive",
            PeerMode::Disable => "disable",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<PeerMode> {
        PeerMode::ALL.into_iter().find_map(|(known, mode)| (known == name).then_some(mode))
    }
}

/// What a match means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum PolicyAction {
    /// Let in.
    Allow,
    /// Refuse.
    Deny,
}

/// Matches when one of `from` and one of `to` do; an empty list is no condition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PolicyRule {
    /// Who calls.
    pub from: Vec<PolicySource>,
    /// What is called.
    pub to: Vec<PolicyOperation>,
}

/// Who calls. All lists that are not empty must match, each by one of its items.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PolicySource {
    /// SPIFFE ids; a `*` at the end stands for any rest.
    pub identities: Vec<Arc<str>>,
    /// Namespaces of the policy's trust domain.
    pub namespaces: Vec<Arc<str>>,
    /// Networks of the socket's peer.
    pub cidrs: Vec<IpNet>,
    /// The same, of callers that do not match.
    pub not_identities: Vec<Arc<str>>,
    /// The same, of callers that do not match.
    pub not_namespaces: Vec<Arc<str>>,
    /// The same, of callers that do not match.
    pub not_cidrs: Vec<IpNet>,
}

/// What is called. All lists that are not empty must match, each by one of its items. What looks into requests never allows opaque bytes, and always denies them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PolicyOperation {
    /// Upper-case methods.
    pub methods: Vec<Arc<str>>,
    /// Paths without query; a `*` at the end stands for any rest.
    pub paths: Vec<Arc<str>>,
    /// Hosts without port; a `*` at the start stands for any beginning.
    pub hosts: Vec<Arc<str>>,
    /// Ports of the application.
    pub ports: Vec<u16>,
    /// Header fields that must be there with one of their values.
    pub headers: Vec<PolicyHeader>,
    /// Methods that do not match.
    pub not_methods: Vec<Arc<str>>,
    /// Paths that do not match.
    pub not_paths: Vec<Arc<str>>,
}

/// One header field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyHeader {
    /// Lower-case name.
    pub name: Arc<str>,
    /// Values, of which a `*` at the end stands for any rest; empty is any value.
    pub values: Vec<Arc<str>>,
}
