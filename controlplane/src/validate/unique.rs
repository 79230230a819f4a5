//! What may exist only once over all resources: names and keys of consumers, plugins of global rules, addresses of listeners, services of the mesh, modes of one service.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use heddle_xds::catalog::Catalog;
use serde_json::Value;

use crate::model::{DEFAULT_NAMESPACE, Fault, Key, ResourceKind, ServiceId, canonical, socket};
use crate::state::{State, Stored};

/// Keys by which a plugin identifies consumers that stand on more than one consumer or credential.
pub(super) fn consumer_keys(state: &State, changed: &[&Key], catalog: &dyn Catalog) -> Vec<(Key, Fault)> {
    let mut wanted: HashMap<(&str, &str), Vec<&Key>> = HashMap::new();
    for key in changed {
        let Some(stored) = state.get(key) else { continue };
        for identity in identities(&stored.value, catalog) {
            wanted.entry(identity).or_default().push(key);
        }
    }
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for kind in [ResourceKind::Consumer, ResourceKind::Credential] {
        for (id, stored) in state.list(kind) {
            for identity in identities(&stored.value, catalog) {
                let owner = id.split('/').next().unwrap_or_default();
                for key in wanted.get(&identity).into_iter().flatten().filter(|key| key.kind != kind || key.id != *id) {
                    let (plugin, _) = identity;
                    let message = format!("duplicate key of plugin {plugin} found with consumer: {owner}");
                    faults.push(((*key).clone(), Fault::whole(format!("plugins.{plugin}"), message)));
                }
            }
        }
    }
    faults
}

/// Pairs of plugin and identifying value; what is looked up elsewhere is not known here.
fn identities<'a>(value: &'a Value, catalog: &dyn Catalog) -> Vec<(&'a str, &'a str)> {
    let Some(plugins) = value.get("plugins").and_then(Value::as_object) else { return Vec::new() };
    let mut out = Vec::new();
    for (name, config) in plugins {
        let field = catalog.descriptor(name).and_then(|descriptor| descriptor.unique_consumer_field);
        let text = field.and_then(|field| config.get(field)).and_then(Value::as_str);
        if let Some(text) =
            text.filter(|text| !text.starts_with("$secret://") && !text.to_ascii_lowercase().starts_with("$env://"))
        {
            out.push((name.as_str(), text));
        }
    }
    out
}

/// Names of consumers that more than one source uses: on the data plane a name, without its provider, stands for one consumer.
pub(super) fn usernames(state: &State, changed: &[&Key]) -> Vec<(Key, Fault)> {
    let mut faults = Vec::new();
    for key in changed.iter().filter(|key| state.get(key).is_some()) {
        let name = key.local_id();
        let same = |id: &str| id.rsplit_once('@').map_or(id, |(name, _)| name) == name && *id != *key.id;
        for (id, _) in state.beginning(ResourceKind::Consumer, name).filter(|(id, _)| same(id)) {
            let message = format!("consumer [{id}] has this name already; remove that one first, or choose another name");
            faults.push(((*key).clone(), Fault::whole("username", message)));
        }
    }
    faults
}

/// Plugins that stand in more than one global rule.
pub(super) fn global_plugins(state: &State, changed: &[&Key]) -> Vec<(Key, Fault)> {
    let names = |value: &Value| -> Vec<String> {
        value.get("plugins").and_then(Value::as_object).map(|map| map.keys().cloned().collect()).unwrap_or_default()
    };
    let mut faults = Vec::new();
    for key in changed {
        let Some(stored) = state.get(key) else { continue };
        let own = names(&stored.value);
        for (id, other) in state.list(ResourceKind::GlobalRule).filter(|(id, _)| **id != key.id) {
            for name in names(&other.value).into_iter().filter(|name| own.contains(name)) {
                let message = format!("plugin '{name}' already exists in global rule with id '{id}'");
                faults.push(((*key).clone(), Fault::whole(format!("plugins.{name}"), message)));
            }
        }
    }
    faults
}

/// Services of the mesh of which more than one resource speaks: their owner is to be asked in one place.
pub(super) fn mesh_services(state: &State, changed: &[&Key]) -> Vec<(Key, Fault)> {
    let mut faults = Vec::new();
    for key in changed {
        let Some(service) = state.get(key).and_then(|stored| ServiceId::of(key, &stored.value)) else { continue };
        let others = state.list(ResourceKind::MeshService).filter(|(id, _)| **id != key.id);
        let other = |(id, stored): &(&Arc<str>, &Arc<Stored>)| {
            let key = Key::new(ResourceKind::MeshService, (*id).clone());
            ServiceId::of(&key, &stored.value).as_ref() == Some(&service)
        };
        if let Some((id, _)) = others.into_iter().find(other) {
            let message = format!("mesh service [{id}] speaks of {service} already; change that one, or name another service");
            faults.push(((*key).clone(), Fault::whole("name", message)));
        }
    }
    faults
}

/// Addresses that lead to more than one service of the mesh.
pub(super) fn mesh_addresses(state: &State, changed: &[&Key]) -> Vec<(Key, Fault)> {
    fn addresses(value: &Value) -> impl Iterator<Item = IpAddr> {
        let texts = value.get("addresses").and_then(Value::as_array).into_iter().flatten();
        texts.filter_map(|text| canonical(text.as_str()?))
    }
    let mut faults = Vec::new();
    for key in changed {
        let Some(stored) = state.get(key) else { continue };
        for (id, other) in state.list(ResourceKind::MeshService).filter(|(id, _)| **id != key.id) {
            if let Some(address) = addresses(&stored.value).find(|own| addresses(&other.value).any(|other| other == *own)) {
                let message = format!("{address} is an address of mesh service [{id}] already");
                faults.push(((*key).clone(), Fault::whole("addresses", message)));
            }
        }
    }
    faults
}

/// Services and namespaces of whose modes more than one resource speaks: which one counts should never be a question.
pub(super) fn peer_authentications(state: &State, changed: &[&Key]) -> Vec<(Key, Fault)> {
    let subject = |value: &Value| {
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        (text("namespace").unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()), text("service"))
    };
    let mut faults = Vec::new();
    for key in changed {
        let Some(own) = state.get(key).map(|stored| subject(&stored.value)) else { continue };
        let mut others = state.list(ResourceKind::PeerAuthentication).filter(|(id, _)| **id != key.id);
        if let Some((id, _)) = others.find(|(_, other)| subject(&other.value) == own) {
            let (namespace, service) = own;
            let whom = service.map_or_else(|| format!("namespace {namespace}"), |service| format!("{namespace}/{service}"));
            let message =
                format!("peer authentication [{id}] speaks of {whom} already; change that one, or name another service");
            faults.push(((*key).clone(), Fault::whole("service", message)));
        }
    }
    faults
}

/// Listeners that would open the same address on the same node.
pub(super) fn addresses(state: &State, changed: &[&Key]) -> Vec<(Key, Fault)> {
    let mut faults = Vec::new();
    for key in changed {
        let Some(stored) = state.get(key) else { continue };
        for (id, other) in state.list(ResourceKind::Listener).filter(|(id, _)| **id != key.id) {
            let address = |value: &Value| value.get("address").and_then(Value::as_str).and_then(socket);
            // Each that asks for any port gets one of its own.
            let Some(own) = address(&stored.value).filter(|own| own.port() != 0) else { continue };
            if address(&other.value) == Some(own) && share_a_node(&stored.value, &other.value) {
                let message = format!("address {own} is taken by listener [{id}]");
                faults.push(((*key).clone(), Fault::whole("address", message)));
            }
        }
    }
    faults
}

fn share_a_node(one: &Value, other: &Value) -> bool {
    let nodes = |value: &Value| value.get("nodes").and_then(Value::as_array).cloned().unwrap_or_default();
    let (one, other) = (nodes(one), nodes(other));
    one.is_empty() || other.is_empty() || one.iter().any(|node| other.contains(node))
}
