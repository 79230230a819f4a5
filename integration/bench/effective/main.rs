//! Measures how soon changes over the Admin API are effective on the wire, how long a start takes and how much memory, with 1,000 and 10,000 routes. Prints JSON.
//!
//! `cargo build --release --workspace && cargo run --release -p heddle-integration --example effective`
#![allow(missing_docs)]

use heddle_integration::measure;
use heddle_integration::nginx::Nginx;
use serde_json::json;

/// Changes per measurement.
const ROUNDS: usize = 300;

fn main() {
    let nginx = Nginx::saying("here");
    let results: Vec<_> = [1, 1_000, 10_000]
        .into_iter()
        .map(|routes| {
            let (heddle, loading) = measure::load(routes, nginx.address);
            let (after_start, _) = measure::memory(heddle.process.pid());
            let times = measure::changes(&heddle, ROUNDS);
            let (after_changes, peak) = measure::memory(heddle.process.pid());
            let ms = |percent| measure::percentile(&times, percent).as_secs_f64() * 1e3;
            json!({
                "routes": routes,
                "load_seconds": loading.as_secs_f64(),
                "effective_ms": { "p50": ms(50), "p90": ms(90), "p99": ms(99), "max": ms(100) },
                "memory_mib": { "after_start": after_start, "after_changes": after_changes, "peak": peak },
            })
        })
        .collect();
    println!("{:#}", json!({ "changes_each": ROUNDS, "results": results }));
}
