//! An agent that starts with the bootstrap of an Envoy: what it holds itself passes traffic without a control plane.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use heddle_integration::ads::{Ads, Follower, any, assignment, manager, routes, socket};
use heddle_integration::certificates::Authority;
use heddle_integration::client;
use heddle_integration::heddle::binary;
use heddle_integration::nginx::Nginx;
use heddle_integration::openssl::Signer;
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use serde_json::{Value, json};

/// An agent with this bootstrap, whose listener is at `http` and whose own endpoint at `admin`.
struct Agent {
    process: Process,
    place: Place,
    http: SocketAddr,
    admin: SocketAddr,
}

impl Agent {
    fn start(resources: impl Fn(SocketAddr) -> String) -> Agent {
        let place = Place::new();
        let (http, admin) = (place.address(), place.address());
        let data = place.path("data");
        place.write("heddle.yaml", &format!("node: {{ data_dir: \"{}\" }}\nagent: {{ workers: 1 }}\n", data.display()));
        let bootstrap = format!(
            "node: {{ id: edge-1, cluster: edge }}\n\
             admin: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }}\n\
             static_resources:\n{}",
            admin.ip(),
            admin.port(),
            resources(http)
        );
        place.write("bootstrap.yaml", &bootstrap);
        let mut command = Command::new(binary());
        command.args(["agent", "-c", "heddle.yaml", "--envoy-bootstrap", "bootstrap.yaml"]).current_dir(place.folder.path());
        let process = Process::start(command, place.path("agent.log"));
        Agent { process, place, http, admin }
    }

    fn wait_ready(&self) {
        until("the agent to be ready", || client::get(self.admin, "/ready").ok().filter(|answer| answer.status == 200));
    }

    fn ask(&self, host: &str, target: &str) -> client::Answer {
        client::send(self.http, "GET", target, &[("Host", host)], b"").expect("the agent answers")
    }
}

/// A listener, its routes and two clusters, as an Envoy's file has them.
fn resources(http: SocketAddr, blue: SocketAddr, green: SocketAddr) -> String {
    let cluster = |name: &str, address: SocketAddr| {
        format!(
            "  - name: {name}\n    type: STATIC\n    connect_timeout: 1s\n    load_assignment:\n      cluster_name: {name}\n      endpoints:\n      - lb_endpoints:\n        - endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }}\n",
            address.ip(),
            address.port()
        )
    };
    format!(
        r#"  listeners:
  - name: ingress
    address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          strip_any_host_port: true
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            name: local
            virtual_hosts:
            - name: shop
              domains: [shop.example, "*.shop.example"]
              routes:
              - match: {{ prefix: /api, headers: [{{ name: x-canary, string_match: {{ exact: "1" }} }}] }}
                route: {{ cluster: green }}
              - match: {{ prefix: /api/v1 }}
                route: {{ cluster: blue }}
              - match: {{ path: /teapot }}
                direct_response: {{ status: 418, body: {{ inline_string: "short and stout" }} }}
              - match: {{ prefix: /old }}
                redirect: {{ prefix_rewrite: /new, response_code: FOUND }}
            - name: rest
              domains: ["*"]
              routes:
              - match: {{ prefix: / }}
                route: {{ cluster: green, timeout: 5s }}
                response_headers_to_add: [{{ header: {{ key: x-from, value: rest }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}]
  clusters:
{}{}"#,
        cluster("blue", blue),
        cluster("green", green),
        ip = http.ip(),
        port = http.port(),
    )
}

#[test]
fn listeners_routes_and_clusters_of_a_file_pass_traffic() {
    let (blue, green) = (Nginx::saying("blue"), Nginx::saying("green"));
    let agent = Agent::start(|http| resources(http, blue.address, green.address));
    agent.wait_ready();
    assert_eq!(agent.ask("shop.example", "/api/v1/x").text(), "blue");
    let told = agent.process.output();
    assert!(told.contains("none: the bootstrap has everything") && !told.contains("18000"), "whom it follows: {told}");
    let canary = client::send(agent.http, "GET", "/api/v1/x", &[("Host", "shop.example"), ("X-Canary", "1")], b"").unwrap();
    assert_eq!(canary.text(), "green", "the first route that fits decides, though another says more of the path");
    let teapot = agent.ask("a.shop.example:80", "/teapot");
    assert_eq!(
        (teapot.status, teapot.text().as_str(), teapot.field("content-type")),
        (418, "short and stout", Some("text/plain"))
    );
    let moved = agent.ask("shop.example", "/old/x?y=1");
    assert_eq!((moved.status, moved.field("location")), (302, Some("http://shop.example/new/x?y=1")));
    assert_eq!(agent.ask("shop.example", "/none").status, 404, "a virtual host that was chosen keeps its requests");
    let rest = agent.ask("other.example", "/none");
    assert_eq!((rest.text().as_str(), rest.field("x-from"), rest.field("server")), ("green", Some("rest"), Some("envoy")));
}

#[test]
fn what_a_file_asks_for_in_vain_is_told_with_its_place_and_nothing_starts() {
    let nobody: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let mut agent = Agent::start(|http| {
        let text = resources(http, nobody, nobody);
        text.replace("strip_any_host_port: true", "local_reply_config: {}")
            .replace("connect_timeout: 1s", "connect_timeout: 1s\n    lb_policy: CLUSTER_PROVIDED")
    });
    assert_eq!(agent.process.wait().code(), Some(2));
    let told = agent.process.output();
    for part in [
        "bootstrap.yaml:",
        "static_resources.clusters[0] (blue).lb_policy: \"CLUSTER_PROVIDED\" is not supported; supported are ROUND_ROBIN",
        "static_resources.listeners[0] (ingress).filter_chains[0].filters[0].typed_config.local_reply_config: is not supported",
    ] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
    assert!(agent.place.path("bootstrap.yaml").exists());
}

#[test]
fn what_is_no_bootstrap_is_told_with_its_line_and_nothing_starts() {
    let place = Place::new();
    let told = |name: &str, text: &str| {
        place.write(name, text);
        let command =
            Command::new(binary()).args(["agent", "--envoy-bootstrap", name]).current_dir(place.folder.path()).output().unwrap();
        assert_eq!(command.status.code(), Some(2), "{name}");
        String::from_utf8(command.stderr).unwrap()
    };
    let ads = "{ api_type: GRPC, grpc_services: [{ envoy_grpc: { cluster_name: nobody } }] }";
    let unpassed = "overload_manager: {}\nnodes: {}\n";
    for (name, text, expected) in [
        ("odd.yaml", "node: [\n", "odd.yaml:1:7: expected YAML"),
        ("odd.json", "{\"node\": {\"id\": \"a\",}}", "odd.json:1:21: expected JSON"),
        ("empty.yaml", "", "empty.yaml:1:1: expected a message, found nothing"),
        ("list.json", "[1]", "list.json:1:1: expected a message, found a list"),
        ("twice.yaml", "node: { id: a }\nnode: { id: b }\n", "twice.yaml:2:1: the key `node` is given twice"),
        ("unknown.yaml", unpassed, "unknown.yaml:2:8: nodes: is not supported"),
        (
            "admin.yaml",
            "admin: { address: { pipe: { path: /x } } }\n",
            "admin.address.pipe: Unix domain sockets are not supported",
        ),
        ("ads.yaml", &format!("dynamic_resources: {{ ads_config: {ads} }}\n"), "there is no static cluster nobody"),
    ] {
        let told = told(name, text);
        assert!(told.contains(expected), "{expected} is not in:\n{told}");
    }
}

#[test]
fn an_endpoint_where_nobody_listens_costs_no_request_where_the_route_says_so() {
    let (green, nobody) = (Nginx::saying("green"), Place::new().address());
    let endpoint = |at: SocketAddr| {
        format!(
            "        - endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }}\n",
            at.ip(),
            at.port()
        )
    };
    for (policy, all_good) in [("", false), (", retry_policy: { retry_on: connect-failure, num_retries: 1 }", true)] {
        let agent = Agent::start(|http| {
            let usual = "route: { cluster: green, timeout: 5s";
            let text = resources(http, green.address, green.address).replace(usual, &format!("{usual}{policy}"));
            text.replace(&endpoint(green.address), &(endpoint(green.address) + &endpoint(nobody)))
        });
        agent.wait_ready();
        let posted = || client::send(agent.http, "POST", "/", &[("Host", "other.example")], b"more").unwrap().status;
        let statuses: Vec<u16> = (0..20).map(|_| posted()).collect();
        assert_eq!(statuses.iter().all(|status| *status == 200), all_good, "{policy}: {statuses:?}");
    }
}

/// A listener that answers by itself with its name.
fn answering(name: &str, at: SocketAddr) -> Value {
    let answer = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 200, "body": { "inline_string": name } } });
    let table = json!({ "name": name, "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [answer] }] });
    leading(name, at, table)
}

fn leading(name: &str, at: SocketAddr, table: Value) -> Value {
    json!({ "name": name, "address": socket(at), "filter_chains": [{ "filters": [manager(json!({ "route_config": table }))] }] })
}

#[test]
fn what_cannot_be_used_or_leads_nowhere_is_told_at_the_start() {
    let place = Place::new();
    let (authority, at) = (Authority::new(), place.address());
    let told = |bootstrap: Value| {
        place.write("bootstrap.json", &bootstrap.to_string());
        let mut command = Command::new(binary());
        command.args(["agent", "--envoy-bootstrap", "bootstrap.json"]).current_dir(place.folder.path());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let statics = |resources: Value| told(json!({ "static_resources": resources }));
    let said = statics(json!({ "listeners": [answering("one", at), answering("two", at)] }));
    let taken = format!("static_resources.listeners[1] (two).address: {at} is the address of the listener one");
    assert!(said.contains("bootstrap.json:1:") && said.contains(&taken), "{said}");
    let (mine, other) = (authority.issue(&["a.example"]), authority.issue(&["b.example"]));
    let (chain, key) = (place.write("chain.pem", &mine.certificate), place.write("key.pem", &other.key));
    let pair = json!({ "certificate_chain": { "filename": chain }, "private_key": { "filename": key } });
    let said = statics(json!({ "secrets": [{ "name": "shown", "tls_certificate": pair }] }));
    let wrong = "static_resources.secrets[0] (shown).tls_certificate.private_key: is the key of another certificate";
    assert!(said.contains(wrong), "{said}");
    let nowhere = routes(&[("/", "nobody")]);
    let said = statics(json!({ "listeners": [leading("in", at, nowhere.clone())] }));
    assert!(said.contains("static_resources.listeners[0] (in)") && said.contains("leads to the cluster \"nobody\""), "{said}");
    let said = told(json!({ "node": { "id": "edge 1" } }));
    assert!(said.contains("node.id: expected a name of at most 128 bytes without spaces"), "{said}");
}

#[test]
fn tokens_are_judged_by_keys_in_a_file() {
    let (signer, place) = (Signer::new("EdDSA"), Place::new());
    let keys = place.write("keys.json", &signer.published().to_string());
    let agent = Agent::start(|http| {
        let provider = json!({ "issuer": "issuer", "local_jwks": { "filename": keys } });
        let rule = json!({ "match": { "prefix": "/" }, "requires": { "provider_name": "p" } });
        let authn = json!({ "providers": { "p": provider }, "rules": [rule] });
        let message = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
        let mut listener = answering("known", http);
        let filters = &mut listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
        filters.as_array_mut().unwrap().insert(0, json!({ "name": "token", "typed_config": any(message, authn) }));
        format!("  listeners: [{listener}]\n")
    });
    agent.wait_ready();
    let status = |signer: &Signer| {
        let token = signer.token(&json!({ "iss": "issuer", "sub": "ann", "exp": 4_000_000_000_u64 }));
        client::send(agent.http, "GET", "/", &[("Authorization", token.as_str())], b"").unwrap().status
    };
    assert_eq!((agent.ask("a.example", "/").status, status(&signer), status(&Signer::new("EdDSA"))), (401, 200, 401));
}

#[test]
fn a_listener_that_left_the_bootstrap_stays_closed_while_the_control_plane_is_away() {
    let mut ads = Ads::start();
    let bootstrap = |ads: SocketAddr, admin: SocketAddr, listeners: Value| {
        let source = json!({ "ads": {}, "resource_api_version": "V3" });
        let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let http2 = any(options, json!({ "explicit_http_config": { "http2_protocol_options": {} } }));
        json!({
            "admin": { "address": socket(admin) },
            "dynamic_resources": {
                "ads_config": { "api_type": "DELTA_GRPC", "grpc_services": [{ "envoy_grpc": { "cluster_name": "control" } }] },
                "lds_config": source, "cds_config": source,
            },
            "static_resources": { "listeners": listeners, "clusters": [{
                "name": "control", "type": "STATIC", "connect_timeout": "1s", "typed_extension_protocol_options": { options: http2 },
                "load_assignment": assignment("control", &[ads]),
            }] },
        })
        .to_string()
    };
    let control = ads.address;
    let mut agent = Follower::with_bootstrap(|spot| {
        let listeners = json!([answering("stays", spot.http), answering("goes", spot.https)]);
        bootstrap(control, spot.admin, listeners)
    });
    let told = agent.spot.place.address();
    ads.serve(&json!({ "Listener": [answering("told", told)] }));
    let says = |at: SocketAddr, name: &str| {
        until(name, || client::get(at, "/").ok().filter(|answer| answer.text() == name));
    };
    says(agent.spot.http, "stays");
    says(agent.spot.https, "goes");
    says(told, "told");
    let disk = agent.spot.place.path("data/last-good.xds");
    until("all of it to be on disk", || {
        let bytes = std::fs::read(&disk).ok()?;
        ["stays", "goes", "told"].iter().all(|name| bytes.windows(name.len()).any(|part| part == name.as_bytes())).then_some(())
    });
    ads.stop();
    let next = bootstrap(control, agent.spot.admin, json!([answering("stays", agent.spot.http)]));
    agent.start_again(&next);
    says(told, "told");
    says(agent.spot.http, "stays");
    assert!(TcpStream::connect(agent.spot.https).is_err(), "nobody listens where it was");
    let moved = bootstrap(control, agent.spot.admin, json!([answering("stays", agent.spot.http), answering("new", told)]));
    agent.start_again(&moved);
    says(told, "new");
    assert!((0..20).all(|_| client::get(told, "/").unwrap().text() == "new"), "it is the only one there");
}
