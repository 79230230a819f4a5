//! What gateways share by gossip, with real processes: a limit, and how busy endpoints are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use heddle_integration::client;
use heddle_integration::fleet::gossip::Agents;
use heddle_integration::fleet::holder::Holder;
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::until;
use serde_json::{Value, json};

const GATEWAYS: usize = 3;
const REFUSED: u16 = 429;

fn limit(count: usize) -> Value {
    json!({ "limit-count": { "count": count, "time_window": 3600, "rejected_code": REFUSED, "policy": "gossip", "key_type": "constant", "key": "all" } })
}

/// Asks each gateway so often, all at the same time and each without haste; how many were let through.
fn ask(agents: &Agents, target: &str, each: usize) -> usize {
    let one = |address: SocketAddr| {
        let mut through = 0;
        for _ in 0..each {
            let status = client::get(address, target).unwrap().status;
            assert!(matches!(status, 200 | REFUSED), "{status}");
            through += usize::from(status == 200);
            std::thread::park_timeout(Duration::from_millis(10));
        }
        through
    };
    std::thread::scope(|scope| {
        let asking: Vec<_> = agents.agents.iter().map(|agent| scope.spawn(move || one(agent.http))).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn a_limit_holds_over_gateways_within_its_bound() {
    const COUNT: usize = 300;
    let (agents, upstream) = (Agents::start(GATEWAYS), Nginx::saying("hello"));
    let nodes = json!({ "nodes": { upstream.address.to_string(): 1 } });
    agents.control.put("/routes/open", json!({ "uri": "/open", "upstream": nodes }));
    agents.control.put("/routes/p", json!({ "uri": "/p", "plugins": limit(COUNT), "upstream": nodes }));
    agents.control.put("/routes/few", json!({ "uri": "/few", "plugins": limit(2), "upstream": nodes }));
    agents.until_status("/open", 200);
    agents.until_peers(GATEWAYS);
    let through = ask(&agents, "/p", COUNT);
    let most = COUNT + (GATEWAYS - 1) * COUNT.div_ceil(GATEWAYS);
    println!("{through} of {} let through, {COUNT} allowed, at most {most}", GATEWAYS * COUNT);
    assert!((COUNT..=most).contains(&through), "{through}");
    // What is used up is used up everywhere.
    agents.until_status("/p", REFUSED);
    // More gateways than requests: not nobody is let through, and nobody lets more through than the whole limit before it has heard of the others.
    let few = ask(&agents, "/few", 5);
    assert!((2..=2 * GATEWAYS).contains(&few), "{few}");
    agents.until_status("/few", REFUSED);
}

#[test]
fn a_gateway_leans_away_from_what_others_load() {
    let place = Place::new();
    let (slow, quick) = (Holder::start(&place, "slow", true), Holder::start(&place, "quick", false));
    let agents = Agents::start(2);
    let nodes = json!({ slow.address.to_string(): 1, quick.address.to_string(): 1 });
    let timeouts = json!({ "connect": 30, "send": 60, "read": 60 });
    agents
        .control
        .put("/upstreams/web", json!({ "nodes": nodes, "type": "least_conn", "load_from": "fleet", "timeout": timeouts }));
    agents.control.put("/routes/web", json!({ "uri": "/*", "upstream_id": "web" }));
    agents.until_status("/", 200);
    agents.until_peers(2);
    let answers = || -> BTreeSet<String> { (0..30).map(|_| client::get(agents.agents[0].http, "/").unwrap().text()).collect() };
    until("both to be used", || (answers().len() == 2).then_some(()));
    std::thread::scope(|scope| {
        let other = agents.agents[1].http;
        let held: Vec<_> = (0..24).map(|_| scope.spawn(move || client::get(other, "/hold").unwrap().status)).collect();
        until("the one that the other gateway loads to be spared", || answers().iter().eq(["quick"]).then_some(()));
        slow.let_go();
        assert!(held.into_iter().all(|thread| thread.join().unwrap() == 200));
    });
    until("both to be used again", || (answers().len() == 2).then_some(()));
}
