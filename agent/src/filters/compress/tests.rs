//! Tests of what all codings share, by way of the plugins.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::testing::{faults, filter};
use super::super::{Filter, Offer};
use super::testing::{page, through};
use crate::exchange::testing::request;
use crate::http::{Body, ResponseHead, Version};

const LONG: &[u8] = &[b'a'; 4000];
const NAMES: [&str; 3] = ["gzip", "brotli", "zstd"];

fn offered(name: &str, config: &Value, accept: &[(&str, &str)], head: &mut ResponseHead, length: Option<u64>) -> Option<Offer> {
    filter(name, config).offer(&mut request("GET", "h", "/", accept), head, length)
}

/// Whether a response with these fields and this many bytes is compressed by a configuration.
fn compresses(config: &Value, status: u16, fields: &[(&str, &str)], length: u64) -> bool {
    let mut head = ResponseHead::new(status);
    fields.iter().for_each(|(name, value)| head.fields.append(name, value));
    offered("gzip", config, &[("Accept-Encoding", "gzip")], &mut head, Some(length)).is_some()
}

const HTML: (&str, &str) = ("Content-Type", "text/html; charset=utf-8");

#[test]
fn only_what_gains_and_may_change_is_compressed() {
    let one = json!({});
    assert!(compresses(&one, 200, &[HTML], 20) && compresses(&one, 404, &[HTML], 20));
    assert!(!compresses(&one, 200, &[HTML], 19), "short");
    assert!(!compresses(&one, 200, &[("Content-Type", "text/plain")], 99), "another type");
    assert!(!compresses(&one, 200, &[], 99), "no type");
    for status in [101, 204, 205, 206, 304] {
        assert!(!compresses(&one, status, &[HTML], 99), "{status}");
    }
    assert!(!compresses(&one, 200, &[HTML, ("Content-Encoding", "br")], 99), "compressed already");
    assert!(!compresses(&one, 200, &[HTML, ("Cache-Control", "max-age=1, No-Transform")], 99));
    let all = json!({"types": "*", "excluded_types": ["Image/PNG"], "min_length": 1});
    assert!(compresses(&all, 200, &[], 1) && compresses(&all, 200, &[("Content-Type", "a/b")], 1));
    assert!(!compresses(&all, 200, &[("Content-Type", "image/png")], 99) && !compresses(&all, 200, &[HTML], 0));
    assert!(!compresses(&all, 200, &[("Content-Type", "application/grpc+proto")], 99));
    let some = json!({"types": ["TEXT/CSS"], "min_length": 100});
    assert!(compresses(&some, 200, &[("Content-Type", "text/css")], 100));
    assert!(!compresses(&some, 200, &[("Content-Type", "text/css")], 99) && !compresses(&some, 200, &[HTML], 100));
}

#[test]
fn heads_and_old_clients_get_it_as_it_is() {
    for name in NAMES {
        let ask = |method: &str, version: Version, config: &Value| {
            let mut x = request(method, "h", "/", &[("Accept-Encoding", "*")]);
            x.request.version = version;
            filter(name, config).offer(&mut x, &mut page(), None).is_some()
        };
        assert!(ask("GET", Version::Http11, &json!({})) && ask("POST", Version::Http2, &json!({})));
        assert!(!ask("HEAD", Version::Http11, &json!({})) && !ask("GET", Version::Http10, &json!({})));
        assert!(ask("GET", Version::Http10, &json!({"http_version": 1.0})));
    }
}

#[test]
fn the_client_chooses_before_we_do() {
    let offer = |name: &str, accept: &str| offered(name, &json!({}), &[("Accept-Encoding", accept)], &mut page(), None);
    let best =
        |accept: &str| NAMES.into_iter().max_by_key(|name| offer(name, accept)).filter(|name| offer(name, accept).is_some());
    assert_eq!(best("gzip, br, zstd"), Some("zstd"));
    assert_eq!(best("gzip, br"), Some("brotli"));
    assert_eq!(best("gzip, br;q=0.9, zstd;q=0.8"), Some("gzip"));
    assert_eq!(best("*;q=0.5, gzip"), Some("gzip"));
    assert_eq!(best("deflate"), None);
    let mine = offered("gzip", &json!({"preference": 99}), &[("Accept-Encoding", "gzip, zstd")], &mut page(), None);
    assert!(mine > offer("zstd", "gzip, zstd"));
}

#[test]
fn the_order_of_the_client_counts_where_it_is_to() {
    let best = |accept: &str, first: &str| {
        let offer = |plugin: &str| {
            let config = json!({"client_order": true, "preference": if plugin == first { 99 } else { 98 }});
            offered(plugin, &config, &[("Accept-Encoding", accept)], &mut page(), None).map(|offer| (offer, plugin.to_owned()))
        };
        [offer("gzip"), offer("brotli")].into_iter().flatten().max().map(|(_, plugin)| plugin)
    };
    for (accept, first, expected) in [
        ("gzip, br", "brotli", Some("gzip")),
        ("br, gzip", "gzip", Some("brotli")),
        ("gzip;q=0.5, br", "gzip", Some("brotli")),
        ("*", "gzip", Some("gzip")),
        ("*", "brotli", Some("brotli")),
        ("gzip, *", "brotli", Some("gzip")),
        ("*, gzip", "brotli", Some("brotli")),
        ("identity, gzip", "gzip", None),
        ("gzip, identity", "gzip", Some("gzip")),
        ("deflate", "gzip", None),
    ] {
        assert_eq!(best(accept, first).as_deref(), expected, "{accept:?} with {first} as the first");
    }
    let chosen = offered("brotli", &json!({"preference": 100}), &[("Accept-Encoding", "gzip, br")], &mut page(), None);
    let named = offered("gzip", &json!({"client_order": true}), &[("Accept-Encoding", "gzip, br")], &mut page(), None);
    assert!(chosen > named, "one that does not care for the order goes before");
}

#[test]
fn a_default_is_for_clients_that_leave_the_choice() {
    let with = |fields: &[(&str, &str)], default: bool| {
        offered("brotli", &json!({"default_encoding": default}), fields, &mut page(), None)
    };
    assert_eq!((with(&[], false), with(&[], true)), (None, Some(Offer { weight: 1000, preference: 255 })));
    assert_eq!(with(&[("Accept-Encoding", "*")], true), Some(Offer { weight: 1000, preference: 255 }));
    assert_eq!(with(&[("Accept-Encoding", "br")], true), Some(Offer { weight: 1000, preference: 20 }));
    assert_eq!(with(&[("Accept-Encoding", "gzip")], true), None);
    assert_eq!(with(&[("Accept-Encoding", "")], true), None);
}

#[test]
fn caches_are_told_whoever_asks() {
    for (vary, config, accept) in [(1, json!({"vary": true}), "identity"), (0, json!({}), "gzip")] {
        let mut head = page();
        offered("gzip", &config, &[("Accept-Encoding", accept)], &mut head, None);
        offered("gzip", &config, &[("Accept-Encoding", accept)], &mut head, None);
        assert_eq!(head.fields.get_all("vary").count(), vary, "{config}");
    }
    let mut head = ResponseHead::new(200);
    offered("gzip", &json!({"vary": true}), &[], &mut head, None);
    assert_eq!(head.fields.get("vary"), None, "a type that is never compressed");
}

#[test]
fn the_head_says_what_has_become_of_the_body() {
    let filter: &dyn Filter = &*filter("gzip", &json!({}));
    let mut x = request("GET", "h", "/", &[("Accept-Encoding", "gzip")]);
    for (etag, expected) in [("\"a\"", "W/\"a\""), ("W/\"b\"", "W/\"b\"")] {
        let mut head = page();
        for (name, value) in [("ETag", etag), ("Content-Length", "4000"), ("Accept-Ranges", "bytes"), ("Repr-Digest", "x")] {
            head.fields.append(name, value);
        }
        let (head, body) = through(filter, &mut x, head, Body::from(Bytes::from_static(LONG)));
        assert_eq!((head.fields.get_str("etag"), head.fields.get_str("content-encoding")), (Some(expected), Some("gzip")));
        for gone in ["content-length", "accept-ranges", "repr-digest"] {
            assert_eq!(head.fields.get(gone), None, "{gone}");
        }
        assert!(body.remaining().unwrap() < 100, "what was at hand is of a known length");
    }
}

#[test]
fn mistakes_are_refused() {
    for name in NAMES {
        for (config, path) in [
            (json!({"types": []}), "types"),
            (json!({"types": ["text"]}), "types[0]"),
            (json!({"types": "text/html"}), "types"),
            (json!({"excluded_types": ["a/b", "*/*"]}), "excluded_types[1]"),
            (json!({"min_length": 0}), "min_length"),
            (json!({"http_version": 2.0}), "http_version"),
            (json!({"comp_level": 99}), "comp_level"),
            (json!({"vary": 1}), "vary"),
            (json!({"preference": 101}), "preference"),
            (json!({"default_encoding": "gzip"}), "default_encoding"),
        ] {
            assert_eq!(faults(name, &config), [path], "{name} {config}");
        }
    }
}
