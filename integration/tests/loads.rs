//! Load reports: what a real Envoy and gRPC's own client have sent where is counted by the control plane.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::envoy::{self, Envoy, Way};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::until;
use heddle_integration::proxyless::{self, Client};
use serde_json::{Value, json};

/// The value of a series that has all of these labels.
fn value(page: &str, name: &str, labels: &[&str]) -> Option<u64> {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let line = page.lines().filter(of_name).find(|line| labels.iter().all(|label| line.contains(label)))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn requests_that_an_envoy_has_sent_are_counted_by_cluster_and_zone() {
    let nginx = Nginx::saying("up");
    let heddle = Heddle::control_plane(Setup::default());
    let node = json!({ "host": nginx.address.ip(), "port": nginx.address.port(), "weight": 1, "zone": "eu-1a" });
    heddle.put("/upstreams/u", json!({ "nodes": [node] }));
    heddle.put("/routes/r", json!({ "uri": "/*", "upstream_id": "u" }));
    let mut bootstrap = envoy::bootstrap(heddle.xds, "envoy-1", Way::DeltaAds);
    let service = json!({ "envoy_grpc": { "cluster_name": "control" } });
    let reports = json!({ "api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [service] });
    bootstrap["cluster_manager"] = json!({ "load_stats_config": reports });
    let envoy = Envoy::start(&bootstrap.to_string());
    envoy.until_live();
    heddle.until_status("/hello", 200);
    let page = || heddle.admin("GET", "/metrics", Value::Null).text();
    let cluster = "cluster=\"upstreams/u\"";
    let issued = |page: &str| value(page, "heddle_xds_load_requests_total", &[cluster, "result=\"issued\""]).unwrap_or(0);
    until("Envoy to report", || (value(&page(), "heddle_xds_load_reporters", &[]) == Some(1)).then_some(()));
    let before = issued(&page());
    // Envoy counts for a cluster from the first period on that begins when it has the cluster.
    let page = until("the requests to be reported", || {
        assert_eq!(heddle.get("/hello").status, 200);
        Some(page()).filter(|page| issued(page) >= before + 20)
    });
    let good = value(&page, "heddle_xds_load_requests_total", &[cluster, "result=\"success\"", "zone=\"eu-1a\""]);
    assert!(good >= Some(20), "{page}");
    assert_eq!(value(&page, "heddle_xds_load_left_out_total", &[]), Some(0));
    drop(envoy);
    let gone = || value(&heddle.admin("GET", "/metrics", Value::Null).text(), "heddle_xds_load_reporters", &[]) == Some(0);
    until("the report to end", || gone().then_some(()));
}

#[test]
fn calls_that_a_client_of_grpc_has_made_are_counted_too() {
    let place = Place::new();
    let address = place.address();
    let _server = proxyless::server(&place, address, "one", None);
    let heddle = Heddle::control_plane(Setup::default());
    heddle.put("/upstreams/u", json!({ "scheme": "grpc", "nodes": { address.to_string(): 1 } }));
    heddle.put("/routes/r", json!({ "uri": "/story.Echo/*", "host": "shop.example", "upstream_id": "u" }));
    let bootstrap = proxyless::bootstrap(&place, heddle.xds, "client-1", None);
    let mut client = Client::of("xds:///shop.example", &bootstrap, "plain");
    client.until_says("Unary", "one");
    for _ in 0..20 {
        assert_eq!(client.call("Unary")["saying"], "one");
    }
    let issued = || {
        let page = heddle.admin("GET", "/metrics", Value::Null).text();
        value(&page, "heddle_xds_load_requests_total", &["cluster=\"upstreams/u\"", "result=\"issued\""])
    };
    until("the calls to be reported", || issued().filter(|issued| *issued >= 20));
}
