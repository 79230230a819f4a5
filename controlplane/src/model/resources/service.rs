//! `services`: what several routes share, as users write it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::types::{Id, Labels, Plugins, hosts_schema, labels_schema, plugins_schema};
use super::Upstream;

/// What several routes share.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Unique id; given by the URL or generated.
    pub id: Option<Id>,
    /// A name for people.
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// A description for people.
    #[schemars(length(max = 256))]
    pub desc: Option<String>,
    /// Key/value pairs to describe and find resources.
    #[serde(default)]
    #[schemars(schema_with = "labels_schema")]
    pub labels: Labels,
    /// Plugins of all its routes.
    #[serde(default)]
    #[schemars(schema_with = "plugins_schema")]
    pub plugins: Plugins,
    /// Where requests go, inline.
    pub upstream: Option<Upstream>,
    /// Where requests go, by id.
    pub upstream_id: Option<Id>,
    /// Refused: Heddle runs no Lua.
    pub script: Option<String>,
    /// Whether `Upgrade: websocket` is let through, where the route does not say.
    pub enable_websocket: Option<bool>,
    /// Hosts of its routes that have none.
    #[serde(default)]
    #[schemars(schema_with = "hosts_schema")]
    pub hosts: Option<Vec<String>>,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}
