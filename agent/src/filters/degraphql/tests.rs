//! Tests of `degraphql`.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::Flow;
use super::super::testing::{answer, faults, filter, header, settled};
use crate::exchange::testing::request;
use crate::http::Body;

const QUERY: &str = "query person($id: ID, $n: Int) { person(id: $id, n: $n) { name } }";

/// What the upstream would get, or the status of a refusal.
async fn sent(config: &Value, method: &str, target: &str, body: &str) -> Result<Value, u16> {
    let mut x = request(method, "h", target, &[("Content-Type", "text/plain")]);
    x.body = Body::from(Bytes::from(body.to_owned()));
    let flow = filter("degraphql", config).access(&mut x);
    match settled(flow, &mut x).await {
        Flow::Continue => {
            assert_eq!((x.request.method.as_str(), header(&x, "content-type")), ("POST", Some("application/json")));
            Ok(serde_json::from_slice(&x.body.collect(1 << 20).await.unwrap()).unwrap())
        }
        flow => Err(answer(flow).head.status),
    }
}

#[tokio::test]
async fn variables_come_from_arguments_or_the_body() {
    let config = json!({"query": QUERY, "variables": ["id", "n"], "operation_name": "person"});
    let expected = |variables: Value| json!({"query": QUERY, "operationName": "person", "variables": variables});
    assert_eq!(sent(&config, "GET", "/?id=a%20b+c&x=y", "").await.unwrap(), expected(json!({"id": "a b c"})));
    assert_eq!(sent(&config, "POST", "/?id=no", "{\"n\": 7, \"x\": 1}").await.unwrap(), expected(json!({"n": 7})));
}

#[tokio::test]
async fn a_query_may_stand_alone() {
    let config = json!({"query": "{ persons { id } }"});
    let expected = json!({"query": "{ persons { id } }", "variables": {}});
    assert_eq!(sent(&config, "GET", "/?id=1", "").await.unwrap(), expected);
    assert_eq!(sent(&config, "POST", "/", "").await.unwrap(), expected);
}

#[tokio::test]
async fn other_methods_and_bodies_are_refused() {
    let config = json!({"query": QUERY, "variables": ["id"], "max_req_body_size": 20});
    assert_eq!(sent(&config, "PUT", "/", "").await, Err(405));
    for body in ["", "[1]", "{"] {
        assert_eq!(sent(&config, "POST", "/", body).await, Err(400), "{body}");
    }
    assert_eq!(sent(&config, "POST", "/", "{\"id\": \"longer than that\"}").await, Err(413));
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({}), ""),
        (json!({"query": ""}), "query"),
        (json!({"query": "{ a"}), "query"),
        (json!({"query": format!("{{ {} }}", "a ".repeat(600))}), "query"),
        (json!({"query": "query A { a } query B { b }"}), "operation_name"),
        (json!({"query": "query A { a }", "operation_name": "B"}), "operation_name"),
        (json!({"query": "{ a }", "variables": []}), "variables"),
        (json!({"query": "{ a }", "max_req_body_size": 0}), "max_req_body_size"),
    ] {
        assert_eq!(faults("degraphql", &config)[0], path, "{config}");
    }
}
