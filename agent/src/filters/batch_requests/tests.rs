//! Tests of `batch-requests`.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, filter_in, passes, settled};
use super::super::{Filter, Keep};
use super::parts::{Limits, read};
use crate::exchange::testing::{NOW_MS, at, request};
use crate::exchange::{Answer, ConnectionInfo, ConsumerInfo, Directory, Dispatched, Exchange, Inner, Reason};
use crate::http::{Body, RequestHead, ResponseHead};

/// A gateway that tells what it was asked: `/slow` never answers, `/bad` breaks off.
#[derive(Default)]
struct Echo(RefCell<Vec<Inner>>);

impl Directory for Echo {
    fn find_credential(&self, _: &str, _: &[u8]) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn consumer(&self, _: &str) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn dispatch(&self, connection: Rc<ConnectionInfo>, inner: Inner) -> Dispatched {
        assert!(connection.inner);
        let (path, body) = (inner.head.target(), inner.body.clone());
        self.0.borrow_mut().push(inner);
        Box::pin(async move {
            if path == "/slow" {
                std::future::pending::<()>().await;
            }
            if path == "/bad" {
                return Err(Reason::UpstreamReset);
            }
            let mut head = ResponseHead::new(201);
            ["a=1", "b=2"].iter().for_each(|cookie| head.fields.append("Set-Cookie", cookie));
            head.fields.append("X-Path", &path);
            Ok((head, body))
        })
    }
}

fn post(body: &Value, fields: &[(&str, &str)], echo: &Rc<Echo>) -> Exchange {
    let mut x = at(NOW_MS, "POST", "outer.example", "/apisix/batch-requests", fields, echo.clone());
    x.body = Body::from(Bytes::from(body.to_string()));
    x
}

/// The answer to a batch.
fn batch(filter: &Arc<dyn Filter>, body: &Value, fields: &[(&str, &str)]) -> (Box<Answer>, Vec<Inner>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let echo = Rc::new(Echo::default());
    let mut x = post(body, fields, &echo);
    let answer = runtime.block_on(async {
        let flow = filter.access(&mut x);
        answer(settled(flow, &mut x).await)
    });
    drop(x);
    (answer, Rc::into_inner(echo).unwrap().0.into_inner())
}

fn entries(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn requests_are_made_in_order_with_common_and_own_settings() {
    let body = json!({
        "query": {"q": "common", "both": "common"}, "headers": {"X-Common": "1", "X-Both": "common"},
        "pipeline": [
            {"path": "/a", "query": {"both": "own&", "list": [1, true]}, "headers": {"x-both": "own", "Host": "Inner.Example"}},
            {"method": "POST", "path": "/b?x=1", "body": "text", "version": 1.1, "ssl_verify": false},
        ],
    });
    let fields = [("apikey", "k"), ("Content-Type", "application/json"), ("Accept-Encoding", "gzip"), ("X-Common", "outer")];
    let (answer, asked) = batch(&filter("batch-requests", &json!({})), &body, &fields);
    let [first, second] = &asked[..] else { unreachable!("two requests") };
    assert_eq!((first.head.method.as_str(), first.head.authority.as_str()), ("GET", "inner.example"));
    let mut arguments: Vec<_> = first.head.query.as_deref().unwrap().split('&').collect();
    arguments.sort_unstable();
    assert_eq!(arguments, ["both=own%26", "list=1", "list=true", "q=common"]);
    let of = |inner: &Inner, name: &str| inner.head.fields.get_str(name).map(str::to_owned);
    assert_eq!((of(first, "x-both").as_deref(), of(first, "x-common").as_deref()), (Some("own"), Some("1")));
    assert_eq!(
        (of(first, "apikey").as_deref(), of(first, "content-type"), of(first, "accept-encoding")),
        (Some("k"), None, None)
    );
    assert_eq!((second.head.method.as_str(), second.head.authority.as_str()), ("POST", "outer.example"));
    assert_eq!(
        (second.head.path.as_str(), &second.body[..], of(second, "content-length").as_deref()),
        ("/b", &b"text"[..], Some("4"))
    );
    assert!(second.head.query.as_deref().unwrap().starts_with("x=1&"));
    assert_eq!((answer.head.status, answer.reason), (200, Reason::Answered));
    let entries = entries(&answer);
    assert_eq!(
        (&entries[1]["status"], &entries[1]["reason"], &entries[1]["body"]),
        (&json!(201), &json!("Created"), &json!("text"))
    );
    assert_eq!(entries[1]["headers"]["Set-Cookie"], json!(["a=1", "b=2"]));
    assert!(entries[0]["headers"]["X-Path"].as_str().unwrap().starts_with("/a?"));
}

#[test]
fn no_part_says_what_only_a_proxy_before_may_say() {
    let lies = json!({"X-Forwarded-Client-Cert": "URI=boss", "x_forwarded_client_cert": "URI=boss", "X-Forwarded-For": "1.2.3.4",
        "X_Forwarded-Proto": "https", "X-Real-IP": "1.2.3.4", "Forwarded": "for=1.2.3.4", "X-Own": "1"});
    let body = json!({"headers": lies, "pipeline": [{"path": "/a", "headers": lies}]});
    let (_, asked) = batch(&filter("batch-requests", &json!({})), &body, &[("X-Forwarded-For", "9.9.9.9")]);
    let told: Vec<_> = asked[0].head.fields.iter().map(|field| String::from_utf8_lossy(field.name).to_lowercase()).collect();
    assert!(told.contains(&"x-own".to_owned()));
    assert!(
        !told.iter().any(|name| name.contains("cert") || name.contains("real") || name.contains("proto") || name == "forwarded"),
        "{told:?}"
    );
    assert_eq!(asked[0].head.fields.get_str("x-forwarded-for"), Some("9.9.9.9"), "what the proxy before has said of the batch");
}

#[test]
fn what_does_not_answer_is_told_and_the_others_are_not_lost() {
    let body = |timeout: u64| json!({"timeout": timeout, "pipeline": [{"path": "/a"}, {"path": "/bad"}, {"path": "/slow"}, {"path": "/b"}]});
    let statuses = |config: Value, timeout| {
        let (answer, _) = batch(&filter("batch-requests", &config), &body(timeout), &[]);
        let entries = entries(&answer);
        entries.as_array().unwrap().iter().map(|entry| entry["status"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(statuses(json!({}), 50), [201, 502, 504, 201]);
    assert_eq!(statuses(json!({"max_timeout": 10}), 3_600_000), [201, 502, 504, 201], "no batch asks for ever");
    let large =
        json!({"pipeline": [{"path": "/a", "body": "1234"}, {"path": "/b", "body": "12345"}, {"path": "/c", "body": "1"}]});
    let (answer, asked) = batch(&filter("batch-requests", &json!({"max_response_size": 8})), &large, &[]);
    assert_eq!(entries(&answer)[1], json!({"status": 502, "reason": "the answers of the batch are too long"}));
    assert_eq!((entries(&answer)[2]["status"].as_u64(), asked[0].limit), (Some(201), 8));
}

#[test]
fn batches_that_are_none_are_refused() {
    let small = filter("batch-requests", &json!({"max_pipeline_items": 2}));
    let part = |part: Value| json!({ "pipeline": [part] });
    for body in [
        json!({}),
        json!({"pipeline": []}),
        json!({"pipeline": [{"path": "/"}, {"path": "/"}, {"path": "/"}]}),
        json!({"pipeline": [{"path": "/"}], "timeout": 0}),
        json!({"pipeline": [{"path": "/"}], "nope": 0}),
        part(json!({})),
        part(json!({"path": "a"})),
        part(json!({"path": "/a b"})),
        part(json!({"path": "/a#b"})),
        part(json!({"path": "/", "method": "get"})),
        part(json!({"path": "/", "version": 2})),
        part(json!({"path": "/", "headers": {"a b": "c"}})),
        part(json!({"path": "/", "headers": {"a": "b\r\nc: d"}})),
        part(json!({"path": "/", "headers": {"a": []}})),
        part(json!({"path": "/", "headers": {"host": "a b"}})),
        part(json!({"path": "/", "query": {"a": {}}})),
    ] {
        let (answer, asked) = batch(&small, &body, &[]);
        assert!(answer.head.status == 400 && entries(&answer)["error_msg"].is_string() && asked.is_empty(), "{body}");
    }
    let head = RequestHead::default();
    let limits = Limits { items: 1, timeout: Duration::from_secs(1) };
    assert!(read(b"", &head, limits).unwrap_err().starts_with("no request body"));
    assert!(read(b"{", &head, limits).unwrap_err().starts_with("invalid request body"));
}

#[test]
fn a_batch_has_its_path_and_holds_no_batches() {
    let plain = filter("batch-requests", &json!({}));
    for (method, path) in [("GET", "/apisix/batch-requests"), ("POST", "/other")] {
        assert!(passes(plain.access(&mut request(method, "h", path, &[]))));
    }
    let named = filter("batch-requests", &json!({"uri": "/many", "max_body_size": 5}));
    let mut x = request("POST", "h", "/many", &[]);
    assert!(matches!(named.access(&mut x), super::super::Flow::Body { limit: 5, .. }));
    x.connection = Rc::new(ConnectionInfo { inner: true, ..ConnectionInfo::clone(&x.connection) });
    assert_eq!(answer(named.access(&mut x)).head.status, 400);
}

#[test]
fn bounds_come_from_the_metadata_and_the_route_outranks_it() {
    let metadata = json!({"max_body_size": 7, "max_pipeline_items": 1});
    let limit = |config: Value| {
        let filter = filter_in("batch-requests", &config, Some(&metadata), &Keep::default());
        match filter.access(&mut request("POST", "h", "/apisix/batch-requests", &[])) {
            super::super::Flow::Body { limit, .. } => limit,
            _ => 0,
        }
    };
    assert_eq!((limit(json!({})), limit(json!({"max_body_size": 9}))), (7, 9));
    let one = filter_in("batch-requests", &json!({"max_body_size": 99}), Some(&metadata), &Keep::default());
    let (answer, _) = batch(&one, &json!({"pipeline": [{"path": "/"}, {"path": "/"}]}), &[]);
    assert_eq!(answer.head.status, 400);
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({"uri": "x"}), "uri"),
        (json!({"max_body_size": 0}), "max_body_size"),
        (json!({"max_pipeline_items": 10_001}), "max_pipeline_items"),
        (json!({"max_response_size": 0}), "max_response_size"),
        (json!({"max_timeout": 0}), "max_timeout"),
    ] {
        assert_eq!(faults("batch-requests", &config), [path], "{config}");
    }
    let place = heddle_xds::catalog::Place::Metadata;
    assert_eq!((super::PLUGIN.check)(place, &json!({"max_body_size": 0})).unwrap_err()[0].path, "max_body_size");
}

proptest! {
    #[test]
    fn no_batch_makes_a_request_that_is_malformed(path in ".{0,12}", name in ".{0,8}", value in ".{0,8}", method in "[A-Z]{0,7}") {
        let told = json!({"pipeline": [{"method": method, "path": path, "headers": {name.as_str(): value}, "query": {name.as_str(): value}}]});
        let limits = Limits { items: 1, timeout: Duration::from_secs(1) };
        if let Ok(batch) = read(told.to_string().as_bytes(), &RequestHead::default(), limits) {
            let head = &batch.parts[0].head;
            prop_assert!(head.path.starts_with('/'));
            prop_assert!(head.target().bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
            for field in head.fields.iter() {
                prop_assert!(crate::http::chars::is_token(field.name) && crate::http::chars::is_value(field.value));
            }
        }
    }
}
