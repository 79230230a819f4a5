//! The JSON Schema of each kind, made from its type. What is served under `/schema` is what writes are checked against.

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::ResourceKind;
use super::resources::{
    AuthorizationPolicy, AwsSecret, Consumer, ConsumerGroup, Credential, GcpSecret, GlobalRule, Listener, MeshService,
    PeerAuthentication, PluginConfig, PluginMetadata, Route, Service, Ssl, Upstream, VaultSecret,
};
use super::shape::Shape;

/// A schema in both forms.
pub(super) struct Compiled {
    /// As it is served.
    pub(super) json: Value,
    /// As values are checked against it.
    pub(super) shape: Shape,
}

/// What a kind's values are checked against. Secrets have one schema per manager.
pub(super) fn of(kind: ResourceKind, id: &str) -> Option<&'static Compiled> {
    static KINDS: OnceLock<Vec<(ResourceKind, &'static str, Compiled)>> = OnceLock::new();
    let all = KINDS.get_or_init(compile_all);
    let manager = match kind {
        ResourceKind::Secret => id.split('/').next().unwrap_or_default(),
        _ => "",
    };
    all.iter().find(|(of, name, _)| *of == kind && *name == manager).map(|(_, _, compiled)| compiled)
}

/// The JSON Schema of a kind. Of secrets, any manager.
pub fn schema(kind: ResourceKind) -> Value {
    match kind {
        ResourceKind::Secret => {
            let managers: Vec<_> = MANAGERS.iter().filter_map(|name| of(kind, name)).map(|c| c.json.clone()).collect();
            json!({"type": "object", "anyOf": managers})
        }
        _ => of(kind, "").map(|c| c.json.clone()).unwrap_or_default(),
    }
}

/// The managers of secrets.
pub const MANAGERS: [&str; 3] = ["vault", "aws", "gcp"];

fn compile_all() -> Vec<(ResourceKind, &'static str, Compiled)> {
    let mut all = Vec::with_capacity(16);
    let mut add = |kind, name, json: Value| {
        // The types are ours: every_kind_has_a_schema proves that they all compile.
        if let Ok(shape) = Shape::compile(&json) {
            all.push((kind, name, Compiled { json, shape }));
        }
    };
    add(ResourceKind::Route, "", schema_of::<Route>());
    add(ResourceKind::Service, "", schema_of::<Service>());
    add(ResourceKind::Upstream, "", schema_of::<Upstream>());
    add(ResourceKind::Consumer, "", schema_of::<Consumer>());
    add(ResourceKind::Credential, "", schema_of::<Credential>());
    add(ResourceKind::ConsumerGroup, "", schema_of::<ConsumerGroup>());
    add(ResourceKind::PluginConfig, "", schema_of::<PluginConfig>());
    add(ResourceKind::GlobalRule, "", schema_of::<GlobalRule>());
    add(ResourceKind::PluginMetadata, "", schema_of::<PluginMetadata>());
    add(ResourceKind::Ssl, "", schema_of::<Ssl>());
    add(ResourceKind::Listener, "", schema_of::<Listener>());
    add(ResourceKind::MeshService, "", schema_of::<MeshService>());
    add(ResourceKind::AuthorizationPolicy, "", schema_of::<AuthorizationPolicy>());
    add(ResourceKind::PeerAuthentication, "", schema_of::<PeerAuthentication>());
    add(ResourceKind::Secret, "vault", schema_of::<VaultSecret>());
    add(ResourceKind::Secret, "aws", schema_of::<AwsSecret>());
    add(ResourceKind::Secret, "gcp", schema_of::<GcpSecret>());
    all
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true).with_transform(RecursiveTransform(tidy));
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Absent is not `null`: optional fields may be left out, not be null. Enums of described constants become plain enums.
fn tidy(schema: &mut Schema) {
    let Some(map) = schema.as_object_mut() else { return };
    map.remove("format");
    if map.get("default") == Some(&Value::Null) {
        map.remove("default");
    }
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            map.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(choices)) = map.get_mut("enum") {
        choices.retain(|choice| !choice.is_null());
    }
    if let Some(Value::Array(some)) = map.get_mut("anyOf") {
        some.retain(|one| one != &json!({"type": "null"}));
        if let [Value::Object(one)] = some.as_slice() {
            let one = one.clone();
            map.remove("anyOf");
            for (key, value) in one {
                map.entry(key).or_insert(value);
            }
        }
    }
    let constants = map
        .get("oneOf")
        .and_then(Value::as_array)
        .and_then(|all| all.iter().map(|one| one.get("const").cloned()).collect::<Option<Vec<_>>>());
    if let Some(constants) = constants {
        map.remove("oneOf");
        map.insert("type".to_owned(), "string".into());
        map.insert("enum".to_owned(), Value::Array(constants));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_told() {
        let upstream = schema(ResourceKind::Upstream);
        let default = |path: &str| upstream.pointer(&format!("/properties/{path}/default")).cloned();
        assert_eq!(default("hash_on"), Some(json!("vars")));
        assert_eq!(default("pass_host"), Some(json!("pass")));
        assert_eq!(default("scheme"), Some(json!("http")));
        assert_eq!(default("checks/properties/active/properties/healthy/properties/successes"), Some(json!(2)));
    }

    #[test]
    fn every_kind_has_a_schema() {
        for kind in ResourceKind::ALL {
            let names: &[&str] = if kind == ResourceKind::Secret { &MANAGERS } else { &[""] };
            for name in names {
                let compiled = of(kind, name);
                assert!(compiled.is_some(), "{kind:?} {name}");
                let text = compiled.map(|c| c.json.to_string()).unwrap_or_default();
                assert!(!text.contains("\"null\"") && !text.contains("$ref"), "{kind:?}: {text}");
            }
        }
    }
}
