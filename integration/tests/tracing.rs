//! Traces: a real OTLP collector (Python's gRPC) gets the spans, and the W3C context goes on to the server behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use heddle_integration::client;
use heddle_integration::heddle::{Heddle, Setup, binary};
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use heddle_integration::raw::{Raw, read_head};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[test]
fn a_sampled_request_reaches_the_collector_and_its_context_the_server() {
    let place = Place::new();
    let address = place.address();
    let collector = collector(&place, &address.to_string());
    let more = format!("tracing: {{ otlp: \"http://{address}\", sample: 0.0 }}\n");
    let heddle = Heddle::run_with(Setup { more, ..Setup::default() });
    let heads = Arc::new(Mutex::new(Vec::new()));
    let noted = heads.clone();
    let origin = Raw::start(move |stream| {
        noted.lock().unwrap().push(read_head(stream));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    heddle.route("traced", "/*", origin.address);
    heddle.until_status("/", 200);
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let answer = client::send(heddle.http, "GET", "/traced", &[("traceparent", &parent)], b"").unwrap();
    assert_eq!(answer.status, 200);
    let seen = until("the request at the origin", || {
        heads.lock().unwrap().iter().find(|head: &&String| head.contains("GET /traced")).cloned()
    });
    let passed =
        seen.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("traceparent: ").map(str::to_owned)).unwrap();
    assert!(passed.starts_with(&format!("00-{TRACE}-")) && passed.trim().ends_with("-01"), "{passed}");
    assert!(!passed.contains(PARENT), "the server's parent is our span, not the client's: {passed}");
    let ours = passed.split('-').nth(2).unwrap().to_owned();
    until("the span at the collector", || {
        collector.output().lines().any(|line| [TRACE, PARENT, &ours].iter().all(|id| line.contains(id))).then_some(())
    });
    let others = collector.output().lines().filter(|line| line.starts_with("export")).count();
    assert_eq!(others, 1, "a ratio of zero traces nothing that no caller asked for");
}

fn collector(place: &Place, address: &str) -> Process {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = binary().ancestors().nth(2).unwrap().to_owned();
    let made = Command::new("bash").arg(folder.join("python.sh")).env("CARGO_TARGET_DIR", &target).status().unwrap();
    assert!(made.success(), "the virtual environment could not be made");
    let mut command = Command::new(target.join("python/bin/python"));
    command.arg(folder.join("python/collector.py")).arg(address);
    let process = Process::start(command, place.path("collector.log"));
    until("the collector", || process.output().contains("serving").then_some(()));
    process
}
