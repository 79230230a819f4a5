//! Who refers to whom: references that lead nowhere, and deletions of what others still use.

use std::collections::HashMap;

use serde_json::Value;

use crate::model::{Fault, Key, ResourceKind};
use crate::state::State;

/// One reference out of a resource.
#[derive(Debug, PartialEq, Eq)]
struct Reference {
    kind: ResourceKind,
    id: String,
    path: String,
    /// It stands in the configuration of a plugin.
    in_plugin: bool,
    /// It must be a certificate of type `client`.
    client_cert: bool,
}

impl Reference {
    fn new(kind: ResourceKind, id: String, path: impl Into<String>) -> Reference {
        Reference { kind, id, path: path.into(), in_plugin: false, client_cert: false }
    }
}

/// The references of `value` that lead nowhere, in APISIX's words.
pub(super) fn missing(state: &State, key: &Key, value: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    for reference in references(key, value) {
        let found = state.resolve(reference.kind, &reference.id, key);
        let name = noun(reference.kind);
        let id = &reference.id;
        let why = match found {
            None if reference.kind == ResourceKind::Consumer => "consumer not found".to_owned(),
            None => format!("failed to fetch {name} info by {name} id [{id}], response code: 404"),
            Some((_, stored)) if reference.client_cert && stored.value.get("type").and_then(Value::as_str) != Some("client") => {
                format!("failed to fetch {name} info by {name} id [{id}], wrong {name} type: expected client")
            }
            Some(_) => continue,
        };
        faults.push(Fault::whole(reference.path, why));
    }
    faults
}

/// The faults of deletions: which of `removed` something still refers to. One fault for each removed key.
pub(super) fn still_used(state: &State, removed: &[&Key]) -> Vec<(Key, Fault)> {
    let mut users: HashMap<&Key, (Key, bool)> = HashMap::new();
    for (key, stored) in state.all() {
        for reference in references(&key, &stored.value) {
            if state.resolve(reference.kind, &reference.id, &key).is_some() {
                continue;
            }
            for gone in removed.iter().filter(|gone| gone.kind == reference.kind && means(&reference.id, &key, gone)) {
                users.entry(gone).or_insert_with(|| (key.clone(), reference.in_plugin));
            }
        }
    }
    removed
        .iter()
        .filter_map(|gone| users.get(gone).map(|(user, in_plugin)| ((*gone).clone(), in_use(gone, user, *in_plugin))))
        .collect()
}

/// Whether `id`, written in `from`, meant `gone`.
fn means(id: &str, from: &Key, gone: &Key) -> bool {
    *gone.id == *id
        || (!id.contains('@') && gone.local_id() == id && gone.provider().is_some() && gone.provider() == from.provider())
}

fn in_use(gone: &Key, user: &Key, in_plugin: bool) -> Fault {
    let directly = if gone.kind == ResourceKind::Service { " directly" } else { "" };
    let plugin = if in_plugin { "plugin in " } else { "" };
    let message = format!(
        "can not delete this {}{directly}, {plugin}{} [{}] is still using it now",
        noun(gone.kind),
        noun(user.kind),
        user.id
    );
    Fault::whole("", message)
}

/// The kind as messages say it.
fn noun(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::PluginConfig => "plugin config",
        ResourceKind::ConsumerGroup => "consumer group",
        ResourceKind::GlobalRule => "global rule",
        other => other.singular(),
    }
}

/// All references of a resource, read from its JSON so that resources of any quality can be asked.
fn references(key: &Key, value: &Value) -> Vec<Reference> {
    let mut out = Vec::new();
    let mut named = |field: &str, kind| {
        if let Some(id) = value.get(field).and_then(id_text) {
            out.push(Reference::new(kind, id, field));
        }
    };
    match key.kind {
        ResourceKind::Route => {
            named("upstream_id", ResourceKind::Upstream);
            named("service_id", ResourceKind::Service);
            named("plugin_config_id", ResourceKind::PluginConfig);
        }
        ResourceKind::Service => named("upstream_id", ResourceKind::Upstream),
        ResourceKind::Consumer => named("group_id", ResourceKind::ConsumerGroup),
        ResourceKind::Credential => {
            let username = key.local_id().split('/').next().unwrap_or_default();
            out.push(Reference::new(ResourceKind::Consumer, username.to_owned(), ""));
        }
        _ => {}
    }
    match key.kind {
        ResourceKind::Upstream => tls(value, "tls", &mut out),
        ResourceKind::Route | ResourceKind::Service => {
            if let Some(inline) = value.get("upstream") {
                tls(inline, "upstream.tls", &mut out);
            }
        }
        _ => {}
    }
    traffic_split(value, &mut out);
    out
}

fn tls(upstream: &Value, path: &str, out: &mut Vec<Reference>) {
    let Some(tls) = upstream.get("tls") else { return };
    if let Some(id) = tls.get("client_cert_id").and_then(id_text) {
        let reference = Reference::new(ResourceKind::Ssl, id, format!("{path}.client_cert_id"));
        out.push(Reference { client_cert: true, ..reference });
    }
    if let Some(id) = tls.get("ca").and_then(Value::as_str).filter(|ca| !ca.contains("-----BEGIN") && !ca.starts_with('$')) {
        out.push(Reference::new(ResourceKind::Ssl, id.to_owned(), format!("{path}.ca")));
    }
}

fn traffic_split(value: &Value, out: &mut Vec<Reference>) {
    let rules = value.pointer("/plugins/traffic-split/rules").and_then(Value::as_array);
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let targets = rule.get("weighted_upstreams").and_then(Value::as_array);
        for (target, weighted) in targets.into_iter().flatten().enumerate() {
            let path = format!("plugins.traffic-split.rules[{index}].weighted_upstreams[{target}]");
            let before = out.len();
            if let Some(id) = weighted.get("upstream_id").and_then(id_text) {
                out.push(Reference::new(ResourceKind::Upstream, id, format!("{path}.upstream_id")));
            }
            if let Some(inline) = weighted.get("upstream") {
                tls(inline, &format!("{path}.upstream.tls"), out);
            }
            out[before..].iter_mut().for_each(|reference| reference.in_plugin = true);
        }
    }
}

fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
