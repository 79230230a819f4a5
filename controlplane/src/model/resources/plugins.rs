//! `plugin_configs`, `global_rules` and `plugin_metadata`: plugins outside routes, as users write them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::types::{Id, Labels, Plugins, labels_schema, plugins_schema};

/// Plugins that several routes share.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginConfig {
    /// Unique id.
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
    /// The plugins.
    #[schemars(schema_with = "plugins_schema")]
    pub plugins: Plugins,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}

/// Plugins that run for every request.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GlobalRule {
    /// Unique id.
    pub id: Option<Id>,
    /// The plugins.
    #[schemars(schema_with = "plugins_schema")]
    pub plugins: Plugins,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}

/// Settings shared by all uses of one plugin; which fields there are, the plugin says.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
pub struct PluginMetadata {
    /// The plugin's name.
    pub id: Option<Id>,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
    /// The plugin's own fields.
    #[serde(flatten)]
    pub config: serde_json::Map<String, Value>,
}
