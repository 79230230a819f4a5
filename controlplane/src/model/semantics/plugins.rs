//! Checks the plugins of any resource through the catalog of what the data plane runs.

use heddle_xds::catalog::{Catalog, Place, PluginKind};
use serde_json::{Map, Value};

use super::super::shape::step;
use super::super::{Fault, ResourceKind, carriers, parse};

/// Fields that the server adds to a value, which no plugin knows.
const OURS: [&str; 3] = ["id", "create_time", "update_time"];

/// All faults of the plugins of a resource; of `plugin_metadata`, of the metadata itself.
pub(in super::super) fn check(kind: ResourceKind, id: &str, value: &Value, catalog: &dyn Catalog) -> Vec<Fault> {
    let mut faults = Vec::new();
    if kind == ResourceKind::PluginMetadata {
        metadata(id, value, catalog, &mut faults);
        return faults;
    }
    for (name, config) in value.get("inbound_plugins").and_then(Value::as_object).into_iter().flatten() {
        one(kind, ("inbound_plugins", name), config, catalog, &mut faults);
    }
    let Some(plugins) = value.get("plugins").and_then(Value::as_object) else { return faults };
    if kind == ResourceKind::Credential {
        credential(plugins, catalog, &mut faults);
    }
    for (name, config) in plugins {
        one(kind, ("plugins", name), config, catalog, &mut faults);
    }
    faults
}

fn metadata(id: &str, value: &Value, catalog: &dyn Catalog, faults: &mut Vec<Fault>) {
    let name = id.split('@').next().unwrap_or_default();
    let mut own = value.clone();
    if let Some(map) = own.as_object_mut() {
        map.retain(|field, _| !OURS.contains(&field.as_str()));
    }
    if catalog.descriptor(name).is_none() {
        return faults.push(Fault::whole("", "invalid plugin name"));
    }
    if let Err(found) = catalog.check(name, Place::Metadata, &own) {
        faults.extend(found.into_iter().map(|fault| Fault::new(fault.path, fault.message)));
    }
}

/// A credential proves who one is in one way.
fn credential(plugins: &Map<String, Value>, catalog: &dyn Catalog, faults: &mut Vec<Fault>) {
    if plugins.len() > 1 {
        faults.push(Fault::new(
            "plugins",
            "expect object to have at most 1 properties: a credential has one authentication plugin",
        ));
    }
    for name in plugins.keys() {
        if catalog.descriptor(name).is_some_and(|d| d.kind != PluginKind::Auth) {
            faults.push(Fault::whole(
                step("plugins", name),
                format!("only supports auth type plugins in consumer credential, found {name}"),
            ));
        }
    }
}

fn one(kind: ResourceKind, (field, name): (&str, &str), config: &Value, catalog: &dyn Catalog, faults: &mut Vec<Fault>) {
    let path = format!("{field}{}", step(field, name));
    let Some(descriptor) = catalog.descriptor(name) else {
        return faults.push(Fault::whole(path, format!("unknown plugin [{name}]")));
    };
    let meta = config.get("_meta");
    if meta.is_some_and(|meta| meta.get("pre_function").is_some()) {
        let why = "property \"_meta\" validation failed: pre_function is not supported: Heddle runs no Lua";
        faults.push(Fault::whole(format!("{path}._meta.pre_function"), wrap(name, why)));
    }
    if meta.and_then(|meta| meta.get("disable")) == Some(&Value::Bool(true)) {
        return;
    }
    let on_consumer = matches!(kind, ResourceKind::Consumer | ResourceKind::Credential);
    let place = if on_consumer && descriptor.kind == PluginKind::Auth { Place::Consumer } else { Place::Route };
    upstreams(name, config, &path, faults);
    for fault in catalog.check(name, place, config).err().unwrap_or_default() {
        if fault.path.starts_with("_meta.pre_function") {
            continue;
        }
        let inner = Fault::new(fault.path.clone(), fault.message).wording();
        let inner = inner.strip_prefix("invalid configuration: ").unwrap_or(&inner);
        let full = if fault.path.is_empty() { path.clone() } else { format!("{path}.{}", fault.path) };
        faults.push(Fault::whole(full, wrap(name, inner)));
    }
}

/// The faults of the upstreams that are written inside a plugin: they become upstreams like any other.
fn upstreams(name: &str, config: &Value, path: &str, faults: &mut Vec<Fault>) {
    for (at, entry) in carriers(name, config) {
        let Some(inline) = entry.get("upstream").filter(|inline| inline.is_object()) else { continue };
        for fault in parse(ResourceKind::Upstream, "", inline).err().unwrap_or_default() {
            let full =
                [path, &at, "upstream", &fault.path].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
            faults.push(Fault::whole(full, wrap(name, &format!("invalid upstream: {}", fault.message))));
        }
    }
}

fn wrap(name: &str, why: &str) -> String {
    format!("failed to check the configuration of plugin {name} err: {why}")
}
