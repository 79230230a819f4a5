//! Plugins as they stand on a route: name, configuration and who contributed them.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

/// One plugin switched on, with its configuration as users write it (`_meta` included).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct PluginConf {
    /// Plugin name, for example `limit-count`.
    pub name: Arc<str>,
    /// The JSON object that configures it; checked by the control plane, checked again by the agent.
    pub config: Arc<Value>,
    /// Which user resource contributed it.
    pub origin: PluginOrigin,
}

/// The user resource that a plugin configuration came from, for example `route/r1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct PluginOrigin(pub Arc<str>);

/// Plugins that run for every request of the node, before those of the route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GlobalRule {
    /// User-visible id.
    pub id: Arc<str>,
    /// Enabled plugins, in no particular order; the agent sorts.
    pub plugins: Vec<PluginConf>,
}
