//! How soon a change is effective on the wire, and what thousands of routes cost. The bounds are generous; the bench has the real figures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use heddle_integration::measure;
use heddle_integration::nginx::Nginx;

fn effective(routes: usize, rounds: usize) {
    let nginx = Nginx::saying("here");
    let (heddle, loading) = measure::load(routes, nginx.address);
    let times = measure::changes(&heddle, rounds);
    let (p50, p99) = (measure::percentile(&times, 50), measure::percentile(&times, 99));
    let (resident, peak) = measure::memory(heddle.process.pid());
    println!(
        "{routes} routes: loaded in {loading:?}, changes effective p50 {p50:?} p99 {p99:?}, memory {resident} MiB, peak {peak} MiB"
    );
    assert!(p50 < Duration::from_secs(1), "half of the changes took longer than {p50:?}");
}

#[test]
fn a_change_is_effective_soon_with_a_thousand_routes() {
    effective(1_000, 50);
}

#[test]
fn a_change_is_effective_soon_with_ten_thousand_routes() {
    effective(10_000, 20);
}
