//! Provenance of a route.

use serde_json::json;

use super::super::{PluginStep, Provenance, everywhere};
use super::{World, catalog};

fn provenance(world: &World, id: &str) -> Option<Provenance> {
    super::super::provenance(&world.state, &*catalog(), id, None).unwrap()
}

/// Name and origin, then for those that do not run what is in their way.
fn told(steps: &[PluginStep]) -> Vec<String> {
    let told = |step: &PluginStep| {
        let late = if step.after_authentication { " late" } else { "" };
        let off = if step.disabled { " off" } else { "" };
        let hidden = step.hidden_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        assert_eq!(step.runs(), off.is_empty() && hidden.is_empty());
        format!("{} {}{late}{off}{hidden}", step.name, step.origin)
    };
    steps.iter().map(told).collect()
}

#[test]
fn plugins_are_listed_in_order_with_what_they_hide() {
    let world = World::of(&[
        (
            "services/s1",
            json!({"upstream": {"nodes": {"h:1": 1}}, "plugins": {"cors": {}, "limit-count": {"_meta": {"disable": true}}}}),
        ),
        ("routes/r1", json!({"uri": "/", "service_id": "s1", "plugins": {"key-auth": {}, "cors": {"_meta": {"priority": 1}}}})),
    ]);
    let told = provenance(&world, "r1").unwrap();
    let steps: Vec<_> =
        told.plugins.iter().map(|p| (&*p.name, &*p.origin, p.priority, p.disabled, p.hidden_by.as_deref())).collect();
    let expected = [
        ("key-auth", "route/r1", 2500, false, None),
        ("limit-count", "service/s1", 1002, true, None),
        ("cors", "route/r1", 1, false, None),
        ("cors", "service/s1", 4000, false, Some("route/r1")),
    ];
    assert_eq!(steps, expected);
    let upstream = told.upstream.unwrap();
    assert_eq!((&*upstream.name, upstream.exists, upstream.endpoints.len()), ("services/s1", true, 1));
    assert_eq!(upstream.reason, "written on the service, the route has none");
    assert!(told.active && &*told.service_id == "s1");
}

#[test]
fn what_is_missing_is_named() {
    let world = World::of(&[
        ("routes/a", json!({"uri": "/", "upstream_id": "u1"})),
        ("routes/b", json!({"uri": "/", "service_id": "s1", "status": 0})),
    ]);
    let told = |id| provenance(&world, id).unwrap();
    assert!(!told("a").upstream.unwrap().exists);
    let b = told("b");
    assert_eq!(b.upstream.unwrap().reason, "services/s1 does not exist, so routes/b answers 503");
    assert!(!b.active);
    assert!(provenance(&world, "c").is_none());
}

#[test]
fn what_is_told_is_what_is_translated() {
    let inline = json!({"nodes": {"h:1": 1}});
    let world = World::of(&[
        ("upstreams/u1@file", inline.clone()),
        ("services/s1@file", json!({"upstream_id": "u1", "plugins": {"cors": {}}})),
        ("routes/r1@file", json!({"uri": "/", "service_id": "s1"})),
        ("routes/r2", json!({"uri": "/", "upstream": inline})),
    ]);
    for id in ["r1@file", "r2"] {
        let told = provenance(&world, id).unwrap();
        let (route, upstream) = (world.route(id), told.upstream.unwrap());
        assert_eq!(&*upstream.name, world.upstream_of(id));
        assert_eq!(upstream.endpoints.len(), world.endpoints(&upstream.name).len());
        assert_eq!(told.plugins.len(), route.plugins.len());
    }
}

#[test]
fn global_rules_come_first_and_yield_where_they_should() {
    let world = World::of(&[
        ("global_rules/b", json!({"plugins": {"cors": {}, "limit-count": {"_meta": {"priority": 5000}}}})),
        ("global_rules/a", json!({"plugins": {"cors": {"_meta": {"disable": true}}, "prometheus": {}}})),
        ("routes/with", json!({"uri": "/with", "plugins": {"prometheus": {}, "key-auth": {"_meta": {"priority": 9000}}}})),
        ("routes/without", json!({"uri": "/without", "plugins": {"prometheus": {"_meta": {"disable": true}}}})),
    ]);
    let chain = |id| told(&provenance(&world, id).unwrap().plugins);
    let expected = [
        "limit-count global_rule/b",
        "cors global_rule/a off",
        "key-auth route/with",
        "prometheus route/with",
        "cors global_rule/b by global_rule/a",
        "prometheus global_rule/a by route/with",
    ];
    assert_eq!(chain("with"), expected);
    let expected = [
        "limit-count global_rule/b",
        "cors global_rule/a off",
        "prometheus global_rule/a",
        "prometheus route/without off",
        "cors global_rule/b by global_rule/a",
    ];
    assert_eq!(chain("without"), expected);
    let expected = [&expected[..3], &expected[4..]].concat();
    assert_eq!(told(&everywhere(&world.state, &*catalog())), expected);
}

#[test]
fn a_consumer_brings_its_plugins_over_its_groups_over_the_routes() {
    let world = World::of(&[
        ("consumer_groups/gold", json!({"plugins": {"limit-count": {}, "cors": {}, "key-auth": {}}})),
        (
            "consumers/jack",
            json!({"username": "jack", "group_id": "gold", "plugins": {"key-auth": {"key": "k"}, "limit-count": {"_meta": {"disable": true}}}}),
        ),
        ("consumers/lost", json!({"username": "lost", "group_id": "none"})),
        ("consumers/joe@file", json!({"username": "joe", "plugins": {"cors": {}}})),
        ("routes/r", json!({"uri": "/", "plugins": {"limit-count": {}, "key-auth": {}}})),
    ]);
    let ask = |consumer| super::super::provenance(&world.state, &*catalog(), "r", Some(consumer));
    let expected = [
        "cors consumer_group/gold late",
        "key-auth route/r",
        "limit-count consumer/jack late off",
        "limit-count route/r late by consumer/jack",
        "limit-count consumer_group/gold late by consumer/jack",
    ];
    assert_eq!(told(&ask("jack").unwrap().unwrap().plugins), expected);
    for name in ["joe", "joe@file"] {
        let expected = ["cors consumer/joe@file late", "key-auth route/r", "limit-count route/r"];
        assert_eq!(told(&ask(name).unwrap().unwrap().plugins), expected);
    }
    assert!(ask("nobody").unwrap_err().contains("there is no consumer `nobody`"));
    assert!(ask("lost").unwrap_err().contains("consumers/lost is not on the data plane"));
}

#[test]
fn conditions_are_told_unless_they_always_hold() {
    let filter = json!([["arg_a", "==", "1"]]);
    let plugins =
        json!({"cors": {"_meta": {"filter": filter}}, "key-auth": {"_meta": {"filter": []}}, "limit-count": {"count": 1}});
    let world = World::of(&[("routes/r", json!({"uri": "/", "plugins": plugins}))]);
    let steps = provenance(&world, "r").unwrap().plugins;
    assert_eq!(steps.iter().map(|step| step.condition.as_ref()).collect::<Vec<_>>(), [Some(&filter), None, None]);
    assert_eq!(*steps[2].config, json!({"count": 1}));
}
