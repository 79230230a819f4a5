//! What clients and servers of gRPC are given by the names that they ask for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::dialect::envoy::encode::{Encoder, Gap, Reader};
use crate::model::{PluginConf, PluginOrigin, Route, RouteMatch, Scheme, Upstream, UpstreamRef};
use crate::snapshot::{Change, SnapshotFeed, SnapshotStore};

fn upstream(name: &str, scheme: Scheme) -> Change {
    Change::Set(Resource::Upstream(Arc::new(Upstream { scheme, retries: None, ..Upstream::new(name) })))
}

fn route(id: &str, hosts: &[&str], upstream: &str, plugins: &[(&str, Value)]) -> Change {
    let plugin = |(name, config): &(&str, Value)| PluginConf {
        name: (*name).into(),
        config: Arc::new(config.clone()),
        origin: PluginOrigin("route/r".into()),
    };
    Change::Set(Resource::Route(Route {
        id: id.into(),
        name: "".into(),
        service_id: "".into(),
        service_name: "".into(),
        matches: RouteMatch {
            uris: vec!["/story.Echo/*".into()],
            hosts: hosts.iter().map(|host| Arc::from(*host)).collect(),
            ..RouteMatch::default()
        },
        priority: 0,
        created: 1,
        plugins: plugins.iter().map(plugin).collect(),
        upstream: Some(UpstreamRef { name: upstream.into() }),
        timeouts: None,
        enable_websocket: false,
        max_duration: None,
    }))
}

struct World {
    store: SnapshotStore,
    encoder: Encoder,
    position: u64,
    given: SnapshotStore,
}

impl World {
    fn new() -> World {
        World {
            store: SnapshotStore::new(),
            encoder: Encoder::new(Reader::Grpc, Gap::NotFound),
            position: 0,
            given: SnapshotStore::new(),
        }
    }

    fn set(&mut self, changes: Vec<Change>) -> Vec<(Kind, Arc<str>)> {
        self.store.apply(changes);
        let view = self.store.view();
        let changes = self.store.changed_between(self.position, view.position());
        self.position = view.position();
        let before = self.given.position();
        self.given.apply_encoded(self.encoder.apply(&view, &changes));
        self.given.changed_between(before, self.given.position()).names.unwrap()
    }

    /// The table that a client is led to which asks for a service.
    fn led(&self, name: &str) -> Option<String> {
        let found = listener(&self.given, name, &NodeScope::default())?;
        let found = wire::Listener::decode(found.body.clone()).unwrap();
        assert_eq!(found.name, name);
        let manager = found.api_listener.unwrap().api_listener.unwrap();
        let manager = manager::HttpConnectionManager::decode(&*manager.value).unwrap();
        match manager.route_specifier.unwrap() {
            RouteSpecifier::Rds(rds) => Some(rds.route_config_name),
            RouteSpecifier::RouteConfig(_) => panic!("by name"),
        }
    }

    /// The ids of the routes of a table.
    fn routes(&self, table: &str) -> Vec<String> {
        let found = self.given.get(Kind::Route, table, &NodeScope::default()).unwrap();
        let found = routes::RouteConfiguration::decode(found.body.clone()).unwrap();
        assert_eq!((found.name.as_str(), &found.virtual_hosts[0].domains), (table, &vec!["*".to_owned()]));
        found.virtual_hosts[0].routes.iter().map(|route| route.name.clone()).collect()
    }
}

#[test]
fn the_closest_host_stands_for_a_service() {
    let mut world = World::new();
    world.set(vec![
        upstream("u", Scheme::Grpc),
        route("exact", &["shop.example.com"], "u", &[]),
        route("wide", &["*.example.com"], "u", &[]),
    ]);
    assert_eq!(world.led("shop.example.com").unwrap(), "hosts/shop.example.com");
    assert_eq!(world.led("Shop.example.com:50051").unwrap(), "hosts/shop.example.com");
    assert_eq!(world.led("a.b.example.com").unwrap(), "hosts/*.example.com");
    assert_eq!(world.led("example.com"), None);
    assert_eq!(world.routes("hosts/shop.example.com"), ["exact", "wide"]);
    world.set(vec![route("any", &[], "u", &[])]);
    assert_eq!(world.led("example.com").unwrap(), "hosts/*");
    assert_eq!(world.routes("hosts/*.example.com"), ["wide", "any"]);
    let gone = world.set(vec![Change::Remove(Kind::Route, "exact".into())]);
    let expected = [Kind::Route, Kind::Listener].map(|kind| (kind, Arc::from("hosts/shop.example.com")));
    assert_eq!(gone, expected, "and no other table");
    assert_eq!(world.led("shop.example.com").unwrap(), "hosts/*.example.com");
}

#[test]
fn a_change_of_a_route_is_that_of_its_hosts_alone() {
    let mut world = World::new();
    world.set(vec![
        upstream("u", Scheme::Grpc),
        upstream("v", Scheme::Grpc),
        route("a", &["a"], "u", &[]),
        route("b", &["b"], "u", &[]),
    ]);
    assert_eq!(world.set(vec![route("a", &["a"], "v", &[])]), [(Kind::Route, "hosts/a".into())]);
}

#[test]
fn what_grpc_lacks_is_withheld_and_what_is_no_grpc_is_left_out() {
    let mut world = World::new();
    world.set(vec![
        upstream("u", Scheme::Grpc),
        upstream("web", Scheme::Http),
        route("page", &["h"], "web", &[("key-auth", json!({}))]),
        route("keyed", &["h"], "u", &[("key-auth", json!({}))]),
        route("edited", &["h"], "u", &[("proxy-rewrite", json!({ "headers": { "x-a": "1" } }))]),
        route("answered", &["h"], "u", &[("fault-injection", json!({ "abort": { "http_status": 503 } }))]),
        route("delayed", &["h"], "u", &[("fault-injection", json!({ "delay": { "duration": 1 } })), ("cors", json!({}))]),
        route("guarded", &["h"], "u", &[("ip-restriction", json!({ "whitelist": ["10.0.0.0/8"] }))]),
    ]);
    let withheld = world.encoder.withheld();
    let names: Vec<&str> = withheld.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["answered", "edited", "guarded", "keyed"], "{withheld:?}");
    assert_eq!(
        world.routes("hosts/h"),
        ["answered", "delayed", "edited", "guarded", "keyed"],
        "calls to those that are withheld fail there"
    );
}

#[test]
fn calls_are_tried_again_by_the_client_itself() {
    let mut world = World::new();
    let retry = |id: &str, methods: Value, more: Value| {
        let mut config = json!({ "attempts": 3, "methods": methods, "grpc_statuses": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"] });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        route(id, &["h"], "u", &[("retry", config)])
    };
    world.set(vec![
        upstream("u", Scheme::Grpc),
        retry("again", json!(["POST"]), json!({ "initial_interval": 0.25, "statuses": [503] })),
        retry("once", json!(["GET"]), json!({})),
        retry("unlike", json!(["POST"]), json!({ "on_network_error": false })),
        retry("aborted", json!(["POST"]), json!({ "grpc_statuses": ["ABORTED"] })),
    ]);
    let withheld = world.encoder.withheld();
    let reasons: Vec<_> = withheld.iter().map(|one| (&*one.name, one.reason.contains("UNAVAILABLE"))).collect();
    assert_eq!(reasons, [("aborted", true), ("unlike", true)], "{withheld:?}");
    let table = world.given.get(Kind::Route, "hosts/h", &NodeScope::default()).unwrap();
    let table = routes::RouteConfiguration::decode(table.body.clone()).unwrap();
    let told = |id: &str| {
        let route = table.virtual_hosts[0].routes.iter().find(|route| route.name == id).unwrap();
        let Some(routes::route::Action::Route(action)) = &route.action else { panic!("{route:?}") };
        let again = action.retry_policy.as_ref()?;
        Some((again.retry_on.clone(), again.num_retries, again.retry_back_off.unwrap().base_interval.unwrap().nanos))
    };
    assert_eq!(told("again"), Some(("unavailable,resource-exhausted".to_owned(), Some(2), 250_000_000)));
    assert_eq!(told("once"), None, "a call is a POST");
}

#[test]
fn what_a_user_wrote_in_a_pattern_stays_as_it_is() {
    let told = |pattern: &str| super::route::ascii(pattern);
    assert_eq!(told(r"(?is)\C*(?:a\\C*b)\C*").as_deref(), Some(r"(?is).*(?:a\\C*b).*"), "a backslash and then any number of C");
    assert_eq!((told(r"a\\C*|b"), told(r"(a)b")), (None, None));
}

#[test]
fn a_server_is_told_how_its_connections_begin() {
    let world = World::new();
    let told = |name: &str| {
        let found = listener(&world.given, name, &NodeScope::default())?;
        Some(wire::Listener::decode(found.body.clone()).unwrap())
    };
    let clear = told("grpc/server?xds.resource.listening_address=127.0.0.1:50051").unwrap();
    assert!(clear.default_filter_chain.unwrap().transport_socket.is_none());
    let mutual = told("grpc/server/mtls?xds.resource.listening_address=[::1]:50051").unwrap();
    assert!(mutual.default_filter_chain.unwrap().transport_socket.is_some());
    assert_eq!(mutual.address, Some(address("::1", 50051)));
    assert!(told("grpc/server?xds.resource.listening_address=somewhere").is_none());
}

proptest! {
    #[test]
    fn any_name_may_be_asked_for(name in "\\PC{0,40}") {
        let world = World::new();
        prop_assert!(listener(&world.given, &name, &NodeScope::default()).is_none());
        prop_assert!(covering(&name).ends_with(&["*".to_owned()]));
    }
}

#[test]
fn endpoints_of_a_zone_are_weighed_by_places_within_it() {
    use heddle_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;

    let endpoint = |host: &str, weight| crate::model::Endpoint {
        host: host.into(),
        port: 1,
        weight,
        zone: "a".into(),
        ..Default::default()
    };
    let told = |weights: [u32; 3]| {
        let hosts = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
        let endpoints: Vec<_> = hosts.into_iter().zip(weights).map(|(host, weight)| endpoint(host, weight)).collect();
        let endpoints = crate::model::Endpoints { upstream: "u".into(), endpoints: endpoints.into() };
        let body = assignment(&super::super::zones::ranked(Some(""), None, &endpoints), None);
        let told = ClusterLoadAssignment::decode(&*body).unwrap().endpoints;
        let part = |group: &heddle_proto::envoy::config::endpoint::v3::LocalityLbEndpoints| {
            (group.locality.as_ref().unwrap().sub_zone.clone(), group.load_balancing_weight.unwrap(), group.lb_endpoints.len())
        };
        told.iter().map(part).collect::<Vec<_>>()
    };
    assert_eq!(told([2, 2, 2]), [(String::new(), 6, 3)]);
    assert_eq!(told([9, 1, 1]), [("weight-1".to_owned(), 2, 2), ("weight-9".to_owned(), 9, 1)]);
    assert_eq!(told([9, 1, 0]), [("weight-1".to_owned(), 1, 1), ("weight-9".to_owned(), 9, 1)]);
    assert_eq!(told([0, 0, 0]), [], "nobody gets anything");
    let most = u32::MAX / 3 * 2;
    assert_eq!(
        told([most, most, most / 2]),
        [("weight-1".to_owned(), 1, 1), ("weight-2".to_owned(), 4, 2)],
        "it adds up in 32 bits"
    );
}

#[test]
fn one_name_is_looked_up_by_the_client_itself_and_several_are_withheld() {
    use heddle_proto::envoy::config::cluster::v3::Cluster;
    use heddle_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};

    let endpoint = |host: &str| crate::model::Endpoint { host: host.into(), port: 50051, weight: 1, ..Default::default() };
    let nodes = |hosts: &[&str]| {
        let endpoints = hosts.iter().map(|host| endpoint(host)).collect();
        Change::Set(Resource::Endpoints(crate::model::Endpoints { upstream: "u".into(), endpoints }))
    };
    let mut world = World::new();
    let told = |world: &World| {
        let found = world.given.get(Kind::Upstream, "u", &NodeScope::default())?;
        Some(Cluster::decode(found.body.clone()).unwrap())
    };
    world.set(vec![upstream("u", Scheme::Grpc), nodes(&["shop.internal"])]);
    let cluster = told(&world).unwrap();
    assert_eq!(cluster.cluster_discovery_type, Some(ClusterDiscoveryType::Type(DiscoveryType::LogicalDns.into())));
    let assignment = cluster.load_assignment.unwrap();
    let sizes: Vec<usize> = assignment.endpoints.iter().map(|group| group.lb_endpoints.len()).collect();
    assert_eq!((sizes, assignment.endpoints[0].priority), (vec![1], 0), "one endpoint in one place");
    world.set(vec![nodes(&["shop.internal", "spare.internal"])]);
    assert!(told(&world).is_none());
    let withheld = world.encoder.withheld();
    assert!(withheld[0].reason.contains("one name only"), "{withheld:?}");
    world.set(vec![nodes(&["10.0.0.1", "10.0.0.2"])]);
    let cluster = told(&world).unwrap();
    assert_eq!(cluster.cluster_discovery_type, Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())));
}
