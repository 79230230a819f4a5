//! Load reports: what a real Envoy and gRPC's own client have sent where is counted by the control plane.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::process::Command;

use heddle_integration::client;
use heddle_integration::envoy::{self, Envoy, Way};
use heddle_integration::fleet::holder::Holder;
use heddle_integration::heddle::{Heddle, Setup, binary};
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use heddle_integration::proxyless::{self, Client};
use serde_json::{Value, json};

/// The value of a series that has all of these labels.
fn value(page: &str, name: &str, labels: &[&str]) -> Option<u64> {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let line = page.lines().filter(of_name).find(|line| labels.iter().all(|label| line.contains(label)))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// An Envoy that reports its load.
fn reporting(heddle: &Heddle, way: Way) -> Envoy {
    let mut bootstrap = envoy::bootstrap(heddle.xds, "envoy-1", way);
    let service = json!({ "envoy_grpc": { "cluster_name": "control" } });
    let reports = json!({ "api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [service] });
    bootstrap["cluster_manager"] = json!({ "load_stats_config": reports });
    Envoy::start(&bootstrap.to_string())
}

/// A gateway of the control plane's fleet, which gossips with it.
fn gateway(heddle: &Heddle, seed: std::net::SocketAddr) -> Process {
    let text = format!(
        "node: {{ id: edge-1, data_dir: \"{}\" }}\n\
         agent: {{ workers: 1, admin: \"{}\" }}\n\
         controlplane: {{ address: \"{}\" }}\n\
         gossip: {{ listen: \"{}\", seeds: [\"{seed}\"], interval: 200ms }}\n",
        heddle.place.path("edge-1").display(),
        heddle.agent,
        heddle.xds,
        heddle.place.address(),
    );
    let file = heddle.place.write("edge-1.yaml", &text);
    let mut command = Command::new(binary());
    command.arg("agent").arg("-c").arg(file).current_dir(heddle.place.folder.path());
    Process::start(command, heddle.place.path("edge-1.log"))
}

#[test]
fn a_gateway_leans_away_from_what_an_envoy_has_under_way() {
    let place = Place::new();
    let (slow, quick) = (Holder::start(&place, "slow", true), Holder::start(&place, "quick", false));
    let seed = place.address();
    let more = format!("gossip: {{ listen: \"{seed}\", seeds: [\"{seed}\"], interval: 200ms }}\n");
    let heddle = Heddle::control_plane(Setup { more, ..Setup::default() });
    let [by_envoy, by_heddle] = [("envoy-1", place.address()), ("edge-1", place.address())].map(|(node, address)| {
        let listener = json!({ "address": address.to_string(), "protocol": "http", "nodes": [node] });
        heddle.put(&format!("/listeners/{node}"), listener);
        address
    });
    let nodes = json!({ slow.address.to_string(): 1, quick.address.to_string(): 1 });
    let timeouts = json!({ "connect": 30, "send": 60, "read": 60 });
    heddle.put("/upstreams/web", json!({ "nodes": nodes, "type": "least_conn", "load_from": "fleet", "timeout": timeouts }));
    heddle.put("/routes/web", json!({ "uri": "/*", "upstream_id": "web" }));
    let (_gateway, _envoy) = (gateway(&heddle, seed), reporting(&heddle, Way::DeltaAds));
    let answers = |at| -> BTreeSet<String> {
        (0..30)
            .filter_map(|_| client::get(at, "/").ok())
            .filter(|answer| answer.status == 200)
            .map(|answer| answer.text())
            .collect()
    };
    // Often, so that chance says nothing.
    let are = |at, names: &[&str]| (0..5).all(|_| answers(at).iter().eq(names)).then_some(());
    until("both to be used by Envoy", || (answers(by_envoy).len() == 2).then_some(()));
    until("both to be used by the gateway", || are(by_heddle, &["quick", "slow"]));
    let under_way = || {
        let page = heddle.admin("GET", "/metrics", Value::Null).text();
        value(&page, "heddle_xds_load_requests_in_progress", &["cluster=\"upstreams/web\""]).unwrap_or(0)
    };
    std::thread::scope(|scope| {
        let held: Vec<_> = (0..64).map(|_| scope.spawn(move || client::get(by_envoy, "/hold").unwrap().status)).collect();
        until("Envoy to report what is under way", || (under_way() >= 4).then_some(()));
        until("the one that Envoy loads to be spared by the gateway", || are(by_heddle, &["quick"]));
        slow.let_go();
        assert!(held.into_iter().all(|thread| thread.join().unwrap() == 200));
    });
    until("both to be used again", || are(by_heddle, &["quick", "slow"]));
}

#[test]
fn requests_that_an_envoy_has_sent_are_counted_by_cluster_and_zone() {
    let nginx = Nginx::saying("up");
    let heddle = Heddle::control_plane(Setup::default());
    let node = json!({ "host": nginx.address.ip(), "port": nginx.address.port(), "weight": 1, "zone": "eu-1a" });
    heddle.put("/upstreams/u", json!({ "nodes": [node] }));
    heddle.put("/routes/r", json!({ "uri": "/*", "upstream_id": "u" }));
    let envoy = reporting(&heddle, Way::DeltaAds);
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
