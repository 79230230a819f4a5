//! Tests of `hmac-auth`.

#![allow(clippy::unwrap_used)]

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use heddle_xds::catalog::{Catalog, Place};
use serde_json::{Value, json};

use super::super::Registry;
use super::super::testing::{People, answer, faults, filter, header, passes, settled};
use crate::exchange::Exchange;
use crate::http::Body;

/// Of [`crate::exchange::testing::NOW_MS`].
const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";

fn signature(key: &hmac::Key, algorithm: &str, id: &str, request: &str, fields: &[(&str, &str)]) -> String {
    let names: Vec<_> = std::iter::once("@request-target").chain(fields.iter().map(|(name, _)| *name)).collect();
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let text = format!("{id}\n{request}\n{lines}");
    let signature = STANDARD.encode(hmac::sign(key, text.as_bytes()));
    format!("Signature keyId=\"{id}\",algorithm=\"{algorithm}\",headers=\"{}\",signature=\"{signature}\"", names.join(" "))
}

/// `Authorization` of a request that is signed with SHA-256.
pub(crate) fn sign(id: &str, secret: &str, method: &str, target: &str, fields: &[(&str, &str)]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    signature(&key, "hmac-sha256", id, &format!("{method} {target}"), fields)
}

fn people() -> People {
    People::default().with("jack", "hmac-auth", json!({"key_id": "jacks-id", "secret_key": "jacks secret"})).and("guest")
}

fn ask(target: &str, fields: &[(&str, &str)]) -> Exchange {
    people().ask("GET", target, fields)
}

fn refused(config: &Value, fields: &[(&str, &str)]) -> String {
    let refusal = answer(filter("hmac-auth", config).rewrite(&mut ask("/a?b=1", fields)));
    assert_eq!((refusal.head.status, refusal.head.fields.get_str("www-authenticate")), (401, Some("hmac realm=\"hmac\"")));
    let body: Value = serde_json::from_slice(&refusal.body).unwrap();
    body["message"].as_str().unwrap().strip_prefix("client request can't be validated: ").unwrap().to_owned()
}

#[test]
fn each_algorithm_identifies() {
    let all = [
        ("hmac-sha1", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        ("hmac-sha256", hmac::HMAC_SHA256),
        ("hmac-sha512", hmac::HMAC_SHA512),
    ];
    for (name, algorithm) in all {
        let key = hmac::Key::new(algorithm, b"jacks secret");
        let value = signature(&key, name, "jacks-id", "GET /a?b=1", &[("date", DATE)]);
        let mut x = ask("/a?b=1", &[("Authorization", &value), ("Date", DATE)]);
        assert!(passes(filter("hmac-auth", &json!({})).rewrite(&mut x)), "{name}");
        assert_eq!((header(&x, "X-Consumer-Username"), header(&x, "Authorization").is_some()), (Some("jack"), true));
        let others =
            json!({"allowed_algorithms": all.iter().map(|(name, _)| name).filter(|other| **other != name).collect::<Vec<_>>()});
        assert_eq!(refused(&others, &[("Authorization", &value), ("Date", DATE)]), "Invalid algorithm");
    }
    let value = sign("jacks-id", "jacks secret", "GET", "/a", &[("date", DATE)]);
    let mut x = ask("/a", &[("Authorization", &value), ("Date", DATE)]);
    assert!(passes(filter("hmac-auth", &json!({"hide_credentials": true})).rewrite(&mut x)));
    assert_eq!(header(&x, "Authorization"), None);
}

#[test]
fn refusals_say_what_is_wrong() {
    let right = sign("jacks-id", "jacks secret", "GET", "/a?b=1", &[("date", DATE)]);
    let with = |config: Value, value: &str, date: &str| refused(&config, &[("Authorization", value), ("Date", date)]);
    assert_eq!(refused(&json!({}), &[]), "missing Authorization header");
    assert_eq!(with(json!({}), "Basic x", DATE), "Authorization header does not start with 'Signature'");
    assert_eq!(with(json!({}), "Signature keyId=\"a\"", DATE), "keyId or signature missing");
    assert_eq!(refused(&json!({}), &[("Authorization", &right)]), "Date header missing. failed to validate clock skew");
    assert_eq!(with(json!({}), &right, "yesterday"), "Invalid GMT format time");
    assert_eq!(with(json!({"clock_skew": 10}), &right, "Tue, 14 Nov 2023 22:13:31 GMT"), "Clock skew exceeded");
    assert_eq!(with(json!({"clock_skew": 10}), &right, "Tue, 14 Nov 2023 22:13:09 GMT"), "Clock skew exceeded");
    assert_eq!(with(json!({}), &right, "Tue, 14 Nov 2023 22:13:21 GMT"), "Invalid signature");
    let missing = "expected header \"x-tag\" missing in signing";
    assert_eq!(with(json!({"signed_headers": ["Date", "X-Tag"]}), &right, DATE), missing);
    for (id, secret, target, expected) in [
        ("nobody", "jacks secret", "/a?b=1", "Invalid key_id"),
        ("jacks-id", "guess", "/a?b=1", "Invalid signature"),
        ("jacks-id", "jacks secret", "/a?b=2", "Invalid signature"),
    ] {
        assert_eq!(with(json!({}), &sign(id, secret, "GET", target, &[("date", DATE)]), DATE), expected);
    }
    assert_eq!(
        with(json!({}), &sign("jacks-id", "jacks secret", "POST", "/a?b=1", &[("date", DATE)]), DATE),
        "Invalid signature"
    );
}

/// The host is no field of a head, and a second field of a name may be the one that the upstream reads.
#[test]
fn host_and_all_fields_of_a_name_are_covered() {
    let filter = filter("hmac-auth", &json!({"signed_headers": ["host"]}));
    let value = |fields: &[(&str, &str)]| sign("jacks-id", "jacks secret", "GET", "/", fields);
    let passing = |value: &str, tags: &[&str]| {
        let tags = tags.iter().map(|tag| ("X-Tag", *tag));
        let fields: Vec<_> = [("Authorization", value), ("Date", DATE)].into_iter().chain(tags).collect();
        passes(filter.rewrite(&mut ask("/", &fields)))
    };
    let one = value(&[("date", DATE), ("host", "h"), ("x-tag", "1")]);
    assert!(passing(&one, &["1"]));
    assert!(!passing(&one, &["1", "2"]), "a field was added");
    assert!(passing(&value(&[("date", DATE), ("host", "h"), ("x-tag", "1, 2")]), &["1", "2"]));
    assert!(!passing(&value(&[("date", DATE), ("host", "other")]), &[]), "signed for another host");
}

#[tokio::test]
async fn the_body_must_have_the_digest_that_is_told() {
    let told = |content: &[u8]| format!("SHA-256={}", STANDARD.encode(digest::digest(&digest::SHA256, content)));
    let config = json!({"validate_request_body": true, "signed_headers": ["date", "digest"], "max_req_body_size": 8});
    let filter = filter("hmac-auth", &config);
    for (content, digest, status) in [
        (&b"content"[..], told(b"content"), 200),
        (b"", told(b""), 200),
        (b"other", told(b"content"), 401),
        (b"content", "SHA-256=*".to_owned(), 401),
        (b"content", "MD5=AAAA".to_owned(), 401),
        (b"more than eight", told(b"more than eight"), 413),
    ] {
        let value = sign("jacks-id", "jacks secret", "GET", "/", &[("date", DATE), ("digest", &digest)]);
        let mut x = ask("/", &[("Authorization", &value), ("Date", DATE), ("Digest", &digest)]);
        x.body = Body::from(Bytes::copy_from_slice(content));
        let flow = filter.rewrite(&mut x);
        let flow = settled(flow, &mut x).await;
        let found = if status == 200 { if passes(flow) { 200 } else { 0 } } else { answer(flow).head.status };
        assert_eq!(found, status, "{digest}");
        if status == 200 {
            assert_eq!(x.read_body(8).await.unwrap(), content);
        }
    }
}

#[test]
fn those_who_prove_nothing_may_be_somebody() {
    let filter = filter("hmac-auth", &json!({"anonymous_consumer": "guest"}));
    let wrong = sign("jacks-id", "guess", "GET", "/", &[("date", DATE)]);
    for fields in [&[][..], &[("Authorization", &*wrong), ("Date", DATE)]] {
        let mut x = ask("/", fields);
        assert!(passes(filter.rewrite(&mut x)));
        assert_eq!(header(&x, "X-Consumer-Username"), Some("guest"));
    }
}

#[test]
fn wrong_configurations_are_refused() {
    let config = json!({"allowed_algorithms": [], "clock_skew": 0, "signed_headers": ["", "a b"], "max_req_body_size": 0, "realm": "\"",
                        "anonymous_consumer": ""});
    let expected = [
        "allowed_algorithms",
        "clock_skew",
        "signed_headers[0]",
        "signed_headers[1]",
        "max_req_body_size",
        "realm",
        "anonymous_consumer",
    ];
    assert_eq!(faults("hmac-auth", &config), expected);
    assert_eq!(faults("hmac-auth", &json!({"allowed_algorithms": ["md5"]})), ["allowed_algorithms[0]"]);
    let wrong = Registry::default()
        .check("hmac-auth", Place::Consumer, &json!({"key_id": "", "secret_key": "a".repeat(257)}))
        .unwrap_err();
    assert_eq!(wrong.into_iter().map(|fault| fault.path).collect::<Vec<_>>(), ["key_id", "secret_key"]);
}
