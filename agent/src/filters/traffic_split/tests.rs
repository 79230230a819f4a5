//! Tests of `traffic-split`.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::super::testing::{OUTBOUND, faults, filter, passes};
use super::super::{BuildContext, Keep};
use crate::exchange::testing::{get, request};
use crate::http::ResponseHead;

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
fn a_key_sends_the_same_client_the_same_way() {
    let weighted = |first: u32| {
        let entries = json!([{"upstream_id": "a", "weight": first}, {"weight": 100 - first}]);
        filter("traffic-split", &json!({"rules": [{"weighted_upstreams": entries, "sticky": {"key": "arg_user"}}]}))
    };
    let chosen = |filter: &std::sync::Arc<dyn super::super::Filter>, target: &str| {
        let mut x = get("h", target);
        assert!(passes(filter.access(&mut x)));
        x.upstream_override.is_some()
    };
    let (ten, thirty) = (weighted(10), weighted(30));
    let mut sizes = (0, 0);
    for user in 0..500 {
        let target = format!("/?user={user}");
        let (before, after) = (chosen(&ten, &target), chosen(&thirty, &target));
        assert_eq!(before, chosen(&weighted(10), &target), "again, on another gateway");
        assert!(!before || after, "who has come stays when the share grows");
        sizes = (sizes.0 + u32::from(before), sizes.1 + u32::from(after));
    }
    assert!((25..80).contains(&sizes.0) && (110..190).contains(&sizes.1), "{sizes:?}");
    assert_eq!(chosen(&ten, "/"), chosen(&ten, "/other"), "the address, where there is no user");
    let text = json!({"rules": [{"weighted_upstreams": [{"upstream_id": "a"}, {}], "sticky": {"key": "$host-$arg_user"}}]});
    let text = filter("traffic-split", &text);
    let sides: std::collections::BTreeSet<_> = (0..50).map(|user| chosen(&text, &format!("/?user={user}"))).collect();
    assert_eq!(sides.len(), 2);
}

#[test]
fn a_cookie_is_given_once_and_keeps_the_client() {
    let sticky = json!({"cookie": {"name": "side", "http_only": true}});
    let config = json!({"rules": [{"weighted_upstreams": [{"upstream_id": "a"}, {"weight": 1}], "sticky": sticky}]});
    let filter = filter("traffic-split", &config);
    let mut sides = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let mut x = get("h", "/");
        x.dice = fastrand::Rng::with_seed(seed);
        assert!(passes(filter.access(&mut x)));
        let side = x.upstream_override.clone();
        let mut head = ResponseHead::new(200);
        filter.response_head(&mut x, &mut head);
        let cookie = head.fields.get_str("set-cookie").unwrap().to_owned();
        assert!(cookie.ends_with("; Path=/; HttpOnly"), "{cookie}");
        let mut again = request("GET", "h", "/", &[("Cookie", cookie.split(';').next().unwrap())]);
        assert!(passes(filter.access(&mut again)));
        assert_eq!(again.upstream_override, side);
        let mut head = ResponseHead::new(200);
        filter.response_head(&mut again, &mut head);
        assert!(head.fields.is_empty(), "who has one is not given another");
        sides.insert(side);
    }
    assert_eq!(sides.len(), 2);
}

#[test]
fn upstreams_in_place_are_checked_but_must_be_named_before_they_run() {
    let config = json!({"rules": [{"weighted_upstreams": [{"upstream": {"nodes": {"a:1": 1}}}]}]});
    assert!((super::PLUGIN.check)(heddle_xds::catalog::Place::Route, &config).is_ok());
    let keep = Keep::default();
    let context = BuildContext::new("route/1", None, &keep, &OUTBOUND);
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
    let sticky = |sticky| json!({"rules": [{"weighted_upstreams": [{}], "sticky": sticky}]});
    assert_eq!(faults("traffic-split", &sticky(json!({}))), ["rules[0].sticky"]);
    assert_eq!(faults("traffic-split", &sticky(json!({"key": "a", "cookie": {}}))), ["rules[0].sticky"]);
    assert_eq!(faults("traffic-split", &sticky(json!({"key": ""}))), ["rules[0].sticky.key"]);
    assert_eq!(faults("traffic-split", &sticky(json!({"cookie": {"name": "a;b"}}))), ["rules[0].sticky.cookie.name"]);
    let bad = json!({"rules": [{"match": [{"vars": [["a", "??", 1]]}], "weighted_upstreams": [{}]}]});
    assert_eq!(faults("traffic-split", &bad), ["rules[0].match[0].vars[0]"]);
}
