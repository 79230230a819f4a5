//! Consumers with their group and credentials merged in, and the resources that apply everywhere: global rules and plugin metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use heddle_xds::model::{Consumer, Credential, GlobalRule, PluginConf, PluginMetadata, Resource};
use serde_json::Value;

use super::context::{Context, Unit};
use super::{plugins, read};
use crate::model::{Key, ResourceKind};
use crate::state::{State, Stored};

/// Fields that the keeper adds to what the user wrote.
const KEPT: [&str; 3] = ["id", "create_time", "update_time"];

/// Translates one consumer. One whose group does not exist is left out: without the group's plugins it would be less
/// restricted than was written.
pub(super) fn unit(context: &mut Context<'_>, key: &Key, stored: &Stored, credentials: &[Key]) -> Unit {
    let value = &stored.value;
    let (own, mut resources) = plugins::of(context, key, value);
    let group = match read::reference(value, "group_id") {
        None => None,
        Some(id) => match context.read(ResourceKind::ConsumerGroup, &id, key) {
            Some((key, stored)) => Some((context.plugins_of(&key, stored), Arc::from(key.local_id()))),
            None => return Unit::default(),
        },
    };
    let (auth, own): (Vec<_>, Vec<_>) = own.into_iter().partition(|plugin| context.auth.contains(&plugin.name));
    let mut proofs: Vec<Credential> = auth.into_iter().map(|plugin| credential("", plugin)).collect();
    for key in credentials {
        let Some(stored) = context.state.get(key) else { continue };
        let id = key.local_id().rsplit('/').next().unwrap_or_default();
        let (written, _) = plugins::of(context, key, &stored.value);
        proofs.extend(written.into_iter().map(|plugin| credential(id, plugin)));
    }
    let (group_plugins, group_id) = group.unwrap_or_default();
    let shared: Vec<PluginConf> = group_plugins.iter().filter(|plugin| !context.auth.contains(&plugin.name)).cloned().collect();
    resources.push(Resource::Consumer(Consumer {
        // Without its provider: it is what upstreams see. Validation keeps it unique over all providers.
        username: key.local_id().into(),
        group_id,
        credentials: proofs,
        plugins: plugins::merge(own, &shared),
        labels: labels(value),
    }));
    Unit { resources, ..Unit::default() }
}

fn credential(id: &str, plugin: PluginConf) -> Credential {
    Credential { id: id.into(), plugin: plugin.name, config: plugin.config }
}

fn labels(value: &Value) -> BTreeMap<Arc<str>, Arc<str>> {
    let written = value.get("labels").and_then(Value::as_object);
    let labels = written.into_iter().flatten();
    labels.filter_map(|(name, label)| Some((name.as_str().into(), label.as_str()?.into()))).collect()
}

/// The consumer that a credential belongs to: `consumers/jack` of `jack/credentials/c1`, within the same provider.
pub(super) fn owner(credential: &Key) -> Key {
    let username = credential.local_id().split('/').next().unwrap_or_default();
    let owner = Key::new(ResourceKind::Consumer, username);
    match credential.provider() {
        Some(provider) => owner.of_provider(provider),
        None => owner,
    }
}

/// Translates one global rule.
pub(super) fn global_rule(context: &mut Context<'_>, key: &Key, stored: &Stored) -> Unit {
    let (plugins, mut resources) = plugins::of(context, key, &stored.value);
    resources.push(Resource::GlobalRule(GlobalRule { id: key.id.clone(), plugins }));
    Unit { resources, ..Unit::default() }
}

/// Translates the metadata of one plugin. There is one for a plugin: the store's, else that of the first provider.
pub(super) fn metadata(state: &State, key: &Key) -> Unit {
    let from_provider = || {
        let mut all = state.list(ResourceKind::PluginMetadata);
        all.find(|(id, _)| Key::new(ResourceKind::PluginMetadata, (*id).clone()).local_id() == &*key.id)
    };
    let Some(stored) = state.get(key).or_else(|| from_provider().map(|(_, stored)| stored)) else { return Unit::default() };
    let mut config = stored.value.clone();
    if let Some(fields) = config.as_object_mut() {
        fields.retain(|name, _| !KEPT.contains(&name.as_str()));
    }
    let metadata = PluginMetadata { plugin: key.id.clone(), config: Arc::new(config) };
    Unit { resources: vec![Resource::PluginMetadata(metadata)], ..Unit::default() }
}
