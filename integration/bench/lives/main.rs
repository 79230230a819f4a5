//! What callers feel of the lives of identities: one that is renewed every few seconds for minutes, and minutes without any control plane. Two sidecars under load,
//! real processes.
//!
//! `cargo build --release -p heddle && cargo run --release -p heddle-integration --example lives`
#![allow(missing_docs)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use heddle_integration::client;
use heddle_integration::load::Load;
use heddle_integration::mesh::{Mesh, Node, Service};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::json;

const USAGE: &str = "\
lives [short | away | both] [--seconds 300] [--ttl 10] [--connections 4] [--pause 5]

`short`: identities of so many seconds (--ttl) are renewed under load. `away`: the only control plane is killed under load and comes back. Each lasts --seconds, `both` run one
after the other. Connections rest for --pause milliseconds between an answer and the next request; 0 is as fast as they can.";

struct Options {
    short: bool,
    away: bool,
    seconds: u64,
    ttl: u64,
    connections: usize,
    pause: u64,
}

fn read(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { short: true, away: true, seconds: 300, ttl: 10, connections: 4, pause: 5 };
    while let Some(word) = words.next() {
        match word.as_str() {
            "short" => options.away = false,
            "away" => options.short = false,
            "both" => {}
            _ => {
                let value = words.next().ok_or(format!("{word} needs a value, or is not known"))?;
                let value = value.parse::<u64>().map_err(|_| format!("{value} is no number"))?;
                match word.as_str() {
                    "--seconds" => options.seconds = value,
                    "--ttl" => options.ttl = value,
                    "--connections" => options.connections = value as usize,
                    "--pause" => options.pause = value,
                    _ => return Err(format!("{word} is not known")),
                }
            }
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let short = if options.short { short_lives(&options) } else { 0 };
    let away = if options.away { nobody_there(&options) } else { 0 };
    if short + away == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Two sidecars, of which one calls the other.
struct Pair {
    mesh: Mesh,
    web: Node,
    _api: Node,
    _app: Nginx,
}

impl Pair {
    fn start(identity: &str) -> Pair {
        let (mesh, app) = (Mesh::start(identity), Nginx::saying("yes"));
        let api = mesh.sidecar(&Service::http("api", app.address));
        let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
        mesh.until_reached(&web, "/");
        Pair { mesh, web, _api: api, _app: app }
    }

    fn load(&self, options: &Options) -> Load {
        Load::paced(self.web.outbound[0], "/", options.connections, Duration::from_millis(options.pause))
    }

    fn issued(&self) -> usize {
        let audit = self.mesh.audit();
        ["svc/web", "svc/api"].iter().map(|who| audit.matches(who).count()).sum()
    }
}

/// Identities of a few seconds, renewed all the while; how many requests failed.
fn short_lives(options: &Options) -> u64 {
    let pair = Pair::start(&format!(", svid_ttl: {}s", options.ttl));
    let (before, load) = (pair.issued(), pair.load(options));
    std::thread::sleep(Duration::from_secs(options.seconds));
    let renewals = pair.issued().saturating_sub(before);
    let failed = told("short", options, load);
    println!("short: identities of {} s; {renewals} were issued meanwhile to the two sidecars", options.ttl);
    failed
}

/// No control plane for so long, then it comes back and is obeyed again; how many requests failed.
fn nobody_there(options: &Options) -> u64 {
    let mut pair = Pair::start("");
    let load = pair.load(options);
    pair.mesh.control.process.kill();
    std::thread::sleep(Duration::from_secs(options.seconds));
    let begun = Instant::now();
    pair.mesh.control.start_again();
    let up = begun.elapsed();
    let fault = json!({ "abort": { "http_status": 418, "vars": [[["arg_obeys", "==", "yes"]]] } });
    pair.mesh.control.put("/mesh_services/api", json!({ "plugins": { "fault-injection": fault } }));
    until("the sidecar to obey again", || {
        let answer = client::get(pair.web.outbound[0], "/?obeys=yes").ok()?;
        (answer.status == 418).then_some(())
    });
    let obeyed = begun.elapsed();
    let failed = told("away", options, load);
    println!("away: the control plane answers after {up:?}, and a change reaches the sidecar {obeyed:?} after its start");
    failed
}

fn told(name: &str, options: &Options, load: Load) -> u64 {
    let tally = load.stop();
    println!(
        "{name}: {} requests in {} s over {} connections, {} failed",
        tally.requests, options.seconds, options.connections, tally.failed
    );
    tally.failures.iter().for_each(|failure| println!("  {failure}"));
    tally.failed
}
