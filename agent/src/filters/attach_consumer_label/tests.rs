//! Tests of `attach-consumer-label`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::json;

use super::super::testing::{faults, filter, header, passes};
use crate::exchange::testing::{consumer, request};

#[test]
fn labels_go_upstream_and_what_clients_claim_does_not() {
    let filter = filter("attach-consumer-label", &json!({"headers": {"X-Id": "$custom_id", "X-Team": "$team"}}));
    let forged = [("X-Id", "root"), ("x-team", "root"), ("X-Other", "kept")];
    let mut x = request("GET", "h", "/", &forged);
    x.consumer = Some(Arc::new(consumer("jack")));
    // Twice, since it is asked before each try.
    for _ in 0..2 {
        assert!(passes(filter.before_proxy(&mut x)));
        assert_eq!(x.request.fields.get_all("x-id").collect::<Vec<_>>(), [b"42"]);
        assert_eq!((header(&x, "x-team"), header(&x, "x-other")), (None, Some("kept")));
    }
    let mut x = request("GET", "h", "/", &forged);
    assert!(passes(filter.before_proxy(&mut x)));
    assert_eq!((header(&x, "x-id"), header(&x, "x-team")), (None, None));
}

#[test]
fn wrong_configurations_are_refused() {
    assert_eq!(faults("attach-consumer-label", &json!({})), [""]);
    assert_eq!(faults("attach-consumer-label", &json!({"headers": {}})), ["headers"]);
    let config = json!({"headers": {"X-A": "team", "X-B": "$", "b c": "$d"}});
    assert_eq!(faults("attach-consumer-label", &config), ["headers.X-A", "headers.X-B", "headers.b c"]);
}
