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
    ] {
        assert_eq!(faults("proxy-rewrite", &config), [path], "{config}");
    }
}
