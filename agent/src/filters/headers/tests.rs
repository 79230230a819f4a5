//! Tests of `headers`.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::Phases;
use super::super::testing::{answer, faults, filter, header, passes};
use crate::exchange::testing::request;
use crate::http::{Fields, ResponseHead};

fn told(config: &Value, fields: &[(&str, &str)]) -> Fields {
    let filter = filter("headers", config);
    assert!(filter.phases().has(Phases::RESPONSE_HEAD));
    let mut head = ResponseHead::new(200);
    head.fields.append("X-Powered-By", "php");
    head.fields.append("X-Frame-Options", "ALLOWALL");
    filter.response_head(&mut request("GET", "h.example", "/", fields), &mut head);
    head.fields
}

#[test]
fn fields_are_set_and_an_empty_value_removes() {
    let config = json!({"custom_request_headers": {"X-A": "<$host>", "X-Gone": "", "Host": "inner:1"},
        "custom_response_headers": {"X-B": "b", "X-Powered-By": "", "X-N": 7}});
    let mut x = request("GET", "h.example", "/", &[("X-Gone", "1"), ("x-a", "0")]);
    let built = filter("headers", &config);
    assert!(built.phases().has(Phases::REWRITE) && passes(built.rewrite(&mut x)));
    assert_eq!(
        (header(&x, "x-a"), header(&x, "x-gone"), x.host_override.as_deref()),
        (Some("<h.example>"), None, Some("inner:1"))
    );
    let fields = told(&config, &[]);
    assert_eq!((fields.get_str("x-b"), fields.get("x-powered-by"), fields.get_str("x-n")), (Some("b"), None, Some("7")));
    assert_eq!(fields.get_str("x-frame-options"), Some("ALLOWALL"), "nobody has asked for another");
}

#[test]
fn browsers_are_told_every_policy() {
    let config = json!({"frame_deny": true, "content_type_nosniff": true, "browser_xss_filter": true,
        "content_security_policy": "default-src 'self'", "content_security_policy_report_only": "img-src *",
        "referrer_policy": "same-origin", "permissions_policy": "camera=()"});
    let fields = told(&config, &[]);
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("x-xss-protection", "1; mode=block"),
        ("content-security-policy", "default-src 'self'"),
        ("content-security-policy-report-only", "img-src *"),
        ("referrer-policy", "same-origin"),
        ("permissions-policy", "camera=()"),
    ] {
        assert_eq!(fields.get_str(name), Some(value), "{name}");
    }
    let custom =
        told(&json!({"frame_deny": true, "custom_frame_options_value": "SAMEORIGIN", "custom_browser_xss_value": "0"}), &[]);
    assert_eq!((custom.get_str("x-frame-options"), custom.get_str("x-xss-protection")), (Some("SAMEORIGIN"), Some("0")));
}

#[test]
fn transport_security_is_told_over_tls() {
    let sts = |config: Value, proto: &str| {
        told(&config, &[("X-Forwarded-Proto", proto)]).get_str("strict-transport-security").map(str::to_owned)
    };
    let base = || json!({"sts_seconds": 60, "ssl_proxy_headers": {"X-Forwarded-Proto": "https"}, "public_key": "pin"});
    assert_eq!(sts(base(), "https").as_deref(), Some("max-age=60"));
    assert_eq!(sts(base(), "http"), None);
    assert_eq!(told(&base(), &[("X-Forwarded-Proto", "HTTPS")]).get_str("public-key-pins"), Some("pin"));
    let all = json!({"sts_seconds": 60, "sts_include_subdomains": true, "sts_preload": true, "force_sts_header": true});
    assert_eq!(sts(all, "http").as_deref(), Some("max-age=60; includeSubDomains; preload"));
    let at_home = json!({"sts_seconds": 60, "force_sts_header": true, "is_development": true, "referrer_policy": "origin"});
    assert_eq!(sts(at_home, "https"), None);
}

#[test]
fn only_allowed_hosts_are_served() {
    let ask = |config: Value, host: &str, fields: &[(&str, &str)]| {
        let filter = filter("headers", &config);
        if !filter.phases().has(Phases::REWRITE) {
            return 0;
        }
        match filter.rewrite(&mut request("GET", host, "/", fields)) {
            super::super::Flow::Continue => 200,
            flow => answer(flow).head.status,
        }
    };
    let config = || json!({"allowed_hosts": ["A.example", "b.example:81"], "hosts_proxy_headers": ["X-Forwarded-Host"]});
    for (host, status) in [("a.example", 200), ("a.example:9080", 200), ("b.example:81", 200), ("b.example", 500), ("c", 500)] {
        assert_eq!(ask(config(), host, &[]), status, "{host}");
    }
    assert_eq!(ask(config(), "inner", &[("X-Forwarded-Host", "a.example")]), 200);
    assert_eq!(ask(config(), "a.example", &[("X-Forwarded-Host", "c")]), 500);
    assert_eq!(ask(json!({"allowed_hosts": ["a"], "is_development": true, "frame_deny": true}), "c", &[]), 0);
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({}), ""),
        (json!({"sts_preload": true}), ""),
        (json!({"access_control_max_age": 5}), "access_control_max_age"),
        (json!({"add_vary_header": true}), "add_vary_header"),
        (json!({"custom_request_headers": {"a b": "1"}}), "custom_request_headers.set.a b"),
        (json!({"custom_response_headers": {"a b": ""}}), "custom_response_headers.remove[0]"),
        (json!({"content_security_policy": "a\nb"}), "content_security_policy"),
        (json!({"allowed_hosts": ["a/b"]}), "allowed_hosts[0]"),
        (json!({"frame_deny": true, "hosts_proxy_headers": ["a b"]}), "hosts_proxy_headers[0]"),
        (json!({"frame_deny": true, "ssl_proxy_headers": {"X": 1}}), "ssl_proxy_headers.X"),
        (json!({"sts_seconds": -1}), "sts_seconds"),
    ] {
        assert_eq!(faults("headers", &config), [path], "{config}");
    }
}
