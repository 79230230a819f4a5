//! Tests of `request-id`.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::testing::{faults, filter, header, passes};
use crate::exchange::testing::{get, request};
use crate::exchange::{Exchange, Variable};
use crate::http::ResponseHead;

fn made(config: &Value) -> (Exchange, ResponseHead) {
    let filter = filter("request-id", config);
    let mut x = get("h", "/");
    assert!(passes(filter.rewrite(&mut x)));
    let mut head = ResponseHead::new(200);
    if filter.phases().has(super::super::Phases::RESPONSE_HEAD) {
        filter.response_head(&mut x, &mut head);
    }
    (x, head)
}

#[test]
fn every_algorithm_has_its_form() {
    for (config, form) in [
        (json!({}), "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"),
        (json!({"algorithm": "uuidv7"}), "^018bcfe5-6800-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"),
        (json!({"algorithm": "nanoid"}), "^[A-Za-z0-9_-]{21}$"),
        (json!({"algorithm": "ksuid"}), "^[A-Za-z0-9]{27}$"),
        (json!({"algorithm": "range_id"}), "^[A-Za-z0-9]{16}$"),
        (json!({"algorithm": "range_id", "range_id": {"length": 8, "char_set": "abcdef"}}), "^[a-f]{8}$"),
    ] {
        let (x, head) = made(&config);
        let id = header(&x, "x-request-id").unwrap();
        assert!(regex::Regex::new(form).unwrap().is_match(id), "{config}: {id}");
        assert_eq!(head.fields.get_str("X-Request-Id"), Some(id));
    }
}

#[test]
fn a_clients_id_is_kept_and_the_header_may_be_another() {
    let filter = filter("request-id", &json!({"header_name": "X-Trace"}));
    let mut x = request("GET", "h", "/", &[("x-trace", "mine")]);
    assert!(passes(filter.rewrite(&mut x)));
    assert_eq!(header(&x, "X-Trace"), Some("mine"));
    assert_eq!(Variable::new("request_id").get(&x).unwrap(), "mine");
}

#[test]
fn the_response_may_go_without() {
    let (x, head) = made(&json!({"include_in_response": false}));
    assert!(header(&x, "x-request-id").is_some() && head.fields.is_empty());
}

#[test]
fn mistakes_are_refused() {
    assert_eq!(faults("request-id", &json!({"header_name": "a b"})), ["header_name"]);
    assert_eq!(faults("request-id", &json!({"algorithm": "snowflake"})), ["algorithm"]);
    let range = json!({"range_id": {"length": 5, "char_set": "abc"}});
    assert_eq!(faults("request-id", &range), ["range_id.length", "range_id.char_set"]);
}
