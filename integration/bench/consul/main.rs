//! How fast a change in Consul reaches traffic while 200 services with 2,000 instances change 50 times a second: `consul [SECONDS]`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use heddle_integration::churn::churn;

fn main() {
    let seconds = std::env::args().nth(1).map_or(60, |text| text.parse().expect("a number of seconds"));
    let report = churn(Duration::from_secs(seconds));
    println!("changes {}  measured {}", report.changes, report.latencies.len());
    for percent in [50, 90, 99, 100] {
        println!("p{percent:<3} {:?}", report.percentile(percent));
    }
    assert!(report.wrong.is_empty(), "wrong endpoints at the end: {:?}", report.wrong);
}
