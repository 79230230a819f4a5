//! Tests of `workflow`.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, filter_in, header, passes};
use super::super::{Filter, Flow, Keep, Phases};
use crate::exchange::Exchange;
use crate::exchange::testing::{get, request};
use crate::http::ResponseHead;

fn rules(rules: Value) -> Value {
    json!({ "rules": rules })
}

fn counted(filter: &dyn Filter, x: &mut Exchange) -> Option<String> {
    let mut head = ResponseHead::new(200);
    filter.response_head(x, &mut head);
    head.fields.get_str("x-ratelimit-remaining").map(str::to_owned)
}

#[test]
fn the_first_case_that_holds_acts() {
    let filter = filter(
        "workflow",
        &rules(json!([
            {"case": [["arg_a", "==", "1"]], "actions": [["return", {"code": 403}], ["return", {"code": 410}]]},
            {"case": ["OR", ["arg_a", "==", "2"], ["arg_b", "==", "2"]], "actions": [["return", {"code": 404}]]},
            {"case": [["arg_a", "==", "2"]], "actions": [["return", {"code": 409}]]},
        ])),
    );
    assert!(passes(filter.access(&mut get("h", "/"))));
    let refusal = answer(filter.access(&mut get("h", "/?a=1&b=2")));
    assert_eq!((refusal.head.status, &refusal.body[..]), (403, &b"{\"error_msg\":\"rejected by workflow\"}\n"[..]));
    for target in ["/?a=2", "/?b=2"] {
        assert_eq!(answer(filter.access(&mut get("h", target))).head.status, 404);
    }
}

#[test]
fn a_rule_without_case_always_acts() {
    let filter = filter("workflow", &rules(json!([{"actions": [["return", {"code": 451}]]}])));
    assert_eq!(answer(filter.access(&mut get("h", "/"))).head.status, 451);
}

#[test]
fn a_limit_counts_for_its_rule_alone_and_tells_what_remains() {
    let count = json!([["limit-count", {"count": 2, "time_window": 60, "rejected_code": 429}]]);
    let filter = filter(
        "workflow",
        &rules(json!([
            {"case": [["arg_a", "==", "1"]], "actions": count},
            {"case": [["arg_a", "==", "2"]], "actions": count},
        ])),
    );
    let mut x = get("h", "/?a=1");
    assert!(passes(filter.access(&mut x)));
    assert_eq!(counted(&*filter, &mut x).as_deref(), Some("1"));
    assert!(passes(filter.access(&mut get("h", "/?a=1"))));
    let mut x = get("h", "/?a=1");
    assert_eq!(answer(filter.access(&mut x)).head.status, 429);
    assert_eq!(counted(&*filter, &mut x).as_deref(), Some("0"));
    assert!(passes(filter.access(&mut get("h", "/?a=2"))), "the other rule has its own counter");
    let mut x = get("h", "/");
    assert!(passes(filter.access(&mut x)));
    assert_eq!(counted(&*filter, &mut x), None);
}

#[test]
fn a_limit_that_has_acted_stands_for_the_one_of_the_chain() {
    let strict = filter("limit-count", &json!({"count": 1, "time_window": 60}));
    let wide = json!([{"case": [["arg_vip", "==", "1"]], "actions": [["limit-count", {"count": 5, "time_window": 60}]]}]);
    let workflow = filter("workflow", &rules(wide));
    let ask = |target: &str| {
        let mut x = get("h", target);
        passes(workflow.access(&mut x)) && passes(strict.access(&mut x))
    };
    assert_eq!([ask("/"), ask("/")], [true, false]);
    assert_eq!((0..7).filter(|_| ask("/?vip=1")).count(), 5);
}

#[test]
fn connections_are_limited_too() {
    let limit = json!({"conn": 1, "burst": 0, "default_conn_delay": 1, "key": "http_x_u"});
    let chain = filter("limit-conn", &limit);
    let workflow = filter("workflow", &rules(json!([{"case": [["http_x_u", "~~", "."]], "actions": [["limit-conn", limit]]}])));
    let of = |user: &str| request("GET", "h", "/", &[("X-U", user)]);
    let (mut a, mut b) = (of("a"), of("a"));
    assert!(passes(workflow.access(&mut a)) && passes(chain.access(&mut a)));
    assert!(!passes(workflow.access(&mut b)));
    assert!(passes(chain.access(&mut of("a"))), "the chain has counted none of them");
    drop(a);
    assert!(passes(workflow.access(&mut of("a"))));
}

#[test]
fn tokens_are_demanded_by_the_first_case_before_anything_limits() {
    let demand = json!(["jwt-auth", {}]);
    let filter = filter(
        "workflow",
        &rules(json!([
            {"case": [["uri", "==", "/open"]], "actions": [["pass"]]},
            {"case": [["uri", "==", "/gone"]], "actions": [["return", {"code": 410}]]},
            {"case": [["uri", "~~", "^/o"]], "actions": [demand]},
        ])),
    );
    assert_eq!(filter.phases(), Phases::REWRITE);
    let status = |path: &str| match filter.rewrite(&mut get("h", path)) {
        Flow::Continue => 200,
        flow => answer(flow).head.status,
    };
    assert_eq!(["/open", "/other", "/gone", "/else"].map(status), [200, 401, 410, 200]);
}

#[test]
fn nobody_says_himself_what_some_rule_vouches_for() {
    let telling = |more: Value| json!(["jwt-auth", more]);
    let optional = telling(json!({"optional": true, "payload_header": "x-all"}));
    let filter = filter(
        "workflow",
        &rules(json!([
            {"case": [["uri", "==", "/open"]], "actions": [["pass"]]},
            {"case": [["uri", "==", "/maybe"]], "actions": [optional]},
            {"case": [["uri", "==", "/told"]], "actions": [telling(json!({"claim_headers": {"X-Who": "sub"}}))]},
        ])),
    );
    for path in ["/open", "/maybe", "/else"] {
        let mut x = request("GET", "h", path, &[("x-who", "forged"), ("x-who", "again"), ("X-All", "forged"), ("x-own", "kept")]);
        assert!(passes(filter.rewrite(&mut x)), "{path}");
        let said = ["x-who", "x-all", "x-own"].map(|name| header(&x, name));
        assert_eq!(said, [None, None, Some("kept")], "{path}");
    }
}

#[test]
fn counters_outlive_a_reload() {
    let keep = Keep::default();
    let config = rules(json!([{"actions": [["limit-count", {"count": 1, "time_window": 60}]]}]));
    let first = filter_in("workflow", &config, None, &keep);
    assert!(passes(first.access(&mut get("h", "/"))));
    assert!(!passes(filter_in("workflow", &config, None, &keep).access(&mut get("h", "/"))));
}

#[test]
fn mistakes_are_refused() {
    let action = |action: Value| rules(json!([{"actions": [action]}]));
    for (config, path) in [
        (json!({}), ""),
        (rules(json!([])), "rules"),
        (rules(json!([{"actions": []}])), "rules[0].actions"),
        (rules(json!([{"case": [["a", "??", 1]], "actions": [["return", {"code": 403}]]}])), "rules[0].case[0]"),
        (action(json!(["nope", {}])), "rules[0].actions[0]"),
        (action(json!(["return", {}])), "rules[0].actions[0]"),
        (action(json!(["pass", {}])), "rules[0].actions[0]"),
        (action(json!(["jwt-auth", {"algorithms": 1}])), "rules[0].actions[0].algorithms"),
        (
            rules(json!([{"actions": [["jwt-auth", {}]]}, {"actions": [["limit-count", {"count": 1, "time_window": 1}]]}])),
            "rules",
        ),
        (action(json!(["return", {"code": 100}])), "rules[0].actions[0].code"),
        (action(json!(["limit-count", {"count": 0, "time_window": 1}])), "rules[0].actions[0].count"),
        (action(json!(["limit-conn", {"conn": 1, "burst": 0, "default_conn_delay": 1, "key": ""}])), "rules[0].actions[0].key"),
    ] {
        assert_eq!(faults("workflow", &config), [path], "{config}");
    }
}
