//! The real Envoy on Heddle's control plane: it is given Envoy's own types, and told by name what it lacks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::envoy::{Envoy, Way};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// Both ways to speak xDS have to tell the same story.
fn both(story: impl Fn(&Heddle, &Envoy)) {
    for way in [Way::DeltaAds, Way::SotwAds] {
        let heddle = Heddle::control_plane(Setup::default());
        let envoy = Envoy::follow(heddle.xds, "envoy-1", way);
        story(&heddle, &envoy);
    }
}

fn node(heddle: &Heddle) -> Value {
    heddle.admin("GET", "/nodes", Value::Null).json()[0].clone()
}

#[test]
fn a_route_to_one_upstream_passes_traffic() {
    let nginx = Nginx::saying("up");
    both(|heddle, envoy| {
        heddle.route("r", "/hello", nginx.address);
        envoy.until_live();
        assert_eq!(heddle.until_status("/hello", 200).text(), "up");
        assert_eq!(heddle.get("/other").status, 404);
        let node = node(heddle);
        assert_eq!((&node["id"], &node["speaks"]), (&json!("envoy-1"), &json!("envoy")), "{node}");
    });
}

#[test]
fn changes_of_endpoints_clusters_and_routes_arrive_without_a_stall() {
    let (one, two) = (Nginx::saying("one"), Nginx::saying("two"));
    both(|heddle, envoy| {
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
    });
}

#[test]
fn what_envoy_lacks_is_withheld_and_named() {
    let nginx = Nginx::saying("up");
    both(|heddle, envoy| {
        heddle.route("plain", "/plain", nginx.address);
        let guarded = json!({ "uri": "/guarded", "plugins": { "key-auth": {} }, "upstream": { "nodes": { nginx.address.to_string(): 1 } } });
        heddle.put("/routes/guarded", guarded);
        envoy.until_live();
        heddle.until_status("/plain", 200);
        assert_eq!(heddle.get("/guarded").status, 404, "never without what guards it");
        let withheld = until("what is withheld", || node(heddle)["withheld"].as_array().filter(|list| !list.is_empty()).cloned());
        let route = withheld.iter().find(|one| one["resource"] == "guarded").expect("it is named");
        assert_eq!(route["reason"], "plugin key-auth: Envoy has no counterpart", "{withheld:?}");
    });
}
