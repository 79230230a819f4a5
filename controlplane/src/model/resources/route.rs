//! `routes`: what a request must look like and where it goes, as users write it.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::Value;

use super::super::types::{HOST, Id, Labels, Plugins, Timeout, hosts_schema, labels_schema, on, plugins_schema, status_schema};
use super::Upstream;

/// What a request must look like and where it goes.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("allOf" = [
    {"oneOf": [{"required": ["uri"]}, {"required": ["uris"]}]},
    {"not": {"required": ["host", "hosts"]}},
    {"not": {"required": ["remote_addr", "remote_addrs"]}},
    {"anyOf": [
        {"required": ["plugins"]}, {"required": ["upstream"]}, {"required": ["upstream_id"]}, {"required": ["service_id"]},
        {"required": ["plugin_config_id"]}
    ]}
]))]
pub struct Route {
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
    /// Path pattern: exact (`/a`), prefix (`/a/*`) or with parameters (`/a/:id`). Exactly one of `uri` and `uris`.
    #[schemars(length(min = 1, max = 4096))]
    pub uri: Option<String>,
    /// Several path patterns.
    #[serde(default)]
    #[schemars(schema_with = "uris_schema")]
    pub uris: Option<Vec<String>>,
    /// Host, `*.example.com` for any depth below. At most one of `host` and `hosts`.
    #[schemars(length(min = 1), regex(pattern = HOST))]
    pub host: Option<String>,
    /// Several hosts.
    #[serde(default)]
    #[schemars(schema_with = "hosts_schema")]
    pub hosts: Option<Vec<String>>,
    /// Source address or network. At most one of `remote_addr` and `remote_addrs`.
    #[schemars(length(min = 1))]
    pub remote_addr: Option<String>,
    /// Several source addresses or networks.
    #[serde(default)]
    #[schemars(schema_with = "addrs_schema")]
    pub remote_addrs: Option<Vec<String>>,
    /// Methods; all when absent.
    #[serde(default)]
    #[schemars(schema_with = "methods_schema")]
    pub methods: Option<Vec<String>>,
    /// Among routes that match equally well by host and path, higher wins.
    #[serde(default)]
    pub priority: i64,
    /// Further conditions: an array of `[variable, operator, value]`.
    #[serde(default)]
    #[schemars(schema_with = "vars_schema")]
    pub vars: Option<Value>,
    /// Refused: Heddle runs no Lua.
    pub filter_func: Option<String>,
    /// Plugins of this route.
    #[serde(default)]
    #[schemars(schema_with = "plugins_schema")]
    pub plugins: Plugins,
    /// Plugins that several routes share.
    pub plugin_config_id: Option<Id>,
    /// Refused: Heddle runs no Lua.
    pub script: Option<String>,
    /// Refused: Heddle runs no Lua.
    pub script_id: Option<Id>,
    /// Where requests go, inline.
    pub upstream: Option<Upstream>,
    /// Where requests go, by id.
    pub upstream_id: Option<Id>,
    /// Service whose plugins, hosts and upstream apply where the route has none.
    pub service_id: Option<Id>,
    /// Overrides the upstream's timeouts.
    pub timeout: Option<Timeout>,
    /// Whether `Upgrade: websocket` is let through.
    pub enable_websocket: Option<bool>,
    /// 1 in use, 0 left out.
    #[serde(default = "on")]
    #[schemars(schema_with = "status_schema")]
    pub status: u8,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}

fn uris_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "minItems": 1, "uniqueItems": true, "items": {"type": "string", "minLength": 1, "maxLength": 4096}})
}

fn addrs_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "minItems": 1, "uniqueItems": true, "items": {"type": "string", "minLength": 1}})
}

fn methods_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "uniqueItems": true, "items": {
        "type": "string",
        "enum": ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE"]
    }})
}

fn vars_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "description": "Further conditions: an array of [variable, operator, value], and of groups such as [\"OR\", condition, condition]."})
}
