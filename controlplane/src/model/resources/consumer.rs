//! `consumers`, their `credentials` and `consumer_groups`: who may be identified and what then applies, as users write it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::types::{Id, Labels, Plugins, labels_schema, path_id_schema, plugins_schema};

/// Who may be identified by an authentication plugin.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    /// Same as `username`.
    pub id: Option<Id>,
    /// Unique name.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[a-zA-Z0-9_\-]+$"))]
    pub username: String,
    /// A description for people.
    #[schemars(length(max = 256))]
    pub desc: Option<String>,
    /// Key/value pairs; `custom_id` feeds a header.
    #[serde(default)]
    #[schemars(schema_with = "labels_schema")]
    pub labels: Labels,
    /// Authentication plugins (how the consumer proves who it is) and plugins that then apply.
    #[serde(default)]
    #[schemars(schema_with = "plugins_schema")]
    pub plugins: Plugins,
    /// Consumer group whose plugins apply too.
    pub group_id: Option<Id>,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}

/// One more way in which a consumer proves who it is.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Unique below its consumer.
    #[serde(default)]
    #[schemars(schema_with = "path_id_schema")]
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
    /// Exactly one authentication plugin.
    #[serde(default)]
    #[schemars(schema_with = "plugins_schema")]
    pub plugins: Plugins,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}

/// Plugins that several consumers share.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumerGroup {
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
    /// Plugins that apply after authentication.
    #[schemars(schema_with = "plugins_schema")]
    pub plugins: Plugins,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}
