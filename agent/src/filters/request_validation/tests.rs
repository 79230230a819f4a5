//! Tests of `request-validation`.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, passes, settled};
use crate::exchange::Exchange;
use crate::exchange::testing::request;
use crate::http::Body;

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8");

fn post(fields: &[(&str, &str)], body: &str) -> Exchange {
    let mut x = request("POST", "h", "/", fields);
    x.body = Body::from(Bytes::copy_from_slice(body.as_bytes()));
    x
}

/// What goes upstream, or status and text of the refusal.
async fn judge(config: &Value, fields: &[(&str, &str)], body: &str) -> Result<String, (u16, String)> {
    let mut x = post(fields, body);
    let flow = filter("request-validation", config).rewrite(&mut x);
    let flow = settled(flow, &mut x).await;
    if passes_by(&flow) {
        let body = x.body.collect(1 << 20).await.unwrap();
        return Ok(String::from_utf8(body.to_vec()).unwrap());
    }
    let refusal = answer(flow);
    Err((refusal.head.status, String::from_utf8(refusal.body.to_vec()).unwrap()))
}

fn passes_by(flow: &super::super::Flow) -> bool {
    matches!(flow, super::super::Flow::Continue)
}

fn body_rule() -> Value {
    json!({"body_schema": {"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "minLength": 2}, "age": {"type": "integer"}
    }}})
}

#[tokio::test]
async fn a_json_body_that_fits_goes_on_as_it_is() {
    for body in [r#"{"name": "jack", "age": 12345}"#, r#"{ "name":"ja" ,"x": [1.50, 1e400]}"#] {
        let found = judge(&body_rule(), &[], body).await;
        // Numbers that nobody can read are no JSON for us.
        assert!(found.as_deref() == Ok(body) || body.contains("1e400"), "{found:?}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_the_reason() {
    for (body, expected) in [
        (r#"{"name": "j"}"#, "/name: value is shorter than 2 characters"),
        (r#"{"age": 1}"#, "\"name\" is a required property"),
        (r#"{"name": "jack", "age": "1"}"#, "/age: value is not of type \"integer\""),
        ("[]", "value is not of type \"object\""),
        (r#"{"name": "jack", "name": "x"}"#, "the same key twice in one object at line 1 column 23"),
        ("", "the request has no body"),
    ] {
        assert_eq!(judge(&body_rule(), &[], body).await, Err((400, expected.to_owned())), "{body}");
    }
    assert!(judge(&body_rule(), &[], "{").await.is_err());
    let mut config = body_rule();
    config["rejected_code"] = json!(422);
    config["rejected_msg"] = json!("no");
    assert_eq!(judge(&config, &[], "[]").await, Err((422, "no".to_owned())));
}

#[tokio::test]
async fn a_form_is_validated_as_an_object_of_texts() {
    assert_eq!(judge(&body_rule(), &[FORM], "name=jack&x=1").await.as_deref(), Ok("name=jack&x=1"));
    assert_eq!(judge(&body_rule(), &[FORM], "name=j").await.unwrap_err().1, "/name: value is shorter than 2 characters");
    assert_eq!(judge(&body_rule(), &[FORM], "name=jack&age=1").await.unwrap_err().1, "/age: value is not of type \"integer\"");
}

/// Read as a form it fits; an upstream that believes the other type reads something that nobody has looked at.
#[tokio::test]
async fn a_body_of_two_types_is_refused() {
    let body = r#"{"a":"&name=jack&b="}"#;
    assert!(judge(&body_rule(), &[FORM], body).await.is_ok());
    for types in [[FORM, ("Content-Type", "application/json")], [("content-type", "application/json"), FORM]] {
        let refused = judge(&body_rule(), &types, body).await.unwrap_err();
        assert_eq!(refused, (400, "the request has more than one Content-Type".to_owned()));
    }
}

#[tokio::test]
async fn defaults_go_upstream() {
    let config = json!({"body_schema": {"properties": {"size": {"type": "integer", "default": 10}}, "required": ["size"]}});
    assert_eq!(judge(&config, &[], r#"{"a": 1}"#).await.as_deref(), Ok(r#"{"a":1,"size":10}"#));
    assert_eq!(judge(&config, &[], r#"{ "size": 2}"#).await.as_deref(), Ok(r#"{ "size": 2}"#));
}

#[tokio::test]
async fn a_body_is_read_up_to_a_limit() {
    let mut config = body_rule();
    config["max_req_body_size"] = json!(16);
    assert!(judge(&config, &[], r#"{"name": "jack"}"#).await.is_ok());
    assert_eq!(judge(&config, &[], r#"{"name": "jack" }"#).await.unwrap_err().0, 413);
}

#[tokio::test]
async fn a_header_is_validated_by_its_names_in_any_case() {
    let config = json!({"header_schema": {"type": "object", "required": ["Content-Type", "X-Tag"], "properties": {
        "Content-Type": {"pattern": "^application/json$"}, "X-Tag": {"enum": ["a", "b"]}
    }}});
    let good = [("content-type", "application/json"), ("x-tag", "a")];
    assert!(judge(&config, &good, "not json").await.is_ok());
    let (status, text) = judge(&config, &[("CONTENT-TYPE", "text/plain"), ("x-tag", "a")], "").await.unwrap_err();
    assert_eq!(status, 400);
    assert!(text.starts_with("/Content-Type: "), "{text}");
    assert!(judge(&config, &[("content-type", "application/json")], "").await.unwrap_err().1.contains("X-Tag"));
    assert!(judge(&config, &[good[0], good[1], ("X-Tag", "b")], "").await.is_err());
}

#[test]
fn without_a_body_schema_no_body_is_read() {
    let config = json!({"header_schema": {"type": "object"}});
    assert!(passes(filter("request-validation", &config).rewrite(&mut post(&[], "x"))));
}

#[test]
fn mistakes_are_refused() {
    assert_eq!(faults("request-validation", &json!({})), [""]);
    assert_eq!(
        faults("request-validation", &json!({"body_schema": {"type": "x"}, "header_schema": {"$ref": "http://x/"}})),
        ["header_schema", "body_schema"]
    );
    let config = json!({"body_schema": {}, "rejected_code": 99, "rejected_msg": "", "max_req_body_size": 0});
    assert_eq!(faults("request-validation", &config), ["rejected_code", "rejected_msg", "max_req_body_size"]);
}
