//! Measures the memory of sidecars, real processes: of one that rests, and of one in a mesh of 5,000 services that calls five of them. Prints JSON.
//!
//! `cargo build --release -p heddle && cargo run --release -p heddle-integration --example sidecar`
#![allow(missing_docs, clippy::expect_used)]

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use heddle_integration::client;
use heddle_integration::heddle::Setup;
use heddle_integration::mesh::{Mesh, Node, Service};
use heddle_integration::nginx::Nginx;
use serde_json::{Value, json};

const USAGE: &str = "\
sidecar [--services 5000] [--calls 5] [--requests 200] [--rest 30]

One sidecar rests for --rest seconds in a mesh of nobody else: `idle`. Another one is in a mesh of --services services, each with a `mesh_services` resource, of which it calls
--calls, each --requests times, and then rests as long: `calling`. MiB; `own` is what belongs to the process alone, without what it has mapped from its file.";

/// Services whose sidecars run: all that are called.
const MOST_CALLS: usize = 50;

fn main() -> ExitCode {
    match read(std::env::args().skip(1)) {
        Ok(options) => {
            println!(
                "{:#}",
                json!({ "services": options.services, "calls": options.calls, "idle": idle(&options), "calling": calling(&options) })
            );
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    services: usize,
    calls: usize,
    requests: usize,
    rest: Duration,
}

fn read(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { services: 5_000, calls: 5, requests: 200, rest: Duration::from_secs(30) };
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value, or is not known"))?;
        let value = value.parse::<usize>().map_err(|_| format!("{value} is no number"))?;
        match word.as_str() {
            "--services" => options.services = value,
            "--calls" => options.calls = value,
            "--requests" => options.requests = value,
            "--rest" => options.rest = Duration::from_secs(value as u64),
            _ => return Err(format!("{word} is not known")),
        }
    }
    if options.calls > options.services.min(MOST_CALLS) {
        return Err(format!("expected at most {MOST_CALLS} calls, of services that there are"));
    }
    Ok(options)
}

/// A sidecar that nobody calls and that calls nobody.
fn idle(options: &Options) -> Value {
    let mesh = Mesh::start("");
    let app = Nginx::saying("yes");
    let node = mesh.sidecar(&Service::http("idle", app.address));
    std::thread::sleep(options.rest);
    memory(&node)
}

/// A sidecar that calls a few of many.
fn calling(options: &Options) -> Value {
    let mut resources = String::from("mesh_services:\n");
    for service in 0..options.services {
        // Each is written, as owners do who have something to say.
        let _ = writeln!(resources, "  - {{ id: s{service}, timeout: {{ connect: 1, send: 5, read: 5 }}, retries: 2 }}");
    }
    let mesh = Mesh::with(Setup { resources: Some(resources), ..Setup::default() }, "");
    let app = Nginx::saying("yes");
    let names: Vec<String> = (0..options.calls).map(|service| format!("s{service}")).collect();
    let called: Vec<Node> = names.iter().map(|name| mesh.sidecar(&Service::http(name, app.address))).collect();
    let calls: Vec<&str> = names.iter().map(String::as_str).collect();
    let caller = mesh.sidecar(&Service { calls: &calls, ..Service::http("caller", app.address) });
    mesh.until_reached(&caller, "/");
    for address in &caller.outbound {
        for _ in 0..options.requests {
            let answer = client::get(*address, "/").expect("the sidecar answers");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    let busy = memory(&caller);
    std::thread::sleep(options.rest);
    json!({ "after_calls": busy, "at_rest": memory(&caller), "callee_at_rest": called.first().map(memory) })
}

/// What a process holds, MiB.
fn memory(node: &Node) -> Value {
    let pid = node.process.pid();
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process lives");
    let (rollup, status) = (read("smaps_rollup"), read("status"));
    let mib = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        let kib = line.split_whitespace().nth(1).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
        (kib / 1024.0 * 100.0).round() / 100.0
    };
    json!({ "resident": mib(&rollup, "Rss:"), "own": mib(&rollup, "Private_Dirty:"), "peak": mib(&status, "VmHWM:") })
}
