//! Endpoints: the addresses of an upstream, as standard EDS carries them.

use std::sync::Arc;

use serde::Serialize;

/// The addresses of the upstream of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    /// Name of the upstream (`cluster_name`).
    pub upstream: Arc<str>,
    /// In the order the user gave. Whoever holds them holds the same list: nodes have thousands of upstreams.
    pub endpoints: Arc<[Endpoint]>,
}

/// What discovery says of an endpoint's health (EDS `health_status`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub enum EndpointStatus {
    /// Nothing.
    #[default]
    Unknown,
    /// It works.
    Healthy,
    /// It does not.
    Unhealthy,
    /// It is about to leave: what it has begun it ends, but it gets nothing new.
    Draining,
}

impl EndpointStatus {
    /// Whether it is to get nothing new.
    pub fn is_away(self) -> bool {
        matches!(self, EndpointStatus::Unhealthy | EndpointStatus::Draining)
    }
}

/// Names and values, in the order of the names: version, datacenter, tags …
pub type Labels = Arc<[(Arc<str>, Arc<str>)]>;

/// One address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
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
    /// What discovery says of its health.
    pub status: EndpointStatus,
    /// What subsets are made by.
    pub labels: Labels,
}
