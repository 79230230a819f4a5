//! Credentials of consumers as authentication plugins look them up: by a unique value, and what they are proven against.

use std::sync::Arc;

use heddle_xds::catalog::ConfigFault;
use heddle_xds::model;
use serde_json::Value;

use super::registry;
use crate::exchange::Proof;
use crate::secrets::reference::is_reference;

/// One way to prove who one is, compiled.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Credential id, empty when it stands on the consumer itself.
    pub id: Arc<str>,
    /// Authentication plugin.
    pub plugin: &'static str,
    /// What it is looked up by: the unique attribute of the plugin's consumer configuration (`key` of `key-auth`).
    pub value: Box<[u8]>,
    /// What it is proven against.
    pub proof: Option<Proof>,
}

/// Compiles the credentials of a consumer. Those of plugins that identify nobody are left out.
///
/// # Errors
/// All faults, with paths such as `credentials[0].secret`.
pub fn credentials(all: &[model::Credential]) -> Result<Vec<Credential>, Vec<ConfigFault>> {
    let mut compiled = Vec::with_capacity(all.len());
    let mut faults = Vec::new();
    for (place, credential) in all.iter().enumerate() {
        match compile(credential) {
            Ok(found) => compiled.extend(found),
            Err(found) => faults.extend(found.into_iter().map(|fault| under_credential(place, fault))),
        }
    }
    if faults.is_empty() { Ok(compiled) } else { Err(faults) }
}

/// The same plugins without what is secret in them, for people to look at.
pub fn masked(plugins: &[model::PluginConf]) -> Vec<model::PluginConf> {
    let masked = |plugin: &model::PluginConf| {
        let fields = registry::find(&plugin.name).map_or(&[][..], |known| known.descriptor.encrypt_fields);
        let mut config = plugin.config.clone();
        for path in fields {
            mask(Arc::make_mut(&mut config), &path.split('.').collect::<Vec<_>>());
        }
        model::PluginConf { config, ..plugin.clone() }
    };
    plugins.iter().map(masked).collect()
}

/// Follows a path through objects and all items of arrays; at its end every text is replaced, unless it only says where a secret is kept.
fn mask(value: &mut Value, path: &[&str]) {
    match (value, path) {
        (Value::Array(items), _) => items.iter_mut().for_each(|item| mask(item, path)),
        (Value::Object(map), [first, rest @ ..]) => map.get_mut(*first).into_iter().for_each(|next| mask(next, rest)),
        (Value::Object(map), []) => map.values_mut().for_each(|item| mask(item, path)),
        (Value::String(text), []) if !is_reference(text) => "***".clone_into(text),
        _ => {}
    }
}

fn compile(credential: &model::Credential) -> Result<Option<Credential>, Vec<ConfigFault>> {
    let Some(plugin) = registry::find(&credential.plugin) else { return Ok(None) };
    let unique = plugin.descriptor.unique_consumer_field.and_then(|field| credential.config.get(field));
    // What a reference stands for may be empty, and that is what everybody can show.
    let Some(value) = unique.and_then(Value::as_str).filter(|value| !value.is_empty()) else { return Ok(None) };
    let proof = plugin.credential.map(|compile| compile(&credential.config)).transpose()?;
    Ok(Some(Credential { id: credential.id.clone(), plugin: plugin.descriptor.name, value: value.as_bytes().into(), proof }))
}

fn under_credential(place: usize, fault: ConfigFault) -> ConfigFault {
    let path =
        if fault.path.is_empty() { format!("credentials[{place}]") } else { format!("credentials[{place}].{}", fault.path) };
    ConfigFault { path, ..fault }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// What a reference stands for may be empty, and an empty value is one that everybody has.
    #[test]
    fn an_empty_value_finds_nobody() {
        let all = |key: &str| {
            let config = Arc::new(json!({ "key": key }));
            credentials(&[model::Credential { id: "".into(), plugin: "key-auth".into(), config }]).unwrap().len()
        };
        assert_eq!((all("k"), all("")), (1, 0));
    }
}
