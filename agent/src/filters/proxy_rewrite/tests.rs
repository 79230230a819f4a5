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
fn prefixes_come_and_go() {
    for (config, target, expected, told) in [
        (json!({"strip_prefixes": ["/api", "/a"]}), "/api/x?q", "/x?q", Some("/api")),
        (json!({"strip_prefixes": ["/api", "/a"]}), "/apix", "/x", Some("/api")),
        (json!({"strip_prefixes": ["/a/"]}), "/a/x", "/x", Some("/a/")),
        (json!({"strip_prefixes": ["/a"]}), "/a", "/", Some("/a")),
        (json!({"strip_prefixes": ["/b"]}), "/a", "/a", Some("forged")),
        (json!({"strip_prefixes_regex": ["/x", "/v[0-9]+"]}), "/v12/x", "/x", Some("/v12")),
        (json!({"strip_prefixes_regex": ["/x"]}), "/a/x", "/a/x", Some("forged")),
        (json!({"add_prefix": "/p"}), "/a?q", "/p/a?q", Some("forged")),
        (json!({"add_prefix": "p/"}), "/a", "/p/a", Some("forged")),
        (json!({"strip_prefixes": ["/a"], "add_prefix": "/b"}), "/a%2Fc", "/b/%2Fc", Some("/a")),
        (json!({"strip_prefixes": ["/a"], "regex_uri": ["^/x(.*)", "/y$1"], "add_prefix": "/b"}), "/a/x1", "/b/y1", Some("/a")),
    ] {
        let mut x = request("GET", "h", target, &[("X-Forwarded-Prefix", "forged")]);
        assert!(passes(filter("proxy-rewrite", &config).rewrite(&mut x)), "{config}");
        assert_eq!((x.request.target().as_str(), header(&x, "x-forwarded-prefix")), (expected, told), "{config}");
    }
    let climbing = filter("proxy-rewrite", &json!({"strip_prefixes": ["/a"]})).rewrite(&mut request("GET", "h", "/a../b", &[]));
    assert_eq!(answer(climbing).head.status, 400);
}

#[test]
fn the_upstream_may_be_told_the_path_that_was_replaced() {
    let named = |config: Value| header(&rewritten(config, "/old/x"), "x-replaced-path").map(str::to_owned);
    assert_eq!(named(json!({"uri": "/new", "original_path_header": "X-Replaced-Path"})).as_deref(), Some("/old/x"));
    assert_eq!(named(json!({"regex_uri": ["^/no", "/new"], "original_path_header": "X-Replaced-Path"})), None);
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
fn the_address_of_the_client_is_the_one_that_policies_see() {
    let filter = filter("proxy-rewrite", &json!({"headers": {"set": {"X-Client": "$remote_addr", "X-Both": "$remote_addr!"}}}));
    for (remote, expected) in
        [("192.0.2.7:4711", "192.0.2.7"), ("[2001:db8::1]:1", "2001:db8::1"), ("[::ffff:10.0.0.1]:1", "10.0.0.1")]
    {
        let mut x = request("GET", "h", "/", &[("x-client", "forged")]);
        x.remote = remote.parse().unwrap();
        assert!(passes(filter.rewrite(&mut x)));
        assert_eq!((header(&x, "x-client"), header(&x, "x-both")), (Some(expected), Some(format!("{expected}!").as_str())));
        assert_eq!(x.request.fields.get_all("x-client").count(), 1);
    }
}

#[test]
fn edits_are_made_one_after_the_other() {
    let set = json!({"set": {"X-A": "1", "X-B": "<$http_x_a>", "X-C": "c", "x-c": "d"}});
    let x = rewritten(json!({"headers": set}), "/");
    assert_eq!((header(&x, "x-a"), header(&x, "x-b"), header(&x, "x-c")), (Some("1"), Some("<1>"), Some("d")));
    assert_eq!(x.request.fields.get_all("x-c").count(), 1);
    let x = rewritten(json!({"headers": {"set": {"X-A": "$cookie_c ", "X-B": "$arg_none"}}}), "/");
    assert_eq!((header(&x, "x-a"), header(&x, "x-b")), (Some("a?b #x"), Some("")));
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
        (json!({"strip_prefixes": ["a"]}), "strip_prefixes[0]"),
        (json!({"strip_prefixes_regex": ["/a", "("]}), "strip_prefixes_regex[1]"),
        (json!({"add_prefix": "/a?b"}), "add_prefix"),
        (json!({"original_path_header": "a b"}), "original_path_header"),
    ] {
        assert_eq!(faults("proxy-rewrite", &config), [path], "{config}");
    }
}
