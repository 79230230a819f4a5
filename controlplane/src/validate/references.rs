//! Who refers to whom: references that lead nowhere, and deletions of what others still use.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::model::{Fault, Key, Reference, ResourceKind, references};
use crate::state::State;

/// The provider of what the configuration file has.
const CONFIG: &str = "config";

/// The references of `value` that lead nowhere, in APISIX's words.
pub(super) fn missing(state: &State, key: &Key, value: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    for reference in references(key, value) {
        if key.kind == ResourceKind::Listener && key.provider() == Some(CONFIG) && reference.kind == ResourceKind::Upstream {
            // The listeners of the configuration file come before all upstreams; connections are refused until theirs is there.
            continue;
        }
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
    removed
        .iter()
        .filter_map(|gone| user(state, gone).map(|(user, in_plugin)| ((*gone).clone(), in_use(gone, &user, in_plugin))))
        .collect()
}

/// The first resource that needs `gone`, and whether a plugin of it does.
fn user(state: &State, gone: &Key) -> Option<(Key, bool)> {
    let written = [Some(&*gone.id), gone.provider().map(|_| gone.local_id())];
    let users: BTreeSet<&Key> = written.into_iter().flatten().flat_map(|id| state.users(gone.kind, id)).collect();
    users.into_iter().find_map(|user| {
        let lost = |reference: &Reference| {
            reference.kind == gone.kind
                && means(&reference.id, user, gone)
                && state.resolve(reference.kind, &reference.id, user).is_none()
        };
        let found = references(user, &state.get(user)?.value).into_iter().find(lost)?;
        Some((user.clone(), found.in_plugin))
    })
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
        ResourceKind::MeshService => "mesh service",
        ResourceKind::AuthorizationPolicy => "authorization policy",
        ResourceKind::PeerAuthentication => "peer authentication",
        other => other.singular(),
    }
}
