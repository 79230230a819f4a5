//! Client status discovery: gRPC's own client asks the control plane how a real Envoy stands to each of its resources.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use heddle_integration::ads::interpreter;
use heddle_integration::envoy::{Envoy, Way};
use heddle_integration::heddle::{Heddle, KEY, Setup};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use heddle_integration::python;
use serde_json::{Value, json};

fn ask(heddle: &Heddle, key: &str, way: &str, nodes: &[&str]) -> Value {
    let mut command = Command::new(interpreter());
    let output =
        command.arg(python::path("status.py")).arg(heddle.xds.to_string()).args([key, way]).args(nodes).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// The resource of a type with this name.
fn find<'a>(answer: &'a Value, message: &str, name: &str) -> Option<&'a Value> {
    let all = answer[0]["config"][0]["generic_xds_configs"].as_array()?;
    all.iter().find(|one| one["name"] == name && one["type_url"].as_str().is_some_and(|url| url.ends_with(message)))
}

#[test]
fn every_resource_of_an_envoy_is_shown_with_how_it_stands_and_refusals_in_its_own_words() {
    let nginx = Nginx::saying("up");
    for way in [Way::DeltaAds, Way::SotwAds] {
        let heddle = Heddle::control_plane(Setup::default());
        heddle.put("/upstreams/u", json!({ "nodes": { nginx.address.to_string(): 1 } }));
        heddle.put("/routes/r", json!({ "uri": "/hello", "upstream_id": "u" }));
        let envoy = Envoy::follow(heddle.xds, "envoy-1", way);
        envoy.until_live();
        let answer = until("everything to be confirmed", || {
            let answer = ask(&heddle, KEY, "fetch", &["envoy-1"]);
            let synced = |message, name| find(&answer, message, name).is_some_and(|one| one["config_status"] == "SYNCED");
            (synced("v3.Cluster", "upstreams/u") && synced("RouteConfiguration", "heddle")).then_some(answer)
        });
        assert_eq!(answer[0]["config"][0]["node"]["id"], "envoy-1");
        let cluster = find(&answer, "v3.Cluster", "upstreams/u").unwrap();
        assert_eq!(
            (&cluster["client_status"], &cluster["xds_config"]["name"]),
            (&json!("ACKED"), &json!("upstreams/u")),
            "{cluster}"
        );
        assert!(!cluster["version_info"].as_str().unwrap().is_empty());
        // An address of nobody (RFC 5737).
        heddle.put("/listeners/strange", json!({ "address": "192.0.2.1:8080", "protocol": "http" }));
        let refused = || {
            let answer = ask(&heddle, KEY, "stream", &["envoy-1"]);
            assert_eq!(answer.as_array().unwrap().len(), 2, "an answer to each question");
            find(&answer, "v3.Listener", "strange").filter(|one| one["config_status"] == "ERROR").cloned()
        };
        let refused = until("the refusal", refused);
        assert!(refused["error_state"]["details"].as_str().unwrap().contains("192.0.2.1:8080"), "{refused}");
        assert_eq!(
            (&refused["client_status"], &refused["error_state"]["version_info"]),
            (&json!("NACKED"), &refused["version_info"])
        );
        // Contents are for admins, answers for those with a key, and about those who were meant.
        let looked = ask(&heddle, "viewer-key", "fetch", &[]);
        assert!(find(&looked, "v3.Cluster", "upstreams/u").unwrap().get("xds_config").is_none());
        assert_eq!(ask(&heddle, "", "fetch", &[]), json!({ "error": "UNAUTHENTICATED" }));
        assert_eq!(ask(&heddle, "no-key-of-ours", "stream", &[]), json!({ "error": "UNAUTHENTICATED" }));
        assert_eq!(ask(&heddle, KEY, "fetch", &["somebody-else"]), json!([{}]));
    }
}
