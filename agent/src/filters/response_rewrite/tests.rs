//! Tests of `response-rewrite`.

#![allow(clippy::unwrap_used, clippy::panic)]

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::testing::{faults, filter, header, passes};
use super::super::{BodyEdit, Phases};
use crate::exchange::testing::request;
use crate::http::ResponseHead;

/// Head and body as the client gets them, of an upstream's 200 with this body.
fn rewritten(config: &Value, fields: &[(&str, &str)], body: &str) -> (ResponseHead, Bytes) {
    let filter = filter("response-rewrite", config);
    let mut x = request("GET", "h.example", "/?a=1", &[]);
    let mut head = ResponseHead::new(200);
    for (name, value) in fields {
        head.fields.append(name, value);
    }
    filter.response_head(&mut x, &mut head);
    let edit = if filter.phases().has(Phases::RESPONSE_BODY) { filter.response_body(&mut x, &mut head) } else { None };
    let body = Bytes::from(body.to_owned());
    let body = match edit {
        None => body,
        Some(BodyEdit::Replace(new)) => new,
        Some(BodyEdit::Buffer { edit, .. }) => edit(body).unwrap(),
        Some(BodyEdit::Stream(_)) => panic!("nothing here streams"),
    };
    (head, body)
}

#[test]
fn status_fields_and_body_are_replaced() {
    let config = json!({"status_code": 404, "body": "new", "headers": {"X-Host": "$host", "X-N": 1}});
    let (head, body) = rewritten(&config, &[("Content-Encoding", "gzip"), ("Content-Length", "3"), ("ETag", "x")], "old");
    assert_eq!((head.status, &body[..]), (404, &b"new"[..]));
    assert_eq!((head.fields.get_str("x-host"), head.fields.get_str("x-n")), (Some("h.example"), Some("1")));
    for gone in ["content-encoding", "content-length", "etag"] {
        assert_eq!(head.fields.get(gone), None, "{gone}");
    }
    assert_eq!(rewritten(&json!({"body": "AAE=", "body_base64": true}), &[], "old").1[..], [0, 1]);
    assert_eq!(rewritten(&json!({"body": ""}), &[], "old").1.len(), 0);
}

#[test]
fn fields_are_added_set_and_removed() {
    let config = json!({"headers": {"add": ["X-A: $arg_a", "X-A: c: d"], "set": {"X-S": "s"}, "remove": ["X-R"]}});
    let (head, body) = rewritten(&config, &[("X-A", "0"), ("x-r", "r"), ("X-S", "0")], "old");
    assert_eq!(head.fields.get_all("x-a").collect::<Vec<_>>(), [&b"0"[..], b"1", b"c: d"]);
    assert_eq!((head.fields.get_str("x-s"), head.fields.get("x-r"), &body[..]), (Some("s"), None, &b"old"[..]));
}

#[test]
fn filters_replace_in_the_body() {
    let one = |filter: Value| rewritten(&json!({"filters": [filter]}), &[], "Hello hello world").1;
    assert_eq!(one(json!({"regex": "hello", "replace": "bye"})), "Hello bye world");
    assert_eq!(one(json!({"regex": "hello", "replace": "bye", "scope": "global", "options": "ijo"})), "bye bye world");
    assert_eq!(one(json!({"regex": "(\\w+) (\\w+)", "replace": "${2}_$1 $$0"})), "hello_Hello $0 world");
    let two = json!({"filters": [{"regex": "world", "replace": "x"}, {"regex": "x", "replace": "y"}]});
    assert_eq!(rewritten(&two, &[], "world").1, "y");
    assert_eq!(rewritten(&two, &[("content-encoding", "br")], "world").1, "world");

    let filter = filter("response-rewrite", &two);
    let mut x = request("GET", "h", "/", &[("Accept-Encoding", "gzip")]);
    assert!(filter.phases().has(Phases::REWRITE) && passes(filter.rewrite(&mut x)));
    assert_eq!(header(&x, "accept-encoding"), None);
}

#[test]
fn a_condition_is_judged_by_the_upstreams_answer() {
    let config = |status: u16| json!({"status_code": 201, "body": "new", "vars": [["status", "==", status]]});
    let (head, body) = rewritten(&config(200), &[], "old");
    assert_eq!((head.status, &body[..]), (201, &b"new"[..]));
    let (head, body) = rewritten(&config(500), &[], "old");
    assert_eq!((head.status, &body[..]), (200, &b"old"[..]));
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({"status_code": 599}), "status_code"),
        (json!({"body": "x", "filters": [{"regex": "a", "replace": "b"}]}), ""),
        (json!({"body": "?", "body_base64": true}), "body"),
        (json!({"body_base64": true}), "body"),
        (json!({"headers": {"add": ["no colon"]}}), "headers.add[0]"),
        (json!({"vars": ["status", "==", 200]}), "vars"),
        (json!({"filters": []}), "filters"),
        (json!({"filters": [{"regex": "(", "replace": ""}]}), "filters[0].regex"),
        (json!({"filters": [{"regex": "a", "replace": "", "options": "q"}]}), "filters[0].regex"),
        (json!({"filters": [{"regex": "a", "replace": "", "scope": "some"}]}), "filters[0].scope"),
        (json!({"max_resp_body_size": 0}), "max_resp_body_size"),
    ] {
        assert_eq!(faults("response-rewrite", &config), [path], "{config}");
    }
}
