//! The real Envoy on Heddle's control plane: it is given Envoy's own types, and told by name what it lacks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::envoy::Envoy;
use heddle_integration::envoy_mesh::{in_clear, over_mutual_tls};
use heddle_integration::heddle::Heddle;
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};

fn node(heddle: &Heddle) -> Value {
    let nodes = heddle.admin("GET", "/nodes", Value::Null).json();
    nodes.as_array().unwrap().iter().find(|node| node["speaks"] == "envoy").cloned().unwrap_or(Value::Null)
}

fn passes_traffic(heddle: &mut Heddle, envoy: &Envoy) {
    let nginx = Nginx::saying("up");
    heddle.route("r", "/hello", nginx.address);
    envoy.until_live();
    assert_eq!(heddle.until_status("/hello", 200).text(), "up");
    assert_eq!(heddle.get("/other").status, 404);
    let node = node(heddle);
    assert_eq!((&node["id"], &node["speaks"]), (&json!("envoy-1"), &json!("envoy")), "{node}");
}

#[test]
fn a_route_to_one_upstream_passes_traffic() {
    in_clear(passes_traffic);
}

#[test]
fn a_route_to_one_upstream_passes_traffic_over_mutual_tls() {
    over_mutual_tls(passes_traffic);
}

fn arrive_without_a_stall(heddle: &mut Heddle, envoy: &Envoy) {
    let (one, two) = (Nginx::saying("one"), Nginx::saying("two"));
    let upstream = |nginx: &Nginx, more: Value| {
        let mut upstream = json!({ "nodes": { nginx.address.to_string(): 1 } });
        upstream.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        heddle.put("/upstreams/u", upstream);
    };
    let says = |text: &str| until(text, || (heddle.get("/hello").text() == text).then_some(()));
    upstream(&one, json!({}));
    heddle.put("/routes/r", json!({ "uri": "/hello", "upstream_id": "u" }));
    heddle.until_status("/hello", 200);
    upstream(&two, json!({}));
    says("two");
    // A cluster that changes is warmed anew with endpoints that stay the same. Without them Envoy would wait for 15 s, and take no other change.
    let start = std::time::Instant::now();
    for round in 1..4 {
        upstream(&two, json!({ "retries": round, "timeout": { "connect": round, "send": 6, "read": 6 } }));
        heddle.put("/routes/next", json!({ "uri": format!("/next-{round}"), "upstream_id": "u" }));
        heddle.until_status(&format!("/next-{round}"), 200);
        until("the cluster to be warm", || (envoy.stat("cluster_manager.warming_clusters") == 0).then_some(()));
    }
    upstream(&one, json!({}));
    says("one");
    assert!(start.elapsed().as_secs() < 14, "{:?}: Envoy waited for endpoints", start.elapsed());
}

#[test]
fn changes_of_endpoints_clusters_and_routes_arrive_without_a_stall() {
    in_clear(arrive_without_a_stall);
}

#[test]
fn changes_of_endpoints_clusters_and_routes_arrive_without_a_stall_over_mutual_tls() {
    over_mutual_tls(arrive_without_a_stall);
}

fn is_withheld_and_named(heddle: &mut Heddle, envoy: &Envoy) {
    let nginx = Nginx::saying("up");
    heddle.route("plain", "/plain", nginx.address);
    let guarded =
        json!({ "uri": "/guarded", "plugins": { "hmac-auth": {} }, "upstream": { "nodes": { nginx.address.to_string(): 1 } } });
    heddle.put("/routes/guarded", guarded);
    envoy.until_live();
    heddle.until_status("/plain", 200);
    assert_eq!(heddle.get("/guarded").status, 404, "never without what guards it");
    let withheld = until("what is withheld", || node(heddle)["withheld"].as_array().filter(|list| !list.is_empty()).cloned());
    let route = withheld.iter().find(|one| one["resource"] == "guarded").expect("it is named");
    assert_eq!(route["reason"], "plugin hmac-auth: Envoy has no counterpart", "{withheld:?}");
    let told = String::from_utf8_lossy(&heddle.cli(&["nodes"]).stdout).into_owned();
    let line = "! envoy-1 is not given Route guarded: plugin hmac-auth: Envoy has no counterpart";
    assert!(told.lines().any(|said| said == line), "{told}");
}

#[test]
fn what_envoy_lacks_is_withheld_and_named() {
    in_clear(is_withheld_and_named);
}

#[test]
fn what_envoy_lacks_is_withheld_and_named_over_mutual_tls() {
    over_mutual_tls(is_withheld_and_named);
}

fn is_shown_where_users_look(heddle: &mut Heddle, envoy: &Envoy) {
    let nginx = Nginx::saying("up");
    heddle.route("plain", "/plain", nginx.address);
    envoy.until_live();
    // An address of nobody (RFC 5737).
    heddle.put("/listeners/strange", json!({ "address": "192.0.2.1:8080", "protocol": "http" }));
    let status = |collection: &str, id: &str| {
        let told = heddle.cli(&["get", collection, id, "--status", "-o", "json"]);
        let told: Value = serde_json::from_slice(&told.stdout).unwrap_or(Value::Null);
        told[0].clone()
    };
    let refused = until("the refusal", || Some(status("listeners", "strange")).filter(|told| told["state"] == "refused"));
    assert!(refused["reason"].as_str().unwrap().contains("192.0.2.1:8080"), "{refused}");
    assert_eq!((&refused["node"], &refused["speaks"]), (&json!("envoy-1"), &json!("envoy")));
    until("the others to go on", || (status("routes", "plain")["state"] == "confirmed").then_some(()));
    heddle.until_status("/plain", 200);
    assert_eq!(heddle.admin("DELETE", "/listeners/strange", Value::Null).status, 200);
    until("nothing to refuse", || (node(heddle)["nacks"] == json!([])).then_some(()));
}

#[test]
fn what_envoy_refuses_is_shown_in_its_own_words_on_the_resource_that_caused_it() {
    in_clear(is_shown_where_users_look);
}

#[test]
fn what_envoy_refuses_is_shown_in_its_own_words_on_the_resource_that_caused_it_over_mutual_tls() {
    over_mutual_tls(is_shown_where_users_look);
}
