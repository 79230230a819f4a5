//! Tests of `multi-auth`.

#![allow(clippy::unwrap_used)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::super::testing::{People, answer, faults, filter, header, passes, settled};
use crate::exchange::Exchange;
use crate::http::Body;

const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW";

fn people() -> People {
    People::default()
        .with("jack", "basic-auth", json!({"username": "jack", "password": BCRYPT}))
        .with("rose", "key-auth", json!({"key": "roses-key"}))
        .with("tom", "hmac-auth", json!({"key_id": "tom", "secret_key": "toms secret"}))
        .and("guest")
}

fn basic(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("jack:{password}")))
}

async fn who(config: &Value, fields: &[(&str, &str)]) -> Result<String, (u16, Vec<String>)> {
    let mut x: Exchange = people().ask("POST", "/", fields);
    x.body = Body::from(Bytes::from_static(b"content"));
    let flow = filter("multi-auth", config).rewrite(&mut x);
    match settled(flow, &mut x).await {
        flow @ super::super::Flow::Answer(_) => {
            let refusal = answer(flow);
            let challenges =
                refusal.head.fields.get_all("www-authenticate").map(|value| String::from_utf8_lossy(value).into_owned());
            Err((refusal.head.status, challenges.collect()))
        }
        flow => {
            assert!(passes(flow));
            Ok(header(&x, "X-Consumer-Username").unwrap().to_owned())
        }
    }
}

/// What waits (a slow hash) and what reads the body (a digest) go on with the next plugin too.
#[tokio::test]
async fn the_first_that_succeeds_counts() {
    let config = json!({"auth_plugins": [{"basic-auth": {}}, {"hmac-auth": {"validate_request_body": true}}, {"key-auth": {}}]});
    assert_eq!(who(&config, &[("Authorization", &basic("open sesame"))]).await, Ok("jack".to_owned()));
    assert_eq!(who(&config, &[("apikey", "roses-key")]).await, Ok("rose".to_owned()));
    let wrong = basic("wrong");
    assert_eq!(who(&config, &[("Authorization", &wrong), ("apikey", "roses-key")]).await, Ok("rose".to_owned()));
    let (date, digest) = ("Tue, 14 Nov 2023 22:13:20 GMT", "SHA-256=d3Jvbmc=");
    let signature = super::super::hmac_auth::sign_for_tests("tom", "toms secret", "POST", "/", &[("date", date)]);
    let fields = [("Authorization", &*signature), ("Date", date), ("Digest", digest), ("apikey", "roses-key")];
    assert_eq!(who(&config, &fields).await, Ok("rose".to_owned()), "the digest is wrong, the key is not");
    let right = format!("SHA-256={}", STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"content")));
    let fields = [("Authorization", &*signature), ("Date", date), ("Digest", &*right)];
    assert_eq!(who(&config, &fields).await, Ok("tom".to_owned()));
}

#[tokio::test]
async fn who_fails_everywhere_is_refused_with_all_challenges() {
    let config = json!({"auth_plugins": [{"basic-auth": {}, "key-auth": {"realm": "k"}}]});
    let expected = vec!["Basic realm=\"basic\"".to_owned(), "apikey realm=\"k\"".to_owned()];
    for fields in [&[][..], &[("Authorization", &*basic("wrong")), ("apikey", "wrong")]] {
        assert_eq!(who(&config, fields).await, Err((401, expected.clone())));
    }
    let refusal = answer(filter("multi-auth", &config).rewrite(&mut people().ask("GET", "/", &[])));
    assert_eq!(refusal.body, "{\"message\":\"Authorization Failed\"}\n");
}

#[tokio::test]
async fn anybody_comes_after_all_others() {
    let config = json!({"auth_plugins": [{"basic-auth": {"anonymous_consumer": "guest"}}, {"key-auth": {}}]});
    assert_eq!(who(&config, &[("apikey", "roses-key")]).await, Ok("rose".to_owned()));
    assert_eq!(who(&config, &[("Authorization", &basic("wrong"))]).await, Ok("guest".to_owned()));
    assert_eq!(who(&config, &[]).await, Ok("guest".to_owned()));
}

/// One that cannot tell is no one that says no: the client is told to come again, and is not taken for anybody.
#[tokio::test]
async fn who_cannot_be_judged_now_is_not_refused_for_good() {
    let keys = crate::outbound::testing::constant(crate::outbound::testing::reply(500, &[], "")).await;
    let published = json!({"jwks_url": format!("http://{keys}/")});
    let config = json!({"auth_plugins": [{"jwt-auth": published}, {"key-auth": {"anonymous_consumer": "guest"}}]});
    let token = ("Authorization", "Bearer eyJhbGciOiJSUzI1NiJ9.e30.AA");
    assert_eq!(who(&config, &[token]).await, Err((503, Vec::new())));
    assert_eq!(who(&config, &[token, ("apikey", "roses-key")]).await, Ok("rose".to_owned()));
}

#[test]
fn wrong_configurations_are_refused() {
    let lax = json!({"auth_plugins": [{"jwe-decrypt": {"strict": false}}, {"key-auth": {}}]});
    assert_eq!(faults("multi-auth", &lax), ["auth_plugins[0].jwe-decrypt.strict"], "it lets everybody in");
    assert_eq!(faults("multi-auth", &json!({"auth_plugins": []})), ["auth_plugins"]);
    assert_eq!(faults("multi-auth", &json!({"auth_plugins": [{"key-auth": {}}]})), ["auth_plugins"]);
    let config = json!({"auth_plugins": [{"cors": {}}, {"multi-auth": {}}, {"nope": {}}, {"key-auth": {"realm": 5, "nope": 1}}]});
    let found = faults("multi-auth", &config);
    let expected = ["auth_plugins[0].cors", "auth_plugins[1].multi-auth", "auth_plugins[2].nope"];
    assert_eq!(found[..3], expected);
    assert!(found[3..].iter().all(|path| path.starts_with("auth_plugins[3].key-auth")) && found.len() == 5, "{found:?}");
}
