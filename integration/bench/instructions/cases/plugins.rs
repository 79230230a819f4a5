//! What each plugin adds to a request that passes it, as `docs/performance.md` shows. The common ones have cases of their own in `filters`.
//!
//! Left out is what waits for others (ext-authz, forward-auth, opa, wolf-rbac, ldap-auth, openid-connect), what answers itself (mocking, echo,
//! batch-requests), and what is counted by the byte of a body (body-transformer, and of the compressions all but the decision).

use serde_json::{Value, json};

use super::Case;
use super::filters::{Told, case_of};

/// Rounds that are counted.
const ROUNDS: usize = 512;

/// A plugin alone, beside a route without plugins.
macro_rules! alone {
    ($name:literal, $fields:expr, $config:expr) => {
        Case {
            name: concat!("plugin/", $name),
            rounds: ROUNDS,
            less: Some("filter/none"),
            make: || case_of(&[($name, || $config)], $fields),
        }
    };
}

/// A plugin that looks at the consumer, beside a route on which `key-auth` finds it.
macro_rules! known {
    ($name:literal, $config:expr) => {
        Case {
            name: concat!("plugin/", $name),
            rounds: ROUNDS,
            less: Some("filter/key-auth"),
            make: || case_of(&[KEY_AUTH, ($name, || $config)], &[]),
        }
    };
}

const KEY_AUTH: Told = ("key-auth", || json!({ "hide_credentials": true }));

/// The token and the signature of Jack, as other programs have made them.
const TOKEN: &str = "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJrZXkiOiJqYWNrcy1rZXkiLCJyb2xlIjoiYWRtaW4iLCJleHAiOjQxMDI0NDQ4MDB9.jk71zG9dFnJf_bACcq3Di3pnWJJEyMph9Qw8h2T99Uc";
const SIGNATURE: &str = r#"Signature keyId="jacks-id",algorithm="hmac-sha256",headers="@request-target date",signature="h4x4slPPWSch2yCRjjk0s3R3LbkKca5R4X5tf+WbTEA=""#;
const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";

pub fn cases() -> Vec<Case> {
    [who_are_you(), how_much(), keep_out(), change_it(), where_to()].into_iter().flatten().collect()
}

fn who_are_you() -> Vec<Case> {
    vec![
        alone!("basic-auth", &[("Authorization", "Basic amFjazpvcGVuLXNlc2FtZQ==")], json!({})),
        alone!("jwt-auth", &[("Authorization", TOKEN)], json!({})),
        alone!("hmac-auth", &[("Authorization", SIGNATURE), ("Date", DATE)], json!({})),
        alone!("multi-auth", &[], json!({ "auth_plugins": [{ "basic-auth": {} }, { "key-auth": {} }] })),
        alone!(
            "authz-casbin",
            &[("X-User", "ann")],
            json!({ "username": "X-User", "model": MODEL, "policy": "p, ann, /api/*, GET" })
        ),
        known!("consumer-restriction", json!({ "whitelist": ["jack", "jill"] })),
        known!("acl", json!({ "allow_labels": { "team": ["platform"] } })),
        known!("attach-consumer-label", json!({ "headers": { "X-Team": "$team" } })),
    ]
}

const MODEL: &str = "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act\n[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\nm = r.sub == p.sub && keyMatch(r.obj, p.obj) && r.act == p.act";

fn how_much() -> Vec<Case> {
    vec![
        alone!("limit-req", &[], json!({ "rate": 1_000_000, "burst": 1_000_000, "key": "remote_addr", "nodelay": true })),
        alone!("limit-conn", &[], json!({ "conn": 1000, "burst": 0, "default_conn_delay": 1, "key": "remote_addr" })),
        alone!("api-breaker", &[], json!({ "break_response_code": 502 })),
        alone!("client-control", &[], json!({ "max_body_size": 1000 })),
        alone!(
            "workflow",
            &[],
            json!({ "rules": [{ "case": [["uri", "==", "/old"]], "actions": [["return", { "code": 403 }]] }] })
        ),
    ]
}

fn keep_out() -> Vec<Case> {
    vec![
        alone!("ua-restriction", &[], json!({ "denylist": ["curl/", "(?i)bot"] })),
        alone!("referer-restriction", &[], json!({ "whitelist": ["*.example.com"] })),
        alone!("uri-blocker", &[], json!({ "block_rules": ["\\.php$", "/wp-admin"] })),
        alone!("csrf", &[], json!({ "key": "a-secret-of-mine" })),
        alone!(
            "real-ip",
            &[("X-Client", "203.0.113.9")],
            json!({ "source": "http_x_client", "trusted_addresses": ["192.0.2.0/24"] })
        ),
        alone!(
            "request-validation",
            &[("X-Tenant", "t")],
            json!({ "header_schema": { "type": "object", "required": ["X-Tenant"] } })
        ),
        alone!("data-mask", &[], json!({ "request": [{ "type": "header", "name": "Authorization", "action": "remove" }] })),
    ]
}

fn change_it() -> Vec<Case> {
    vec![
        alone!(
            "headers",
            &[],
            json!({ "sts_seconds": 31_536_000, "force_sts_header": true, "frame_deny": true, "content_type_nosniff": true })
        ),
        alone!("gzip", &[], json!({ "types": ["text/html"] })),
        alone!("error-page", &[], json!({ "pages": { "404": { "body": "nothing here" } } })),
    ]
}

fn where_to() -> Vec<Case> {
    vec![
        alone!("retry", &[], json!({ "attempts": 3, "statuses": ["502-504"] })),
        alone!("sticky", &[], json!({ "cookie": { "name": "pinned" } })),
    ]
}

/// What stands on Jack besides his key.
pub fn credentials() -> [(&'static str, Value); 3] {
    [
        ("basic-auth", json!({ "username": "jack", "password": "open-sesame" })),
        ("jwt-auth", json!({ "key": "jacks-key", "secret": "open-sesame-open-sesame-open-sesame" })),
        ("hmac-auth", json!({ "key_id": "jacks-id", "secret_key": "jacks secret" })),
    ]
}
