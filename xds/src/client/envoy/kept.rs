//! What is of a listener on disk: what stays of it while its newest version is refused, and what goes with it. It knows no stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::client::Holdings;
use crate::codec::{InvalidResource, decode_body};
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
    owners_of(resource).into_iter().any(|name| listeners.contains(name))
}

/// The listeners that a resource belongs to.
fn owners_of(resource: &Resource) -> Vec<&str> {
    match resource {
        Resource::Listener(listener) => vec![&listener.name],
        Resource::Certificate(certificate) => certificate.listeners.iter().map(|name| &**name).collect(),
        Resource::Route(route) => {
            let conditions = route.matches.vars.iter().filter_map(|vars| vars.as_array()).flatten();
            let at = |condition: &'_ Value| match condition.as_array().map(Vec::as_slice) {
                Some([Value::String(variable), Value::String(operator), Value::String(_)]) => {
                    variable == "listener" && operator == "=="
                }
                _ => false,
            };
            conditions.filter(|condition| at(condition)).filter_map(|condition| condition[2].as_str()).collect()
        }
        _ => Vec::new(),
    }
}

/// The listeners on disk that lack something with a fault, each with the first one. Of what cannot be read the name tells: too many close rather than too few.
pub(super) fn lacking<'f>(faults: &'f [InvalidResource], held: &Holdings) -> BTreeMap<Arc<str>, &'f InvalidResource> {
    let mut lacking = BTreeMap::new();
    for fault in faults {
        let resource = held.get(fault.kind, &fault.name).and_then(|one| decode_body(fault.kind, &one.body).ok());
        let owners = resource.as_ref().map(owners_of);
        let is_of = |listener: &str| match (&owners, fault.kind) {
            (Some(owners), _) => owners.contains(&listener),
            (None, Kind::Route) => is_below(&fault.name, listener),
            (None, Kind::Certificate) => fault.name.strip_prefix("listener/").is_some_and(|name| is_below(name, listener)),
            (None, _) => fault.kind == Kind::Listener && *fault.name == *listener,
        };
        for (listener, _) in held.list(Kind::Listener).filter(|(listener, _)| is_of(listener)) {
            lacking.entry(listener.clone()).or_insert(fault);
        }
    }
    lacking
}

fn is_below(name: &str, listener: &str) -> bool {
    name.strip_prefix(listener).is_some_and(|rest| rest.starts_with('/'))
}

/// Takes out listeners with all that is of them alone; what went.
pub(super) fn take_out(listeners: &BTreeSet<Arc<str>>, held: &mut Holdings) -> BTreeSet<(Kind, Arc<str>)> {
    let mut gone = BTreeSet::new();
    if listeners.is_empty() {
        return gone;
    }
    for kind in [Kind::Listener, Kind::Route, Kind::Certificate] {
        let of = held.list(kind).filter(|(_, one)| {
            let resource = decode_body(kind, &one.body).ok();
            let owners = resource.as_ref().map(owners_of).unwrap_or_default();
            !owners.is_empty() && owners.into_iter().all(|name| listeners.contains(name))
        });
        gone.extend(of.map(|(name, _)| (kind, name.clone())));
    }
    gone.iter().for_each(|(kind, name)| drop(held.remove(*kind, name)));
    gone
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
