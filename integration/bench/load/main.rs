//! The load generator and the backends of `bench/compare`, for what wrk and h2load cannot do. It knows nothing of any proxy: addresses come in, one line of JSON goes out.
//!
//! `load KIND key=value …`; the kinds are `backend`, `handshakes`, `grpc`, `open`, `idle` and `websocket`. Only complete and correct answers count.
#![allow(missing_docs)]

mod answer;
mod backend;
mod grpc;
mod handshakes;
mod idle;
mod open;
mod options;
mod tally;
mod tls;
mod websocket;

use std::future::Future;
use std::process::ExitCode;

use options::Options;
use tally::Tally;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match Options::read(&arguments).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("load: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let tally = match options.kind.as_str() {
        "backend" => return backend::run(),
        "idle" => return on_one_thread(idle::run(options)),
        "handshakes" => on_one_thread(handshakes::run(options))?,
        "grpc" => on_one_thread(grpc::run(options))?,
        "websocket" => on_one_thread(websocket::run(options))?,
        "open" => open::run(options)?,
        other => return Err(format!("unknown kind `{other}`; one of backend, handshakes, grpc, open, idle, websocket")),
    };
    report(tally)
}

fn report(tally: Tally) -> Result<(), String> {
    println!("{}", tally.json());
    if tally.done() == 0 { Err(format!("no request was answered well: {}", tally.first_failure())) } else { Ok(()) }
}

/// One thread, as the whole load lives on one core.
fn on_one_thread<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
