//! A real Envoy whose control plane goes away: it serves on, comes back by itself, and has then what was changed and removed meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use heddle_integration::envoy::{Envoy, Way};
use heddle_integration::envoy_mesh::{each_way, in_clear, over_mutual_tls};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::load::Load;
use heddle_integration::mesh::Mesh;
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// Longer than this no cluster takes to warm whose endpoints are told to it: Envoy's patience is 15 s.
const NO_STALL: Duration = Duration::from_secs(12);

fn serves_on_and_catches_up(heddle: &mut Heddle, envoy: &Envoy) {
    let (one, two) = (Nginx::saying("one"), Nginx::saying("two"));
    heddle.route("kept", "/kept", one.address);
    heddle.route("removed", "/removed", one.address);
    envoy.until_live();
    heddle.until_status("/removed", 200);
    let load = Load::paced(heddle.http, "/kept", 4, Duration::from_millis(5));
    heddle.process.kill();
    let served = load.requests();
    until("Envoy to be alone and to serve on", || {
        (envoy.stat("control_plane.connected_state") == 0 && load.requests() > served + 500).then_some(())
    });
    heddle.start_again();
    assert_eq!(heddle.admin("DELETE", "/routes/removed", Value::Null).status, 200);
    heddle.route("kept", "/kept", two.address);
    heddle.route("new", "/new", two.address);
    heddle.until_status("/new", 200);
    heddle.until_status("/removed", 404);
    until("the other upstream", || (heddle.get("/kept").text() == "two").then_some(()));
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
}

#[test]
fn an_envoy_serves_while_its_control_plane_is_away_and_catches_up() {
    in_clear(serves_on_and_catches_up);
}

#[test]
fn an_envoy_serves_while_its_control_plane_is_away_and_catches_up_over_mutual_tls() {
    over_mutual_tls(serves_on_and_catches_up);
}

/// A route to an upstream that waits so long for a connection.
fn resources(nginx: &Nginx, connect: usize) -> String {
    let timeout = json!({ "connect": connect, "send": 6, "read": 6 });
    let upstream = json!({ "id": "u", "nodes": { nginx.address.to_string(): 1 }, "timeout": timeout });
    json!({ "upstreams": [upstream], "routes": [{ "id": "r", "uri": "/*", "upstream_id": "u" }] }).to_string()
}

/// A control plane that reads them from a file.
fn reading(nginx: &Nginx) -> Setup {
    Setup { resources: Some(resources(nginx, 1)), ..Setup::default() }
}

/// Waits until Envoy uses the cluster with this timeout, which it does when it has its endpoints.
fn until_warm(envoy: &Envoy, connect: usize) {
    let (begin, expected) = (Instant::now(), format!("{connect}s"));
    let timeout = || {
        let clusters = envoy.page("/config_dump?resource=dynamic_active_clusters").json();
        // With the provider that it is of behind it.
        let is_it = |one: &&Value| one["cluster"]["name"].as_str().is_some_and(|name| name.starts_with("upstreams/u"));
        Some(clusters["configs"].as_array()?.iter().find(is_it)?["cluster"]["connect_timeout"].clone())
    };
    until("the cluster to be used", || (timeout()? == *expected).then_some(()));
    assert!(begin.elapsed() < NO_STALL, "{:?}: Envoy waited for endpoints", begin.elapsed());
}

fn warms_at_once_after_a_return(heddle: &mut Heddle, envoy: &Envoy, nginx: &Nginx) {
    envoy.until_live();
    heddle.until_status("/", 200);
    for connect in 2..5 {
        heddle.process.kill();
        until("Envoy to be alone", || (envoy.stat("control_plane.connected_state") == 0).then_some(()));
        // Its endpoints stay what they are, and Envoy says that it has them.
        heddle.place.write("resources.yaml", &resources(nginx, connect));
        heddle.start_again();
        until("Envoy to be back", || (envoy.stat("control_plane.connected_state") == 1).then_some(()));
        until_warm(envoy, connect);
        assert_eq!(heddle.get("/").status, 200);
    }
}

#[test]
fn a_cluster_that_changed_while_the_control_plane_was_away_is_warm_at_once() {
    let nginx = Nginx::saying("up");
    for way in [Way::DeltaAds, Way::SotwAds] {
        let mut heddle = Heddle::control_plane(reading(&nginx));
        let envoy = Envoy::follow(heddle.xds, "envoy-1", way);
        warms_at_once_after_a_return(&mut heddle, &envoy, &nginx);
    }
}

#[test]
fn a_cluster_that_changed_while_the_control_plane_was_away_is_warm_at_once_over_mutual_tls() {
    let nginx = Nginx::saying("up");
    for way in [Way::DeltaAds, Way::SotwAds] {
        let mut mesh = Mesh::with(reading(&nginx), "");
        let gateway = mesh.envoy_gateway(way);
        warms_at_once_after_a_return(&mut mesh.control, &gateway.envoy, &nginx);
    }
}

#[test]
fn a_cluster_that_changes_is_warm_at_once_though_its_endpoints_come_by_another_stream() {
    let nginx = Nginx::saying("up");
    each_way(|heddle, way, proof| {
        let envoy = Envoy::ask_apart(heddle.xds, "envoy-1", way, proof);
        let upstream = |connect: usize| {
            let timeout = json!({ "connect": connect, "send": 60, "read": 60 });
            heddle.put("/upstreams/u", json!({ "nodes": { nginx.address.to_string(): 1 }, "timeout": timeout }));
        };
        upstream(1);
        heddle.put("/routes/r", json!({ "uri": "/*", "upstream_id": "u" }));
        envoy.until_live();
        heddle.until_status("/", 200);
        // Which of both streams tells first is a matter of chance.
        for connect in 2..40 {
            upstream(connect);
            until_warm(&envoy, connect);
        }
        assert_eq!(heddle.get("/").status, 200);
    });
}
