//! What a resource refers to, read from its JSON. It does not know whether that exists.

use serde_json::Value;

use super::{Key, ResourceKind, carriers};

/// One reference out of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The kind that is referred to.
    pub kind: ResourceKind,
    /// The id as it is written, with or without `@provider`.
    pub id: String,
    /// Where it stands, as faults say it.
    pub path: String,
    /// It stands in the configuration of a plugin.
    pub in_plugin: bool,
    /// It must be a certificate of type `client`.
    pub client_cert: bool,
}

impl Reference {
    fn new(kind: ResourceKind, id: String, path: impl Into<String>) -> Reference {
        Reference { kind, id, path: path.into(), in_plugin: false, client_cert: false }
    }
}

/// All references of a resource, read from its JSON so that resources of any quality can be asked.
pub fn references(key: &Key, value: &Value) -> Vec<Reference> {
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
        ResourceKind::Service | ResourceKind::Listener => named("upstream_id", ResourceKind::Upstream),
        ResourceKind::Consumer => named("group_id", ResourceKind::ConsumerGroup),
        ResourceKind::Credential => {
            let username = key.local_id().split('/').next().unwrap_or_default();
            out.push(Reference::new(ResourceKind::Consumer, username.to_owned(), ""));
        }
        _ => {}
    }
    match key.kind {
        ResourceKind::Upstream => tls(value, "tls", &mut out),
        ResourceKind::Route | ResourceKind::Service | ResourceKind::Listener => {
            if let Some(inline) = value.get("upstream") {
                tls(inline, "upstream.tls", &mut out);
            }
        }
        _ => {}
    }
    if key.kind == ResourceKind::Listener {
        in_tcp_routes(value, &mut out);
    }
    in_plugins(value, &mut out);
    out
}

/// Upstreams that the routes of a TCP listener lead to.
fn in_tcp_routes(value: &Value, out: &mut Vec<Reference>) {
    let list = |value: &Value, field: &str| value.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    for (at, route) in list(value, "routes").iter().enumerate() {
        let place = format!("routes[{at}]");
        let mut named = |value: &Value, path: String| {
            if let Some(id) = value.get("upstream_id").and_then(id_text) {
                out.push(Reference::new(ResourceKind::Upstream, id, path));
            }
        };
        named(route, format!("{place}.upstream_id"));
        for (share, weighted) in list(route, "upstreams").iter().enumerate() {
            named(weighted, format!("{place}.upstreams[{share}].upstream_id"));
        }
        if let Some(inline) = route.get("upstream") {
            tls(inline, &format!("{place}.upstream.tls"), out);
        }
    }
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

/// Upstreams that plugins carry.
fn in_plugins(value: &Value, out: &mut Vec<Reference>) {
    for (name, config) in value.get("plugins").and_then(Value::as_object).into_iter().flatten() {
        for (at, entry) in carriers(name, config) {
            let path = if at.is_empty() { format!("plugins.{name}") } else { format!("plugins.{name}.{at}") };
            let before = out.len();
            if let Some(id) = entry.get("upstream_id").and_then(id_text) {
                out.push(Reference::new(ResourceKind::Upstream, id, format!("{path}.upstream_id")));
            }
            if let Some(inline) = entry.get("upstream") {
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
