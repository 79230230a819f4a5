//! Services in Consul whose instances come and go while traffic flows: whether the gateway knows the right ones at the end, and how fast a change reaches
//! traffic. Every address of loopback is an instance, as one listener answers on all of them with the address that it was asked on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client;
use crate::consul::Consul;
use crate::heddle::{Heddle, Setup};
use crate::process::until;

const SERVICES: usize = 200;
const INSTANCES: usize = 2_000;
/// Changes in a second.
const RATE: u32 = 50;

/// What came of it.
pub struct Report {
    pub changes: usize,
    /// From before a change is sent to Consul until no answer comes from elsewhere, sorted.
    pub latencies: Vec<Duration>,
    /// Services whose endpoints were wrong at the end.
    pub wrong: Vec<String>,
}

impl Report {
    pub fn percentile(&self, percent: usize) -> Duration {
        self.latencies[(self.latencies.len() - 1) * percent / 100]
    }
}

/// Answers on all addresses of loopback at the port given back; the body is the address.
pub fn everywhere() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((mut stream, _)) = listener.accept().await {
                let body = stream.local_addr().map(|address| address.ip().to_string()).unwrap_or_default();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                tokio::spawn(async move {
                    let (mut got, mut piece) = (Vec::new(), [0; 4096]);
                    while let Ok(read @ 1..) = stream.read(&mut piece).await {
                        got.extend_from_slice(&piece[..read]);
                        if got.ends_with(b"\r\n\r\n") {
                            got.clear();
                            if stream.write_all(answer.as_bytes()).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
    });
    port
}

/// The address of an instance.
fn address(number: usize, port: u16) -> SocketAddr {
    let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, 130, high, low), port))
}

/// A gateway whose routes `/NAME` lead to the services of these names.
pub fn gateway(consul: &Consul, services: &[String]) -> Heddle {
    let routes = services.iter().map(
        |name| json!({ "id": name, "uri": format!("/{name}"), "upstream": { "discovery_type": "consul", "service_name": name } }),
    );
    let path = consul.place.write("resources.json", &json!({ "routes": routes.collect::<Vec<_>>() }).to_string());
    let more = format!(
        "providers: {{ consul: {{ address: \"{}\", max_queries: 500 }}, file: {{ path: \"{}\" }} }}\n",
        consul.uri(),
        path.display()
    );
    Heddle::run_with(Setup { more, ..Setup::default() })
}

/// What the control plane knows of the endpoints of each service, as addresses.
pub fn known(heddle: &Heddle) -> BTreeMap<String, BTreeSet<String>> {
    let shown = heddle.admin("GET", "/discovery/services", Value::Null).json();
    let hosts =
        |one: &Value| one["endpoints"].as_array().unwrap().iter().map(|one| one["host"].as_str().unwrap().to_owned()).collect();
    shown.as_array().unwrap().iter().map(|one| (one["service"].as_str().unwrap().to_owned(), hosts(one))).collect()
}

/// Registers everything, then changes it for as long as is said while it measures.
pub fn churn(lasting: Duration) -> Report {
    let (consul, port) = (Consul::start(), everywhere());
    let names: Vec<String> = (0..SERVICES).map(|number| format!("s{number}")).collect();
    let mut there: Vec<bool> = vec![true; INSTANCES];
    for number in 0..INSTANCES {
        consul.register(&names[number % SERVICES], &format!("i{number}"), address(number, port), &Value::Null);
    }
    let probes = ["127.131.0.1", "127.131.0.2"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
    consul.register("probe", "p", probes[0], &Value::Null);
    let asked: Vec<String> = names.iter().cloned().chain(["probe".to_owned()]).collect();
    let heddle = gateway(&consul, &asked);
    for name in &asked {
        heddle.until_status(&format!("/{name}"), 200);
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (changes, mut latencies) = std::thread::scope(|scope| {
        let changing = scope.spawn(|| change(&consul, &names, &mut there, port, &stop));
        let (begun, mut latencies, mut at) = (Instant::now(), Vec::new(), 0);
        while begun.elapsed() < lasting {
            at = 1 - at;
            let sent = Instant::now();
            consul.register("probe", "p", probes[at], &Value::Null);
            let expected = probes[at].ip().to_string();
            let from_there = || client::get(heddle.http, "/probe").is_ok_and(|answer| answer.text() == expected);
            let mut since = None;
            until("the probe to have moved", || {
                let moved = from_there();
                since = if moved { since.or(Some(sent.elapsed())) } else { None };
                (moved && (0..6).all(|_| from_there())).then_some(())
            });
            latencies.extend(since);
            std::thread::park_timeout(Duration::from_millis(50));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (changing.join().unwrap(), latencies)
    });
    latencies.sort_unstable();
    let expected = |service: usize| -> BTreeSet<String> {
        let own = (service..INSTANCES).step_by(SERVICES).filter(|number| there[*number]);
        own.map(|number| address(number, port).ip().to_string()).collect()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    let wrong = loop {
        let known = known(&heddle);
        let wrong: Vec<usize> = (0..SERVICES).filter(|service| known[&names[*service]] != expected(*service)).collect();
        if wrong.is_empty() || Instant::now() > deadline {
            break wrong.into_iter().map(|service| names[service].clone()).collect();
        }
        std::thread::park_timeout(Duration::from_millis(50));
    };
    for service in (0..SERVICES).step_by(10).filter(|service| !expected(*service).is_empty()) {
        let seen = || (0..24).map(|_| heddle.get(&format!("/{}", names[service])).text()).collect::<BTreeSet<_>>();
        until("traffic to reach exactly the instances that are there", || (seen() == expected(service)).then_some(()));
    }
    Report { changes, latencies, wrong }
}

/// Instances leave and come back at the rate, at least one of each service stays.
fn change(consul: &Consul, names: &[String], there: &mut [bool], port: u16, stop: &std::sync::atomic::AtomicBool) -> usize {
    let (begun, mut changes, mut number) = (Instant::now(), 0_u32, 0);
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        number = (number + 611) % INSTANCES;
        if number >= SERVICES {
            let id = format!("i{number}");
            if there[number] {
                consul.deregister(&id);
            } else {
                consul.register(&names[number % SERVICES], &id, address(number, port), &Value::Null);
            }
            there[number] = !there[number];
            changes += 1;
        }
        let due = begun + Duration::from_secs(1) / RATE * changes;
        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
    }
    usize::try_from(changes).unwrap()
}
