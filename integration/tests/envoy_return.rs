//! A real Envoy whose control plane goes away: it serves on, comes back by itself, and has then what was changed and removed meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::envoy_mesh::each_way;
use heddle_integration::load::Load;
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::Value;

#[test]
fn an_envoy_serves_while_its_control_plane_is_away_and_catches_up() {
    let (one, two) = (Nginx::saying("one"), Nginx::saying("two"));
    each_way(|heddle, envoy| {
        heddle.route("kept", "/kept", one.address);
        heddle.route("removed", "/removed", one.address);
        envoy.until_live();
        heddle.until_status("/removed", 200);
        let load = Load::start(heddle.http, "/kept", 4);
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
    });
}
