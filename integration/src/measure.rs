//! How fast changes take effect, how fast a start is and how much memory it takes, with many routes; for stories and for the bench.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Conversation;
use crate::heddle::Heddle;

/// Upstreams that the routes share.
const UPSTREAMS: usize = 100;

/// A resource file with so many routes of several kinds (exact, prefix, by host) to 100 upstreams at `node`.
pub fn resources(routes: usize, node: SocketAddr) -> String {
    let mut text = String::from("upstreams:\n");
    for upstream in 0..UPSTREAMS {
        writeln!(text, "  - {{ id: u{upstream}, nodes: {{ \"{node}\": 1 }} }}").unwrap();
    }
    text.push_str("routes:\n");
    for route in 0..routes {
        let place = match route % 3 {
            0 => format!("uri: /exact/{route}"),
            1 => format!("uri: /tree/{route}/*"),
            _ => format!("uri: /hosted/*, host: h{route}.example"),
        };
        writeln!(text, "  - {{ id: r{route}, {place}, upstream_id: u{} }}", route % UPSTREAMS).unwrap();
    }
    text
}

/// Starts heddle with so many routes; the time until the last of them is served.
pub fn load(routes: usize, node: SocketAddr) -> (Heddle, Duration) {
    let text = resources(routes, node);
    let start = Instant::now();
    let heddle = Heddle::with_resources(&text);
    // The last route with an exact path.
    let last = (0..routes).rev().find(|route| route % 3 == 0).unwrap_or(0);
    heddle.until_status(&format!("/exact/{last}"), 200);
    (heddle, start.elapsed())
}

/// Changes one route so many times over the Admin API; for each change the time from sending it until a request meets it.
pub fn changes(heddle: &Heddle, rounds: usize) -> Vec<Duration> {
    let mut client = Conversation::open(heddle.http);
    (0..rounds)
        .map(|round| {
            let location = format!("/to/{round}");
            let start = Instant::now();
            heddle.put("/routes/probe", json!({ "uri": "/probe", "plugins": { "redirect": { "uri": location } } }));
            while client.ask("GET /probe HTTP/1.1\r\nHost: test.example\r\n\r\n").field("location") != Some(location.as_str()) {
                assert!(start.elapsed() < crate::process::PATIENCE, "the change is not effective");
            }
            start.elapsed()
        })
        .collect()
}

/// This percentile of durations.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

/// Memory of a process in MiB: what it holds now and the most that it ever held.
pub fn memory(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}
