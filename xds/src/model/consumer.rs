//! Consumers: who may be identified, and what then applies.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::PluginConf;

/// Who may be identified by an authentication plugin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Consumer {
    /// Unique name.
    pub username: Arc<str>,
    /// Consumer group, empty when none; its plugins are merged in already.
    pub group_id: Arc<str>,
    /// Ways to prove who one is.
    pub credentials: Vec<Credential>,
    /// Non-auth plugins that apply after authentication (consumer over group).
    pub plugins: Vec<PluginConf>,
    /// Labels; `custom_id` feeds a header.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
}

/// One way to prove who one is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Credential {
    /// Credential id, empty when it stands on the consumer itself.
    pub id: Arc<str>,
    /// Authentication plugin, for example `key-auth`.
    pub plugin: Arc<str>,
    /// Its consumer configuration, for example `{"key": "…"}`.
    pub config: Arc<Value>,
}

/// Settings shared by all uses of one plugin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PluginMetadata {
    /// Plugin name.
    pub plugin: Arc<str>,
    /// The JSON object.
    pub config: Arc<Value>,
}
