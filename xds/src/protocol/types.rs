//! Whose types a node speaks: our own, or Envoy's for the same things. It knows no message.

use crate::model::Kind;

/// Whose types a node speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Types {
    /// Ours.
    #[default]
    Heddle,
    /// Those of Envoy.
    Envoy,
    /// The part of them that clients and servers of gRPC know.
    Grpc,
}

impl Types {
    /// `heddle`, `envoy` or `grpc`.
    pub fn as_str(self) -> &'static str {
        match self {
            Types::Heddle => "heddle",
            Types::Envoy => "envoy",
            Types::Grpc => "grpc",
        }
    }

    /// What stands for a kind on the wire. Envoy has one type for all routes together, and nothing for what only our agents know.
    pub fn url(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Types::Envoy | Types::Grpc, Kind::Upstream) => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            (Types::Envoy | Types::Grpc, Kind::Route) => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            (Types::Envoy | Types::Grpc, Kind::Listener) => "type.googleapis.com/envoy.config.listener.v3.Listener",
            (_, kind) => kind.type_url(),
        }
    }

    /// The kind that a type stands for.
    pub fn kind(self, url: &str) -> Option<Kind> {
        let served: &[Kind] = match self {
            Types::Heddle => &Kind::ALL,
            Types::Envoy => &[Kind::Secret, Kind::Upstream, Kind::Endpoints, Kind::Route, Kind::Listener],
            Types::Grpc => &[Kind::Upstream, Kind::Endpoints, Kind::Route, Kind::Listener],
        };
        served.iter().copied().find(|kind| self.url(*kind) == url)
    }

    /// Whose types a node speaks whose first request is about this type. Endpoints and secrets are of one type in both, so there its program tells.
    pub fn spoken(url: &str, user_agent: &str) -> Types {
        let grpc = user_agent.starts_with("gRPC");
        let theirs = if grpc { Types::Grpc } else { Types::Envoy };
        let others = grpc || user_agent.starts_with("envoy");
        match (Types::Heddle.kind(url), Types::Envoy.kind(url)) {
            (None, Some(_)) => theirs,
            (Some(_), Some(_)) if others => theirs,
            // Neither serves it; what follows is likelier of the client's own kind.
            (None, None) if others => theirs,
            _ => Types::Heddle,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_node_speaks_as_it_asks() {
        let first = |kind, types: Types, agent| Types::spoken(types.url(kind), agent);
        assert_eq!(first(Kind::Upstream, Types::Envoy, "envoy"), Types::Envoy);
        assert_eq!(first(Kind::Listener, Types::Envoy, "somebody else"), Types::Envoy);
        assert_eq!(first(Kind::Upstream, Types::Heddle, "heddle"), Types::Heddle);
        assert_eq!(first(Kind::Endpoints, Types::Envoy, "gRPC C-core"), Types::Grpc);
        assert_eq!(first(Kind::Listener, Types::Envoy, "gRPC Go"), Types::Grpc);
        assert_eq!(first(Kind::Endpoints, Types::Envoy, "heddle"), Types::Heddle);
        assert_eq!(Types::spoken("type.googleapis.com/envoy.service.runtime.v3.Runtime", "envoy"), Types::Envoy);
    }

    #[test]
    fn kinds_and_types_go_together() {
        for types in [Types::Heddle, Types::Envoy, Types::Grpc] {
            for kind in Kind::ALL {
                let found = types.kind(types.url(kind));
                assert!(found == Some(kind) || (types != Types::Heddle && found.is_none()), "{types:?} {kind:?}");
            }
        }
        assert_eq!(Types::Envoy.kind(Kind::Route.type_url()), None);
    }
}
