//! Real grpcio without a proxy on Heddle's control plane: its clients and servers ask by name and are given the part of Envoy's types that they know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use heddle_integration::certificates::{Authority, Files};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::mesh::Mesh;
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use heddle_integration::proxyless::{Client, bootstrap, server};
use serde_json::{Value, json};

/// A server that knows of no control plane.
struct Said {
    address: SocketAddr,
    _process: Process,
}

impl Said {
    fn new(place: &Place, saying: &str) -> Said {
        let address = place.address();
        Said { address, _process: server(place, address, saying, None) }
    }
}

fn upstream(heddle: &Heddle, id: &str, nodes: &[SocketAddr], more: Value) {
    let nodes: serde_json::Map<String, Value> = nodes.iter().map(|node| (node.to_string(), json!(1))).collect();
    let mut upstream = json!({ "scheme": "grpc", "nodes": nodes });
    upstream.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    heddle.put(&format!("/upstreams/{id}"), upstream);
}

fn route(heddle: &Heddle, id: &str, uri: &str, upstream: &str, more: Value) {
    let mut route = json!({ "uri": uri, "host": "shop.example", "upstream_id": upstream });
    route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    heddle.put(&format!("/routes/{id}"), route);
}

fn node(heddle: &Heddle, id: &str) -> Value {
    let nodes = heddle.admin("GET", "/nodes", Value::Null).json();
    nodes.as_array().unwrap().iter().find(|node| node["id"] == id).cloned().unwrap_or_else(|| panic!("no {id} in {nodes}"))
}

/// A client of routes follows what is changed, whichever way it has to its control plane.
fn follows(heddle: &mut Heddle, bootstrap: &Path, id: &str) {
    let place = Place::new();
    let [one, two, three] = ["one", "two", "three"].map(|saying| Said::new(&place, saying));
    upstream(heddle, "u", &[one.address], json!({}));
    upstream(heddle, "v", &[three.address], json!({}));
    route(heddle, "all", "/story.Echo/*", "u", json!({}));
    let mut client = Client::of("xds:///shop.example", bootstrap, "plain");
    client.until_says("Unary", "one");
    upstream(heddle, "u", &[two.address], json!({}));
    client.until_says("Unary", "two");
    route(heddle, "canary", "/story.Echo/*", "v", json!({ "vars": [["http_x_canary", "==", "yes"]], "priority": 10 }));
    client.until_says("Unary x-canary=yes", "three");
    assert_eq!(client.call("Unary")["saying"], "two");
    let told = node(heddle, id);
    assert_eq!((&told["speaks"], &told["nacks"]), (&json!("grpc"), &json!([])), "{told}");
    heddle.process.kill();
    for _ in 0..20 {
        assert_eq!(client.call("Unary")["saying"], "two", "the control plane is away");
    }
    heddle.start_again();
    upstream(heddle, "u", &[one.address], json!({}));
    client.until_says("Unary", "one");
    heddle.admin("DELETE", "/routes/canary", Value::Null);
    client.until_says("Unary x-canary=yes", "one");
}

#[test]
fn a_client_follows_routes_and_endpoints_and_outlives_its_control_plane() {
    let mut heddle = Heddle::control_plane(Setup::default());
    let bootstrap = bootstrap(&heddle.place, heddle.xds, "client-1", None);
    follows(&mut heddle, &bootstrap, "client-1");
}

#[test]
fn a_client_follows_over_mutual_tls_and_outlives_its_control_plane() {
    // gRPC looks for the name of a host in the certificate of the control plane.
    let mut mesh = Mesh::start(&format!(", names: [\"{}\"]", Place::new().ip));
    let program = mesh.grpc_program("gateway", &json!({ "role": "gateway" }));
    follows(&mut mesh.control, &program.bootstrap, "gateway-grpc");
}

#[test]
fn what_a_client_refuses_is_shown_in_its_own_words_on_the_resource_that_caused_it() {
    let place = Place::new();
    let [one, two] = ["one", "two"].map(|saying| Said::new(&place, saying));
    let heddle = Heddle::control_plane(Setup::default());
    let bootstrap = bootstrap(&place, heddle.xds, "client-1", None);
    let mut client = Client::of("xds:///shop.example", &bootstrap, "plain");
    upstream(&heddle, "u", &[one.address], json!({}));
    route(&heddle, "all", "/story.Echo/*", "u", json!({}));
    client.until_says("Unary", "one");
    let status = |state: &str| {
        until(state, || {
            let told = heddle.cli(&["get", "upstreams", "u", "--status", "-o", "json"]);
            let told: Value = serde_json::from_slice(&told.stdout).ok()?;
            Some(told[0].clone()).filter(|told| told["state"] == state)
        })
    };
    // Its bootstrap has no certificates, of which a control plane cannot know.
    upstream(&heddle, "u", &[one.address], json!({ "scheme": "grpcs", "tls": { "verify": true } }));
    let refused = status("refused");
    assert_eq!((&refused["node"], &refused["speaks"]), (&json!("client-1"), &json!("grpc")), "{refused}");
    let words = "unrecognized certificate provider instance name";
    assert!(refused["reason"].as_str().unwrap().contains(words), "{refused}");
    assert_eq!(client.call("Unary")["saying"], "one", "what it took before stays");
    assert!(node(&heddle, "client-1")["nacks"].to_string().contains(words));
    upstream(&heddle, "u", &[two.address], json!({}));
    client.until_says("Unary", "two");
    status("confirmed");
}

#[test]
fn weights_that_clients_cannot_add_up_are_told_as_smaller_ones() {
    let place = Place::new();
    let servers = ["one", "two", "three"].map(|saying| Said::new(&place, saying));
    let heddle = Heddle::control_plane(Setup::default());
    let bootstrap = bootstrap(&place, heddle.xds, "client-1", None);
    let mut client = Client::of("xds:///shop.example", &bootstrap, "plain");
    let [one, two, three] = servers.each_ref().map(|server| server.address.to_string());
    heddle.put("/upstreams/u", json!({ "scheme": "grpc", "nodes": { one: u32::MAX, two: u32::MAX - 1 } }));
    heddle.put("/upstreams/v", json!({ "scheme": "grpc", "nodes": { three: 1 } }));
    let shares = json!([{ "upstream_id": "u", "weight": u32::MAX }, { "upstream_id": "v", "weight": u32::MAX - 1 }]);
    let split = json!({ "plugins": { "traffic-split": { "rules": [{ "weighted_upstreams": shares }] } } });
    route(&heddle, "all", "/story.Echo/*", "u", split);
    for saying in ["one", "two", "three"] {
        client.until_says("Unary", saying);
    }
    let node = node(&heddle, "client-1");
    assert_eq!((&node["nacks"], &node["withheld"]), (&json!([]), &json!([])), "{node}");
}

#[test]
fn a_route_that_clients_of_grpc_cannot_guard_fails_and_a_service_that_is_gone_is_missing_at_once() {
    let place = Place::new();
    let one = Said::new(&place, "one");
    let heddle = Heddle::control_plane(Setup::default());
    let bootstrap = bootstrap(&place, heddle.xds, "client-1", None);
    let mut client = Client::of("xds:///shop.example", &bootstrap, "plain");
    upstream(&heddle, "u", &[one.address], json!({}));
    route(&heddle, "all", "/story.Echo/*", "u", json!({}));
    client.until_says("Unary", "one");
    let guarded = json!({ "plugins": { "hmac-auth": {} } });
    route(&heddle, "all", "/story.Echo/*", "u", guarded);
    until("no way without what guards it", || (client.call("Unary")["code"] == "UNAVAILABLE").then_some(()));
    let node = heddle.admin("GET", "/nodes", Value::Null).json()[0].clone();
    assert_eq!(node["withheld"][0]["reason"], "plugin hmac-auth: Envoy has no counterpart", "{node}");
    route(&heddle, "all", "/story.Echo/*", "u", json!({ "plugins": {} }));
    client.until_says("Unary", "one");
    heddle.admin("DELETE", "/routes/all", Value::Null);
    until("no such service", || (client.call("Unary")["code"] == "UNAVAILABLE").then_some(()));
}

#[test]
fn a_call_that_found_its_server_too_busy_is_made_again_by_client_and_gateway_alike() {
    let heddle = Heddle::run();
    let said = Said::new(&heddle.place, "one");
    upstream(&heddle, "u", &[said.address], json!({}));
    let retry = json!({ "attempts": 3, "methods": ["POST"], "grpc_statuses": ["UNAVAILABLE"] });
    heddle.put("/routes/r", json!({ "uri": "/story.Echo/Again*", "upstream_id": "u", "plugins": { "retry": retry } }));
    heddle.put("/routes/s", json!({ "uri": "/story.Echo/Once", "upstream_id": "u" }));
    let bootstrap = bootstrap(&heddle.place, heddle.xds, "client-1", None);
    for (way, target) in [("itself", "xds:///shop.example".to_owned()), ("gateway", heddle.http.to_string())] {
        let mut client = Client::of(&target, &bootstrap, "plain");
        client.until_says("Again", "one");
        assert_eq!(client.call(&format!("Again x-busy={way}-two/2"))["saying"], "one", "{way}");
        assert_eq!(client.call(&format!("Again x-busy={way}-three/3"))["code"], "UNAVAILABLE", "{way}");
        client.until_says("Once", "one");
        assert_eq!(client.call(&format!("Once x-busy={way}-one/1"))["code"], "UNAVAILABLE", "{way}");
    }
}

#[test]
fn a_name_in_the_place_of_an_address_is_looked_up_by_the_client_itself() {
    let place = Place::new();
    // The name stands for that address, whichever the story has for the rest.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _server = server(&place, SocketAddr::from(([127, 0, 0, 1], port)), "named", None);
    let heddle = Heddle::control_plane(Setup::default());
    heddle.put("/upstreams/u", json!({ "scheme": "grpc", "nodes": { format!("localhost:{port}"): 1 } }));
    route(&heddle, "all", "/story.Echo/*", "u", json!({}));
    let bootstrap = bootstrap(&place, heddle.xds, "client-1", None);
    let mut client = Client::of("xds:///shop.example", &bootstrap, "plain");
    client.until_says("Unary", "named");
    let node = heddle.admin("GET", "/nodes", Value::Null).json()[0].clone();
    assert_eq!((&node["nacks"], &node["withheld"]), (&json!([]), &json!([])), "{node}");
}

/// A certificate of an authority in files of its own.
fn files(place: &Place, authority: &Authority, name: &str) -> Files {
    let pair = authority.issue(&[name]);
    Files {
        chain: place.write(&format!("{name}.crt"), &pair.certificate),
        key: place.write(&format!("{name}.key"), &pair.key),
        roots: place.write(&format!("{name}.roots"), &authority.pem()),
    }
}

#[test]
fn client_and_server_speak_mutual_tls_by_the_certificates_of_their_bootstraps() {
    let place = Place::new();
    let (authority, other) = (Authority::new(), Authority::new());
    let heddle = Heddle::control_plane(Setup::default());
    let address = place.address();
    let written =
        |id: &str, authority: &Authority| -> PathBuf { bootstrap(&place, heddle.xds, id, Some(&files(&place, authority, id))) };
    let of_server = written("server-1", &authority);
    let _server = server(&place, address, "mutual", Some((&of_server, "mtls")));
    let tls = json!({ "scheme": "grpcs", "tls": { "verify": true, "sni": "server-1" } });
    upstream(&heddle, "u", &[address], tls.clone());
    route(&heddle, "all", "/story.Echo/*", "u", json!({}));
    let mut stranger = Client::of("xds:///shop.example", &written("stranger", &authority), "mtls");
    let told = stranger.call("Unary");
    assert_eq!(told["code"], "UNAVAILABLE", "it shows no certificate: {told}");
    let own = authority.issue(&["client-1"]);
    heddle.put("/ssls/own", json!({ "type": "client", "cert": own.certificate, "key": own.key }));
    let mut tls = tls;
    tls["tls"]["client_cert_id"] = json!("own");
    upstream(&heddle, "u", &[address], tls);
    stranger.until_says("Unary", "mutual");
    let mut fake = Client::of("xds:///shop.example", &written("fake", &other), "mtls");
    assert_eq!(fake.call("Unary")["code"], "UNAVAILABLE", "of another authority");
    let mut clear = Client::of(&address.to_string(), &of_server, "plain");
    assert_eq!(clear.call("Unary")["code"], "UNAVAILABLE", "the server takes nothing in clear");
    let nodes = heddle.admin("GET", "/nodes", Value::Null).json();
    assert!(nodes.as_array().unwrap().iter().all(|node| node["speaks"] == "grpc" && node["nacks"] == json!([])), "{nodes}");
}
