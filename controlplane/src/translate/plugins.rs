//! Plugins of one user resource and their merging by whole configuration. What a plugin does is not known here, but for the upstreams that some carry.

use std::sync::Arc;

use heddle_xds::model::{PluginConf, PluginOrigin, Resource};
use serde_json::{Map, Value};

use super::context::{Context, Unit};
use super::upstream;
use crate::model::{Key, ResourceKind, carriers_mut};
use crate::state::Stored;

/// The plugins that stand in one field of a resource, which name no upstreams.
pub(super) fn within(key: &Key, value: &Value, field: &str) -> Vec<PluginConf> {
    let written = value.get(field).and_then(Value::as_object);
    let origin = PluginOrigin(format!("{}/{}", key.kind.singular(), key.id).into());
    let conf = |(name, config): (&String, &Value)| PluginConf {
        name: name.as_str().into(),
        config: Arc::new(config.clone()),
        origin: origin.clone(),
    };
    written.into_iter().flatten().map(conf).collect()
}

/// The plugins that stand on one resource, with the upstreams that they brought along.
pub(super) fn of(context: &mut Context<'_>, key: &Key, value: &Value) -> (Vec<PluginConf>, Vec<Resource>) {
    let mut resources = Vec::new();
    let Some(written) = value.get("plugins").and_then(Value::as_object) else { return (Vec::new(), resources) };
    let origin = PluginOrigin(format!("{}/{}", key.kind.singular(), key.id).into());
    let plugins = written
        .iter()
        .map(|(name, config)| {
            let config = Arc::new(with_whole_upstreams(context, key, name, config, &mut resources));
            PluginConf { name: name.as_str().into(), config, origin: origin.clone() }
        })
        .collect();
    (plugins, resources)
}

/// Translates a service, plugin_config or consumer group: plugins for others to merge, and the upstreams written inside.
pub(super) fn shared(context: &mut Context<'_>, key: &Key, stored: &Stored) -> Unit {
    let (plugins, mut resources) = of(context, key, &stored.value);
    if let Some(inline) = stored.value.get("upstream").filter(|inline| inline.is_object()) {
        let name = key.to_string();
        resources.extend(upstream::translate(context, key, &name, &name, inline));
    }
    Unit { resources, plugins: plugins.into() }
}

/// Merges by name: what stands in an earlier list hides what stands in a later one. Nothing is merged inside a configuration.
pub(super) fn merge(mut first: Vec<PluginConf>, later: &[PluginConf]) -> Vec<PluginConf> {
    let own = first.len();
    for plugin in later {
        if !first[..own].iter().any(|hiding| hiding.name == plugin.name) {
            first.push(plugin.clone());
        }
    }
    first
}

/// Rewrites the configuration of a plugin that carries upstreams so that each names a whole upstream resource: inline upstreams become resources named
/// after their owner, ids become resource names. An entry without either stays: it means the upstream of the route.
fn with_whole_upstreams(
    context: &mut Context<'_>,
    key: &Key,
    plugin: &str,
    config: &Value,
    resources: &mut Vec<Resource>,
) -> Value {
    let mut config = config.clone();
    for (number, entry) in carriers_mut(plugin, &mut config).into_iter().enumerate() {
        if let Some(name) = entry_upstream(context, key, plugin, entry, number, resources) {
            entry.insert("upstream_id".into(), name.into());
        }
    }
    config
}

fn entry_upstream(
    context: &mut Context<'_>,
    key: &Key,
    plugin: &str,
    entry: &mut Map<String, Value>,
    number: usize,
    resources: &mut Vec<Resource>,
) -> Option<String> {
    if let Some(inline) = entry.remove("upstream").filter(Value::is_object) {
        let name = format!("{key}/{plugin}/{number}");
        resources.extend(upstream::translate(context, key, &name, &name, &inline));
        return Some(name);
    }
    let id = match entry.get("upstream_id")? {
        Value::String(id) => id.clone(),
        other => other.to_string(),
    };
    Some(upstream::name_of(&context.name(ResourceKind::Upstream, &id, key)))
}
