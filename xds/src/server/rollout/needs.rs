//! What a version that nodes keep refers to: as long as it is kept, nothing of that is taken away. It knows no group and no wave.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::wave::Key;
use crate::model::{Kind, PluginConf, Resource, SecretBody};
use crate::protocol::Types;
use crate::server::refused::Leads;
use crate::snapshot::{SnapshotSource, View};

/// Where plugins name upstreams.
const UPSTREAM_ID: &str = "upstream_id";
/// What a text begins with that stands for a secret kept elsewhere: the manager follows, and which one of them.
const SECRET: &str = "$secret://";
/// How deep the configuration of a plugin is looked into: as deep as it may be written.
const MAX_DEPTH: usize = 64;

/// Of `gone`, that to which the versions lead that nodes keep: of `kept` those in `view`, and those of what `rest` leaves untold, whichever they are.
pub(super) fn led_to<'a>(
    types: Types,
    kept: impl Iterator<Item = &'a Key>,
    (view, rest): (&View, &View),
    gone: BTreeSet<Key>,
) -> BTreeSet<Key> {
    let unknown: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| rest.leaves(*kind)).collect();
    let is_led_to = |(to, _): &Key| unknown.iter().any(|kind| may_lead(types, *kind, *to));
    let (mut all, others): (BTreeSet<Key>, BTreeSet<Key>) = gone.into_iter().partition(is_led_to);
    all.append(&mut needed(types, kept, view, others));
    all
}

/// Whether a resource of one kind may lead to those of another one, where nobody knows what it names.
fn may_lead(types: Types, kind: Kind, to: Kind) -> bool {
    let ours = types == Types::Heddle;
    match (kind, to) {
        (Kind::Upstream, Kind::Endpoints) => true,
        (Kind::Secret, Kind::Secret) | (_, Kind::PluginMetadata) if !ours => false,
        // Its manager.
        (Kind::Secret, Kind::Secret) => true,
        (Kind::Certificate, to) if ours => to == Kind::Secret,
        (_, Kind::Route) if ours => false,
        (kind, to) => (is_referred_to(to) || to == Kind::PluginMetadata) && Leads::are(kind, to),
    }
}

/// Of `gone`, what the resources `kept` refer to in `view`, directly or by what these refer to.
fn needed<'a>(
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
        Resource::Secret(secret) => {
            match &secret.body {
                SecretBody::KeyPair { chain_pem, key_pem } => out.extend(manager(chain_pem).into_iter().chain(manager(key_pem))),
                SecretBody::Roots(pem) => out.extend(manager(pem)),
                SecretBody::Manager(_) => {}
            }
            &[]
        }
        Resource::Route(route) => {
            route.upstream.iter().for_each(|upstream| named(Kind::Upstream, &upstream.name));
            &route.plugins
        }
        Resource::MeshService(service) => &service.plugins,
        Resource::MeshInbound(inbound) => &inbound.plugins,
        Resource::GlobalRule(rule) => &rule.plugins,
        Resource::Consumer(consumer) => {
            consumer.credentials.iter().for_each(|credential| written(&credential.config, MAX_DEPTH, &mut out));
            &consumer.plugins
        }
        Resource::PluginMetadata(metadata) => {
            written(&metadata.config, MAX_DEPTH, &mut out);
            &[]
        }
        _ => &[],
    };
    for plugin in plugins {
        out.push((Kind::PluginMetadata, plugin.name.clone()));
        written(&plugin.config, MAX_DEPTH, &mut out);
    }
    out
}

/// Upstreams and managers of secrets that a configuration names, at any depth.
fn written(value: &Value, depth: usize, out: &mut Vec<Key>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    match value {
        Value::String(text) => out.extend(manager(text)),
        Value::Array(items) => items.iter().for_each(|item| written(item, depth, out)),
        Value::Object(fields) => {
            if let Some(name) = fields.get(UPSTREAM_ID).and_then(Value::as_str) {
                out.push((Kind::Upstream, name.into()));
            }
            fields.values().for_each(|field| written(field, depth, out));
        }
        _ => {}
    }
}

/// The manager that is asked for what a text stands for.
fn manager(text: &str) -> Option<Key> {
    let (scheme, path) = text.split_at_checked(SECRET.len())?;
    let mut parts = path.split('/');
    let (manager, id) = (parts.next()?, parts.next()?);
    scheme.eq_ignore_ascii_case(SECRET).then(|| (Kind::Secret, format!("secrets/{manager}/{id}").into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;
    use crate::model::{Consumer, Credential, PluginMetadata, PluginOrigin, Secret};
    use crate::snapshot::{Change, SnapshotFeed, SnapshotStore};

    #[test]
    fn what_nobody_knows_may_lead_to_whatever_such_a_resource_may_name() {
        let store = SnapshotStore::new();
        let gone = [Kind::Secret, Kind::Upstream, Kind::Endpoints, Kind::PluginMetadata, Kind::Route, Kind::Listener]
            .map(|kind| (kind, Arc::from("gone")));
        let kinds = |types, left: Kind| {
            let rest = SnapshotStore::new();
            rest.leave(&[(left, "left".into())]);
            let all = led_to(types, [].iter(), (&store.view(), &rest.view()), gone.clone().into());
            all.into_iter().map(|(kind, _)| kind).collect::<Vec<_>>()
        };
        let [secret, upstream, endpoints, metadata] = [Kind::Secret, Kind::Upstream, Kind::Endpoints, Kind::PluginMetadata];
        assert_eq!(kinds(Types::Heddle, Kind::Route), [secret, upstream, endpoints, metadata]);
        assert_eq!(kinds(Types::Heddle, Kind::Certificate), [secret]);
        assert_eq!(kinds(Types::Heddle, Kind::Upstream), [secret, endpoints]);
        assert_eq!(kinds(Types::Envoy, Kind::Route), [secret, upstream, endpoints]);
        assert_eq!(kinds(Types::Envoy, Kind::Listener), [secret, upstream, endpoints, Kind::Route]);
        assert!(kinds(Types::Envoy, Kind::Secret).is_empty());
    }

    #[test]
    fn a_manager_stays_whose_secrets_are_named_in_what_is_kept() {
        let manager = |id: &str| (Kind::Secret, Arc::from(format!("secrets/vault/{id}")));
        let at = |id: &str| json!({ "deep": [{ "text": format!("$secret://vault/{id}/team/db/password") }] });
        let roots = SecretBody::Roots("$secret://vault/roots/a/b".into());
        let key = SecretBody::KeyPair { chain_pem: "PEM".into(), key_pem: "$SECRET://vault/key/a/b".into() };
        let plugin = PluginConf { name: "p".into(), config: Arc::new(at("plugin")), origin: PluginOrigin("rule".into()) };
        let consumer = Consumer {
            username: "ann".into(),
            group_id: "".into(),
            credentials: vec![Credential { id: "".into(), plugin: "key-auth".into(), config: Arc::new(at("credential")) }],
            plugins: vec![plugin],
            labels: std::collections::BTreeMap::new(),
        };
        let store = SnapshotStore::new();
        let resources = [
            Resource::Secret(Secret { name: "s".into(), body: key }),
            Resource::Secret(Secret { name: "r".into(), body: roots }),
            Resource::Consumer(consumer),
            Resource::PluginMetadata(PluginMetadata { plugin: "p".into(), config: Arc::new(at("metadata")) }),
        ];
        store.apply(resources.map(Change::Set).into());
        let kept = [(Kind::Secret, Arc::from("s")), (Kind::Secret, Arc::from("r")), (Kind::Consumer, Arc::from("ann"))];
        let gone = ["plugin", "credential", "metadata", "key", "roots", "nobody"].map(manager);
        let needed = needed(Types::Heddle, kept.iter(), &store.view(), gone.clone());
        assert_eq!(needed, gone.into_iter().take(5).collect());
    }
}
