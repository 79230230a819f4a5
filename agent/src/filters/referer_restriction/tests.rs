//! Tests of `referer-restriction`.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, passes};
use super::hosts::host;
use crate::exchange::testing::request;

fn lets_pass(config: &Value, referer: Option<&str>) -> bool {
    let fields: Vec<_> = referer.into_iter().map(|referer| ("Referer", referer)).collect();
    passes(filter("referer-restriction", config).access(&mut request("GET", "h", "/", &fields)))
}

#[test]
fn a_list_of_hosts_lets_in_or_keeps_out() {
    let list = ["a.example", "*.b.example", "*c.example", "[::1]"];
    for (referer, listed) in [
        ("http://a.example", true),
        ("https://A.Example:8443/x?y#z", true),
        ("http://a.example./", true),
        ("http://x.a.example/", false),
        ("http://x.b.example/", true),
        ("http://x.Y.B.example/", true),
        ("http://b.example/", false),
        ("http://xb.example/", false),
        ("http://c.example/", true),
        ("http://xc.example/", true),
        ("http://[::1]:8080/", true),
        ("http://evil.example/http://a.example", false),
        ("http://evil.example\\a.example", false),
    ] {
        assert_eq!(lets_pass(&json!({"whitelist": list}), Some(referer)), listed, "{referer}");
        assert_eq!(lets_pass(&json!({"blacklist": list}), Some(referer)), !listed, "{referer}");
    }
}

#[test]
fn what_is_missing_or_malformed_passes_on_demand_only() {
    for list in ["whitelist", "blacklist"] {
        for referer in
            [None, Some(""), Some("a.example"), Some("ftp://a.example"), Some("http://u:p@a.example/"), Some("http://")]
        {
            assert!(!lets_pass(&json!({list: ["a.example"]}), referer), "{list} {referer:?}");
            assert!(lets_pass(&json!({list: ["a.example"], "bypass_missing": true}), referer), "{list} {referer:?}");
        }
    }
}

#[test]
fn the_refusal_reads_as_it_should() {
    for (config, expected) in [
        (json!({"whitelist": ["a"]}), "{\"message\":\"Your referer host is not allowed\"}\n"),
        (json!({"whitelist": ["a"], "message": "no"}), "{\"message\":\"no\"}\n"),
    ] {
        let refusal = answer(filter("referer-restriction", &config).access(&mut request("GET", "h", "/", &[])));
        assert_eq!((refusal.head.status, std::str::from_utf8(&refusal.body).unwrap()), (403, expected));
    }
}

#[test]
fn mistakes_are_refused() {
    assert_eq!(faults("referer-restriction", &json!({})), [""]);
    assert_eq!(faults("referer-restriction", &json!({"whitelist": ["a"], "blacklist": ["a"]})), [""]);
    assert_eq!(faults("referer-restriction", &json!({"whitelist": []})), ["whitelist"]);
    let config = json!({"blacklist": ["a", "*", "http://a", "a*b", "[::1]"], "message": ""});
    assert_eq!(faults("referer-restriction", &config), ["blacklist[1]", "blacklist[2]", "blacklist[3]", "message"]);
}

proptest! {
    #[test]
    fn a_host_holds_nothing_that_ends_one(url in "(https?://)?[a-z.@:/?#\\[\\]\\\\]{0,16}") {
        if let Some(host) = host(url.as_bytes()) {
            prop_assert!(!host.is_empty() && !host.iter().any(|byte| b"/?#@\\".contains(byte)));
        }
    }
}
