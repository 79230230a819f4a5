//! Tests of `key-auth`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use heddle_xds::catalog::{Catalog, Place};
use serde_json::{Value, json};

use super::super::Registry;
use super::super::testing::{answer, faults, filter, header, passes};
use crate::exchange::testing::{NOW_MS, at, consumer};
use crate::exchange::{ConsumerInfo, Directory, Exchange};

struct People(BTreeMap<&'static str, Arc<ConsumerInfo>>);

impl Directory for People {
    fn find_credential(&self, plugin: &str, value: &[u8]) -> Option<Arc<ConsumerInfo>> {
        assert_eq!(plugin, "key-auth");
        self.0.get(std::str::from_utf8(value).ok()?).cloned()
    }

    fn consumer(&self, username: &str) -> Option<Arc<ConsumerInfo>> {
        self.0.values().find(|consumer| &*consumer.username == username).cloned()
    }
}

fn ask(target: &str, fields: &[(&str, &str)]) -> Exchange {
    let guest = ConsumerInfo::new("guest".into(), "".into(), "".into(), BTreeMap::new(), false);
    let people = BTreeMap::from([("k 1", Arc::new(consumer("jack"))), ("unused", Arc::new(guest))]);
    at(NOW_MS, "GET", "h", target, fields, Rc::new(People(people)))
}

fn refused(config: &Value, target: &str, fields: &[(&str, &str)]) -> (u16, String, String) {
    let refusal = answer(filter("key-auth", config).rewrite(&mut ask(target, fields)));
    let challenge = refusal.head.fields.get_str("www-authenticate").unwrap().to_owned();
    (refusal.head.status, String::from_utf8(refusal.body.to_vec()).unwrap(), challenge)
}

#[test]
fn a_key_in_header_or_query_identifies() {
    let filter = filter("key-auth", &json!({}));
    for (target, fields) in [("/", &[("ApiKey", "k 1")][..]), ("/?a=1&apikey=k%201", &[]), ("/?apikey=k+1", &[])] {
        let mut x = ask(target, fields);
        x.request.fields.append("X-Consumer-Username", "forged");
        assert!(passes(filter.rewrite(&mut x)), "{target}");
        assert_eq!(&*x.consumer.as_ref().unwrap().username, "jack");
        assert_eq!(x.request.fields.get_all("x-consumer-username").collect::<Vec<_>>(), [b"jack"]);
        assert_eq!(header(&x, "X-Credential-Identifier"), Some("c1"));
        assert_eq!(header(&x, "X-Consumer-Custom-ID"), Some("42"));
    }
}

#[test]
fn the_header_goes_before_the_query() {
    let (_, body, _) = refused(&json!({}), "/?apikey=k%201", &[("apikey", "wrong")]);
    assert_eq!(body, "{\"message\":\"Invalid API key in request\"}\n");
}

#[test]
fn refusals_say_what_is_missing_and_challenge() {
    let missing = (401, "{\"message\":\"Missing API key in request\"}\n".to_owned(), "apikey realm=\"key\"".to_owned());
    assert_eq!(refused(&json!({}), "/", &[]), missing);
    let invalid = (401, "{\"message\":\"Invalid API key in request\"}\n".to_owned(), "apikey realm=\"shop\"".to_owned());
    assert_eq!(refused(&json!({"realm": "shop"}), "/?apikey=x", &[]), invalid);
    assert_eq!(refused(&json!({"anonymous_consumer": "nobody"}), "/", &[]), missing);
}

#[test]
fn credentials_are_hidden_on_demand() {
    let hide = filter("key-auth", &json!({"hide_credentials": true, "header": "X-Key", "query": "k"}));
    let mut x = ask("/?a=1&k=k%201&b", &[]);
    assert!(passes(hide.rewrite(&mut x)));
    assert_eq!(x.request.query.as_deref(), Some("a=1&b"));
    let mut x = ask("/?k=k%201", &[]);
    assert!(passes(hide.rewrite(&mut x)));
    assert_eq!(x.request.query, None);
    let mut x = ask("/", &[("x-key", "k 1")]);
    assert!(passes(hide.rewrite(&mut x)));
    assert_eq!(header(&x, "x-key"), None);
    let mut x = ask("/", &[("apikey", "k 1")]);
    assert!(passes(filter("key-auth", &json!({})).rewrite(&mut x)));
    assert_eq!(header(&x, "apikey"), Some("k 1"));
}

#[test]
fn those_who_prove_nothing_may_be_somebody() {
    let filter = filter("key-auth", &json!({"anonymous_consumer": "guest"}));
    for fields in [&[][..], &[("apikey", "wrong"), ("X-Credential-Identifier", "forged"), ("x-consumer-custom-id", "forged")]] {
        let mut x = ask("/", fields);
        assert!(passes(filter.rewrite(&mut x)));
        assert_eq!(header(&x, "X-Consumer-Username"), Some("guest"));
        assert_eq!((header(&x, "X-Credential-Identifier"), header(&x, "X-Consumer-Custom-ID")), (None, None));
    }
}

#[test]
fn each_place_has_its_own_schema_and_check() {
    let registry = Registry::default();
    assert!(registry.check("key-auth", Place::Consumer, &json!({"key": "$env://KEY"})).is_ok());
    assert_eq!(registry.check("key-auth", Place::Consumer, &json!({})).unwrap_err()[0].message, "property \"key\" is required");
    assert!(registry.check("key-auth", Place::Consumer, &json!({"key": ""})).is_err());
    assert!(registry.check("key-auth", Place::Metadata, &json!({})).is_err());
    assert!(registry.schema("key-auth", Place::Consumer).unwrap()["properties"]["key"].is_object());
    assert!(registry.schema("key-auth", Place::Metadata).is_none());
    let config = json!({"header": "a b", "query": "", "realm": "\"", "anonymous_consumer": ""});
    assert_eq!(faults("key-auth", &config), ["header", "query", "realm", "anonymous_consumer"]);
}
