//! What Envoy is given of routes, upstreams and listeners, and what is withheld.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use heddle_proto::envoy::config::cluster::v3 as cluster;
use heddle_proto::envoy::config::core::v3::health_check::{HealthChecker, HttpHealthCheck};
use heddle_proto::envoy::config::listener::v3 as listener_wire;
use heddle_proto::envoy::config::route::v3 as wire;
use heddle_proto::envoy::extensions::filters::network::http_connection_manager::v3 as manager;
use heddle_proto::envoy::r#type::v3::Int64Range;
use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::model::{
    ActiveCheck, CheckKind, CircuitBreakers, HealthChecks, PassiveCheck, PluginConf, PluginOrigin, Thresholds, UpstreamRef,
};
use crate::snapshot::{Change, NodeScope, SnapshotFeed, SnapshotStore};

pub(super) fn route(id: &str, uri: &str, hosts: &[&str], priority: i64) -> Route {
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
        max_duration: None,
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
fn the_table_says_which_routes_it_changed_by() {
    let mut world = World::new();
    let version = |world: &World| {
        let table = world.given.get(Kind::Route, ROUTES, &NodeScope::default()).unwrap();
        (table.version.clone(), table.history.clone().unwrap())
    };
    world.set(vec![put(route("a", "/a", &[], 0)), put(route("b", "/b", &[], 0))]);
    let (first, _) = version(&world);
    world.set(vec![put(route("a", "/a2", &[], 0))]);
    world.set(vec![Change::Remove(Kind::Route, "b".into()), put(route("c", "/c", &[], 0))]);
    let (last, history) = version(&world);
    let names: Vec<Arc<str>> = history.between(&first, &last).into_iter().collect();
    assert_eq!(names, ["a".into(), "b".into(), "c".into()]);
    world.set(vec![put(route("c", "/c2", &[], 0))]);
    let (newest, history) = version(&world);
    assert_eq!(history.between(&last, &newest).into_iter().collect::<Vec<_>>(), ["c".into()]);
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
fn what_metadata_says_of_plugins_is_translated_or_named_and_followed() {
    let mut world = World::new();
    let says = |plugin: &str, config: Value| {
        let metadata = crate::model::PluginMetadata { plugin: plugin.into(), config: Arc::new(config) };
        Change::Set(Resource::PluginMetadata(metadata))
    };
    let limit = json!({ "count": 2, "time_window": 60 });
    let quiet = json!({ "count": 2, "time_window": 60, "show_limit_quota_header": false });
    world.set(vec![
        put(with(route("secure", "/secure", &[], 0), "redirect", json!({ "http_to_https": true }))),
        put(with(route("told", "/told", &[], 0), "limit-count", limit)),
        put(with(route("quiet", "/quiet", &[], 0), "limit-count", quiet)),
    ]);
    let ports = |world: &World| {
        let host = world.routes().virtual_hosts.remove(0);
        let port = |route: wire::Route| match route.action {
            Some(wire::route::Action::Redirect(redirect)) => Some(redirect.port_redirect),
            _ => None,
        };
        host.routes.into_iter().filter_map(port).collect::<Vec<_>>()
    };
    let withheld = |world: &World| {
        world.encoder.withheld().into_iter().map(|one| format!("{}: {}", one.name, one.reason)).collect::<Vec<_>>()
    };
    assert_eq!(
        (ports(&world), withheld(&world)),
        (vec![443, 443, 0, 0], vec![]),
        "where the client named a port, another one is said"
    );
    world
        .set(vec![says("redirect", json!({ "https_port": 9443 })), says("limit-count", json!({ "limit_header": "X-My-Limit" }))]);
    assert_eq!(ports(&world), [9443, 9443]);
    assert_eq!(withheld(&world), ["told: plugin limit-count: plugin_metadata of limit-count is not translated for Envoys"]);
    world.set(vec![
        says("redirect", json!({ "https_port": "$secret://a/b/c" })),
        says("limit-count", json!({ "limit_header": "X-RateLimit-Limit" })),
    ]);
    let reason = "secure: plugin redirect: https_port of plugin_metadata: Envoy needs a number, found \"$secret://a/b/c\"";
    assert_eq!(withheld(&world), [reason]);
    world.set(vec![
        Change::Remove(Kind::PluginMetadata, "redirect".into()),
        Change::Remove(Kind::PluginMetadata, "limit-count".into()),
    ]);
    assert_eq!((ports(&world), withheld(&world)), (vec![443, 443, 0, 0], vec![]));
}

#[test]
fn what_envoy_lacks_is_withheld_and_named() {
    let mut world = World::new();
    let changed =
        world.set(vec![put(route("good", "/good", &[], 0)), put(with(route("keyed", "/keyed", &[], 0), "hmac-auth", json!({})))]);
    assert_eq!(changed, [(Kind::Route, ROUTES.into())]);
    assert_eq!(world.order(), [("*".to_owned(), vec!["keyed".to_owned(), "good".to_owned()])]);
    let answer = world.routes().virtual_hosts.remove(0).routes.remove(0).action;
    let Some(wire::route::Action::DirectResponse(answer)) = answer else { panic!("{answer:?}") };
    assert_eq!(answer.status, 404, "so that no wider route is taken, which lacks what guards it");
    let withheld = world.encoder.withheld();
    assert_eq!(withheld.len(), 1);
    assert_eq!((withheld[0].kind, &*withheld[0].name), (Kind::Route, "keyed"));
    assert_eq!(withheld[0].reason, "plugin hmac-auth: Envoy has no counterpart");
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

#[test]
fn hosts_are_the_same_in_any_case_and_with_the_dot_of_the_root() {
    let mut world = World::new();
    world.set(vec![put(route("a", "/a", &["G.Example."], 0)), put(route("b", "/b", &["g.example"], 0))]);
    assert_eq!(world.order(), [("g.example".to_owned(), vec!["a".to_owned(), "b".to_owned()])]);
    let listener = crate::model::Listener::new("edge", "127.0.0.1:1".parse().unwrap());
    for (reader, strips) in [(Reader::Envoy, true), (Reader::Agent, false)] {
        let body = listener::encode((reader, &listener), &[], &plugins::Filters::new(), &|_| Ok(None)).unwrap();
        let wire = listener_wire::Listener::decode(body).unwrap();
        let config = wire.filter_chains[0].filters[0].config_type.clone().unwrap();
        let listener_wire::filter::ConfigType::TypedConfig(config) = config else { panic!("{config:?}") };
        let manager = manager::HttpConnectionManager::decode(&*config.value).unwrap();
        assert_eq!(manager.strip_trailing_host_dot, strips, "our agents look for no dot");
    }
}

#[test]
fn a_route_is_served_while_those_whom_it_asks_are() {
    let mut world = World::new();
    let asks = json!({ "protocol": "grpc", "upstream_id": "judge", "failure_mode_allow": true });
    world.set(vec![put(with(route("asking", "/a", &[], 0), "ext-authz", asks))]);
    let reason = |world: &World| world.encoder.withheld().into_iter().map(|one| one.reason).collect::<Vec<_>>().join("; ");
    assert_eq!(reason(&world), "plugin ext-authz: upstream judge is none of those that it is given");
    let judge = Upstream { scheme: crate::model::Scheme::Grpc, ..Upstream::new("judge") };
    let upstream = |upstream: &Upstream| Change::Set(Resource::Upstream(Arc::new(upstream.clone())));
    world.set(vec![upstream(&judge)]);
    assert_eq!(reason(&world), "");
    let peer = crate::model::MeshPeer { identities: vec!["spiffe://a/judge".into()], port: None };
    world.set(vec![upstream(&Upstream { mesh: Some(peer), ..judge.clone() })]);
    assert!(reason(&world).contains("asks upstream judge, which is withheld: leads into the mesh"), "{}", reason(&world));
    world.set(vec![upstream(&judge)]);
    assert_eq!(reason(&world), "");
    world.set(vec![Change::Remove(Kind::Upstream, "judge".into())]);
    assert_eq!(
        reason(&world),
        "plugin ext-authz: upstream judge is none of those that it is given",
        "who passes without an answer would not be asked"
    );
}

fn consumer(name: &str, plugins: Vec<PluginConf>, credentials: &[(&str, Value)]) -> Change {
    let credential = |(plugin, config): &(&str, Value)| crate::model::Credential {
        id: "".into(),
        plugin: (*plugin).into(),
        config: Arc::new(config.clone()),
    };
    Change::Set(Resource::Consumer(Consumer {
        username: name.into(),
        group_id: "".into(),
        credentials: credentials.iter().map(credential).collect(),
        plugins,
        labels: [].into(),
    }))
}

#[test]
fn routes_that_ask_who_clients_are_follow_consumers() {
    let mut world = World::new();
    world.set(vec![
        put(with(route("keyed", "/keyed", &[], 0), "key-auth", json!({}))),
        put(with(route("signed", "/signed", &[], 0), "jwt-auth", json!({}))),
        put(route("open", "/open", &[], 0)),
    ]);
    let reasons = |world: &World| world.encoder.withheld().into_iter().map(|one| one.reason).collect::<Vec<_>>();
    assert_eq!(reasons(&world), ["plugin jwt-auth: no consumer has tokens yet"]);
    let jack = [("key-auth", json!({ "key": "a" })), ("jwt-auth", json!({ "key": "b", "secret": "c" }))];
    world.set(vec![consumer("jack", Vec::new(), &jack)]);
    assert!(reasons(&world).is_empty(), "{:?}", reasons(&world));
    let filters = |world: &World| {
        let routes = world.routes().virtual_hosts.remove(0).routes;
        routes.into_iter().map(|route| (route.name, route.typed_per_filter_config.len())).collect::<Vec<_>>()
    };
    let told = |name: &str, filters| (name.to_owned(), filters);
    assert_eq!(filters(&world), [told("signed", 3), told("keyed", 2), told("open", 0)], "what is claimed, who it is, who may");
    let slow =
        PluginConf { name: "limit-count".into(), config: Arc::new(json!({})), origin: PluginOrigin("consumer/jack".into()) };
    world.set(vec![consumer("jack", vec![slow], &jack)]);
    let lacks = "consumer jack: plugins of its own has no counterpart in Envoy";
    assert_eq!(reasons(&world), [format!("plugin key-auth: {lacks}"), format!("plugin jwt-auth: {lacks}")]);
    world.set(vec![Change::Remove(Kind::Consumer, "jack".into())]);
    assert_eq!(reasons(&world).len(), 1, "whoever has no key is nobody");
}

#[test]
fn a_ring_is_as_large_as_that_of_our_agents_over_the_same_endpoints() {
    use heddle_proto::envoy::config::cluster::v3 as cluster;
    let mut world = World::new();
    let upstream = Upstream {
        balancer: crate::model::Balancer::ConsistentHash(crate::model::HashOn::Header("x".into()), crate::model::HashTable::RING),
        ..Upstream::new("u")
    };
    let endpoints = |weights: &[u32]| {
        let endpoint =
            |weight: &u32| crate::model::Endpoint { host: "10.0.0.1".into(), port: 1, weight: *weight, ..Default::default() };
        Change::Set(Resource::Endpoints(Endpoints { upstream: "u".into(), endpoints: weights.iter().map(endpoint).collect() }))
    };
    let least = |world: &World| {
        let found = world.given.get(Kind::Upstream, "u", &NodeScope::default()).unwrap();
        match cluster::Cluster::decode(found.body.clone()).unwrap().lb_config {
            Some(cluster::cluster::LbConfig::RingHashLbConfig(ring)) => ring.minimum_ring_size.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    world.set(vec![Change::Set(Resource::Upstream(upstream.into())), endpoints(&[10, 20, 0])]);
    assert_eq!(least(&world), 3 * 128, "so many for each unit of weight");
    world.set(vec![endpoints(&[10, 20, 30])]);
    assert_eq!(least(&world), 6 * 128, "the cluster follows its endpoints");
    world.set(vec![endpoints(&[10_007, 1])]);
    assert_eq!(least(&world), 65_536);
}

#[test]
fn listeners_for_bytes_follow_their_upstreams() {
    use crate::model::{Listener, ListenerProtocol, TcpRoute, TcpShare};
    let mut world = World::new();
    let route = TcpRoute {
        server_names: Vec::new(),
        for_tls: None,
        terminate: false,
        upstreams: vec![TcpShare { upstream: "u".into(), weight: 1 }],
        idle_timeout: std::time::Duration::ZERO,
        connect_attempts: None,
    };
    let listener = Listener {
        protocol: ListenerProtocol::Tcp,
        tcp: vec![Arc::new(route)],
        ..Listener::new("bytes", "127.0.0.1:1".parse().unwrap())
    };
    let upstream =
        |retries: u32| Change::Set(Resource::Upstream(Arc::new(Upstream { retries: Some(retries), ..Upstream::new("u") })));
    let bytes = (Kind::Listener, Arc::from("bytes"));
    assert!(world.set(vec![Change::Set(Resource::Listener(listener))]).contains(&bytes), "before its upstream is known");
    assert!(world.set(vec![upstream(1)]).contains(&bytes), "it says how often is tried");
    assert!(!world.set(vec![Change::Set(Resource::Upstream(Arc::new(Upstream::new("other"))))]).contains(&bytes));
    let member = crate::model::MeshPeer { identities: Vec::new(), port: None };
    world.set(vec![Change::Set(Resource::Upstream(Arc::new(Upstream { mesh: Some(member), ..Upstream::new("u") })))]);
    let withheld: Vec<_> = world.encoder.withheld().into_iter().map(|one| (one.kind, one.name)).collect();
    assert_eq!(withheld, [(Kind::Upstream, "u".into()), bytes.clone()], "nor is what leads to what is withheld");
    assert!(world.set(vec![upstream(2)]).contains(&bytes));
    assert!(world.encoder.withheld().is_empty());
}

#[test]
fn a_name_that_envoy_does_not_take_is_withheld_and_the_others_of_its_certificate_are_served() {
    use crate::model::{Listener, ListenerProtocol, TlsVersion};
    use heddle_proto::envoy::config::listener::v3 as listener;
    let mut world = World::new();
    let certificate = |names: &[&str]| {
        Change::Set(Resource::Certificate(Certificate {
            id: "c".into(),
            snis: names.iter().map(|name| Arc::from(*name)).collect(),
            listeners: Vec::new(),
            secrets: vec!["c".into()],
            client: None,
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
        }))
    };
    let edge = Listener { protocol: ListenerProtocol::Https, ..Listener::new("edge", "127.0.0.1:1".parse().unwrap()) };
    world.set(vec![Change::Set(Resource::Listener(edge)), certificate(&["*x.org", "a.org"])]);
    let found = world.given.get(Kind::Listener, "edge", &NodeScope::default()).unwrap();
    let chain = listener::Listener::decode(found.body.clone()).unwrap().filter_chains.remove(0);
    assert_eq!(chain.filter_chain_match.unwrap().server_names, ["a.org"]);
    let withheld = |world: &World| world.encoder.withheld().into_iter().map(|one| (one.kind, one.name)).collect::<Vec<_>>();
    assert_eq!(withheld(&world), [(Kind::Certificate, "c".into())]);
    world.set(vec![certificate(&["*.x.org", "a.org"])]);
    assert_eq!(withheld(&world), []);
    world.set(vec![certificate(&["*x.org"])]);
    assert_eq!(withheld(&world), [(Kind::Certificate, "c".into()), (Kind::Listener, "edge".into())]);
    world.set(vec![Change::Remove(Kind::Certificate, "c".into())]);
    assert_eq!(withheld(&world), [(Kind::Listener, "edge".into())]);
}

#[test]
fn an_endpoint_without_weight_is_not_told() {
    use heddle_proto::envoy::config::endpoint::v3 as eds;
    let mut world = World::new();
    let told = |world: &World| {
        let found = world.given.get(Kind::Endpoints, "u", &NodeScope::default()).unwrap();
        let assignment = eds::ClusterLoadAssignment::decode(found.body.clone()).unwrap();
        assignment.endpoints.iter().map(|group| group.lb_endpoints.len()).sum::<usize>()
    };
    let endpoints = |weights: &[u32]| {
        let endpoint =
            |weight: &u32| crate::model::Endpoint { host: "10.0.0.1".into(), port: 1, weight: *weight, ..Default::default() };
        Change::Set(Resource::Endpoints(Endpoints { upstream: "u".into(), endpoints: weights.iter().map(endpoint).collect() }))
    };
    world.set(vec![Change::Set(Resource::Upstream(Arc::new(Upstream::new("u")))), endpoints(&[1, 0, 5])]);
    assert_eq!(told(&world), 2, "Envoy would turn to it where nothing else stands");
    world.set(vec![endpoints(&[0, 0])]);
    assert_eq!(told(&world), 0, "and nobody answers where there is no other");
}

/// A probe as a user writes it.
fn probe(headers: &[&str]) -> ActiveCheck {
    let second = std::time::Duration::from_secs(1);
    ActiveCheck {
        kind: CheckKind::Http,
        timeout: second,
        concurrency: 1,
        host: None,
        port: None,
        method: "GET".into(),
        path: "/".into(),
        body: "".into(),
        verify_certificate: true,
        headers: headers.iter().map(|name| (Arc::from(*name), "1".into())).collect(),
        healthy_interval: second,
        unhealthy_interval: second,
        thresholds: Thresholds {
            healthy_statuses: vec![200],
            successes: 1,
            unhealthy_statuses: vec![429, 500, 501],
            http_failures: 3,
            tcp_failures: 1,
            timeouts: 1,
        },
        checkers: 0,
    }
}

/// The cluster of an upstream; nothing where it is withheld.
fn clustered(upstream: Upstream) -> Option<cluster::Cluster> {
    let mut world = World::new();
    world.set(vec![Change::Set(Resource::Upstream(Arc::new(upstream)))]);
    let found = world.given.get(Kind::Upstream, "u", &NodeScope::default())?;
    Some(cluster::Cluster::decode(found.body.clone()).unwrap())
}

fn probed(check: ActiveCheck) -> Option<HttpHealthCheck> {
    let checks = HealthChecks { active: Some(Arc::new(check)), passive: None };
    let checker = clustered(Upstream { checks, ..Upstream::new("u") })?.health_checks.remove(0).health_checker;
    let Some(HealthChecker::HttpHealthCheck(check)) = checker else { panic!("{checker:?}") };
    Some(check)
}

#[test]
fn a_probe_carries_no_fields_that_our_agents_say_themselves() {
    let check = probed(probe(&["Host", "connection", "Content-Length", "transfer-encoding", "x-probe"])).unwrap();
    let names: Vec<_> = check.request_headers_to_add.into_iter().map(|option| option.header.unwrap().key).collect();
    assert_eq!(names, ["x-probe"], "Envoy refuses a cluster with the first of them");
}

/// Envoy takes out at once whoever answers with a status that it neither expects nor may ask for again.
#[test]
fn a_status_that_is_neither_good_nor_bad_takes_no_endpoint_out() {
    let told = |ranges: Vec<Int64Range>| ranges.iter().map(|range| (range.start, range.end)).collect::<Vec<_>>();
    let check = probed(probe(&[])).unwrap();
    assert_eq!(told(check.expected_statuses), [(100, 429), (430, 500), (502, 600)]);
    assert_eq!(told(check.retriable_statuses), [(429, 430), (500, 502)], "three of these are needed");
    let mut blind = probe(&[]);
    blind.thresholds.http_failures = 0;
    let check = probed(blind).unwrap();
    assert_eq!((told(check.expected_statuses), told(check.retriable_statuses)), (vec![(100, 600)], vec![]));
    assert!(probed(ActiveCheck { method: "CONNECT".into(), ..probe(&[]) }).is_none(), "Envoy would refuse the cluster");
}

#[test]
fn connections_that_break_count_with_answers_that_are_bad() {
    let out = |http_failures: u32| {
        let thresholds = Thresholds { http_failures, tcp_failures: 2, timeouts: 7, ..probe(&[]).thresholds };
        let checks = HealthChecks { active: None, passive: Some(Arc::new(PassiveCheck { thresholds })) };
        clustered(Upstream { checks, ..Upstream::new("u") }).unwrap().outlier_detection.unwrap()
    };
    let (both, connections) = (out(5), out(0));
    assert_eq!((both.enforcing_consecutive_5xx, both.consecutive_5xx), (Some(100), Some(5)));
    assert_eq!((both.split_external_local_origin_errors, both.enforcing_consecutive_gateway_failure), (false, Some(0)));
    assert_eq!((connections.enforcing_consecutive_5xx, connections.consecutive_gateway_failure), (Some(0), Some(2)));
}

#[test]
fn tries_of_what_nobody_has_seen_are_bounded_by_a_budget_where_one_is_said() {
    let limits = |breakers: CircuitBreakers| {
        clustered(Upstream { breakers, ..Upstream::new("u") }).unwrap().circuit_breakers.unwrap().thresholds.remove(0)
    };
    let unsaid = limits(CircuitBreakers::default());
    assert_eq!((unsaid.max_retries, unsaid.retry_budget), (Some(1024), None));
    let said = limits(CircuitBreakers { retry_budget_percent: Some(30), max_pending: Some(0), ..CircuitBreakers::default() });
    assert_eq!(said.retry_budget.unwrap().budget_percent.unwrap().value, 30.0);
    assert_eq!(said.max_pending_requests, Some(1), "whoever opens a connection waits for it there");
}
