//! Configuration of `multi-auth`.

use heddle_xds::catalog::{Place, PluginKind};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::check::{self, Faults};
use super::super::{Plugin, registry};

/// Most plugins of one list.
const MAX_PLUGINS: usize = 16;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Authentication plugins with their configurations, tried in this order: `[{"key-auth": {}}, {"jwt-auth": {}}]`. The `anonymous_consumer` of any of them counts after all have failed.
    #[schemars(length(min = 2, max = 16))]
    pub auth_plugins: Vec<Map<String, Value>>,
}

impl Config {
    /// Plugins, configurations and where these stand.
    pub(super) fn plugins(&self) -> impl Iterator<Item = (&String, &Value, String)> {
        let all = self.auth_plugins.iter().enumerate();
        all.flat_map(|(place, map)| map.iter().map(move |(name, config)| (name, config, format!("auth_plugins[{place}].{name}"))))
    }
}

/// The plugin of this name, when it identifies consumers.
pub(super) fn find(name: &str) -> Option<&'static Plugin> {
    registry::find(name).filter(|plugin| plugin.descriptor.kind == PluginKind::Auth && name != "multi-auth")
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        let count = self.plugins().count();
        if count < 2 {
            faults.add("auth_plugins", format!("expected at least 2 plugins, got {count}"));
        } else if count > MAX_PLUGINS {
            faults.add("auth_plugins", format!("expected at most {MAX_PLUGINS} plugins, got {count}"));
        }
        for (name, config, path) in self.plugins() {
            let Some(plugin) = find(name) else {
                faults.add(path, format!("expected an authentication plugin other than multi-auth, got [{name}]"));
                continue;
            };
            if name == "jwe-decrypt" && config.get("strict") == Some(&Value::Bool(false)) {
                faults.add(format!("{path}.strict"), "expected true: without a token everybody would be let in");
            }
            for fault in (plugin.check)(Place::Route, config).err().unwrap_or_default() {
                let path = if fault.path.is_empty() { path.clone() } else { format!("{path}.{}", fault.path) };
                faults.add(path, fault.message);
            }
        }
    }
}
