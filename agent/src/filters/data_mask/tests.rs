//! Tests of `data-mask`.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::testing::{faults, filter, header};
use crate::exchange::testing::request;
use crate::exchange::{Exchange, Variable};
use crate::http::Body;

fn masked(config: Value, x: &mut Exchange) {
    let config = if config.is_array() { json!({"request": config}) } else { config };
    filter("data-mask", &config).redact(x);
}

async fn posted(kind: &str, body: &str) -> Exchange {
    let mut x = request("POST", "h", "/", &[("Content-Type", kind)]);
    x.body = Body::from(Bytes::copy_from_slice(body.as_bytes()));
    x.keep_content().await.unwrap();
    x
}

fn value(x: &Exchange, name: &str) -> String {
    Variable::new(name).get(x).unwrap_or_default().into_owned()
}

#[test]
fn arguments_are_removed_replaced_and_rewritten() {
    for (rule, expected) in [
        (json!({"action": "remove"}), "/?a=1&c"),
        (json!({"action": "replace", "value": "* *"}), "/?a=1&to%6ben=%2A%20%2A&token=%2A%20%2A&c"),
        (json!({"action": "regex", "regex": "^(..).*$", "value": "$1-"}), "/?a=1&to%6ben=se%2D&token=se%2D&c"),
    ] {
        let mut x = request("GET", "h", "/?a=1&to%6ben=secret&token=se%63ond&c", &[]);
        let mut rule = rule.clone();
        rule["type"] = json!("query");
        rule["name"] = json!("token");
        masked(json!([rule]), &mut x);
        assert_eq!((value(&x, "request_uri").as_str(), value(&x, "upstream_uri").as_str()), (expected, expected));
    }
    let mut x = request("GET", "h", "/?token=1", &[]);
    masked(json!([{"type": "query", "name": "token", "action": "remove"}]), &mut x);
    assert_eq!(value(&x, "request_uri"), "/");
}

#[test]
fn fields_are_removed_replaced_and_rewritten() {
    let fields =
        [("Authorization", "Basic abc"), ("X-Card", "1234-5678"), ("x-card", "none"), ("Cookie", "a=b"), ("X-Free", "1")];
    let mut x = request("GET", "secret.example", "/", &fields);
    masked(
        json!([
            {"type": "header", "name": "authorization", "action": "replace", "value": "***"},
            {"type": "header", "name": "X-Card", "action": "regex", "regex": "[0-9]+-", "value": "****-"},
            {"type": "header", "name": "Cookie", "action": "remove"},
            {"type": "header", "name": "Host", "action": "regex", "regex": "^secret", "value": "x"},
            {"type": "header", "name": "X-None", "action": "replace", "value": "x"},
        ]),
        &mut x,
    );
    assert_eq!(header(&x, "Authorization"), Some("***"));
    assert_eq!(value(&x, "http_x_card"), "****-5678, none");
    assert_eq!((header(&x, "Cookie"), header(&x, "X-None"), header(&x, "X-Free")), (None, None, Some("1")));
    assert_eq!(value(&x, "host"), "x.example");
}

#[tokio::test]
async fn bodies_that_variables_show_are_masked() {
    let mut x =
        posted("application/json", r#"{"user": {"mail": "a@b", "pin": 1234}, "cards": [{"n": "1-2"}, {"n": "3-4"}], "q": "x"}"#)
            .await;
    masked(
        json!([
            {"type": "body", "body_format": "json", "name": "$.user.mail", "action": "replace", "value": "***"},
            {"type": "body", "body_format": "json", "name": "$.user.pin", "action": "regex", "regex": "[0-9]", "value": "#"},
            {"type": "body", "body_format": "json", "name": "$.cards[*].n", "action": "remove"},
            {"type": "body", "body_format": "urlencoded", "name": "q", "action": "remove"},
        ]),
        &mut x,
    );
    assert_eq!((value(&x, "post_arg.user.mail").as_str(), value(&x, "post_arg.user.pin").as_str()), ("***", "####"));
    assert_eq!((value(&x, "post_arg.cards").as_str(), value(&x, "post_arg.q").as_str()), ("[{},{}]", "x"));
    let mut x = posted("application/x-www-form-urlencoded", "pin=1&pin=2&mail=a&keep=1").await;
    masked(
        json!([
            {"type": "body", "body_format": "urlencoded", "name": "pin", "action": "replace", "value": "*"},
            {"type": "body", "body_format": "urlencoded", "name": "mail", "action": "remove"},
        ]),
        &mut x,
    );
    assert_eq!((value(&x, "post_arg.pin").as_str(), value(&x, "post_arg_mail").as_str()), ("[\"*\",\"*\"]", ""));
    assert_eq!(value(&x, "post_arg_keep"), "1");
}

#[tokio::test]
async fn of_what_is_too_large_to_be_masked_nothing_is_shown() {
    let rule = json!({"type": "body", "body_format": "urlencoded", "name": "a", "action": "remove"});
    for (config, shown) in [
        (json!({"request": [rule], "max_body_size": 7}), "2"),
        (json!({"request": [rule], "max_body_size": 6}), ""),
        (json!({"request": [rule], "max_req_post_args": 2}), "2"),
        (json!({"request": [rule], "max_req_post_args": 1}), ""),
    ] {
        let mut x = posted("application/x-www-form-urlencoded", "a=1&b=2").await;
        masked(config, &mut x);
        assert_eq!(value(&x, "post_arg_b"), shown);
    }
    masked(json!([rule]), &mut request("GET", "h", "/", &[]));
}

#[test]
fn mistakes_are_refused() {
    assert_eq!(faults("data-mask", &json!({})), [""]);
    assert_eq!(
        faults("data-mask", &json!({"request": [], "max_body_size": 0, "max_req_post_args": 0})),
        ["request", "max_body_size", "max_req_post_args"]
    );
    let rules = json!({"request": [
        {"type": "header", "name": "a b", "action": "remove"},
        {"type": "query", "name": "", "action": "replace"},
        {"type": "body", "name": "a", "action": "remove"},
        {"type": "body", "name": "$.a[", "body_format": "json", "action": "remove"},
        {"type": "query", "name": "a", "action": "regex", "value": ""},
        {"type": "query", "name": "a", "action": "regex", "regex": "(", "value": ""},
    ]});
    assert_eq!(
        faults("data-mask", &rules),
        ["request[0].name", "request[1].name", "request[1]", "request[2]", "request[3].name", "request[4]", "request[5].regex"]
    );
    assert_eq!(
        faults("data-mask", &json!({"request": [{"type": "cookie", "name": "a", "action": "remove"}]})),
        ["request[0].type"]
    );
}
