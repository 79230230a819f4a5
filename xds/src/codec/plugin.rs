//! Plugin configurations, global rules and plugin metadata on the wire; it knows no other kind.

use heddle_proto::heddle::config::v1 as wire;

use super::read::{self, MAX_NAME, Read, json, list, name, text, to_json};
use crate::model::{GlobalRule, PluginConf, PluginMetadata, PluginOrigin};

pub(super) fn rule_to_wire(rule: &GlobalRule) -> wire::GlobalRule {
    wire::GlobalRule { id: rule.id.to_string(), plugins: confs_to_wire(&rule.plugins) }
}

pub(super) fn rule_from_wire(message: wire::GlobalRule) -> Read<GlobalRule> {
    Ok(GlobalRule { id: name("id", message.id)?, plugins: confs_from_wire("plugins", message.plugins)? })
}

pub(super) fn metadata_to_wire(metadata: &PluginMetadata) -> wire::PluginMetadata {
    wire::PluginMetadata { plugin: metadata.plugin.to_string(), config: to_json(&metadata.config) }
}

pub(super) fn metadata_from_wire(message: wire::PluginMetadata) -> Read<PluginMetadata> {
    Ok(PluginMetadata { plugin: name("plugin", message.plugin)?, config: json("config", &message.config)? })
}

/// The plugins of a route, consumer or rule.
pub(super) fn confs_to_wire(plugins: &[PluginConf]) -> Vec<wire::PluginConf> {
    let one = |plugin: &PluginConf| wire::PluginConf {
        name: plugin.name.to_string(),
        config: to_json(&plugin.config),
        origin: plugin.origin.0.to_string(),
    };
    plugins.iter().map(one).collect()
}

/// The plugins of a route, consumer or rule.
pub(super) fn confs_from_wire(field: &str, plugins: Vec<wire::PluginConf>) -> Read<Vec<PluginConf>> {
    list(field, plugins, |field, plugin| {
        let read = || -> Read<PluginConf> {
            Ok(PluginConf {
                name: name("name", plugin.name)?,
                config: json("config", &plugin.config)?,
                origin: PluginOrigin(text("origin", plugin.origin, MAX_NAME)?),
            })
        };
        read().map_err(|fault: read::Fault| fault.inside(field))
    })
}
