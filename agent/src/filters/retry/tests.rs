//! Tests of `retry`.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};

use super::super::Keep;
use super::super::testing::{faults, filter_in, passes};
use crate::exchange::testing::get;
use crate::exchange::{Exchange, Retry};
use crate::http::{Method, ResponseHead};

fn asked(config: &Value, keep: &Keep) -> (Exchange, std::sync::Arc<Retry>) {
    let mut x = get("h", "/");
    assert!(passes(filter_in("retry", config, None, keep).access(&mut x)));
    let retry = x.steering.as_ref().unwrap().retry.clone().unwrap();
    (x, retry)
}

#[test]
fn everything_that_is_said_is_asked_for() {
    let config = json!({
        "attempts": 4, "initial_interval": 0.1, "timeout": 2, "total_timeout": 1.5, "statuses": [429, "502-503", "504"], "on_network_error": false,
        "grpc_statuses": ["CANCELLED", "UNAVAILABLE", "UNAUTHENTICATED"], "methods": ["POST"], "max_body_size": 10, "attempt_header": "X-Attempt",
    });
    let (_, retry) = asked(&config, &Keep::default());
    assert_eq!((retry.attempts, retry.timeout, retry.total_timeout), (4, Duration::from_secs(2), Duration::from_millis(1500)));
    assert_eq!((retry.initial_interval, retry.max_interval), (Duration::from_millis(100), Duration::from_millis(200)));
    let statuses: Vec<u16> = (100..600).filter(|status| retry.after.statuses.has(*status)).collect();
    assert_eq!(statuses, [429, 502, 503, 504]);
    let says = |code: &u8| {
        let mut head = ResponseHead::new(200);
        head.fields.append("grpc-status", code.to_string());
        retry.after.is_bad(&head)
    };
    assert_eq!((0..20).filter(says).collect::<Vec<u8>>(), [1, 14, 16]);
    assert_eq!((retry.after.on_network_error, retry.after.max_body_size), (false, 10));
    assert_eq!(retry.attempt_header.as_deref(), Some("X-Attempt"));
    assert!(retry.after.may_send_twice(&Method::Post) && !retry.after.may_send_twice(&Method::Get));
}

#[test]
fn defaults_are_those_of_traefik() {
    let (_, retry) = asked(&json!({"attempts": 2, "max_interval": 3}), &Keep::default());
    assert!(retry.after.on_network_error && retry.after.statuses.is_empty() && retry.after.may_send_twice(&Method::Get));
    assert_eq!((retry.after.max_body_size, retry.initial_interval, retry.timeout), (2 << 20, Duration::ZERO, Duration::ZERO));
    assert_eq!((retry.max_interval, retry.total_timeout), (Duration::from_secs(3), Duration::ZERO));
}

#[test]
fn the_budget_outlives_a_change_beside_it() {
    let keep = Keep::default();
    let (_, before) = asked(&json!({"attempts": 2, "budget_percent": 50, "budget_burst": 1}), &keep);
    assert!(before.budget.spend() && !before.budget.spend());
    let (_, after) = asked(&json!({"attempts": 3, "budget_percent": 50, "budget_burst": 1}), &keep);
    assert!(!after.budget.spend(), "this request has earned half of one");
    let (_, other) = asked(&json!({"attempts": 3, "budget_percent": 51, "budget_burst": 1}), &keep);
    assert!(other.budget.spend());
}

#[test]
fn mistakes_are_refused() {
    for (more, path) in [
        (json!({"attempts": 0}), "attempts"),
        (json!({"attempts": 2, "attempt_header": "not a name"}), "attempt_header"),
        (json!({"attempts": 2, "attempt_header": "Content-Length"}), "attempt_header"),
        (json!({"attempts": 2, "attempt_header": "host"}), "attempt_header"),
        (json!({"attempts": 21}), "attempts"),
        (json!({"initial_interval": -1}), "initial_interval"),
        (json!({"max_interval": 61}), "max_interval"),
        (json!({"timeout": -0.5}), "timeout"),
        (json!({"total_timeout": 86_401}), "total_timeout"),
        (json!({"statuses": [99]}), "statuses[0]"),
        (json!({"statuses": [500, "503-500"]}), "statuses[1]"),
        (json!({"statuses": ["5xx"]}), "statuses[0]"),
        (json!({"grpc_statuses": ["OK"]}), "grpc_statuses[0]"),
        (json!({"methods": ["get"]}), "methods[0]"),
        (json!({"max_body_size": 67_108_865}), "max_body_size"),
        (json!({"budget_percent": 1001}), "budget_percent"),
        (json!({"budget_burst": 10_001}), "budget_burst"),
    ] {
        let mut config = json!({"attempts": 2});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(faults("retry", &config), [path], "{config}");
    }
    assert_eq!(faults("retry", &json!({})), [""]);
}
