//! Tests of `limit-count`.

#![allow(clippy::unwrap_used)]

use std::rc::Rc;
use std::sync::Arc;

use heddle_xds::catalog::{Catalog, Place};
use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, filter_in, passes};
use super::super::{Filter, Flow, Keep, Registry};
use crate::exchange::Exchange;
use crate::exchange::imagined::EmptyDirectory;
use crate::exchange::testing::{NOW_MS, at};
use crate::http::{Fields, ResponseHead};

fn ask(later_ms: u64, fields: &[(&str, &str)]) -> Exchange {
    at(NOW_MS + later_ms, "GET", "h", "/p", fields, Rc::new(EmptyDirectory))
}

/// How many of `tries` pass.
fn passing(filter: &Arc<dyn Filter>, fields: &[(&str, &str)], tries: usize) -> usize {
    (0..tries).filter(|_| passes(filter.access(&mut ask(0, fields)))).count()
}

fn told(filter: &Arc<dyn Filter>, x: &mut Exchange) -> Fields {
    let mut head = ResponseHead::new(200);
    filter.response_head(x, &mut head);
    head.fields
}

#[test]
fn requests_beyond_the_count_are_refused_until_the_window_ends() {
    let filter = filter("limit-count", &json!({"count": 2, "time_window": 60}));
    let mut x = ask(0, &[]);
    assert!(passes(filter.access(&mut x)));
    let fields = told(&filter, &mut x);
    for (name, value) in [("x-ratelimit-limit", "2"), ("x-ratelimit-remaining", "1"), ("x-ratelimit-reset", "60")] {
        assert_eq!(fields.get_str(name), Some(value), "{name}");
    }
    assert!(passes(filter.access(&mut ask(0, &[]))));
    let mut x = ask(30_500, &[]);
    let refusal = answer(filter.access(&mut x));
    assert_eq!((refusal.head.status, refusal.body.len()), (503, 0));
    let fields = told(&filter, &mut x);
    assert_eq!((fields.get_str("x-ratelimit-remaining"), fields.get_str("x-ratelimit-reset")), (Some("0"), Some("30")));
    assert!(passes(filter.access(&mut ask(60_000, &[]))));
}

#[test]
fn a_window_may_slide() {
    let filter = filter("limit-count", &json!({"count": 10, "time_window": 10, "window_type": "sliding"}));
    assert_eq!(passing(&filter, &[], 12), 10);
    let later = (0..10).filter(|_| passes(filter.access(&mut ask(15_000, &[])))).count();
    assert_eq!(later, 5, "half of the window before still counts");
}

#[test]
fn refusals_say_what_they_are_told_to() {
    let config = json!({"count": 1, "time_window": 1, "rejected_code": 429, "rejected_msg": "slow down", "show_limit_quota_header": false});
    let filter = filter("limit-count", &config);
    assert_eq!(passing(&filter, &[], 1), 1);
    let mut x = ask(0, &[]);
    let refusal = answer(filter.access(&mut x));
    assert_eq!((refusal.head.status, &refusal.body[..]), (429, &b"{\"error_msg\":\"slow down\"}\n"[..]));
    assert!(told(&filter, &mut x).is_empty());
}

#[test]
fn keys_are_variables_combinations_or_constants() {
    let of = |key: &str, kind: &str| filter("limit-count", &json!({"count": 1, "time_window": 60, "key": key, "key_type": kind}));
    let (a, b) = ([("X-U", "a")], [("X-U", "b")]);
    let variable = of("http_x_u", "var");
    assert_eq!([passing(&variable, &a, 2), passing(&variable, &b, 2)], [1, 1]);
    assert_eq!(passing(&variable, &[], 2), 1, "without a key it is the client address");
    let combination = of("$http_x_u-$uri", "var_combination");
    assert_eq!([passing(&combination, &a, 2), passing(&combination, &b, 2)], [1, 1]);
    let unresolved = of("$http_x_none", "var_combination");
    assert_eq!([passing(&unresolved, &a, 2), passing(&unresolved, &b, 2)], [1, 0]);
    let constant = of("http_x_u", "constant");
    assert_eq!([passing(&constant, &a, 2), passing(&constant, &b, 2)], [1, 0]);
}

#[test]
fn all_rules_must_hold_and_each_has_its_fields() {
    let filter = filter(
        "limit-count",
        &json!({"rules": [
            {"count": 1, "time_window": 60, "key": "$http_x_u", "header_prefix": "User"},
            {"count": 3, "time_window": 10, "key": "all"},
        ]}),
    );
    let mut x = ask(0, &[("X-U", "a")]);
    assert!(passes(filter.access(&mut x)));
    let fields = told(&filter, &mut x);
    assert_eq!((fields.get_str("x-user-ratelimit-limit"), fields.get_str("x-2-ratelimit-remaining")), (Some("1"), Some("2")));
    assert_eq!(passing(&filter, &[("X-U", "a")], 1), 0);
    assert_eq!(passing(&filter, &[], 5), 2, "without a user only the second rule counts");
}

#[test]
fn count_and_window_may_come_from_the_request() {
    let config = |degrade: bool| json!({"count": "$http_x_c", "time_window": "${http_x_w}", "allow_degradation": degrade});
    let strict = filter("limit-count", &config(false));
    assert_eq!(passing(&strict, &[("X-C", "3"), ("X-W", "60")], 5), 3);
    assert_eq!(answer(strict.access(&mut ask(0, &[("X-C", "zero")]))).head.status, 500);
    assert!(passes(filter("limit-count", &config(true)).access(&mut ask(0, &[]))));
}

#[test]
fn counters_outlive_a_reload_and_are_shared_by_groups() {
    let keep = Keep::default();
    let config = json!({"count": 2, "time_window": 60});
    let of = |config: &Value| filter_in("limit-count", config, None, &keep);
    let first = of(&config);
    assert_eq!(passing(&first, &[], 1), 1);
    assert_eq!(passing(&of(&config), &[], 2), 1, "the same configuration goes on counting");
    assert_eq!(passing(&of(&json!({"count": 3, "time_window": 60})), &[], 5), 3, "a changed one starts afresh");
    let group = json!({"count": 2, "time_window": 60, "group": "g"});
    let (one, other) = (of(&group), of(&group));
    assert_eq!([passing(&one, &[], 1), passing(&other, &[], 3)], [1, 1]);
}

#[test]
fn two_filters_of_one_request_tell_their_own() {
    let (a, b) = (
        filter("limit-count", &json!({"count": 5, "time_window": 1})),
        filter("limit-count", &json!({"count": 9, "time_window": 1})),
    );
    let mut x = ask(0, &[]);
    assert!(matches!((a.access(&mut x), b.access(&mut x)), (Flow::Continue, Flow::Continue)));
    assert_eq!(told(&a, &mut x).get_str("x-ratelimit-remaining"), Some("4"));
    assert_eq!(told(&b, &mut x).get_str("x-ratelimit-remaining"), Some("8"));
}

#[test]
fn metadata_names_the_fields() {
    let metadata = json!({"limit_header": "L", "remaining_header": "R", "reset_header": "T"});
    let filter = filter_in("limit-count", &json!({"count": 5, "time_window": 1}), Some(&metadata), &Keep::default());
    let mut x = ask(0, &[]);
    assert!(passes(filter.access(&mut x)));
    let fields = told(&filter, &mut x);
    assert_eq!((fields.get_str("L"), fields.get_str("R"), fields.get_str("T")), (Some("5"), Some("4"), Some("1")));
    assert!(Registry::default().check("limit-count", Place::Metadata, &json!({"limit_header": "a b"})).is_err());
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({}), ""),
        (json!({"count": 1}), ""),
        (json!({"count": 0, "time_window": 1}), "count"),
        (json!({"count": 1.5, "time_window": 1}), "count"),
        (json!({"count": 1, "time_window": 1, "rules": [{"count": 1, "time_window": 1, "key": "a"}]}), ""),
        (json!({"rules": []}), "rules"),
        (json!({"rules": [{"count": 1, "time_window": 1, "key": "", "header_prefix": "x"}]}), "rules[0].key"),
        (json!({"rules": [{"count": 1, "time_window": 1, "key": "a", "header_prefix": " "}]}), "rules[0].header_prefix"),
        (json!({"count": 1, "time_window": 1, "key_type": "x"}), "key_type"),
        (json!({"count": 1, "time_window": 1, "window_type": "x"}), "window_type"),
        (json!({"count": 1, "time_window": 1, "rejected_code": 99}), "rejected_code"),
        (json!({"count": 1, "time_window": 1, "rejected_msg": ""}), "rejected_msg"),
        (json!({"count": 1, "time_window": 1, "sync_interval": 0}), "sync_interval"),
        (json!({"count": 1, "time_window": 1, "policy": "redis"}), ""),
        (json!({"count": 1, "time_window": 1, "policy": "redis-cluster"}), "policy"),
        (json!({"count": 1, "time_window": 1, "policy": "x"}), "policy"),
        (json!({"count": 1, "time_window": 1, "policy": "gossip", "window_type": "sliding"}), "window_type"),
        (json!({"count": 1, "time_window": 1, "ip_strategy": {"excluded_ips": ["x"]}}), "ip_strategy.excluded_ips[0]"),
    ] {
        assert_eq!(faults("limit-count", &config), [path], "{config}");
    }
}

#[test]
fn ietf_fields_tell_policies_and_what_remains() {
    let one =
        filter("limit-count", &json!({"count": 2, "time_window": 60, "ietf_headers": true, "show_limit_quota_header": false}));
    let mut x = ask(0, &[]);
    assert!(passes(one.access(&mut x)));
    let fields = told(&one, &mut x);
    assert_eq!(fields.get_str("ratelimit-policy"), Some("\"default\";q=2;w=60"));
    assert_eq!((fields.get_str("ratelimit"), fields.get_str("x-ratelimit-limit")), (Some("\"default\";r=1;t=60"), None));
    let rules = json!([{"count": 1, "time_window": 1, "key": "a", "header_prefix": "Burst"}, {"count": 9, "time_window": "$http_x_w", "key": "a"}]);
    let two = filter("limit-count", &json!({"rules": rules, "ietf_headers": true}));
    let mut x = ask(0, &[("X-W", "10")]);
    assert!(passes(two.access(&mut x)));
    let fields = told(&two, &mut x);
    let all =
        |name: &'static str| fields.get_all(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect::<Vec<_>>();
    assert_eq!(all("ratelimit-policy"), ["\"Burst\";q=1;w=1", "\"2\";q=9;w=10"]);
    assert_eq!(all("ratelimit"), ["\"Burst\";r=0;t=1", "\"2\";r=8;t=10"]);
    assert_eq!(fields.get_str("x-burst-ratelimit-limit"), Some("1"));
}

#[test]
fn several_workers_count_one_key_exactly() {
    for kind in ["fixed", "sliding"] {
        let filter = filter("limit-count", &json!({"count": 777, "time_window": 3600, "window_type": kind, "key": "http_x_u"}));
        let allowed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| passing(&filter, &[("X-U", "a")], 500))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(allowed, 777, "{kind}");
    }
}

#[test]
fn counters_outlive_what_does_not_concern_them() {
    let keep = Keep::default();
    let of = |code: u16| filter_in("limit-count", &json!({"count": 2, "time_window": 60, "rejected_code": code}), None, &keep);
    let first = of(503);
    assert_eq!(passing(&first, &[], 1), 1);
    assert_eq!(passing(&of(429), &[], 3), 1);
}

#[test]
fn an_address_of_the_chain_of_proxies_may_be_the_key() {
    let filter = filter("limit-count", &json!({"count": 1, "time_window": 60, "ip_strategy": {"depth": 1}}));
    let behind = |chain: &str| {
        let mut x = ask(0, &[("X-Forwarded-For", chain)]);
        x.remote = ([198, 51, 100, 1], 0).into();
        passes(filter.access(&mut x))
    };
    assert_eq!([behind("1.1.1.1"), behind("2.2.2.2"), behind("9.9.9.9, 1.1.1.1")], [true, true, false]);
}

#[test]
fn windows_that_the_fleet_shares_lie_on_a_grid_and_are_exact_without_others() {
    let keep = Keep::default();
    let config = json!({"count": 3, "time_window": 60, "policy": "gossip"});
    let of = |config: &Value| filter_in("limit-count", config, None, &keep);
    let first = of(&config);
    assert_eq!(passing(&first, &[], 2), 2);
    let mut x = ask(0, &[]);
    assert!(passes(of(&config).access(&mut x)), "the same configuration goes on counting");
    let reset = 60 - NOW_MS / 1000 % 60;
    let fields = told(&first, &mut x);
    assert_eq!(
        (fields.get_str("x-ratelimit-remaining"), fields.get_str("x-ratelimit-reset")),
        (None, None),
        "another filter tells"
    );
    let mut refused = ask(0, &[]);
    assert_eq!(answer(first.access(&mut refused)).head.status, 503);
    let fields = told(&first, &mut refused);
    assert_eq!(
        (fields.get_str("x-ratelimit-remaining"), fields.get_str("x-ratelimit-reset")),
        (Some("0"), Some(&*reset.to_string()))
    );
    assert!(passes(first.access(&mut ask(reset * 1000, &[]))), "the next window");
    assert_eq!(
        passing(&of(&json!({"count": 4, "time_window": 60, "policy": "gossip"})), &[], 9),
        4,
        "a changed one starts afresh"
    );
}
