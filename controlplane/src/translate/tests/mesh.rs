//! Services of the mesh, the policies that protect them, and upstreams of gateways that lead into it.

use heddle_xds::model::{AuthorizationPolicy, Endpoint, Kind, MeshProtocol, MeshService, PeerMode, Resource, Scheme};
use serde_json::json;

use super::*;
use crate::discovery::{Ask, News};
use crate::mesh::{Found, FoundPlace, FoundPort};

impl World {
    fn service(&self, name: &str) -> &MeshService {
        match self.get(Kind::MeshService, name) {
            Some(Resource::MeshService(service)) => service,
            other => panic!("service {name}: {other:?}"),
        }
    }

    fn policy(&self, id: &str) -> &AuthorizationPolicy {
        match self.get(Kind::AuthorizationPolicy, id) {
            Some(Resource::AuthorizationPolicy(policy)) => policy,
            other => panic!("policy {id}: {other:?}"),
        }
    }

    /// Instances of a service come, each with one label.
    fn labelled(&mut self, service: &str, instances: &[(&str, &str, &str)]) -> Vec<Change> {
        let endpoint = |(host, name, value): &(&str, &str, &str)| Endpoint {
            host: (*host).into(),
            port: 15006,
            weight: 1,
            labels: vec![((*name).into(), (*value).into())].into(),
            ..Endpoint::default()
        };
        let found =
            Found { endpoints: instances.iter().map(endpoint).collect(), protocol: MeshProtocol::Http, ..Found::default() };
        let service = ServiceId::parse(service, "").unwrap();
        assert!(self.directory.found(&service, Some(found)));
        self.translate(&[], &BTreeSet::from([service]))
    }

    /// Instances of a service come or go.
    fn found(&mut self, service: &str, hosts: Option<&[&str]>) -> Vec<Change> {
        let endpoint = |host: &&str| Endpoint {
            host: (*host).into(),
            port: 15006,
            weight: 1,
            priority: 0,
            zone: "".into(),
            ..Endpoint::default()
        };
        let found = hosts.map(|hosts| Found {
            endpoints: hosts.iter().map(endpoint).collect(),
            protocol: MeshProtocol::Http,
            ..Found::default()
        });
        let service = ServiceId::parse(service, "").unwrap();
        assert!(self.directory.found(&service, found));
        self.translate(&[], &BTreeSet::from([service]))
    }
}

#[test]
fn a_service_is_there_because_of_its_owner_or_its_instances() {
    let mut world = World::new();
    assert_eq!(names(&world.found("shop/web", Some(&["10.0.0.1"]))), ["Endpoints mesh/shop/web", "MeshService shop/web"]);
    let peer = world.service("shop/web").upstream.mesh.clone().unwrap();
    assert_eq!(peer.identities.iter().map(|id| &**id).collect::<Vec<_>>(), ["spiffe://example.org/ns/shop/svc/web"]);
    assert_eq!(world.service("shop/web").protocol, MeshProtocol::Http);
    assert_eq!(names(&world.found("shop/web", Some(&["10.0.0.2"]))), ["Endpoints mesh/shop/web"], "only where it is");
    let written = json!({"namespace": "shop", "name": "web", "protocol": "grpc", "retries": 0, "type": "least_conn"});
    assert_eq!(names(&world.put("mesh_services/w", written.clone())), ["MeshService shop/web"]);
    let service = world.service("shop/web");
    assert_eq!((service.protocol, service.upstream.retries), (MeshProtocol::Grpc, Some(0)));
    assert_eq!(names(&world.found("shop/web", None)), ["Endpoints mesh/shop/web"], "its owner still speaks of it");
    assert_eq!(world.endpoints("mesh/shop/web"), [] as [&str; 0]);
    assert_eq!(names(&world.delete("mesh_services/w")), ["-MeshService shop/web", "-Endpoints mesh/shop/web"]);
    assert!(world.held.is_empty());
}

#[test]
fn a_resource_that_speaks_of_another_service_leaves_the_first_one() {
    let mut world = World::of(&[("mesh_services/web", json!({}))]);
    let timeouts = world.service("default/web").upstream.timeouts;
    assert_eq!(
        [timeouts.connect, timeouts.send, timeouts.read].map(|limit| limit.as_secs()),
        [1, 3600, 3600],
        "quiet is no fault"
    );
    let changes = world.put("mesh_services/web", json!({"name": "api", "ports": [80]}));
    assert_eq!(
        names(&changes),
        ["Endpoints mesh/default/api", "MeshService default/api", "-MeshService default/web", "-Endpoints mesh/default/web"]
    );
    assert_eq!(world.service("default/api").ports, [80]);
}

#[test]
fn a_split_becomes_the_plugin_that_shares_out() {
    let canary = json!([["http_x_canary", "==", "1"]]);
    let split = json!([
        {"service": "web-v2", "match": canary},
        {"service": "web", "weight": 90}, {"service": "other/web-v2", "weight": 10}
    ]);
    let world = World::of(&[("mesh_services/web", json!({"split": split, "plugins": {"cors": {}}}))]);
    let service = world.service("default/web");
    assert_eq!(service.depends.iter().map(|name| &**name).collect::<Vec<_>>(), ["default/web-v2", "other/web-v2"]);
    let plugins: Vec<_> = service.plugins.iter().map(|plugin| (&*plugin.name, &*plugin.origin.0)).collect();
    assert_eq!(plugins, [("cors", "mesh_service/web"), ("traffic-split", "mesh_service/web")]);
    let expected = json!({"rules": [
        {"match": [{"vars": canary}], "weighted_upstreams": [{"upstream_id": "mesh/default/web-v2", "weight": 1}]},
        {"weighted_upstreams": [{"weight": 90}, {"upstream_id": "mesh/other/web-v2", "weight": 10}]}
    ]});
    assert_eq!(*service.plugins[1].config, expected);
}

#[test]
fn a_split_by_labels_leads_to_the_instances_that_have_them() {
    let mut world = World::of(&[(
        "mesh_services/web",
        json!({"retries": 1, "split": [
            {"subset": {"version": "v2"}, "match": [["http_x_canary", "==", "1"]]},
            {"subset": {"version": "v1"}, "weight": 90}, {"service": "web", "subset": {"version": "v2"}, "weight": 5},
            {"service": "cart", "subset": {"track": "new"}, "weight": 5}
        ]}),
    )]);
    world.labelled("default/web", &[("10.0.0.1", "version", "v1"), ("10.0.0.2", "version", "v2"), ("10.0.0.3", "version", "v2")]);
    let (one, two, cart) = ("default/web#version=v1", "default/web#version=v2", "default/web#default/cart:track=new");
    let service = world.service("default/web");
    assert_eq!(service.depends.iter().map(|name| &**name).collect::<Vec<_>>(), [cart, one, two]);
    let expected = json!({"rules": [
        {"match": [{"vars": [["http_x_canary", "==", "1"]]}], "weighted_upstreams": [{"upstream_id": format!("mesh/{two}"), "weight": 1}]},
        {"weighted_upstreams": [
            {"upstream_id": format!("mesh/{one}"), "weight": 90}, {"upstream_id": format!("mesh/{two}"), "weight": 5},
            {"upstream_id": format!("mesh/{cart}"), "weight": 5}
        ]}
    ]});
    assert_eq!(*service.plugins[0].config, expected);
    assert_eq!(world.endpoints(&format!("mesh/{two}")), ["10.0.0.2:15006*1^0", "10.0.0.3:15006*1^0"]);
    assert_eq!(world.endpoints("mesh/default/web").len(), 3, "the service itself has all of them");
    let part = world.service(two);
    assert_eq!((part.upstream.retries, part.vip, part.plugins.len()), (Some(1), None, 0), "used as the service is");
    assert_eq!(&*part.upstream.mesh.as_ref().unwrap().identities[0], "spiffe://example.org/ns/default/svc/web");
    assert_eq!(world.endpoints(&format!("mesh/{cart}")), [] as [&str; 0]);
    let changes = world.labelled("default/cart", &[("10.1.0.1", "track", "new"), ("10.1.0.2", "track", "old")]);
    assert!(names(&changes).contains(&format!("Endpoints mesh/{cart}")), "{:?}", names(&changes));
    assert_eq!(world.endpoints(&format!("mesh/{cart}")), ["10.1.0.1:15006*1^0"]);
    assert_eq!(&*world.service(cart).upstream.mesh.as_ref().unwrap().identities[0], "spiffe://example.org/ns/default/svc/cart");
    let gone = names(&world.put("mesh_services/web", json!({"split": [{"subset": {"version": "v2"}}]})));
    for name in [one, cart] {
        assert!(gone.contains(&format!("-MeshService {name}")) && gone.contains(&format!("-Endpoints mesh/{name}")), "{gone:?}");
    }
    world.delete("mesh_services/web");
    assert!(world.held.keys().all(|name| !name.1.contains('#')), "{:?}", world.held.keys().collect::<Vec<_>>());
}

#[test]
fn a_mirror_becomes_the_plugin_that_copies_and_is_known_where_the_service_is() {
    let mirror = json!({"service": "web-v2", "sample_ratio": 0.5, "timeout": 2});
    let mut world = World::of(&[("mesh_services/web", json!({"mirror": mirror}))]);
    let service = world.service("default/web");
    assert_eq!(service.depends.iter().map(|name| &**name).collect::<Vec<_>>(), ["default/web-v2"]);
    let expected = json!({"upstream_id": "mesh/default/web-v2", "sample_ratio": 0.5, "mirror_body": true, "timeout": 2.0});
    assert_eq!((&*service.plugins[0].name, &*service.plugins[0].config), ("proxy-mirror", &expected));
    world.put("mesh_services/web", json!({"mirror": {"subset": {"version": "v2"}}}));
    world.labelled("default/web", &[("10.0.0.1", "version", "v1"), ("10.0.0.2", "version", "v2")]);
    let service = world.service("default/web");
    assert_eq!(service.depends.iter().map(|name| &**name).collect::<Vec<_>>(), ["default/web#version=v2"]);
    assert_eq!(service.plugins[0].config["upstream_id"], "mesh/default/web#version=v2");
    assert_eq!(world.endpoints("mesh/default/web#version=v2"), ["10.0.0.2:15006*1^0"]);
}

#[test]
fn what_runs_at_a_service_is_told_apart_from_what_runs_at_its_callers() {
    let written =
        json!({"namespace": "shop", "plugins": {"cors": {}}, "inbound_plugins": {"limit-count": {"count": 1, "time_window": 1}}});
    let mut world = World::of(&[("mesh_services/web", written)]);
    let service = world.service("shop/web");
    assert_eq!(service.plugins.iter().map(|plugin| &*plugin.name).collect::<Vec<_>>(), ["cors"]);
    let Some(Resource::MeshInbound(inbound)) = world.get(Kind::MeshInbound, "shop/web") else { panic!("it is told") };
    assert_eq!((&*inbound.plugins[0].name, &*inbound.plugins[0].origin.0), ("limit-count", "mesh_service/web"));
    assert_eq!(
        names(&world.put("mesh_services/web", json!({"namespace": "shop", "plugins": {"cors": {}}}))),
        ["-MeshInbound shop/web"]
    );
}

#[test]
fn upstreams_of_gateways_follow_the_instances() {
    let mut world = World::of(&[
        ("upstreams/u", json!({"discovery_type": "mesh", "service_name": "shop/web"})),
        ("routes/r", json!({"uri": "/", "upstream": {"discovery_type": "mesh", "service_name": "api"}})),
    ]);
    assert_eq!(world.endpoints("upstreams/u"), [] as [&str; 0]);
    let expected = ["Endpoints upstreams/u", "Endpoints mesh/shop/web", "MeshService shop/web"];
    assert_eq!(names(&world.found("shop/web", Some(&["10.0.0.1"]))), expected);
    assert_eq!(world.endpoints("upstreams/u"), ["10.0.0.1:15006*1^0"]);
    assert_eq!(
        names(&world.found("shop/web", Some(&["10.0.0.1", "10.0.0.2"]))),
        ["Endpoints upstreams/u", "Endpoints mesh/shop/web"]
    );
    assert_eq!(names(&world.put("mesh_services/web", json!({"namespace": "shop", "retries": 1}))), ["MeshService shop/web"]);
    let peer = world.upstream("routes/r").mesh.clone().unwrap();
    assert_eq!(&*peer.identities[0], "spiffe://example.org/ns/default/svc/api");
    world.found("default/api", Some(&["10.0.0.3"]));
    assert_eq!(world.endpoints("routes/r"), ["10.0.0.3:15006*1^0"]);
}

/// A service with instances of ours, and a further port of theirs.
fn listening(world: &mut World, service: &str, applications: &[u16]) -> Vec<Change> {
    let endpoint = Endpoint { host: "10.0.0.1".into(), port: 15006, weight: 1, ..Endpoint::default() };
    let further = FoundPort { endpoints: vec![endpoint.clone()], protocol: MeshProtocol::Http };
    let found = Found {
        endpoints: vec![endpoint],
        protocol: MeshProtocol::Grpc,
        applications: applications.iter().copied().collect(),
        ports: [(9090, further)].into(),
        ..Found::default()
    };
    let service = ServiceId::parse(service, "").unwrap();
    assert!(world.directory.found(&service, Some(found)));
    world.translate(&[], &BTreeSet::from([service]))
}

#[test]
fn a_service_that_wants_to_be_called_in_clear_is_as_who_may_write_it_says_and_nobody_else() {
    let mut world =
        World::of(&[("upstreams/u", json!({"discovery_type": "mesh", "service_name": "shop/web", "scheme": "https"}))]);
    listening(&mut world, "shop/web", &[8080]);
    let is_clear = |world: &World, name: &str| {
        let upstream = &world.service(name).upstream;
        assert_eq!(upstream.in_clear, upstream.mesh.is_none());
        upstream.in_clear
    };
    let gateway = |world: &World| (world.upstream("upstreams/u").in_clear, world.upstream("upstreams/u").scheme);
    assert!(!is_clear(&world, "shop/web") && gateway(&world) == (false, Scheme::Https));

    // The namespace, then the service, then the port of its application; the most specific counts.
    let all = json!({"namespace": "shop", "mode": "disable"});
    let told = names(&world.put("peer_authentications/all", all.clone()));
    assert!(
        ["MeshService shop/web", "Upstream upstreams/u", "PeerAuthentication all"]
            .iter()
            .all(|name| told.contains(&(*name).to_owned())),
        "{told:?}"
    );
    assert!(
        is_clear(&world, "shop/web") && gateway(&world) == (true, Scheme::Grpc),
        "as its application speaks, not as the upstream says"
    );
    let as_written = json!({"discovery_type": "mesh", "service_name": "shop/api", "scheme": "grpcs"});
    world.put("upstreams/api", as_written);
    let service = ServiceId::parse("shop/api", "").unwrap();
    let endpoint = Endpoint { host: "10.0.0.2".into(), port: 15006, weight: 1, ..Endpoint::default() };
    let api = Found { endpoints: vec![endpoint], protocol: MeshProtocol::Auto, applications: [8080].into(), ..Found::default() };
    assert!(world.directory.found(&service, Some(api)));
    world.translate(&[], &BTreeSet::from([service]));
    assert_eq!(world.service("shop/api").upstream.scheme, Scheme::Http);
    let api = world.upstream("upstreams/api");
    assert_eq!((api.in_clear, api.scheme), (true, Scheme::Grpc), "who wrote gRPC is not led to HTTP/1.1, nor into a handshake");
    assert!(!is_clear(&world, "shop/web:9090"), "a further port is named within mutual TLS");
    let of_web = |mode: &str, ports: Value| json!({"namespace": "shop", "service": "web", "mode": mode, "ports": ports});
    world.put("peer_authentications/web", of_web("permissive", json!({})));
    assert!(!is_clear(&world, "shop/web"), "permissive lets members in, so they come as members");
    world.put("peer_authentications/web", of_web("strict", json!({"8080": "disable"})));
    assert!(is_clear(&world, "shop/web"));
    world.put("peer_authentications/web", of_web("disable", json!({"8080": "strict"})));
    assert!(!is_clear(&world, "shop/web"));
    world.delete("peer_authentications/web");
    assert!(is_clear(&world, "shop/web"));

    // One whose instances are not all agents of ours, or do not all listen where it is said, stays within TLS.
    listening(&mut world, "shop/web", &[0, 8080]);
    assert!(!is_clear(&world, "shop/web") && !gateway(&world).0, "an Envoy among them takes nobody in clear");
    listening(&mut world, "shop/web", &[8080]);
    assert!(is_clear(&world, "shop/web") && gateway(&world).0);
    listening(&mut world, "other/web", &[8080]);
    assert!(!is_clear(&world, "other/web"), "another namespace has another owner");
    world.put("peer_authentications/all", json!({"namespace": "other", "mode": "disable"}));
    assert!(is_clear(&world, "other/web") && !is_clear(&world, "shop/web") && !gateway(&world).0);
    world.delete("peer_authentications/all");
    assert!(!is_clear(&world, "other/web"));
}

#[test]
fn policies_say_whom_they_mean_in_full() {
    let rule = json!({
        "from": [{"identities": ["web", "pay/*"], "not_cidrs": ["10.0.0.1"]}],
        "to": [{"methods": ["get"], "hosts": ["API.example.org"], "headers": {"X-A": "1", "X-B": ["2", "3*"], "X-C": []}}]
    });
    let mut world = World::of(&[(
        "authorization_policies/p",
        json!({"namespace": "shop", "service": "api", "action": "deny", "rules": [rule]}),
    )]);
    let policy = world.policy("p");
    let from = &policy.rules[0].from[0];
    let ids: Vec<_> = from.identities.iter().map(|id| &**id).collect();
    assert_eq!(ids, ["spiffe://example.org/ns/shop/svc/web", "spiffe://example.org/ns/pay/svc/*"]);
    assert_eq!(from.not_cidrs[0].to_string(), "10.0.0.1/32");
    let to = &policy.rules[0].to[0];
    assert_eq!((&*to.methods[0], &*to.hosts[0]), ("GET", "api.example.org"));
    let headers: Vec<_> = to.headers.iter().map(|header| (&*header.name, header.values.len())).collect();
    assert_eq!(headers, [("x-a", 1), ("x-b", 2), ("x-c", 0)]);
    world.put("authorization_policies/p", json!({"action": "allow"}));
    let policy = world.policy("p");
    assert_eq!((&*policy.namespace, &policy.service, policy.rules.len()), ("default", &None, 0));
    assert_eq!(names(&world.delete("authorization_policies/p")), ["-AuthorizationPolicy p"]);
}

#[test]
fn further_ports_and_addresses_of_a_service_are_told_under_names_of_their_own() {
    let written = json!({"namespace": "shop", "retries": 4, "addresses": ["10.96.0.10"], "ports": [80, {"port": 9090, "protocol": "grpc"}]});
    let mut world = World::of(&[("mesh_services/web", written)]);
    let endpoint = |host: &str| Endpoint { host: host.into(), port: 15006, weight: 1, ..Endpoint::default() };
    let port =
        |hosts: &[&str]| FoundPort { endpoints: hosts.iter().map(|host| endpoint(host)).collect(), protocol: MeshProtocol::Tcp };
    let service = ServiceId::parse("shop/web", "").unwrap();
    let place = |service: &ServiceId, rank, further| FoundPlace {
        service: service.clone(),
        rank,
        endpoint: endpoint("10.0.0.2"),
        protocol: MeshProtocol::Tcp,
        further,
    };
    let stranger = ServiceId::parse("shop/evil", "").unwrap();
    let at = |port: u16| std::net::SocketAddr::new("10.0.0.2".parse().unwrap(), port);
    let found = Found {
        endpoints: vec![endpoint("10.0.0.1"), endpoint("10.0.0.2")],
        protocol: MeshProtocol::Http,
        applications: [80].into(),
        ports: [(9090, port(&["10.0.0.2"])), (5432, port(&["10.0.0.1"]))].into(),
        places: [
            (at(9090), vec![place(&stranger, 0, None), place(&service, 1, Some(9090))]),
            (at(5432), vec![place(&service, 0, Some(5432))]),
            (at(80), vec![place(&service, 0, None), FoundPlace { endpoint: endpoint("10.0.0.3"), ..place(&service, 0, None) }]),
        ]
        .into(),
    };
    assert!(world.directory.found(&service, Some(found)));
    world.translate(&[], &BTreeSet::from([service]));
    assert_eq!((&*world.service("shop/web").own_ports, &*world.service("shop/web").ports), (&[9090][..], &[80, 9090][..]));
    let own = world.service("shop/web:9090");
    assert_eq!((own.protocol, own.upstream.retries), (MeshProtocol::Grpc, Some(4)), "as its owner says, against its instances");
    let single = world.service("@10.0.0.2/9090");
    let peer = single.upstream.mesh.clone().unwrap();
    assert_eq!((single.protocol, &*single.ports, peer.port), (MeshProtocol::Grpc, &[9090][..], Some(9090)));
    assert!(!world.held.keys().any(|(_, name)| &**name == "@10.0.0.2/5432"), "its owner names no such port");
    assert_eq!(world.service("@10.0.0.2/80").ports, [80], "nobody knows which of both is meant, but it is the mesh's");
    assert_eq!(peer.identities, world.service("shop/web").upstream.mesh.clone().unwrap().identities);
    assert_eq!(own.upstream.mesh.as_ref().unwrap().port, Some(9090));
    assert_eq!(world.endpoints("mesh/shop/web:9090"), ["10.0.0.2:15006*1^0"], "only those that have it");
    assert_eq!(world.endpoints("mesh/shop/web").len(), 2);
    assert_eq!(world.service("@10.96.0.10").depends, ["shop/web".into()]);

    world.put("upstreams/u", json!({"discovery_type": "mesh", "service_name": "shop/web:9090"}));
    assert_eq!(world.endpoints("upstreams/u"), ["10.0.0.2:15006*1^0"]);
    assert_eq!(world.upstream("upstreams/u").mesh.as_ref().unwrap().port, Some(9090));
    world.put("mesh_services/web", json!({"namespace": "shop"}));
    assert_eq!(&*world.service("shop/web").own_ports, [5432, 9090]);
    assert!(world.get(Kind::MeshService, "@10.96.0.10").is_none());
}

#[test]
fn who_is_let_in_reaches_sidecars_as_it_was_written() {
    let written = json!({"namespace": "shop", "service": "api", "mode": "strict", "ports": {"9090": "permissive"}});
    let mut world = World::of(&[("peer_authentications/api", written)]);
    let Some(Resource::PeerAuthentication(peers)) = world.get(Kind::PeerAuthentication, "api") else { panic!("not there") };
    assert_eq!((&*peers.namespace, peers.service.as_deref(), peers.mode), ("shop", Some("api"), Some(PeerMode::Strict)));
    assert_eq!(peers.ports, [(9090, PeerMode::Permissive)].into());
    let before = names(&world.put("peer_authentications/api", json!({"mode": "disable"})));
    assert_eq!(before, ["PeerAuthentication api"]);
    assert_eq!(names(&world.delete("peer_authentications/api")), ["-PeerAuthentication api"]);
}

#[test]
fn what_is_discovered_reaches_those_that_ask_and_nobody_else() {
    let consul = |args: serde_json::Value| json!({"discovery_type": "consul", "service_name": "web", "discovery_args": args});
    let mut world = World::of(&[
        ("upstreams/u", consul(json!({}))),
        ("upstreams/tagged", consul(json!({"tags": ["v1"]}))),
        ("routes/r", json!({"uri": "/r", "upstream": consul(json!({}))})),
        ("routes/s", json!({"uri": "/s", "upstream_id": "u"})),
    ]);
    assert_eq!(world.translator.newly_asked().unwrap().len(), 2);
    assert_eq!(world.translator.newly_asked(), None);
    let web = Ask { service: "web".into(), ..Ask::default() };
    let asked = BTreeSet::from([web.clone()]);
    world.directory.discovered_mut().keep(&asked);
    let endpoint = Endpoint { host: "10.0.0.1".into(), port: 80, weight: 3, ..Endpoint::default() };
    assert!(world.directory.discovered_mut().note(&web, News::Answer(vec![endpoint], None), 1));
    let changes = world.translator.found(&world.state, &world.directory, &asked);
    assert_eq!(names(&changes), ["Endpoints upstreams/u", "Endpoints routes/r"], "one small change each");
    assert!(world.translator.found(&world.state, &world.directory, &asked).is_empty());
    for path in ["upstreams/u", "routes/s", "routes/r"] {
        world.set(&key(path), None);
        world.translator.apply(&world.state, &world.directory, &[key(path)], &BTreeSet::new());
    }
    assert_eq!(world.translator.newly_asked().unwrap().iter().map(|ask| ask.tags.len()).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_subset_is_made_of_those_with_all_its_labels() {
    let mut world = World::new();
    let label = |name: &str, value: &str| (name.into(), value.into());
    let instance = |(host, version): (&str, &str)| Endpoint {
        host: host.into(),
        port: 15006,
        weight: 1,
        labels: [label("app", "web"), label("version", version)].into(),
        ..Endpoint::default()
    };
    let service = ServiceId::parse("shop/web", "").unwrap();
    let endpoints = [("10.0.0.1", "v1"), ("10.0.0.2", "v2")].map(instance).to_vec();
    assert!(world.directory.found(&service, Some(Found { endpoints, protocol: MeshProtocol::Http, ..Found::default() })));
    let upstream = |subset| json!({"service_name": "shop/web", "discovery_type": "mesh", "subset": subset});
    world.put("upstreams/v2", upstream(json!({"version": "v2"})));
    world.put("upstreams/none", upstream(json!({"version": "v2", "app": "shop"})));
    assert_eq!(world.endpoints("upstreams/v2"), ["10.0.0.2:15006*1^0"]);
    assert_eq!(world.endpoints("upstreams/none"), [] as [&str; 0]);
    let split = json!({"rules": [{"weighted_upstreams": [{"weight": 9}, {"upstream": upstream(json!({"version": "v1"})), "weight": 1}]}]});
    world.put("routes/r", json!({"uri": "/", "upstream_id": "v2", "plugins": {"traffic-split": split}}));
    let inline =
        world.held.keys().find(|(kind, name)| *kind == Kind::Endpoints && name.starts_with("routes/r")).unwrap().1.clone();
    assert_eq!(world.endpoints(&inline), ["10.0.0.1:15006*1^0"]);
    let node = |host: &str, version| json!({"host": host, "weight": 1, "metadata": {"version": version, "cpus": 4}});
    let nodes = json!({"nodes": [node("10.1.0.1", "v1"), node("10.1.0.2", "v2")], "subset": {"version": "v1"}});
    world.put("upstreams/listed", nodes);
    assert_eq!(world.endpoints("upstreams/listed"), ["10.1.0.1:80*1^0"]);
}

#[test]
fn a_service_of_a_partner_is_called_where_its_owner_says_and_must_be_who_the_partner_says() {
    let mut world = World::new();
    let federated = json!({
        "trust_domain": "partner.example", "service": "shop/cart",
        "nodes": [ { "host": "203.0.113.7", "port": 15006, "weight": 1 }, { "host": "cart.partner.example", "port": 15006, "weight": 1 } ],
    });
    world.put(
        "mesh_services/cart",
        json!({ "namespace": "partner", "ports": [80, { "port": 9090, "protocol": "grpc" }], "federated": federated }),
    );
    let upstream = json!({ "discovery_type": "mesh", "service_name": "partner/cart:9090", "type": "roundrobin" });
    world.put("upstreams/u", upstream);
    let theirs = ["spiffe://partner.example/ns/shop/svc/cart".into()];
    let whole = world.service("partner/cart").clone();
    assert_eq!((&whole.upstream.mesh.as_ref().unwrap().identities[..], &whole.own_ports), (&theirs[..], &vec![9090]));
    assert_eq!(world.service("partner/cart:9090").upstream.mesh.as_ref().unwrap().port, Some(9090));
    assert_eq!(world.endpoints("mesh/partner/cart"), ["203.0.113.7:15006*1^0", "cart.partner.example:15006*1^0"]);
    let gateway = world.upstream("upstreams/u").mesh.clone().unwrap();
    assert_eq!((&gateway.identities[..], gateway.port), (&theirs[..], Some(9090)));
    assert_eq!(world.endpoints("upstreams/u").len(), 2);

    let fault = |world: &World| world.directory.fault(&ServiceId::parse("partner/cart", "").unwrap());
    assert!(fault(&world).unwrap().contains("partner.example, of which no bundle is here"));
    world.directory = std::mem::take(&mut world.directory).beside(["partner.example".into()].into());
    assert_eq!(fault(&world), None);

    // What is ours and has the same name is not called instead, and what is ours by name is called by no address.
    world.found("partner/cart", Some(&["10.0.0.1"]));
    assert!(fault(&world).unwrap().contains("instances of ours have its name"));
    assert_eq!(world.endpoints("mesh/partner/cart"), ["203.0.113.7:15006*1^0", "cart.partner.example:15006*1^0"]);
    let own = world.directory.trust_domain().to_owned();
    let ours = json!({ "trust_domain": own, "nodes": [ { "host": "203.0.113.7", "port": 15006, "weight": 1 } ] });
    world.put("mesh_services/cart", json!({ "namespace": "partner", "federated": ours }));
    assert_eq!(world.endpoints("mesh/partner/cart"), [] as [&str; 0]);
    assert_eq!(world.endpoints("upstreams/u"), [] as [&str; 0], "a gateway follows");
    assert!(fault(&world).unwrap().contains("our own"));
    world.put("mesh_services/cart", json!({ "namespace": "partner" }));
    assert_eq!(world.endpoints("mesh/partner/cart"), ["10.0.0.1:15006*1^0"]);
}
