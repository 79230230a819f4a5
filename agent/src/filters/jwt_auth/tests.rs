//! Tests of `jwt-auth`, with tokens that OpenSSL has signed and with own ones.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use heddle_xds::catalog::{Catalog, Place};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::testing::{People, answer, faults, filter, filter_in, header, passes, settled};
use super::super::{Filter, Flow, Keep, Registry};
use crate::exchange::testing::NOW_MS;
use crate::exchange::{Exchange, Template};

const NOW: u64 = NOW_MS / 1_000;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../jose/vectors.json")).unwrap()
}

fn signed_elsewhere(algorithm: &str) -> String {
    let vectors = vectors();
    let found = vectors["tokens"].as_array().unwrap().iter().find(|one| one["alg"] == algorithm).unwrap();
    found["token"].as_str().unwrap().to_owned()
}

fn pem(key: &str) -> Value {
    vectors()["keys"][key]["pem"].clone()
}

fn signed(claims: Value, secret: &[u8]) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(json!({"alg": "HS256", "typ": "JWT"})), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes())))
}

fn people(extra: Value) -> People {
    let mut jack = json!({"key": "jacks-key", "secret": "s3cret"});
    jack.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    People::default().with("jack", "jwt-auth", jack).and("guest")
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn ask(people: People, token: &str) -> Exchange {
    people.ask("GET", "/", &[("Authorization", &bearer(token))])
}

fn refused(config: &Value, x: &mut Exchange) -> (u16, String, String) {
    let refusal = answer(filter("jwt-auth", config).rewrite(x));
    let body: Value = serde_json::from_slice(&refusal.body).unwrap();
    let challenge = refusal.head.fields.get_str("www-authenticate").unwrap_or_default().to_owned();
    (refusal.head.status, body["message"].as_str().unwrap().to_owned(), challenge)
}

#[test]
fn every_algorithm_identifies() {
    let filter = filter("jwt-auth", &json!({}));
    for (algorithm, key) in [("RS256", "rsa"), ("PS512", "rsa"), ("ES256", "P-256"), ("ES512", "P-521"), ("EdDSA", "Ed25519")] {
        let jack = json!({"key": "jacks-key", "public_key": pem(key), "algorithm": algorithm});
        let mut x = ask(People::default().with("jack", "jwt-auth", jack), &signed_elsewhere(algorithm));
        assert!(passes(filter.rewrite(&mut x)), "{algorithm}");
        assert_eq!(header(&x, "X-Consumer-Username"), Some("jack"));
    }
    for (secret, base64) in [("a shared secret".to_owned(), false), (STANDARD.encode("a shared secret"), true)] {
        let jack = json!({"secret": secret, "base64_secret": base64, "algorithm": "HS384"});
        assert!(passes(filter.rewrite(&mut ask(people(jack), &signed_elsewhere("HS384")))));
    }
}

#[test]
fn a_token_stands_in_header_query_or_cookie_and_is_hidden_on_demand() {
    let token = signed(json!({"key": "jacks-key"}), b"s3cret");
    let config = json!({"hide_credentials": true, "header": "X-Token", "query": "t", "cookie": "c"});
    let filter = filter("jwt-auth", &config);
    let (target, cookie) = (format!("/?a=1&t={token}"), format!("a=1; c={token}"));
    for (target, fields) in [("/", ("X-Token", &*token)), (&*target, ("A", "b")), ("/", ("Cookie", &*cookie))] {
        let mut x = people(json!({})).ask("GET", target, &[fields]);
        assert!(passes(filter.rewrite(&mut x)), "{target} {fields:?}");
        assert!(!x.request.target().contains(&token));
        assert!(x.request.fields.iter().all(|field| !String::from_utf8_lossy(field.value).contains(&token)));
    }
    let mut x = people(json!({})).ask("GET", &target, &[("X-Token", "wrong")]);
    assert_eq!(answer(filter.rewrite(&mut x)).head.status, 401, "the header goes first");
}

#[test]
fn refusals_say_what_is_wrong() {
    let challenge = "Bearer realm=\"jwt\"".to_owned();
    let missing = refused(&json!({}), &mut people(json!({})).ask("GET", "/", &[]));
    assert_eq!(missing, (401, "Missing JWT token in request".to_owned(), challenge.clone()));
    let told = |token: &str| refused(&json!({"realm": "shop"}), &mut ask(people(json!({})), token));
    let (status, message, challenge) = told("a.b");
    assert_eq!(
        (status, &*message),
        (401, "JWT token invalid: expected three parts with dots between them: header.claims.signature")
    );
    assert!(challenge.starts_with("Bearer realm=\"shop\", error=\"invalid_token\", error_description=\""), "{challenge}");
    assert_eq!(told(&signed(json!({}), b"s3cret")).1, "missing user key in JWT token");
    assert_eq!(told(&signed(json!({"key": 5}), b"s3cret")).1, "missing user key in JWT token");
    assert_eq!(told(&signed(json!({"key": "nobody"}), b"s3cret")).1, "Invalid user key in JWT token");
    for (token, why) in [
        (signed(json!({"key": "jacks-key"}), b"guess"), "signature mismatch"),
        (signed(json!({"key": "jacks-key", "exp": NOW}), b"s3cret"), "expired"),
        (signed(json!({"key": "jacks-key", "nbf": NOW + 1}), b"s3cret"), "not valid before"),
        (signed_elsewhere("RS256"), "RS256 is not the one"),
    ] {
        let (_, message, challenge) = told(&token);
        assert_eq!(message, "failed to verify jwt");
        assert!(challenge.contains(why), "{challenge}");
    }
}

#[test]
fn claims_are_demanded_and_clocks_may_differ() {
    let token = |claims: Value| {
        let mut all = json!({"key": "jacks-key"});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        signed(all, b"s3cret")
    };
    let passes = |config: Value, extra: Value, claims: Value| {
        passes(filter("jwt-auth", &config).rewrite(&mut ask(people(extra), &token(claims))))
    };
    assert!(!passes(json!({"claims_to_verify": ["exp"]}), json!({}), json!({})));
    assert!(passes(json!({"claims_to_verify": ["exp", "nbf"]}), json!({}), json!({"exp": NOW + 1, "nbf": NOW})));
    assert!(passes(json!({}), json!({"lifetime_grace_period": 10}), json!({"exp": NOW - 9})));
    assert!(!passes(json!({}), json!({"lifetime_grace_period": 10}), json!({"exp": NOW - 10})));
    assert!(passes(json!({"clock_skew": 10}), json!({}), json!({"nbf": NOW + 10})));
    let demand = json!({"issuers": ["i", "j"], "audiences": ["shop"]});
    assert!(passes(demand.clone(), json!({}), json!({"iss": "j", "aud": ["shop"]})));
    assert!(!passes(demand.clone(), json!({}), json!({"iss": "k", "aud": ["shop"]})));
    assert!(!passes(demand, json!({}), json!({"iss": "i", "aud": "cafe"})));
    assert!(!passes(json!({"key_claim_name": "sub"}), json!({}), json!({})));
    assert!(passes(json!({"key_claim_name": "sub"}), json!({}), json!({"sub": "jacks-key"})));
}

#[test]
fn claims_become_variables() {
    let claims = json!({"key": "jacks-key", "role": "admin", "level": 5, "teams": ["a"], "none": null});
    let mut x = ask(people(json!({})), &signed(claims, b"s3cret"));
    let shown = Template::new("$jwt_claim_role-$jwt_claim_level-$jwt_claim_teams-$jwt_claim_none-$jwt_claim_x|$jwt_auth_payload");
    assert_eq!(shown.render(&x), "----|");
    assert!(passes(filter("jwt-auth", &json!({})).rewrite(&mut x)));
    assert_eq!(shown.render(&x), "admin-5-[\"a\"]--|");
    assert!(passes(filter("jwt-auth", &json!({"store_in_ctx": true})).rewrite(&mut x)));
    assert!(
        shown.render(&x).ends_with("|{\"key\":\"jacks-key\",\"role\":\"admin\",\"level\":5,\"teams\":[\"a\"],\"none\":null}")
    );
}

#[test]
fn those_who_prove_nothing_may_be_somebody() {
    let filter = filter("jwt-auth", &json!({"anonymous_consumer": "guest"}));
    let wrong = signed(json!({"key": "jacks-key"}), b"guess");
    for token in ["nonsense", &wrong, &signed(json!({}), b"x"), &signed(json!({"key": "nobody"}), b"x")] {
        let mut x = ask(people(json!({})), token);
        assert!(passes(filter.rewrite(&mut x)), "{token}");
        assert_eq!(header(&x, "X-Consumer-Username"), Some("guest"));
        assert_eq!(Template::new("$jwt_claim_key").render(&x), "");
    }
}

/// A server that gives these answers one after the other, the last one again and again; counts how often it was asked.
async fn publisher(answers: Vec<(u16, String)>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut bytes = [0; 1024];
                let read = stream.read(&mut bytes).await.unwrap();
                head.extend_from_slice(&bytes[..read]);
            }
            let (status, body) = &answers[count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1)];
            let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    });
    (url, asked)
}

fn set(keys: &[&str]) -> String {
    let vectors = vectors();
    json!({ "keys": keys.iter().map(|name| vectors["keys"][*name]["jwk"].clone()).collect::<Vec<_>>() }).to_string()
}

async fn verdict(filter: &Arc<dyn Filter>, people: People, token: &str, now_ms: u64) -> u16 {
    let mut x = ask(people, token);
    x.started_ms = now_ms;
    let flow = filter.rewrite(&mut x);
    match settled(flow, &mut x).await {
        Flow::Answer(refusal) => refusal.head.status,
        flow => {
            assert!(passes(flow));
            200
        }
    }
}

#[tokio::test]
async fn published_keys_are_fetched_once_renewed_and_used_on() {
    let (url, asked) = publisher(vec![(200, set(&["rsa"])), (200, set(&["rsa", "P-256"])), (500, String::new())]).await;
    let filter = filter_in("jwt-auth", &json!({"jwks_url": url, "jwks_ttl": 60}), None, &Keep::default());
    let (rsa, ec) = (signed_elsewhere("RS256"), signed_elsewhere("ES256"));
    let people = || people(json!({}));
    for _ in 0..3 {
        assert_eq!(verdict(&filter, people(), &rsa, NOW_MS).await, 200);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // A key that is not in the set is looked for, but not again and again.
    assert_eq!(verdict(&filter, people(), &ec, NOW_MS + 1_000).await, 401);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(verdict(&filter, people(), &ec, NOW_MS + 11_000).await, 200);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // The server fails: what it published is used on, and it is asked now and then.
    for _ in 0..3 {
        assert_eq!(verdict(&filter, people(), &ec, NOW_MS + 200_000).await, 200);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    let mut x = ask(people(), &rsa);
    x.started_ms = NOW_MS + 200_000;
    assert!(passes(filter.rewrite(&mut x)));
    assert_eq!(header(&x, "X-Consumer-Username"), Some("jack"));
}

/// Whoever comes while keys are fetched for the first time waits for them, and nobody can keep them from coming by going away.
#[tokio::test]
async fn a_fetch_is_there_for_all_even_when_who_began_it_is_gone() {
    let rsa = signed_elsewhere("RS256");
    for goes in [false, true] {
        let (url, asked) = publisher(vec![(200, set(&["rsa"]))]).await;
        let filter = filter("jwt-auth", &json!({"jwks_url": url}));
        if goes {
            let flow = filter.rewrite(&mut ask(people(json!({})), &rsa));
            let waits =
                if let Flow::Wait(future) = flow { futures_util::FutureExt::now_or_never(future).is_none() } else { false };
            assert!(waits, "nothing is at hand");
        }
        let all = (0..8).map(|_| verdict(&filter, people(json!({})), &rsa, NOW_MS));
        assert_eq!(futures_util::future::join_all(all).await, [200; 8], "{goes}");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn without_keys_nobody_comes_in_and_nothing_piles_up() {
    let (url, asked) = publisher(vec![(200, "nonsense".to_owned())]).await;
    let filter = filter("jwt-auth", &json!({"jwks_url": url, "timeout": 500}));
    let rsa = signed_elsewhere("RS256");
    let all = (0..8).map(|_| verdict(&filter, people(json!({})), &rsa, NOW_MS));
    assert!(futures_util::future::join_all(all).await.into_iter().all(|status| status == 503));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(verdict(&filter, people(json!({})), &signed_elsewhere("HS256"), NOW_MS).await, 401);
}

#[tokio::test]
async fn consumers_publish_keys_too_and_issuers_know_others() {
    let (url, _) = publisher(vec![(200, set(&["Ed25519"]))]).await;
    let own = People::default().with("jack", "jwt-auth", json!({"key": "jacks-key", "jwks_url": url}));
    assert_eq!(verdict(&filter("jwt-auth", &json!({})), own, &signed_elsewhere("EdDSA"), NOW_MS).await, 200);
    let token = signed_elsewhere("EdDSA");
    let required = filter("jwt-auth", &json!({"jwks_url": url}));
    assert_eq!(verdict(&required, People::default(), &token, NOW_MS).await, 401);
    let open = filter("jwt-auth", &json!({"jwks_url": url, "consumer_required": false, "algorithms": ["EdDSA"]}));
    let mut x = People::default().ask("GET", "/", &[("Authorization", &bearer(&token)), ("X-Consumer-Username", "forged")]);
    let flow = open.rewrite(&mut x);
    assert!(passes(settled(flow, &mut x).await));
    assert_eq!((header(&x, "X-Consumer-Username"), &*Template::new("$jwt_claim_sub").render(&x)), (None, "jack"));
    let narrow = filter("jwt-auth", &json!({"jwks_url": url, "algorithms": ["RS256"]}));
    assert_eq!(verdict(&narrow, people(json!({})), &token, NOW_MS).await, 401);
}

#[test]
fn wrong_configurations_are_refused() {
    let config = json!({"header": "a b", "query": "", "cookie": "", "key_claim_name": "", "realm": "\"", "anonymous_consumer": "",
                        "claims_to_verify": [], "algorithms": ["HS256"], "issuers": [], "audiences": [], "consumer_required": false,
                        "jwks_ttl": 0, "timeout": 0});
    let expected = [
        "header",
        "key_claim_name",
        "realm",
        "anonymous_consumer",
        "claims_to_verify",
        "issuers",
        "audiences",
        "algorithms",
        "algorithms",
        "consumer_required",
        "jwks_ttl",
        "timeout",
    ];
    assert_eq!(faults("jwt-auth", &config), expected);
    assert_eq!(faults("jwt-auth", &json!({"jwks_url": "ftp://a"})), ["jwks_url"]);
    assert_eq!(faults("jwt-auth", &json!({"claims_to_verify": ["iss"]})), ["claims_to_verify[0]"]);
    let paths = |value: Value| {
        let found = Registry::default().check("jwt-auth", Place::Consumer, &value).unwrap_err();
        found.into_iter().map(|fault| fault.path).collect::<Vec<_>>()
    };
    assert_eq!(paths(json!({"key": "", "exp": 0})), ["key", "exp", ""]);
    assert_eq!(paths(json!({"key": "k", "secret": "*", "base64_secret": true})), ["secret"]);
    assert_eq!(paths(json!({"key": "k", "algorithm": "RS256"})), [""]);
    assert_eq!(paths(json!({"key": "k", "algorithm": "ES256", "public_key": pem("rsa")})), ["public_key"]);
    assert_eq!(paths(json!({"key": "k", "algorithm": "none"})), ["algorithm"]);
    assert_eq!(paths(json!({"key": "k", "algorithm": "HS256", "jwks_url": "http://a"})), ["algorithm"]);
    let reference = json!({"key": "k", "algorithm": "RS256", "public_key": "$secret://vault/1/a/b"});
    let mut x = ask(People::default().with("jack", "jwt-auth", reference), &signed_elsewhere("RS256"));
    assert_eq!(refused(&json!({}), &mut x).0, 401);
}
