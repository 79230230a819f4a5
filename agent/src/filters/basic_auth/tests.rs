//! Tests of `basic-auth`.

#![allow(clippy::unwrap_used)]

use heddle_xds::catalog::{Catalog, Place};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::Registry;
use super::super::testing::{People, answer, faults, filter, header, passes, settled};
use crate::exchange::Exchange;

/// The password of all of them is `open sesame`.
fn people() -> People {
    let credential = |name: &str, password: &str| json!({ "username": name, "password": password });
    People::default()
        .with("jack", "basic-auth", credential("jack", "open sesame"))
        .with("colon", "basic-auth", credential("colon", "a:b"))
        .with("sha", "basic-auth", credential("sha", "{SHA}W8r/fyL/UzygmbNAjq2HbA67qac="))
        .with("apr", "basic-auth", credential("apr", "$apr1$7fK2mQ1x$4vghRVLueL5tVu8FyyvyD0"))
        .with("blow", "basic-auth", credential("blow", "$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW"))
        .and("guest")
}

fn ask(authorization: Option<&str>) -> Exchange {
    let fields: Vec<_> = authorization.map(|value| ("Authorization", value)).into_iter().collect();
    people().ask("GET", "/", &fields)
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

async fn refused(config: &Value, authorization: Option<&str>) -> (u16, String, String) {
    let mut x = ask(authorization);
    let flow = filter("basic-auth", config).rewrite(&mut x);
    let refusal = answer(settled(flow, &mut x).await);
    let challenge = refusal.head.fields.get_str("www-authenticate").unwrap().to_owned();
    (refusal.head.status, String::from_utf8(refusal.body.to_vec()).unwrap(), challenge)
}

#[tokio::test]
async fn every_kind_of_password_identifies() {
    let filter = filter("basic-auth", &json!({}));
    for (user, password) in
        [("jack", "open sesame"), ("colon", "a:b"), ("sha", "open sesame"), ("apr", "open sesame"), ("blow", "open sesame")]
    {
        // The second time what was right is remembered.
        for _ in 0..2 {
            let mut x = ask(Some(&basic(user, password)));
            let flow = filter.rewrite(&mut x);
            assert!(passes(settled(flow, &mut x).await), "{user}");
            assert_eq!(header(&x, "X-Consumer-Username"), Some(user));
            assert!(header(&x, "Authorization").is_some());
        }
        let mut x = ask(Some(&basic(user, password)));
        assert!(passes(filter.rewrite(&mut x)), "{user} is remembered");
        let mut x = ask(Some(&basic(user, "wrong")));
        let flow = filter.rewrite(&mut x);
        assert_eq!(answer(settled(flow, &mut x).await).head.status, 401);
    }
}

#[tokio::test]
async fn refusals_say_what_is_missing_and_challenge() {
    let missing = (401, "{\"message\":\"Missing authorization in request\"}\n".to_owned(), "Basic realm=\"basic\"".to_owned());
    assert_eq!(refused(&json!({}), None).await, missing);
    let invalid = (401, "{\"message\":\"Invalid user authorization\"}\n".to_owned(), "Basic realm=\"shop\"".to_owned());
    let config = json!({"realm": "shop"});
    let long = basic("jack", &"x".repeat(2_000));
    for value in
        [&basic("jack", ""), &basic("nobody", "open sesame"), "Basic", "Basic *", "Bearer x", "Basic bm9jb2xvbg==", &long]
    {
        assert_eq!(refused(&config, Some(value)).await, invalid, "{value}");
    }
}

#[tokio::test]
async fn credentials_are_hidden_on_demand() {
    let hide = filter("basic-auth", &json!({"hide_credentials": true}));
    for user in ["jack", "apr"] {
        let mut x = ask(Some(&basic(user, "open sesame")));
        let flow = hide.rewrite(&mut x);
        assert!(passes(settled(flow, &mut x).await));
        assert_eq!(header(&x, "Authorization"), None);
    }
}

#[tokio::test]
async fn those_who_prove_nothing_may_be_somebody() {
    let filter = filter("basic-auth", &json!({"anonymous_consumer": "guest"}));
    for value in [None, Some(basic("jack", "wrong")), Some(basic("blow", "wrong")), Some("nonsense".to_owned())] {
        let mut x = ask(value.as_deref());
        let flow = filter.rewrite(&mut x);
        assert!(passes(settled(flow, &mut x).await));
        assert_eq!(header(&x, "X-Consumer-Username"), Some("guest"));
    }
    assert_eq!(refused(&json!({"anonymous_consumer": "nobody"}), None).await.0, 401);
}

#[test]
fn wrong_configurations_are_refused() {
    assert_eq!(faults("basic-auth", &json!({"realm": "\"", "anonymous_consumer": ""})), ["realm", "anonymous_consumer"]);
    let registry = Registry::default();
    let paths = |value: Value| {
        let found = registry.check("basic-auth", Place::Consumer, &value).unwrap_err();
        found.into_iter().map(|fault| fault.path).collect::<Vec<_>>()
    };
    assert_eq!(paths(json!({"username": "a:b", "password": "$apr1$x"})), ["username", "password"]);
    assert_eq!(paths(json!({"username": "", "password": ""})), ["username", "password"]);
    assert!(registry.check("basic-auth", Place::Consumer, &json!({"username": "a", "password": "$env://X"})).is_ok());
}

proptest! {
    #[test]
    fn no_header_makes_the_parser_fall(value in ".{0,80}", known in any::<bool>()) {
        let value = if known { basic("jack", &value) } else { format!("Basic {value}") };
        let mut x = ask(Some(&value));
        let _ = filter("basic-auth", &json!({})).rewrite(&mut x);
    }
}
