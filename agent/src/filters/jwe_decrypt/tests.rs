//! Tests of `jwe-decrypt`.

#![allow(clippy::unwrap_used)]

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use heddle_xds::catalog::{Catalog, Place};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::Registry;
use super::super::testing::{People, answer, faults, filter, header, passes};
use crate::exchange::Exchange;

const SECRET: &str = "-secret-length-must-be-32-chars-";

fn sealed(head: &Value, content: &[u8], secret: &str, covers_header: bool) -> String {
    let head = URL_SAFE_NO_PAD.encode(head.to_string());
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret.as_bytes()).unwrap());
    let mut content = content.to_vec();
    let covered = if covers_header { head.as_bytes() } else { b"" };
    let seal =
        key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(*b"123456789012"), Aad::from(covered), &mut content).unwrap();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("{head}..{}.{}.{}", part(b"123456789012"), part(&content), part(seal.as_ref()))
}

fn head(kid: &str) -> Value {
    json!({"alg": "dir", "enc": "A256GCM", "kid": kid})
}

fn ask(fields: &[(&str, &str)]) -> Exchange {
    let people = People::default()
        .with("jack", "jwe-decrypt", json!({"key": "jacks-key", "secret": SECRET}))
        .with("rose", "jwe-decrypt", json!({"key": "roses-key", "secret": STANDARD.encode(SECRET), "is_base64_encoded": true}))
        .with("tom", "jwe-decrypt", json!({"key": "toms-key", "secret": "$env://TOM"}));
    people.ask("GET", "/", fields)
}

fn refused(value: &str) -> (u16, String) {
    let refusal = answer(filter("jwe-decrypt", &json!({})).rewrite(&mut ask(&[("Authorization", value)])));
    let body: Value = serde_json::from_slice(&refusal.body).unwrap();
    (refusal.head.status, body["message"].as_str().unwrap().to_owned())
}

#[test]
fn what_is_in_the_token_goes_on() {
    for (kid, covers_header, bearer) in [("jacks-key", true, true), ("jacks-key", false, false), ("roses-key", true, true)] {
        let token = sealed(&head(kid), b"hello", SECRET, covers_header);
        let value = if bearer { format!("Bearer {token}") } else { token };
        let mut x = ask(&[("Authorization", &value)]);
        assert!(passes(filter("jwe-decrypt", &json!({})).rewrite(&mut x)), "{kid}");
        assert_eq!(header(&x, "Authorization"), Some("hello"));
        assert!(x.consumer.is_none());
        let mut x = ask(&[("X-Token", &value), ("X-Plain", "forged")]);
        assert!(passes(filter("jwe-decrypt", &json!({"header": "X-Token", "forward_header": "X-Plain"})).rewrite(&mut x)));
        assert_eq!((header(&x, "X-Plain"), header(&x, "X-Token")), (Some("hello"), Some(&*value)));
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    let filter = |config: Value| filter("jwe-decrypt", &config);
    assert_eq!(answer(filter(json!({})).rewrite(&mut ask(&[]))).head.status, 403);
    let mut x = ask(&[("X-Plain", "forged")]);
    assert!(passes(filter(json!({"strict": false, "forward_header": "X-Plain"})).rewrite(&mut x)));
    assert_eq!(header(&x, "X-Plain"), None);
    assert_eq!(answer(filter(json!({"strict": false})).rewrite(&mut ask(&[("Authorization", "x")]))).head.status, 400);
    let right = sealed(&head("jacks-key"), b"hello", SECRET, true);
    for head in
        [json!({"alg": "dir"}), json!({"alg": "A256KW", "enc": "A256GCM"}), json!({"alg": "dir", "enc": "A256GCM", "zip": "DEF"})]
    {
        assert_eq!(refused(&sealed(&head, b"hello", SECRET, true)), (400, "JWE token invalid".to_owned()), "{head}");
    }
    for text in ["a", "a.b.c.d.e", &format!("{right}.x"), &right.replace("..", ".AA."), &"a".repeat(20_000)] {
        assert_eq!(refused(text), (400, "JWE token invalid".to_owned()));
    }
    let no_kid = sealed(&json!({"alg": "dir", "enc": "A256GCM"}), b"hello", SECRET, true);
    assert_eq!(refused(&no_kid).1, "missing kid in JWE token");
    assert_eq!(refused(&sealed(&head("nobody"), b"hello", SECRET, true)).1, "invalid kid in JWE token");
    for token in [
        sealed(&head("jacks-key"), b"hello", &SECRET.to_uppercase(), true),
        sealed(&head("jacks-key"), b"a\r\nb: c", SECRET, true),
        sealed(&head("toms-key"), b"hello", SECRET, true),
    ] {
        assert_eq!(refused(&token), (400, "failed to decrypt JWE token".to_owned()));
    }
}

#[test]
fn wrong_configurations_are_refused() {
    assert_eq!(faults("jwe-decrypt", &json!({"header": "a b", "forward_header": ""})), ["header", "forward_header"]);
    let paths = |value: Value| {
        let found = Registry::default().check("jwe-decrypt", Place::Consumer, &value).unwrap_err();
        found.into_iter().map(|fault| fault.path).collect::<Vec<_>>()
    };
    assert_eq!(paths(json!({"key": "", "secret": "short"})), ["key", "secret"]);
    assert_eq!(paths(json!({"key": "k", "secret": "*", "is_base64_encoded": true})), ["secret"]);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_fall(text in ".{0,80}", parts in prop::collection::vec("[A-Za-z0-9_-]{0,20}", 4)) {
        let _ = refused(if text.trim().is_empty() { "x" } else { &text });
        let _ = refused(&format!("{}.{}", URL_SAFE_NO_PAD.encode(head("jacks-key").to_string()), parts.join(".")));
    }
}
