//! Zones and priorities of one configuration at gateways of Heddle and at real Envoys that say where they are: the same endpoints get the same shares.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use heddle_integration::client;
use heddle_integration::envoy::{Envoy, Way, bootstrap, everywhere};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// Requests that a share is counted over.
const COUNTED: u32 = 300;
/// How often in a row shares have to be right: chance makes a wrong one look right once, given time.
const IN_A_ROW: u32 = 3;
/// How far shares may lie apart: Envoy draws priorities by chance, of which this is more than four standard deviations.
const APART: f64 = 0.12;

const NAMES: [&str; 4] = ["a1", "a2", "b1", "b2"];

/// A gateway in each of two zones, the address at which each answers.
struct Side {
    control: Vec<Heddle>,
    envoys: Vec<Envoy>,
    at: [SocketAddr; 2],
}

impl Side {
    fn ours() -> Side {
        let gateway = |zone: &str| Heddle::run_with(Setup { node: format!(", zone: {zone}"), ..Setup::default() });
        let control: Vec<Heddle> = ["a", "b"].map(gateway).into();
        let at = [control[0].http, control[1].http];
        Side { control, envoys: Vec::new(), at }
    }

    fn theirs() -> Side {
        let control = Heddle::control_plane(Setup::default());
        let at = [control.place.address(), control.place.address()];
        let envoy = |(zone, way, at): (&str, Way, SocketAddr)| {
            let id = format!("envoy-{zone}");
            control.put(&format!("/listeners/{zone}"), json!({ "address": at.to_string(), "nodes": [id] }));
            let mut bootstrap = bootstrap(control.xds, &id, way);
            bootstrap["node"]["locality"] = json!({ "zone": zone });
            Envoy::start(&bootstrap.to_string())
        };
        let envoys = [("a", Way::DeltaAds, at[0]), ("b", Way::SotwAds, at[1])].map(envoy).into();
        Side { control: vec![control], envoys, at }
    }

    fn put(&self, path: &str, body: &Value) {
        self.control.iter().for_each(|heddle| heddle.put(path, body.clone()));
    }

    /// Waits until the gateways of both zones share requests out so, and go on doing so.
    fn until_shares(&self, path: &str, expected: [&[(&str, f64)]; 2]) {
        for (address, expected) in self.at.iter().zip(expected) {
            let mut right = 0;
            let near = || {
                let found = shares(*address, path);
                let near = |(who, share): &(&str, f64)| found.get(*who).is_some_and(|found| (found - share).abs() < APART);
                right = if found.len() == expected.len() && expected.iter().all(near) { right + 1 } else { 0 };
                (right == IN_A_ROW).then_some(())
            };
            until(&format!("{expected:?} of {path}"), near);
        }
    }
}

/// Who answers which share of requests for this path; nobody as long as one is refused.
fn shares(address: SocketAddr, path: &str) -> BTreeMap<String, f64> {
    let mut shares = BTreeMap::new();
    for _ in 0..COUNTED {
        let Some(answer) = client::get(address, path).ok().filter(|answer| answer.status == 200) else { return BTreeMap::new() };
        *shares.entry(answer.text()).or_insert(0.0) += 1.0 / f64::from(COUNTED);
    }
    shares
}

fn node(address: SocketAddr, zone: &str, weight: u32, priority: i32) -> Value {
    json!({ "host": address.ip(), "port": address.port(), "weight": weight, "zone": zone, "priority": priority })
}

fn route(side: &Side, id: &str, nodes: &[Value], locality: Value) {
    let probe =
        json!({ "type": "tcp", "healthy": { "interval": 1, "successes": 1 }, "unhealthy": { "interval": 1, "tcp_failures": 1 } });
    let upstream = json!({ "nodes": nodes, "checks": { "active": probe }, "locality": locality });
    side.put(&format!("/upstreams/{id}"), &upstream);
    side.put(&format!("/routes/{id}"), &json!({ "uri": format!("/{id}"), "upstream_id": id }));
}

#[test]
fn envoys_use_their_zone_first_as_our_gateways_do() {
    let mut nginx = NAMES.map(Nginx::saying);
    let [a1, a2, b1, b2] = nginx.each_ref().map(|nginx| nginx.address);
    let place = Place::new();
    let (dead, gone) = (place.address(), place.address());
    let sides = [Side::ours(), Side::theirs()];
    for side in &sides {
        let all = [node(a1, "a", 1, 0), node(a2, "a", 1, 0), node(b1, "b", 1, 0), node(b2, "b", 1, 0)];
        route(side, "home", &all, json!({}));
        route(side, "off", &all, json!({ "mode": "off" }));
        // A fifth of the weight stands and carries 3.75 times as much. Numbers in the place of weights would make it everything, no headroom 0.2, the usual one
        // 0.28, both zones alike 0.5.
        let weighed = [node(a1, "a", 1, 0), node(dead, "a", 4, 0), node(a2, "a", 0, 0), node(b1, "b", 1, 0)];
        route(side, "weighed", &weighed, json!({ "overprovisioning": 375 }));
        route(side, "strict", &[node(b1, "b", 1, 0)], json!({ "mode": "strict" }));
        let takes_over = json!({ "mode": "strict", "failover": ["b"] });
        route(side, "failover", &[node(dead, "a", 1, 0), node(b1, "b", 1, 0), node(b2, "c", 1, 0)], takes_over);
        let ranked = [node(a1, "", 1, 1), node(dead, "", 1, 1), node(gone, "", 1, 1), node(b1, "", 1, -3)];
        route(side, "ranked", &ranked, json!({}));
    }
    for side in &sides {
        side.until_shares("/home", [&[("a1", 0.5), ("a2", 0.5)], &[("b1", 0.5), ("b2", 0.5)]]);
        let even = NAMES.map(|name| (name, 0.25));
        side.until_shares("/off", [&even, &even]);
        side.until_shares("/weighed", [&[("a1", 0.75), ("b1", 0.25)], &[("b1", 1.0)]]);
        let strict = |at: usize| client::get(side.at[at], "/strict").ok().map(|answer| (answer.status, answer.text()));
        until("nobody in the zone", || strict(0).filter(|(status, _)| *status == 503));
        until("who is in the zone", || strict(1).filter(|(status, text)| *status == 200 && text == "b1"));
        side.until_shares("/failover", [&[("b1", 1.0)], &[("b1", 1.0)]]);
        side.until_shares("/ranked", [&[("a1", 1.0)], &[("a1", 1.0)]]);
    }
    nginx[0].process.kill();
    for side in &sides {
        side.until_shares("/home", [&[("a2", 0.7), ("b1", 0.15), ("b2", 0.15)], &[("b1", 0.5), ("b2", 0.5)]]);
        side.until_shares("/ranked", [&[("b1", 1.0)], &[("b1", 1.0)]]);
    }
    let later = [node(a2, "b", 1, 0), node(b1, "a", 1, 0)];
    for side in &sides {
        route(side, "home", &later, json!({}));
        side.until_shares("/home", [&[("b1", 1.0)], &[("a2", 1.0)]]);
    }
    let nodes = sides[1].control[0].admin("GET", "/nodes", Value::Null).json();
    let groups: Vec<&Value> = nodes.as_array().unwrap().iter().map(|node| &node["group"]).collect();
    assert_eq!(groups, ["gateway/envoy/a", "gateway/envoy/b"], "each zone is given its own view");
    assert!(nodes.as_array().unwrap().iter().all(|node| node["nacks"] == json!([])), "{nodes}");
    assert_eq!(sides[1].envoys.len(), 2);
}

#[test]
fn a_priority_of_which_nothing_stands_gives_way_to_the_next_one() {
    everywhere(|heddle| {
        let mut nginx = ["one", "two", "spare"].map(Nginx::saying);
        let [one, two, spare] = nginx.each_ref().map(|nginx| node(nginx.address, "", 1, 0));
        let first = |mut node: Value| {
            node["priority"] = json!(1);
            node
        };
        let probe = json!({ "type": "tcp", "healthy": { "interval": 1, "successes": 1 }, "unhealthy": { "interval": 1, "tcp_failures": 1 } });
        // Nothing is sent again, so that who is asked first is seen.
        let upstream = json!({ "nodes": [first(one), first(two), spare], "checks": { "active": probe }, "retries": 0 });
        heddle.put("/upstreams/ranked", upstream);
        heddle.put("/routes/ranked", json!({ "uri": "/", "upstream_id": "ranked" }));
        let only = |names: &[&str]| {
            let heard = || client::get(heddle.http, "/").ok().filter(|answer| answer.status == 200).map(|answer| answer.text());
            let all = || (0..12).all(|_| heard().is_some_and(|text| names.contains(&text.as_str())));
            until(&format!("{names:?} alone"), || all().then_some(()));
        };
        only(&["one", "two"]);
        nginx[0].process.kill();
        only(&["two"]);
        nginx[1].process.kill();
        only(&["spare"]);
        nginx[2].process.kill();
        let told = || client::get(heddle.http, "/").ok().map(|answer| answer.status).filter(|status| matches!(status, 502 | 503));
        until("nobody", told);
    });
}
