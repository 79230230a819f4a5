//! What a schema cannot say: fields that exclude each other, patterns, addresses, certificates, plugins. One file per subject.

mod authorization_policy;
mod listener;
mod mesh_service;
mod peer_authentication;
mod plugins;
mod route;
mod ssl;
mod upstream;

use serde_json::Value;

use super::resources::Secret;
use super::{Fault, ResourceKind, UserResource};

pub(super) use plugins::check as plugins;

/// Why fields that carry Lua are refused.
const NO_LUA: &str = "is not supported: Heddle runs no Lua; use vars for conditions and plugins for behaviour";

/// Why managers of clouds are refused.
const UNSUPPORTED_MANAGER: &str = "managers aws and gcp are not supported: keep the secrets in Vault (secrets/vault/<id>) or in files beside the agent ($secret://file/…)";

/// All faults of the meaning of a resource, its id included.
pub(super) fn check(resource: &UserResource, id: &str, faults: &mut Vec<Fault>) {
    match resource {
        UserResource::Route(route) => route::check(route, faults),
        UserResource::Service(service) => {
            if service.script.is_some() {
                faults.push(Fault::new("script", NO_LUA));
            }
            if let Some(inline) = &service.upstream {
                upstream::check(inline, "upstream.", faults);
            }
        }
        UserResource::Upstream(shared) => upstream::check(shared, "", faults),
        UserResource::Ssl(pair) => ssl::check(pair, faults),
        UserResource::Listener(socket) => listener::check(socket, faults),
        UserResource::MeshService(service) => mesh_service::check(service, id, faults),
        UserResource::AuthorizationPolicy(policy) => authorization_policy::check(policy, faults),
        UserResource::PeerAuthentication(peers) => peer_authentication::check(peers, faults),
        UserResource::Consumer(consumer) => {
            let own = id.split('@').next().unwrap_or_default();
            if consumer.username != own && consumer.username != id {
                faults.push(Fault::whole(
                    "username",
                    format!("wrong username: the consumer's id is {own}, its username is {}", consumer.username),
                ));
            }
        }
        UserResource::Credential(_)
        | UserResource::ConsumerGroup(_)
        | UserResource::PluginConfig(_)
        | UserResource::GlobalRule(_)
        | UserResource::PluginMetadata(_) => {}
        UserResource::Secret(manager) => {
            if matches!(**manager, Secret::Aws(_) | Secret::Gcp(_)) {
                faults.push(Fault::whole("", UNSUPPORTED_MANAGER));
            }
        }
    }
}

/// Fields of which exactly one, or at most one, may stand: what `allOf` says in APISIX's schemas.
pub(super) fn alternatives(kind: ResourceKind, value: &Value, faults: &mut Vec<Fault>) {
    let Some(map) = value.as_object() else { return };
    let has = |name: &str| map.contains_key(name);
    match kind {
        ResourceKind::Route => route::alternatives(&has, faults),
        ResourceKind::Ssl => ssl::alternatives(map, faults),
        ResourceKind::Upstream => upstream::alternatives(map, "", faults),
        ResourceKind::Secret if has("auth_config") && has("auth_file") => {
            faults.push(both("", "auth_config", "auth_file"));
        }
        _ => {}
    }
    if let Some(inline) = map.get("upstream").and_then(Value::as_object)
        && matches!(kind, ResourceKind::Route | ResourceKind::Service | ResourceKind::Listener)
    {
        upstream::alternatives(inline, "upstream", faults);
    }
    if kind == ResourceKind::Listener {
        for (at, route) in map.get("routes").and_then(Value::as_array).into_iter().flatten().enumerate() {
            if let Some(inline) = route.get("upstream").and_then(Value::as_object) {
                upstream::alternatives(inline, &format!("routes[{at}].upstream"), faults);
            }
        }
    }
}

const BOTH: &str = "value should match only one schema, but matches both schemas 1 and 2";
const NEITHER: &str = "value should match only one schema, but matches none";

/// Two fields of which only one may stand.
fn both(path: &str, one: &str, other: &str) -> Fault {
    Fault::new(path, format!("{BOTH}: expected only one of {one} and {other}")).literally(BOTH)
}

/// Two fields of which one must stand.
fn neither(path: &str, one: &str, other: &str) -> Fault {
    Fault::new(path, format!("{NEITHER}: expected one of {one} and {other}")).literally(NEITHER)
}
