//! Tests of `fault-injection`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use serde_json::{Value, json};

use super::super::Flow;
use super::super::testing::{answer, faults, filter, passes};
use crate::exchange::testing::get;

/// Runs a filter to its end on paused time and says how long it took.
fn run(config: &Value, target: &str) -> (Flow, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::time::pause();
        let filter = filter("fault-injection", config);
        let mut x = get("h.example", target);
        let started = x.started;
        let mut flow = filter.rewrite(&mut x);
        while let Flow::Wait(future) = flow {
            flow = future.await(&mut x);
        }
        (flow, started.elapsed())
    })
}

#[test]
fn requests_are_ended_with_body_and_fields() {
    let config = json!({"abort": {"http_status": 503, "body": "no $arg_x", "headers": {"X-Fault": "$host", "X-N": 1}}});
    let (flow, took) = run(&config, "/?x=1");
    let answer = answer(flow);
    assert_eq!((answer.head.status, &answer.body[..], took), (503, &b"no 1"[..], Duration::ZERO));
    assert_eq!(answer.head.fields.get_str("x-fault"), Some("h.example"));
    assert_eq!(answer.head.fields.get_str("x-n"), Some("1"));
}

#[test]
fn the_delay_comes_before_the_end() {
    let (flow, took) = run(&json!({"delay": {"duration": 1.5}, "abort": {"http_status": 418}}), "/");
    assert_eq!(answer(flow).head.status, 418);
    assert!(took >= Duration::from_millis(1500) && took < Duration::from_millis(1600), "{took:?}");
    let (flow, took) = run(&json!({"delay": {"duration": 3}}), "/");
    assert!(passes(flow) && took >= Duration::from_secs(3));
}

#[test]
fn shares_and_conditions_choose() {
    let abort = |percentage: u32| json!({"abort": {"http_status": 500, "percentage": percentage}});
    assert!(passes(run(&abort(0), "/").0));
    assert_eq!(answer(run(&abort(100), "/").0).head.status, 500);
    let filter = filter("fault-injection", &abort(30));
    let mut x = get("h", "/");
    let met = (0..1000).filter(|_| !passes(filter.rewrite(&mut x))).count();
    assert!((230..370).contains(&met), "{met}");

    let vars = json!([[["arg_a", "==", "1"], ["arg_b", "==", "1"]], [["arg_c", "==", "1"]]]);
    let config = json!({"abort": {"http_status": 500, "vars": vars}});
    for (target, met) in [("/?a=1", false), ("/?a=1&b=1", true), ("/?c=1", true), ("/", false)] {
        assert_eq!(!passes(run(&config, target).0), met, "{target}");
    }
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({}), ""),
        (json!({"abort": {"body": "x"}}), "abort"),
        (json!({"abort": {"http_status": 100}}), "abort.http_status"),
        (json!({"abort": {"http_status": 500, "percentage": 101}}), "abort.percentage"),
        (json!({"abort": {"http_status": 500, "headers": {"X": []}}}), "abort.headers.X"),
        (json!({"delay": {"duration": -1}}), "delay.duration"),
        (json!({"delay": {"duration": 1, "vars": [[["a", "??", 1]]]}}), "delay.vars[0][0]"),
        (json!({"delay": {"duration": 1, "vars": vec![json!([]); 21]}}), "delay.vars"),
    ] {
        assert_eq!(faults("fault-injection", &config), [path], "{config}");
    }
}
