//! References, deletions and uniqueness over whole configurations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use heddle_xds::catalog::{Catalog, ConfigFault, Descriptor, Place, PluginKind};
use serde_json::{Value, json};

use super::Rules;
use crate::model::{Key, ResourceKind};
use crate::state::{State, Stored, Validator};

struct Lenient(Vec<Descriptor>);

impl Catalog for Lenient {
    fn descriptors(&self) -> &[Descriptor] {
        &self.0
    }

    fn schema(&self, _: &str, _: Place) -> Option<Value> {
        None
    }

    fn check(&self, _: &str, _: Place, _: &Value) -> Result<(), Vec<ConfigFault>> {
        Ok(())
    }
}

fn rules() -> Rules {
    let one = |name, kind, unique| Descriptor {
        name,
        priority: 0,
        version: "0.1",
        kind,
        unique_consumer_field: unique,
        encrypt_fields: &[],
        prefer_route: false,
    };
    Rules::new(Arc::new(Lenient(vec![
        one("key-auth", PluginKind::Auth, Some("key")),
        one("traffic-split", PluginKind::Plain, None),
        one("cors", PluginKind::Plain, None),
    ])))
}

fn key(path: &str) -> Key {
    if let Some(id) = path.strip_prefix("consumers/").filter(|id| id.contains("/credentials/")) {
        return Key::new(ResourceKind::Credential, id);
    }
    let (kind, id) = path.split_once('/').unwrap();
    Key::new(ResourceKind::from_plural(kind).unwrap(), id)
}

fn state(resources: &[(&str, Value)]) -> State {
    let mut state = State::default();
    for (path, value) in resources {
        let stored = Stored { value: value.clone(), created: 1, modified: 1, expires_at_ms: None };
        state.set(&key(path), Some(Arc::new(stored)));
    }
    state
}

/// The messages of the check of `changed`.
fn check(state: &State, changed: &[&str]) -> Vec<String> {
    let keys: Vec<_> = changed.iter().map(|path| key(path)).collect();
    rules().check(state, &keys).into_iter().map(|(key, fault)| format!("{key}: {}", fault.wording())).collect()
}

fn nodes() -> Value {
    json!({"nodes": {"a:80": 1}})
}

#[test]
fn references_must_lead_somewhere() {
    let route = json!({"uri": "/", "upstream_id": 5, "service_id": "s", "plugin_config_id": "p",
        "plugins": {"traffic-split": {"rules": [{"weighted_upstreams": [{"upstream_id": "w"}]}]}}});
    let state = state(&[("routes/r", route), ("consumers/jack", json!({"username": "jack", "group_id": "g"}))]);
    assert_eq!(
        check(&state, &["routes/r", "consumers/jack"]),
        [
            "routes/r: failed to fetch upstream info by upstream id [5], response code: 404",
            "routes/r: failed to fetch service info by service id [s], response code: 404",
            "routes/r: failed to fetch plugin config info by plugin config id [p], response code: 404",
            "routes/r: failed to fetch upstream info by upstream id [w], response code: 404",
            "consumers/jack: failed to fetch consumer group info by consumer group id [g], response code: 404",
        ]
    );
}

#[test]
fn a_credential_needs_its_consumer() {
    let credential = json!({"plugins": {"key-auth": {"key": "k"}}});
    let alone = state(&[("consumers/jack/credentials/c", credential.clone())]);
    assert_eq!(check(&alone, &["consumers/jack/credentials/c"]), ["consumers/jack/credentials/c: consumer not found"]);
    let both = state(&[("consumers/jack/credentials/c@file", credential), ("consumers/jack@file", json!({"username": "jack"}))]);
    assert_eq!(check(&both, &["consumers/jack/credentials/c@file"]), [] as [&str; 0]);
}

#[test]
fn upstreams_inside_plugins_are_checked_like_others() {
    let split = |upstream: Value| json!({"uri": "/", "plugins": {"traffic-split": {"rules": [{"weighted_upstreams": [{"weight": 1}, {"upstream": upstream}]}]}}});
    let bad = state(&[("routes/r1", split(json!({"nodes": {"a:1": 1}, "type": "chash"})))]);
    let faults = check(&bad, &["routes/r1"]);
    assert!(faults.len() == 1 && faults[0].contains("err: invalid upstream: missing key"), "{faults:?}");
    let fine = state(&[("routes/r1", split(json!({"nodes": {"a:1": 1}})))]);
    assert_eq!(check(&fine, &["routes/r1"]), [] as [&str; 0]);
}

#[test]
fn deletion_is_refused_while_something_refers() {
    let split = json!({"uri": "/", "plugins": {"traffic-split": {"rules": [{"weighted_upstreams": [{"upstream_id": "u2"}]}]}}});
    let state = state(&[
        ("routes/r1", json!({"uri": "/", "upstream_id": "u1", "service_id": "s1", "plugin_config_id": "p1"})),
        ("routes/r2", split),
        ("consumers/jack", json!({"username": "jack", "group_id": "g1"})),
        ("upstreams/t", json!({"nodes": {"a": 1}, "tls": {"client_cert_id": "c1"}})),
    ]);
    let gone =
        ["upstreams/u1", "services/s1", "plugin_configs/p1", "upstreams/u2", "consumer_groups/g1", "ssls/c1", "upstreams/free"];
    assert_eq!(
        check(&state, &gone),
        [
            "upstreams/u1: can not delete this upstream, route [r1] is still using it now",
            "services/s1: can not delete this service directly, route [r1] is still using it now",
            "plugin_configs/p1: can not delete this plugin config, route [r1] is still using it now",
            "upstreams/u2: can not delete this upstream, plugin in route [r2] is still using it now",
            "consumer_groups/g1: can not delete this consumer group, consumer [jack] is still using it now",
            "ssls/c1: can not delete this ssl, upstream [t] is still using it now",
        ]
    );
}

#[test]
fn references_of_a_provider_mean_its_own_first() {
    let route = json!({"uri": "/", "upstream_id": "u"});
    let inside = state(&[("routes/r@file", route.clone()), ("upstreams/u@file", nodes())]);
    assert_eq!(check(&inside, &["routes/r@file"]), [] as [&str; 0]);
    let store = state(&[("routes/r@file", route.clone()), ("upstreams/u", nodes())]);
    assert_eq!(check(&store, &["routes/r@file", "upstreams/u@file"]), [] as [&str; 0]);
    let none = state(&[("routes/r@file", route.clone())]);
    assert_eq!(
        check(&none, &["upstreams/u@file"]),
        ["upstreams/u@file: can not delete this upstream, route [r@file] is still using it now"]
    );
    let other = state(&[("routes/r", route), ("upstreams/u@file", nodes())]);
    assert_eq!(check(&other, &["routes/r"]), ["routes/r: failed to fetch upstream info by upstream id [u], response code: 404"]);
}

#[test]
fn a_client_certificate_must_be_one() {
    let upstream = json!({"nodes": {"a": 1}, "tls": {"client_cert_id": "c"}});
    let state = state(&[("upstreams/u", upstream), ("ssls/c", json!({"type": "server"}))]);
    assert_eq!(
        check(&state, &["upstreams/u"]),
        ["upstreams/u: failed to fetch ssl info by ssl id [c], wrong ssl type: expected client"]
    );
}

#[test]
fn keys_of_consumers_are_unique() {
    let keyed = |name: &str, key: &str| json!({"username": name, "plugins": {"key-auth": {"key": key}}});
    let state = state(&[
        ("consumers/jack", keyed("jack", "one")),
        ("consumers/rose", keyed("rose", "two")),
        ("consumers/env1", keyed("env1", "$env://K")),
        ("consumers/env2", keyed("env2", "$env://K")),
        ("consumers/rose/credentials/c", json!({"plugins": {"key-auth": {"key": "one"}}})),
    ]);
    assert_eq!(check(&state, &["consumers/rose", "consumers/env1"]), [] as [&str; 0]);
    assert_eq!(
        check(&state, &["consumers/jack"]),
        ["consumers/jack: duplicate key of plugin key-auth found with consumer: rose"]
    );
    assert_eq!(
        check(&state, &["consumers/rose/credentials/c"]),
        ["consumers/rose/credentials/c: duplicate key of plugin key-auth found with consumer: jack"]
    );
}

#[test]
fn global_plugins_and_addresses_are_unique() {
    let rule = json!({"plugins": {"cors": {}}});
    let state = state(&[
        ("global_rules/1", rule.clone()),
        ("global_rules/2", rule),
        ("listeners/a", json!({"address": "0.0.0.0:80"})),
        ("listeners/b", json!({"address": "0.0.0.0:80", "nodes": ["n"]})),
        ("listeners/mapped", json!({"address": "[::ffff:10.0.0.1]:81"})),
        ("listeners/plain", json!({"address": "10.0.0.1:81"})),
        ("listeners/link", json!({"address": "[fe80::1%2]:81"})),
        ("listeners/other-link", json!({"address": "[fe80::1%3]:81"})),
    ]);
    assert_eq!(check(&state, &["listeners/plain"]), ["listeners/plain: address 10.0.0.1:81 is taken by listener [mapped]"]);
    assert!(check(&state, &["listeners/link"]).is_empty(), "each link has its own");
    assert_eq!(check(&state, &["global_rules/2"]), ["global_rules/2: plugin 'cors' already exists in global rule with id '1'"]);
    assert_eq!(check(&state, &["listeners/b"]), ["listeners/b: address 0.0.0.0:80 is taken by listener [a]"]);
}

#[test]
fn a_service_of_the_mesh_has_one_owner() {
    let state = state(&[
        ("mesh_services/web", json!({})),
        ("mesh_services/web@file", json!({})),
        ("mesh_services/other", json!({"name": "web", "namespace": "shop", "addresses": ["10.96.0.1", "fd00::1"]})),
        ("mesh_services/fourth", json!({"addresses": ["::ffff:10.96.0.9"]})),
        ("mesh_services/fifth", json!({"addresses": ["10.96.0.9"]})),
        ("mesh_services/third", json!({"addresses": ["FD00:0::1"]})),
        ("peer_authentications/all", json!({"mode": "permissive"})),
        ("peer_authentications/web", json!({"service": "web", "mode": "strict"})),
        ("peer_authentications/shop", json!({"namespace": "shop", "mode": "strict"})),
        ("peer_authentications/web@file", json!({"namespace": "default", "service": "web", "ports": {"80": "disable"}})),
    ]);
    assert_eq!(
        check(&state, &["mesh_services/web@file", "mesh_services/other"]),
        [
            "mesh_services/web@file: mesh service [web] speaks of default/web already; change that one, or name another service",
            "mesh_services/other: fd00::1 is an address of mesh service [third] already"
        ]
    );
    assert_eq!(
        check(&state, &["mesh_services/third"]),
        ["mesh_services/third: fd00::1 is an address of mesh service [other] already"]
    );
    assert_eq!(
        check(&state, &["mesh_services/fourth"]),
        ["mesh_services/fourth: 10.96.0.9 is an address of mesh service [fifth] already"],
        "however it is written"
    );
    let peers = ["all", "shop", "web@file"].map(|id| format!("peer_authentications/{id}"));
    assert_eq!(
        check(&state, &peers.each_ref().map(String::as_str)),
        [
            "peer_authentications/web@file: peer authentication [web] speaks of default/web already; change that one, or name another service"
        ]
    );
}

#[test]
fn a_name_stands_for_one_consumer_over_all_providers() {
    let jack = || json!({"username": "jack"});
    let state = state(&[
        ("consumers/jack", jack()),
        ("consumers/jack@file", jack()),
        ("consumers/jill@file", json!({"username": "jill"})),
    ]);
    assert_eq!(
        check(&state, &["consumers/jack@file", "consumers/jill@file"]),
        ["consumers/jack@file: consumer [jack] has this name already; remove that one first, or choose another name"]
    );
}
