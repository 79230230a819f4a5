//! Tests of `public-api`.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::super::Flow;
use super::super::testing::{answer, faults, filter};
use crate::exchange::testing::{get, request};

#[test]
fn only_paths_of_plugins_are_there() {
    let plain = filter("public-api", &json!({}));
    assert_eq!(answer(plain.access(&mut get("h", "/apisix/batch-requests"))).head.status, 404, "batches are posted");
    assert_eq!(answer(plain.access(&mut request("POST", "h", "/other", &[]))).head.status, 404);
    let asks = |flow| matches!(flow, Flow::Body { limit: 1_048_576, .. });
    assert!(asks(plain.access(&mut request("POST", "h", "/apisix/batch-requests", &[]))));
    let elsewhere = filter("public-api", &json!({"uri": "/apisix/batch-requests"}));
    assert!(asks(elsewhere.access(&mut request("POST", "h", "/batch", &[]))));
}

#[test]
fn mistakes_are_refused() {
    assert_eq!(faults("public-api", &json!({"uri": "x"})), ["uri"]);
    assert_eq!(faults("public-api", &json!({"uri": 1})), ["uri"]);
}
