//! The data-plane model: what one node runs, as plain Rust types. It knows no protobuf and no user resource.
//!
//! References are resolved by name: a [`Route`] names an [`Upstream`], whose addresses are the [`Endpoints`] of the same name;
//! a [`Certificate`] names the [`Secret`]s that it presents. Every resource is small and separately versioned.

mod certificate;
mod consumer;
mod endpoints;
mod listener;
mod material;
mod mesh;
mod path;
mod plugin;
mod route;
mod upstream;

pub use certificate::{Certificate, ClientValidation, Secret, SecretBody, TlsVersion};
pub use consumer::{Consumer, Credential, PluginMetadata};
pub use endpoints::{Endpoint, EndpointStatus, Endpoints, Labels};
pub use listener::{
    EdgeLimits, ForwardedTrust, Listener, ListenerProtocol, PathPolicy, ProxyProtocol, ServerHeader, TcpRoute, TcpShare,
};
pub use material::{Unusable, is_reference};
pub use mesh::{
    ADDRESS_PREFIX, AuthorizationPolicy, Instance, MESH_PREFIX, MeshInbound, MeshPeer, MeshProtocol, MeshService,
    PeerAuthentication, PeerMode, PolicyAction, PolicyHeader, PolicyOperation, PolicyRule, PolicySource, address_name,
    instance_name, instance_of_name, without_mesh,
};
pub use path::{canonical_path, is_path_byte};
pub use plugin::{GlobalRule, PluginConf, PluginOrigin};
pub use route::{Route, RouteMatch, Timeouts, UpstreamRef};
pub use upstream::{
    ActiveCheck, Balancer, CheckKind, CircuitBreakers, Discovery, DropOverload, HashOn, HashTable, HealthChecks, KeepalivePool,
    LocalityWeight, PassHost, PassiveCheck, RingSize, Scheme, Spread, Thresholds, Upstream, UpstreamTls, ZoneMode, ZonePolicy,
};

use std::sync::Arc;

/// The kinds of resources on the wire, in the order in which an agent must receive them (make before break).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`.
    Secret,
    /// `heddle.config.v1.Upstream`.
    Upstream,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    Endpoints,
    /// `heddle.config.v1.PluginMetadata`.
    PluginMetadata,
    /// `heddle.config.v1.Consumer`.
    Consumer,
    /// `heddle.config.v1.GlobalRule`.
    GlobalRule,
    /// `heddle.config.v1.Route`.
    Route,
    /// `heddle.config.v1.MeshService`.
    MeshService,
    /// `heddle.config.v1.MeshInbound`.
    MeshInbound,
    /// `heddle.config.v1.AuthorizationPolicy`.
    AuthorizationPolicy,
    /// `heddle.config.v1.PeerAuthentication`.
    PeerAuthentication,
    /// `heddle.config.v1.Certificate`.
    Certificate,
    /// `heddle.config.v1.Listener`.
    Listener,
}

impl Kind {
    /// Every kind, in delivery order.
    pub const ALL: [Kind; 13] = [
        Kind::Secret,
        Kind::Upstream,
        Kind::Endpoints,
        Kind::PluginMetadata,
        Kind::Consumer,
        Kind::GlobalRule,
        Kind::Route,
        Kind::MeshService,
        Kind::MeshInbound,
        Kind::AuthorizationPolicy,
        Kind::PeerAuthentication,
        Kind::Certificate,
        Kind::Listener,
    ];

    /// The `type_url` of the kind in `google.protobuf.Any` and in discovery requests.
    pub fn type_url(self) -> &'static str {
        match self {
            Kind::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Kind::Upstream => "type.googleapis.com/heddle.config.v1.Upstream",
            Kind::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Kind::PluginMetadata => "type.googleapis.com/heddle.config.v1.PluginMetadata",
            Kind::Consumer => "type.googleapis.com/heddle.config.v1.Consumer",
            Kind::GlobalRule => "type.googleapis.com/heddle.config.v1.GlobalRule",
            Kind::Route => "type.googleapis.com/heddle.config.v1.Route",
            Kind::MeshService => "type.googleapis.com/heddle.config.v1.MeshService",
            Kind::MeshInbound => "type.googleapis.com/heddle.config.v1.MeshInbound",
            Kind::AuthorizationPolicy => "type.googleapis.com/heddle.config.v1.AuthorizationPolicy",
            Kind::PeerAuthentication => "type.googleapis.com/heddle.config.v1.PeerAuthentication",
            Kind::Certificate => "type.googleapis.com/heddle.config.v1.Certificate",
            Kind::Listener => "type.googleapis.com/heddle.config.v1.Listener",
        }
    }

    /// The short name, as messages to operators say it, for example `Route`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Secret => "Secret",
            Kind::Upstream => "Upstream",
            Kind::Endpoints => "Endpoints",
            Kind::PluginMetadata => "PluginMetadata",
            Kind::Consumer => "Consumer",
            Kind::GlobalRule => "GlobalRule",
            Kind::Route => "Route",
            Kind::MeshService => "MeshService",
            Kind::MeshInbound => "MeshInbound",
            Kind::AuthorizationPolicy => "AuthorizationPolicy",
            Kind::PeerAuthentication => "PeerAuthentication",
            Kind::Certificate => "Certificate",
            Kind::Listener => "Listener",
        }
    }

    /// The place in [`Kind::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The kind with this `type_url`.
    pub fn from_type_url(url: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.type_url() == url)
    }
}

/// One data-plane resource.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// A socket to accept on.
    Listener(Listener),
    /// A match and what to do.
    Route(Route),
    /// How to use a set of endpoints.
    Upstream(Arc<Upstream>),
    /// The addresses of an upstream.
    Endpoints(Endpoints),
    /// Who may be identified by an authentication plugin.
    Consumer(Consumer),
    /// Plugins that run for every request.
    GlobalRule(GlobalRule),
    /// How clients of the mesh reach one service.
    MeshService(MeshService),
    /// What runs in the sidecars of a service for requests that come in to it.
    MeshInbound(MeshInbound),
    /// Who may call a service of the mesh.
    AuthorizationPolicy(AuthorizationPolicy),
    /// Who is let in by the sidecars of services.
    PeerAuthentication(PeerAuthentication),
    /// Which certificate is shown for which server name.
    Certificate(Certificate),
    /// Settings shared by all uses of one plugin.
    PluginMetadata(PluginMetadata),
    /// Key material.
    Secret(Secret),
}

impl Resource {
    /// The kind.
    pub fn kind(&self) -> Kind {
        match self {
            Resource::Listener(_) => Kind::Listener,
            Resource::Route(_) => Kind::Route,
            Resource::Upstream(_) => Kind::Upstream,
            Resource::Endpoints(_) => Kind::Endpoints,
            Resource::Consumer(_) => Kind::Consumer,
            Resource::GlobalRule(_) => Kind::GlobalRule,
            Resource::MeshService(_) => Kind::MeshService,
            Resource::MeshInbound(_) => Kind::MeshInbound,
            Resource::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Resource::PeerAuthentication(_) => Kind::PeerAuthentication,
            Resource::Certificate(_) => Kind::Certificate,
            Resource::PluginMetadata(_) => Kind::PluginMetadata,
            Resource::Secret(_) => Kind::Secret,
        }
    }

    /// The ids of the nodes that it is for; `None` when it is for all. Only listeners may name their nodes.
    pub fn nodes(&self) -> Option<&[Arc<str>]> {
        match self {
            Resource::Listener(listener) => Some(&listener.nodes[..]).filter(|nodes| !nodes.is_empty()),
            _ => None,
        }
    }

    /// The name, unique within the kind.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Resource::Listener(r) => &r.name,
            Resource::Route(r) => &r.id,
            Resource::Upstream(r) => &r.name,
            Resource::Endpoints(r) => &r.upstream,
            Resource::Consumer(r) => &r.username,
            Resource::GlobalRule(r) => &r.id,
            Resource::MeshService(r) => &r.name,
            Resource::MeshInbound(r) => &r.service,
            Resource::AuthorizationPolicy(r) => &r.id,
            Resource::PeerAuthentication(r) => &r.id,
            Resource::Certificate(r) => &r.id,
            Resource::PluginMetadata(r) => &r.plugin,
            Resource::Secret(r) => &r.name,
        }
    }
}
