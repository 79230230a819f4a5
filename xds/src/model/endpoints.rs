//! Endpoints: the addresses of an upstream, as standard EDS carries them.

use std::sync::Arc;

use serde::Serialize;

/// The addresses of the upstream of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    /// Name of the upstream (`cluster_name`).
    pub upstream: Arc<str>,
    /// In the order the user gave.
    pub endpoints: Vec<Endpoint>,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Endpoint {
    /// IP literal or DNS name, without brackets.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// Relative share; zero gets no traffic.
    pub weight: u32,
    /// Higher is tried first (APISIX's sense); the wire carries Envoy's, where zero is first.
    pub priority: i32,
    /// Locality zone, empty when unknown.
    pub zone: Arc<str>,
}
