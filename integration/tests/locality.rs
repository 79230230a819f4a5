//! Two zones with a gateway and two endpoints each: requests stay in their zone while it can carry them, and no longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use heddle_integration::client;
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// Requests that a share is counted over.
const REQUESTS: usize = 200;

struct Zones {
    gateways: [Heddle; 2],
    /// `a1`, `a2`, `b1`, `b2`, as they call themselves.
    endpoints: [Nginx; 4],
}

const NAMES: [&str; 4] = ["a1", "a2", "b1", "b2"];

impl Zones {
    fn start() -> Zones {
        let gateway = |zone: &str| Heddle::run_with(Setup { node: format!(", zone: {zone}"), ..Setup::default() });
        let zones = Zones { gateways: ["a", "b"].map(gateway), endpoints: NAMES.map(Nginx::saying) };
        zones.write([1; 4]);
        for gateway in &zones.gateways {
            gateway.put("/routes/all", json!({ "uri": "/*", "upstream_id": "web" }));
            gateway.until_status("/", 200);
        }
        zones
    }

    /// Gives the endpoints these weights.
    fn write(&self, weights: [u32; 4]) {
        let node = |((endpoint, name), weight): ((&Nginx, &str), u32)| json!({ "host": endpoint.address.ip(), "port": endpoint.address.port(), "weight": weight, "zone": &name[..1] });
        let nodes: Vec<Value> = self.endpoints.iter().zip(NAMES).zip(weights).map(node).collect();
        let probe = json!({ "type": "tcp", "healthy": { "interval": 1, "successes": 1 }, "unhealthy": { "interval": 1, "tcp_failures": 1 } });
        let upstream = json!({ "nodes": nodes, "checks": { "active": probe } });
        self.gateways.iter().for_each(|gateway| gateway.put("/upstreams/web", upstream.clone()));
    }

    /// Waits until each gateway shows this share of its requests in these zones.
    fn until_shares(&self, shares: [[f64; 2]; 2]) {
        for (gateway, shares) in self.gateways.iter().zip(shares) {
            for (zone, share) in ["a", "b"].iter().zip(shares) {
                until(&format!("zone {zone} to have {share} of the requests"), || {
                    let shown = gateway.metrics();
                    let line = shown.lines().find(|line| {
                        line.starts_with("heddle_upstream_zone_share{") && line.contains(&format!("zone=\"{zone}\""))
                    })?;
                    let value: f64 = line.rsplit(' ').next()?.parse().ok()?;
                    ((value - share).abs() < 0.001).then_some(())
                });
            }
        }
    }

    /// Who answers the requests to a gateway, and how often. Every request is answered.
    fn answers(&self, gateway: usize) -> BTreeMap<String, usize> {
        let mut answers = BTreeMap::new();
        for _ in 0..REQUESTS {
            let answer = self.gateways[gateway].get("/");
            assert_eq!(answer.status, 200, "{}", answer.text());
            *answers.entry(answer.text()).or_default() += 1;
        }
        answers
    }
}

#[test]
fn requests_stay_in_their_zone_while_it_can_carry_them() {
    let mut zones = Zones::start();
    zones.until_shares([[1.0, 0.0], [0.0, 1.0]]);
    assert_eq!(zones.answers(0).into_keys().collect::<Vec<_>>(), ["a1", "a2"]);
    assert_eq!(zones.answers(1).into_keys().collect::<Vec<_>>(), ["b1", "b2"]);

    zones.endpoints[0].process.kill();
    zones.until_shares([[0.7, 0.3], [0.0, 1.0]]);
    let answers = zones.answers(0);
    // exact for each of the two workers, give or take a few
    assert!(!answers.contains_key("a1") && (130..=150).contains(&answers["a2"]), "{answers:?}");

    zones.endpoints[1].process.kill();
    zones.until_shares([[0.0, 1.0], [0.0, 1.0]]);
    assert_eq!(zones.answers(0).into_keys().collect::<Vec<_>>(), ["b1", "b2"]);

    zones.endpoints[0].start_again();
    zones.endpoints[1].start_again();
    zones.until_shares([[1.0, 0.0], [0.0, 1.0]]);
    assert_eq!(zones.answers(0).into_keys().collect::<Vec<_>>(), ["a1", "a2"]);

    zones.write([0, 1, 1, 1]);
    until("the endpoint without weight to get no more", || (zones.answers(0).into_keys().eq(["a2".to_owned()])).then_some(()));
    let dump = client::get(zones.gateways[0].agent, "/config_dump").unwrap().json();
    let shown = dump["zones"].as_object().unwrap().values().next().unwrap();
    assert_eq!(shown[0], json!({ "zone": "a", "endpoints": 1, "standing": 1, "share": 1.0, "why": "own" }), "{dump:#}");
}
