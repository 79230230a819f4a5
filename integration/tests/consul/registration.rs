//! Services that agents register at Consul: found by others, kept alive by what is true, taken back, reaped, registered again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use heddle_integration::consul::Consul;
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::mesh::{Mesh, Node, Service};
use heddle_integration::process::until;
use serde_json::{Value, json};

/// An application that answers `/healthz` with a status that can be changed, and everything else with its name.
struct App {
    address: SocketAddr,
    health: Arc<AtomicU16>,
}

impl App {
    fn start() -> App {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, health) = (listener.local_addr().unwrap(), Arc::new(AtomicU16::new(200)));
        let told = health.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, told) = (stream.unwrap(), told.clone());
                std::thread::spawn(move || {
                    let mut head = [0; 4096];
                    let read = stream.read(&mut head).unwrap_or(0);
                    let status = if head[..read].starts_with(b"GET /healthz") { told.load(Ordering::Relaxed) } else { 200 };
                    let answer = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 3\r\n\r\nweb");
                    let _ = stream.write_all(answer.as_bytes());
                });
            }
        });
        App { address, health }
    }
}

/// A sidecar that lets in callers in clear and registers its service.
fn registered(mesh: &Mesh, consul: &Consul, app: &App) -> Node {
    let keys = ", version: \"7\", consul: { register: true, ttl: 3s, tags: [blue], weights: { passing: 5, warning: 2 }, \
                checks: [ { path: /healthz, interval: 1s } ] }";
    let more = format!("consul: {{ address: \"{}\" }}\n", consul.uri());
    mesh.sidecar(&Service { said: keys, inbound: ", mode: permissive", more: &more, ..Service::http("web", app.address) })
}

/// Another gateway, that finds the service in Consul.
fn finder(consul: &Consul) -> Heddle {
    let more = format!("providers: {{ consul: {{ address: \"{}\" }} }}\n", consul.uri());
    let heddle = Heddle::run_with(Setup { more, ..Setup::default() });
    let upstream = json!({ "discovery_type": "consul", "service_name": "web", "discovery_args": { "only_passing": true } });
    heddle.put("/routes/web", json!({ "uri": "/*", "upstream": upstream }));
    heddle
}

/// The instances of the service, as Consul has them.
fn instances(consul: &Consul, service: &str) -> Vec<Value> {
    let answer = consul.ask("GET", &format!("/v1/health/service/{service}"), &Value::Null);
    answer.ok().and_then(|answer| answer.json().as_array().cloned()).unwrap_or_default()
}

/// Its check, as Consul has it.
fn check(consul: &Consul, service: &str) -> Option<Value> {
    let found = instances(consul, service);
    let checks = found.first()?["Checks"].as_array()?.clone();
    checks.into_iter().find(|check| check["CheckID"].as_str().is_some_and(|id| id.ends_with(":heddle")))
}

fn until_check(consul: &Consul, service: &str, status: &str) -> String {
    let found =
        until(&format!("Consul to call {service} {status}"), || check(consul, service).filter(|check| check["Status"] == status));
    found["Output"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_sidecar_registers_lives_with_its_application_survives_consul_and_leaves() {
    let (mut consul, app, mesh) = (Consul::start(), App::start(), Mesh::start(""));
    let finder = finder(&consul);
    let web = registered(&mesh, &consul, &app);
    assert_eq!(finder.until_status("/", 200).text(), "web");
    let service = &instances(&consul, "web")[0]["Service"];
    assert_eq!((&service["Address"], &service["Port"]), (&json!(web.inbound.ip().to_string()), &json!(web.inbound.port())));
    assert_eq!((&service["Tags"], &service["Weights"]), (&json!(["blue"]), &json!({ "Passing": 5, "Warning": 2 })));
    assert_eq!((&service["Meta"]["version"], &service["Meta"]["heddle-node"]), (&json!("7"), &json!("web")));
    let shown = finder.admin("GET", "/discovery/services", Value::Null).json();
    assert_eq!(shown[0]["endpoints"][0]["weight"], 5);

    app.health.store(503, Ordering::Relaxed);
    assert!(until_check(&consul, "web", "critical").contains("/healthz: status 503"), "the reason is told");
    finder.until_status("/", 503);
    app.health.store(200, Ordering::Relaxed);
    until_check(&consul, "web", "passing");
    finder.until_status("/", 200);

    consul.restart();
    until_check(&consul, "web", "passing");
    finder.until_status("/", 200);
    until("the log to tell it", || web.process.output().contains("does not know the service any more").then_some(()));
    let metrics = web.metrics();
    for line in ["heddle_consul_registered 1", "heddle_consul_check_status{status=\"passing\"} 1"] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }

    web.process.signal("TERM");
    until("it to be taken back", || instances(&consul, "web").is_empty().then_some(()));
    finder.until_status("/", 503);
    until("the log to tell it", || web.process.output().contains("deregistered from Consul").then_some(()));
}

#[test]
fn whoever_is_killed_gets_no_traffic_and_is_reaped() {
    let (consul, app, mesh) = (Consul::start(), App::start(), Mesh::start(""));
    let finder = finder(&consul);
    let mut web = registered(&mesh, &consul, &app);
    finder.until_status("/", 200);
    web.process.kill();
    let said = until_check(&consul, "web", "critical");
    assert!(said.contains("TTL expired"), "{said}");
    finder.until_status("/", 503);
    // Consul waits a minute at least, and looks twice a minute.
    let killed = Instant::now();
    while !instances(&consul, "web").is_empty() {
        assert!(killed.elapsed() < Duration::from_secs(180), "Consul does not reap");
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

#[test]
fn a_gateway_starts_without_consul_and_registers_when_it_comes() {
    let mut consul = Consul::start();
    consul.process.kill();
    let more = format!(
        "service: {{ consul: {{ register: true, port: 9080, id: edge }} }}\nconsul: {{ address: \"{}\", timeout: 1s }}\n",
        consul.uri()
    );
    let gateway = Heddle::run_with(Setup { more, ..Setup::default() });
    until("the failure to be told", || gateway.metrics().contains("call=\"register\",result=\"failed\"").then_some(()));
    assert!(gateway.metrics().contains("heddle_consul_registered 0"));
    consul.start_again();
    until_check(&consul, "gateway", "passing");
    assert_eq!(instances(&consul, "gateway")[0]["Service"]["ID"], "edge");
    gateway.process.signal("TERM");
    until("it to be taken back", || instances(&consul, "gateway").is_empty().then_some(()));
}
