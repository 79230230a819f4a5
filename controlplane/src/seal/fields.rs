//! Which fields of a user resource are secret. A function of values.

use heddle_xds::catalog::Catalog;
use serde_json::Value;

use crate::model::{ResourceKind, carrying};

/// Calls `each` with every secret text of a resource. References to secrets kept elsewhere are none.
pub fn visit(kind: ResourceKind, value: &mut Value, catalog: &dyn Catalog, each: &mut dyn FnMut(&mut String)) {
    for path in own_fields(kind) {
        walk(value, &path.split('.').collect::<Vec<_>>(), each);
    }
    if kind == ResourceKind::PluginMetadata {
        let name = value.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        return plugin(&name, value, catalog, each);
    }
    for field in ["plugins", "inbound_plugins"] {
        for (name, config) in value.get_mut(field).and_then(Value::as_object_mut).into_iter().flatten() {
            plugin(name, config, catalog, each);
        }
    }
}

/// Secret fields besides those of plugins.
fn own_fields(kind: ResourceKind) -> &'static [&'static str] {
    match kind {
        ResourceKind::Ssl => &["key", "keys"],
        ResourceKind::Upstream => &["tls.client_key"],
        ResourceKind::Route | ResourceKind::Service => &["upstream.tls.client_key"],
        ResourceKind::Secret => &["token", "secret_access_key", "session_token", "auth_config.private_key"],
        _ => &[],
    }
}

fn plugin(name: &str, config: &mut Value, catalog: &dyn Catalog, each: &mut dyn FnMut(&mut String)) {
    if let Some(fields) = carrying(name) {
        walk(config, &[fields, &["upstream", "tls", "client_key"]].concat(), each);
    }
    let Some(descriptor) = catalog.descriptor(name) else { return };
    for path in descriptor.encrypt_fields {
        walk(config, &path.split('.').collect::<Vec<_>>(), each);
    }
}

/// Follows a path through objects and all items of arrays; at its end every text counts.
fn walk(value: &mut Value, path: &[&str], each: &mut dyn FnMut(&mut String)) {
    match (value, path) {
        (Value::Array(items), _) => items.iter_mut().for_each(|item| walk(item, path, each)),
        (Value::Object(map), [first, rest @ ..]) => {
            if let Some(next) = map.get_mut(*first) {
                walk(next, rest, each);
            }
        }
        (Value::Object(map), []) => map.values_mut().for_each(|item| walk(item, path, each)),
        (Value::String(text), []) if !text.starts_with("$secret://") && !text.to_ascii_lowercase().starts_with("$env://") => {
            each(text)
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_go_through_arrays_and_maps() {
        let mut value = json!({"a": [{"b": "x"}, {"b": {"k": "y", "l": ["z"]}}, {"c": "no"}, {"b": "$secret://v/1/a/b"}]});
        let mut seen = Vec::new();
        walk(&mut value, &["a", "b"], &mut |text| seen.push(text.clone()));
        assert_eq!(seen, ["x", "y", "z"]);
    }
}
