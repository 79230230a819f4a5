//! One configuration in Heddle's agent and in the real Envoy at once: the same requests through both must find the same route, upstream, status and fields.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "envoy_compare/differences.rs"]
mod differences;
#[path = "envoy_compare/requests.rs"]
mod requests;

use std::net::SocketAddr;

use differences::Seen;
use heddle_integration::ads::Follower;
use heddle_integration::client;
use heddle_integration::echo::Echo;
use heddle_integration::envoy::Envoy;
use heddle_integration::place::Place;
use requests::Request;

const BOOTSTRAP: &str = include_str!("envoy_compare/bootstrap.yaml");
/// Requests that are made of dice.
const GENERATED: usize = 300;
/// Whoever finds a difference can repeat it.
const SEED: u64 = 1_640_531_527;

/// The configuration with its addresses.
fn bootstrap(addresses: &[(&str, SocketAddr)]) -> String {
    addresses.iter().fold(BOOTSTRAP.to_owned(), |text, (name, address)| {
        let socket = format!("{{ socket_address: {{ address: \"{}\", port_value: {} }} }}", address.ip(), address.port());
        text.replace(&format!("@{name}@"), &socket)
    })
}

fn ask(address: SocketAddr, request: &Request) -> Seen {
    let fields: Vec<(&str, &str)> = request.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let answer = client::send(address, request.method, &request.target, &fields, request.body.as_bytes()).expect("an answer");
    Seen::new(answer)
}

#[test]
fn the_same_requests_find_the_same_route_upstream_status_and_fields() {
    let (blue, green) = (Echo::start("blue"), Echo::start("green"));
    let place = Place::new();
    let closed = place.address();
    let upstreams = [("BLUE", blue.address), ("GREEN", green.address), ("CLOSED", closed)];
    let agent =
        Follower::with_bootstrap(|spot| bootstrap(&[&upstreams[..], &[("HTTP", spot.http), ("ADMIN", spot.admin)]].concat()));
    let http = place.address();
    let any_port = "127.0.0.1:0".parse().unwrap();
    let envoy = Envoy::start(&bootstrap(&[&upstreams[..], &[("HTTP", http), ("ADMIN", any_port)]].concat()));
    agent.until_ready();
    envoy.until_live();
    let mut dice = fastrand::Rng::with_seed(SEED);
    let generated = std::iter::repeat_with(|| requests::generate(&mut dice)).take(GENERATED);
    let mut differing = Vec::new();
    let (mut routes, mut upstream) = (std::collections::BTreeSet::new(), 0);
    for request in requests::chosen().into_iter().chain(generated) {
        let (ours, theirs) = (ask(agent.spot.http, &request), ask(http, &request));
        routes.extend(theirs.route());
        upstream += usize::from(theirs.reached_upstream());
        let found = differences::between(&request, &ours, &theirs);
        if !found.is_empty() {
            differing.push(format!("{request}\n  {}", found.join("\n  ")));
        }
    }
    assert!(routes.len() >= 14 && upstream > 100, "the requests say something: {routes:?}, {upstream} reached an upstream");
    assert!(differing.is_empty(), "{} requests differ:\n{}", differing.len(), differing.join("\n"));
}
