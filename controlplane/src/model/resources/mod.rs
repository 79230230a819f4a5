//! The user resources as types, one file per noun. They know their fields and defaults, nothing of each other beyond what they embed.

mod checks;
mod consumer;
mod listener;
mod mesh;
mod plugins;
mod route;
mod secret;
mod service;
mod ssl;
mod upstream;

pub use checks::{
    Active, ActiveHealthy, ActiveUnhealthy, CheckType, Checkers, Checks, Passive, PassiveHealthy, PassiveUnhealthy,
};
pub use consumer::{Consumer, ConsumerGroup, Credential};
pub use listener::{Forwarded, Limits, Listener, Paths, Protocol, ProxyProtocol, ServerHeader, TcpRoute, TcpShare, TlsMode};
pub use mesh::{
    AuthorizationPolicy, CalledPort, Federated, HeaderValues, MeshService, Operation, PeerAuthentication, PeerModeKind,
    PolicyActionKind, Rule, ServiceMirror, Source, Split,
};
pub use plugins::{GlobalRule, PluginConfig, PluginMetadata};
pub use route::Route;
pub use secret::{AwsSecret, GcpAuth, GcpSecret, Secret, VaultSecret};
pub use service::Service;
pub use ssl::{Ssl, SslClient, SslType};
pub use upstream::{
    CircuitBreaker, DiscoveryArgs, HashOnKind, KeepalivePool, LoadFrom, Locality, LocalityMode, Node, Nodes, PassHostKind,
    Upstream, UpstreamTls,
};
