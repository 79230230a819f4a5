//! How long a fleet needs to have everything again when all of its control planes were away at once: real control planes beside a real etcd of three members,
//! simulated agents on real delta streams.
//!
//! `cargo build --release -p heddle && cargo run --release -p heddle-integration --example returning -- --agents 1000 --away 10`
#![allow(missing_docs)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use heddle_integration::load::Load;
use heddle_integration::nginx::Nginx;
use heddle_integration::replicas::{Agents, Replicas};
use serde_json::json;

const USAGE: &str = "\
returning [--agents 1000] [--routes 1000] [--planes 3] [--away 10]

Starts and stops etcd and the control planes by itself; HEDDLE_BINARY names another binary. All control planes are killed, and come back after so many seconds,
while requests go through a gateway, none of which may fail.";

struct Options {
    agents: usize,
    routes: usize,
    planes: usize,
    away: usize,
}

fn read(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { agents: 1_000, routes: 1_000, planes: 3, away: 10 };
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        let value = value.parse::<usize>().ok().filter(|n| *n > 0).ok_or(format!("{value} is no number above 0"))?;
        match word.as_str() {
            "--agents" => options.agents = value,
            "--routes" => options.routes = value,
            "--planes" => options.planes = value,
            "--away" => options.away = value,
            _ => return Err(format!("{word} is not known")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let measured =
        read(std::env::args().skip(1)).map_err(|why| format!("{why}\n\n{USAGE}")).and_then(|options| measure(&options));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), String> {
    let (nginx, mut replicas) = (Nginx::saying("up"), Replicas::start(options.planes, 3));
    replicas.route("kept", nginx.address);
    let load = Load::start(replicas.http, "/kept", 2);
    for n in 0..options.routes {
        let body = json!({ "uri": format!("/r{n}"), "upstream": { "nodes": { "127.0.0.1:1": 1 } } });
        let answer =
            replicas.planes[n % options.planes].put(&format!("/routes/r{n}"), &body).map_err(|error| error.to_string())?;
        if answer.status != 201 {
            return Err(answer.text());
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let agents = Agents::start(options.agents, &replicas.addresses());
        println!("{} agents and {} routes: all have everything {:?} after they started", options.agents, options.routes, agents.all(true).await?);
        replicas.planes.iter_mut().for_each(|plane| plane.process.kill());
        agents.all(false).await?;
        tokio::time::sleep(Duration::from_secs(options.away as u64)).await;
        let begun = Instant::now();
        (0..options.planes).for_each(|at| replicas.start_again(at));
        let up = begun.elapsed();
        agents.all(true).await?;
        let (all, spread) = (begun.elapsed(), replicas.spread());
        println!("away for {} s; the control planes answer after {up:?}, all agents have everything after {all:?}; connected: {spread:?}", options.away);
        Ok::<(), String>(())
    })?;
    let tally = load.stop();
    println!("{} requests through a gateway meanwhile, {} of them failed", tally.requests, tally.failed);
    tally.failures.first().map_or(Ok(()), |first| Err(format!("{first:?}")))
}
