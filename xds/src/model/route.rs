//! Routes: what a request must look like and where it goes.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;

use super::PluginConf;

/// A match and what to do with the requests that it matches. Service and plugin_config are merged in already.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Route {
    /// User-visible id, `name@provider` for those of providers.
    pub id: Arc<str>,
    /// `name` of the route, empty when not given.
    pub name: Arc<str>,
    /// Id of the service that was merged in, empty when none.
    pub service_id: Arc<str>,
    /// Name of that service, empty when none.
    pub service_name: Arc<str>,
    /// What a request must look like.
    pub matches: RouteMatch,
    /// Among routes that match equally well by host and path, higher wins; then the one created first.
    pub priority: i64,
    /// Creation order (store revision of creation), the final tie break.
    pub created: u64,
    /// Merged plugins (route over plugin_config over service), unsorted.
    pub plugins: Vec<PluginConf>,
    /// Where requests go; `None` when plugins answer everything.
    pub upstream: Option<UpstreamRef>,
    /// Overrides the upstream's timeouts.
    pub timeouts: Option<Timeouts>,
    /// Whether `Upgrade: websocket` is let through.
    pub enable_websocket: bool,
    /// How long a whole exchange may take, from its beginning to the end of its answer; `None` is no limit. Said by Envoy's types alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,
}

/// The upstream of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamRef {
    /// Name of the `Upstream` resource.
    pub name: Arc<str>,
}

/// The conditions of a route. All must hold; an empty list is no condition.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct RouteMatch {
    /// Path patterns: exact (`/a`), prefix (`/a/*`), with parameters (`/a/:id/b`). Never empty.
    pub uris: Vec<Arc<str>>,
    /// Lower-case hosts, `*.example.com` for any depth below, `*` for all.
    pub hosts: Vec<Arc<str>>,
    /// Upper-case methods.
    pub methods: Vec<Arc<str>>,
    /// Source networks.
    pub remote_addrs: Vec<IpNet>,
    /// Expression in lua-resty-expr form (array of conditions), `None` when absent.
    pub vars: Option<Arc<Value>>,
}

/// How long each step towards the upstream may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// Until the connection (TLS included) stands.
    pub connect: Duration,
    /// Between two successful writes.
    pub send: Duration,
    /// Between two successful reads, the first byte of the answer included.
    pub read: Duration,
}

impl Default for Timeouts {
    /// 60 s each, as nginx and APISIX.
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Timeouts { connect: minute, send: minute, read: minute }
    }
}
