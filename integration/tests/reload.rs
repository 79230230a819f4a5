//! What happens to requests while everything around them changes: nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::process::Command;

use heddle_integration::certificates::Authority;
use heddle_integration::client;
use heddle_integration::heddle::Heddle;
use heddle_integration::load::Load;
use heddle_integration::nginx::Nginx;
use heddle_integration::process::{Process, until};
use serde_json::{Value, json};

const CONNECTIONS: usize = 64;
const CHANGES: usize = 200;

fn upstream(nodes: &[SocketAddr]) -> Value {
    let nodes: serde_json::Map<String, Value> = nodes.iter().map(|node| (node.to_string(), json!(1))).collect();
    json!({ "type": "roundrobin", "nodes": nodes })
}

/// Ends the load and demands that nothing failed.
fn settle(load: Load) {
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{} requests, failures: {:#?}", tally.requests, tally.failures);
    assert!(tally.requests > 100, "only {} requests", tally.requests);
}

/// Waits until the load has got so many more answers.
fn progress(load: &Load, more: u64) {
    let target = load.requests() + more;
    until("the load to go on", || (load.requests() >= target).then_some(()));
}

/// Routes, upstreams and certificates, in turn: the route under load too, its upstream too, its certificate too.
fn change(heddle: &Heddle, authority: &Authority, nodes: &[SocketAddr], round: usize) {
    match round % 5 {
        0 => heddle.put("/upstreams/main", upstream(&nodes[..1 + round / 5 % nodes.len()])),
        1 => heddle.put(
            "/routes/main",
            json!({ "uri": "/load", "upstream_id": "main", "desc": format!("round {round}"),
                    "plugins": { "response-rewrite": { "headers": { "set": { "x-round": round.to_string() } } } } }),
        ),
        2 => heddle.route(&format!("other-{}", round % 20), &format!("/other/{round}/*"), nodes[0]),
        3 => {
            let pair = authority.issue(&["test.example", "*.test.example"]);
            heddle.put("/ssls/main", json!({ "snis": ["test.example"], "cert": pair.certificate, "key": pair.key }));
        }
        _ => {
            let answer = heddle.admin("DELETE", &format!("/routes/other-{}", (round - 2) % 20), Value::Null);
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
}

fn ready_for_load(heddle: &Heddle, authority: &Authority, nodes: &[SocketAddr]) {
    let pair = authority.issue(&["test.example"]);
    heddle.put("/ssls/main", json!({ "snis": ["test.example"], "cert": pair.certificate, "key": pair.key }));
    heddle.put("/upstreams/main", upstream(nodes));
    heddle.put("/routes/main", json!({ "uri": "/load", "upstream_id": "main" }));
    heddle.until_status("/load", 200);
}

#[test]
fn two_hundred_changes_fail_no_request() {
    let upstreams = [Nginx::saying("a"), Nginx::saying("b"), Nginx::saying("c")];
    let nodes = upstreams.each_ref().map(|nginx| nginx.address);
    let (heddle, authority) = (Heddle::run(), Authority::new());
    ready_for_load(&heddle, &authority, &nodes);
    let load = Load::start(heddle.http, "/load", CONNECTIONS);
    progress(&load, 64);
    (0..CHANGES).for_each(|round| change(&heddle, &authority, &nodes, round));
    until("the last change to be effective", || (heddle.get("/load").field("x-round") == Some("196")).then_some(()));
    progress(&load, 64);
    settle(load);
}

#[test]
fn two_hundred_changes_fail_no_request_over_tls() {
    let upstreams = [Nginx::saying("a"), Nginx::saying("b")];
    let nodes = upstreams.each_ref().map(|nginx| nginx.address);
    let (heddle, authority) = (Heddle::run(), Authority::new());
    ready_for_load(&heddle, &authority, &nodes);
    let load = Load::tls(heddle.https, authority.client(), "test.example", "/load", CONNECTIONS);
    progress(&load, 64);
    (0..CHANGES).for_each(|round| change(&heddle, &authority, &nodes, round));
    progress(&load, 64);
    settle(load);
}

#[test]
fn changes_fail_no_request_of_http_2_clients() {
    let upstreams = [Nginx::saying("a"), Nginx::saying("b")];
    let nodes = upstreams.each_ref().map(|nginx| nginx.address);
    let (heddle, authority) = (Heddle::run(), Authority::new());
    ready_for_load(&heddle, &authority, &nodes);
    let mut command = Command::new("h2load");
    command.args(["-D", "4", "-c", "16", "-m", "8", &format!("http://{}/load", heddle.http)]);
    let mut h2load = Process::start(command, heddle.place.path("h2load.log"));
    let mut rounds = 0..;
    while h2load.is_running() {
        change(&heddle, &authority, &nodes, rounds.next().unwrap());
    }
    let told = h2load.output();
    assert!(told.contains(" 0 failed, 0 errored") && told.contains(" 0 4xx, 0 5xx"), "{told}");
    assert!(rounds.start > 50, "only {} changes", rounds.start);
}

#[test]
fn an_endpoint_that_leaves_the_upstream_before_it_dies_is_not_missed() {
    let mut upstreams = [Nginx::saying("a"), Nginx::saying("b")];
    let nodes = upstreams.each_ref().map(|nginx| nginx.address);
    let (heddle, authority) = (Heddle::run(), Authority::new());
    ready_for_load(&heddle, &authority, &nodes);
    let load = Load::start(heddle.http, "/load", CONNECTIONS);
    progress(&load, 64);
    heddle.put("/upstreams/main", upstream(&nodes[..1]));
    let gone = format!("endpoint=\"{}\"", nodes[1]);
    until("the endpoint to leave", || (!heddle.metrics().contains(&gone)).then_some(()));
    upstreams[1].process.kill();
    progress(&load, 256);
    settle(load);
}

#[test]
fn an_endpoint_that_dies_while_it_is_listed_is_covered_by_retries() {
    let mut upstreams = [Nginx::saying("a"), Nginx::saying("b")];
    let nodes = upstreams.each_ref().map(|nginx| nginx.address);
    let (heddle, authority) = (Heddle::run(), Authority::new());
    ready_for_load(&heddle, &authority, &nodes);
    let load = Load::start(heddle.http, "/load", CONNECTIONS);
    progress(&load, 64);
    upstreams[1].process.kill();
    progress(&load, 512);
    settle(load);
}

#[test]
fn a_listener_that_comes_and_goes_disturbs_nobody_and_drains_its_own() {
    let nginx = Nginx::saying("a");
    let (heddle, authority) = (Heddle::run(), Authority::new());
    ready_for_load(&heddle, &authority, &[nginx.address]);
    let load = Load::start(heddle.http, "/load", CONNECTIONS);
    let extra = heddle.place.address();
    for _ in 0..5 {
        heddle.put("/listeners/extra", json!({ "name": "extra", "address": extra.to_string(), "protocol": "http" }));
        until("the new listener", || client::get(extra, "/load").ok().filter(|answer| answer.status == 200));
        assert_eq!(heddle.admin("DELETE", "/listeners/extra", Value::Null).status, 200);
        until("the listener to close", || {
            client::get(extra, "/load").err().filter(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        });
    }
    progress(&load, 64);
    settle(load);
}
