//! Tests of `traffic-split`.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::super::testing::{faults, filter, passes};
use super::super::{BuildContext, Keep};
use crate::exchange::testing::get;

#[test]
fn requests_are_shared_out_by_weight() {
    let entries = json!([{"upstream_id": "upstreams/1", "weight": 3}, {"upstream_id": 2}, {"weight": 1}]);
    let filter = filter("traffic-split", &json!({"rules": [{"weighted_upstreams": entries}]}));
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..50 {
        let mut x = get("h", "/");
        assert!(passes(filter.access(&mut x)));
        *counts.entry(x.upstream_override.map(|name| name.to_string())).or_insert(0) += 1;
    }
    let expected = [(None, 10), (Some("2".to_owned()), 10), (Some("upstreams/1".to_owned()), 30)];
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn the_first_rule_with_a_condition_that_holds_decides() {
    let condition = |arg: &str| json!({"vars": [["arg_v", "==", arg]]});
    let filter = filter(
        "traffic-split",
        &json!({"rules": [
            {"match": [condition("1"), condition("2")], "weighted_upstreams": [{"upstream_id": "a"}]},
            {"match": [condition("2")], "weighted_upstreams": [{"upstream_id": "b"}]},
            {"match": [condition("3")], "weighted_upstreams": [{"upstream_id": "c", "weight": 0}]},
        ]}),
    );
    for (target, expected) in [("/?v=1", Some("a")), ("/?v=2", Some("a")), ("/?v=3", None), ("/", None)] {
        let mut x = get("h", target);
        assert!(passes(filter.access(&mut x)));
        assert_eq!(x.upstream_override.as_deref(), expected, "{target}");
    }
}

#[test]
fn upstreams_in_place_are_checked_but_must_be_named_before_they_run() {
    let config = json!({"rules": [{"weighted_upstreams": [{"upstream": {"nodes": {"a:1": 1}}}]}]});
    assert!((super::PLUGIN.check)(heddle_xds::catalog::Place::Route, &config).is_ok());
    let context = BuildContext { origin: "route/1", metadata: None, keep: &Keep::default() };
    assert_eq!((super::PLUGIN.build)(&config, &context).err().unwrap()[0].path, "rules[0].weighted_upstreams");
}

#[test]
fn mistakes_are_refused() {
    let entry = |entry| json!({"rules": [{"weighted_upstreams": [entry]}]});
    let path = |rest: &str| vec![format!("rules[0].weighted_upstreams[0]{rest}")];
    assert_eq!(faults("traffic-split", &entry(json!({"upstream_id": "a", "upstream": {}}))), path(""));
    assert_eq!(faults("traffic-split", &entry(json!({"upstream_id": {}}))), path(".upstream_id"));
    assert_eq!(faults("traffic-split", &entry(json!({"upstream": 1}))), path(".upstream"));
    assert_eq!(faults("traffic-split", &entry(json!({"weight": -1}))), path(".weight"));
    assert_eq!(faults("traffic-split", &json!({"rules": [{"weighted_upstreams": []}]})), ["rules[0].weighted_upstreams"]);
    let bad = json!({"rules": [{"match": [{"vars": [["a", "??", 1]]}], "weighted_upstreams": [{}]}]});
    assert_eq!(faults("traffic-split", &bad), ["rules[0].match[0].vars[0]"]);
}
