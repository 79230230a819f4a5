//! Tests of `echo`.

#![allow(clippy::unwrap_used, clippy::panic)]

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, header, passes};
use super::super::{BodyEdit, Phases};
use crate::exchange::testing::request;
use crate::http::ResponseHead;

/// Head and body as the client gets them.
fn echoed(config: &Value, fields: &[(&str, &str)], pieces: &[&'static str]) -> (ResponseHead, String) {
    let filter = filter("echo", config);
    let mut x = request("GET", "h.example", "/", &[]);
    let mut head = ResponseHead::new(200);
    fields.iter().for_each(|(name, value)| head.fields.append(name, value));
    if filter.phases().has(Phases::RESPONSE_HEAD) {
        filter.response_head(&mut x, &mut head);
    }
    let edit = if filter.phases().has(Phases::RESPONSE_BODY) { filter.response_body(&mut x, &mut head) } else { None };
    let body = match edit {
        None => pieces.concat(),
        Some(BodyEdit::Replace(body)) => String::from_utf8(body.to_vec()).unwrap(),
        Some(BodyEdit::Stream(mut edit)) => {
            let pieces = pieces.iter().map(|piece| Some(Bytes::from_static(piece.as_bytes()))).chain([None]);
            pieces.map(|piece| String::from_utf8(edit(piece).unwrap().to_vec()).unwrap()).collect()
        }
        Some(BodyEdit::Buffer { .. }) => panic!("nothing here waits for the whole body"),
    };
    (head, body)
}

#[test]
fn texts_stand_around_or_in_place_of_the_body() {
    for (config, pieces, expected) in [
        (json!({"before_body": "<", "after_body": ">"}), &["a", "b"][..], "<ab>"),
        (json!({"before_body": "<", "after_body": ">"}), &[], "<>"),
        (json!({"after_body": ">"}), &["a"], "a>"),
        (json!({"before_body": "<"}), &["a"], "<a"),
        (json!({"before_body": "<", "body": "new", "after_body": ">"}), &["a", "b"], "<new>"),
        (json!({"body": ""}), &["a"], ""),
        (json!({"headers": {"X-A": "1"}}), &["a"], "a"),
    ] {
        assert_eq!(echoed(&config, &[], pieces).1, expected, "{config}");
    }
}

#[test]
fn the_head_fits_the_new_body() {
    let old = [("Content-Length", "1"), ("ETag", "\"x\""), ("Content-Encoding", "gzip")];
    let (head, body) = echoed(&json!({"body": "b", "headers": {"X-H": "$host"}}), &old, &["a"]);
    assert_eq!((body.as_str(), head.fields.get_str("x-h"), head.fields.len()), ("b", Some("h.example"), 1));
    assert_eq!(echoed(&json!({"before_body": "<"}), &old, &["zip"]).1, "zip", "a compressed body is left alone");
    let mut x = request("GET", "h", "/", &[("Accept-Encoding", "gzip")]);
    assert!(passes(filter("echo", &json!({"before_body": "<"})).access(&mut x)));
    assert_eq!(header(&x, "accept-encoding"), None);
}

#[test]
fn who_does_not_know_the_value_is_refused() {
    let filter = filter("echo", &json!({"body": "b", "auth_value": "open sesame"}));
    assert!(passes(filter.access(&mut request("GET", "h", "/", &[("Authorization", "open sesame")]))));
    for fields in [&[][..], &[("Authorization", "open")]] {
        assert_eq!(answer(filter.access(&mut request("GET", "h", "/", fields))).head.status, 401);
    }
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({}), ""),
        (json!({"headers": {}}), "headers"),
        (json!({"headers": {"a b": "1"}}), "headers.a b"),
        (json!({"body": 1}), "body"),
    ] {
        assert_eq!(faults("echo", &config), [path], "{config}");
    }
}
