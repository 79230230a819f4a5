//! Heddle's agent on control planes of Envoy's types: one on Envoy's own messages that is not ours, and Heddle's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use heddle_integration::ads::{Ads, Follower, Spot, any, assignment, cluster, listener, manager, routes, socket};
use heddle_integration::certificates::{Authority, Pair};
use heddle_integration::client::{self, Answer};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::mesh::Mesh;
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// Longer than this nothing takes that does not wait for what never comes: Envoy's patience is 15 s.
const NO_STALL: Duration = Duration::from_secs(12);

/// Both ways to speak xDS have to tell the same story.
fn both(story: impl Fn(&mut Ads, &Follower, &str)) {
    for dialect in ["envoy", "envoy-sotw"] {
        let mut ads = Ads::start();
        let agent = Follower::follow(ads.address, dialect);
        story(&mut ads, &agent, dialect);
    }
}

/// The same in clear and over mutual TLS.
fn each_way(story: impl Fn(&mut Ads, &Follower, &str)) {
    both(&story);
    let (authority, who) = (Authority::new(), json!({ "id": "edge-1", "cluster": "gateway" }));
    for (dialect, api) in [("envoy", "DELTA_GRPC"), ("envoy-sotw", "GRPC")] {
        let mut ads = Ads::start_tls(&authority);
        let agent = Follower::with_bootstrap(|spot| bootstrap(ads.address, &authority, spot, (&who, api)));
        story(&mut ads, &agent, dialect);
    }
}

/// One listener, its routes, and clusters with their endpoints.
fn world(http: SocketAddr, to: &[(&str, &str)], clusters: &[(&str, SocketAddr)]) -> Value {
    json!({
        "Listener": [listener("in", http)],
        "RouteConfiguration": [routes(to)],
        "Cluster": clusters.iter().map(|(name, _)| cluster(name)).collect::<Vec<_>>(),
        "ClusterLoadAssignment": clusters.iter().map(|(name, address)| assignment(name, &[*address])).collect::<Vec<_>>(),
    })
}

#[test]
fn everything_arrives_at_the_start_and_routes_and_endpoints_change() {
    let (one, two) = (Nginx::saying("one"), Nginx::saying("two"));
    each_way(|ads, agent, dialect| {
        let start = Instant::now();
        ads.serve(&world(agent.spot.http, &[("/", "a")], &[("a", one.address), ("b", two.address)]));
        agent.until_ready();
        agent.until_says("/", 200, "one");
        let node =
            ads.events().iter().find_map(|event| event["node"].as_object().cloned()).expect("the first request says who asks");
        assert_eq!(
            (&node["id"], &node["userAgentName"], &node["cluster"]),
            (&json!("edge-1"), &json!("heddle"), &json!("gateway"))
        );
        ads.serve(&world(agent.spot.http, &[("/b", "b"), ("/", "a")], &[("a", one.address), ("b", two.address)]));
        agent.until_says("/b", 200, "two");
        assert_eq!(agent.get("/").text(), "one");
        ads.serve(&world(agent.spot.http, &[("/", "a")], &[("a", two.address)]));
        agent.until_says("/", 200, "two");
        assert!(start.elapsed() < NO_STALL, "{dialect}: {:?}", start.elapsed());
        let refused: Vec<Value> = ads.events().into_iter().filter(|event| event["error"].is_string()).collect();
        assert!(refused.is_empty(), "{refused:?}");
        let way = if dialect == "envoy" { "delta" } else { "sotw" };
        assert!(ads.events().iter().all(|event| event.get("way").is_none_or(|said| *said == *way)));
    });
}

#[test]
fn a_bad_resource_is_refused_by_its_field_and_the_rest_goes_live() {
    let nginx = Nginx::saying("up");
    each_way(|ads, agent, _| {
        let mut world =
            world(agent.spot.http, &[("/odd", "odd"), ("/", "good")], &[("good", nginx.address), ("odd", nginx.address)]);
        world["Cluster"][1]["lb_subset_config"] = json!({ "fallback_policy": "ANY_ENDPOINT" });
        ads.serve(&world);
        agent.until_says("/", 200, "up");
        let refused = ads.until_refused("odd");
        assert_eq!(refused.lines().count(), 1, "{refused}");
        assert!(refused.contains("Cluster odd: lb_subset_config: "), "{refused}");
        assert_eq!(agent.get("/odd").status, 503, "its cluster is not there");
        // Mended it goes live; what was good and is sent worse stays as it was.
        world["Cluster"][1].as_object_mut().unwrap().remove("lb_subset_config");
        ads.serve(&world);
        agent.until_says("/odd", 200, "up");
        world["RouteConfiguration"][0]["virtual_hosts"][0]["routes"][0]["route"]["cluster_header"] = json!("x-where");
        world["RouteConfiguration"][0]["virtual_hosts"][0]["routes"][0]["route"].as_object_mut().unwrap().remove("cluster");
        ads.serve(&world);
        let refused = ads.until_refused("cluster_header");
        assert!(refused.starts_with("RouteConfiguration routes: virtual_hosts[0].routes[0].route.cluster_header: "), "{refused}");
        assert_eq!(agent.get("/odd").text(), "up", "the last good version stays");
        // Nor is a client believed about what only an Envoy in front could say.
        world["RouteConfiguration"][0]["virtual_hosts"][0]["routes"][0] = json!({
            "match": { "prefix": "/odd", "headers": [{ "name": "x-envoy-internal", "string_match": { "exact": "true" } }] },
            "direct_response": { "status": 200 },
        });
        ads.serve(&world);
        let refused = ads.until_refused("x-envoy-internal");
        assert!(
            refused.starts_with("RouteConfiguration routes: virtual_hosts[0].routes[0].match.headers[0].name: "),
            "{refused}"
        );
        assert_eq!(agent.get("/odd").text(), "up");
    });
}

#[test]
fn a_control_plane_that_is_gone_is_missed_by_nobody_and_found_again() {
    let (one, two) = (Nginx::saying("one"), Nginx::saying("two"));
    each_way(|ads, agent, dialect| {
        ads.serve(&world(agent.spot.http, &[("/", "a")], &[("a", one.address)]));
        agent.until_says("/", 200, "one");
        until("everything to be settled", || (asked(ads, "RouteConfiguration") > 0).then_some(()));
        ads.stop();
        assert_eq!(agent.get("/").text(), "one");
        ads.serve(&world(agent.spot.http, &[("/", "a")], &[("a", two.address)]));
        let before = ads.events().len();
        ads.start_again();
        agent.until_says("/", 200, "two");
        let hello: Vec<Value> = ads.events().split_off(before);
        if dialect == "envoy" {
            let clusters = hello.iter().find(|event| event["type"] == "Cluster").expect("clusters are asked for");
            assert_eq!(clusters["initial"], json!(["a"]), "what is held is said, so that it is not sent again");
        }
    });
}

/// How often a type was asked for or answered.
fn asked(ads: &Ads, kind: &str) -> usize {
    ads.events().iter().filter(|event| event["type"] == kind).count()
}

#[test]
fn clusters_that_change_keep_the_endpoints_that_stay_without_a_stall() {
    let nginx = Nginx::saying("up");
    each_way(|ads, agent, dialect| {
        let mut world = world(agent.spot.http, &[("/", "a")], &[("a", nginx.address)]);
        ads.serve(&world);
        agent.until_says("/", 200, "up");
        let start = Instant::now();
        for round in 1..5 {
            world["Cluster"][0]["connect_timeout"] = json!(format!("{}s", round + 1));
            let status = 200 + round;
            let answer = json!({ "match": { "path": "/round" }, "direct_response": { "status": status } });
            world["RouteConfiguration"][0]["virtual_hosts"][0]["routes"][0] = answer;
            ads.serve(&world);
            agent.until_says("/round", status, "");
        }
        assert!(start.elapsed() < NO_STALL, "{dialect}: {:?}", start.elapsed());
    });
}

fn secret(name: &str, pair: &Pair) -> Value {
    let pair =
        json!({ "certificate_chain": { "inline_string": pair.certificate }, "private_key": { "inline_string": pair.key } });
    json!({ "name": name, "tls_certificate": pair })
}

/// Serial number of the certificate that a listener shows.
fn serial(address: SocketAddr) -> String {
    let shell = format!(
        "openssl s_client -connect {address} -servername shop.example </dev/null 2>/dev/null | openssl x509 -noout -serial"
    );
    let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_certificate_comes_by_sds_and_is_rotated() {
    let (nginx, authority) = (Nginx::saying("up"), Authority::new());
    each_way(|ads, agent, _| {
        let mut world = world(agent.spot.https, &[("/", "a")], &[("a", nginx.address)]);
        let source = json!({ "name": "shown", "sds_config": { "ads": {}, "resource_api_version": "V3" } });
        let context = json!({ "common_tls_context": { "tls_certificate_sds_secret_configs": [source] } });
        let tls = any("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", context);
        world["Listener"][0]["filter_chains"][0]["transport_socket"] = json!({ "name": "tls", "typed_config": tls });
        world["Secret"] = json!([secret("shown", &authority.issue(&["shop.example"]))]);
        ads.serve(&world);
        agent.until_ready();
        let shown = || Some(serial(agent.spot.https)).filter(|serial| serial.starts_with("serial="));
        let first = until("a certificate", shown);
        world["Secret"] = json!([secret("shown", &authority.issue(&["shop.example"]))]);
        ads.serve(&world);
        until("the next certificate", || shown().filter(|serial| *serial != first));
    });
}

#[test]
fn key_material_of_no_use_is_refused_and_the_last_good_stays() {
    let (nginx, authority) = (Nginx::saying("up"), Authority::new());
    both(|ads, agent, _| {
        let mut world = world(agent.spot.https, &[("/", "a")], &[("a", nginx.address)]);
        let source = json!({ "name": "shown", "sds_config": { "ads": {}, "resource_api_version": "V3" } });
        let context = json!({ "common_tls_context": { "tls_certificate_sds_secret_configs": [source] } });
        let downstream = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
        world["Listener"][0]["filter_chains"][0]["transport_socket"] =
            json!({ "name": "tls", "typed_config": any(downstream, context) });
        let good = authority.issue(&["shop.example"]);
        world["Secret"] = json!([secret("shown", &good)]);
        ads.serve(&world);
        agent.until_ready();
        let shown = || Some(serial(agent.spot.https)).filter(|serial| serial.starts_with("serial="));
        let first = until("a certificate", shown);
        let next = authority.issue(&["shop.example"]);
        world["Secret"] = json!([secret("shown", &Pair { key: good.key.clone(), ..next.clone() })]);
        let roots = json!({ "validation_context": { "trusted_ca": { "inline_string": "none" } } });
        let mut bad = cluster("bad");
        bad["transport_socket"] = json!({ "name": "tls", "typed_config": any(
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", json!({ "common_tls_context": roots }),
        ) });
        world["Cluster"].as_array_mut().unwrap().push(bad);
        let torn = json!([{ "certificate_chain": { "inline_string": "none" }, "private_key": { "inline_string": good.key } }]);
        let mut other = listener("other", agent.spot.http);
        other["filter_chains"][0]["transport_socket"] = json!({ "name": "tls", "typed_config": any(
            downstream, json!({ "common_tls_context": { "tls_certificates": torn } }),
        ) });
        world["Listener"].as_array_mut().unwrap().push(other);
        ads.serve(&world);
        let context = "transport_socket.typed_config.common_tls_context";
        ads.until_refused("Secret shown: tls_certificate.private_key: is the key of another certificate");
        ads.until_refused(&format!("Cluster bad: {context}.validation_context.trusted_ca: expected certificates as PEM"));
        let field = format!("filter_chains[0].{context}.tls_certificates[0].certificate_chain");
        ads.until_refused(&format!("Listener other: {field}: expected certificates as PEM"));
        assert_eq!(serial(agent.spot.https), first, "the last good one is shown");
        world["Secret"] = json!([secret("shown", &next)]);
        ads.serve(&world);
        until("the next certificate", || shown().filter(|serial| *serial != first));
    });
}

#[test]
fn one_address_is_for_one_listener_and_goes_to_the_next_when_that_leaves() {
    let nginx = Nginx::saying("first");
    both(|ads, agent, _| {
        let answering = |name: &str, at: SocketAddr| {
            let answer =
                json!({ "match": { "prefix": "/" }, "direct_response": { "status": 200, "body": { "inline_string": name } } });
            let table = json!({ "name": name, "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [answer] }] });
            json!({ "name": name, "address": socket(at), "filter_chains": [{ "filters": [manager(json!({ "route_config": table }))] }] })
        };
        let (here, there) = (agent.spot.http, agent.spot.https);
        let mut world = world(here, &[("/", "a")], &[("a", nginx.address)]);
        ads.serve(&world);
        agent.until_says("/", 200, "first");
        let first = world["Listener"][0].clone();
        world["Listener"] = json!([first, answering("second", here), answering("third", there)]);
        ads.serve(&world);
        let taken =
            format!("Listener second: address: {here} is the address of the listener in, and one address is for one listener");
        assert_eq!(ads.until_refused("second"), taken, "it alone");
        until("the third one", || client::get(there, "/").ok().filter(|answer| answer.text() == "third"));
        assert!((0..20).all(|_| agent.get("/").text() == "first"));
        world["Listener"] = json!([answering("second", here), answering("third", there)]);
        ads.serve(&world);
        agent.until_says("/", 200, "second");
        world["Listener"] = json!([answering("second", there), answering("third", agent.spot.place.address())]);
        ads.serve(&world);
        until("one that moves to where another one was", || {
            client::get(there, "/").ok().filter(|answer| answer.text() == "second")
        });
        let refused = ads.events().iter().filter(|event| event["error"].is_string()).count();
        assert_eq!(refused, 1, "nothing else was refused");
    });
}

/// A bootstrap that follows `control` with mutual TLS; it says who asks, and in which way.
fn bootstrap(control: SocketAddr, authority: &Authority, spot: &Spot, (who, api): (&Value, &str)) -> String {
    let own = authority.issue(&["edge.example"]);
    let file = |name: &str, text: &str| json!({ "filename": spot.place.write(name, text) });
    let pair = json!({ "certificate_chain": file("own.pem", &own.certificate), "private_key": file("own.key", &own.key) });
    let validation = json!({ "trusted_ca": file("roots.pem", &authority.pem()) });
    let common = json!({ "tls_certificates": [pair], "validation_context": validation });
    let tls = any(
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        json!({ "sni": "localhost", "common_tls_context": common }),
    );
    let source = json!({ "ads": {}, "resource_api_version": "V3" });
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let http2 = any(options, json!({ "explicit_http_config": { "http2_protocol_options": {} } }));
    json!({
        "node": who,
        "admin": { "address": socket(spot.admin) },
        "dynamic_resources": {
            "ads_config": {
                "api_type": api, "transport_api_version": "V3", "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "control" } }],
            },
            "lds_config": source, "cds_config": source,
        },
        "static_resources": { "clusters": [{
            "name": "control", "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": { options: http2 },
            "transport_socket": { "name": "tls", "typed_config": tls },
            "load_assignment": assignment("control", &[control]),
        }] },
    })
    .to_string()
}

#[test]
fn a_bootstrap_says_who_asks_and_how_the_control_plane_is_known() {
    let (nginx, authority) = (Nginx::saying("up"), Authority::new());
    let ads = Ads::start_tls(&authority);
    let who = json!({
        "id": "edge-7", "cluster": "edges", "metadata": { "TEAM": "shop", "WEIGHTS": [1, 2.5] },
        "locality": { "region": "eu", "zone": "eu-1a", "sub_zone": "rack-3" },
    });
    let agent = Follower::with_bootstrap(|spot| bootstrap(ads.address, &authority, spot, (&who, "DELTA_GRPC")));
    ads.serve(&world(agent.spot.http, &[("/", "a")], &[("a", nginx.address)]));
    agent.until_says("/", 200, "up");
    let node = ads.events().iter().find_map(|event| event["node"].as_object().cloned()).expect("the first request says who asks");
    assert_eq!((&node["id"], &node["cluster"]), (&json!("edge-7"), &json!("edges")));
    assert_eq!(node["locality"], json!({ "region": "eu", "zone": "eu-1a", "subZone": "rack-3" }));
    assert_eq!(node["metadata"], json!({ "TEAM": "shop", "WEIGHTS": [1.0, 2.5] }));
    let stranger = Authority::new();
    let agent = Follower::with_bootstrap(|spot| bootstrap(ads.address, &stranger, spot, (&who, "DELTA_GRPC")));
    until("a control plane of another authority to be refused", || {
        agent.process.output().contains("invalid peer certificate").then_some(())
    });
}

/// What users write most beside plain nodes and routes: probes without a host, zones, bounds of connections, limits by client. And of what agents do not read back from
/// Envoy's types they are told nothing, which is named; the other routes are there.
fn written(heddle: &Heddle, id: &str) {
    let (mut near, far) = (Nginx::saying("near"), Nginx::saying("far"));
    let node = |nginx: &Nginx, zone: &str| json!({ "host": nginx.address.ip().to_string(), "port": nginx.address.port(), "weight": 1, "zone": zone });
    let upstream = json!({
        "nodes": [node(&near, "a"), node(&far, "b")],
        "checks": { "active": { "type": "http", "http_path": "/up", "healthy": { "interval": 1, "successes": 1 },
            "unhealthy": { "interval": 1, "http_failures": 1, "tcp_failures": 1 } } },
        "circuit_breaker": { "max_connections": 7 },
    });
    heddle.put("/upstreams/zoned", upstream);
    let limit = json!({ "limit-count": { "count": 2, "time_window": 3600, "rejected_code": 429 } });
    heddle.put("/routes/limited", json!({ "uri": "/limited", "upstream_id": "zoned", "plugins": limit }));
    heddle.put("/routes/keyed", json!({ "uri": "/keyed", "upstream_id": "zoned", "plugins": { "key-auth": {} } }));
    let numbered = json!([["http_x_request_id", "~~", "^a"]]);
    heddle.put("/routes/numbered", json!({ "uri": "/numbered", "upstream_id": "zoned", "vars": numbered }));
    heddle.put("/routes/free", json!({ "uri": "/free", "upstream_id": "zoned" }));
    heddle.until_status("/free", 200);
    let asked = || heddle.get("/limited");
    let left = |answer: &Answer| answer.field("x-ratelimit-remaining").map(str::to_owned);
    let answers = [asked(), asked(), asked()];
    assert_eq!(answers.each_ref().map(|answer| answer.status), [200, 200, 429]);
    assert_eq!(answers.each_ref().map(left), ["1", "0", "0"].map(|left| Some(left.to_owned())));
    assert_eq!(heddle.get("/keyed").status, 404, "who asks for keys is told nothing without one");
    let told = until("the node", || {
        let nodes = heddle.admin("GET", "/nodes", Value::Null).json();
        nodes.as_array()?.iter().find(|node| node["id"] == id).cloned()
    });
    assert_eq!(told["nacks"], json!([]), "{told}");
    let withheld = told["withheld"].as_array().unwrap().iter().filter(|one| one["kind"] == "Route");
    assert_eq!(withheld.map(|one| &one["resource"]).collect::<Vec<_>>(), ["keyed", "numbered"], "{told}");
    let group = told["group"].as_str().unwrap();
    assert!(group.starts_with("gateway/envoy-dialect"), "what it refuses is not held from Envoys: {group}");
    near.process.kill();
    until("probes to find that one is gone", || (0..10).all(|_| heddle.get("/free").text() == "far").then_some(()));
    for route in ["limited", "keyed", "numbered", "free"] {
        assert_eq!(heddle.admin("DELETE", &format!("/routes/{route}"), Value::Null).status, 200);
    }
}

/// Heddle's own control plane drives an agent that asks for Envoy's types; `ready` waits until it can be asked.
fn driven(heddle: &mut Heddle, id: &str, ready: impl Fn()) {
    let (one, two) = (Nginx::saying("one"), Nginx::saying("two"));
    let says = |heddle: &Heddle, target: &str, text: &str| until(text, || (heddle.get(target).text() == text).then_some(()));
    let upstream =
        |heddle: &Heddle, nginx: &Nginx| heddle.put("/upstreams/u", json!({ "nodes": { nginx.address.to_string(): 1 } }));
    upstream(heddle, &one);
    heddle.put("/routes/r", json!({ "uri": "/shop/*", "upstream_id": "u" }));
    heddle.route("exact", "/shop/cart", two.address);
    ready();
    heddle.until_status("/shop/x", 200);
    says(heddle, "/shop/x", "one");
    says(heddle, "/shop/cart", "two");
    upstream(heddle, &two);
    says(heddle, "/shop/x", "two");
    assert_eq!(heddle.admin("DELETE", "/routes/r", Value::Null).status, 200);
    heddle.until_status("/shop/x", 404);
    let node = until("the node", || {
        let nodes = heddle.admin("GET", "/nodes", Value::Null).json();
        nodes.as_array()?.iter().find(|node| node["id"] == id).cloned()
    });
    assert_eq!((&node["speaks"], &node["nacks"]), (&json!("envoy"), &json!([])), "{node}");
    written(heddle, id);
    heddle.process.kill();
    assert_eq!(heddle.get("/shop/cart").text(), "two", "the control plane is away");
    heddle.start_again();
    heddle.route("exact", "/shop/cart", one.address);
    says(heddle, "/shop/cart", "one");
}

#[test]
fn heddles_own_control_plane_drives_an_agent_by_envoys_types() {
    for dialect in ["envoy", "envoy-sotw"] {
        let mut heddle = Heddle::control_plane(Setup::default());
        let agent = Follower::in_zone("a", heddle.xds, dialect);
        driven(&mut heddle, "edge-1", || agent.until_ready());
    }
}

#[test]
fn heddles_own_control_plane_drives_an_agent_with_an_identity_by_envoys_types() {
    for dialect in ["envoy", "envoy-sotw"] {
        let mut mesh = Mesh::start("");
        let gateway = mesh.gateway_with(&format!(", dialect: {dialect}"));
        driven(&mut mesh.control, "gw-1", || gateway.wait_ready());
    }
}

#[test]
fn routes_may_be_in_the_listener_itself() {
    let nginx = Nginx::saying("up");
    both(|ads, agent, _| {
        let mut world = world(agent.spot.http, &[], &[("a", nginx.address)]);
        world.as_object_mut().unwrap().remove("RouteConfiguration");
        world["Listener"][0]["filter_chains"][0]["filters"][0] = manager(json!({ "route_config": routes(&[("/", "a")]) }));
        ads.serve(&world);
        agent.until_says("/", 200, "up");
    });
}

#[test]
fn a_filter_is_configured_by_ecds_and_changes_while_traffic_passes() {
    let nginx = Nginx::saying("up");
    both(|ads, agent, _| {
        let mut world = world(agent.spot.http, &[("/", "a")], &[("a", nginx.address)]);
        let manager = &mut world["Listener"][0]["filter_chains"][0]["filters"][0]["typed_config"];
        let message = "envoy.extensions.filters.http.rbac.v3.RBAC";
        let source = json!({ "ads": {}, "resource_api_version": "V3" });
        let discovery = json!({ "config_source": source, "type_urls": [format!("type.googleapis.com/{message}")] });
        let filters = manager["http_filters"].as_array_mut().unwrap();
        filters.insert(0, json!({ "name": "who", "config_discovery": discovery }));
        let rbac = |path: &str| {
            let policy =
                json!({ "permissions": [{ "url_path": { "path": { "prefix": path } } }], "principals": [{ "any": true }] });
            let rules = json!({ "rules": { "action": "DENY", "policies": { "p": policy } } });
            json!([{ "name": "who", "typed_config": any(message, rules) }])
        };
        world["TypedExtensionConfig"] = rbac("/admin");
        ads.serve(&world);
        agent.until_says("/", 200, "up");
        agent.until_says("/admin/x", 403, "RBAC: access denied");
        world["TypedExtensionConfig"] = rbac("/other");
        ads.serve(&world);
        agent.until_says("/admin/x", 200, "up");
        agent.until_says("/other", 403, "RBAC: access denied");
    });
}
