//! A real Envoy whose control plane goes away: it serves on, comes back by itself, and has then what was changed and removed meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::envoy::Envoy;
use heddle_integration::envoy_mesh::{in_clear, over_mutual_tls};
use heddle_integration::heddle::Heddle;
use heddle_integration::load::Load;
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::Value;
use std::time::Duration;

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
