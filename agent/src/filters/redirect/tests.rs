//! Tests of `redirect`.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::Keep;
use super::super::testing::{answer, faults, filter, filter_in, passes};
use crate::exchange::testing::{get, request};

fn location(config: Value, target: &str) -> (u16, String) {
    let answer = answer(filter("redirect", &config).rewrite(&mut get("h.example:9080", target)));
    assert!(answer.body.is_empty());
    (answer.head.status, answer.head.fields.get_str("location").unwrap().to_owned())
}

#[test]
fn clients_are_sent_where_the_configuration_says() {
    for (config, target, status, expected) in [
        (json!({"uri": "/new"}), "/old?a=1", 302, "/new"),
        (json!({"uri": "https://x.example$request_uri", "ret_code": 308}), "/old?a=1", 308, "https://x.example/old?a=1"),
        (json!({"uri": "/new", "append_query_string": true}), "/old?a=1", 302, "/new?a=1"),
        (json!({"uri": "/new?b", "append_query_string": true}), "/old?a=1", 302, "/new?b&a=1"),
        (json!({"uri": "/new", "append_query_string": true}), "/old", 302, "/new"),
        (json!({"uri": "/é {x}"}), "/", 302, "/%C3%A9%20{x}"),
        (json!({"uri": "/{x}", "encode_uri": true}), "/", 302, "/%7Bx%7D"),
        (json!({"regex_uri": ["^/a/(.*)", "https://$host/b/$1"]}), "/a/c", 302, "https://h.example/b/c"),
        (json!({"http_to_https": true}), "/old?a=1", 301, "https://h.example/old?a=1"),
    ] {
        assert_eq!(location(config.clone(), target), (status, expected.to_owned()), "{config}");
    }
}

#[test]
fn whole_urls_and_schemes_are_redirected_as_traefik_does() {
    for (config, method, host, target, status, expected) in [
        (json!({"scheme": "https"}), "GET", "h:9080", "/a?b", 302, "https://h/a?b"),
        (json!({"scheme": "https", "port": 443, "permanent": true}), "GET", "h", "/", 301, "https://h/"),
        (json!({"scheme": "https", "port": 9443}), "POST", "h", "/", 307, "https://h:9443/"),
        (json!({"scheme": "http", "port": 80, "permanent": true}), "PUT", "h:9080", "/", 308, "http://h/"),
        (
            json!({"regex_url": ["^http://(.*?)/old(.*)", "https://$1/new$2"]}),
            "GET",
            "h:1",
            "/old?a=1",
            302,
            "https://h:1/new?a=1",
        ),
        (json!({"regex_url": ["o", "0"], "permanent": true}), "POST", "h", "/foo", 308, "http://h/f00"),
        (json!({"regex_url": ["^http://h/", "http://$http_x_to/$$"]}), "GET", "h", "/a", 302, "http://elsewhere/$a"),
    ] {
        let mut x = request(method, host, target, &[("X-To", "elsewhere")]);
        let answer = answer(filter("redirect", &config).rewrite(&mut x));
        assert_eq!((answer.head.status, answer.head.fields.get_str("location").unwrap()), (status, expected), "{config}");
    }
    for (config, proto) in [
        (json!({"scheme": "http", "port": 9080}), "http"),
        (json!({"scheme": "https", "port": 9080}), "wss"),
        (json!({"regex_url": ["^https://", "http://"]}), "http"),
        (json!({"regex_url": ["/a", "/a"]}), "http"),
    ] {
        let mut x = request("GET", "h:9080", "/a", &[("X-Forwarded-Proto", proto)]);
        assert!(passes(filter("redirect", &config).rewrite(&mut x)), "{config}");
    }
}

#[test]
fn what_does_not_fit_goes_on() {
    assert!(passes(filter("redirect", &json!({"regex_uri": ["^/a", "/b"]})).rewrite(&mut get("h", "/c"))));
    let behind_tls = &mut request("GET", "h", "/", &[("X-Forwarded-Proto", "https")]);
    assert!(passes(filter("redirect", &json!({"http_to_https": true})).rewrite(behind_tls)));
}

#[test]
fn https_keeps_the_method_of_others_and_knows_its_port() {
    let filter = filter_in("redirect", &json!({"http_to_https": true}), Some(&json!({"https_port": 9443})), &Keep::default());
    let answer = answer(filter.rewrite(&mut request("POST", "h:80", "/", &[])));
    assert_eq!((answer.head.status, answer.head.fields.get_str("location").unwrap()), (308, "https://h:9443/"));
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({}), ""),
        (json!({"uri": "/a", "http_to_https": true}), ""),
        (json!({"http_to_https": true, "append_query_string": true}), "append_query_string"),
        (json!({"uri": "/"}), "uri"),
        (json!({"uri": "/a", "ret_code": 100}), "ret_code"),
        (json!({"regex_uri": ["("]}), "regex_uri"),
        (json!({"regex_uri": ["(", "a"]}), "regex_uri[0]"),
        (json!({"regex_url": ["(", "a"]}), "regex_url[0]"),
        (json!({"regex_url": ["a"]}), "regex_url"),
        (json!({"scheme": "ftp"}), "scheme"),
        (json!({"scheme": "https", "uri": "/a"}), ""),
        (json!({"scheme": "https", "port": 0}), "port"),
        (json!({"uri": "/a", "port": 1}), "port"),
        (json!({"uri": "/a", "permanent": true}), "permanent"),
    ] {
        assert_eq!(faults("redirect", &config), [path], "{config}");
    }
}
