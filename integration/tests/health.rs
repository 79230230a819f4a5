//! How endpoints stand, and why, as an agent shows it to people, programs and Prometheus.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use heddle_integration::client;
use heddle_integration::heddle::{Heddle, Setup, binary};
use heddle_integration::place::Place;
use heddle_integration::process::until;
use heddle_integration::raw::read_head;
use serde_json::{Value, json};

/// Probes at this path are answered with a status that can be changed; all else is 200.
const HEALTH: &str = "/healthz";

/// An endpoint, and what its checks are told.
struct Endpoint {
    address: SocketAddr,
    status: Arc<AtomicU16>,
}

impl Endpoint {
    fn start(place: &Place) -> Endpoint {
        let listener = TcpListener::bind((place.ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let status = Arc::new(AtomicU16::new(200));
        let answers = status.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answers = answers.clone();
                std::thread::spawn(move || serve(stream, &answers));
            }
        });
        Endpoint { address, status }
    }
}

/// One request for each connection.
fn serve(mut stream: TcpStream, answers: &AtomicU16) {
    let head = read_head(&mut stream);
    let status = if head.starts_with(&format!("GET {HEALTH} ")) { answers.load(Ordering::Relaxed) } else { 200 };
    let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

fn upstream(endpoints: &[Endpoint], checkers: Value) -> Value {
    let nodes = endpoints.iter().map(|endpoint| (endpoint.address.to_string(), json!(1))).collect::<serde_json::Map<_, _>>();
    let healthy = json!({ "interval": 1, "successes": 1 });
    let unhealthy = json!({ "interval": 1, "http_failures": 1, "tcp_failures": 1, "timeouts": 1 });
    let active = json!({ "http_path": HEALTH, "checkers": checkers, "healthy": healthy, "unhealthy": unhealthy });
    json!({ "nodes": nodes, "checks": { "active": active } })
}

/// What an agent says of one endpoint.
fn endpoint(agent: SocketAddr, upstream: &str, address: SocketAddr) -> Option<Value> {
    let answer = client::get(agent, &format!("/endpoints/{upstream}")).ok()?;
    let all = (answer.status == 200).then(|| answer.json())?;
    let list = all["upstreams"][0]["endpoints"].as_array()?.clone();
    list.into_iter().find(|one| one["address"] == address.to_string())
}

fn until_state(agent: SocketAddr, upstream: &str, address: SocketAddr, state: &str) -> Value {
    until(&format!("{address} to be {state}"), || endpoint(agent, upstream, address).filter(|one| one["state"] == state))
}

fn heddle(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(binary()).args(arguments).output().unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn every_state_is_shown_with_its_reason() {
    let place = Place::new();
    let endpoints = [(); 3].map(|()| Endpoint::start(&place));
    let gateway = Heddle::run_with(Setup::default());
    gateway.put("/upstreams/web", upstream(&endpoints, json!(3)));
    gateway.put("/routes/web", json!({ "uri": "/*", "upstream_id": "web" }));
    gateway.until_effective();
    endpoints[0].status.store(503, Ordering::Relaxed);
    let down = until_state(gateway.agent, "web", endpoints[0].address, "down");
    let reason = &down["reasons"][0];
    assert_eq!((&reason["source"], &reason["found"], &reason["by"]), (&json!("probe"), &json!("status 503"), &json!(["gw-1"])));
    assert_eq!(down["checked_by"], json!(["gw-1"]), "an agent alone checks everything");
    let agent = gateway.agent.to_string();
    let (done, table) = heddle(&["endpoints", "upstreams/web", "--agent", &agent]);
    assert!(done && table.starts_with("UPSTREAM"), "{table}");
    assert!(table.contains("probe (status 503) by gw-1") && table.lines().count() == 4, "{table}");
    let (done, _) = heddle(&["endpoints", "nobody", "--agent", &agent]);
    assert!(!done, "an upstream that is not there is a failure");
    let address = endpoints[0].address;
    let series = format!("heddle_endpoint_state{{upstream=\"web\",endpoint=\"{address}\",state=\"down\",reason=\"probe\"}} 1");
    assert!(gateway.metrics().contains(&series), "{}", gateway.metrics());
    assert!(gateway.metrics().contains("heddle_upstream_panic{upstream=\"web\"} 0"));
    // no evidence empties an upstream
    endpoints.iter().for_each(|endpoint| endpoint.status.store(503, Ordering::Relaxed));
    endpoints.iter().for_each(|endpoint| drop(until_state(gateway.agent, "web", endpoint.address, "panic")));
    assert!(gateway.metrics().contains("heddle_upstream_panic{upstream=\"web\"} 1"));
    assert!((0..10).all(|_| gateway.get("/anything").status == 200));
    assert!(heddle(&["endpoints", "--agent", &agent]).1.contains("health is ignored (panic)"));
    endpoints.iter().for_each(|endpoint| endpoint.status.store(200, Ordering::Relaxed));
    endpoints.iter().for_each(|endpoint| drop(until_state(gateway.agent, "web", endpoint.address, "up")));
}
