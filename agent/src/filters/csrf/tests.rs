//! Tests of `csrf`.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, passes};
use super::token;
use crate::exchange::testing::{NOW_MS, request};
use crate::http::ResponseHead;

const NAME: &str = "apisix-csrf-token";

fn cookies(config: &Value) -> Vec<String> {
    let mut head = ResponseHead::new(200);
    head.fields.append("Set-Cookie", "other=1");
    filter("csrf", config).response_head(&mut request("GET", "h", "/", &[]), &mut head);
    head.fields.get_all("set-cookie").map(|value| String::from_utf8(value.to_vec()).unwrap()).collect()
}

fn given(config: &Value, name: &str) -> String {
    let cookie = cookies(config).pop().unwrap();
    cookie.strip_prefix(&format!("{name}=")).unwrap().split(';').next().unwrap().to_owned()
}

fn posted(config: &Value, fields: &[(&str, &str)]) -> String {
    let refusal = answer(filter("csrf", config).access(&mut request("POST", "h", "/", fields)));
    assert_eq!(refusal.head.status, 401);
    let body: Value = serde_json::from_slice(&refusal.body).unwrap();
    body["error_msg"].as_str().unwrap().to_owned()
}

#[test]
fn a_token_comes_as_a_cookie_and_is_brought_back_in_a_header() {
    for (config, name) in [(json!({"key": "k"}), NAME), (json!({"key": "k", "name": "X-Token"}), "X-Token")] {
        let token = given(&config, name);
        let cookie = format!("a=b; {name}={token}");
        let fields = [(name, token.as_str()), ("Cookie", &cookie)];
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert!(passes(filter("csrf", &config).access(&mut request(method, "h", "/", &fields))), "{method}");
        }
    }
}

#[test]
fn what_changes_nothing_needs_no_token() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert!(passes(filter("csrf", &json!({"key": "k"})).access(&mut request(method, "h", "/", &[]))));
    }
}

#[test]
fn refusals_say_what_is_missing() {
    let config = json!({"key": "k"});
    let (token, foreign) = (given(&config, NAME), given(&json!({"key": "other"}), NAME));
    let cookie = |token: &str| format!("{NAME}={token}");
    assert_eq!(posted(&config, &[("Cookie", &cookie(&token))]), "no csrf token in headers");
    assert_eq!(posted(&config, &[(NAME, ""), ("Cookie", &cookie(&token))]), "no csrf token in headers");
    assert_eq!(posted(&config, &[(NAME, &token)]), "no csrf cookie");
    assert_eq!(posted(&config, &[(NAME, &token), ("Cookie", &cookie(&foreign))]), "csrf token mismatch");
    let failed = "Failed to verify the csrf token signature";
    assert_eq!(posted(&config, &[(NAME, &foreign), ("Cookie", &cookie(&foreign))]), failed);
    let old = token::make(&token::key("k"), 1, NOW_MS / 1000 - 7201);
    assert_eq!(posted(&config, &[(NAME, &old), ("Cookie", &cookie(&old))]), failed);
    let fields = [(NAME, old.as_str()), ("Cookie", &cookie(&old))];
    assert!(passes(filter("csrf", &json!({"key": "k", "expires": 0})).access(&mut request("POST", "h", "/", &fields))));
}

#[test]
fn the_cookie_ends_with_the_token() {
    let all = cookies(&json!({"key": "k", "expires": 60}));
    assert_eq!(all[0], "other=1");
    assert!(all[1].ends_with(";path=/;SameSite=Lax;Expires=Tue, 14 Nov 2023 22:14:20 GMT"), "{}", all[1]);
    assert!(cookies(&json!({"key": "k", "expires": 0}))[1].ends_with(";path=/;SameSite=Lax"));
    assert_ne!(given(&json!({"key": "k"}), NAME), given(&json!({"key": "k"}), NAME));
}

#[test]
fn who_changes_something_comes_from_the_host_that_is_asked() {
    let config = json!({"by_origin": {"additional": ["^(?:.*\\.partner\\.example)$"]}});
    let lets = |method: &str, fields: &[(&str, &str)]| {
        passes(filter("csrf", &config).access(&mut request(method, "shop.example:8080", "/", fields)))
    };
    assert!(lets("GET", &[]) && lets("HEAD", &[]) && lets("OPTIONS", &[]));
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert!(lets(method, &[("Origin", "https://shop.example:8080")]));
        assert!(lets(method, &[("Referer", "https://shop.example:8080/cart?a=b")]));
        assert!(lets(method, &[("Origin", "https://a.partner.example")]));
    }
    for fields in [&[][..], &[("Origin", "null")], &[("Origin", "https://evil.example")], &[("Origin", "https://shop.example")]] {
        let refusal = answer(filter("csrf", &config).access(&mut request("POST", "shop.example:8080", "/", fields)));
        assert_eq!((refusal.head.status, &refusal.body[..]), (403, &b"Invalid origin"[..]));
    }
    assert_eq!(faults("csrf", &json!({"key": "k", "by_origin": {}})), ["by_origin"]);
    assert_eq!(faults("csrf", &json!({"by_origin": {"additional": ["("]}})), ["by_origin.additional[0]"]);
}

#[test]
fn mistakes_are_refused() {
    assert_eq!(faults("csrf", &json!({})), [""]);
    assert_eq!(faults("csrf", &json!({"key": "", "name": "a b"})), ["key", "name"]);
    assert_eq!(faults("csrf", &json!({"key": "k", "expires": -1})), ["expires"]);
}
