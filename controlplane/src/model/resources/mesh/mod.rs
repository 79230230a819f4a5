//! The kinds of the mesh: its services, who may call them, and who is let in without an identity. They know no other kind but what upstreams are made of.

mod authorization_policy;
mod mesh_service;
mod peer_authentication;

pub use authorization_policy::{AuthorizationPolicy, HeaderValues, Operation, PolicyActionKind, Rule, Source};
pub use mesh_service::{CalledPort, Federated, MeshService, ServiceMirror, Split};
pub use peer_authentication::{PeerAuthentication, PeerModeKind};
