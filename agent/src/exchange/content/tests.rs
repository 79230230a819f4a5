//! Tests of what bodies say.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::exchange::testing::request;
use crate::exchange::{Expr, Template, Variable};
use crate::http::Body;

/// A request whose body has been kept.
async fn posted(kind: &str, body: &str) -> Exchange {
    let mut x = request("POST", "h", "/", &[("Content-Type", kind)]);
    x.body = Body::from(Bytes::copy_from_slice(body.as_bytes()));
    x.keep_content().await.unwrap();
    x
}

fn holds(expr: Value, x: &Exchange) -> bool {
    let expr = Expr::compile(&expr).unwrap();
    assert!(expr.wants_content());
    expr.matches(x)
}

fn value(name: &str, x: &Exchange) -> Option<String> {
    Variable::new(name).get(x).map(|text| text.into_owned())
}

#[tokio::test]
async fn arguments_of_a_form_are_variables() {
    let x = posted("application/x-www-form-urlencoded; charset=utf-8", "a=1&b=x+y%21&a=2&c").await;
    assert_eq!(value("post_arg_a", &x).as_deref(), Some("1"));
    assert_eq!(value("post_arg_b", &x).as_deref(), Some("x y!"));
    assert_eq!(value("post_arg.b", &x).as_deref(), Some("x y!"));
    assert_eq!(value("post_arg_d", &x), None);
    assert!(holds(json!([["post_arg_a", "has", "2"]]), &x));
    assert!(holds(json!([["post_arg_c", "==", true]]), &x));
    assert_eq!(x.body.collect(100).await.unwrap(), "a=1&b=x+y%21&a=2&c", "it still goes upstream");
}

#[tokio::test]
async fn places_in_a_json_document_are_variables() {
    let x = posted(
        "application/vnd.x+json",
        r#"{"model": "gpt", "n": 3, "on": false, "none": null, "list": [{"role": "user"}, {"role": "system"}], "o": {"p": 1.5}}"#,
    )
    .await;
    for (name, expected) in [
        ("post_arg.model", Some("gpt")),
        ("post_arg.n", Some("3")),
        ("post_arg.on", Some("false")),
        ("post_arg.none", None),
        ("post_arg.o.p", Some("1.5")),
        ("post_arg.o", Some("{\"p\":1.5}")),
        ("post_arg.list[1].role", Some("[\"system\"]")),
        ("post_arg.list[*].role", Some("[\"user\",\"system\"]")),
        ("post_arg..role", None),
        ("post_arg.list..role", Some("[\"user\",\"system\"]")),
        ("post_arg.list[9].role", None),
        ("post_arg_model", None),
    ] {
        assert_eq!(value(name, &x).as_deref(), expected, "{name}");
    }
    assert!(holds(json!([["post_arg.n", ">", 2], ["post_arg.on", "==", false], ["post_arg.list[*].role", "has", "system"]]), &x));
    assert!(!holds(json!([["post_arg.model", "==", "x"]]), &x) && holds(json!([["post_arg.none", "==", null]]), &x));
    let rendered = Template::new("$post_arg.model. ${post_arg.list[0].role} $post_arg.o.p").render(&x);
    assert_eq!(rendered, "gpt. [\"user\"] 1.5");
}

#[tokio::test]
async fn parts_of_a_multipart_body_are_variables() {
    let body = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\ntwo\r\n--x\r\ncontent-disposition: form-data; name=file; filename=\"f\"\r\n\r\nsecret\r\n--x--\r\n";
    let x = posted("multipart/form-data; boundary=x", body).await;
    assert_eq!(value("post_arg.a", &x).as_deref(), Some("one\r\ntwo"));
    assert_eq!(value("post_arg.file", &x), None);
}

#[tokio::test]
async fn a_graphql_operation_is_told() {
    let query = "# c\nfragment F on X { y } query Q($v: [Int!] = [1, 2]) @d(a: \"}\") { a: one(x: {b: \"\\\"}\"}) { in } two @skip(if: true) ...F ... on T { z } three }";
    let body = json!({"query": query}).to_string();
    for x in [posted("application/json", &body).await, posted("application/graphql", query).await] {
        assert_eq!(value("graphql_name", &x).as_deref(), Some("Q"));
        assert_eq!(value("graphql_operation", &x).as_deref(), Some("query"));
        assert_eq!(value("graphql_root_fields", &x).as_deref(), Some("[\"one\",\"two\",\"three\"]"));
        assert!(holds(json!([["graphql_root_fields", "has", "three"], ["graphql_operation", "==", "query"]]), &x));
    }
    let mut x = request("GET", "h", "/?query=mutation+%7B+pay+%7D", &[]);
    x.keep_content().await.unwrap();
    assert_eq!((value("graphql_operation", &x).as_deref(), value("graphql_name", &x).as_deref()), (Some("mutation"), Some("")));
    assert_eq!(value("graphql_name", &posted("application/json", "{}").await), None);
}

#[tokio::test]
async fn other_bodies_are_not_read_and_long_ones_refused() {
    let mut x = request("POST", "h", "/", &[("Content-Type", "image/png")]);
    x.body = Body::from(Bytes::from(vec![0; LIMIT as usize + 1]));
    assert_eq!(x.keep_content().await, Ok(()));
    assert_eq!(x.body.remaining(), Some(LIMIT + 1));
    let mut x = request("POST", "h", "/", &[("Content-Type", "application/json")]);
    x.body = Body::from(Bytes::from(vec![b' '; LIMIT as usize + 1]));
    assert_eq!(x.keep_content().await, Err(Reason::BodyTooLarge));
}

#[test]
fn a_configuration_tells_whether_it_looks_at_bodies() {
    for (config, expected) in [
        (json!({"key": "post_arg_user"}), true),
        (json!({"key": "$remote_addr ${post_arg.user.id}"}), true),
        (json!({"_meta": {"filter": [["OR", ["graphql_name", "==", "x"], ["arg_a", "==", "b"]]]}}), true),
        (json!({"key": "$arg_a post_arg_x", "graphql_name": 1, "x": "graphql_names", "y": "$graphql_namespace"}), false),
    ] {
        assert_eq!(is_mentioned(&config), expected, "{config}");
    }
}

#[test]
fn paths_are_strict() {
    for bad in ["", ".", "a.", ".a", "a...b", "a[", "a[x]", "a[?(@.b)]", "a[-1]", "a[0]b"] {
        assert_eq!(JsonPath::parse(bad), None, "{bad}");
    }
    assert!(JsonPath::parse("a['b.c'][0].*").is_some());
}

#[test]
fn places_are_edited_and_taken_out() {
    let path = |text: &str| JsonPath::parse(text).unwrap();
    let mut document = json!({"a": [{"k": 1}, {"k": 2}, {"l": 3}], "k": 4});
    assert!(path("..k").edit(&mut document, &mut |value| {
        *value = json!(format!("<{value}>"));
        true
    }));
    assert_eq!(document, json!({"a": [{"k": "<1>"}, {"k": "<2>"}, {"l": 3}], "k": "<4>"}));
    assert!(path("a[*].k").edit(&mut document, &mut |value| *value != json!("<2>")));
    assert!(path("a[2]").edit(&mut document, &mut |_| false));
    assert!(!path("b.c").edit(&mut document, &mut |_| false));
    assert_eq!(document, json!({"a": [{"k": "<1>"}, {}], "k": "<4>"}));
}

proptest! {
    #[test]
    fn nothing_is_too_odd_to_be_read(bytes: Vec<u8>, text in "[-{}()\\[\\]\"a:@.,#\\\\ \n]{0,40}") {
        let _ = (form(&bytes), multipart::parse(&bytes), multipart::parse(format!("--{text}\r\n\r\n\r\n--").as_bytes()));
        let _ = (Operation::parse(&text), Operation::parse(&format!("query {{ {text} }}")));
        if let Some(path) = JsonPath::parse(&text) {
            let found = path.find(&json!({"a": [1]})).len();
            prop_assert!(found <= 1_000);
        }
    }

    #[test]
    fn fields_are_found_whatever_stands_between(names in prop::collection::vec("[a-z]{2,5}", 1..5), noise in "[ \t\n,]{1,4}") {
        let text = format!("{{{noise}{}{noise}}}", names.iter().map(|name| format!("x:{name}(a: \"}}\"){{ y }}")).collect::<Vec<_>>().join(&noise));
        prop_assert_eq!(Operation::parse(&text).unwrap().root_fields, names);
    }
}
