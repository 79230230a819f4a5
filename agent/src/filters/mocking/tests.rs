//! Tests of `mocking`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::Flow;
use super::super::testing::{answer, faults, filter, settled};
use crate::exchange::Answer;
use crate::exchange::testing::request;

fn mocked(config: &Value, method: &str, target: &str) -> Box<Answer> {
    answer(filter("mocking", config).access(&mut request(method, "h.example", target, &[])))
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

#[test]
fn examples_are_given_with_variables() {
    let config = json!({"response_example": "{\"a\": \"$arg_a\"}", "response_status": 201, "response_headers": {"X-N": 1, "X-H": "$host"}});
    let given = mocked(&config, "GET", "/?a=b");
    assert_eq!((given.head.status, text(&given)), (201, "{\"a\": \"b\"}"));
    for (name, value) in
        [("content-type", "application/json;charset=utf8"), ("x-mock-by", "Heddle"), ("x-n", "1"), ("x-h", "h.example")]
    {
        assert_eq!(given.head.fields.get_str(name), Some(value), "{name}");
    }
    let plain = mocked(&json!({"response_example": "x", "content_type": "text/plain", "with_mock_header": false}), "GET", "/");
    assert_eq!((plain.head.fields.len(), plain.head.fields.get_str("content-type"), text(&plain)), (1, Some("text/plain"), "x"));
    let bare = mocked(&json!({"response_example": "", "content_type": "", "with_mock_header": false}), "GET", "/");
    assert_eq!((bare.head.fields.len(), text(&bare)), (0, ""));
}

#[test]
fn schemas_give_values() {
    let schema = json!({"type": "object", "properties": {"id": {"type": "integer", "minimum": 7}, "n": {"type": "string", "example": "<x>"}}});
    assert_eq!(text(&mocked(&json!({"response_schema": schema}), "GET", "/")), "{\"id\":7,\"n\":\"<x>\"}");
    let xml = mocked(&json!({"response_schema": schema, "content_type": "text/xml"}), "GET", "/");
    assert_eq!(text(&xml), "<data><id>7</id><n>&lt;x&gt;</n></data>");
}

#[tokio::test(start_paused = true)]
async fn answers_may_take_their_time() {
    let x = &mut request("GET", "h", "/", &[]);
    let begun = heddle_node::clock::now();
    match settled(filter("mocking", &json!({"response_example": "x", "delay": 1.5})).access(x), x).await {
        Flow::Answer(given) => assert_eq!(text(&given), "x"),
        _ => panic!("no answer"),
    }
    assert_eq!(heddle_node::clock::now().duration_since(begun), Duration::from_millis(1500));
}

fn document() -> Value {
    let pet = json!({"$ref": "#/components/schemas/Pet"});
    json!({
        "openapi": "3.1.0",
        "servers": [{"url": "https://api.example/v1/"}, {"url": "/v2"}, {"url": "https://{region}.example"}],
        "paths": {
            "/pets": {
                "get": {"responses": {"200": {"description": "all", "headers": {"X-Total": {"schema": {"type": "integer", "example": 3}}},
                    "content": {"text/plain": {"example": "no"}, "application/json": {"schema": {"type": "array", "items": pet}}}}}},
                "post": {"responses": {"default": {"description": "d"}, "422": {"description": "bad"}, "201": {"$ref": "#/components/responses/Made"}}},
            },
            "/pets/mine": {"get": {"responses": {"200": {"content": {"application/xml": {"schema": pet}}}}}},
            "/pets/{id}": {"get": {"responses": {"404": {"content": {"application/json": {"example": {"gone": true}}}},
                "200": {"content": {"application/json": {"examples": {"a": {"value": {"name": "Rex"}}}}}}}}},
            "/files/{name}.txt": {"get": {"responses": {"2XX": {"content": {"text/plain": {"example": "text"}}}}}},
        },
        "components": {
            "schemas": {"Pet": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}},
            "responses": {"Made": {"description": "made"}},
        },
    })
}

#[test]
fn operations_answer_by_method_and_path() {
    let config = json!({"openapi": document()});
    for (method, target, status, media, body) in [
        ("GET", "/pets", 200, "application/json", "[{\"name\":\"string\",\"age\":1}]"),
        ("HEAD", "/pets?x", 200, "application/json", "[{\"name\":\"string\",\"age\":1}]"),
        ("POST", "/v1/pets", 201, "", ""),
        ("GET", "/v2/pets/7", 200, "application/json", "{\"name\":\"Rex\"}"),
        ("GET", "/pets/mine", 200, "application/xml", "<data><name>string</name><age>1</age></data>"),
        ("GET", "/files/a.txt", 200, "text/plain", "text"),
        (
            "DELETE",
            "/pets",
            405,
            "application/json",
            "{\"error_msg\":\"the OpenAPI document has no such operation of this path\"}\n",
        ),
        ("GET", "/files/.txt", 404, "application/json", "{\"error_msg\":\"the OpenAPI document has no such path\"}\n"),
        ("GET", "/v3/pets", 404, "application/json", "{\"error_msg\":\"the OpenAPI document has no such path\"}\n"),
    ] {
        let given = mocked(&config, method, target);
        let found = (given.head.status, given.head.fields.get_str("content-type").unwrap_or_default(), text(&given));
        assert_eq!(found, (status, media, body), "{method} {target}");
    }
    assert_eq!(mocked(&config, "GET", "/pets").head.fields.get_str("x-total"), Some("3"));
    assert_eq!(mocked(&config, "DELETE", "/pets").head.fields.get_str("allow"), Some("GET, POST"));
}

#[test]
fn a_document_may_be_text_or_base64_and_another_response_be_wanted() {
    let text_form = document().to_string();
    for openapi in [text_form.clone(), STANDARD.encode(&text_form)] {
        let config = json!({"openapi": openapi, "response_status": 404});
        let given = mocked(&config, "GET", "/pets/7");
        assert_eq!((given.head.status, text(&given)), (404, "{\"gone\":true}"));
        assert_eq!(mocked(&config, "GET", "/pets").head.status, 200, "it has no such response");
    }
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({}), ""),
        (json!({"response_example": "", "response_schema": {}}), ""),
        (json!({"response_schema": []}), "response_schema"),
        (json!({"response_example": "", "delay": -1}), "delay"),
        (json!({"response_example": "", "delay": 1e9}), "delay"),
        (json!({"response_example": "", "response_status": 99}), "response_status"),
        (json!({"response_example": "", "content_type": "a\nb"}), "content_type"),
        (json!({"response_example": "", "response_headers": {"a b": "x"}}), "response_headers.a b"),
        (json!({"openapi": "no"}), "openapi"),
        (json!({"openapi": {"swagger": "2.0"}}), "openapi"),
        (json!({"openapi": {"openapi": "3.0.0"}}), "openapi"),
        (json!({"openapi": {"openapi": "3.0.0", "paths": {}}}), "openapi"),
    ] {
        assert_eq!(faults("mocking", &config), [path], "{config}");
    }
}
