//! Everything that Envoys are given, read back by who reads it in agents of ours: what these do not take is in one short list, with its reason.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::{Encoder, Gap, Reader};
use crate::dialect::envoy::decode::piece::{Assignment, Cluster, Override, Probed};
use crate::dialect::envoy::decode::{Piece, Unread};
use crate::dialect::envoy::kind::EnvoyKind;
use crate::model::{
    ActiveCheck, Balancer, Certificate, CheckKind, CircuitBreakers, ClientValidation, Consumer, Credential, Discovery, Endpoint,
    Endpoints, HashOn, HashTable, HealthChecks, KeepalivePool, Kind, Listener, ListenerProtocol, PassHost, PassiveCheck,
    PluginConf, PluginOrigin, ProxyProtocol, Resource, RingSize, Route, RouteMatch, Scheme, Secret, SecretBody, TcpRoute,
    TcpShare, Thresholds, Timeouts, TlsVersion, Upstream, UpstreamRef, UpstreamTls, ZoneMode, ZonePolicy,
};
use crate::snapshot::{Change, Changes, SnapshotFeed, SnapshotSource, SnapshotStore};

const SECOND: Duration = Duration::from_secs(1);

/// Plugins and routes that Envoys are given and agents that ask for Envoy's types are not, each with the field at which they would refuse it.
const WITHHELD: [(&str, &str); 7] = [
    // Who it is says a judge of Envoy's, by what it noted of the token.
    ("jwt-auth", "request_headers_to_add[0].header.value"),
    ("jwt-auth by jwks_url", "request_headers_to_add[0].header.value"),
    // Keys of consumers stand in the route there; our agents ask consumers.
    ("key-auth", "typed_per_filter_config[envoy.filters.http.api_key_auth]"),
    // Whom to ask is said by the route, and a script makes the question.
    ("forward-auth", "typed_per_filter_config["),
    ("forward-auth with a status", "typed_per_filter_config["),
    // What Envoy says itself before it asks, and our agents do not.
    ("numbered", "match.headers[0].name"),
    ("internal", "match.headers[0].name"),
];

fn thresholds() -> Thresholds {
    Thresholds {
        healthy_statuses: vec![200, 302],
        successes: 2,
        unhealthy_statuses: vec![500, 503],
        http_failures: 3,
        tcp_failures: 4,
        timeouts: 5,
    }
}

fn check(kind: CheckKind, host: Option<&str>) -> HealthChecks {
    let active = ActiveCheck {
        kind,
        timeout: SECOND,
        concurrency: 10,
        host: host.map(Arc::from),
        port: Some(81),
        method: "HEAD".into(),
        path: "/up".into(),
        body: "".into(),
        verify_certificate: true,
        headers: vec![("x-probe".into(), "1".into())],
        healthy_interval: SECOND * 3,
        unhealthy_interval: SECOND * 2,
        thresholds: thresholds(),
        checkers: 0,
    };
    HealthChecks { active: Some(Arc::new(active)), passive: Some(Arc::new(PassiveCheck { thresholds: thresholds() })) }
}

fn upstreams() -> Vec<Upstream> {
    let hashed = |on: HashOn, table: HashTable| Balancer::ConsistentHash(on, table);
    let balancers = [
        Balancer::RoundRobin,
        Balancer::LeastConn,
        Balancer::Ewma,
        hashed(HashOn::Header("X-User".into()), HashTable::RING),
        hashed(HashOn::Cookie("sid".into()), HashTable::Ring(RingSize::Of { least: 256, most: 4_096 })),
        hashed(HashOn::Var("arg_user".into()), HashTable::MAGLEV),
        hashed(HashOn::Var("remote_addr".into()), HashTable::RING),
        hashed(HashOn::Var("host".into()), HashTable::RING),
        hashed(HashOn::Var("request_uri".into()), HashTable::RING),
    ];
    let mut all: Vec<Upstream> = (0..)
        .zip(balancers)
        .map(|(number, balancer)| Upstream { balancer, ..Upstream::new(format!("balanced-{number}")) })
        .collect();
    let tls =
        UpstreamTls { verify: true, ca: Some("roots".into()), client_cert: Some("pair".into()), sni: Some("u.example".into()) };
    let plain = UpstreamTls::default();
    for (name, scheme, tls) in [
        ("https", Scheme::Https, plain.clone()),
        ("https-verified", Scheme::Https, UpstreamTls { verify: true, ..plain.clone() }),
        ("https-named", Scheme::Https, tls.clone()),
        ("https-rooted", Scheme::Https, UpstreamTls { sni: None, ..tls.clone() }),
        ("grpc", Scheme::Grpc, plain),
        ("grpcs", Scheme::Grpcs, tls),
    ] {
        all.push(Upstream { scheme, tls, ..Upstream::new(name) });
    }
    for (name, scheme, checks) in [
        ("probed", Scheme::Http, check(CheckKind::Http, None)),
        ("probed-as", Scheme::Http, check(CheckKind::Http, Some("up.example"))),
        ("probed-tls", Scheme::Https, check(CheckKind::Https, None)),
        ("probed-tcp", Scheme::Http, check(CheckKind::Tcp, None)),
    ] {
        all.push(Upstream { scheme, checks, ..Upstream::new(name) });
    }
    let breakers =
        CircuitBreakers { max_connections: Some(7), max_pending: Some(8), max_requests: Some(9), retry_budget_percent: Some(30) };
    let keepalive = KeepalivePool { size: 5, idle_timeout: SECOND * 7, requests: 11, max_age: SECOND * 60 };
    all.extend([
        Upstream { breakers, keepalive, ..Upstream::new("bounded") },
        Upstream {
            breakers: CircuitBreakers { max_connections: Some(3), ..CircuitBreakers::default() },
            ..Upstream::new("connected")
        },
        Upstream { pass_host: PassHost::Node, ..Upstream::new("named") },
        Upstream { pass_host: PassHost::Rewrite("in.example".into()), ..Upstream::new("called") },
        Upstream {
            retries: None,
            timeouts: Timeouts { connect: SECOND * 2, send: SECOND * 4, read: SECOND * 5 },
            ..Upstream::new("tried")
        },
        Upstream { retries: Some(4), slow_start: SECOND * 30, panic_threshold: Some(40), ..Upstream::new("warmed") },
        Upstream { discovery: Some(Discovery::Dns("a.example:81".into())), ..Upstream::new("looked-up") },
        Upstream {
            locality: ZonePolicy { mode: ZoneMode::Strict, failover: vec!["b".into()], overprovisioning: 200, spread: None },
            ..Upstream::new("strict")
        },
        Upstream { locality: ZonePolicy { mode: ZoneMode::Off, ..ZonePolicy::default() }, ..Upstream::new("anywhere") },
    ]);
    all
}

/// Endpoints in two zones and two priorities, with and without a weight; names where the upstream is asked of DNS in part.
fn endpoints(upstream: &Upstream) -> Endpoints {
    let endpoint = |host: &str, port: u16, zone: &str, (weight, priority): (u32, i32)| Endpoint {
        host: host.into(),
        port,
        zone: zone.into(),
        weight,
        priority,
        labels: [("version".into(), "v1".into())].into(),
        ..Endpoint::default()
    };
    let mut all = vec![
        endpoint("10.0.0.1", 80, "a", (3, 0)),
        endpoint("10.0.0.2", 8080, "b", (1, 0)),
        endpoint("::1", 443, "b", (2, -1)),
        endpoint("10.0.0.3", 8080, "a", (0, 0)),
    ];
    if &*upstream.name == "anywhere" {
        all.push(endpoint("by.example", 81, "a", (1, 0)));
    }
    Endpoints { upstream: upstream.name.clone(), endpoints: all.into() }
}

/// Configurations of plugins that Envoys are given, each by a name.
fn plugins() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("cors", "cors", json!({"allow_origins": "https://a.example", "allow_credential": true, "max_age": 60})),
        ("cors for all", "cors", json!({})),
        ("cors by patterns", "cors", json!({"allow_origins_by_regex": ["\\.b\\.example$"], "expose_headers": "x-a"})),
        ("csrf", "csrf", json!({"by_origin": {"additional": ["^app\\."]}})),
        ("grpc-web", "grpc-web", json!({"transparent": true})),
        ("delay", "fault-injection", json!({"delay": {"duration": 0.5, "percentage": 20}})),
        ("abort", "fault-injection", json!({"abort": {"http_status": 503, "body": "no"}})),
        ("abort of a part", "fault-injection", json!({"abort": {"http_status": 503, "percentage": 20}})),
        ("redirect", "redirect", json!({"uri": "/new", "ret_code": 301})),
        ("to https", "redirect", json!({"http_to_https": true})),
        ("addresses", "ip-restriction", json!({"whitelist": ["10.0.0.0/8", "::1"]})),
        ("other addresses", "ip-restriction", json!({"blacklist": ["10.0.0.1"]})),
        ("programs", "ua-restriction", json!({"allowlist": ["curl"], "bypass_missing": true})),
        ("other programs", "ua-restriction", json!({"denylist": ["curl"]})),
        ("pages", "referer-restriction", json!({"whitelist": ["a.example", "*.b.example"]})),
        ("other pages", "referer-restriction", json!({"blacklist": ["a.example"], "bypass_missing": true})),
        ("count by client", "limit-count", json!({"count": 5, "time_window": 60, "rejected_code": 429})),
        ("count in silence", "limit-count", json!({"count": 5, "time_window": 60, "show_limit_quota_header": false})),
        ("count together", "limit-count", json!({"count": 5, "time_window": 60, "key": "x", "key_type": "constant"})),
        ("pace", "limit-req", json!({"rate": 0.5, "burst": 3, "key": "remote_addr", "nodelay": true})),
        ("average", "limit-req", json!({"average": 60, "period": 60, "burst": 2})),
        ("size", "client-control", json!({"max_body_size": 1000})),
        ("held", "buffering", json!({"max_request_body_bytes": 1000, "response": false})),
        ("gzip", "gzip", json!({"types": ["text/css"], "min_length": 100, "comp_level": 3})),
        ("brotli", "brotli", json!({})),
        ("zstd", "zstd", json!({})),
        ("request id", "request-id", json!({})),
        (
            "fields",
            "headers",
            json!({"custom_request_headers": {"x-a": "1", "x-b": ""}, "custom_response_headers": {"x-c": "2"}}),
        ),
        (
            "rewrite",
            "proxy-rewrite",
            json!({"uri": "/in", "host": "in.example", "headers": {"set": {"x-a": "1"}, "add": {"x-b": "2"}, "remove": ["x-c"]}}),
        ),
        ("rewrite by pattern", "proxy-rewrite", json!({"regex_uri": ["^/shop/(.*)", "/$1"]})),
        ("answers", "response-rewrite", json!({"headers": {"set": {"x-a": "1"}, "remove": ["x-b"]}})),
        ("copies", "proxy-mirror", json!({"host": "http://10.0.0.9:81", "sample_ratio": 0.25})),
        (
            "tries",
            "retry",
            json!({"attempts": 3, "statuses": [503, "500-502"], "initial_interval": 0.25, "methods": ["GET", "POST"]}),
        ),
        (
            "shares",
            "traffic-split",
            json!({"rules": [
                {"match": [{"vars": [["http_x_beta", "==", "1"]]}], "weighted_upstreams": [{"upstream_id": "named", "weight": 1}]},
                {"weighted_upstreams": [{"upstream_id": "bounded", "weight": 1}, {"weight": 3}]},
            ]}),
        ),
        ("prometheus", "prometheus", json!({})),
        (
            "ext-authz",
            "ext-authz",
            json!({"protocol": "grpc", "upstream_id": "grpc", "timeout": 500, "headers_to_add": {"x-by": "100%"}, "context_extensions": {"a": "b"},
                "with_request_body": {"max_request_bytes": 9}}),
        ),
        (
            "ext-authz that says more",
            "ext-authz",
            json!({"protocol": "grpc", "upstream_id": "grpcs", "authority": "a.example", "failure_mode_allow": true, "status_on_error": 503,
                "include_peer_certificate": true, "allowed_headers": ["x-.*", "Cookie"], "disallowed_headers": ["x-b"],
                "with_request_body": {"max_request_bytes": 9, "pack_as_bytes": true}}),
        ),
        ("key-auth", "key-auth", json!({})),
        ("jwt-auth", "jwt-auth", json!({})),
        ("jwt-auth by jwks_url", "jwt-auth", json!({"jwks_url": "http://10.0.0.8/keys"})),
        ("forward-auth", "forward-auth", json!({"uri": "http://10.0.0.7/ask", "request_headers": ["cookie"]})),
        ("forward-auth with a status", "forward-auth", json!({"uri": "http://10.0.0.7/ask", "status_on_error": 503})),
    ]
}

fn route(id: &str, upstream: &str) -> Route {
    Route {
        id: id.into(),
        name: "".into(),
        service_id: "".into(),
        service_name: "".into(),
        matches: RouteMatch { uris: vec!["/*".into()], ..RouteMatch::default() },
        priority: 0,
        created: 1,
        plugins: Vec::new(),
        upstream: Some(UpstreamRef { name: upstream.into() }),
        timeouts: None,
        enable_websocket: false,
        max_duration: None,
    }
}

fn routes() -> Vec<Route> {
    let plugged = |(id, name, config): (&str, &str, Value)| {
        let plugin = PluginConf { name: name.into(), config: Arc::new(config), origin: PluginOrigin("route/r".into()) };
        Route { plugins: vec![plugin], ..route(id, "balanced-0") }
    };
    let matching = |id: &str, uris: &[&str], hosts: &[&str], methods: &[&str], vars: Value| {
        let texts = |all: &[&str]| all.iter().map(|one| Arc::from(*one)).collect::<Vec<Arc<str>>>();
        let vars = (!vars.is_null()).then(|| Arc::new(vars));
        let matches =
            RouteMatch { uris: texts(uris), hosts: texts(hosts), methods: texts(methods), remote_addrs: Vec::new(), vars };
        Route { matches, ..route(id, "balanced-0") }
    };
    let vars = json!([
        ["http_x_a", "==", "1"],
        ["http_x_b", "~=", "1"],
        ["http_x_c", "~~", "^a"],
        ["http_x_d", "~*", "^a"],
        ["http_x_e", "in", ["1", "2"]],
        ["arg_a", "==", "1"],
        ["host", "==", "a.example"],
        ["scheme", "==", "https"],
        ["request_method", "!", "==", "PUT"],
    ]);
    let mut all: Vec<Route> = plugins().into_iter().map(plugged).collect();
    all.extend(upstreams().iter().map(|upstream| route(&format!("to {}", upstream.name), &upstream.name)));
    all.extend([
        matching(
            "paths",
            &["/exact", "/below/*", "/a/:name/b", "/all/*rest"],
            &["a.example", "*.b.example"],
            &["GET"],
            Value::Null,
        ),
        matching("numbered", &["/n"], &[], &[], json!([["http_x_request_id", "~~", "^a"]])),
        matching("internal", &["/i"], &[], &[], json!([["http_x_envoy_internal", "==", "true"]])),
        matching("conditions", &["/c"], &[], &["GET", "POST"], vars),
        Route { enable_websocket: true, ..route("live", "balanced-0") },
        Route {
            timeouts: Some(Timeouts { connect: SECOND, send: SECOND * 2, read: SECOND * 3 }),
            ..route("timed", "balanced-0")
        },
    ]);
    all
}

fn listeners() -> Vec<Listener> {
    let listener = |name: &str| Listener::new(name, "127.0.0.1:9080".parse().unwrap());
    let share = |weight: u32| TcpShare { upstream: format!("balanced-{}", weight % 2).into(), weight };
    let bytes = |names: &[&str], terminate: bool, weights: &[u32]| {
        Arc::new(TcpRoute {
            server_names: names.iter().map(|name| Arc::from(*name)).collect(),
            for_tls: None,
            terminate,
            upstreams: weights.iter().map(|weight| share(*weight)).collect(),
            idle_timeout: SECOND * 90,
            connect_attempts: None,
        })
    };
    let tcp = |name: &str, tcp: Vec<Arc<TcpRoute>>| Listener { protocol: ListenerProtocol::Tcp, tcp, ..listener(name) };
    vec![
        listener("http"),
        Listener { protocol: ListenerProtocol::Https, ..listener("https") },
        Listener { proxy_protocol: ProxyProtocol::Required(Vec::new()), ..listener("behind") },
        tcp("bytes", vec![bytes(&[], false, &[1])]),
        tcp("shared-bytes", vec![bytes(&["db.example"], false, &[3, 2]), bytes(&["a.example"], true, &[1])]),
    ]
}

fn others() -> Vec<Resource> {
    let secret = |name: &str, body: SecretBody| Resource::Secret(Secret { name: name.into(), body });
    let certificate = |id: &str, name: &str, client: Option<ClientValidation>| {
        Resource::Certificate(Certificate {
            id: id.into(),
            snis: vec![name.into()],
            secrets: vec!["pair".into()],
            client,
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            listeners: Vec::new(),
        })
    };
    let credential = |plugin: &str, config: Value| Credential { id: "".into(), plugin: plugin.into(), config: Arc::new(config) };
    let consumer = Consumer {
        username: "jack".into(),
        group_id: "".into(),
        credentials: vec![
            credential("key-auth", json!({"key": "a"})),
            credential("jwt-auth", json!({"key": "b", "secret": "c"})),
        ],
        plugins: Vec::new(),
        labels: [].into(),
    };
    let client = ClientValidation { ca: "roots".into(), depth: 2, skip_uri_regex: Vec::new() };
    vec![
        secret("pair", SecretBody::KeyPair { chain_pem: "C".into(), key_pem: "K".into() }),
        secret("roots", SecretBody::Roots("R".into())),
        certificate("one", "a.example", None),
        certificate("two", "b.example", Some(client)),
        Resource::Consumer(consumer),
    ]
}

/// What such readers are given of all that, and what is withheld from them.
fn given(reader: Reader) -> (SnapshotStore, BTreeMap<(Kind, String), String>) {
    given_with(reader, Vec::new())
}

fn given_with(reader: Reader, further: Vec<Route>) -> (SnapshotStore, BTreeMap<(Kind, String), String>) {
    let store = SnapshotStore::new();
    let upstreams = upstreams();
    let mut all: Vec<Resource> = others();
    all.extend(upstreams.iter().map(|upstream| Resource::Endpoints(endpoints(upstream))));
    all.extend(upstreams.into_iter().map(|upstream| Resource::Upstream(Arc::new(upstream))));
    all.extend(routes().into_iter().chain(further).map(Resource::Route));
    all.extend(listeners().into_iter().map(Resource::Listener));
    store.apply(all.into_iter().map(Change::Set).collect());
    let view = store.view();
    let mut encoder = Encoder::new(reader, Gap::NotFound).in_zone(Some("a".into()));
    let told = SnapshotStore::new();
    told.apply_encoded(encoder.apply(&view, &Changes { position: view.position(), names: None }));
    let withheld = encoder.withheld().into_iter().map(|one| ((one.kind, one.name.to_string()), one.reason));
    (told, withheld.collect())
}

/// Everything of a kind, read as an agent reads it.
fn pieces(told: &SnapshotStore, kind: Kind, read: EnvoyKind) -> Vec<Piece> {
    let (_, all) = told.all(kind);
    let piece = |name: &str, body: &[u8]| match Unread::new(read, body).and_then(|unread| unread.read()) {
        Ok(piece) => piece,
        Err(fault) => panic!("{name}: {fault:?}"),
    };
    all.iter().map(|(name, found)| piece(name, &found.body)).collect()
}

#[test]
fn agents_that_ask_for_envoys_types_take_what_envoys_take_but_for_what_is_listed() {
    let (_, envoys) = given(Reader::Envoy);
    assert_eq!(envoys, BTreeMap::new(), "all of it has a counterpart in Envoy");
    let (told, withheld) = given(Reader::Agent);
    let listed =
        |name: &str, reason: &str| WITHHELD.iter().any(|(known, field)| *known == name && reason.contains(&format!(": {field}")));
    let beyond: Vec<_> = withheld.iter().filter(|((kind, name), reason)| *kind != Kind::Route || !listed(name, reason)).collect();
    assert!(beyond.is_empty(), "{beyond:#?}");
    let gone: Vec<_> = WITHHELD.iter().filter(|(name, _)| !withheld.contains_key(&(Kind::Route, (*name).to_owned()))).collect();
    assert!(gone.is_empty(), "taken now: {gone:?}");
    for (kind, read) in [
        (Kind::Secret, EnvoyKind::Secret),
        (Kind::Upstream, EnvoyKind::Cluster),
        (Kind::Endpoints, EnvoyKind::Endpoints),
        (Kind::Route, EnvoyKind::Routes),
        (Kind::Listener, EnvoyKind::Listener),
    ] {
        assert!(!pieces(&told, kind, read).is_empty(), "{kind:?}");
    }
}

#[test]
fn a_table_of_routes_is_read_though_one_of_them_would_be_refused() {
    let (told, _) = given(Reader::Envoy);
    let (_, all) = told.all(Kind::Route);
    let body = &all.iter().next().unwrap().1.body;
    assert!(Unread::new(EnvoyKind::Routes, body).unwrap().read().is_err(), "which is why they are withheld");
}

#[test]
fn what_stands_in_the_place_of_a_route_is_withheld_for_what_they_have_in_common() {
    let matches = RouteMatch {
        uris: vec!["/e".into()],
        vars: Some(Arc::new(json!([["http_x_envoy_internal", "==", "true"]]))),
        ..RouteMatch::default()
    };
    let (told, withheld) = given_with(Reader::Agent, vec![Route { matches, ..route("unlike nothing", "balanced-0") }]);
    assert!(withheld.contains_key(&(Kind::Route, "unlike nothing".to_owned())), "{withheld:#?}");
    assert!(!pieces(&told, Kind::Route, EnvoyKind::Routes).is_empty(), "the table is read all the same");
}

#[test]
fn an_upstream_that_went_through_envoys_types_is_used_as_before() {
    let (told, _) = given(Reader::Agent);
    let clusters: BTreeMap<Arc<str>, Arc<Cluster>> = pieces(&told, Kind::Upstream, EnvoyKind::Cluster)
        .into_iter()
        .filter_map(|piece| match piece {
            Piece::Cluster(cluster) => Some((cluster.upstream.name.clone(), cluster)),
            _ => None,
        })
        .collect();
    for before in upstreams() {
        let cluster = &clusters[&before.name];
        let after = &cluster.upstream;
        let pool = |pool: &KeepalivePool| (pool.idle_timeout, pool.requests, pool.max_age);
        let used = |upstream: &Upstream| {
            (
                upstream.scheme,
                upstream.timeouts.connect,
                pool(&upstream.keepalive),
                upstream.slow_start,
                upstream.panic_threshold.unwrap_or(1),
            )
        };
        assert_eq!(used(after), used(&before), "{}", before.name);
        let limits = |breakers: CircuitBreakers| (breakers.max_connections, breakers.max_pending, breakers.max_requests);
        assert_eq!(limits(after.breakers), limits(before.breakers), "{}", before.name);
        assert_eq!(after.breakers.retry_budget_percent, before.breakers.retry_budget_percent);
        assert_eq!(after.tls, before.tls, "{}", before.name);
        match &before.balancer {
            Balancer::ConsistentHash(_, HashTable::Ring(RingSize::ByWeight)) => {
                assert!(matches!(cluster.table, Some(HashTable::Ring(_))))
            }
            Balancer::ConsistentHash(_, table) => assert_eq!(cluster.table, Some(*table)),
            // Response times do not count in Envoy.
            Balancer::Ewma => assert_eq!(after.balancer, Balancer::LeastConn),
            balancer => assert_eq!(after.balancer, *balancer),
        }
        let probe = |upstream: &Upstream| {
            let check = upstream.checks.active.clone()?;
            Some((check.timeout, check.port, check.healthy_interval, check.unhealthy_interval, check.thresholds.successes))
        };
        assert_eq!(probe(after), probe(&before), "{}", before.name);
    }
}

#[test]
fn endpoints_that_went_through_envoys_types_are_those_of_before() {
    let (told, _) = given(Reader::Agent);
    let found: BTreeMap<Arc<str>, Arc<Assignment>> = pieces(&told, Kind::Endpoints, EnvoyKind::Endpoints)
        .into_iter()
        .filter_map(|piece| match piece {
            Piece::Endpoints(found) => Some((found.name.clone(), found)),
            _ => None,
        })
        .collect();
    for name in ["probed", "probed-tcp", "probed-tls"] {
        assert_eq!(found[name].probed, Some(Probed::Own), "{name}");
    }
    assert_eq!(found["probed-as"].probed, None, "the check says it");
    let zoned = &found["bounded"];
    assert_eq!((zoned.overprovisioning, zoned.health_by_weight), (140, true));
    let told: Vec<(&str, u32, i32)> = zoned.endpoints.iter().map(|one| (&*one.host, one.weight, one.priority)).collect();
    assert_eq!(told, [("10.0.0.1", 3, 0), ("10.0.0.2", 1, -1), ("::1", 2, -2)], "as seen from their zone");
}

#[test]
fn whom_routes_ask_by_grpc_is_read_as_it_was_written() {
    let (told, _) = given(Reader::Agent);
    let changes: BTreeMap<String, Value> = pieces(&told, Kind::Route, EnvoyKind::Routes)
        .into_iter()
        .filter_map(|piece| match piece {
            Piece::Routes(table) => Some(table),
            _ => None,
        })
        .flat_map(|table| table.hosts.iter().flat_map(|host| host.routes.clone()).collect::<Vec<_>>())
        .filter_map(|route| {
            route.overrides.iter().find_map(|(name, said)| match said {
                Override::But(changes) if name.starts_with("heddle.ext-authz") => Some((route.name.to_string(), changes.clone())),
                _ => None,
            })
        })
        .collect();
    let usual = json!({
        "protocol": "grpc", "upstream_id": "grpc", "authority": "grpc", "timeout": 500, "headers_to_add": {"x-by": "100%"},
        "context_extensions": {"a": "b"}, "with_request_body": {"max_request_bytes": 9},
    });
    assert_eq!(changes["ext-authz"], usual);
    assert_eq!(changes["ext-authz that says more"], json!({}), "all of it stands in the listener");
}
