//! What Envoy is given of routes, upstreams and listeners, and what is withheld.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use heddle_proto::envoy::config::route::v3 as wire;
use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::model::{PluginConf, PluginOrigin, UpstreamRef};
use crate::snapshot::{Change, SnapshotFeed, SnapshotStore};

fn route(id: &str, uri: &str, hosts: &[&str], priority: i64) -> Route {
    Route {
        id: id.into(),
        name: "".into(),
        service_id: "".into(),
        service_name: "".into(),
        matches: RouteMatch {
            uris: vec![uri.into()],
            hosts: hosts.iter().map(|host| Arc::from(*host)).collect(),
            ..RouteMatch::default()
        },
        priority,
        created: 1,
        plugins: Vec::new(),
        upstream: Some(UpstreamRef { name: "u".into() }),
        timeouts: None,
        enable_websocket: false,
    }
}

fn with(route: Route, plugin: &str, config: Value) -> Route {
    let plugin = PluginConf { name: plugin.into(), config: Arc::new(config), origin: PluginOrigin("route/r".into()) };
    Route { plugins: vec![plugin], ..route }
}

struct World {
    store: SnapshotStore,
    encoder: Encoder,
    position: u64,
    given: SnapshotStore,
}

impl World {
    fn new() -> World {
        World { store: SnapshotStore::new(), encoder: Encoder::default(), position: 0, given: SnapshotStore::new() }
    }

    /// Changes the snapshot, and what Envoys are given after it; the names of what is another one then.
    fn set(&mut self, changes: Vec<Change>) -> Vec<(Kind, Arc<str>)> {
        self.store.apply(changes);
        let view = self.store.view();
        let changes = self.store.changed_between(self.position, view.position());
        self.position = view.position();
        let before = self.given.position();
        self.given.apply_encoded(self.encoder.apply(&view, &changes));
        self.given.changed_between(before, self.given.position()).names.unwrap()
    }

    fn routes(&self) -> wire::RouteConfiguration {
        let found = self.given.get(Kind::Route, ROUTES, &NodeScope::default()).unwrap();
        wire::RouteConfiguration::decode(found.body.clone()).unwrap()
    }

    /// Hosts with the ids of their routes.
    fn order(&self) -> Vec<(String, Vec<String>)> {
        let host = |host: wire::VirtualHost| (host.name, host.routes.into_iter().map(|route| route.name).collect());
        self.routes().virtual_hosts.into_iter().map(host).collect()
    }
}

fn put(route: Route) -> Change {
    Change::Set(Resource::Route(route))
}

#[test]
fn closer_hosts_and_paths_come_first_and_wider_hosts_follow() {
    let mut world = World::new();
    world.set(vec![
        put(route("any", "/*", &[], 100)),
        put(route("wide", "/*", &["*.example.com"], 0)),
        put(route("wider", "/a/*", &["*.com"], 0)),
        put(route("low", "/a/*", &["www.example.com"], 0)),
        put(route("high", "/a/*", &["www.example.com"], 5)),
        put(route("long", "/a/b/*", &["www.example.com"], 0)),
        put(route("exact", "/a/b", &["www.example.com"], -5)),
    ]);
    let expected = [
        ("www.example.com", vec!["exact", "long", "high", "low", "wide", "wider", "any"]),
        ("*.com", vec!["wider", "any"]),
        ("*.example.com", vec!["wide", "wider", "any"]),
        ("*", vec!["any"]),
    ];
    assert_eq!(world.order(), expected.map(|(host, ids)| (host.to_owned(), ids.iter().map(|id| (*id).to_owned()).collect())));
}

#[test]
fn what_envoy_lacks_is_withheld_and_named() {
    let mut world = World::new();
    let changed =
        world.set(vec![put(route("good", "/good", &[], 0)), put(with(route("keyed", "/keyed", &[], 0), "key-auth", json!({})))]);
    assert_eq!(changed, [(Kind::Route, ROUTES.into())]);
    assert_eq!(world.order(), [("*".to_owned(), vec!["keyed".to_owned(), "good".to_owned()])]);
    let answer = world.routes().virtual_hosts.remove(0).routes.remove(0).action;
    let Some(wire::route::Action::DirectResponse(answer)) = answer else { panic!("{answer:?}") };
    assert_eq!(answer.status, 404, "so that no wider route is taken, which lacks what guards it");
    let withheld = world.encoder.withheld();
    assert_eq!(withheld.len(), 1);
    assert_eq!((withheld[0].kind, &*withheld[0].name), (Kind::Route, "keyed"));
    assert_eq!(withheld[0].reason, "plugin key-auth: Envoy has no counterpart");
    world.set(vec![put(route("keyed", "/keyed", &[], 0))]);
    assert!(world.encoder.withheld().is_empty());
    assert_eq!(world.order(), [("*".to_owned(), vec!["keyed".to_owned(), "good".to_owned()])], "the longer path first");
    let rule = PluginConf { name: "opa".into(), config: Arc::new(json!({})), origin: PluginOrigin("global_rule/1".into()) };
    world.set(vec![Change::Set(Resource::GlobalRule(crate::model::GlobalRule { id: "1".into(), plugins: vec![rule] }))]);
    assert_eq!(world.encoder.withheld().len(), 2, "it guards every route");
    let hosts = world.routes().virtual_hosts;
    let answered = |route: &wire::Route| matches!(route.action, Some(wire::route::Action::DirectResponse(_)));
    assert!(hosts.iter().all(|host| host.routes.iter().all(answered)));
}
