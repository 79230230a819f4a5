//! What stays of what was on disk: listeners whose newest version is refused, with all that they need. It knows no stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::client::Holdings;
use crate::codec::decode_body;
use crate::model::{Kind, Resource};

/// The resources of these listeners, and those that they name.
pub(super) fn of(listeners: &BTreeSet<Arc<str>>, held: &Holdings) -> BTreeSet<(Kind, Arc<str>)> {
    let mut kept = BTreeSet::new();
    if listeners.is_empty() {
        return kept;
    }
    // Upstreams come last: listeners and routes name them.
    for kind in [Kind::Listener, Kind::Route, Kind::Certificate] {
        for (name, one) in held.list(kind) {
            let Ok(resource) = decode_body(kind, &one.body) else { continue };
            if is_of(&resource, listeners) {
                kept.insert((kind, name.clone()));
                named_by(&resource, &mut kept);
            }
        }
    }
    for (name, one) in held.list(Kind::Upstream) {
        if kept.contains(&(Kind::Upstream, name.clone()))
            && let Ok(Resource::Upstream(upstream)) = decode_body(Kind::Upstream, &one.body)
        {
            let secrets = upstream.tls.ca.iter().chain(&upstream.tls.client_cert);
            kept.extend(secrets.map(|secret| (Kind::Secret, secret.clone())));
        }
    }
    kept
}

/// Whether a resource belongs to one of the listeners.
fn is_of(resource: &Resource, listeners: &BTreeSet<Arc<str>>) -> bool {
    match resource {
        Resource::Listener(listener) => listeners.contains(&listener.name),
        Resource::Certificate(certificate) => certificate.listeners.iter().any(|name| listeners.contains(name)),
        Resource::Route(route) => {
            let conditions = route.matches.vars.iter().filter_map(|vars| vars.as_array()).flatten();
            let at = |condition: &Value| match condition.as_array().map(Vec::as_slice) {
                Some([Value::String(variable), Value::String(operator), Value::String(name)]) => {
                    variable == "listener" && operator == "==" && listeners.contains(name.as_str())
                }
                _ => false,
            };
            conditions.into_iter().any(at)
        }
        _ => false,
    }
}

fn named_by(resource: &Resource, kept: &mut BTreeSet<(Kind, Arc<str>)>) {
    let mut upstream = |name: &str| kept.extend([Kind::Upstream, Kind::Endpoints].map(|kind| (kind, Arc::from(name))));
    match resource {
        Resource::Listener(listener) => {
            listener.tcp.iter().flat_map(|route| &route.upstreams).for_each(|share| upstream(&share.upstream));
        }
        Resource::Route(route) => {
            route.upstream.iter().for_each(|leads| upstream(&leads.name));
            route.plugins.iter().for_each(|plugin| upstreams_in(&plugin.config, &mut upstream));
        }
        Resource::Certificate(certificate) => {
            let secrets = certificate.secrets.iter().chain(certificate.client.as_ref().map(|client| &client.ca));
            kept.extend(secrets.map(|secret| (Kind::Secret, secret.clone())));
        }
        _ => {}
    }
}

/// Upstreams that plugins send requests, copies or questions to.
fn upstreams_in(config: &Value, take: &mut impl FnMut(&str)) {
    match config {
        Value::Object(fields) => {
            if let Some(name) = fields.get("upstream_id").and_then(Value::as_str) {
                take(name);
            }
            fields.values().for_each(|inner| upstreams_in(inner, take));
        }
        Value::Array(items) => items.iter().for_each(|inner| upstreams_in(inner, take)),
        _ => {}
    }
}
