//! The real Envoy asks Heddle's control plane for each type by a service of its own, refuses a route, and serves while routes move under load.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::certificates::Authority;
use heddle_integration::client;
use heddle_integration::envoy::{self, Envoy, Own, Way};
use heddle_integration::envoy_mesh::each_way;
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::load::Load;
use heddle_integration::mesh::Mesh;
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// Puts the certificate that a listener of TLS shows.
fn certificate(heddle: &Heddle) {
    let pair = Authority::new().issue(&["shop.example"]);
    heddle.put("/ssls/own", json!({ "snis": ["shop.example"], "cert": pair.certificate, "key": pair.key }));
}

#[test]
fn routes_endpoints_and_certificates_are_given_by_the_services_of_their_types_too() {
    let (one, two) = (Nginx::saying("one"), Nginx::saying("two"));
    each_way(|heddle, way, proof| {
        let own = Own { http: heddle.http, https: heddle.https, cluster: "upstreams/u", secret: "ssls/own/0" };
        let _envoy = Envoy::ask_by_type(heddle.xds, "envoy-1", way, &own, proof);
        let upstream = |nginx: &Nginx| heddle.put("/upstreams/u", json!({ "nodes": { nginx.address.to_string(): 1 } }));
        upstream(&one);
        certificate(heddle);
        heddle.put("/routes/r", json!({ "uri": "/hello", "upstream_id": "u" }));
        until("the listener", || client::get(heddle.http, "/hello").ok());
        assert_eq!(heddle.until_status("/hello", 200).text(), "one");
        heddle.until_said_over_tls("shop.example", "/hello", "one");
        upstream(&two);
        until("two", || (heddle.get("/hello").text() == "two").then_some(()));
        heddle.put("/routes/r", json!({ "uri": "/other", "upstream_id": "u" }));
        heddle.until_status("/other", 200);
    });
}

#[test]
fn clusters_and_listeners_are_given_by_the_services_of_their_types_too() {
    let (one, two) = (Nginx::saying("one"), Nginx::saying("two"));
    each_way(|heddle, way, proof| {
        let envoy = Envoy::ask_apart(heddle.xds, "envoy-1", way, proof);
        heddle.put("/upstreams/u", json!({ "nodes": { one.address.to_string(): 1 } }));
        heddle.put("/routes/r", json!({ "uri": "/*", "upstream_id": "u" }));
        certificate(heddle);
        envoy.until_live();
        assert_eq!(heddle.until_status("/hello", 200).text(), "one");
        heddle.until_said_over_tls("shop.example", "/hello", "one");
        heddle.put("/upstreams/u", json!({ "nodes": { two.address.to_string(): 1 } }));
        until("two", || (heddle.get("/hello").text() == "two").then_some(()));
        heddle.put("/upstreams/v", json!({ "nodes": { one.address.to_string(): 1 } }));
        heddle.put("/routes/r", json!({ "uri": "/*", "upstream_id": "v" }));
        until("one", || (heddle.get("/hello").text() == "one").then_some(()));
        let nodes = heddle.admin("GET", "/nodes", Value::Null).json();
        assert!(nodes.as_array().unwrap().iter().all(|node| node["nacks"] == json!([])), "{nodes}");
    });
}

/// Waits until an Envoy was turned away with this verdict by the services for clusters and for listeners, and expects that it was told nothing.
fn until_turned_away(mesh: &Mesh, envoy: &Envoy, verdict: &str) {
    for service in ["cluster_manager.cds", "listener_manager.lds"] {
        until(service, || (envoy.stat(&format!("{service}.update_failure")) > 0).then_some(()));
        assert_eq!(envoy.stat(&format!("{service}.update_success")), 0, "{service}: {verdict}");
    }
    let refused = || serde_json::from_slice::<Value>(&mesh.control.cli(&["ca", "audit", "--refused", "-o", "json"]).stdout).ok();
    let verdicts = || refused()?.as_array()?.iter().filter(|entry| entry["verdict"] == verdict).count().checked_sub(2);
    until("both refusals in the audit", verdicts);
    let nodes = mesh.control.admin("GET", "/nodes", Value::Null).json();
    assert!(nodes.as_array().unwrap().iter().all(|node| node["id"] != "envoy-1"), "{nodes}");
}

#[test]
fn the_service_of_a_type_tells_nothing_to_who_does_not_prove_to_be_who_it_says() {
    let nginx = Nginx::saying("up");
    for way in [Way::DeltaAds, Way::SotwAds] {
        let (mesh, _keeper, files) = Mesh::demanding("gateway");
        mesh.control.route("r", "/*", nginx.address);
        let control = heddle_integration::envoy_mesh::control();
        let asking = || {
            let mut bootstrap = envoy::apart(mesh.control.xds, "envoy-1", way, Some((&control, &files)));
            // It asks for listeners when it has waited so long for clusters.
            bootstrap["dynamic_resources"]["cds_config"]["initial_fetch_timeout"] = json!("1s");
            bootstrap
        };
        let mut nameless = asking();
        let tls = &mut nameless["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]["common_tls_context"];
        tls.as_object_mut().unwrap().remove("tls_certificates").expect("it has one");
        until_turned_away(&mesh, &Envoy::start(&nameless.to_string()), "no-proof");
        let mut other = asking();
        other["node"]["metadata"] = json!({ "service": "billing" });
        until_turned_away(&mesh, &Envoy::start(&other.to_string()), "other-identity");
        let _envoy = Envoy::start(&asking().to_string());
        mesh.control.until_status("/", 200);
    }
}

#[test]
fn a_route_that_envoy_refuses_is_shown_on_the_route_in_envoys_words() {
    let nginx = Nginx::saying("up");
    for way in [Way::DeltaAds, Way::SotwAds] {
        let heddle = Heddle::control_plane(Setup::default());
        heddle.route("plain", "/plain", nginx.address);
        // Its operator lets no deprecated field in, of which a control plane cannot know; a large pattern says by one how large it may be.
        let mut bootstrap = envoy::bootstrap(heddle.xds, "envoy-1", way);
        let strict = json!({ "envoy.features.fail_on_any_deprecated_feature": true });
        bootstrap["layered_runtime"] = json!({ "layers": [{ "name": "operator", "static_layer": strict }] });
        let envoy = Envoy::start(&bootstrap.to_string());
        envoy.until_live();
        heddle.until_status("/plain", 200);
        let kind = |operator: &str, kind: &str| {
            let route = json!({ "uri": "/r1", "vars": [["http_x_kind", operator, kind]], "upstream": { "nodes": { nginx.address.to_string(): 1 } } });
            heddle.put("/routes/r1", route);
        };
        kind("~~", "^(gold|silver){200}$");
        let shown = |id: &str| String::from_utf8_lossy(&heddle.cli(&["get", "route", id, "--status"]).stdout).into_owned();
        let told = until("the refusal on the route", || Some(shown("r1")).filter(|told| told.contains("deprecated")));
        assert!(told.contains("envoy-1") && told.contains("RegexMatcher.google_re2"), "{told}");
        assert!(told.contains("refused") && !told.contains("with"), "it alone has changed: {told}");
        let innocent = shown("plain");
        assert!(innocent.contains("confirmed") && innocent.contains("further changes wait for r1"), "{innocent}");
        heddle.until_status("/plain", 200);
        heddle.put("/routes/plain", json!({ "uri": "/plainer", "upstream": { "nodes": { nginx.address.to_string(): 1 } } }));
        let among = |told: &String| told.contains("refused with others") && told.contains("one of plain, r1");
        until("both to be among the suspects", || ["plain", "r1"].iter().all(|id| among(&shown(id))).then_some(()));
        kind("==", "gold");
        let taken = |told: &String| told.contains("confirmed") && !told.contains("wait for");
        until("the routes to be taken", || ["plain", "r1"].iter().all(|id| taken(&shown(id))).then_some(()));
        heddle.until_status("/plainer", 200);
        let answer = || client::send(heddle.http, "GET", "/r1", &[("x-kind", "gold")], b"").ok();
        until("the route", || answer().filter(|answer| answer.status == 200));
    }
}

#[test]
fn weights_that_envoy_cannot_add_up_are_told_as_smaller_ones() {
    let servers = ["one", "two", "three"].map(Nginx::saying);
    envoy::both(|heddle, envoy| {
        let [one, two, three] = servers.each_ref().map(|server| server.address.to_string());
        heddle.put("/upstreams/u", json!({ "nodes": { one: u32::MAX, two: u32::MAX - 1 } }));
        heddle.put("/upstreams/v", json!({ "nodes": { three: 1 } }));
        let shares = json!([{ "upstream_id": "u", "weight": u32::MAX }, { "upstream_id": "v", "weight": u32::MAX - 1 }]);
        let split = json!({ "traffic-split": { "rules": [{ "weighted_upstreams": shares }] } });
        heddle.put("/routes/r", json!({ "uri": "/*", "upstream_id": "u", "plugins": split }));
        envoy.until_live();
        heddle.until_status("/", 200);
        for saying in ["one", "two", "three"] {
            until(saying, || (heddle.get("/").text() == saying).then_some(()));
        }
    });
}

#[test]
fn a_route_moves_from_one_upstream_to_the_next_and_no_request_fails() {
    let servers = ["0", "1", "2", "3"].map(Nginx::saying);
    envoy::both(|heddle, envoy| {
        let upstream = |round: usize| {
            let node = servers[round % servers.len()].address.to_string();
            heddle.put(&format!("/upstreams/u{round}"), json!({ "nodes": { node: 1 } }));
            heddle.put("/routes/r", json!({ "uri": "/*", "upstream_id": format!("u{round}") }));
        };
        upstream(0);
        envoy.until_live();
        heddle.until_status("/", 200);
        let load = Load::start(heddle.http, "/load", 3);
        for round in 1..=30 {
            upstream(round);
            // At once: it is up to the control plane when which of them is told what.
            assert_eq!(heddle.admin("DELETE", &format!("/upstreams/u{}", round - 1), Value::Null).status, 200);
            let said = (round % servers.len()).to_string();
            until(&format!("upstream {round}"), || (heddle.get("/").text() == said).then_some(()));
        }
        let tally = load.stop();
        assert!(
            tally.requests > 100 && tally.failures.is_empty(),
            "{} of {}: {:#?}",
            tally.failed,
            tally.requests,
            tally.failures
        );
    });
}

#[test]
fn an_address_goes_from_one_listener_to_the_next() {
    let nginx = Nginx::saying("yes");
    for way in [Way::DeltaAds, Way::SotwAds] {
        let place = Place::new();
        let address = place.address();
        let resources = |name: &str| {
            let route = json!({ "id": "r", "uri": "/*", "upstream": { "nodes": { nginx.address.to_string(): 1 } } });
            json!({ "listeners": [{ "id": name, "address": address.to_string(), "protocol": "http" }], "routes": [route] })
                .to_string()
        };
        let heddle = Heddle::control_plane(Setup { resources: Some(resources("old")), ..Setup::default() });
        let envoy = Envoy::follow(heddle.xds, "envoy-1", way);
        let answers = || client::get(address, "/").ok().filter(|answer| answer.status == 200);
        until("the listener", answers);
        let has = |name: &str| envoy.page("/listeners").text().contains(name).then_some(());
        until("the listener by its name", || has("old@file"));
        heddle.place.write("resources.yaml", &resources("new"));
        until("its new name", || has("new@file"));
        until("an answer by it", answers);
        let node = heddle.admin("GET", "/nodes", Value::Null).json()[0].clone();
        assert_eq!(node["nacks"], json!([]), "{way:?}: {node}");
    }
}
