//! What services cost a data plane that follows a control plane of Envoy's types: memory, the first byte after the start, one changed endpoint; Heddle's agent
//! beside the real Envoy, in one run with the same resources. Prints JSON.
//!
//! `cargo build --release -p heddle && HEDDLE_BINARY=target/release/heddle cargo run --release -p heddle-integration --example joined -- [SERVICES]…`
#![allow(missing_docs, clippy::expect_used)]

mod control;
mod resources;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use control::Control;
use heddle_integration::ads::{Follower, socket};
use heddle_integration::client;
use heddle_integration::echo::Echo;
use heddle_integration::envoy::{self, Envoy, Way};
use heddle_integration::measure::percentile;
use heddle_integration::place::Place;
use heddle_integration::process::until;
use resources::Addresses;
use serde_json::{Value, json};

/// What others are compared with: so many services that their own memory does not count.
const FEW: usize = 10;
/// Changes per measurement.
const CHANGES: usize = 50;
/// How long memory has to settle after the start and after the changes.
const REST: Duration = Duration::from_secs(7);

/// A data plane that runs.
enum Subject {
    Heddle(Box<Follower>),
    Envoy(Box<Envoy>),
}

impl Subject {
    /// Starts one of the two.
    fn start(name: &str, control: &Control) -> Subject {
        let bootstrap = envoy::bootstrap(control.address, name, Way::DeltaAds);
        if name == "envoy" {
            return Subject::Envoy(Box::new(Envoy::start(&bootstrap.to_string())));
        }
        Subject::Heddle(Box::new(Follower::with_bootstrap(|spot| {
            let mut own = bootstrap.clone();
            own["admin"]["address"] = socket(spot.admin);
            own.to_string()
        })))
    }

    /// KiB of memory that it holds.
    fn memory(&self) -> u64 {
        let pid = match self {
            Subject::Heddle(agent) => agent.process.pid(),
            Subject::Envoy(envoy) => envoy.process.pid(),
        };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }
}

struct Measured {
    memory: u64,
    memory_after: u64,
    first_byte: Duration,
    changes: Vec<Duration>,
}

/// Starts a data plane with so many services and measures it.
fn measure(name: &str, services: usize, usual: &Addresses, other: &Addresses) -> Measured {
    let place = Place::new();
    let http = place.address();
    let control = Control::start(resources::all(services, http, usual));
    let last = format!("s{}.example", services - 1);
    let ask = || client::send(http, "GET", "/", &[("Host", &last)], b"").ok().filter(|answer| answer.status == 200);
    let start = Instant::now();
    let subject = Subject::start(name, &control);
    until("the last service", ask);
    let first_byte = start.elapsed();
    std::thread::sleep(REST);
    let memory = subject.memory();
    let service = format!("s{}", services / 2);
    let changes = (0..CHANGES)
        .map(|turn| {
            let addresses = if turn % 2 == 0 { other } else { usual };
            control.change(resources::ENDPOINTS, &service, resources::assignment(&service, addresses), turn)
        })
        .collect();
    std::thread::sleep(REST);
    Measured { memory, memory_after: subject.memory(), first_byte, changes }
}

fn told(name: &str, services: usize, few: &Measured, many: &Measured) -> Value {
    let per = |before: u64, after: u64| after.saturating_sub(before) as f64 / (services - FEW) as f64;
    let ms = |percent| percentile(&many.changes, percent).as_secs_f64() * 1e3;
    json!({
        "subject": name,
        "services": services,
        "memory_mib": many.memory as f64 / 1024.0,
        "memory_kib_per_service": per(few.memory, many.memory),
        "memory_kib_per_service_after_changes": per(few.memory_after, many.memory_after),
        "first_byte_ms": many.first_byte.as_secs_f64() * 1e3,
        "endpoint_change_ms": { "p50": ms(50), "p90": ms(90), "max": ms(100) },
    })
}

fn main() {
    let sizes: Vec<usize> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).filter(|size| *size > FEW).collect();
    let sizes = if sizes.is_empty() { vec![1_000, 5_000] } else { sizes };
    let echoes: Vec<Echo> = (0..4).map(|number| Echo::start(&number.to_string())).collect();
    let addresses: Vec<SocketAddr> = echoes.iter().map(|echo| echo.address).collect();
    let (usual, other) = (addresses[..3].to_vec(), addresses[1..].to_vec());
    let mut results = Vec::new();
    for name in ["heddle", "envoy"] {
        let few = measure(name, FEW, &usual, &other);
        for &services in &sizes {
            results.push(told(name, services, &few, &measure(name, services, &usual, &other)));
        }
    }
    println!("{:#}", json!({ "changes_each": CHANGES, "results": results }));
}
