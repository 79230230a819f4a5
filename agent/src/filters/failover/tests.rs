//! Tests of `failover`.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::super::testing::{OUTBOUND, faults, filter, passes};
use super::super::{BuildContext, Keep};
use crate::exchange::testing::get;
use crate::http::Method;

#[test]
fn the_other_upstream_is_asked_for() {
    let config = json!({"upstream_id": "upstreams/b", "statuses": ["500-599"], "on_network_error": false, "methods": ["POST"], "max_body_size": 7});
    let mut x = get("h", "/");
    assert!(passes(filter("failover", &config).access(&mut x)));
    let failover = x.steering.unwrap().failover.unwrap();
    assert_eq!((&*failover.upstream, failover.after.max_body_size, failover.after.on_network_error), ("upstreams/b", 7, false));
    assert!(failover.after.statuses.has(503) && failover.after.may_send_twice(&Method::Post));
    let mut x = get("h", "/");
    assert!(passes(filter("failover", &json!({"upstream_id": 2})).access(&mut x)));
    let failover = x.steering.unwrap().failover.unwrap();
    assert!(failover.after.on_network_error && failover.after.statuses.is_empty() && &*failover.upstream == "2");
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({}), ""),
        (json!({"upstream_id": 1, "upstream": {}}), ""),
        (json!({"upstream_id": true}), "upstream_id"),
        (json!({"upstream": 1}), "upstream"),
        (json!({"upstream_id": 1, "statuses": [600]}), "statuses[0]"),
        (json!({"upstream_id": 1, "methods": [""]}), "methods[0]"),
        (json!({"upstream_id": 1, "max_body_size": 99_999_999}), "max_body_size"),
    ] {
        assert_eq!(faults("failover", &config), [path], "{config}");
    }
    let inline = json!({"upstream": {"nodes": {"a:1": 1}}});
    assert!((super::PLUGIN.check)(heddle_xds::catalog::Place::Route, &inline).is_ok());
    let keep = Keep::default();
    let context = BuildContext::new("route/1", None, &keep, &OUTBOUND);
    assert_eq!((super::PLUGIN.build)(&inline, &context).err().unwrap()[0].path, "upstream");
}
