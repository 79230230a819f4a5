//! What an Envoy beside an application is given, and how policies are told to it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_proto::envoy::config::rbac::v3 as rbac;
use heddle_proto::envoy::extensions::filters::http::rbac::v3::RbacPerRoute;
use heddle_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use heddle_proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use heddle_proto::envoy::r#type::v3::{HashPolicy, hash_policy};

use super::*;
use crate::model::{
    Balancer, HashOn, HashTable, MeshPeer, MeshProtocol, PeerAuthentication, PolicyAction, PolicyHeader, PolicyOperation,
    PolicyRule, PolicySource, Scheme,
};
use crate::snapshot::{Change, SIDECAR, SnapshotFeed, SnapshotStore};

fn member(protocol: MeshProtocol) -> Member {
    Member {
        scope: NodeScope {
            id: "web-1".into(),
            role: SIDECAR.into(),
            namespace: "shop".into(),
            service: "web".into(),
            ..NodeScope::default()
        },
        domain: "story.example".into(),
        instance: Some(Instance {
            address: "".into(),
            port: 15_006,
            protocol,
            ports: Vec::new(),
            version: "".into(),
            labels: Vec::new(),
            draining: false,
            process: 0,
            application: 0,
            is_seen: false,
        }),
        station: Station {
            identity: true,
            federated: false,
            application: Some("127.0.0.1:8080".parse().unwrap()),
            outbound: vec![("api".into(), "127.0.0.1:9001".parse().unwrap())],
        },
    }
}

fn service(name: &str, protocol: MeshProtocol) -> Change {
    let upstream: Arc<str> = format!("{MESH_PREFIX}{name}").into();
    let peer = MeshPeer { identities: vec!["spiffe://story.example/ns/shop/svc/api".into()], port: None };
    Change::Set(Resource::MeshService(MeshService {
        name: name.into(),
        protocol,
        vip: None,
        ports: Vec::new(),
        plugins: Vec::new(),
        timeouts: None,
        upstream: Arc::new(Upstream { mesh: Some(peer), scheme: Scheme::Http, ..Upstream::new(upstream) }),
        depends: Vec::new(),
        own_ports: Vec::new(),
    }))
}

struct World {
    store: SnapshotStore,
    encoder: MeshEncoder,
    position: u64,
}

impl World {
    fn new(who: Member) -> World {
        World { store: SnapshotStore::new(), encoder: MeshEncoder::new(who), position: 0 }
    }

    /// What differs after these changes, by name.
    fn set(&mut self, changes: Vec<Change>) -> Vec<String> {
        self.store.apply(changes);
        let view = self.store.view();
        let names = match self.position {
            0 => Changes { position: view.position(), names: None },
            position => self.store.changed_between(position, view.position()),
        };
        self.position = view.position();
        let difference = self.encoder.apply(&view, &names);
        let named = |one: Result<Versioned, (Kind, Arc<str>)>| match one {
            Ok(set) => format!("{}:{}", set.resource.kind().as_str(), set.resource.name()),
            Err((kind, name)) => format!("-{}:{name}", kind.as_str()),
        };
        difference.into_iter().map(named).collect()
    }
}

fn policy(service: Option<&str>, action: PolicyAction, rules: Vec<PolicyRule>) -> AuthorizationPolicy {
    AuthorizationPolicy {
        id: "p".into(),
        namespace: "shop".into(),
        service: service.map(Into::into),
        action,
        dry_run: false,
        rules,
    }
}

#[test]
fn an_envoy_is_told_what_it_calls_and_what_protects_its_service_and_nothing_else() {
    let mut world = World::new(member(MeshProtocol::Http));
    let told = world.set(vec![service("shop/api", MeshProtocol::Http), service("shop/other", MeshProtocol::Http)]);
    let expected = [
        "Upstream:inbound",
        "Route:inbound",
        "Listener:inbound",
        "Upstream:mesh/shop/api",
        "Route:outbound/shop/api",
        "Listener:outbound/shop/api",
    ];
    assert_eq!(told, expected);
    let policies = |service| vec![Change::Set(Resource::AuthorizationPolicy(policy(service, PolicyAction::Allow, vec![])))];
    assert!(world.set(policies(Some("api"))).is_empty(), "of another service");
    assert_eq!(world.set(policies(None)), ["Route:inbound"], "a change of routes, which counts for connections that are there");
    assert!(world.set(vec![service("shop/third", MeshProtocol::Http)]).is_empty());
    assert!(world.encoder.withheld().is_empty());
    let gone = world.set(vec![Change::Remove(Kind::MeshService, "shop/api".into())]);
    assert_eq!(gone, ["Route:outbound/shop/api", "-Upstream:mesh/shop/api"]);
}

#[test]
fn a_service_that_is_named_twice_has_one_listener() {
    let mut who = member(MeshProtocol::Http);
    who.station.outbound.push(("shop/api".into(), "127.0.0.1:9002".parse().unwrap()));
    let mut world = World::new(who);
    let told = world.set(vec![service("shop/api", MeshProtocol::Http)]);
    assert_eq!(told.iter().filter(|one| *one == "Listener:outbound/shop/api").count(), 1, "{told:?}");
    let withheld = world.encoder.withheld();
    assert_eq!(withheld[0].reason, "node.metadata.outbound names it twice: nothing is opened at 127.0.0.1:9002");
}

#[test]
fn what_envoy_cannot_carry_is_withheld_and_named() {
    let mut world = World::new(member(MeshProtocol::Auto));
    let told = world.set(vec![service("shop/api", MeshProtocol::Auto)]);
    assert_eq!(told, ["Route:outbound/shop/api", "Listener:outbound/shop/api"], "which answers 503");
    let reasons: Vec<String> = world.encoder.withheld().into_iter().map(|one| format!("{} {}", one.name, one.reason)).collect();
    let reason = "protocol auto: Envoy has to be told http, http2, grpc or tcp";
    assert_eq!(reasons, [format!("inbound {reason}"), format!("shop/api {reason}")]);
}

#[test]
fn bytes_go_in_tunnels_by_a_listener_without_routes() {
    let mut world = World::new(member(MeshProtocol::Tcp));
    let told = world.set(vec![service("shop/api", MeshProtocol::Tcp)]);
    let inbound = ["Upstream:inbound", "Route:inbound", "Listener:inbound"];
    assert_eq!(told, [&inbound[..], &["Upstream:mesh/shop/api", "Listener:outbound/shop/api"]].concat());
    assert!(world.encoder.withheld().is_empty());
    let told = world.set(vec![service("shop/api", MeshProtocol::Http)]);
    assert_eq!(told, ["Route:outbound/shop/api", "Listener:outbound/shop/api"]);
}

#[test]
fn a_service_that_wants_that_is_called_in_clear() {
    for (protocol, in_clear) in [MeshProtocol::Http, MeshProtocol::Tcp].into_iter().flat_map(|one| [(one, false), (one, true)]) {
        let mut world = World::new(member(protocol));
        let Change::Set(Resource::MeshService(mut api)) = service("shop/api", protocol) else { panic!() };
        let upstream = Arc::make_mut(&mut api.upstream);
        upstream.in_clear = in_clear;
        upstream.mesh = upstream.mesh.take().filter(|_| !in_clear);
        // What its owner wrote while its bytes were tunnels does not shut it.
        (upstream.breakers.max_requests, upstream.breakers.max_pending) = (Some(9), Some(9));
        world.set(vec![Change::Set(Resource::MeshService(api))]);
        assert!(world.encoder.withheld().is_empty());
        let all = MeshEncoder::new(world.encoder.who.clone()).apply(&world.store.view(), &Changes { position: 0, names: None });
        let body = |name: &str| all.iter().flatten().find(|set| &**set.resource.name() == name).unwrap().body.clone();
        let cluster = heddle_proto::envoy::config::cluster::v3::Cluster::decode(&*body("mesh/shop/api")).unwrap();
        assert_eq!(cluster.transport_socket.is_none(), in_clear);
        if protocol == MeshProtocol::Tcp {
            let listener = wire::Listener::decode(
                &*all.iter().flatten().rfind(|set| &**set.resource.name() == "outbound/shop/api").unwrap().body,
            )
            .unwrap();
            let Some(wire::filter::ConfigType::TypedConfig(config)) = &listener.filter_chains[0].filters[0].config_type else {
                panic!()
            };
            assert_eq!(TcpProxy::decode(&config.value[..]).unwrap().tunneling_config.is_none(), in_clear);
        }
    }
}

#[test]
fn callers_in_clear_have_a_chain_of_their_own_where_the_most_specific_that_is_said_lets_them_in() {
    let said = |id: &str, service: Option<&str>, mode, ports: &[(u16, PeerMode)]| {
        let ports = ports.iter().copied().collect();
        let service = service.map(Into::into);
        Change::Set(Resource::PeerAuthentication(PeerAuthentication {
            id: id.into(),
            namespace: "shop".into(),
            service,
            mode,
            ports,
        }))
    };
    let chains = |world: &World| -> Vec<(String, bool)> {
        let all = MeshEncoder::new(world.encoder.who.clone()).apply(&world.store.view(), &Changes { position: 0, names: None });
        let listener = all.iter().flatten().find(|set| set.resource == standing(listeners::INBOUND)).unwrap();
        let listener = wire::Listener::decode(&*listener.body).unwrap();
        assert_eq!(listener.listener_filters.len(), listener.filter_chains.len() - 1, "it is looked at where there is a choice");
        let of = |chain: &wire::FilterChain| chain.filter_chain_match.clone().unwrap_or_default().transport_protocol;
        listener.filter_chains.iter().map(|chain| (of(chain), chain.transport_socket.is_some())).collect()
    };
    let strict = vec![(String::new(), true)];
    let both = vec![("tls".to_owned(), true), ("raw_buffer".to_owned(), false)];
    let mut world = World::new(member(MeshProtocol::Http));
    world.set(vec![]);
    assert_eq!(chains(&world), strict);
    let told = world.set(vec![said("shop", None, Some(PeerMode::Permissive), &[])]);
    assert_eq!((told, chains(&world)), (vec!["Listener:inbound".to_owned()], both.clone()));
    world.set(vec![said("other", Some("other"), Some(PeerMode::Strict), &[])]);
    assert_eq!(chains(&world), both, "that is about another service");
    world.set(vec![said("web", Some("web"), Some(PeerMode::Strict), &[])]);
    assert_eq!(chains(&world), strict, "the service goes before its namespace");
    world.set(vec![said("web", Some("web"), Some(PeerMode::Strict), &[(8080, PeerMode::Disable), (9090, PeerMode::Strict)])]);
    assert_eq!(chains(&world), both, "and the port of the application before its service");

    let mut bytes = World::new(member(MeshProtocol::Tcp));
    bytes.set(vec![said("shop", None, Some(PeerMode::Disable), &[])]);
    assert_eq!(chains(&bytes), strict);
    assert!(bytes.encoder.withheld()[0].reason.starts_with("peer_authentications: "), "{:?}", bytes.encoder.withheld());
}

#[test]
fn callers_connect_anew_every_hour_and_so_prove_anew_who_they_are() {
    for protocol in [MeshProtocol::Http, MeshProtocol::Grpc, MeshProtocol::Tcp] {
        let mut world = World::new(member(protocol));
        world.set(vec![]);
        let all = MeshEncoder::new(world.encoder.who.clone()).apply(&world.store.view(), &Changes { position: 0, names: None });
        let listener = all.iter().flatten().find(|set| set.resource == standing(listeners::INBOUND)).unwrap();
        let listener = wire::Listener::decode(&*listener.body).unwrap();
        let Some(wire::filter::ConfigType::TypedConfig(config)) = &listener.filter_chains[0].filters[0].config_type else {
            panic!()
        };
        let options = HttpConnectionManager::decode(&config.value[..]).unwrap().common_http_protocol_options.unwrap();
        let hours = |span: Option<prost_types::Duration>| span.unwrap().seconds / 3600;
        assert_eq!((hours(options.max_connection_duration), hours(options.max_stream_duration)), (1, 24), "{protocol:?}");
    }
}

#[test]
fn bytes_are_denied_by_what_speaks_of_requests_and_never_allowed() {
    let rules = |action, to: Vec<PolicyOperation>| {
        let policy = policy(None, action, vec![PolicyRule { from: vec![], to }]);
        let rules = policy::rules(&[&policy], &policy::Meaning { domain: None, port: 8080, opaque: true });
        text(&rules.allow.or(rules.deny).unwrap().rules.unwrap())
    };
    let gets = || PolicyOperation { methods: vec!["GET".into()], ..PolicyOperation::default() };
    let here = || PolicyOperation { ports: vec![8080], ..PolicyOperation::default() };
    let any = "Any(true)";
    assert_eq!(rules(PolicyAction::Allow, vec![gets()]), "{}", "nothing is allowed");
    assert!(rules(PolicyAction::Allow, vec![gets(), here()]).contains(any) && rules(PolicyAction::Allow, vec![]).contains(any));
    let denied = rules(PolicyAction::Deny, vec![gets()]);
    assert!(denied.contains(any) && !denied.contains("GET"), "{denied}");
}

#[test]
fn a_key_of_bytes_is_the_address_of_who_connects_and_another_one_is_withheld() {
    let mut world = World::new(member(MeshProtocol::Tcp));
    let mut called = |balancer| {
        let Change::Set(Resource::MeshService(mut api)) = service("shop/api", MeshProtocol::Tcp) else { panic!() };
        Arc::make_mut(&mut api.upstream).balancer = balancer;
        world.set(vec![Change::Set(Resource::MeshService(api))]);
        let mut all =
            MeshEncoder::new(world.encoder.who.clone()).apply(&world.store.view(), &Changes { position: 0, names: None });
        all.retain(|one| one.as_ref().is_ok_and(|set| &**set.resource.name() == "outbound/shop/api"));
        let listener = wire::Listener::decode(&*all.remove(0).unwrap().body).unwrap();
        let proxy = listener.filter_chains[0].filters.first().map(|filter| {
            let Some(wire::filter::ConfigType::TypedConfig(config)) = &filter.config_type else { panic!() };
            TcpProxy::decode(&config.value[..]).unwrap().hash_policy
        });
        (proxy, world.encoder.withheld().into_iter().map(|one| one.reason).collect::<Vec<_>>())
    };
    let key = |name: &str, table| Balancer::ConsistentHash(HashOn::Var(name.into()), table);
    let by_address = HashPolicy { policy_specifier: Some(hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp {})) };
    assert_eq!(called(Balancer::RoundRobin), (Some(vec![]), vec![]));
    for table in [HashTable::RING, HashTable::MAGLEV] {
        assert_eq!(called(key("remote_addr", table)), (Some(vec![by_address.clone()]), vec![]));
    }
    let reason = "balancer: of bytes Envoy hashes the address of the client only";
    assert_eq!(called(key("server_port", HashTable::RING)), (None, vec![reason.to_owned()]), "it closes what connects");
}

/// The rules of a policy, as they are told.
fn told(policy: &AuthorizationPolicy) -> policy::Rules {
    policy::rules(&[policy], &policy::Meaning { domain: Some("story.example"), port: 8080, opaque: false })
}

fn text(rules: &rbac::Rbac) -> String {
    format!("{:?}", rules.policies)
}

#[test]
fn a_policy_without_rules_lets_nobody_in_and_one_in_dry_run_only_counts() {
    let rules = told(&policy(None, PolicyAction::Allow, vec![]));
    let allow = rules.allow.unwrap();
    assert!(rules.deny.is_none() && allow.rules.unwrap().policies.is_empty());
    let tried = told(&AuthorizationPolicy { dry_run: true, ..policy(None, PolicyAction::Allow, vec![]) }).allow.unwrap();
    assert!(tried.rules.is_none() && tried.shadow_rules.is_some());
    let per_route = RbacPerRoute { rbac: Some(tried) };
    assert_eq!(RbacPerRoute::decode(&*per_route.encode_to_vec()).unwrap(), per_route);
}

#[test]
fn callers_are_meant_by_what_they_have_proven() {
    let from = PolicySource {
        identities: vec!["spiffe://story.example/ns/shop/svc/web".into(), "*".into()],
        namespaces: vec!["admin".into()],
        ..PolicySource::default()
    };
    let rule = PolicyRule { from: vec![from], to: vec![] };
    let allow = told(&policy(None, PolicyAction::Allow, vec![rule])).allow.unwrap().rules.unwrap();
    let shown = text(&allow);
    for part in [
        r#"Exact("spiffe://story.example/ns/shop/svc/web")"#,
        r#"Prefix("spiffe://")"#,
        r#"Prefix("spiffe://story.example/ns/admin/")"#,
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[test]
fn who_has_proven_nothing_is_never_allowed_as_one_who_is_not_another() {
    let others =
        PolicySource { not_identities: vec!["spiffe://story.example/ns/shop/svc/evil".into()], ..PolicySource::default() };
    let elsewhere = PolicySource { not_namespaces: vec!["guests".into()], ..PolicySource::default() };
    let outside = PolicySource { not_cidrs: vec!["10.0.0.0/8".parse().unwrap()], ..PolicySource::default() };
    let member = r#"Prefix("spiffe://")"#;
    for (source, proves) in [(others, true), (elsewhere, true), (outside, false)] {
        for (action, demanded) in [(PolicyAction::Allow, proves), (PolicyAction::Deny, false)] {
            let rules = told(&policy(None, action, vec![PolicyRule { from: vec![source.clone()], to: vec![] }]));
            let shown = text(&rules.allow.or(rules.deny).unwrap().rules.unwrap());
            assert_eq!(shown.contains(member), demanded, "{action:?} {shown}");
        }
    }
}

#[test]
fn paths_that_may_be_read_otherwise_are_denied_and_never_allowed() {
    let rule = |action| {
        let to = PolicyOperation { methods: vec!["GET".into()], paths: vec!["/items/*".into()], ..PolicyOperation::default() };
        let rules = told(&policy(None, action, vec![PolicyRule { from: vec![], to: vec![to] }]));
        text(&rules.allow.or(rules.deny).unwrap().rules.unwrap())
    };
    let (allowed, denied) = (rule(PolicyAction::Allow), rule(PolicyAction::Deny));
    assert!(allowed.contains("NotRule") && allowed.contains("%2[fF]"), "{allowed}");
    assert_eq!(denied.matches("NotRule").count(), 1, "of what is not ASCII alone: {denied}");
    assert!(denied.contains("%2[fF]") && denied.contains(r#"NotRule(Permission { rule: Some(UrlPath"#), "{denied}");
}

#[test]
fn a_path_is_one_however_a_policy_writes_it() {
    let paths = ["/items", "/caf\u{e9}", "/a|b/*", "/a%7eb/*", "*"].map(Into::into).to_vec();
    let to = PolicyOperation { paths, ..PolicyOperation::default() };
    let denied = told(&policy(None, PolicyAction::Deny, vec![PolicyRule { from: vec![], to: vec![to] }]));
    let shown = text(&denied.deny.unwrap().rules.unwrap());
    for part in [r#"Exact("/items")"#, "/caf%[Cc]3%[Aa]9\"", "/a%7[Cc]b/.*\"", r#"Prefix("/a~b/")"#, "\".*\""] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[test]
fn a_rule_for_another_port_matches_nothing_and_fields_are_looked_for_in_all_lines() {
    let to = |ports: Vec<u16>| PolicyOperation {
        ports,
        headers: vec![PolicyHeader { name: "x-tier".into(), values: vec!["gold".into()] }],
        hosts: vec!["*.shop".into()],
        ..PolicyOperation::default()
    };
    let rule = |ports| PolicyRule { from: vec![], to: vec![to(ports)] };
    let deny = |ports| told(&policy(None, PolicyAction::Deny, vec![rule(ports)])).deny.unwrap().rules.unwrap();
    assert!(deny(vec![1]).policies.is_empty());
    let shown = text(&deny(vec![8080]));
    assert!(shown.contains("(.*,)?gold(,.*)?") && shown.contains(r"(?i).*\\.shop(\\.mesh)?(:[0-9]*)?"), "{shown}");
    assert!(shown.contains(r#"Contains("gold")"#), "between bytes that no pattern sees: {shown}");
    assert_eq!(shown.matches(r"[\\x00-\\x7f]*").count(), 2, "a host and a value that are not ASCII: {shown}");
}
