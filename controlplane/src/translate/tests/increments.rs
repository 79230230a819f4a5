//! Any sequence of increments gives what a whole translation gives.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::Translator;
use super::{World, catalog, key};

/// Ids and references are drawn from few names, so that they meet; some are of a provider.
fn id() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("a@file"), Just("b@file")]
}

fn reference() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), Just(json!("a")), Just(json!("b")), Just(json!("a@file"))]
}

fn upstream() -> impl Strategy<Value = Value> {
    let tls = reference().prop_map(|id| {
        if id.is_null() { json!({"client_cert": "C", "client_key": "K"}) } else { json!({"client_cert_id": id, "ca": id}) }
    });
    (0..3u16, prop::option::of(tls)).prop_map(|(port, tls)| json!({"nodes": {(format!("h:{}", port + 1)): 1}, "tls": tls}))
}

fn plugins() -> impl Strategy<Value = Value> {
    let split = (reference(), prop::option::of(upstream())).prop_map(|(id, inline)| {
        let entry = inline.map_or_else(|| json!({"upstream_id": id}), |inline| json!({"upstream": inline}));
        json!({"traffic-split": {"rules": [{"weighted_upstreams": [entry, {"weight": 1}]}]}})
    });
    let plain = (0..3u8).prop_map(|n| json!({"cors": {"n": n}, "key-auth": {"key": n}}));
    prop_oneof![split, plain, Just(json!({}))]
}

/// The fields of a resource of this collection, out of one set of drawn parts.
fn fields(collection: &str) -> &'static [&'static str] {
    match collection {
        "routes" => &["uri", "upstream_id", "service_id", "plugin_config_id", "plugins", "upstream", "status", "name"],
        "services" => &["upstream_id", "plugins", "upstream", "name", "hosts"],
        "upstreams" => &["nodes", "name"],
        "consumers" => &["plugins", "group_id"],
        "ssls" => &["cert", "key", "client", "sni", "status"],
        "listeners" => &["address", "name"],
        "mesh_services" => &["name", "namespace", "plugins"],
        "plugin_metadata" => &["name"],
        _ => &["plugins", "name"],
    }
}

fn body() -> impl Strategy<Value = Value> {
    let references = (reference(), reference(), reference(), reference());
    (references, plugins(), prop::option::of(upstream()), 0..4u8).prop_map(
        |((upstream_id, service, config, group), plugins, inline, n)| {
            json!({
                "uri": "/", "upstream_id": upstream_id, "service_id": service, "plugin_config_id": config, "group_id": group,
                "plugins": plugins, "upstream": inline, "status": u8::from(n > 0), "name": format!("n{n}"), "hosts": ["H"],
                "nodes": {"n:1": n}, "cert": format!("C{n}"), "key": "K", "client": {"ca": format!("R{n}")}, "sni": "x",
                "address": format!("127.0.0.1:{n}"),
            })
        },
    )
}

fn path() -> impl Strategy<Value = String> {
    let kinds = prop::sample::select(vec![
        "routes",
        "services",
        "upstreams",
        "plugin_configs",
        "consumer_groups",
        "consumers",
        "global_rules",
        "ssls",
        "plugin_metadata",
        "listeners",
        "mesh_services",
    ]);
    let plain = (kinds, id()).prop_map(|(kind, id)| match (kind, id) {
        // Validation lets a name stand for one consumer only.
        ("consumers", "a@file") => "consumers/a".to_owned(),
        ("consumers", "b") => "consumers/b@file".to_owned(),
        _ => format!("{kind}/{id}"),
    });
    let credential =
        (prop::sample::select(vec!["a", "b"]), id()).prop_map(|(user, id)| format!("consumers/{user}/credentials/{id}"));
    prop_oneof![8 => plain, 1 => credential]
}

/// A resource: its path, and what it holds (nothing when it is deleted).
fn resource() -> impl Strategy<Value = (String, Option<Value>)> {
    (path(), prop::option::weighted(0.7, body())).prop_map(|(path, body)| {
        let wanted = fields(path.split('/').next().unwrap());
        let keep = |body: Value| -> Value {
            let all =
                body.as_object().unwrap().iter().filter(|(name, value)| wanted.contains(&name.as_str()) && !value.is_null());
            all.map(|(name, value)| (name.clone(), value.clone())).collect::<serde_json::Map<_, _>>().into()
        };
        (path, body.map(keep))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn increments_and_the_whole_agree(steps in prop::collection::vec(prop::collection::vec(resource(), 1..4), 1..30)) {
        let mut world = World::new();
        for step in steps {
            let keys: Vec<_> = step.iter().map(|(path, _)| key(path)).collect();
            for ((_, value), key) in step.into_iter().zip(&keys) {
                world.set(key, value);
            }
            world.apply(&keys);
            let mut whole = Translator::new(catalog());
            let count = whole.rebuild(&world.state, &world.directory).len();
            let expected: BTreeMap<_, _> = whole.resources().map(|r| ((r.kind(), r.name().clone()), r.clone())).collect();
            prop_assert_eq!(count, expected.len(), "a name has two owners");
            prop_assert_eq!(&world.held, &expected);
            prop_assert!(world.translator.rebuild(&world.state, &world.directory).is_empty());
        }
    }
}
