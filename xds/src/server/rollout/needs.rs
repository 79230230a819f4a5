//! What a version that nodes keep refers to: as long as it is kept, nothing of that is taken away. It knows no group and no wave.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::wave::Key;
use crate::model::{Kind, PluginConf, Resource};
use crate::protocol::Types;
use crate::snapshot::View;

/// Where plugins name upstreams.
const UPSTREAM_ID: &str = "upstream_id";
/// How deep the configuration of a plugin is looked into: as deep as it may be written.
const MAX_DEPTH: usize = 64;

/// Of `gone`, what the resources `kept` refer to in `view`, directly or by what these refer to.
pub(super) fn needed<'a>(
    types: Types,
    kept: impl Iterator<Item = &'a Key>,
    view: &View,
    gone: impl IntoIterator<Item = Key>,
) -> BTreeSet<Key> {
    let mut gone: BTreeSet<Key> = gone.into_iter().collect();
    if gone.is_empty() {
        return gone;
    }
    let mut waiting: Vec<Key> = kept.cloned().collect();
    if types != Types::Heddle {
        // All routes are one resource there and listeners name clusters in many places, so that any of them may refer to anything.
        let is_kept = waiting.iter().any(|(kind, name)| view.find(*kind, name).is_some());
        gone.retain(|(kind, _)| is_kept && is_referred_to(*kind));
        return gone;
    }
    let (mut seen, mut found): (BTreeSet<Key>, BTreeSet<Key>) = (waiting.iter().cloned().collect(), BTreeSet::new());
    while let Some((kind, name)) = waiting.pop() {
        let Some(resource) = view.find(kind, &name) else { continue };
        for key in references(&resource.resource) {
            if gone.contains(&key) {
                found.insert(key.clone());
            }
            if seen.insert(key.clone()) {
                waiting.push(key);
            }
        }
    }
    found
}

fn is_referred_to(kind: Kind) -> bool {
    matches!(kind, Kind::Secret | Kind::Upstream | Kind::Endpoints | Kind::Route)
}

/// What a resource names.
fn references(resource: &Resource) -> Vec<Key> {
    let mut out = Vec::new();
    let mut named = |kind: Kind, name: &Arc<str>| out.push((kind, name.clone()));
    let plugins: &[PluginConf] = match resource {
        Resource::Listener(listener) => {
            listener.tcp.iter().flat_map(|route| &route.upstreams).for_each(|share| named(Kind::Upstream, &share.upstream));
            &[]
        }
        Resource::Upstream(upstream) => {
            named(Kind::Endpoints, &upstream.name);
            upstream.tls.ca.iter().chain(&upstream.tls.client_cert).for_each(|secret| named(Kind::Secret, secret));
            &[]
        }
        Resource::Certificate(certificate) => {
            let roots = certificate.client.as_ref().map(|client| &client.ca);
            certificate.secrets.iter().chain(roots).for_each(|secret| named(Kind::Secret, secret));
            &[]
        }
        Resource::Route(route) => {
            route.upstream.iter().for_each(|upstream| named(Kind::Upstream, &upstream.name));
            &route.plugins
        }
        Resource::GlobalRule(rule) => &rule.plugins,
        Resource::Consumer(consumer) => &consumer.plugins,
        _ => &[],
    };
    for plugin in plugins {
        out.push((Kind::PluginMetadata, plugin.name.clone()));
        upstreams(&plugin.config, MAX_DEPTH, &mut out);
    }
    out
}

/// Upstreams that the configuration of a plugin names, at any depth.
fn upstreams(value: &Value, depth: usize, out: &mut Vec<Key>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    match value {
        Value::Array(items) => items.iter().for_each(|item| upstreams(item, depth, out)),
        Value::Object(fields) => {
            if let Some(name) = fields.get(UPSTREAM_ID).and_then(Value::as_str) {
                out.push((Kind::Upstream, name.into()));
            }
            fields.values().for_each(|field| upstreams(field, depth, out));
        }
        _ => {}
    }
}
