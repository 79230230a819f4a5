//! Tests of `prometheus`.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::super::testing;
use crate::exchange::MetricLabels;
use crate::exchange::testing::get;

#[test]
fn marks_the_request_with_the_labels_it_wants() {
    for (config, expected) in [(json!({}), MetricLabels::Ids), (json!({"prefer_name": true}), MetricLabels::Names)] {
        let filter = testing::filter("prometheus", &config);
        let mut x = get("h", "/");
        assert!(testing::passes(filter.rewrite(&mut x)));
        assert_eq!(x.metrics, expected);
    }
    assert_eq!(testing::faults("prometheus", &json!({"prefer_name": 1})), ["prefer_name"]);
}
