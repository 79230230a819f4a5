//! Tests of `proxy-rewrite`.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, header, passes};
use crate::exchange::Exchange;
use crate::exchange::testing::request;

fn rewritten(config: Value, target: &str) -> Exchange {
    let mut x = request("GET", "h.example", target, &[("X-Old", "1"), ("Cookie", "c=a?b #x")]);
    assert!(passes(filter("proxy-rewrite", &config).rewrite(&mut x)), "{config}");
    x
}

#[test]
fn the_path_changes_and_the_query_stays() {
    for (config, target, expected) in [
        (json!({"uri": "/new"}), "/old?a=1", "/new?a=1"),
        (json!({"uri": "/new?b=2"}), "/old?a=1", "/new?b=2&a=1"),
        (json!({"uri": "/new?b=2"}), "/old", "/new?b=2"),
        (json!({"uri": "/x$uri/$arg_a"}), "/old?a=%20b", "/x/old/%20b?a=%20b"),
        (json!({"uri": "/$cookie_c"}), "/", "/a%3Fb%20%23x"),
        (json!({"regex_uri": ["^/user/(.*)", "/u/$1"]}), "/user/7/x?q", "/u/7/x?q"),
        (json!({"regex_uri": ["^/(a)/(b)$", "/${2}$1/$$?t=$host"]}), "/a/b?q=1", "/ba/$?t=h.example&q=1"),
        (json!({"regex_uri": ["^/none", "/x", "o", "0", "l", "1"]}), "/oolo", "/0olo"),
        (json!({"regex_uri": ["^/none", "/x"]}), "/old?a", "/old?a"),
        (json!({"regex_uri": ["^/", "x/"]}), "/old", "/x/old"),
        (json!({"uri": "/first", "regex_uri": ["^/.*", "/second"]}), "/old", "/first"),
        (json!({"uri": "/a/../b c"}), "/old", "/b%20c"),
        (json!({}), "/old?a=1", "/old?a=1"),
    ] {
        assert_eq!(rewritten(config.clone(), target).request.target(), expected, "{config}");
    }
}

#[test]
fn a_path_that_would_climb_out_is_refused() {
    let filter = filter("proxy-rewrite", &json!({"uri": "/base/$arg_p"}));
    let mut x = request("GET", "h", "/?p=../../etc", &[]);
    assert_eq!(answer(filter.rewrite(&mut x)).head.status, 400);
}

#[test]
fn method_host_and_fields_change() {
    let x = rewritten(json!({"method": "PURGE", "host": "$arg_h:81", "headers": {"X-New": "$host", "X-Old": 2}}), "/?h=up");
    assert_eq!(x.request.method.as_str(), "PURGE");
    assert_eq!(x.host_override.as_deref(), Some("up:81"));
    assert_eq!((header(&x, "x-new"), header(&x, "x-old")), (Some("h.example"), Some("2")));

    let edits = json!({"add": {"X-Old": "2", "X-Cap": "<$1>"}, "set": {"X-Set": "s", "Host": "other"}, "remove": ["cookie"]});
    let x = rewritten(json!({"regex_uri": ["^/(\\w+)", "/n"], "headers": edits}), "/cap");
    assert_eq!(x.request.fields.get_all("x-old").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!((header(&x, "x-cap"), header(&x, "x-set"), header(&x, "cookie")), (Some("<cap>"), Some("s"), None));
    assert_eq!((x.host_override.as_deref(), header(&x, "host")), (Some("other"), None));
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({"uri": "new"}), "uri"),
        (json!({"regex_uri": ["a"]}), "regex_uri"),
        (json!({"regex_uri": ["(", "x", "a", "b"]}), "regex_uri[0]"),
        (json!({"method": "BREW"}), "method"),
        (json!({"host": "a b"}), "host"),
        (json!({"headers": {"a b": "1"}}), "headers.a b"),
        (json!({"headers": {"set": {"X": "a\nb"}}}), "headers.set.X"),
        (json!({"headers": {"set": {"X": {}}}}), "headers.set.X"),
        (json!({"headers": {"remove": ["ok", 1]}}), "headers.remove[1]"),
        (json!({"use_real_request_uri_unsafe": true}), "use_real_request_uri_unsafe"),
        (json!({"scheme": "https"}), ""),
    ] {
        assert_eq!(faults("proxy-rewrite", &config), [path], "{config}");
    }
}
