//! Provenance of a route.

use serde_json::json;

use super::super::provenance;
use super::{World, catalog};

#[test]
fn plugins_are_listed_in_order_with_what_they_hide() {
    let world = World::of(&[
        (
            "services/s1",
            json!({"upstream": {"nodes": {"h:1": 1}}, "plugins": {"cors": {}, "limit-count": {"_meta": {"disable": true}}}}),
        ),
        ("routes/r1", json!({"uri": "/", "service_id": "s1", "plugins": {"key-auth": {}, "cors": {"_meta": {"priority": 1}}}})),
    ]);
    let told = provenance(&world.state, &*catalog(), "r1").unwrap();
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
    let told = |id| provenance(&world.state, &*catalog(), id).unwrap();
    assert!(!told("a").upstream.unwrap().exists);
    let b = told("b");
    assert_eq!(b.upstream.unwrap().reason, "services/s1 does not exist, so routes/b answers 503");
    assert!(!b.active);
    assert!(provenance(&world.state, &*catalog(), "c").is_none());
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
        let told = provenance(&world.state, &*catalog(), id).unwrap();
        let (route, upstream) = (world.route(id), told.upstream.unwrap());
        assert_eq!(&*upstream.name, world.upstream_of(id));
        assert_eq!(upstream.endpoints.len(), world.endpoints(&upstream.name).len());
        assert_eq!(told.plugins.len(), route.plugins.len());
    }
}
