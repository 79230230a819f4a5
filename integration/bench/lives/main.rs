//! What callers feel of the lives of identities: one that is renewed every few seconds for minutes, and minutes without any control plane. Sidecars under load of
//! requests that may be sent again and such as never may, with a connection that stays open; real processes.
//!
//! `cargo build --release -p heddle && cargo run --release -p heddle-integration --example lives`
#![allow(missing_docs)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use heddle_integration::client;
use heddle_integration::mesh::Mesh;
use heddle_integration::process::until;
use heddle_integration::traffic::{Called, Traffic};
use serde_json::json;

const USAGE: &str = "\
lives [short | away | both] [--seconds 300] [--ttl 10] [--connections 4] [--pause 5]

`short`: identities of so many seconds (--ttl) are renewed under load. `away`: the only control plane is killed under load and comes back. Each lasts --seconds, `both` run one
after the other. Connections, so many for GET and as many for POST, rest for --pause milliseconds between an answer and the next request; 0 is as fast as they can.";

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

/// What was issued to the sidecars so far.
fn issued(mesh: &Mesh) -> usize {
    let audit = mesh.audit();
    ["svc/web", "svc/api", "svc/mail"].iter().map(|who| audit.matches(who).count()).sum()
}

fn traffic(options: &Options, called: &Called) -> Traffic {
    called.traffic(options.connections, Duration::from_millis(options.pause))
}

/// Identities of a few seconds, renewed all the while; how many requests failed.
fn short_lives(options: &Options) -> u64 {
    let mesh = Mesh::start(&format!(", svid_ttl: {}s", options.ttl));
    let called = Called::start(&mesh);
    let (before, traffic) = (issued(&mesh), traffic(options, &called));
    std::thread::sleep(Duration::from_secs(options.seconds));
    let renewals = issued(&mesh).saturating_sub(before);
    let failed = told("short", options, traffic);
    println!("short: identities of {} s; {renewals} were issued meanwhile to the three sidecars", options.ttl);
    failed
}

/// No control plane for so long, then it comes back and is obeyed again; how many requests failed.
fn nobody_there(options: &Options) -> u64 {
    let mut mesh = Mesh::start("");
    let called = Called::start(&mesh);
    let traffic = traffic(options, &called);
    mesh.control.process.kill();
    std::thread::sleep(Duration::from_secs(options.seconds));
    let begun = Instant::now();
    mesh.control.start_again();
    let up = begun.elapsed();
    let fault = json!({ "abort": { "http_status": 418, "vars": [[["arg_obeys", "==", "yes"]]] } });
    mesh.control.put("/mesh_services/api", json!({ "plugins": { "fault-injection": fault } }));
    until("the sidecar to obey again", || {
        let answer = client::get(called.web.outbound[0], "/?obeys=yes").ok()?;
        (answer.status == 418).then_some(())
    });
    let obeyed = begun.elapsed();
    let failed = told("away", options, traffic);
    println!("away: the control plane answers after {up:?}, and a change reaches the sidecar {obeyed:?} after its start");
    failed
}

fn told(name: &str, options: &Options, traffic: Traffic) -> u64 {
    let mut failed = 0;
    for (kind, tally) in ["GET", "POST"].into_iter().zip(traffic.end()) {
        let (connections, seconds) = (options.connections, options.seconds);
        println!("{name}: {} {kind} in {seconds} s over {connections} connections, {} failed", tally.requests, tally.failed);
        tally.failures.iter().for_each(|failure| println!("  {failure}"));
        failed += tally.failed;
    }
    println!("{name}: the connection that was open before is still answered");
    failed
}
