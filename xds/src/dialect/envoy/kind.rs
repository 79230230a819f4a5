//! The kinds of resources that Envoy's own control planes serve. It knows no message.

use std::fmt;

/// A kind of resource, in the order in which what others depend on comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EnvoyKind {
    /// Of SDS.
    Secret,
    /// Of ECDS.
    Extension,
    /// Of CDS.
    Cluster,
    /// Of EDS.
    Endpoints,
    /// Of RDS.
    Routes,
    /// Of LDS.
    Listener,
}

impl EnvoyKind {
    /// Every kind.
    pub const ALL: [EnvoyKind; 6] = [
        EnvoyKind::Secret,
        EnvoyKind::Extension,
        EnvoyKind::Cluster,
        EnvoyKind::Endpoints,
        EnvoyKind::Routes,
        EnvoyKind::Listener,
    ];

    /// The name of its message.
    pub fn message(self) -> &'static str {
        match self {
            EnvoyKind::Extension => "envoy.config.core.v3.TypedExtensionConfig",
            EnvoyKind::Secret => "envoy.extensions.transport_sockets.tls.v3.Secret",
            EnvoyKind::Cluster => "envoy.config.cluster.v3.Cluster",
            EnvoyKind::Endpoints => "envoy.config.endpoint.v3.ClusterLoadAssignment",
            EnvoyKind::Routes => "envoy.config.route.v3.RouteConfiguration",
            EnvoyKind::Listener => "envoy.config.listener.v3.Listener",
        }
    }

    /// Its type in discovery requests.
    pub fn type_url(self) -> String {
        format!("type.googleapis.com/{}", self.message())
    }

    /// The kind of this type.
    pub fn from_type_url(url: &str) -> Option<EnvoyKind> {
        let message = url.strip_prefix("type.googleapis.com/")?;
        EnvoyKind::ALL.into_iter().find(|kind| kind.message() == message)
    }

    /// Its name in messages to operators, which is that of Envoy.
    pub fn as_str(self) -> &'static str {
        match self {
            EnvoyKind::Secret => "Secret",
            EnvoyKind::Extension => "TypedExtensionConfig",
            EnvoyKind::Cluster => "Cluster",
            EnvoyKind::Endpoints => "ClusterLoadAssignment",
            EnvoyKind::Routes => "RouteConfiguration",
            EnvoyKind::Listener => "Listener",
        }
    }

    /// Whether a control plane is asked for all of them, and says which there are; others are asked for by name.
    pub fn is_asked_whole(self) -> bool {
        matches!(self, EnvoyKind::Cluster | EnvoyKind::Listener)
    }

    /// The place in [`EnvoyKind::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for EnvoyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
